/* One core on the bench: events by hand, its disk and its peers played by the test. */
#ifndef RAFTPICO_TESTS_RAFTRIG_H
#define RAFTPICO_TESTS_RAFTRIG_H

#include "raft/raft.h"

#define RIG_MIN_MS 100u
#define RIG_MAX_MS 200u
#define RIG_HEARTBEAT_MS 33u

struct rig {
    struct raft *raft;
    uint64_t now_ms;
    struct raft_outcome outcome; /* of the last step */
    struct raft_actions actions; /* of the last take */
};

/* Member `id` of voters 1..voters (the configuration stands before the log), whose log holds
 * commands of the given terms, in `term`. */
void rig_start(struct rig *rig, uint64_t id, uint32_t voters, uint64_t term,
               const uint64_t *terms, uint64_t count);
void rig_stop(struct rig *rig);

/* Of whatever rig_start() makes from now on; 0 at first. */
extern uint32_t rig_commit_notice_ms;

enum raft_result rig_step(struct rig *rig, const struct raft_event *event);
enum raft_result rig_do(struct rig *rig, enum raft_event_kind kind, uint64_t id);
enum raft_result rig_receive(struct rig *rig, const struct raft_message *message);
void rig_wait(struct rig *rig, uint64_t ms); /* and a tick */

void rig_take(struct rig *rig);
void rig_persist(struct rig *rig); /* what the last take gave to the disk */
void rig_sync(struct rig *rig); /* take and persist, until nothing is left; the last take with
                                   messages stays in `actions` */
const struct raft_message *rig_find(const struct rig *rig, enum raft_message_kind kind,
                                    uint64_t to); /* in the last take; NULL: none */
struct raft_state rig_state(const struct rig *rig);
struct raft_peer_state rig_peer(const struct rig *rig, uint64_t id);

/* Leader of its next term, by the votes of all others. */
void rig_lead(struct rig *rig, uint32_t voters);

/* A leader of `voters` whose first entry (index 1, term 2) is committed. */
void rig_lead_committed(struct rig *rig, uint32_t voters);

/* Peer `id` has everything, durably. */
void rig_bring_up(struct rig *rig, uint64_t id);

/* An APPEND from `from`, its entries commands of `terms`. */
enum raft_result rig_append(struct rig *rig, uint64_t from, uint64_t term,
                            struct raft_position previous, const uint64_t *terms,
                            uint32_t count, uint64_t commit);

/* Peer `from` has everything up to `match`, durably. */
enum raft_result rig_acknowledge(struct rig *rig, uint64_t from, uint64_t match);

/* Every offer that is in the last take was sent whole. */
void rig_sent_all(struct rig *rig);

#endif
