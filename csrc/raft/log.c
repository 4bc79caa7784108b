/* Runs of terms and the configurations among them; see log.h. */
#include "raft/log.h"

#include <string.h>

#include "base/assert.h"
#include "base/memory.h"

#define CAPACITY_LEAST 8u

void log_init(struct log *log, struct raft_position snapshot,
              const struct raft_configuration *configuration, uint64_t configuration_index) {
    *log = (struct log){0};
    log_reset(log, snapshot, configuration, configuration_index);
}

void log_clear(struct log *log) {
    memory_free(log->runs);
    memory_free(log->configurations);
    *log = (struct log){0};
}

static bool grow(void **items, uint32_t *capacity, uint32_t count, uint32_t more,
                 size_t bytes) {
    if (*capacity - count >= more) {
        return true;
    }
    if (more > UINT32_MAX / 4 || count > UINT32_MAX / 4) {
        return false;
    }
    uint32_t wanted = *capacity * 2 > count + more ? *capacity * 2 : count + more;
    if (wanted < CAPACITY_LEAST) {
        wanted = CAPACITY_LEAST;
    }
    void *grown = memory_grow(*items, wanted * bytes);
    if (grown == NULL) {
        return false;
    }
    *items = grown;
    *capacity = wanted;
    return true;
}

bool log_reserve(struct log *log, uint32_t runs, uint32_t configurations) {
    void *run_items = log->runs;
    bool have = grow(&run_items, &log->run_capacity, log->run_count, runs, sizeof(*log->runs));
    log->runs = run_items;
    if (!have) {
        return false;
    }
    void *items = log->configurations;
    have = grow(&items, &log->configuration_capacity, log->configuration_count, configurations,
                sizeof(*log->configurations));
    log->configurations = items;
    return have;
}

static void extend(struct log *log, uint64_t term, bool noop, uint32_t count) {
    ASSERT(term > 0);
    ASSERT(term >= log_last(log).term);
    if (log->run_count == 0 || log->runs[log->run_count - 1].term != term) {
        ASSERT(log->run_count < log->run_capacity);
        log->runs[log->run_count++] =
            (struct log_run){.term = term, .first = log->last_index + 1, .noop = noop};
    }
    log->last_index += count;
}

void log_append(struct log *log, const struct raft_entry *entry) {
    extend(log, entry->term, entry->kind == RAFT_ENTRY_NOOP, 1);
    if (entry->kind == RAFT_ENTRY_CONFIGURATION) {
        ASSERT(log->configuration_count < log->configuration_capacity);
        log->configurations[log->configuration_count++] = (struct log_configuration){
            .index = log->last_index, .configuration = *entry->configuration};
    }
}

void log_append_commands(struct log *log, uint64_t term, uint32_t count) {
    ASSERT(count > 0);
    extend(log, term, false, count);
}

void log_truncate(struct log *log, uint64_t index) {
    ASSERT(index > log->snapshot.index);
    if (index > log->last_index) {
        return;
    }
    while (log->run_count > 0 && log->runs[log->run_count - 1].first >= index) {
        log->run_count -= 1;
    }
    while (log->configuration_count > 0 &&
           log->configurations[log->configuration_count - 1].index >= index) {
        log->configuration_count -= 1;
    }
    log->last_index = index - 1;
}

/* The run that holds `index`; the log has such an entry. */
static uint32_t find_run(const struct log *log, uint64_t index) {
    uint32_t low = 0;
    uint32_t high = log->run_count;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (log->runs[middle].first <= index) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

/* How many configurations of the log stand at or before `index`. */
static uint32_t count_configurations(const struct log *log, uint64_t index) {
    uint32_t count = log->configuration_count;
    while (count > 0 && log->configurations[count - 1].index > index) {
        count -= 1;
    }
    return count;
}

void log_compact(struct log *log, uint64_t index) {
    ASSERT(index > log->snapshot.index && index <= log->last_index);
    struct raft_position position = {log_term_at(log, index), index};
    uint32_t past = count_configurations(log, index);
    if (past > 0) {
        log->base = log->configurations[past - 1];
        log->configuration_count -= past;
        memmove(log->configurations, log->configurations + past,
                log->configuration_count * sizeof(*log->configurations));
    }
    uint32_t run = find_run(log, index);
    bool ends_here = index == log->last_index ||
                     (run + 1 < log->run_count && log->runs[run + 1].first == index + 1);
    if (ends_here) {
        run += 1;
    } else {
        log->runs[run].first = index + 1;
        log->runs[run].noop = false;
    }
    log->run_count -= run;
    memmove(log->runs, log->runs + run, log->run_count * sizeof(*log->runs));
    log->snapshot = position;
}

void log_reset(struct log *log, struct raft_position snapshot,
               const struct raft_configuration *configuration, uint64_t configuration_index) {
    log->snapshot = snapshot;
    log->base = (struct log_configuration){.index = configuration_index,
                                           .configuration = *configuration};
    log->last_index = snapshot.index;
    log->run_count = 0;
    log->configuration_count = 0;
}

uint64_t log_term_at(const struct log *log, uint64_t index) {
    if (index == log->snapshot.index) {
        return log->snapshot.term;
    }
    if (index < log->snapshot.index || index > log->last_index) {
        return 0;
    }
    return log->runs[find_run(log, index)].term;
}

struct raft_position log_last(const struct log *log) {
    uint64_t term =
        log->run_count > 0 ? log->runs[log->run_count - 1].term : log->snapshot.term;
    return (struct raft_position){term, log->last_index};
}

bool log_has(const struct log *log, struct raft_position position) {
    if (position.index == 0) {
        return position.term == 0;
    }
    return position.term > 0 && log_term_at(log, position.index) == position.term;
}

struct raft_position log_find(const struct log *log, uint64_t index, uint64_t term) {
    uint32_t low = 0; /* runs before `low` are of a fitting term */
    uint32_t high = log->run_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (log->runs[middle].term <= term) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    uint64_t end = low < log->run_count ? log->runs[low].first - 1 : log->last_index;
    uint64_t at = index < end ? index : end;
    if (at <= log->snapshot.index) {
        return log->snapshot;
    }
    return (struct raft_position){log_term_at(log, at), at};
}

enum raft_entry_kind log_kind_at(const struct log *log, uint64_t index,
                                 const struct raft_configuration **configuration) {
    *configuration = NULL;
    if (index <= log->snapshot.index || index > log->last_index) {
        return RAFT_ENTRY_COMMAND;
    }
    uint32_t count = count_configurations(log, index);
    if (count > 0 && log->configurations[count - 1].index == index) {
        *configuration = &log->configurations[count - 1].configuration;
        return RAFT_ENTRY_CONFIGURATION;
    }
    const struct log_run *run = &log->runs[find_run(log, index)];
    return run->first == index && run->noop ? RAFT_ENTRY_NOOP : RAFT_ENTRY_COMMAND;
}

const struct log_configuration *log_configuration_at(const struct log *log, uint64_t index) {
    ASSERT(index >= log->snapshot.index);
    uint32_t count = count_configurations(log, index);
    return count > 0 ? &log->configurations[count - 1] : &log->base;
}
