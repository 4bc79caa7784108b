/* The life of a running member: open, start, stop, close; see server.h.
 *
 * Invariant: the loop's thread and the disk's exist exactly between server_start() and
 * server_close(); outside of that everything belongs to the caller's thread. */
#include "server/server.h"

#include <signal.h>

#include "base/assert.h"
#include "base/memory.h"
#include "server/internal.h"

/* --- opening --- */

static void init_parts(struct server *server) {
    crew_init(&server->crew);
    batches_init(&server->batches, &server->crew);
    calls_init(&server->calls, server->net);
    state_init(&server->state);
    int result = uv_mutex_init(&server->mutex);
    ASSERT(result == 0);
}

static void clear_parts(struct server *server) {
    batches_clear(&server->batches);
    calls_clear(&server->calls);
    state_clear(&server->state);
    uv_mutex_destroy(&server->mutex);
    crew_clear(&server->crew);
}

/* The address first: whose port is taken never touches the directory of the one who has it. */
static enum status open_parts(struct server *server, const struct server_options *options,
                              struct error *error) {
    enum status status = writing_init(&server->writing, options->snapshot_timeout_ms, error);
    if (status != STATUS_OK) {
        return status;
    }
    status = net_open(&LOOP_EVENTS, server, &server->net, error);
    if (status != STATUS_OK) {
        writing_clear(&server->writing);
        return status;
    }
    status =
        net_listen(server->net, options->address, !options->insecure, server->address, error);
    if (status == STATUS_OK) {
        status = opening_make_node(server, options, error);
    }
    if (status != STATUS_OK) {
        net_close(server->net);
        writing_clear(&server->writing);
    }
    return status;
}

enum status server_open(const struct server_options *options, struct server **server,
                        struct error *error) {
    struct server *opened = memory_must_alloc_zero(sizeof(*opened));
    enum status status = open_parts(opened, options, error);
    if (status != STATUS_OK) {
        memory_free(opened);
        return status;
    }
    init_parts(opened);
    state_publish(opened);
    net_turn_soon(opened->net); /* the first turn carries what the start left */
    *server = opened;
    return STATUS_OK;
}

const char *server_address(const struct server *server) {
    return server->address;
}

/* --- running --- */

static enum status start_threads(struct server *server, struct error *error) {
    enum status status = server->disk.started
                             ? STATUS_OK
                             : disk_start(&server->disk, shifts_disk, server, error);
    if (status != STATUS_OK) {
        return status;
    }
    int result = uv_thread_create(&server->thread, shifts_loop, server);
    if (result != 0) {
        return error_set(error, STATUS_NO_MEMORY, "cannot start the loop's thread: %s",
                         uv_strerror(result));
    }
    server->started = true;
    return STATUS_OK;
}

/* A thread inherits the mask of its maker. Signals are for the process's own threads; and with
 * SIGPIPE blocked, writing to a connection that is gone is an error code and no more. */
enum status server_start(struct server *server, struct error *error) {
    ASSERT(!server->started);
    sigset_t all, before;
    sigfillset(&all);
    int result = pthread_sigmask(SIG_SETMASK, &all, &before);
    ASSERT(result == 0);
    enum status status = start_threads(server, error);
    result = pthread_sigmask(SIG_SETMASK, &before, NULL);
    ASSERT(result == 0);
    return status;
}

void server_stop(struct server *server) {
    uv_mutex_lock(&server->mutex);
    server->stops_wanted++;
    uv_mutex_unlock(&server->mutex);
    net_wake(server->net);
}

enum status server_exit_status(struct server *server, struct error *error) {
    uv_mutex_lock(&server->mutex);
    struct error exit = server->exit;
    uv_mutex_unlock(&server->mutex);
    if (error != NULL) {
        *error = exit;
    }
    return exit.status;
}

/* The disk ends first: it may still wake the loop. What it has not given back goes with it. */
void server_close(struct server *server) {
    if (server->started) {
        server_stop(server);
        server_stop(server); /* at once, where it has not stopped by itself */
        uv_thread_join(&server->thread);
    } else {
        calls_end(&server->calls);
    }
    writing_clear(&server->writing); /* its file is the disk's */
    disk_clear(&server->disk);
    node_free(server->node);
    net_close(server->net);
    clear_parts(server);
    memory_free(server);
}

/* --- for the other threads --- */

struct writing *server_writing(struct server *server) {
    return &server->writing;
}

enum status server_call(struct server *server, struct span line, uint32_t timeout_ms,
                        struct buffer *response) {
    return calls_wait(&server->calls, line, timeout_ms, response);
}
