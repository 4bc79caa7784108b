/* A leader's side of replication (3.5, 3.6.2, 10.2): its log, its peers' answers, the commit
 * index.
 *
 * Invariant: an entry is committed when it is durable on a quorum, our own disk counted like
 * any other (C7), and only through an entry of our own term (C1). Nothing is sent again that
 * arrived. */
#include "base/assert.h"
#include "raft/internal.h"

struct progress *replication_find(struct raft *raft, uint64_t id) {
    for (uint32_t i = 0; i < raft->leading.peer_count; i++) {
        if (raft->leading.peers[i].id == id) {
            return &raft->leading.peers[i];
        }
    }
    return NULL;
}

void replication_inform_all(struct raft *raft) {
    for (uint32_t i = 0; i < raft->leading.peer_count; i++) {
        raft->leading.peers[i].due = true;
    }
}

void replication_note_awaited(struct raft *raft, uint64_t id, uint64_t index) {
    struct progress *progress = replication_find(raft, id);
    if (progress != NULL && index > progress->told) {
        progress->awaited = larger(progress->awaited, index);
        progress->due = progress->due || index <= raft->commit_index;
    }
}

/* Who waits for it is told at once; the others with the next entries, if these come soon: a
 * message less, and a wake-up. */
static void inform_of_commit(struct raft *raft) {
    for (uint32_t i = 0; i < raft->leading.peer_count; i++) {
        struct progress *progress = &raft->leading.peers[i];
        bool waits = progress->awaited > progress->told || progress->departing;
        if (waits || raft->commit_notice_ms == 0) {
            progress->due = true;
        } else if (progress->notice_ms == 0) {
            progress->notice_ms = raft->now_ms + raft->commit_notice_ms;
        }
    }
}

/* --- our own log --- */
void replication_append(struct raft *raft, enum raft_entry_kind kind,
                        const struct raft_configuration *configuration) {
    ASSERT(raft->role == RAFT_LEADER);
    ASSERT(raft->log.last_index < NUMBER_MAX);
    log_append(
        &raft->log,
        &(struct raft_entry){.term = raft->term, .kind = kind, .configuration = configuration});
    if (kind == RAFT_ENTRY_CONFIGURATION) {
        membership_sync_peers(raft);
    }
}

/* Every peer is first asked whether it has what we have, and sent our first entry along: most
 * have (3.5). An entry of our own lets everything before it be committed (3.6.2). */
void replication_lead(struct raft *raft) {
    uint64_t last_index = raft->log.last_index;
    raft->leading = (struct leading){.term_start_index = last_index + 1,
                                     .caught_up_index = last_index + 1,
                                     .caught_up_next = last_index + 1,
                                     .caught_up_ms = raft->now_ms};
    membership_sync_peers(raft);
    membership_adopt_departed(raft);
    for (uint32_t i = 0; i < raft->leading.peer_count; i++) {
        progress_probe(&raft->leading.peers[i], last_index, true);
    }
    replication_append(raft, RAFT_ENTRY_NOOP, NULL);
}

enum raft_result replication_propose(struct raft *raft, uint64_t id, uint32_t count,
                                     struct raft_outcome *outcome) {
    if (raft->role != RAFT_LEADER) {
        return RAFT_NOT_LEADER;
    }
    if (raft->leading.transferee != 0 || raft->leading.leaving) {
        return RAFT_BUSY;
    }
    uint64_t uncommitted = raft->log.last_index - raft->commit_index;
    if (count > RAFT_UNCOMMITTED_ENTRIES_MAX ||
        uncommitted > RAFT_UNCOMMITTED_ENTRIES_MAX - count ||
        raft->log.last_index > NUMBER_MAX - LOG_INDEXES_KEPT - count) {
        return RAFT_OVERLOADED;
    }
    if (count > 0) {
        outcome->first = raft->log.last_index + 1;
        log_append_commands(&raft->log, raft->term, count);
        outcome->last = raft->log.last_index;
        replication_note_awaited(raft, id, outcome->last);
    }
    return RAFT_OK;
}

bool replication_advance_commit(struct raft *raft) {
    const struct raft_configuration *configuration = &raft_in_force(raft)->configuration;
    uint64_t match[MEMBERS_MAX] = {0};
    for (uint32_t i = 0; i < configuration->count; i++) {
        uint64_t id = configuration->members[i].id;
        const struct progress *progress = replication_find(raft, id);
        if (id == raft->id) {
            match[i] = raft->durable_index;
        } else if (progress != NULL) {
            match[i] = progress->match;
        }
    }
    uint64_t reached = quorum_reached(configuration, match);
    if (reached <= raft->commit_index || reached < raft->leading.term_start_index) {
        return false;
    }
    ASSERT(reached <= raft->log.last_index);
    raft->commit_index = reached;
    inform_of_commit(raft);
    return true;
}

/* --- answers --- */
/* The sender's progress, when the answer is of our term and from somebody we lead. An answer of
 * a later term ends ours, unless it is a removed peer's, who has no say (V12). */
static struct progress *accept_answer(struct raft *raft, const struct raft_message *message,
                                      enum raft_result *result) {
    struct progress *progress = replication_find(raft, message->from);
    *result = RAFT_STALE;
    if (raft->role != RAFT_LEADER || progress == NULL || message->term < raft->term) {
        return NULL;
    }
    if (message->term > raft->term) {
        if (!progress->departing) {
            election_follow(raft, message->term, 0);
            *result = RAFT_OK;
        }
        return NULL;
    }
    if (message->match > raft->log.last_index || message->round > raft->read_round) {
        *result = RAFT_BAD_MESSAGE;
        return NULL;
    }
    *result = RAFT_OK;
    return progress;
}

/* Whether an accepting peer can have verified what it says: it is in our log, and covers
 * `match`. */
static bool is_consistent(const struct raft *raft, const struct raft_message *message) {
    struct raft_position verified = message->previous;
    if (message->rejected) {
        return message->match < verified.index;
    }
    return message->match <= verified.index &&
           (verified.index < raft->log.snapshot.index || log_has(&raft->log, verified));
}

static void note_progress(struct raft *raft, struct progress *progress, uint64_t match,
                          uint64_t verified) {
    progress->heard_ms = raft->now_ms;
    progress_acknowledge(progress, match, verified, raft->now_ms);
    if (progress->state == PROGRESS_SNAPSHOT &&
        progress->verified >= progress->snapshot_index) {
        progress_probe(progress, progress_known(progress, raft->log.snapshot.index), false);
    }
}

/* Go back to the last entry that both may have: for every round trip at least a whole term of
 * one of the two logs is skipped (3.5). One that lacks what our log begins after gets the
 * snapshot. */
static void go_back(struct raft *raft, struct progress *progress,
                    const struct raft_message *message) {
    uint64_t begin = raft->log.snapshot.index;
    uint64_t refused = message->previous.index;
    if (refused <= begin || message->hint.index < begin) {
        progress_send_snapshot(progress, begin);
        return;
    }
    uint64_t most = smaller(message->hint.index, refused - 1);
    struct raft_position common = log_find(&raft->log, most, message->hint.term);
    progress_probe(progress, larger(common.index, progress->verified), false);
}

enum raft_result replication_receive_reply(struct raft *raft,
                                           const struct raft_message *message) {
    enum raft_result result;
    struct progress *progress = accept_answer(raft, message, &result);
    if (progress == NULL) {
        return result;
    }
    if (message->rejected && message->previous.index == 0) {
        return RAFT_STALE; /* for the leader that we were in an earlier term */
    }
    if (!is_consistent(raft, message)) {
        return RAFT_BAD_MESSAGE;
    }
    progress->round = larger(progress->round, message->round);
    uint64_t verified = message->rejected ? message->match : message->previous.index;
    note_progress(raft, progress, message->match, verified);
    if (message->rejected && progress_refuses(progress, message->previous.index)) {
        go_back(raft, progress, message);
    }
    return RAFT_OK;
}

enum raft_result replication_receive_snapshot_reply(struct raft *raft,
                                                    const struct raft_message *message) {
    enum raft_result result;
    struct progress *progress = accept_answer(raft, message, &result);
    if (progress != NULL) {
        note_progress(raft, progress, message->match, message->match);
    }
    return result;
}

/* --- what the host tells of a peer --- */
enum raft_result replication_sent(struct raft *raft, uint64_t id, uint64_t index) {
    struct progress *progress = replication_find(raft, id);
    if (raft->role != RAFT_LEADER || progress == NULL || index > raft->log.last_index ||
        !progress_sent(progress, index, raft->now_ms)) {
        return RAFT_STALE;
    }
    if (!progress->offer_refused) {
        progress->heartbeat_ms = raft->now_ms + raft_heartbeat_ms(raft);
    }
    return RAFT_OK;
}

enum raft_result replication_room(struct raft *raft, uint64_t id) {
    struct progress *progress = replication_find(raft, id);
    if (raft->role != RAFT_LEADER || progress == NULL || progress->offer_first == 0) {
        return RAFT_STALE;
    }
    progress_withdraw_offer(progress);
    return RAFT_OK;
}

enum raft_result replication_connected(struct raft *raft, uint64_t id, uint64_t incarnation) {
    struct progress *progress = replication_find(raft, id);
    if (raft->role != RAFT_LEADER || progress == NULL) {
        return RAFT_STALE;
    }
    progress_connect(progress, incarnation, raft->log.snapshot.index);
    return RAFT_OK;
}

void replication_disconnected(struct raft *raft, uint64_t id) {
    struct progress *progress = replication_find(raft, id);
    if (raft->role == RAFT_LEADER && progress != NULL) {
        progress_probe(progress, progress_known(progress, raft->log.snapshot.index), false);
    }
}

enum raft_result replication_snapshot_failed(struct raft *raft, uint64_t id) {
    struct progress *progress = replication_find(raft, id);
    if (raft->role != RAFT_LEADER || progress == NULL || progress->state != PROGRESS_SNAPSHOT) {
        return RAFT_STALE;
    }
    progress_probe(progress, progress_known(progress, raft->log.snapshot.index), false);
    return RAFT_OK;
}

/* Peers whose next entry left the log are asked for the snapshot's last one: most have it
 * (S11). */
void replication_compacted(struct raft *raft) {
    for (uint32_t i = 0; i < raft->leading.peer_count; i++) {
        struct progress *progress = &raft->leading.peers[i];
        bool asked_before =
            progress->state == PROGRESS_PROBE && progress->probe < raft->log.snapshot.index;
        bool sends_before =
            progress->state == PROGRESS_PIPELINE && progress->next <= raft->log.snapshot.index;
        if (asked_before || sends_before) {
            progress_probe(progress, raft->log.snapshot.index, false);
        }
    }
}

static void tick_peer(struct raft *raft, struct progress *progress) {
    bool notice = progress->notice_ms != 0 && raft->now_ms >= progress->notice_ms;
    if (notice || raft->now_ms >= progress->heartbeat_ms) {
        progress->due = true;
    }
    if (progress->offer_first != 0 && raft->now_ms >= progress->offer_ms) {
        progress_withdraw_offer(progress);
    }
    if (progress->state == PROGRESS_PROBE && progress->probe_asked &&
        raft->now_ms >= progress->probe_ms) {
        progress_probe(progress, progress->probe, false);
    }
    if (progress_stalled(progress, raft->now_ms, raft->max_timeout_ms)) {
        progress_probe(progress, progress_known(progress, raft->log.snapshot.index), false);
    }
}

void replication_tick(struct raft *raft) {
    struct leading *leading = &raft->leading;
    for (uint32_t i = 0; i < leading->peer_count; i++) {
        tick_peer(raft, &leading->peers[i]);
    }
    if (raft->now_ms - leading->caught_up_ms >= raft_heartbeat_ms(raft)) {
        leading->caught_up_index = leading->caught_up_next;
        leading->caught_up_next = raft->log.last_index;
        leading->caught_up_ms = raft->now_ms;
    }
}
