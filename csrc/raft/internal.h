/* What the rooms of raft/ share: the member's state, and each room's face to raft.c.
 *
 * Whoever changes `role`, `term`, `voted_for` or `leader` does it through election.c; whoever
 * changes the log's length or what is durable of it does it through the functions below. */
#ifndef RAFTPICO_RAFT_INTERNAL_H
#define RAFTPICO_RAFT_INTERNAL_H

#include "base/random.h"
#include "raft/log.h"
#include "raft/outbox.h"
#include "raft/progress.h"
#include "raft/quorum.h"
#include "raft/raft.h"

/* Room in the log that every step claims before it begins: one NOOP, and the configurations
 * that can follow from each other within a step. */
#define STEP_RUNS_MAX 4u
#define STEP_CONFIGURATIONS_MAX 4u
#define LOG_INDEXES_KEPT 1024u

/* A follower's view of its leader; all of it is about the current term. */
struct following {
    uint64_t heard_ms;     /* when the leader was last heard */
    bool connected;        /* its connection has not broken since */
    uint64_t verified;     /* our log equals the leader's up to here: >= commit_index */
    uint64_t acknowledged; /* the match of the last reply */
    uint64_t round;        /* latest read round that it told */
    uint64_t replied_ms;   /* when the last reply was made */
    bool reply_due;
    bool rejected; /* the reply is a refusal of `previous` */
    struct raft_position previous;
    struct raft_position hint;
};

struct candidacy {
    uint32_t count;
    uint64_t granted[MEMBERS_MAX]; /* who gave us a vote, or a pre-vote: by id, once (V5) */
};

struct leading {
    uint32_t peer_count;
    struct progress
        peers[RAFT_PEERS_MAX]; /* everybody else in the configuration, and departing */
    uint64_t term_start_index;
    uint64_t caught_up_index; /* a learner that has this much lags two heartbeats at most */
    uint64_t caught_up_next;
    uint64_t caught_up_ms;
    bool round_open; /* read_round has not been told to anybody yet */
    uint64_t reads_confirmed;
    uint64_t transferee;     /* 0: none */
    uint64_t transfer_ms;    /* abort then */
    uint64_t timeout_now_ms; /* tell it (again) then */
    bool leaving;            /* the committed configuration is without us */
    uint64_t leaving_ms;     /* stop leading by then */
};

struct raft {
    uint64_t id; /* 0: none yet */
    uint64_t now_ms;
    uint32_t min_timeout_ms;
    uint32_t max_timeout_ms;
    uint32_t commit_notice_ms;
    struct random random;

    uint64_t term;
    uint64_t voted_for;
    uint64_t saved_term; /* what the disk has of the two, at least */
    uint64_t saved_vote;
    bool vote_changed; /* since the last take */

    enum raft_role role;
    uint64_t leader;
    uint64_t election_ms;    /* campaign then, unless a leader is heard */
    uint64_t no_campaign_ms; /* not before then, in any case (STEP_DOWN) */

    struct log log;
    uint64_t commit_index;
    uint64_t durable_index;
    uint64_t handed_index;  /* entries up to here were given to the disk */
    uint64_t truncate_from; /* of those that were given: drop from here; 0: none */
    uint64_t generation;    /* counts truncations: older PERSISTED say nothing (C5, C6) */

    bool quarantined;
    bool quarantine_known; /* the current leader told its commit index: */
    uint64_t quarantine_index;

    struct following following;
    struct candidacy candidacy;
    struct leading leading;
    uint64_t read_round; /* never goes back, whoever leads */

    uint64_t commit_taken; /* as of the last take */
    uint64_t reads_taken;
    struct outbox outbox;
};

/* --- raft.c ----------------------------------------------------------------------------------
 */
static inline uint64_t smaller(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}
static inline uint64_t larger(uint64_t a, uint64_t b) {
    return a > b ? a : b;
}
static inline uint64_t raft_heartbeat_ms(const struct raft *raft) {
    uint64_t interval = raft->min_timeout_ms / RAFT_HEARTBEATS_PER_TIMEOUT;
    return interval == 0 ? 1 : smaller(interval, RAFT_HEARTBEAT_MS_MOST);
}
static inline const struct log_configuration *raft_in_force(const struct raft *raft) {
    return log_configuration_at(&raft->log, raft->log.last_index);
}
/* Indexes end at NUMBER_MAX; a little is kept for what a leader appends of itself. */
static inline bool raft_log_is_full(const struct raft *raft) {
    return raft->log.last_index >= NUMBER_MAX - LOG_INDEXES_KEPT;
}
static inline bool raft_change_pending(const struct raft *raft) {
    const struct log_configuration *in_force = raft_in_force(raft);
    return in_force->configuration.joint || in_force->index > raft->commit_index;
}

/* --- message.c: whether a message could have been sent by a member that keeps the rules -- */
bool message_is_sound(const struct raft_message *message);
bool message_configuration_is_sound(const struct raft_configuration *configuration);

/* --- election.c: terms, votes, roles (3.4, 9.6, 4.2.3, 3.10) --- */
void election_restart_timer(struct raft *raft);
void election_follow(struct raft *raft, uint64_t term, uint64_t leader); /* term >= ours */
void election_heed(struct raft *raft, uint64_t term, uint64_t leader); /* a leader was heard */
void election_tick(struct raft *raft);
void election_persisted(struct raft *raft, uint64_t term, uint64_t voted_for);
void election_disconnected(struct raft *raft, uint64_t id);
void election_stop(struct raft *raft); /* STEP_DOWN */
enum raft_result election_receive_vote(struct raft *raft, const struct raft_message *message);
enum raft_result election_receive_reply(struct raft *raft, const struct raft_message *message);
enum raft_result election_receive_timeout_now(struct raft *raft,
                                              const struct raft_message *message);

/* --- follower.c: a leader's entries and snapshots arrive (3.5, 5.4) --- */
enum raft_result follower_receive_append(struct raft *raft, const struct raft_message *message,
                                         struct raft_outcome *outcome);
enum raft_result follower_receive_snapshot(struct raft *raft,
                                           const struct raft_message *message,
                                           struct raft_outcome *outcome);
enum raft_result follower_installed(struct raft *raft, const struct raft_event *event,
                                    struct raft_outcome *outcome);
void follower_settle(struct raft *raft);
bool follower_take_reply(struct raft *raft, struct raft_message *reply);
static inline uint64_t follower_match(const struct raft *raft) {
    return smaller(raft->durable_index, raft->following.verified);
}

/* --- replication.c: a leader's side of it (3.5, 3.6.2, 10.2) --- */
void replication_lead(struct raft *raft);
void replication_append(struct raft *raft, enum raft_entry_kind kind,
                        const struct raft_configuration *configuration);
enum raft_result replication_propose(struct raft *raft, uint64_t id, uint32_t count,
                                     struct raft_outcome *outcome);
enum raft_result replication_receive_reply(struct raft *raft,
                                           const struct raft_message *message);
enum raft_result replication_receive_snapshot_reply(struct raft *raft,
                                                    const struct raft_message *message);
enum raft_result replication_sent(struct raft *raft, uint64_t id, uint64_t index);
enum raft_result replication_room(struct raft *raft, uint64_t id);
enum raft_result replication_connected(struct raft *raft, uint64_t id, uint64_t incarnation);
void replication_disconnected(struct raft *raft, uint64_t id);
enum raft_result replication_snapshot_failed(struct raft *raft, uint64_t id);
void replication_compacted(struct raft *raft);
void replication_tick(struct raft *raft);
bool replication_advance_commit(struct raft *raft);
void replication_inform_all(struct raft *raft);
/* Clients of peer `id` wait for this index: it is to know at once when that is committed. */
void replication_note_awaited(struct raft *raft, uint64_t id, uint64_t index);
struct progress *replication_find(struct raft *raft, uint64_t id); /* NULL: unknown */

/* --- sending.c: what a leader sends to each peer at a take --- */
bool sending_wanted(const struct raft *raft);
void sending_take(struct raft *raft, struct raft_actions *actions);
uint64_t sending_deadline_ms(const struct raft *raft);

/* --- membership.c: configurations (4) --- */
enum raft_result membership_bootstrap(struct raft *raft, uint64_t id,
                                      struct raft_outcome *outcome);
enum raft_result membership_add(struct raft *raft, uint64_t id, struct raft_outcome *outcome);
enum raft_result membership_remove(struct raft *raft, uint64_t id,
                                   struct raft_outcome *outcome);
bool membership_advance(struct raft *raft);
void membership_sync_peers(struct raft *raft);
void membership_adopt_departed(struct raft *raft);
void membership_tick(struct raft *raft);
/* --- transfer.c: hand-over (3.10) --- */
enum raft_result transfer_start(struct raft *raft, uint64_t id);
void transfer_advance(struct raft *raft);
void transfer_tick(struct raft *raft);

/* --- reads.c (6.4) --- */
enum raft_result reads_register(struct raft *raft, uint64_t asker,
                                struct raft_outcome *outcome);
uint64_t reads_open_round(struct raft *raft);
void reads_advance(struct raft *raft);

#endif
