/* Configurations (4): joint consensus, learners, and peers that leave.
 *
 *   ADD                {1 2 3} -> {1 2 3 (4)} learner
 *   caught up          {1 2 3 (4)} -> joint {1 2 3} {1 2 3 4} -> {1 2 3 4}
 *   REMOVE of a voter  {1 2 3} -> joint {1 2 3} {1 2} -> {1 2}
 *
 * Every arrow is an entry; a joint configuration is left by whoever leads when it is committed
 * (M7).
 *
 * Invariant: the next arrow begins only when the last one's entry, and an entry of our own
 * term, are committed (M1, M2, M6): so two neighbouring majorities always overlap. */
#include "base/assert.h"
#include "raft/internal.h"

/* A fresh cluster of one. Its configuration is an entry like any other, in term 1, so that
 * whoever joins learns it from the log. */
enum raft_result membership_bootstrap(struct raft *raft, uint64_t id,
                                      struct raft_outcome *outcome) {
    if (id == 0 || id > NUMBER_MAX) {
        return RAFT_BAD_MESSAGE;
    }
    if (raft->log.last_index > 0 || raft_in_force(raft)->configuration.count > 0 ||
        raft->leader != 0 || (raft->id != 0 && raft->id != id)) {
        return RAFT_ALREADY_MEMBER;
    }
    raft->id = id;
    if (raft->term == 0) {
        election_follow(raft, 1, 0);
    }
    struct raft_configuration configuration = {.count = 1, .members = {{id, true, false}}};
    log_append(&raft->log, &(struct raft_entry){.term = raft->term,
                                                .kind = RAFT_ENTRY_CONFIGURATION,
                                                .configuration = &configuration});
    outcome->first = 1;
    outcome->last = 1;
    raft->election_ms = raft->now_ms; /* nobody else could lead: do not wait */
    return RAFT_OK;
}

/* --- requests --- */
static enum raft_result may_change(const struct raft *raft) {
    if (raft->role != RAFT_LEADER) {
        return RAFT_NOT_LEADER;
    }
    bool busy = raft->leading.transferee != 0 || raft->leading.leaving ||
                raft->commit_index < raft->leading.term_start_index ||
                raft_change_pending(raft) || raft_log_is_full(raft);
    return busy ? RAFT_BUSY : RAFT_OK;
}

static void append_configuration(struct raft *raft,
                                 const struct raft_configuration *configuration) {
    ASSERT(message_configuration_is_sound(configuration));
    replication_append(raft, RAFT_ENTRY_CONFIGURATION, configuration);
}

enum raft_result membership_add(struct raft *raft, uint64_t id, struct raft_outcome *outcome) {
    enum raft_result result = may_change(raft);
    if (result != RAFT_OK) {
        return result;
    }
    struct raft_configuration configuration = raft_in_force(raft)->configuration;
    if (id == 0 || id > NUMBER_MAX) {
        return RAFT_BAD_MESSAGE;
    }
    if (raft_configuration_find(&configuration, id) != NULL) {
        return RAFT_ALREADY_MEMBER;
    }
    if (configuration.count == MEMBERS_MAX) {
        return RAFT_TOO_MANY_MEMBERS;
    }
    configuration.members[configuration.count++] = (struct raft_member){.id = id};
    append_configuration(raft, &configuration);
    outcome->first = outcome->last = raft->log.last_index;
    return RAFT_OK;
}

static void drop_member(struct raft_configuration *configuration, uint32_t at) {
    configuration->count -= 1;
    for (uint32_t i = at; i < configuration->count; i++) {
        configuration->members[i] = configuration->members[i + 1];
    }
}

static void make_joint(struct raft_configuration *configuration) {
    configuration->joint = true;
    for (uint32_t i = 0; i < configuration->count; i++) {
        configuration->members[i].voter_before = configuration->members[i].voter;
    }
}

enum raft_result membership_remove(struct raft *raft, uint64_t id,
                                   struct raft_outcome *outcome) {
    enum raft_result result = may_change(raft);
    if (result != RAFT_OK) {
        return result;
    }
    struct raft_configuration configuration = raft_in_force(raft)->configuration;
    const struct raft_member *member = raft_configuration_find(&configuration, id);
    if (member == NULL) {
        return RAFT_NOT_MEMBER;
    }
    uint32_t at = (uint32_t)(member - configuration.members);
    if (!member->voter) {
        drop_member(&configuration, at);
    } else if (quorum_count_voters(&configuration) == 1) {
        return RAFT_LAST_VOTER;
    } else {
        make_joint(&configuration);
        configuration.members[at].voter = false;
    }
    append_configuration(raft, &configuration);
    outcome->first = outcome->last = raft->log.last_index;
    return RAFT_OK;
}

/* --- what follows by itself --- */
static void leave_joint(struct raft *raft) {
    struct raft_configuration configuration = raft_in_force(raft)->configuration;
    for (uint32_t i = configuration.count; i-- > 0;) {
        struct raft_member *member = &configuration.members[i];
        if (!member->voter && member->voter_before) {
            drop_member(&configuration, i);
        } else {
            member->voter_before = false;
        }
    }
    configuration.joint = false;
    append_configuration(raft, &configuration);
}

/* A learner gets its vote when it lags by no more than a moment: a dead address never does, and
 * costs the cluster nothing (4.2.1, 4.2.2; M11). */
static bool has_caught_up(struct raft *raft, uint64_t id) {
    const struct progress *progress = replication_find(raft, id);
    return progress != NULL && progress->state == PROGRESS_PIPELINE &&
           raft->now_ms - progress->heard_ms < raft->min_timeout_ms &&
           progress->match >= raft_in_force(raft)->index &&
           progress->match >= raft->leading.caught_up_index;
}

static bool promote_learners(struct raft *raft) {
    struct raft_configuration configuration = raft_in_force(raft)->configuration;
    bool promoted = false;
    make_joint(&configuration);
    for (uint32_t i = 0; i < configuration.count; i++) {
        struct raft_member *member = &configuration.members[i];
        if (!member->voter && has_caught_up(raft, member->id)) {
            member->voter = true;
            promoted = true;
        }
    }
    if (promoted) {
        append_configuration(raft, &configuration);
    }
    return promoted;
}

/* The committed configuration is without us: we go on heartbeating until another takes over, so
 * that it is informed, and so are those who were removed (4.2.2; M8). */
static void begin_leaving(struct raft *raft) {
    if (!raft->leading.leaving) {
        raft->leading.leaving = true;
        raft->leading.leaving_ms = raft->now_ms + raft->max_timeout_ms;
        raft->leading.transferee = 0;
        transfer_start(raft, 0);
    }
}

/* A removed peer knows when it echoes a round that was opened after its removal was committed
 * and stored there: the same message told it the commit index (M10). */
static void watch_departing(struct raft *raft) {
    struct leading *leading = &raft->leading;
    for (uint32_t i = leading->peer_count; i-- > 0;) {
        struct progress *progress = &leading->peers[i];
        if (!progress->departing) {
            continue;
        }
        bool known =
            progress->departing_round > 0 && progress->round >= progress->departing_round;
        if (known || raft->now_ms >= progress->departing_ms) {
            leading->peers[i] = leading->peers[--leading->peer_count];
        } else if (progress->departing_round == 0 &&
                   progress->match >= progress->departing_index &&
                   raft->commit_index >= progress->departing_index) {
            progress->departing_round = reads_open_round(raft);
        }
    }
}

bool membership_advance(struct raft *raft) {
    watch_departing(raft);
    const struct log_configuration *in_force = raft_in_force(raft);
    if (raft->commit_index < in_force->index ||
        raft->commit_index < raft->leading.term_start_index) {
        return false;
    }
    if (in_force->configuration.joint) {
        leave_joint(raft);
        return true;
    }
    if (raft_configuration_find(&in_force->configuration, raft->id) == NULL) {
        begin_leaving(raft);
        return false;
    }
    return raft->leading.transferee == 0 && !raft_log_is_full(raft) && promote_learners(raft);
}

void membership_tick(struct raft *raft) {
    if (raft->leading.leaving && raft->now_ms >= raft->leading.leaving_ms) {
        election_follow(raft, raft->term, 0);
    }
}

/* --- who is sent to --- */
static void add_peer(struct raft *raft, uint64_t id) {
    struct leading *leading = &raft->leading;
    if (leading->peer_count < RAFT_PEERS_MAX) {
        progress_init(&leading->peers[leading->peer_count++], id, raft->log.last_index,
                      raft->now_ms);
    }
}

static void mark_departing(struct raft *raft, struct progress *progress, uint64_t index) {
    progress->departing = true;
    progress->departing_index = index;
    progress->departing_round = 0;
    progress->departing_ms =
        raft->now_ms + (uint64_t)RAFT_DEPARTING_TIMEOUTS * raft->max_timeout_ms;
    progress->due = true;
}

/* Departing peers make room when there are many of them: members come first. */
static void make_room(struct raft *raft, uint32_t wanted) {
    struct leading *leading = &raft->leading;
    for (uint32_t i = leading->peer_count;
         i-- > 0 && leading->peer_count + wanted > RAFT_PEERS_MAX;) {
        if (leading->peers[i].departing) {
            leading->peers[i] = leading->peers[--leading->peer_count];
        }
    }
}

void membership_sync_peers(struct raft *raft) {
    const struct log_configuration *in_force = raft_in_force(raft);
    const struct raft_configuration *configuration = &in_force->configuration;
    for (uint32_t i = 0; i < raft->leading.peer_count; i++) {
        struct progress *progress = &raft->leading.peers[i];
        bool member = raft_configuration_find(configuration, progress->id) != NULL;
        if (!member && !progress->departing) {
            mark_departing(raft, progress, in_force->index);
        }
    }
    make_room(raft, configuration->count);
    for (uint32_t i = 0; i < configuration->count; i++) {
        uint64_t id = configuration->members[i].id;
        struct progress *progress = replication_find(raft, id);
        if (id != raft->id && progress == NULL) {
            add_peer(raft, id);
        } else if (progress != NULL) {
            progress->departing = false;
        }
    }
}

/* The leader of the last change may be gone before those whom it removed learned of it: whoever
 * is in the configuration before ours, but not in ours, is told by us. */
void membership_adopt_departed(struct raft *raft) {
    const struct log_configuration *in_force = raft_in_force(raft);
    if (in_force->index <= raft->log.snapshot.index) {
        return;
    }
    const struct raft_configuration *before =
        &log_configuration_at(&raft->log, in_force->index - 1)->configuration;
    for (uint32_t i = 0; i < before->count; i++) {
        uint64_t id = before->members[i].id;
        if (id != raft->id && raft_configuration_find(&in_force->configuration, id) == NULL &&
            raft->leading.peer_count < RAFT_PEERS_MAX) {
            add_peer(raft, id);
            mark_departing(raft, replication_find(raft, id), in_force->index);
        }
    }
}
