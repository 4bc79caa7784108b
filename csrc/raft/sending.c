/* What a leader sends to each peer at a take: made then, from the peer's progress and from what
 * the log and the commit index are by then, so that a turn costs one message a peer.
 *
 * Invariant: a message with nothing to offer says `previous` of an entry that is known to
 * match, or {0, 0}, so that it is never refused; only the host's SENT moves `next`. */
#include "base/assert.h"
#include "raft/internal.h"

enum parcel {
    PARCEL_NONE,
    PARCEL_HEARTBEAT, /* commit index and read round alone */
    PARCEL_QUESTION,  /* is `previous` in your log? */
    PARCEL_ENTRIES,
    PARCEL_SNAPSHOT,
};

static bool can_offer(const struct raft *raft, const struct progress *progress) {
    return progress->offer_first == 0 &&
           progress->next <= progress_limit(progress, raft->log.last_index);
}

/* What goes next; when the host's queue is full, a heartbeat goes before entries (D11). */
static enum parcel choose(const struct raft *raft, const struct progress *progress) {
    enum parcel idle = progress->due ? PARCEL_HEARTBEAT : PARCEL_NONE;
    switch (progress->state) {
    case PROGRESS_PROBE:
        return progress->probe_asked ? idle : PARCEL_QUESTION;
    case PROGRESS_SNAPSHOT:
        return progress->snapshot_due ? PARCEL_SNAPSHOT : idle;
    case PROGRESS_PIPELINE:
        if (can_offer(raft, progress) && !(progress->offer_refused && progress->due)) {
            return PARCEL_ENTRIES;
        }
        return idle;
    }
    return PARCEL_NONE; /* unreachable: the switch names every state */
}

static struct raft_message address(const struct raft *raft, const struct progress *progress,
                                   enum raft_message_kind kind) {
    return (struct raft_message){.kind = kind,
                                 .from = raft->id,
                                 .to = progress->id,
                                 .term = raft->term,
                                 .commit = raft->commit_index,
                                 .round = raft->read_round};
}

static void set_range(const struct raft *raft, struct raft_message *message, uint64_t previous,
                      uint64_t end) {
    message->previous = (struct raft_position){log_term_at(&raft->log, previous), previous};
    ASSERT(log_has(&raft->log, message->previous));
    message->first = previous + 1;
    message->end = end;
}

static void note_offer(struct raft *raft, struct progress *progress, uint64_t end) {
    progress->offer_first = progress->next;
    progress->offer_end = end;
    progress->offer_ms =
        raft->now_ms + larger(raft_heartbeat_ms(raft) / RAFT_OFFERS_PER_HEARTBEAT, 1);
    progress->offer_due = progress->due;
}

static void make_heartbeat(struct raft *raft, struct progress *progress,
                           struct raft_message *message) {
    bool known = log_term_at(&raft->log, progress->match) != 0;
    set_range(raft, message, known ? progress->match : 0, known ? progress->match : 0);
    progress->heartbeat_ms = raft->now_ms + raft_heartbeat_ms(raft);
}

static void make_question(struct raft *raft, struct progress *progress,
                          struct raft_message *message) {
    uint64_t end = progress->probe_eager ? progress_limit(progress, raft->log.last_index)
                                         : progress->probe;
    set_range(raft, message, progress->probe, larger(end, progress->probe));
    if (end > progress->probe) {
        note_offer(raft, progress, end);
    }
    progress->probe_eager = false;
    progress->probe_asked = true;
    progress->probe_ms = raft->now_ms + raft_heartbeat_ms(raft);
    progress->heartbeat_ms = progress->probe_ms;
}

static void make_entries(struct raft *raft, struct progress *progress,
                         struct raft_message *message) {
    uint64_t end = progress_limit(progress, raft->log.last_index);
    set_range(raft, message, progress->next - 1, end);
    note_offer(raft, progress, end);
}

static void make(struct raft *raft, struct progress *progress, enum parcel parcel,
                 struct raft_message *message) {
    *message = address(raft, progress, parcel == PARCEL_SNAPSHOT ? RAFT_SNAPSHOT : RAFT_APPEND);
    switch (parcel) {
    case PARCEL_NONE: /* unreachable: take_peer() has returned by then */
        break;        /* unreachable: the same */
    case PARCEL_HEARTBEAT:
        make_heartbeat(raft, progress, message);
        break;
    case PARCEL_QUESTION:
        make_question(raft, progress, message);
        break;
    case PARCEL_ENTRIES:
        make_entries(raft, progress, message);
        break;
    case PARCEL_SNAPSHOT:
        progress->snapshot_due = false;
        progress->snapshot_index = raft->log.snapshot.index;
        message->last = raft->log.snapshot;
        return; /* whatever else is due goes beside it */
    }
    progress->due = false;
    progress->told = raft->commit_index;
    progress->notice_ms = 0;
}

static void take_peer(struct raft *raft, struct progress *progress,
                      struct raft_actions *actions) {
    for (;;) {
        enum parcel parcel = choose(raft, progress);
        if (parcel == PARCEL_NONE || actions->message_count == RAFT_MESSAGES_MAX) {
            return;
        }
        make(raft, progress, parcel, &actions->messages[actions->message_count++]);
        if (parcel != PARCEL_SNAPSHOT) {
            return; /* one APPEND a take */
        }
    }
}

bool sending_wanted(const struct raft *raft) {
    for (uint32_t i = 0; i < raft->leading.peer_count; i++) {
        if (choose(raft, &raft->leading.peers[i]) != PARCEL_NONE) {
            return true;
        }
    }
    return false;
}

void sending_take(struct raft *raft, struct raft_actions *actions) {
    for (uint32_t i = 0; i < raft->leading.peer_count; i++) {
        take_peer(raft, &raft->leading.peers[i], actions);
    }
}

uint64_t sending_deadline_ms(const struct raft *raft) {
    uint64_t deadline_ms = raft->now_ms + raft_heartbeat_ms(raft);
    for (uint32_t i = 0; i < raft->leading.peer_count; i++) {
        const struct progress *progress = &raft->leading.peers[i];
        if (!progress->due) {
            deadline_ms = smaller(deadline_ms, progress->heartbeat_ms);
        }
        if (!progress->due && progress->notice_ms != 0) {
            deadline_ms = smaller(deadline_ms, progress->notice_ms);
        }
        if (progress->offer_first != 0) {
            deadline_ms = smaller(deadline_ms, progress->offer_ms);
        }
        if (progress->state == PROGRESS_PROBE && progress->probe_asked) {
            deadline_ms = smaller(deadline_ms, progress->probe_ms);
        }
    }
    return deadline_ms;
}
