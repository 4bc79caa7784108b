/* A log for tests: entries with recognisable content, chained as a leader would chain them. */
#ifndef RAFTPICO_TESTS_LOGMAKER_H
#define RAFTPICO_TESTS_LOGMAKER_H

#include <stdint.h>

#include "base/buffer.h"
#include "storage/store.h"

#define LOGMAKER_ENTRIES_MAX 512u

/* Entries base + 1 .. last; lines[i - base - 1] is the line of entry i. */
struct logmaker {
    uint64_t base;
    uint64_t base_term;
    uint32_t base_crc;
    uint64_t last;
    struct buffer lines[LOGMAKER_ENTRIES_MAX];
    uint32_t crcs[LOGMAKER_ENTRIES_MAX];
    uint64_t terms[LOGMAKER_ENTRIES_MAX];
};

void logmaker_init(struct logmaker *log, uint64_t base, uint64_t base_term, uint32_t base_crc);
void logmaker_clear(struct logmaker *log);
void logmaker_copy(struct logmaker *into, const struct logmaker *from);
/* Add an entry whose input is about `bytes` long. */
void logmaker_add(struct logmaker *log, uint64_t term, size_t bytes);
void logmaker_cut(struct logmaker *log, uint64_t index); /* entries at and after it go */
uint32_t logmaker_crc(const struct logmaker *log, uint64_t index);  /* base and later */
uint64_t logmaker_term(const struct logmaker *log, uint64_t index); /* base and later */
struct span logmaker_line(const struct logmaker *log, uint64_t index);

/* store_append of entries first..last of the log. */
enum status logmaker_append(const struct logmaker *log, struct store *store, uint64_t first,
                            uint64_t last, struct error *error);

/* A whole snapshot file at `index`, with `lines` state lines. */
void logmaker_snapshot(struct buffer *out, const struct logmaker *log, uint64_t index,
                       unsigned lines);

#endif
