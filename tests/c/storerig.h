/* A store under test: opened with a visitor that remembers all that was recovered. */
#ifndef RAFTPICO_TESTS_STORERIG_H
#define RAFTPICO_TESTS_STORERIG_H

#include "logmaker.h"
#include "storage/store.h"

struct storerig {
    struct store *store; /* NULL: closed */
    struct store_options options;
    struct store_recovery recovery;
    struct error error;
    struct buffer snapshot_header; /* recovered */
    struct buffer lines;           /* recovered, all in one */
    uint64_t entry_count;
    uint64_t last_index;
    uint64_t last_term;
    uint32_t last_crc;
};

void storerig_init(struct storerig *rig, const char *path, uint64_t segment_bytes);
enum status storerig_open(struct storerig *rig);
void storerig_close(struct storerig *rig);
void storerig_clear(struct storerig *rig);

/* The recovered entries, and what store_read gives, are exactly first..last of the log. */
void storerig_check_log(struct storerig *rig, const struct logmaker *log, uint64_t first,
                        uint64_t last);

enum status storerig_save_term(struct storerig *rig, uint64_t term, uint64_t voted_for);
enum status storerig_snapshot(struct storerig *rig, enum store_slot slot,
                              const struct logmaker *log, uint64_t index, bool reset_log,
                              uint64_t keep_entries);

#endif
