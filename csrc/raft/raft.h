/* The Raft algorithm as a function of events: the whole public face of raft/.
 *
 * The core holds no payloads, addresses, sockets, files, threads, clock or randomness of its
 * own. Its host feeds events with raft_step(), any number of them, and then takes the merged
 * actions of all of them in one piece with raft_take_actions() - a *turn*. Log entries are
 * positions here; the host keeps their lines and finds them by index.
 *
 * Section numbers cite Ongaro, "Consensus: Bridging Theory and Practice" (2014).
 *
 * Invariants, asserted after every step:
 *   snapshot.index <= commit_index <= last_index;   durable_index <= last_index
 *   for each peer of a leader: match < next <= last_index + 1
 *   the configuration in force is the last one in the log, committed or not (4.1)
 *   nothing that depends on a term, a vote or an entry leaves before PERSISTED came back for it
 *
 * Threading: none. Failure: a step that returns RAFT_NO_MEMORY changed nothing. */
#ifndef RAFTPICO_RAFT_RAFT_H
#define RAFTPICO_RAFT_RAFT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/limits.h"
#include "base/status.h"

struct raft;

struct raft_position {
    uint64_t term;  /* 0: the empty position before the first entry */
    uint64_t index; /* first entry: 1 */
};

enum raft_role {
    RAFT_FOLLOWER, /* learners and servers outside the configuration included */
    RAFT_PRECANDIDATE,
    RAFT_CANDIDATE,
    RAFT_LEADER,
};

/* --- configurations (chapter 4) -------------------------------------------------------------
 *
 * A member is in the new (or only) voting set, the old one, both, or neither (a learner). The
 * configuration is joint exactly while some change of voters is under way; then elections,
 * commits and reads need a majority of both sets. Every learner is on its way to become a
 * voter: the leader promotes it when it has caught up (4.2.1). */
struct raft_member {
    uint64_t id;       /* > 0, never used again after a removal */
    bool voter;        /* in the new set */
    bool voter_before; /* in the old set; meaningful while joint, false otherwise */
};

struct raft_configuration {
    uint32_t count;
    bool joint;
    struct raft_member members[MEMBERS_MAX]; /* in joining order */
};

const struct raft_member *
raft_configuration_find(const struct raft_configuration *configuration, uint64_t id);

/* --- the log as the core sees it -------------------------------------------------------------
 */
enum raft_entry_kind {
    RAFT_ENTRY_COMMAND,       /* the host's; the core does not care */
    RAFT_ENTRY_NOOP,          /* the first entry of a leader's term (3.6.2) */
    RAFT_ENTRY_CONFIGURATION, /* a configuration, in force as soon as it is in the log */
};

struct raft_entry {
    uint64_t term;
    enum raft_entry_kind kind;
    const struct raft_configuration *configuration; /* borrowed; NULL but for CONFIGURATION */
};

/* --- messages --------------------------------------------------------------------------------
 */
enum raft_message_kind {
    RAFT_VOTE, /* RequestVote; `pre` for the pre-vote round (9.6) */
    RAFT_VOTE_REPLY,
    RAFT_APPEND, /* AppendEntries and heartbeat in one */
    RAFT_APPEND_REPLY,
    RAFT_SNAPSHOT, /* out: (go on) sending your snapshot to `to`; in: a piece of it arrived */
    RAFT_SNAPSHOT_REPLY, /* the snapshot is installed (or was not needed): `match` says how far
                          */
    RAFT_TIMEOUT_NOW,    /* leadership transfer (3.10) */
};

struct raft_message {
    enum raft_message_kind kind;
    uint64_t from; /* as the connection's hello said, never as the message says */
    uint64_t to;
    uint64_t term; /* sender's term; for a pre-vote the term it would campaign in */

    bool pre;      /* VOTE, VOTE_REPLY: a pre-vote */
    bool granted;  /* VOTE_REPLY */
    bool transfer; /* VOTE: campaign ordered by the leader, overrides stickiness (3.10) */
    struct raft_position last; /* VOTE: candidate's last entry. SNAPSHOT: its position */

    /* APPEND: the entry before the first one. APPEND_REPLY: rejected: the one that was not
     * found; accepted: the last entry that the leader's messages have verified, durable or not.
     */
    struct raft_position previous;
    uint64_t commit; /* APPEND, SNAPSHOT: leader's commit index */
    uint64_t round;  /* APPEND: latest read round; APPEND_REPLY: echoed (6.4) */
    uint32_t count;  /* APPEND in: entries carried */
    const struct raft_entry *entries; /* APPEND in: `count` of them, borrowed during the step */

    /* APPEND out: the entries of our own log that this peer may be sent now; empty (a
     * heartbeat) when first > end. The host sends as many of them as it likes, from `first` on
     * and in order, and says with RAFT_EVENT_SENT how far it came. */
    uint64_t first;
    uint64_t end; /* last index offered, included */

    bool rejected;  /* APPEND_REPLY: the previous entry is not in the follower's log */
    uint64_t match; /* APPEND_REPLY, SNAPSHOT_REPLY: durable, and as the leader's, up to here */
    struct raft_position hint; /* rejected: a position the logs may agree at or before: the
                                  follower's last entry whose term is <= previous.term */
};

/* --- events ----------------------------------------------------------------------------------
 */
enum raft_event_kind {
    RAFT_EVENT_TICK,           /* time has passed; nothing else */
    RAFT_EVENT_RECEIVE,        /* a message came from a peer */
    RAFT_EVENT_LOG_PERSISTED,  /* our log is durable up to a position */
    RAFT_EVENT_VOTE_PERSISTED, /* term and vote are durable */
    RAFT_EVENT_BOOTSTRAP,    /* first member of a new cluster: configuration {id}, log empty */
    RAFT_EVENT_PROPOSE,      /* leader: append `count` commands, ours or those of peer `id` */
    RAFT_EVENT_ADD,          /* leader: add `id` as a learner, to be promoted when caught up */
    RAFT_EVENT_REMOVE,       /* leader: remove `id`, voter or learner, itself included */
    RAFT_EVENT_READ,         /* leader: register a read (6.4), ours or one that peer `id` asked
                                for in a message of our term */
    RAFT_EVENT_TRANSFER,     /* leader: hand over to `id` (0: the most advanced voter) (3.10) */
    RAFT_EVENT_SENT,         /* the host sent the entries of an APPEND up to `index` */
    RAFT_EVENT_ROOM,         /* it did not, but can send them to `id` now: offer them again */
    RAFT_EVENT_CONNECTED,    /* a peer's connection is up, with its incarnation */
    RAFT_EVENT_DISCONNECTED, /* and down: what was in flight is lost */
    RAFT_EVENT_COMPACTED,    /* a snapshot of our own is durable: the log may start after it */
    RAFT_EVENT_INSTALLED,    /* a leader's snapshot is durable here */
    RAFT_EVENT_SNAPSHOT_FAILED, /* sending the snapshot to `id` was given up: probe again */
    RAFT_EVENT_STEP_DOWN,       /* stop leading (the disk failed or stalled) and do not campaign
                                   for one maximal election time-out */
};

struct raft_event {
    enum raft_event_kind kind;
    uint64_t now_ms; /* monotonic, never less than in the event before */

    const struct raft_message *message; /* RECEIVE */
    uint64_t generation; /* LOG_PERSISTED: as given with the actions that were written */
    struct raft_position position; /* LOG_PERSISTED, COMPACTED, INSTALLED */
    uint64_t term;                 /* VOTE_PERSISTED */
    uint64_t voted_for;            /* VOTE_PERSISTED */
    uint32_t count;                /* PROPOSE */
    uint64_t id;          /* whom it is about; PROPOSE, READ: for whom (0: ourselves) */
    uint64_t index;       /* SENT */
    uint64_t incarnation; /* CONNECTED */
    const struct raft_configuration *configuration; /* INSTALLED: as of the snapshot */
    uint64_t configuration_index; /* INSTALLED: where that configuration stood in the log */
};

enum raft_result {
    RAFT_OK,
    RAFT_NOT_LEADER,
    RAFT_BUSY,       /* another change, or a transfer, is under way (M1, M2): try later */
    RAFT_OVERLOADED, /* too many uncommitted entries: try later */
    RAFT_ALREADY_MEMBER,
    RAFT_NOT_MEMBER,
    RAFT_TOO_MANY_MEMBERS,
    RAFT_LAST_VOTER,  /* the last voter cannot be removed */
    RAFT_STALE,       /* out of date; ignored, as it should be */
    RAFT_BAD_MESSAGE, /* impossible: the sender is broken or hostile; nothing moved */
    RAFT_NO_MEMORY,   /* nothing changed */
};

/* What one step decided, beyond the actions that are merged over a turn. Zeroes where nothing
 * applies, but for the range: that is empty as first 1, last 0. */
struct raft_outcome {
    /* PROPOSE, ADD, REMOVE, BOOTSTRAP: the indexes of the new entries, before any that the core
     * appends by itself in the same step. RECEIVE of an APPEND: which of its entries are new
     * here and were taken into the log (those with indexes first..last; the host keeps exactly
     * their lines). Empty when first > last. */
    uint64_t first;
    uint64_t last;
    /* An entry at or after this index left the log (conflict, install): the host drops its
     * lines from here on before it adds first..last. 0: none. */
    uint64_t truncated_from;
    /* INSTALLED: the whole log was dropped; it is empty and starts after the snapshot. */
    bool log_reset;
    /* RECEIVE of a SNAPSHOT: the host should go on receiving it (false: not needed, ignore). */
    bool wanted;
    /* READ: answer when reads_confirmed >= round and applied >= index. Round 0: the peer's
     * question was the proof; its reads need no other. */
    uint64_t round;
    uint64_t index;
};

/* --- actions ---------------------------------------------------------------------------------
 */
#define RAFT_MESSAGES_MAX (4 * MEMBERS_MAX)

struct raft_actions {
    /* For the disk, in this order, all before the next LOG_PERSISTED / VOTE_PERSISTED. */
    bool save_vote; /* term and voted_for changed: one record */
    uint64_t term;
    uint64_t voted_for;     /* 0: nobody */
    uint64_t truncate_from; /* 0: none. Drop entries at and after this index, durably, first */
    uint64_t append_first;  /* then append these entries of our log; none when first > last */
    uint64_t append_last;
    uint64_t generation; /* to be given back in LOG_PERSISTED */

    uint64_t commit_index;    /* now; never goes back */
    uint64_t reads_confirmed; /* latest confirmed read round of this term (0: none). Reads
                                 that were registered in an earlier term are not confirmed
                                 by it: ask again when the term or the role changes */

    uint32_t message_count;
    struct raft_message messages[RAFT_MESSAGES_MAX]; /* merged: at most one of a kind a peer */
};

/* --- life ------------------------------------------------------------------------------------
 */
struct raft_options {
    uint64_t id;   /* 0: not a member of any cluster yet */
    uint64_t seed; /* for the randomised time-outs */
    uint64_t now_ms;
    uint32_t min_election_timeout_ms;
    uint32_t max_election_timeout_ms;
    /* How long a peer that waits for no entry may not know that one is committed, unless a
     * message goes to it anyway. 0: it is told at once. */
    uint32_t commit_notice_ms;

    /* What was recovered from the disk; all zero for a new server. */
    uint64_t term;
    uint64_t voted_for;
    struct raft_position snapshot;
    struct raft_configuration configuration; /* as of the snapshot */
    uint64_t configuration_index;
    /* Entries after the snapshot, all durable: entry i stands at snapshot.index + 1 + i. */
    uint64_t entry_count;
    const struct raft_entry *entries;
    /* A damaged tail was cut: no vote, no pre-vote and no campaign until the leader has brought
     * the log up to the commit index that it announced in its first message, and to an entry of
     * its own term (M13, quarantine). */
    bool quarantined;
};

/* NULL when there is no memory. */
struct raft *raft_new(const struct raft_options *options);
void raft_free(struct raft *raft);

/* Take one event. `outcome` is always filled in. */
enum raft_result raft_step(struct raft *raft, const struct raft_event *event,
                           struct raft_outcome *outcome) MUST_USE;

/* The merged actions of all steps since the last take. */
void raft_take_actions(struct raft *raft, struct raft_actions *actions);

/* Whether a take would bring anything (so that an idle turn costs nothing). */
bool raft_has_actions(const struct raft *raft);

/* When the next TICK is due at the latest, in ms. */
uint64_t raft_deadline_ms(const struct raft *raft);

/* A fresh server that was told its id by its leader joins (id was 0 until now). */
void raft_set_id(struct raft *raft, uint64_t id);
void raft_set_election_timeouts(struct raft *raft, uint32_t min_ms, uint32_t max_ms);

/* --- a look inside ---------------------------------------------------------------------------
 */
struct raft_state {
    uint64_t id;
    enum raft_role role;
    uint64_t term;
    uint64_t voted_for; /* 0: nobody; apart from the leader */
    uint64_t leader;    /* 0: unknown */
    uint64_t commit_index;
    uint64_t durable_index; /* our own log, on our own disk */
    struct raft_position last;
    struct raft_position snapshot;
    uint64_t configuration_index; /* of the one in force */
    uint64_t term_start_index;    /* leader: its own first entry of the term */
    bool change_pending;          /* joint, or a configuration not committed yet */
    bool quarantined;
    uint64_t transferee; /* leader: handing over to this one; 0: no */
};

void raft_peek_state(const struct raft *raft, struct raft_state *state);
const struct raft_configuration *raft_peek_configuration(const struct raft *raft);

/* The configuration in force at `index` (for a snapshot of exactly that index), and where it
 * stood; NULL when index is before the snapshot or past the log. */
const struct raft_configuration *raft_configuration_at(const struct raft *raft, uint64_t index,
                                                       uint64_t *configuration_index);

/* The term of the entry at `index`; 0 where the log has none (snapshot.index itself has one).
 */
uint64_t raft_term_at(const struct raft *raft, uint64_t index);

/* What the entry at `index` is; a configuration is returned through `configuration` (borrowed
 * until the next step). Entries that the core itself appended (NOOP, CONFIGURATION) are found
 * by this. */
enum raft_entry_kind raft_kind_at(const struct raft *raft, uint64_t index,
                                  const struct raft_configuration **configuration);

/* Leader: a peer's progress. False when there is none. */
struct raft_peer_state {
    uint64_t match;
    uint64_t next;
    bool probing;
    bool in_snapshot;
};
bool raft_peek_peer(const struct raft *raft, uint64_t id, struct raft_peer_state *state);

const char *raft_role_name(enum raft_role role); /* "Follower", "Candidate", "Leader" */

#endif
