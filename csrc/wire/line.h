/* The seal on a stored line: `,"crc32c":"9a3f00c2"}` and LF at its end.
 *
 * The checksum covers every byte of the line before the comma, going on from a seed: for log
 * entries the seed is the previous entry's checksum (a chain), elsewhere 0. The digits are
 * eight, lower case, strictly - a reader that took upper case would let a flipped bit through.
 */
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
