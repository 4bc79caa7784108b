/* The line of meta.jsonl as text: identity, term and vote, sealed with seed 0. */
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
