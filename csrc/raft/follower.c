/* A leader's entries and snapshots arrive (3.5, 3.6, 5.4).
 *
 * Invariant: nothing is committed or acknowledged beyond what this leader's messages have
 * verified (C2), nothing is acknowledged beyond what is durable, and the log is cut only where
 * an entry really contradicts the leader's (C3). */
#include "base/assert.h"
#include "raft/internal.h"

/* It tells our term and nothing else: where the old leader leads this very term by now, it must
 * not take this for the answer to what it asked in it (C13). So {0, 0} is refused, which all
 * have. */
static void answer_old_leader(struct raft *raft, const struct raft_message *message) {
    outbox_add(&raft->outbox, &(struct raft_message){.kind = RAFT_APPEND_REPLY,
                                                     .from = raft->id,
                                                     .to = message->from,
                                                     .term = raft->term,
                                                     .rejected = true});
}

/* Whether this can be our term's leader: there is one at most. */
static bool can_lead_us(const struct raft *raft, const struct raft_message *message) {
    if (message->term > raft->term) {
        return true;
    }
    return raft->role != RAFT_LEADER && (raft->leader == 0 || raft->leader == message->from);
}

/* No leader of this or a later term contradicts what is committed, or what it verified itself.
 */
static uint64_t settled_index(const struct raft *raft, const struct raft_message *message) {
    return message->term == raft->term ? larger(raft->following.verified, raft->commit_index)
                                       : raft->commit_index;
}

/* The first of the message's entries that our log does not have; last index + 1 when it has
 * all. */
static uint64_t find_first_new(const struct raft *raft, const struct raft_message *message) {
    uint64_t index = message->previous.index + 1;
    for (uint32_t i = 0; i < message->count; i++, index++) {
        if (index >= raft->log.snapshot.index &&
            log_term_at(&raft->log, index) != message->entries[i].term) {
            break;
        }
    }
    return index;
}

/* What stands at `previous` here: the same entry, as far as we can tell. */
static bool matches(const struct raft *raft, struct raft_position previous) {
    return previous.index < raft->log.snapshot.index || log_has(&raft->log, previous);
}

static bool is_plausible(const struct raft *raft, const struct raft_message *message) {
    uint64_t settled = settled_index(raft, message);
    if (!can_lead_us(raft, message)) {
        return false;
    }
    if (!matches(raft, message->previous)) {
        return message->previous.index > settled;
    }
    uint64_t first_new = find_first_new(raft, message);
    return first_new > settled || first_new > message->previous.index + message->count;
}

static bool reserve(struct raft *raft, const struct raft_message *message) {
    uint32_t runs = STEP_RUNS_MAX;
    uint32_t configurations = STEP_CONFIGURATIONS_MAX;
    uint64_t term = 0;
    for (uint32_t i = 0; i < message->count; i++) {
        runs += message->entries[i].term != term ? 1 : 0;
        configurations += message->entries[i].kind == RAFT_ENTRY_CONFIGURATION ? 1 : 0;
        term = message->entries[i].term;
    }
    return log_reserve(&raft->log, runs, configurations);
}

static void cut(struct raft *raft, uint64_t index) {
    ASSERT(index > raft->commit_index);
    log_truncate(&raft->log, index);
    if (index <= raft->handed_index) {
        raft->truncate_from =
            raft->truncate_from == 0 ? index : smaller(raft->truncate_from, index);
        raft->handed_index = index - 1;
    }
    raft->durable_index = smaller(raft->durable_index, index - 1);
    raft->generation += 1;
}

static void take_entries(struct raft *raft, const struct raft_message *message,
                         struct raft_outcome *outcome) {
    uint64_t end = message->previous.index + message->count;
    uint64_t first_new = find_first_new(raft, message);
    if (first_new <= end) {
        if (first_new <= raft->log.last_index) {
            cut(raft, first_new);
            outcome->truncated_from = first_new;
        }
        for (uint64_t index = first_new; index <= end; index++) {
            log_append(&raft->log, &message->entries[index - message->previous.index - 1]);
        }
        outcome->first = first_new;
        outcome->last = end;
    }
    raft->following.verified = larger(raft->following.verified, end);
}

/* The hint lets the leader skip a whole term for each round trip, not an entry (3.5, C9). A
 * position with no entry is no "no hint": {0, 0} is where all logs agree (C10). */
static void refuse(struct raft *raft, const struct raft_message *message) {
    struct following *following = &raft->following;
    following->rejected = true;
    following->previous = message->previous;
    following->hint = log_find(&raft->log, message->previous.index, message->previous.term);
}

static void heed(struct raft *raft, const struct raft_message *message) {
    election_heed(raft, message->term, message->from);
    if (raft->quarantined && !raft->quarantine_known) {
        raft->quarantine_known = true;
        raft->quarantine_index = message->commit;
    }
}

/* Whether a message that brought news need not be answered by itself: an answer follows when
 * its entries are durable, and how far the commit has come needs none. A read's round is
 * echoed at once (6.4), and so is whatever comes first on a connection. A leader that has heard
 * nothing for a heartbeat's time is answered in any case, for it steps down when it does not
 * hear of a quorum (6.2): a disk that stalls silences nobody (D6). */
static bool may_wait(const struct raft *raft, const struct raft_message *message,
                     const struct following *before, bool brought_news) {
    return brought_news && before->connected && message->round <= before->round &&
           before->replied_ms != 0 &&
           raft->now_ms - before->replied_ms < raft_heartbeat_ms(raft);
}

enum raft_result follower_receive_append(struct raft *raft, const struct raft_message *message,
                                         struct raft_outcome *outcome) {
    if (message->term < raft->term) {
        answer_old_leader(raft, message);
        return RAFT_STALE;
    }
    if (!is_plausible(raft, message)) {
        return RAFT_BAD_MESSAGE;
    }
    if (!reserve(raft, message)) {
        return RAFT_NO_MEMORY;
    }
    bool new_term = message->term > raft->term;
    struct following before = new_term ? (struct following){0} : raft->following;
    uint64_t commit_before = raft->commit_index;
    heed(raft, message);
    struct following *following = &raft->following;
    following->round = larger(following->round, message->round);
    if (!matches(raft, message->previous)) {
        refuse(raft, message);
        following->reply_due = true;
        return RAFT_OK;
    }
    take_entries(raft, message, outcome);
    raft->commit_index =
        larger(raft->commit_index, smaller(message->commit, following->verified));
    bool appended = outcome->first <= outcome->last;
    bool committed = message->count == 0 && raft->commit_index > commit_before;
    if (!may_wait(raft, message, &before, appended || committed)) {
        following->reply_due = true;
    }
    return RAFT_OK;
}

/* --- the answer --- */
/* One answer stands for all messages since the last one: it is made when it is taken. */
bool follower_take_reply(struct raft *raft, struct raft_message *answer) {
    struct following *following = &raft->following;
    if (!following->reply_due || raft->role != RAFT_FOLLOWER || raft->leader == 0) {
        return false;
    }
    *answer = (struct raft_message){.kind = RAFT_APPEND_REPLY,
                                    .from = raft->id,
                                    .to = raft->leader,
                                    .term = raft->term,
                                    .rejected = following->rejected,
                                    .match = follower_match(raft),
                                    .round = following->round};
    if (following->rejected) {
        answer->previous = following->previous;
        answer->hint = following->hint;
    } else {
        answer->previous = (struct raft_position){log_term_at(&raft->log, following->verified),
                                                  following->verified};
    }
    following->acknowledged = answer->match;
    following->replied_ms = raft->now_ms;
    following->reply_due = false;
    following->rejected = false;
    return true;
}

/* A damaged log may lack what this member once acknowledged. It is whole again when it has what
 * the leader had committed when it met us, and an entry of the leader's own term: with that,
 * everything that was committed before (3.6.3). */
static void leave_quarantine(struct raft *raft) {
    uint64_t match = follower_match(raft);
    if (raft->quarantine_known && match >= raft->quarantine_index &&
        log_term_at(&raft->log, match) == raft->term) {
        raft->quarantined = false;
    }
}

void follower_settle(struct raft *raft) {
    if (raft->role != RAFT_FOLLOWER || raft->leader == 0) {
        return;
    }
    struct following *following = &raft->following;
    if (following->rejected && following->previous.index <= following->verified) {
        following->rejected = false; /* it has come since, or a snapshot with it */
    }
    if (follower_match(raft) > following->acknowledged) {
        following->reply_due = true;
    }
    if (raft->quarantined) {
        leave_quarantine(raft);
    }
}

/* --- snapshots --- */
static void answer_snapshot(struct raft *raft) {
    outbox_add(&raft->outbox, &(struct raft_message){.kind = RAFT_SNAPSHOT_REPLY,
                                                     .from = raft->id,
                                                     .to = raft->leader,
                                                     .term = raft->term,
                                                     .match = follower_match(raft)});
}

/* A snapshot is of committed entries: whoever has its last one has, and may commit, all of
 * them. */
static void settle_snapshot(struct raft *raft, uint64_t index) {
    raft->commit_index = larger(raft->commit_index, index);
    raft->following.verified = larger(raft->following.verified, raft->commit_index);
}

enum raft_result follower_receive_snapshot(struct raft *raft,
                                           const struct raft_message *message,
                                           struct raft_outcome *outcome) {
    if (message->term < raft->term) {
        answer_old_leader(raft, message);
        return RAFT_STALE;
    }
    if (!can_lead_us(raft, message)) {
        return RAFT_BAD_MESSAGE;
    }
    heed(raft, message);
    bool had = message->last.index <= raft->commit_index || log_has(&raft->log, message->last);
    outcome->wanted = !had;
    if (had) {
        settle_snapshot(raft, message->last.index);
        answer_snapshot(raft);
    }
    return RAFT_OK;
}

static void drop_log(struct raft *raft, const struct raft_event *event,
                     struct raft_outcome *outcome) {
    log_reset(&raft->log, event->position, event->configuration, event->configuration_index);
    raft->truncate_from = 0;
    raft->handed_index = event->position.index;
    raft->durable_index = event->position.index;
    raft->following.verified = event->position.index;
    raft->generation += 1;
    outcome->log_reset = true;
}

/* A log that has the snapshot's last entry goes on after it (S2); any other is dropped: it ends
 * before, or contradicts what is committed (5.4, S1). What the disk has not been given by now
 * was acknowledged to nobody and may be dropped as well, rather than leaving a gap there. */
enum raft_result follower_installed(struct raft *raft, const struct raft_event *event,
                                    struct raft_outcome *outcome) {
    struct raft_position position = event->position;
    if (position.index <= raft->log.snapshot.index) {
        return RAFT_STALE;
    }
    bool keep = log_has(&raft->log, position) && position.index <= raft->handed_index;
    bool contradicts = !log_has(&raft->log, position) && position.index <= raft->commit_index;
    if (contradicts || position.index >= NUMBER_MAX - LOG_INDEXES_KEPT || position.term == 0 ||
        position.term > raft->term || event->configuration == NULL ||
        !message_configuration_is_sound(event->configuration) ||
        event->configuration_index > position.index) {
        return RAFT_BAD_MESSAGE;
    }
    if (!keep && (raft->role == RAFT_LEADER || position.index <= raft->commit_index)) {
        return RAFT_STALE; /* we have it all; a leader has by definition */
    }
    settle_snapshot(raft, position.index);
    if (keep) {
        log_compact(&raft->log, position.index);
        raft->durable_index = larger(raft->durable_index, position.index);
        replication_compacted(raft);
    } else {
        drop_log(raft, event, outcome);
    }
    if (raft->role == RAFT_FOLLOWER && raft->leader != 0) {
        answer_snapshot(raft);
    }
    return RAFT_OK;
}
