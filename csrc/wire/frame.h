/* Bytes to lines: consumed, need more, or too long. Never looks at a byte twice. */
#ifndef RAFTPICO_WIRE_FRAME_H
#define RAFTPICO_WIRE_FRAME_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buffer.h"

struct frame {
    size_t scanned; /* bytes of the unfinished line known to hold no LF */
};

enum frame_result {
    FRAME_LINE, /* `*line` is a line without its LF; `*consumed` bytes of input are done with */
    FRAME_MORE, /* no LF yet: call again with the same bytes and more behind them */
    FRAME_TOO_LONG, /* no LF within `bytes_max`: cannot resynchronise */
};

/* Find the next line at the start of `input`. */
enum frame_result frame_next(struct frame *frame, struct span input, size_t bytes_max,
                             struct span *line, size_t *consumed);

/* Whether a line is the start of an HTTP request or one of its headers ("GET / HTTP/1.1",
 * "Host: x"): then the connection is closed, so that no web page makes its reader's browser
 * send requests here in a body. Never true of what begins with { or [, nor of any JSON. */
bool frame_looks_like_http(struct span line);

#endif
