/* Reads that are no entries (6.4): the leader proves that it still leads, then answers.
 *
 * Rounds are numbered: every APPEND carries the latest, every answer echoes it, and a read
 * waits for a quorum's echo of a round that began after it (L3). No clock is trusted (L4). The
 * reads of a turn share a round.
 *
 * A peer that asks on behalf of its own clients says by that in which term it was when it
 * asked, which is all that an echo says: where it and we are a quorum (three voters), nobody
 * else need be heard. That proves the peer's reads, which came before it asked, and no
 * others: ours of the same turn may be younger than its question.
 *
 * Invariant: a round number is told to a peer only in a message made after the reads that it
 * confirms were registered. */
#include "raft/internal.h"

uint64_t reads_open_round(struct raft *raft) {
    if (!raft->leading.round_open) {
        raft->leading.round_open = true;
        raft->read_round += 1;
        replication_inform_all(raft);
    }
    return raft->read_round;
}

/* Whether we and the one who asks are a quorum; of both sets while they are two. */
static bool is_quorum_with(const struct raft *raft, uint64_t asker) {
    const struct raft_configuration *configuration = &raft_in_force(raft)->configuration;
    uint64_t heard[MEMBERS_MAX] = {0};
    for (uint32_t i = 0; i < configuration->count; i++) {
        uint64_t id = configuration->members[i].id;
        heard[i] = id == raft->id || id == asker;
    }
    return quorum_reached(configuration, heard) > 0;
}

/* Before our first own entry is committed we may not know all that is: such a read waits for
 * that very entry instead of being refused (L1, L2). */
enum raft_result reads_register(struct raft *raft, uint64_t asker,
                                struct raft_outcome *outcome) {
    if (raft->role != RAFT_LEADER) {
        return RAFT_NOT_LEADER;
    }
    bool proven = asker != 0 && is_quorum_with(raft, asker);
    outcome->round = proven ? 0 : reads_open_round(raft);
    outcome->index = larger(raft->commit_index, raft->leading.term_start_index);
    replication_note_awaited(raft, asker, outcome->index);
    return RAFT_OK;
}

void reads_advance(struct raft *raft) {
    const struct raft_configuration *configuration = &raft_in_force(raft)->configuration;
    uint64_t rounds[MEMBERS_MAX] = {0};
    for (uint32_t i = 0; i < configuration->count; i++) {
        uint64_t id = configuration->members[i].id;
        const struct progress *progress = replication_find(raft, id);
        if (id == raft->id) {
            rounds[i] = raft->read_round;
        } else if (progress != NULL) {
            rounds[i] = progress->round;
        }
    }
    raft->leading.reads_confirmed =
        larger(raft->leading.reads_confirmed, quorum_reached(configuration, rounds));
}
