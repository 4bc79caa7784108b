/* Clients' sessions: a command that comes again under the same name and number takes effect
 * once, and gets the first answer again (Ongaro's dissertation, 6.3).
 *
 * Number 1 opens a session; a later one moves it on; the last one again is a repeat.
 * A session that had no new command for SESSION_IDLE_MS of replicated time expires. When
 * CLIENT_SESSIONS_MAX are open, a new one takes the place of the one that was used longest ago,
 * if that is SESSION_KEEP_MS or more, and is refused otherwise.
 *
 * A session is met at two moments, in the same order: when an entry is on its way to the
 * machine (offer: what is to be done with it), and when the machine has answered (store). What
 * the first decides for the second waits in a queue until the second has come as far:
 *
 *     offered:   1  2  3  4  5  6  7  8
 *     answered:  1  2  3  4 |              the queue holds what 5 to 8 mean for the answers
 *
 * Invariant: both are functions of the log alone, each up to its own index; so what is written
 * when the machine has answered everything up to an index is the same on every member. */
#ifndef RAFTPICO_NODE_SESSIONS_H
#define RAFTPICO_NODE_SESSIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "wire/entry.h"

struct session;
struct session_event;

/* Which of a session's two places in an order a link is for. */
enum session_order {
    SESSION_BY_OFFER,
    SESSION_BY_ANSWER,
};
#define SESSION_ORDERS 2

struct session_list { /* oldest first */
    struct session *oldest;
    struct session *newest;
};

struct sessions {
    uint64_t hash_seed;
    struct session **buckets; /* NULL before the first session */
    uint32_t count;           /* open, as of the last offer */
    struct session_list lists[SESSION_ORDERS];
    struct session *kept_from; /* in the order of answers: no older one has a kept answer */
    uint64_t answers_bytes;
    struct session_event *events; /* a ring */
    uint64_t event_capacity;      /* power of two */
    uint64_t event_first;
    uint64_t event_next;
    uint64_t due_index; /* of the first event; UINT64_MAX: none */
};

enum session_verdict {
    SESSION_APPLY,   /* hand the command to the machine, then sessions_store */
    SESSION_REPEAT,  /* not to be applied: the waiter gets the first answer */
    SESSION_EXPIRED, /* no such session (any more), and the number is not 1 */
    SESSION_STALE,   /* the session is past this number */
    SESSION_FULL,    /* it would open a session, and there is no room */
};

/* The answer for a waiter of a repeat; the text is borrowed until the next call. */
struct session_answer {
    uint64_t waiter;
    uint64_t index;   /* of the entry that took effect */
    int32_t code;     /* 0: a result; else the error's */
    bool kept;        /* false: too large, or too long ago: only that it was applied is known */
    struct span text; /* the result, or what the machine's side said of it; may be empty */
};

/* `seed`: for hashing only, it may differ between members. */
void sessions_init(struct sessions *sessions, uint64_t seed);
void sessions_clear(struct sessions *sessions); /* empty again, as after init */

/* The next entry with a session, in log order. `waiter` is who waits here for a repeat's answer
 * (0: nobody). With SESSION_STALE, `last_seq` is the session's number. */
enum session_verdict sessions_offer(struct sessions *sessions, const struct entry *entry,
                                    uint64_t waiter, uint64_t *last_seq);

/* Whether sessions_next has something to do for an answer at `index`. */
static inline bool sessions_due(const struct sessions *sessions, uint64_t index) {
    return sessions->due_index <= index;
}

/* Before the machine's answer at `index` is stored, and when everything up to `index` is
 * answered: call until it returns false; true: `answer` is for a waiter. */
bool sessions_next(struct sessions *sessions, uint64_t index, struct session_answer *answer);

/* The machine's answer at `index`; nothing happens where that command had no session. */
void sessions_store(struct sessions *sessions, uint64_t index, int32_t code, struct span text);

/* As of what is answered: append `["name",seq,time,index,code,answer]` and LF for each session,
 * the one that was used longest ago first; without an answer where none is kept. */
void sessions_write(const struct sessions *sessions, struct buffer *lines);

/* Replace everything by what was written as of `index`. STATUS_CORRUPT: not what sessions_write
 * writes there; then it is empty. */
enum status sessions_read(struct sessions *sessions, struct span lines,
                          uint64_t index) MUST_USE;

#endif
