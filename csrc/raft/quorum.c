/* Majorities, single and joint; see quorum.h. */
#include "raft/quorum.h"

static bool in_set(const struct raft_member *member, bool old_set) {
    return old_set ? member->voter_before : member->voter;
}

/* Insertion into a row that falls: sets are small, and the median is then read off. */
static uint64_t reached_in_set(const struct raft_configuration *configuration,
                               const uint64_t values[MEMBERS_MAX], bool old_set) {
    uint64_t falling[MEMBERS_MAX];
    uint32_t count = 0;
    for (uint32_t i = 0; i < configuration->count; i++) {
        if (!in_set(&configuration->members[i], old_set)) {
            continue;
        }
        uint32_t at = count++;
        for (; at > 0 && falling[at - 1] < values[i]; at--) {
            falling[at] = falling[at - 1];
        }
        falling[at] = values[i];
    }
    return count == 0 ? 0 : falling[count / 2];
}

uint64_t quorum_reached(const struct raft_configuration *configuration,
                        const uint64_t values[MEMBERS_MAX]) {
    uint64_t reached = reached_in_set(configuration, values, false);
    if (configuration->joint) {
        uint64_t before = reached_in_set(configuration, values, true);
        reached = before < reached ? before : reached;
    }
    return reached;
}

bool quorum_has_voter(const struct raft_configuration *configuration, uint64_t id) {
    const struct raft_member *member = raft_configuration_find(configuration, id);
    return member != NULL && (member->voter || (configuration->joint && member->voter_before));
}

uint32_t quorum_count_voters(const struct raft_configuration *configuration) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < configuration->count; i++) {
        count += configuration->members[i].voter ? 1 : 0;
    }
    return count;
}
