/* What a majority of the voters has reached; while joint, of both sets (4.3).
 *
 * One question serves all: the commit index (3.5), read rounds (6.4), votes (3.4: a granted
 * vote is a 1) and the last contact with a quorum (6.2). Learners never count (M12). */
#ifndef RAFTPICO_RAFT_QUORUM_H
#define RAFTPICO_RAFT_QUORUM_H

#include "raft/raft.h"

/* The highest number that a majority has reached, where member i of the configuration has
 * reached values[i]. 0 when there are no voters. */
uint64_t quorum_reached(const struct raft_configuration *configuration,
                        const uint64_t values[MEMBERS_MAX]);

/* Whether `id` takes part in majorities: a voter of the new or the old set. */
bool quorum_has_voter(const struct raft_configuration *configuration, uint64_t id);

/* How many voters the new (or only) set has. */
uint32_t quorum_count_voters(const struct raft_configuration *configuration);

#endif
