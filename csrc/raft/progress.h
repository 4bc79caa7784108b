/* What a leader knows of one peer, and how it sends to it (3.5, 10.2.1).
 *
 *            accepted                         refused at or past the snapshot's end
 *   PROBE ------------> PIPELINE     PROBE ------------------------------------> SNAPSHOT
 *     ^                     |          ^                                              |
 *     +---------------------+          +----------------------------------------------+
 *       refused, lost, reconnected             installed, failed, reconnected
 *
 *   PROBE     one question at a time: "do you have `previous`?"
 *   PIPELINE  entries are sent as they come, before the earlier ones are acknowledged
 *   SNAPSHOT  the host streams a snapshot; only heartbeats go besides it (S7)
 *
 * Must not know: the log, the configuration, time-outs' lengths.
 *
 * Invariant: match <= verified unless both are unknown, match < next, next >
 * log.snapshot.index. match never falls but in progress_connect() with another incarnation
 * (C12, C13). */
#ifndef RAFTPICO_RAFT_PROGRESS_H
#define RAFTPICO_RAFT_PROGRESS_H

#include "raft/raft.h"

enum progress_state {
    PROGRESS_PROBE,
    PROGRESS_PIPELINE,
    PROGRESS_SNAPSHOT,
};

struct progress {
    uint64_t id;
    uint64_t incarnation; /* as its last connection said; 0: unknown */
    enum progress_state state;

    uint64_t match;    /* durable there, and equal to our log, up to here */
    uint64_t verified; /* in its log, durable or not, up to here: needs no sending */
    uint64_t next;     /* first index not sent yet */
    uint64_t heard_ms; /* when it last answered in this term; the leader's own: now */
    uint64_t moved_ms; /* when verified last rose, or entries went out with none in flight */
    uint64_t round;    /* latest read round that it echoed */

    bool due;              /* an APPEND is wanted even if it carries nothing */
    uint64_t heartbeat_ms; /* and is wanted by then anyway */
    uint64_t told;         /* the commit index of the last APPEND */
    uint64_t awaited;      /* its clients wait until this index is committed and it knows */
    uint64_t notice_ms;    /* it is told what is committed by then; 0: it knows */

    uint64_t probe;    /* PROBE: the index in question */
    bool probe_eager;  /* PROBE: the question carries entries: it will be accepted */
    bool probe_asked;  /* PROBE: no answer yet */
    uint64_t probe_ms; /* PROBE: ask again then */

    uint64_t offer_first; /* what the host was offered and has not answered for; 0: nothing */
    uint64_t offer_end;
    uint64_t offer_ms;  /* offer again then */
    bool offer_due;     /* the offer stood in for an APPEND that was due */
    bool offer_refused; /* the host's queue was full */

    bool snapshot_due;       /* SNAPSHOT: the host was not told yet */
    uint64_t snapshot_index; /* SNAPSHOT: what it is brought to */

    bool departing;           /* removed: until it knows (M10) */
    uint64_t departing_index; /* of the configuration without it */
    uint64_t departing_round; /* an echo of this round proves that it knows; 0: not asked yet */
    uint64_t departing_ms;    /* or until then */
};

/* A new term or a new member: nothing is known, ask at `probe`. */
void progress_init(struct progress *progress, uint64_t id, uint64_t probe, uint64_t now_ms);

void progress_probe(struct progress *progress, uint64_t probe, bool eager);
void progress_send_snapshot(struct progress *progress, uint64_t snapshot_index);

/* Where a question is best asked while the log begins after `snapshot_index`. */
uint64_t progress_known(const struct progress *progress, uint64_t snapshot_index);

/* A connection is up: what was in flight is lost, and after a restart perhaps more. */
void progress_connect(struct progress *progress, uint64_t incarnation, uint64_t snapshot_index);

/* The peer has our log up to `verified`, on its disk up to `match`. */
void progress_acknowledge(struct progress *progress, uint64_t match, uint64_t verified,
                          uint64_t now_ms);

/* The peer does not have `previous`. False: about something else than what is asked now (C13).
 */
bool progress_refuses(const struct progress *progress, uint64_t previous);

/* The last index that may be sent while the log ends at `last_index`. */
uint64_t progress_limit(const struct progress *progress, uint64_t last_index);

/* The host sent what it was offered, up to `index`. False: it was not offered that. */
bool progress_sent(struct progress *progress, uint64_t index, uint64_t now_ms);

/* The host did not take the offer: it may be made again. */
void progress_withdraw_offer(struct progress *progress);

/* Nothing that is in flight arrives any more (C18). */
bool progress_stalled(const struct progress *progress, uint64_t now_ms, uint64_t patience_ms);

#endif
