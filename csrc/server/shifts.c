/* What each of the three threads does: its own work, and the loop while it has it; see crew.h.
 *
 * Decides nothing but who runs the loop next. Invariant: who turns to work of its own has given
 * the loop away, or has told the crew. */
#include <signal.h>

#include "base/assert.h"
#include "server/internal.h"

/* --- what is little enough --- */

static bool is_call(const struct apply_item *item) {
    return item->kind == APPLY_COMMAND || item->kind == APPLY_QUERY ||
           item->kind == APPLY_LOCAL_QUERY;
}

bool shifts_batch_is_small(struct server *server, const struct apply_batch *batch) {
    if (batch->count > BATCH_ALONG_ITEMS_MAX) {
        return false;
    }
    for (uint32_t i = 0; i < batch->count; i++) {
        if (!is_call(&batch->items[i])) {
            return false; /* of the machine as a whole, or a notice: nobody knows how long */
        }
    }
    return crew_lends(&server->crew, HAND_APPLY, batch->count);
}

/* Of several entries more may be on their way, which the loop had better take in meanwhile. */
static bool is_small(const struct job *job) {
    return job->kind == JOB_WRITE && job->truncate_from == 0 &&
           job->offset_count <= JOB_ALONG_ENTRIES_MAX &&
           buffer_count(&job->data) <= JOB_ALONG_BYTES_MAX;
}

bool shifts_job_is_small(struct server *server, const struct job *job) {
    return is_small(job) && crew_lends(&server->crew, HAND_DISK, 1);
}

/* --- the loop --- */

/* Run it, until it is left: server->next is to have it then. False: it has ended. */
static bool run(struct server *server, enum hand self, uint64_t timeout_ms) {
    server->next = self;
    server->leaving = false;
    bool alive = net_run(server->net, timeout_ms);
    if (!alive) {
        crew_end(&server->crew);
    }
    return alive;
}

static bool give_on(struct server *server, enum hand self) {
    return server->next != self && crew_give(&server->crew, server->next);
}

void shifts_loop(void *argument) {
    struct server *server = argument;
    while (crew_watch(&server->crew)) {
        if (run(server, HAND_LOOP, NET_NEVER_MS)) {
            (void)give_on(server, HAND_LOOP); /* if not, it is ours at once again */
        }
    }
}

/* --- the disk --- */

/* Do it, and give it back. True: this thread has the loop (still). */
static bool do_job(struct server *server, struct job *job) {
    uint64_t began_ns = uv_hrtime();
    disk_jobs_do(&server->disk.jobs, job);
    if (is_small(job)) {
        crew_note(&server->crew, HAND_DISK, 1, uv_hrtime() - began_ns);
    }
    disk_give_back(&server->disk, job);
    bool own = crew_end_work(&server->crew, HAND_DISK);
    if (own) {
        loop_take_done(server);
    } else {
        net_wake(server->net);
    }
    return own;
}

/* This thread has the loop, and may have work: it keeps the loop beside a small write. */
static bool keep_on(struct server *server) {
    struct job *job = disk_take_only(&server->disk, is_small);
    if (job != NULL) {
        crew_begin_work(&server->crew);
        return do_job(server, job);
    }
    return !disk_has_work(&server->disk) || !crew_give(&server->crew, HAND_LOOP);
}

static void run_from_disk(struct server *server) {
    bool own = true;
    while (own && run(server, HAND_DISK, NET_NEVER_MS)) {
        own = !give_on(server, HAND_DISK) && keep_on(server);
    }
}

void shifts_disk(void *argument) {
    struct server *server = argument;
    struct job *job;
    while ((job = disk_wait(&server->disk)) != NULL) {
        if (do_job(server, job) && keep_on(server)) {
            run_from_disk(server);
        }
    }
}

/* --- the machine --- */

/* This thread is the program's, and its signals are. Writing to a connection that is gone must
 * not raise one, and is the only thing that does meanwhile. */
static void block_sigpipe(sigset_t *before) {
    sigset_t pipe;
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    int result = pthread_sigmask(SIG_BLOCK, &pipe, before);
    ASSERT(result == 0);
}

/* One is pending: take it. Where that may wait, another thread could have been faster. */
static void take_sigpipe(void) {
    sigset_t pipe;
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
#if defined(__linux__)
    (void)sigtimedwait(&pipe, NULL, &(struct timespec){0});
#else
    int number;
    (void)sigwait(&pipe, &number);
#endif
}

static void unblock_sigpipe(const sigset_t *before) {
    sigset_t pending;
    if (sigismember(before, SIGPIPE) == 0 && sigpending(&pending) == 0 &&
        sigismember(&pending, SIGPIPE) == 1) {
        take_sigpipe();
    }
    int result = pthread_sigmask(SIG_SETMASK, before, NULL);
    ASSERT(result == 0);
}

static bool run_from_apply(struct server *server, uint32_t timeout_ms) {
    sigset_t before;
    block_sigpipe(&before);
    bool alive = run(server, HAND_APPLY, timeout_ms);
    unblock_sigpipe(&before);
    return alive;
}

/* This thread has the loop, and keeps it beside a small batch. Where there is none it was not
 * needed for a while, and the caller may have something else to do, which may last. */
static struct apply_batch *take_batch(struct server *server) {
    struct apply_batch *batch = batches_take(&server->batches);
    if (batch != NULL && shifts_batch_is_small(server, batch)) {
        crew_begin_work(&server->crew);
    } else {
        (void)crew_give(&server->crew, HAND_LOOP);
    }
    return batch;
}

struct apply_batch *server_wait_batch(struct server *server, uint32_t timeout_ms,
                                      bool *stopped) {
    *stopped = false;
    bool own = crew_end_work(&server->crew, HAND_APPLY);
    if (own && !batches_are_waiting(&server->batches)) {
        *stopped = !run_from_apply(server, timeout_ms);
        own = !*stopped && !give_on(server, HAND_APPLY);
    }
    struct apply_batch *batch = NULL;
    if (!*stopped) {
        batch = own ? take_batch(server) : batches_wait(&server->batches, timeout_ms, stopped);
    }
    server->began_ns = uv_hrtime();
    return batch;
}

void server_finish_batch(struct server *server, struct apply_batch *batch) {
    crew_note(&server->crew, HAND_APPLY, batch->count, uv_hrtime() - server->began_ns);
    bool own = crew_end_work(&server->crew, HAND_APPLY);
    if (own && batch->left > 0) { /* much output, which goes first: what is left may last */
        own = !crew_give(&server->crew, HAND_LOOP);
    }
    batches_finish(&server->batches, batch);
    if (own) {
        loop_take_done(server);
    } else {
        net_wake(server->net);
    }
}
