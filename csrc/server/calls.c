/* The meeting of waiting threads and the loop; see calls.h.
 *
 * Invariant: a call is freed by the thread that waits for it, or, once that has given up, by
 * the loop; the mutex decides which of the two came first. */
#include "server/calls.h"

#include "base/assert.h"
#include "base/memory.h"

void calls_init(struct calls *calls, struct net *net) {
    *calls = (struct calls){.net = net};
    calls->queued_end = &calls->queued;
    int result = uv_mutex_init(&calls->mutex);
    ASSERT(result == 0);
}

void calls_clear(struct calls *calls) {
    ASSERT(calls->queued == NULL && calls->running == NULL);
    uv_mutex_destroy(&calls->mutex);
}

static struct call *call_new(struct span line) {
    struct call *call = memory_must_alloc_zero(sizeof(*call));
    buffer_append_span(&call->line, line);
    buffer_append_char(&call->line, '\n');
    int result = uv_cond_init(&call->answered);
    ASSERT(result == 0);
    return call;
}

static void call_free(struct call *call) {
    uv_cond_destroy(&call->answered);
    buffer_free(&call->line);
    buffer_free(&call->response);
    memory_free(call);
}

/* --- the waiting thread --- */

static bool enqueue(struct calls *calls, struct call *call) {
    if (calls->ended) {
        return false;
    }
    *calls->queued_end = call;
    calls->queued_end = &call->next;
    return true;
}

static void unqueue(struct calls *calls, struct call *call) {
    struct call **at = &calls->queued;
    while (*at != call) {
        at = &(*at)->next;
    }
    *at = call->next;
    if (call->next == NULL) {
        calls->queued_end = at;
    }
}

/* With the mutex held. */
static void wait_answer(struct calls *calls, struct call *call, uint32_t timeout_ms) {
    uint64_t deadline_ns = uv_hrtime() + (uint64_t)timeout_ms * 1000000u;
    while (call->stage != CALL_DONE) {
        uint64_t now_ns = uv_hrtime();
        if (now_ns >= deadline_ns) {
            return;
        }
        (void)uv_cond_timedwait(&call->answered, &calls->mutex, deadline_ns - now_ns);
    }
}

/* With the mutex held: give up, where the answer has not come. True: the call is the loop's
 * now. */
static bool abandon(struct calls *calls, struct call *call) {
    if (call->stage == CALL_QUEUED) {
        unqueue(calls, call);
        return false;
    }
    ASSERT(call->stage == CALL_RUNNING);
    call->stage = CALL_ABANDONED;
    calls->abandoned_count++;
    return true;
}

enum status calls_wait(struct calls *calls, struct span line, uint32_t timeout_ms,
                       struct buffer *response) {
    struct call *call = call_new(line);
    uv_mutex_lock(&calls->mutex);
    if (!enqueue(calls, call)) {
        uv_mutex_unlock(&calls->mutex);
        call_free(call);
        return STATUS_CLOSED;
    }
    net_wake(calls->net);
    wait_answer(calls, call, timeout_ms);
    bool done = call->stage == CALL_DONE;
    bool given_away = !done && abandon(calls, call);
    if (given_away) {
        net_wake(calls->net);
    }
    uv_mutex_unlock(&calls->mutex);
    enum status status = done ? call->status : STATUS_TIMEOUT;
    if (status == STATUS_OK) {
        buffer_append_span(response, buffer_span(&call->response));
    }
    if (!given_away) {
        call_free(call);
    }
    return status;
}

/* --- the loop --- */

struct call *calls_take(struct calls *calls) {
    uv_mutex_lock(&calls->mutex);
    struct call *call = calls->queued;
    if (call != NULL) {
        unqueue(calls, call);
        call->stage = CALL_RUNNING;
        call->next = calls->running;
        call->link = &calls->running;
        if (call->next != NULL) {
            call->next->link = &call->next;
        }
        calls->running = call;
    }
    uv_mutex_unlock(&calls->mutex);
    return call;
}

struct call *calls_peek_abandoned(struct calls *calls) {
    struct call *call = NULL;
    uv_mutex_lock(&calls->mutex);
    if (calls->abandoned_count > 0) {
        call = calls->running;
        while (call->stage != CALL_ABANDONED) {
            call = call->next;
        }
    }
    uv_mutex_unlock(&calls->mutex);
    return call;
}

void calls_answer(struct calls *calls, struct call *call, enum status status,
                  struct span response) {
    uv_mutex_lock(&calls->mutex);
    *call->link = call->next;
    if (call->next != NULL) {
        call->next->link = call->link;
    }
    bool abandoned = call->stage == CALL_ABANDONED;
    if (abandoned) {
        calls->abandoned_count--;
    } else {
        buffer_append_span(&call->response, response);
        call->status = status;
        call->stage = CALL_DONE;
        uv_cond_signal(&call->answered); /* under the mutex: the waiter frees the condition */
    }
    uv_mutex_unlock(&calls->mutex);
    if (abandoned) {
        call_free(call);
    }
}

void calls_end(struct calls *calls) {
    uv_mutex_lock(&calls->mutex);
    ASSERT(calls->running == NULL);
    calls->ended = true;
    while (calls->queued != NULL) {
        struct call *call = calls->queued;
        unqueue(calls, call);
        call->status = STATUS_CLOSED;
        call->stage = CALL_DONE;
        uv_cond_signal(&call->answered);
    }
    uv_mutex_unlock(&calls->mutex);
}
