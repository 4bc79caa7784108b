/* The line of a log entry: the same bytes on every disk and on every wire.
 *
 *   {"index":7,"term":2,"time":1732406400123,"from":[1,4,93],"input":{"Get":"a"},"crc32c":".."}
 *   {"index":7,"term":2,"time":1732406400123,"from":[1,4,93],"session":["a",5],"input":..}
 *   {"index":8,"term":3,"time":1732406400200,"noop":true,"crc32c":"9a3f00c2"}
 *   {"index":9,"term":3,"time":1732406400300,"configuration":{...},"crc32c":"..."}
 *
 *   index          from 1 on, without a gap
 *   term           of the leader that made the entry; never less than that of the one before
 *   time           its clock, ms since 1970; never less than that of the one before
 *   from           who took the command: [node id, that server's life, a number in that life]
 *   session        where the client named one: its name, a JSON string, and the client's own
 *                  number of the command (node/sessions.h)
 *   input          the command: the client's own bytes, from here to the seal
 *   noop           a leader's first entry: it commits what earlier terms have left (C1, L1)
 *   configuration  the members from here on (wire/configuration.h)
 *
 * One of `from` with `input` (and perhaps `session`), `noop` and `configuration` is there. The
 * member order is fixed, there are no spaces outside the input; numbers are plain digits up to
 * 2^53 - 1, without a leading zero. The checksum is chained: seeded with that of the entry
 * before (line.h). */
#ifndef RAFTPICO_WIRE_ENTRY_H
#define RAFTPICO_WIRE_ENTRY_H

#include <stdint.h>

#include "base/buffer.h"
#include "base/limits.h"
#include "base/status.h"

#define ENTRY_LINE_BYTES_LEAST 62u /* of any entry's line with its LF: the first NOOP's */

enum entry_kind {
    ENTRY_COMMAND,
    ENTRY_NOOP,
    ENTRY_CONFIGURATION,
};

/* Who took a command: members apply a tag once, so a server can give it to a leader again. */
struct entry_tag {
    uint64_t node;        /* id of the server that took it */
    uint64_t incarnation; /* that server's life */
    uint64_t sequence;    /* rising by one within the life, from 1 */
};

struct entry {
    uint64_t index;
    uint64_t term;
    uint64_t time_ms; /* leader's wall clock, ms since 1970; never goes back in the log */
    enum entry_kind kind;
    struct entry_tag tag; /* COMMAND only */
    struct span session;  /* COMMAND: the client's session, a JSON string's inside with only
                             the escapes that must be; empty: none. Borrowed when read. */
    uint64_t session_seq; /* from 1; 0 without a session */
    struct span body;     /* COMMAND: the input's JSON text. CONFIGURATION: its JSON object's
                             text. NOOP: empty. Borrowed from the line when read. */
};

/* Append the sealed line of `entry`, LF included; returns its checksum. */
uint32_t entry_write(struct buffer *lines, const struct entry *entry, uint32_t previous_crc);

/* Read and check a whole line. STATUS_CORRUPT: wrong seal or chain, or not the fixed form. The
 * input itself is not parsed: it was valid when the leader sealed it. Numbers are bounded by
 * NUMBER_MAX. */
enum status entry_read(struct span line, uint32_t previous_crc, struct entry *entry,
                       uint32_t *crc) MUST_USE;

/* The same without checking the seal, for lines that were checked before. */
enum status entry_parse(struct span line, struct entry *entry) MUST_USE;

#endif
