/* Messages that wait for the next take, at most one of a kind for each peer.
 *
 * Only what is not derived from a peer's progress waits here: votes, their replies, snapshot
 * replies and hand-overs. A newer message replaces an older one of its kind; when the box is
 * full the new one is dropped, as a network may: every message is sent again in time. */
#ifndef RAFTPICO_RAFT_OUTBOX_H
#define RAFTPICO_RAFT_OUTBOX_H

#include "raft/raft.h"

struct outbox {
    uint32_t count;
    struct raft_message messages[RAFT_MESSAGES_MAX];
};

void outbox_clear(struct outbox *outbox);
void outbox_add(struct outbox *outbox, const struct raft_message *message);

#endif
