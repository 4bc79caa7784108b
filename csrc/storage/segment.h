/* What is known in memory about one file of the log: its range, its size, and a sparse index.
 *
 *     entries   | 7 | 8 | 9 | ...            | 70 | 71 | ...      | blank filling |
 *     marks     ^ {7, offset 0, seed}        ^ {70, offset, seed}
 *     bytes     |<------------------------------------------------>|
 *     filled    |<--------------------------------------------------------------->|
 *
 * A mark is made for each 64 entries or 64 KiB, whichever comes first: 24 bytes of memory
 * instead of an offset for every entry, and a read passes over little. A mark's seed is the
 * checksum of the entry before it, so what is read from there on is checked again.
 *
 * Invariant: bytes <= filled; marks rise; the first mark is at the first entry that may be
 * read. */
#ifndef RAFTPICO_STORAGE_SEGMENT_H
#define RAFTPICO_STORAGE_SEGMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "storage/file.h"

struct segment_mark {
    uint64_t index;
    uint64_t offset;
    uint32_t seed;
};

struct segment {
    uint64_t first_index; /* its name */
    uint64_t last_index;  /* first_index - 1: empty */
    uint64_t bytes;       /* of lines */
    uint64_t filled;      /* the file's size */
    struct segment_mark *marks;
    size_t mark_count;
    size_t mark_capacity;
};

void segment_init(struct segment *segment, uint64_t first_index);
void segment_clear(struct segment *segment);

/* The name of a numbered file / its number; false for any other name. */
void segment_name(const char *prefix, uint64_t index, char name[NAME_BYTES_MAX]);
bool segment_parse_name(const char *prefix, const char *name, uint64_t *index);

/* Note that entry `index` begins at `offset`; makes a mark when one is due. */
void segment_mark(struct segment *segment, uint64_t index, uint64_t offset, uint32_t seed);

/* The last mark at or before `index`, which must not come before the first mark. */
const struct segment_mark *segment_find(const struct segment *segment, uint64_t index);

/* Forget the entries at and after `index`, which begins at `offset`. */
void segment_truncate(struct segment *segment, uint64_t index, uint64_t offset);

#endif
