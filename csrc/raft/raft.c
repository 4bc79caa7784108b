/* A member's life: events in, merged actions out; see raft.h.
 *
 * step() finds the room that an event concerns; settle() then lets everything follow that
 * follows, so that no event can forget a consequence (C15): commit, joint configurations,
 * reads, hand-over. */
#include "raft/raft.h"

#include "base/assert.h"
#include "base/memory.h"
#include "raft/internal.h"

const struct raft_member *
raft_configuration_find(const struct raft_configuration *configuration, uint64_t id) {
    for (uint32_t i = 0; i < configuration->count; i++) {
        if (configuration->members[i].id == id) {
            return &configuration->members[i];
        }
    }
    return NULL;
}

/* --- life --- */
static bool load_log(struct raft *raft, const struct raft_options *options) {
    log_init(&raft->log, options->snapshot, &options->configuration,
             options->configuration_index);
    uint32_t runs = STEP_RUNS_MAX;
    uint32_t configurations = STEP_CONFIGURATIONS_MAX;
    uint64_t term = 0;
    for (uint64_t i = 0; i < options->entry_count; i++) {
        runs += options->entries[i].term != term ? 1 : 0;
        configurations += options->entries[i].kind == RAFT_ENTRY_CONFIGURATION ? 1 : 0;
        term = options->entries[i].term;
    }
    if (!log_reserve(&raft->log, runs, configurations)) {
        return false;
    }
    for (uint64_t i = 0; i < options->entry_count; i++) {
        log_append(&raft->log, &options->entries[i]);
    }
    return true;
}

struct raft *raft_new(const struct raft_options *options) {
    struct raft *raft = memory_alloc_zero(sizeof(*raft));
    if (raft == NULL) {
        return NULL;
    }
    raft->id = options->id;
    raft->now_ms = options->now_ms;
    raft->commit_notice_ms = options->commit_notice_ms;
    random_seed(&raft->random, options->seed);
    if (!load_log(raft, options)) {
        raft_free(raft);
        return NULL;
    }
    raft->term = raft->saved_term = larger(options->term, log_last(&raft->log).term);
    raft->voted_for = raft->saved_vote = options->term == raft->term ? options->voted_for : 0;
    raft->vote_changed = raft->term != options->term;
    raft->commit_index = raft->log.snapshot.index;
    raft->durable_index = raft->log.last_index;
    raft->handed_index = raft->log.last_index;
    raft->following.verified = raft->commit_index;
    raft->commit_taken = raft->commit_index;
    raft->quarantined = options->quarantined;
    raft_set_election_timeouts(raft, options->min_election_timeout_ms,
                               options->max_election_timeout_ms);
    election_restart_timer(raft);
    const struct raft_configuration *configuration = &raft_in_force(raft)->configuration;
    bool alone = quorum_count_voters(configuration) == 1 && !configuration->joint &&
                 quorum_has_voter(configuration, raft->id);
    if (alone) {
        raft->election_ms = raft->now_ms; /* nobody else could lead: do not wait */
    }
    return raft;
}

void raft_free(struct raft *raft) {
    if (raft != NULL) {
        log_clear(&raft->log);
        memory_free(raft);
    }
}

void raft_set_id(struct raft *raft, uint64_t id) {
    if (raft->id == 0) {
        raft->id = id;
    }
}

void raft_set_election_timeouts(struct raft *raft, uint32_t min_ms, uint32_t max_ms) {
    raft->min_timeout_ms = min_ms > 0 ? min_ms : 1;
    raft->max_timeout_ms = max_ms > raft->min_timeout_ms ? max_ms : raft->min_timeout_ms;
    if (raft->election_ms > raft->now_ms + raft->max_timeout_ms) {
        election_restart_timer(raft);
    }
}

/* --- steps --- */
/* A new server has seen no term yet: it cannot tell. */
static bool term_is_plausible(const struct raft *raft, uint64_t term) {
    return raft->term == 0 || term <= raft->term || term - raft->term <= RAFT_TERMS_AHEAD_MAX;
}

static enum raft_result receive(struct raft *raft, const struct raft_message *message,
                                struct raft_outcome *outcome) {
    if (message == NULL || !message_is_sound(message) || message->from == raft->id) {
        return RAFT_BAD_MESSAGE;
    }
    if (raft->id == 0) {
        return RAFT_STALE; /* for whoever had this address before us */
    }
    if (!term_is_plausible(raft, message->term)) {
        return RAFT_BAD_MESSAGE;
    }
    switch (message->kind) {
    case RAFT_VOTE:
        return election_receive_vote(raft, message);
    case RAFT_VOTE_REPLY:
        return election_receive_reply(raft, message);
    case RAFT_APPEND:
        return follower_receive_append(raft, message, outcome);
    case RAFT_APPEND_REPLY:
        return replication_receive_reply(raft, message);
    case RAFT_SNAPSHOT:
        return follower_receive_snapshot(raft, message, outcome);
    case RAFT_SNAPSHOT_REPLY:
        return replication_receive_snapshot_reply(raft, message);
    case RAFT_TIMEOUT_NOW:
        return election_receive_timeout_now(raft, message);
    }
    return RAFT_BAD_MESSAGE; /* unreachable: message_is_sound() knows every kind */
}

static void tick(struct raft *raft) {
    election_tick(raft);
    if (raft->role == RAFT_LEADER) {
        replication_tick(raft);
        transfer_tick(raft);
        membership_tick(raft);
    }
}

/* A sync that began before a truncation may tell of entries that are gone, and of others that
 * stand in their places by now; one that began after it will come and cover them (C5, C6). */
static enum raft_result log_persisted(struct raft *raft, const struct raft_event *event) {
    if (event->generation != raft->generation || event->position.index > raft->handed_index ||
        event->position.index <= raft->durable_index || !log_has(&raft->log, event->position)) {
        return RAFT_STALE;
    }
    raft->durable_index = event->position.index;
    return RAFT_OK;
}

static enum raft_result vote_persisted(struct raft *raft, const struct raft_event *event) {
    bool possible = event->term < raft->term ||
                    (event->term == raft->term &&
                     (event->voted_for == 0 || event->voted_for == raft->voted_for));
    if (!possible) {
        return RAFT_STALE;
    }
    election_persisted(raft, event->term, event->voted_for);
    return RAFT_OK;
}

/* Only what is committed may go into a snapshot: its configuration then stands for good (M4).
 */
static enum raft_result compacted(struct raft *raft, const struct raft_event *event) {
    struct raft_position position = event->position;
    if (position.index <= raft->log.snapshot.index || position.index > raft->commit_index ||
        position.index > raft->handed_index || !log_has(&raft->log, position)) {
        return RAFT_STALE;
    }
    log_compact(&raft->log, position.index);
    raft->durable_index = larger(raft->durable_index, position.index);
    replication_compacted(raft);
    return RAFT_OK;
}

static enum raft_result dispatch(struct raft *raft, const struct raft_event *event,
                                 struct raft_outcome *outcome) {
    switch (event->kind) {
    case RAFT_EVENT_TICK:
        tick(raft);
        return RAFT_OK;
    case RAFT_EVENT_RECEIVE:
        return receive(raft, event->message, outcome);
    case RAFT_EVENT_LOG_PERSISTED:
        return log_persisted(raft, event);
    case RAFT_EVENT_VOTE_PERSISTED:
        return vote_persisted(raft, event);
    case RAFT_EVENT_BOOTSTRAP:
        return membership_bootstrap(raft, event->id, outcome);
    case RAFT_EVENT_PROPOSE:
        return replication_propose(raft, event->id, event->count, outcome);
    case RAFT_EVENT_ADD:
        return membership_add(raft, event->id, outcome);
    case RAFT_EVENT_REMOVE:
        return membership_remove(raft, event->id, outcome);
    case RAFT_EVENT_READ:
        return reads_register(raft, event->id, outcome);
    case RAFT_EVENT_TRANSFER:
        return transfer_start(raft, event->id);
    case RAFT_EVENT_SENT:
        return replication_sent(raft, event->id, event->index);
    case RAFT_EVENT_ROOM:
        return replication_room(raft, event->id);
    case RAFT_EVENT_CONNECTED:
        return replication_connected(raft, event->id, event->incarnation);
    case RAFT_EVENT_DISCONNECTED:
        replication_disconnected(raft, event->id);
        election_disconnected(raft, event->id);
        return RAFT_OK;
    case RAFT_EVENT_COMPACTED:
        return compacted(raft, event);
    case RAFT_EVENT_INSTALLED:
        return follower_installed(raft, event, outcome);
    case RAFT_EVENT_SNAPSHOT_FAILED:
        return replication_snapshot_failed(raft, event->id);
    case RAFT_EVENT_STEP_DOWN:
        election_stop(raft);
        return RAFT_OK;
    }
    return RAFT_BAD_MESSAGE;
}

/* Each round of the loop needs a commit that the one before brought about; a configuration that
 * was appended just now is not durable yet, so it ends. */
static void settle(struct raft *raft) {
    for (uint32_t i = 0; i < STEP_CONFIGURATIONS_MAX && raft->role == RAFT_LEADER; i++) {
        bool committed = replication_advance_commit(raft);
        if (!membership_advance(raft) && !committed) {
            break;
        }
    }
    if (raft->role == RAFT_LEADER) {
        reads_advance(raft);
        transfer_advance(raft);
    }
    follower_settle(raft);
}

static void check(const struct raft *raft) {
    ASSERT(raft->log.snapshot.index <= raft->commit_index);
    ASSERT(raft->commit_index <= raft->log.last_index);
    ASSERT(raft->durable_index <= raft->handed_index);
    ASSERT(raft->handed_index <= raft->log.last_index);
    ASSERT(raft->log.snapshot.index <= raft->durable_index);
    ASSERT(raft->commit_index >= raft->commit_taken);
    ASSERT(log_last(&raft->log).term <= raft->term);
    ASSERT(raft->saved_term <= raft->term);
    if (raft->role != RAFT_LEADER) {
        ASSERT(raft->following.verified <= raft->log.last_index);
        ASSERT(raft->following.verified >= raft->commit_index || raft->leader == 0);
        return;
    }
    ASSERT(raft->leader == raft->id);
    ASSERT(raft->voted_for == raft->id);
    for (uint32_t i = 0; i < raft->leading.peer_count; i++) {
        const struct progress *progress = &raft->leading.peers[i];
        ASSERT(progress->match < progress->next);
        ASSERT(progress->match <= progress->verified);
        ASSERT(progress->next <= raft->log.last_index + 1);
        ASSERT(progress->next > raft->log.snapshot.index ||
               progress->state == PROGRESS_SNAPSHOT);
    }
}

enum raft_result raft_step(struct raft *raft, const struct raft_event *event,
                           struct raft_outcome *outcome) {
    *outcome = (struct raft_outcome){.first = 1};
    if (!log_reserve(&raft->log, STEP_RUNS_MAX, STEP_CONFIGURATIONS_MAX)) {
        return RAFT_NO_MEMORY;
    }
    raft->now_ms = larger(raft->now_ms, event->now_ms);
    enum raft_result result = dispatch(raft, event, outcome);
    if (result != RAFT_NO_MEMORY && result != RAFT_BAD_MESSAGE) {
        settle(raft);
    }
    check(raft);
    return result;
}

/* --- actions --- */
/* What a message says must be durable before it leaves: its term, and a vote that it gives
 * (3.8; V2). A pre-vote asks about a term that nobody has entered. */
static bool may_leave(const struct raft *raft, const struct raft_message *message) {
    if (message->kind == RAFT_VOTE && message->pre) {
        return true;
    }
    bool vote = message->kind == RAFT_VOTE_REPLY && message->granted && !message->pre;
    return raft->saved_term == raft->term && (!vote || raft->saved_vote == raft->voted_for);
}

static void take_outbox(struct raft *raft, struct raft_actions *actions) {
    struct outbox *outbox = &raft->outbox;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < outbox->count; i++) {
        if (may_leave(raft, &outbox->messages[i])) {
            actions->messages[actions->message_count++] = outbox->messages[i];
        } else {
            outbox->messages[kept++] = outbox->messages[i];
        }
    }
    outbox->count = kept;
}

static void take_messages(struct raft *raft, struct raft_actions *actions) {
    actions->message_count = 0;
    take_outbox(raft, actions);
    if (raft->role == RAFT_LEADER) {
        ASSERT(raft->saved_term == raft->term);
        sending_take(raft, actions);
        raft->leading.round_open = false;
    } else if (raft->saved_term == raft->term && actions->message_count < RAFT_MESSAGES_MAX &&
               follower_take_reply(raft, &actions->messages[actions->message_count])) {
        actions->message_count += 1;
    }
}

void raft_take_actions(struct raft *raft, struct raft_actions *actions) {
    actions->save_vote = raft->vote_changed;
    actions->term = raft->term;
    actions->voted_for = raft->voted_for;
    actions->truncate_from = raft->truncate_from;
    actions->append_first = raft->handed_index + 1;
    actions->append_last = raft->log.last_index;
    actions->generation = raft->generation;
    actions->commit_index = raft->commit_index;
    actions->reads_confirmed = raft->leading.reads_confirmed;
    take_messages(raft, actions);
    raft->vote_changed = false;
    raft->truncate_from = 0;
    raft->handed_index = raft->log.last_index;
    raft->commit_taken = raft->commit_index;
    raft->reads_taken = raft->leading.reads_confirmed;
}

bool raft_has_actions(const struct raft *raft) {
    if (raft->vote_changed || raft->truncate_from != 0 ||
        raft->handed_index < raft->log.last_index || raft->commit_taken != raft->commit_index ||
        raft->reads_taken != raft->leading.reads_confirmed) {
        return true;
    }
    for (uint32_t i = 0; i < raft->outbox.count; i++) {
        if (may_leave(raft, &raft->outbox.messages[i])) {
            return true;
        }
    }
    if (raft->role == RAFT_LEADER) {
        return sending_wanted(raft);
    }
    return raft->following.reply_due && raft->leader != 0 && raft->role == RAFT_FOLLOWER &&
           raft->saved_term == raft->term;
}

uint64_t raft_deadline_ms(const struct raft *raft) {
    return raft->role == RAFT_LEADER ? sending_deadline_ms(raft) : raft->election_ms;
}
