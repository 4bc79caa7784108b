/* A look inside a member that changes nothing; see the end of raft.h. */
#include "raft/internal.h"

void raft_peek_state(const struct raft *raft, struct raft_state *state) {
    *state = (struct raft_state){
        .id = raft->id,
        .role = raft->role,
        .term = raft->term,
        .voted_for = raft->voted_for,
        .leader = raft->leader,
        .commit_index = raft->commit_index,
        .durable_index = raft->durable_index,
        .last = log_last(&raft->log),
        .snapshot = raft->log.snapshot,
        .configuration_index = raft_in_force(raft)->index,
        .term_start_index = raft->leading.term_start_index,
        .change_pending = raft_change_pending(raft),
        .quarantined = raft->quarantined,
        .transferee = raft->leading.transferee,
    };
}

const struct raft_configuration *raft_peek_configuration(const struct raft *raft) {
    return &raft_in_force(raft)->configuration;
}

const struct raft_configuration *raft_configuration_at(const struct raft *raft, uint64_t index,
                                                       uint64_t *configuration_index) {
    if (index < raft->log.snapshot.index || index > raft->log.last_index) {
        return NULL;
    }
    const struct log_configuration *found = log_configuration_at(&raft->log, index);
    *configuration_index = found->index;
    return &found->configuration;
}

uint64_t raft_term_at(const struct raft *raft, uint64_t index) {
    return log_term_at(&raft->log, index);
}

enum raft_entry_kind raft_kind_at(const struct raft *raft, uint64_t index,
                                  const struct raft_configuration **configuration) {
    const struct raft_configuration *ignored;
    return log_kind_at(&raft->log, index, configuration != NULL ? configuration : &ignored);
}

bool raft_peek_peer(const struct raft *raft, uint64_t id, struct raft_peer_state *state) {
    for (uint32_t i = 0; i < raft->leading.peer_count; i++) {
        const struct progress *progress = &raft->leading.peers[i];
        if (progress->id == id) {
            *state = (struct raft_peer_state){
                .match = progress->match,
                .next = progress->next,
                .probing = progress->state == PROGRESS_PROBE,
                .in_snapshot = progress->state == PROGRESS_SNAPSHOT,
            };
            return true;
        }
    }
    return false;
}

const char *raft_role_name(enum raft_role role) {
    switch (role) {
    case RAFT_FOLLOWER:
        return "Follower";
    case RAFT_PRECANDIDATE:
    case RAFT_CANDIDATE:
        return "Candidate";
    case RAFT_LEADER:
        return "Leader";
    }
    return "Unknown";
}
