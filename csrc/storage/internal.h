/* What the files of the journal share among themselves, and nobody else needs. */
#ifndef RAFTPICO_STORAGE_INTERNAL_H
#define RAFTPICO_STORAGE_INTERNAL_H

#include "storage/journal.h"

static inline struct segment *journal_peek_last(struct journal *journal) {
    return journal->count > 0 ? &journal->segments[journal->count - 1] : NULL;
}

/* Open the last segment to write, when it is not open yet. */
enum status journal_open_active(struct journal *journal, struct error *error) MUST_USE;

/* Where entry `index` of a segment begins, and the checksum of the entry before it. `index` may
 * be the one behind the last entry. */
enum status journal_locate(struct journal *journal, const struct segment *segment,
                           uint64_t index, uint64_t *offset, uint32_t *seed,
                           struct error *error) MUST_USE;

#endif
