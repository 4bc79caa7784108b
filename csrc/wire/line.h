/* The seal on a stored line: `,"crc32c":"9a3f00c2"}` and LF at its end, 22 bytes.
 *
 * Every line of every file is one JSON object on one line; its last member is the seal, and the
 * seal's brace is the object's. The checksum covers every byte of the line before the seal's
 * comma, going on from a seed: CRC-32C (Castagnoli: polynomial 1EDC6F41, reflected 82F63B78),
 * where the register starts as `seed ^ ffffffff` and the result is the register ^ ffffffff, as
 * is usual, so that crc(crc(0, a), b) is the checksum of a followed by b. The seed is
 *
 *   0                            of each record of meta.jsonl, of the line of quarantine.jsonl,
 *                                of entry 1, of a snapshot's first line
 *   the checksum of the line     of every other entry (over the borders of the segments, too)
 *   before                       and of every other line of a snapshot
 *
 * so eight digits at one entry stand for the whole log up to it, and a line that was lost,
 * doubled, swapped or put in shows in all that follow. A log that begins behind a snapshot goes
 * on from the snapshot's member "chain".
 *
 * The digits are eight, lower case, strictly - a reader that took upper case would let a
 * flipped bit through. Blank lines are filling and mean nothing (storage/layout.h). A NUL byte
 * or another control character stands in no line: JSON escapes it. */
#ifndef RAFTPICO_WIRE_LINE_H
#define RAFTPICO_WIRE_LINE_H

#include <stdint.h>

#include "base/buffer.h"
#include "base/status.h"

#define LINE_SEAL_BYTES 22 /* ,"crc32c":"XXXXXXXX"}\n counted with its LF */

/* Close the line that begins at offset `line_start` (from buffer->bytes) and so far reads
 * `{"a":1,...` without its closing brace. Returns its checksum. */
uint32_t line_seal(struct buffer *buffer, size_t line_start, uint32_t seed);

/* Check the seal of `line` (with its LF). On success `*body` is what stands before the seal and
 * `*crc` the checksum. STATUS_CORRUPT: no seal, or it does not match. */
enum status line_check(struct span line, uint32_t seed, struct span *body,
                       uint32_t *crc) MUST_USE;

/* Read the digits of a seal without checking them; STATUS_CORRUPT where there is none. */
enum status line_peek_crc(struct span line, struct span *body, uint32_t *crc) MUST_USE;

#endif
