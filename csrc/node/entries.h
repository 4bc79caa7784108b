/* The lines of recent log entries in memory: blocks of text with a flat index.
 *
 *     first                                                          last
 *     | block: lines ........ | block: lines ........ | block: lines ...|
 *
 * Lines enter at the end only, leave at the end (a conflict) or in whole blocks at the front
 * (old and durable). A line never moves while it is here. Invariant: the lines are those of
 * consecutive indexes, `tail_crc` is the last one's checksum. */
#ifndef RAFTPICO_NODE_ENTRIES_H
#define RAFTPICO_NODE_ENTRIES_H

#include <stdint.h>

#include "base/buffer.h"

struct entries_block;

struct entries {
    struct entries_block **blocks; /* in order, `start` .. `start + count` of the array */
    uint32_t start;
    uint32_t count;
    uint32_t capacity;
    uint64_t first;        /* index of the first line held; last + 1 when none is */
    uint64_t last;         /* index of the last line, held or not */
    uint32_t tail_crc;     /* checksum of line `last`: the seed of the next one */
    uint64_t tail_time_ms; /* its time: the next one is not earlier */
    uint64_t bytes;        /* of all blocks */
};

/* Empty, behind position `last` whose checksum and time are known. */
void entries_init(struct entries *entries, uint64_t last, uint32_t crc, uint64_t time_ms);
void entries_clear(struct entries *entries);

/* Where the next line of at most `bytes_max` may be written; entries_commit then says how long
 * it became and what its checksum is. */
struct buffer *entries_begin(struct entries *entries, size_t bytes_max);
void entries_commit(struct entries *entries, size_t line_start, uint32_t crc, uint64_t time_ms);

/* The line at `index` (LF included), or an empty span when it is not held. */
struct span entries_peek(const struct entries *entries, uint64_t index);

/* Bytes of the lines behind `index` that are held. Costs as many steps as there are blocks. */
uint64_t entries_bytes_after(const struct entries *entries, uint64_t index);

/* Append lines first.. up to `last` to `out` while they fit in `bytes_max` (at least one);
 * returns the index behind the last one copied. With `offsets` (room for last - first + 1) says
 * where each begins, counted from `out`'s size at the call. `first` must be held. */
uint64_t entries_copy(const struct entries *entries, uint64_t first, uint64_t last,
                      size_t bytes_max, struct buffer *out, uint32_t *offsets);

/* Drop lines at and after `index`; the new tail must be held or `crc`, `time_ms` say what it
 * is. */
void entries_truncate(struct entries *entries, uint64_t index, uint32_t crc, uint64_t time_ms);

/* Drop whole blocks at the front that end before `index` while more than `bytes_keep` are held.
 */
void entries_evict(struct entries *entries, uint64_t index, uint64_t bytes_keep);

#endif
