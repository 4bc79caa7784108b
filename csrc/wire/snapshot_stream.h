/* A snapshot's lines, made and sealed piece by piece, so that a state of any size - one value
 * of a gigabyte too - passes through a buffer of a bounded size on its way to a file.
 *
 *   begin    the head: the header line (snapshot_write_header) and the lines of sessions
 *            (snapshot_write_session), sealed already
 *   open     a state line; append its JSON to `out`, in as many pieces as it takes; close it
 *   end      the trailer
 *   at any time between two appends: peek at what is there, carry it away, and say so (taken)
 *
 * Invariant: what was taken, put together, is byte for byte what snapshot_write_state and
 * snapshot_write_end would have made of the same values. */
#ifndef RAFTPICO_WIRE_SNAPSHOT_STREAM_H
#define RAFTPICO_WIRE_SNAPSHOT_STREAM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/status.h"

struct snapshot_stream {
    struct buffer out;    /* made and not taken yet */
    size_t covered;       /* bytes at the front of `out` that `crc` counts already */
    uint32_t crc;         /* of the open line so far, from its seed on */
    bool in_line;         /* a state line is open */
    uint64_t bytes;       /* taken so far: where `out` belongs in the file */
    uint64_t state_lines; /* closed ones */
};

/* STATUS_CORRUPT: a line of `head` has no right seal; nothing was begun. */
enum status snapshot_stream_begin(struct snapshot_stream *stream, struct span head) MUST_USE;
void snapshot_stream_open_line(struct snapshot_stream *stream);
void snapshot_stream_close_line(struct snapshot_stream *stream);
void snapshot_stream_end(struct snapshot_stream *stream);

/* Borrowed until the next call. */
struct span snapshot_stream_peek(const struct snapshot_stream *stream);
void snapshot_stream_taken(struct snapshot_stream *stream);

void snapshot_stream_clear(struct snapshot_stream *stream); /* frees; begin may follow */

#endif
