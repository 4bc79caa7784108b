/* Between the core and the world: a step's consequences for our lines, a turn's actions to
 * messages and to the disk.
 *
 * Invariant: after every step the lines in `entries` are those of the core's log, index by
 * index; `disk_next` is the first one that no write has carried. */
#include "base/assert.h"
#include "base/memory.h"
#include "node/internal.h"
#include "wire/line.h"

#define ACTION_ROUNDS_MAX 8 /* in memory, a step may bring new actions within the turn */
#define NO_SPACE_RETRY_MS 500u

/* --- lines --- */
/* A clock that was far ahead once has left its time in the log for good, and with it the age of
 * sessions would stand still. So while the log is ahead of our clock, its time goes on at half
 * the clock's speed: slow enough for the clock to come level again. */
static uint64_t time_ahead(struct node *node, uint64_t term, uint64_t last) {
    struct log_clock *ahead = &node->ahead;
    if (ahead->term != term) {
        *ahead = (struct log_clock){.term = term, .time_ms = last, .since_ms = node->now_ms};
    }
    uint64_t gone = ahead->time_ms + (node->now_ms - ahead->since_ms) / 2;
    uint64_t time = gone > last ? gone : last;
    return time < NUMBER_MAX ? time : NUMBER_MAX;
}

/* Never goes back within the log. A clock before 1970 comes as a number that no entry holds. */
static uint64_t next_time(struct node *node, uint64_t term) {
    uint64_t last = node->entries.tail_time_ms;
    if (node->wall_ms < last || node->wall_ms > NUMBER_MAX) {
        return time_ahead(node, term, last);
    }
    node->ahead.term = 0;
    return node->wall_ms;
}

static void add_line(struct node *node, struct entry *entry) {
    entry->index = node->entries.last + 1;
    entry->term = raft_term_at(node->raft, entry->index);
    entry->time_ms = next_time(node, entry->term);
    struct buffer *text =
        entries_begin(&node->entries, entry->body.size + ENTRY_OVERHEAD_BYTES_MAX);
    size_t start = text->size;
    uint32_t crc = entry_write(text, entry, node->entries.tail_crc);
    node->snapshots.log_bytes += text->size - start;
    entries_commit(&node->entries, start, crc, entry->time_ms);
}

void execute_add_command(struct node *node, const struct entry *command) {
    struct entry entry = *command;
    entry.kind = ENTRY_COMMAND;
    add_line(node, &entry);
}

static void add_configuration_line(struct node *node, uint64_t index,
                                   const struct raft_configuration *configuration) {
    struct buffer json;
    buffer_init(&json);
    members_entry_body(node, index, configuration, &json);
    add_line(node, &(struct entry){.kind = ENTRY_CONFIGURATION, .body = buffer_span(&json)});
    buffer_free(&json);
}

/* Lines for what the core appended by itself: the first entry of a term, a configuration. */
static void add_own_lines(struct node *node) {
    while (node->entries.last < node->state.last.index) {
        const struct raft_configuration *configuration = NULL;
        uint64_t index = node->entries.last + 1;
        switch (raft_kind_at(node->raft, index, &configuration)) {
        case RAFT_ENTRY_NOOP:
            add_line(node, &(struct entry){.kind = ENTRY_NOOP});
            break;
        case RAFT_ENTRY_CONFIGURATION:
            add_configuration_line(node, index, configuration);
            break;
        case RAFT_ENTRY_COMMAND:
            ASSERT(false && "commands get their lines where they are proposed");
        }
    }
}

static void drop_lines(struct node *node, uint64_t index) {
    uint32_t crc = 0;
    uint64_t time_ms = 0;
    struct span line = entries_peek(&node->entries, index - 1);
    if (line.size > 0) {
        struct entry entry;
        struct span body;
        ASSERT(entry_parse(line, &entry) == STATUS_OK);
        ASSERT(line_peek_crc(line, &body, &crc) == STATUS_OK);
        time_ms = entry.time_ms;
    } else if (index - 1 == node->snapshots.position.index) {
        crc = node->snapshots.chain_crc;
        time_ms = node->snapshots.time_ms;
    } else {
        ASSERT(index == 1);
    }
    entries_truncate(&node->entries, index, crc, time_ms);
    members_truncate(node, index);
    if (index < node->disk_next) {
        node->disk_next = index;
        if (node->disk_truncate == 0 || index < node->disk_truncate) {
            node->disk_truncate = index;
        }
    }
}

/* --- steps --- */
static void look(struct node *node) {
    struct raft_state before = node->state;
    raft_peek_state(node->raft, &node->state);
    if (before.role != node->state.role || before.term != node->state.term ||
        before.leader != node->state.leader) {
        reads_restart(node);
    }
}

enum raft_result execute_step(struct node *node, struct raft_event *event,
                              struct raft_outcome *outcome) {
    event->now_ms = node->now_ms;
    enum raft_result result = raft_step(node->raft, event, outcome);
    if (result == RAFT_NO_MEMORY) {
        node_fail(node, STATUS_NO_MEMORY, "out of memory");
    }
    look(node);
    if (outcome->truncated_from > 0 && !outcome->log_reset) {
        drop_lines(node, outcome->truncated_from);
    }
    bool lines_follow =
        event->kind == RAFT_EVENT_PROPOSE ||
        (event->kind == RAFT_EVENT_RECEIVE && event->message->kind == RAFT_APPEND) ||
        event->kind == RAFT_EVENT_INSTALLED;
    if (!lines_follow) {
        add_own_lines(node);
    }
    return result;
}

enum raft_result execute_propose(struct node *node, uint64_t peer, uint32_t count,
                                 uint64_t *first) {
    if (entries_bytes_after(&node->entries, node->state.commit_index) > UNCOMMITTED_BYTES_MAX) {
        return RAFT_OVERLOADED; /* as the core does past a number of entries */
    }
    struct raft_event event = {.kind = RAFT_EVENT_PROPOSE, .id = peer, .count = count};
    struct raft_outcome outcome;
    enum raft_result result = execute_step(node, &event, &outcome);
    *first = outcome.first;
    return result;
}

/* --- a turn's actions --- */
void execute_quietly(struct node *node, struct raft_event *event) {
    struct raft_outcome outcome;
    if (execute_step(node, event, &outcome) != RAFT_OK) {
        return; /* stale: the core is already past it */
    }
}

static struct raft_position log_tail(const struct node *node) {
    return (struct raft_position){raft_term_at(node->raft, node->entries.last),
                                  node->entries.last};
}

static void persisted(struct node *node, uint64_t generation, struct raft_position position) {
    execute_quietly(node, &(struct raft_event){.kind = RAFT_EVENT_LOG_PERSISTED,
                                               .generation = generation,
                                               .position = position});
}

static void vote_persisted(struct node *node, uint64_t term, uint64_t voted_for) {
    execute_quietly(node, &(struct raft_event){.kind = RAFT_EVENT_VOTE_PERSISTED,
                                               .term = term,
                                               .voted_for = voted_for});
}

/* In memory only, what is kept is as durable as it will ever be. */
static void persist_in_memory(struct node *node, const struct raft_actions *actions) {
    if (actions->save_vote) {
        node->meta.term = actions->term;
        node->meta.voted_for = actions->voted_for;
        node->save_vote = false;
        vote_persisted(node, actions->term, actions->voted_for);
    }
    node->disk_truncate = 0;
    node->disk_next = node->entries.last + 1;
    if (actions->append_first <= actions->append_last || actions->truncate_from > 0) {
        persisted(node, actions->generation, log_tail(node));
    }
}

void execute_actions(struct node *node) {
    struct raft_actions actions;
    for (int round = 0; round < ACTION_ROUNDS_MAX && raft_has_actions(node->raft); round++) {
        raft_take_actions(node->raft, &actions);
        look(node);
        add_own_lines(node);
        node->generation = actions.generation;
        if (actions.save_vote) {
            node->save_vote = true;
            node->vote_term = actions.term;
            node->vote_for = actions.voted_for;
        }
        for (uint32_t i = 0; i < actions.message_count; i++) {
            messages_send(node, &actions.messages[i]);
        }
        if (node->state.role == RAFT_LEADER) {
            reads_confirm(node, actions.reads_confirmed);
        }
        if (!node->durable) {
            persist_in_memory(node, &actions);
        }
    }
}

/* --- the disk --- */
static void add_lines_to_job(struct node *node, struct job *job) {
    uint64_t last = node->entries.last;
    job->first = node->disk_next;
    job->offsets = memory_must_grow(NULL, (last - job->first + 1) * sizeof(uint32_t));
    uint64_t end = entries_copy(&node->entries, job->first, last, DISK_BATCH_BYTES_MAX,
                                &job->data, job->offsets);
    job->last = end - 1;
    job->offset_count = (uint32_t)(end - job->first);
    node->disk_next = end;
}

/* By entries and by the text held: what the disk has not taken cannot be evicted. */
bool execute_is_behind(const struct node *node) {
    return node->durable && node->disk_next <= node->entries.last &&
           node->entries.bytes > ENTRY_CACHE_BYTES_MAX + UNWRITTEN_BYTES_MAX;
}

/* The first write of a new cluster's first member: its identity goes without the vote that it
 * gives itself at once. So an identity without a log is either one that was never answered for
 * or, where there is a vote, a log that was lost (server/recover.h). */
static bool founds(const struct node *node) {
    return node->meta.node_id == 1 && node->identity_dirty && !node->identity_saving &&
           node->disk_next == 1 && node->entries.last >= 1;
}

static void add_meta_to_job(struct node *node, struct job *job) {
    if (founds(node)) {
        node->meta.term = raft_term_at(node->raft, 1);
        node->meta.voted_for = 0;
    } else if (node->save_vote) {
        node->meta.term = node->vote_term;
        node->meta.voted_for = node->vote_for;
        node->save_vote = false;
    }
    job->save_meta = true;
    job->meta = node->meta;
    node->identity_saving = node->identity_dirty;
}

void execute_write(struct node *node) {
    bool meta = node->save_vote || (node->identity_dirty && !node->identity_saving);
    /* While a snapshot is installed the log may be about to go: nothing of it is written. */
    bool installing = node->snapshots.installing;
    bool lines = !installing && node->disk_next <= node->entries.last;
    bool truncates = !installing && node->disk_truncate > 0;
    if (!node->durable || node->writing || node->stopped || !(meta || lines || truncates)) {
        return;
    }
    struct job *job = job_new(JOB_WRITE);
    if (meta) {
        add_meta_to_job(node, job);
    }
    if (truncates) {
        job->truncate_from = node->disk_truncate;
        node->disk_truncate = 0;
    }
    if (lines) {
        add_lines_to_job(node, job);
    }
    job->generation = node->generation;
    uint64_t tail = node->disk_next - 1;
    job->position = (struct raft_position){raft_term_at(node->raft, tail), tail};
    node->writing = true;
    node->writing_since_ms = node->now_ms;
    node_push_job(node, job);
}

/* What a write that found no room holds of the old log must not come behind the new one. */
void execute_log_replaced(struct node *node, uint64_t index) {
    node->disk_next = index + 1;
    node->disk_truncate = 0;
    if (node->stuck != NULL) {
        node->stuck->truncate_from = 0;
        node->stuck->first = 1;
        node->stuck->last = 0;
    }
}

void execute_write_done(struct node *node, struct job *job) {
    if (job->status == STATUS_NO_SPACE) {
        if (node->no_space[0] == '\0') {
            node->full_since_ms = node->now_ms;
            apply_notice(node, "error", "disk", "%s: commands are refused until there is room",
                         job->error.text);
        }
        memcpy(node->no_space, job->error.text, sizeof(node->no_space));
        node->stuck = job;
        node->stuck_retry_ms = node->now_ms + NO_SPACE_RETRY_MS;
        return;
    }
    node->writing = false;
    if (node->no_space[0] != '\0') {
        node->no_space[0] = '\0';
        apply_notice(node, "info", "disk", "there is room again: commands are taken");
    }
    if (job->status != STATUS_OK) {
        node_fail(node, job->status, job->error.text);
        job_free(job);
        return;
    }
    if (job->meta.address[0] != '\0') {
        vote_persisted(node, job->meta.term, job->meta.voted_for);
        if (node->identity_saving) {
            node->identity_saving = false;
            node->identity_dirty = memcmp(&job->meta.cluster_id, &node->meta.cluster_id,
                                          sizeof(node->meta.cluster_id)) != 0 ||
                                   job->meta.node_id != node->meta.node_id ||
                                   job->meta.removed != node->meta.removed;
            peers_identity_saved(node);
        }
    }
    persisted(node, job->generation, job->position);
    job_free(job);
}
