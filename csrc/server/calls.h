/* Requests from within the process: a thread gives a line and waits for the answer's.
 *
 *     waiting thread:  QUEUED ----------------------> DONE      the call is its own again
 *     loop:                    -> RUNNING ----------^
 *                                  |  time-out
 *                                  +-> ABANDONED                the loop frees it
 *
 * The loop keeps a pseudo-connection for each RUNNING call (links.c). */
#ifndef RAFTPICO_SERVER_CALLS_H
#define RAFTPICO_SERVER_CALLS_H

#include <stdbool.h>
#include <uv.h>

#include "base/buffer.h"
#include "net/net.h"

enum call_stage {
    CALL_QUEUED,
    CALL_RUNNING,
    CALL_ABANDONED,
    CALL_DONE,
};

struct call {
    struct call *next; /* in the queue; the loop's while RUNNING */
    struct call **link;
    struct buffer line; /* with its LF */
    struct buffer response;
    void *owner; /* the loop's: its pseudo-connection */
    /* Under the mutex: */
    enum call_stage stage;
    enum status status;
    uv_cond_t answered;
};

struct calls {
    struct net *net; /* to be woken for a new call, or an abandoned one */

    uv_mutex_t mutex; /* of all below, and of the calls' stages */
    struct call *queued;
    struct call **queued_end;
    struct call *running;
    uint32_t abandoned_count; /* of the running ones */
    bool ended;
};

void calls_init(struct calls *calls, struct net *net);
void calls_clear(struct calls *calls); /* after calls_end() */

/* A waiting thread: STATUS_TIMEOUT, STATUS_CLOSED; the response comes without its LF. */
enum status calls_wait(struct calls *calls, struct span line, uint32_t timeout_ms,
                       struct buffer *response) MUST_USE;

/* The loop. A call that was taken is given back by calls_answer(). */
struct call *calls_take(struct calls *calls); /* a new one, now RUNNING; NULL: none */
struct call *
calls_peek_abandoned(struct calls *calls); /* one that nobody waits for; NULL: none */
void calls_answer(struct calls *calls, struct call *call, enum status status,
                  struct span response);
void calls_end(
    struct calls *calls); /* none is RUNNING any more: refuse the rest, and new ones */

#endif
