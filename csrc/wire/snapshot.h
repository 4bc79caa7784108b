/* The lines of a snapshot file.
 *
 *   {"snapshot":{"cluster":"..","index":9,"term":3,"chain":"9a3f00c2","time":1732406400123,
 *    "configuration_index":5,"configuration":{..},"sessions":[[1,4,93],..]},"crc32c":".."}
 *   {"session":["a",5,1732406400123,7,0,<answer>],"crc32c":".."}           any number of these
 *   {"state":<a piece of the machine's state, any JSON>,"crc32c":".."}      any number of these
 *   {"end":{"lines":3,"bytes":12345},"crc32c":".."}
 *
 * The header is one line (broken here):
 *
 *   cluster               as in meta.jsonl
 *   index, term, time     of the last entry that is in the state; index is the file's name
 *   chain                 that entry's checksum, the seed of the entry that follows
 *   configuration_index,  the last configuration at or before index, with its entry's index
 *   configuration
 *   sessions              the last applied tag of each server (entry.h, "from"), so that a
 *                         command that comes again behind the snapshot is not applied again
 *
 * Each client's session is a line of its own, whose content is node/sessions.h's. The pieces of
 * state are the machine's own, in its order. The trailer counts the state lines, and all bytes
 * before itself; nothing follows it. Seals are chained from line to line, the
 * header's seed is 0: a lost, doubled or swapped line shows. */
#ifndef RAFTPICO_WIRE_SNAPSHOT_H
#define RAFTPICO_WIRE_SNAPSHOT_H

#include <stdint.h>

#include "base/buffer.h"
#include "base/status.h"
#include "wire/entry.h"
#include "wire/meta.h"

#define SNAPSHOT_LINE_BYTES_MAX (1u << 30) /* a longer line is no snapshot's: bounds memory */
#define TAGS_MAX 256u /* servers whose last applied tag is kept: members, and a margin */

struct snapshot_header {
    char cluster_id[CLUSTER_ID_BYTES];
    uint64_t index;
    uint64_t term;
    uint32_t chain_crc;
    uint64_t time_ms; /* of the entry at index: time goes on from here */
    uint64_t configuration_index;
    struct span configuration; /* JSON, as in a CONFIGURATION entry; borrowed */
    uint32_t tag_count;
    struct entry_tag tags[TAGS_MAX]; /* last applied tag of each server */
};

/* Append the sealed header line; returns its checksum, the seed of the next line. */
uint32_t snapshot_write_header(struct buffer *out, const struct snapshot_header *header);
uint32_t snapshot_write_session(struct buffer *out, struct span json, uint32_t seed);
uint32_t snapshot_write_state(struct buffer *out, struct span json, uint32_t seed);
void snapshot_write_end(struct buffer *out, uint64_t state_lines, uint64_t bytes_before,
                        uint32_t seed);

/* Read the header line (whole, LF included); `configuration` is borrowed from the line. */
enum status snapshot_read_header(struct span line, struct snapshot_header *header,
                                 uint32_t *crc) MUST_USE;

/* Check a file as it streams by: feed pieces of any size, then finish. `session` and `state`
 * (may be NULL) are called with the text of each session and of each state value. */
struct snapshot_check {
    struct buffer partial;
    uint32_t seed;
    uint64_t bytes;
    uint64_t session_lines;
    uint64_t state_lines;
    int stage;                     /* 0 header, 1 state, 2 done */
    struct snapshot_header header; /* configuration points into header_line */
    struct buffer header_line;
    void *context;
    enum status (*session)(void *context, struct span json);
    enum status (*state)(void *context, struct span json);
};
void snapshot_check_init(struct snapshot_check *check);
enum status snapshot_check_feed(struct snapshot_check *check, struct span bytes) MUST_USE;
enum status snapshot_check_finish(struct snapshot_check *check) MUST_USE; /* whole and right? */
void snapshot_check_clear(struct snapshot_check *check);
/* The number of the line that is looked at, from 1: where a damaged file is damaged. */
uint64_t snapshot_check_line(const struct snapshot_check *check);

#endif
