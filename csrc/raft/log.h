/* Which terms and configurations begin where in the log; no payloads.
 *
 *     snapshot          runs[0]        runs[1]     runs[2]
 *     term 3, index 40  term 3 at 41   term 5 at 47 term 6 at 60 ... last_index 75
 *
 * A run is a stretch of entries of one term, so that memory grows with elections, not with
 * commands. Must not know: roles, peers, what is durable or committed.
 *
 * Invariant: runs rise in term and in first index; runs[0].first == snapshot.index + 1 where
 * there are entries at all; configurations rise in index, all in (snapshot.index, last_index].
 */
#ifndef RAFTPICO_RAFT_LOG_H
#define RAFTPICO_RAFT_LOG_H

#include "raft/raft.h"

struct log_run {
    uint64_t term;
    uint64_t first; /* index of its first entry */
    bool noop;      /* that entry is a NOOP (only the first one of a term ever is) */
};

struct log_configuration {
    uint64_t index;
    struct raft_configuration configuration;
};

struct log {
    struct raft_position snapshot; /* the log begins after this; {0, 0}: at index 1 */
    struct log_configuration base; /* in force at the snapshot; its index may lie before it */
    uint64_t last_index;
    struct log_run *runs;
    uint32_t run_count;
    uint32_t run_capacity;
    struct log_configuration *configurations;
    uint32_t configuration_count;
    uint32_t configuration_capacity;
};

void log_init(struct log *log, struct raft_position snapshot,
              const struct raft_configuration *configuration, uint64_t configuration_index);
void log_clear(struct log *log);

/* Room for so many more runs and configurations; false: no memory, nothing changed. */
bool log_reserve(struct log *log, uint32_t runs, uint32_t configurations) MUST_USE;

/* Append; room was reserved. Terms never decrease. */
void log_append(struct log *log, const struct raft_entry *entry);
void log_append_commands(struct log *log, uint64_t term, uint32_t count);

/* Drop the entries at and after `index`, which is past the snapshot. */
void log_truncate(struct log *log, uint64_t index);

/* Let the log begin after `index`, which it has. */
void log_compact(struct log *log, uint64_t index);

/* Drop everything: an empty log after a snapshot from elsewhere. */
void log_reset(struct log *log, struct raft_position snapshot,
               const struct raft_configuration *configuration, uint64_t configuration_index);

/* The term at `index`: 0 before the snapshot, past the log, and at index 0. */
uint64_t log_term_at(const struct log *log, uint64_t index);
struct raft_position log_last(const struct log *log);

/* Whether the log has this very position (the snapshot's own and {0, 0} included). */
bool log_has(const struct log *log, struct raft_position position);

/* The last position at or before `index` whose term is at most `term`; the snapshot's position
 * when there is none after it. */
struct raft_position log_find(const struct log *log, uint64_t index, uint64_t term);

enum raft_entry_kind log_kind_at(const struct log *log, uint64_t index,
                                 const struct raft_configuration **configuration);

/* The one in force at `index` (snapshot.index <= index), committed or not. */
const struct log_configuration *log_configuration_at(const struct log *log, uint64_t index);

#endif
