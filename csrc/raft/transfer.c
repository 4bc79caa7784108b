/* Handing over leadership (3.10): stop taking proposals, bring the other up, tell it to
 * campaign.
 *
 * Invariant: it ends, one way or the other, within one election time-out (L9). No lease is
 * held, so reads need no care (L6). */
#include "base/assert.h"
#include "raft/internal.h"

static bool may_receive(const struct raft *raft, uint64_t id) {
    const struct raft_member *member =
        raft_configuration_find(&raft_in_force(raft)->configuration, id);
    return member != NULL && member->voter;
}

/* The voter that lacks least and answers; 0: there is none. */
static uint64_t find_most_advanced(const struct raft *raft) {
    const struct progress *best = NULL;
    for (uint32_t i = 0; i < raft->leading.peer_count; i++) {
        const struct progress *progress = &raft->leading.peers[i];
        bool fits = may_receive(raft, progress->id) &&
                    raft->now_ms - progress->heard_ms < raft->max_timeout_ms;
        if (fits && (best == NULL || progress->match > best->match)) {
            best = progress;
        }
    }
    return best == NULL ? 0 : best->id;
}

enum raft_result transfer_start(struct raft *raft, uint64_t id) {
    if (raft->role != RAFT_LEADER) {
        return RAFT_NOT_LEADER;
    }
    if (raft->leading.transferee != 0) {
        return RAFT_BUSY;
    }
    if (id == raft->id) {
        return RAFT_OK;
    }
    uint64_t target = id == 0 ? find_most_advanced(raft) : id;
    if (target == 0 || !may_receive(raft, target)) {
        return RAFT_NOT_MEMBER;
    }
    raft->leading.transferee = target;
    raft->leading.transfer_ms = raft->now_ms + raft->max_timeout_ms;
    raft->leading.timeout_now_ms = raft->now_ms;
    return RAFT_OK;
}

void transfer_advance(struct raft *raft) {
    struct leading *leading = &raft->leading;
    const struct progress *progress = replication_find(raft, leading->transferee);
    if (leading->transferee == 0) {
        return;
    }
    ASSERT(progress != NULL); /* nobody is removed meanwhile */
    if (progress->match == raft->log.last_index && raft->now_ms >= leading->timeout_now_ms) {
        leading->timeout_now_ms = raft->now_ms + raft_heartbeat_ms(raft);
        outbox_add(&raft->outbox, &(struct raft_message){.kind = RAFT_TIMEOUT_NOW,
                                                         .from = raft->id,
                                                         .to = progress->id,
                                                         .term = raft->term});
    }
}

void transfer_tick(struct raft *raft) {
    if (raft->leading.transferee != 0 && raft->now_ms >= raft->leading.transfer_ms) {
        raft->leading.transferee = 0;
    }
}
