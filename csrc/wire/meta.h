/* A record of meta.jsonl: identity, term and vote, sealed with seed 0. In one line:
 *
 *   {"cluster":"<32 hex digits or nothing>","address":"127.0.0.1:4000",
 *    "node":1,"incarnation":3,
 *    "term":7,"voted_for":2,"removed":false,"crc32c":"9a3f00c2"}
 *
 *   cluster       drawn by CreateCluster; "" before the server belongs to one
 *   address       that the directory was first used with: another server's is refused
 *   node          the member's id, never given twice in a cluster; 0: no member
 *   incarnation   counted up, durably, by every opening: the server's life
 *   term          the current term (3.3), and
 *   voted_for     whom it voted for in it; 0: nobody. One record, so that no crash parts them
 *   removed       the cluster has removed this member
 *
 * The file is one block of 4096 bytes, its rest filled with LF. The last record counts; a torn
 * one behind it was never acknowledged. The order is fixed, there are no spaces. */
#ifndef RAFTPICO_WIRE_META_H
#define RAFTPICO_WIRE_META_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/limits.h"
#include "base/status.h"

#define CLUSTER_ID_BYTES                                                                       \
    33 /* 32 hexadecimal digits and a NUL; "" before there is a cluster                        \
        */

struct meta {
    char cluster_id[CLUSTER_ID_BYTES];
    char address[ADDRESS_BYTES_MAX]; /* that this directory was first used with */
    uint64_t node_id;                /* 0: not a member yet */
    uint64_t incarnation;            /* counted up, durably, by every opening */
    uint64_t term;
    uint64_t voted_for; /* 0: nobody */
    bool removed;       /* has been removed from its cluster */
};

#define META_LINE_BYTES_MAX 640u /* a record with its seal and LF */

/* Whether every member is in its range and can be written. */
bool meta_valid(const struct meta *meta);

void meta_write(struct buffer *line, const struct meta *meta); /* sealed, LF included */
/* Strict: STATUS_CORRUPT for anything that meta_write does not write. */
enum status meta_read(struct span line, struct meta *meta) MUST_USE;

#endif
