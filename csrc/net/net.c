/* The loop: the listener, the turn's place, the wake-up, deadlines; see net.h.
 *
 * An iteration of libuv: timers, pending, idle, prepare, poll, check, closing. Input comes in
 * most of these, and whoever wants a turn because of it calls net_turn_soon(): then an idle
 * handle keeps the poll from waiting, and the turn comes in the check that follows it, with
 * everything that the poll has brought.
 *
 * Running out of descriptors: libuv keeps a spare one and uses it to accept and close (so that
 * a full process does not spin on its listener); we stop well before that. Past that limit a
 * few more are accepted, each for a moment only, unless it is a peer's: so a flood of clients
 * does not keep a member from its peers. */
#include "net/net.h"

#include <string.h>
#include <sys/resource.h>

#include "base/assert.h"
#include "base/memory.h"
#include "net/internal.h"

#define SWEEP_MS 100

uint64_t net_now_ms(void) {
    return uv_hrtime() / 1000000u;
}

uint64_t net_wall_ms(void) {
    uv_timeval64_t now;
    if (uv_gettimeofday(&now) != 0) {
        return 0;
    }
    return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_usec / 1000u;
}

/* --- turns --- */

static void on_idle(uv_idle_t *idle) {
    (void)idle; /* being active is all that it is for */
}

void net_turn_soon(struct net *net) {
    if (!net->turn_due && !net->stopping) {
        net->turn_due = true;
        uv_idle_start(&net->idle, on_idle);
    }
}

static void on_check(uv_check_t *check) {
    struct net *net = check->data;
    if (net->turn_due) {
        net->turn_due = false;
        uv_idle_stop(&net->idle);
        net->events->turn(net->host);
    }
}

static void on_timer(uv_timer_t *timer) {
    struct net *net = timer->data;
    net->turn_at_ms = NET_NEVER_MS;
    net_turn_soon(net);
}

void net_turn_at(struct net *net, uint64_t at_ms) {
    if (at_ms == net->turn_at_ms || net->stopping) {
        return;
    }
    net->turn_at_ms = at_ms;
    if (at_ms == NET_NEVER_MS) {
        uv_timer_stop(&net->timer);
        return;
    }
    uv_update_time(&net->loop); /* the timer counts from the loop's own idea of now */
    uint64_t now_ms = net_now_ms();
    uv_timer_start(&net->timer, on_timer, at_ms > now_ms ? at_ms - now_ms : 0, 0);
}

/* --- deadlines --- */

/* Deadlines are rare and coarse, so one slow timer looks at all connections while there are
 * any. */
static void on_sweep(uv_timer_t *timer) {
    struct net *net = timer->data;
    uint64_t now_ms = net_now_ms();
    struct net_conn *next = NULL;
    for (struct net_conn *conn = net->conns; conn != NULL && net->timed_count > 0;
         conn = next) {
        next = conn->next; /* closing one frees it later, and never another */
        if (conn->deadline_ms != 0 && conn->deadline_ms <= now_ms) {
            net_conn_expire(conn);
        }
    }
}

void net_count_deadline(struct net *net, int change) {
    net->timed_count += change;
    ASSERT(net->timed_count >= 0);
    if (net->timed_count == 0) {
        uv_timer_stop(&net->sweeper);
    } else if (!uv_is_active((uv_handle_t *)&net->sweeper)) {
        uv_update_time(&net->loop);
        uv_timer_start(&net->sweeper, on_sweep, SWEEP_MS, SWEEP_MS);
    }
}

/* --- listening --- */

struct limits {
    uint32_t clients; /* accepted connections */
    uint32_t extra;   /* past them, for peers alone */
};

/* With enough descriptors left for files and peers. The limit may be changed while we run. */
static struct limits count_descriptors(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY ||
        limit.rlim_cur >= CLIENT_CONNECTIONS_MAX + DESCRIPTORS_RESERVED) {
        return (struct limits){CLIENT_CONNECTIONS_MAX, EXTRA_CONNECTIONS_MAX};
    }
    uint32_t count = (uint32_t)limit.rlim_cur;
    if (count > 2 * DESCRIPTORS_RESERVED) {
        return (struct limits){count - DESCRIPTORS_RESERVED, EXTRA_CONNECTIONS_MAX};
    }
    return (struct limits){count / 2, count / 8};
}

static void on_connection(uv_stream_t *listener, int result) {
    struct net *net = listener->data;
    if (result < 0) {
        return; /* it was gone again before it was accepted, or no descriptor was left */
    }
    struct limits limits = count_descriptors();
    struct net_conn *conn = net_conn_open(net, NET_CONNECTING);
    bool full = net->accepted_count >= limits.clients;
    if (uv_accept(listener, (uv_stream_t *)&conn->tcp) != 0 ||
        (full && net->extra_count >= limits.extra)) {
        net_conn_close_now(conn);
        return;
    }
    net_conn_opened(conn);
    if (full) {
        conn->extra = true;
        net->extra_count++;
        net_conn_set_deadline(conn, net_now_ms() + HELLO_TIMEOUT_MS);
    } else {
        conn->accepted = true;
        net->accepted_count++;
    }
    conn->user = net->events->accepted(net->host, conn);
    ASSERT(conn->user != NULL);
}

static enum status explain_listen(int result, const char *address, struct error *error) {
    switch (result) {
    case UV_EADDRINUSE:
        return error_set(error, STATUS_LOCKED,
                         "cannot listen on %s: another process listens there already; stop it, "
                         "or choose another port (0: any that is free)",
                         address);
    case UV_EADDRNOTAVAIL:
        return error_set(error, STATUS_INVALID,
                         "cannot listen on %s: it is not an address of this machine", address);
    case UV_EACCES:
        return error_set(error, STATUS_INVALID,
                         "cannot listen on %s: the system does not permit it (ports below 1024 "
                         "need a privilege); choose another port",
                         address);
    default:
        return error_set(error, STATUS_IO, "cannot listen on %s: %s", address,
                         uv_strerror(result));
    }
}

/* Give the listener's handle back so that it can be made anew for another address. Nothing else
 * is going on in the loop yet. */
static void reset_listener(struct net *net) {
    uv_close((uv_handle_t *)&net->listener, NULL);
    uv_run(&net->loop, UV_RUN_NOWAIT);
    int result = uv_tcp_init(&net->loop, &net->listener);
    ASSERT(result == 0);
    net->listener.data = net;
}

static int listen_on(struct net *net, const struct sockaddr *address, unsigned *port) {
    struct sockaddr_storage bound = {0};
    int bytes = sizeof(bound);
    int result = uv_tcp_bind(&net->listener, address, 0);
    if (result == 0) {
        /* Also tells of a bind that failed: libuv keeps that to itself until the next call. */
        result = uv_tcp_getsockname(&net->listener, (struct sockaddr *)&bound, &bytes);
    }
    if (result == 0) {
        result = uv_listen((uv_stream_t *)&net->listener, LISTEN_BACKLOG, on_connection);
    }
    if (result == 0) {
        result = uv_tcp_getsockname(&net->listener, (struct sockaddr *)&bound, &bytes);
    }
    *port = resolve_port((const struct sockaddr *)&bound);
    return result;
}

static int listen_on_any(struct net *net, const struct addrinfo *found, unsigned *port) {
    int result = UV_EADDRNOTAVAIL;
    for (const struct addrinfo *at = found; at != NULL; at = at->ai_next) {
        result = listen_on(net, at->ai_addr, port);
        if (result == 0) {
            break;
        }
        reset_listener(net);
    }
    return result;
}

static bool all_loopback(const struct addrinfo *found) {
    for (; found != NULL; found = found->ai_next) {
        if (!resolve_is_loopback(found->ai_addr)) {
            return false;
        }
    }
    return true;
}

enum status net_listen(struct net *net, const char *address, bool loopback_only,
                       char bound[ADDRESS_BYTES_MAX], struct error *error) {
    struct resolve_parts parts;
    if (!resolve_split(address, &parts)) {
        return error_set(error, STATUS_INVALID,
                         "\"%.300s\" is no address: expected host:port, like 127.0.0.1:4000",
                         address);
    }
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    uv_getaddrinfo_t lookup;
    int result = uv_getaddrinfo(&net->loop, &lookup, NULL, parts.host, parts.port, &hints);
    if (result != 0) {
        return error_set(error, STATUS_INVALID, "cannot listen on %s: cannot find \"%s\": %s",
                         address, parts.host, uv_strerror(result));
    }
    unsigned port = 0;
    if (loopback_only && !all_loopback(lookup.addrinfo)) {
        uv_freeaddrinfo(lookup.addrinfo);
        return error_set(
            error, STATUS_INVALID,
            "refusing to listen on %s: other machines could reach it, and whoever "
            "reaches it may read and change everything; listen on 127.0.0.1, or set "
            "`insecure` where the network is trusted",
            address);
    }
    result = listen_on_any(net, lookup.addrinfo, &port);
    uv_freeaddrinfo(lookup.addrinfo);
    if (result != 0) {
        return explain_listen(result, address, error);
    }
    int host_bytes = (int)(strrchr(address, ':') - address);
    snprintf(bound, ADDRESS_BYTES_MAX, "%.*s:%u", host_bytes, address, port);
    return STATUS_OK;
}

/* --- life --- */

static void init_handles(struct net *net) {
    uv_tcp_init(&net->loop, &net->listener);
    uv_timer_init(&net->loop, &net->timer);
    uv_timer_init(&net->loop, &net->sweeper);
    uv_timer_init(&net->loop, &net->leaver);
    uv_check_init(&net->loop, &net->check);
    uv_idle_init(&net->loop, &net->idle);
    net->listener.data = net;
    net->timer.data = net;
    net->sweeper.data = net;
    net->leaver.data = net;
    net->check.data = net;
    uv_check_start(&net->check, on_check);
    uv_unref((uv_handle_t *)&net->check);
}

enum status net_open(const struct net_events *events, void *host, struct net **net,
                     struct error *error) {
    struct net *opened = memory_must_alloc_zero(sizeof(*opened));
    opened->events = events;
    opened->host = host;
    opened->turn_at_ms = NET_NEVER_MS;
    int result = uv_loop_init(&opened->loop);
    if (result == 0) {
        result = wake_open(opened);
        if (result != 0) {
            uv_loop_close(&opened->loop);
        }
    }
    if (result != 0) {
        memory_free(opened);
        return error_set(error, STATUS_IO, "cannot make an event loop: %s",
                         uv_strerror(result));
    }
    opened->read_bytes = memory_must_alloc_zero(READ_BYTES_MAX);
    opened->client_bytes = READ_BYTES_MAX;
    init_handles(opened);
    *net = opened;
    return STATUS_OK;
}

/* The sweeper and the wake-up stay: the first until the last connection is gone, the second
 * until no other thread can call. */
void net_stop(struct net *net) {
    if (net->stopping) {
        return;
    }
    net->stopping = true;
    uv_close((uv_handle_t *)&net->listener, NULL);
    uv_close((uv_handle_t *)&net->timer, NULL);
    uv_close((uv_handle_t *)&net->leaver, NULL);
    uv_close((uv_handle_t *)&net->check, NULL);
    uv_close((uv_handle_t *)&net->idle, NULL);
    uv_unref((uv_handle_t *)&net->wake.poll);
    uv_unref((uv_handle_t *)&net->sweeper);
    struct net_conn *next = NULL;
    for (struct net_conn *conn = net->conns; conn != NULL; conn = next) {
        next = conn->next;
        net_conn_stop(conn);
    }
}

void net_leave(struct net *net) {
    uv_stop(&net->loop);
}

static void on_leaver(uv_timer_t *timer) {
    net_leave(timer->data);
}

/* The timer runs on while the loop is left and run again, so that this costs nothing: for who
 * runs it next, the time may be over before it would be. */
bool net_run(struct net *net, uint64_t timeout_ms) {
    bool timed = timeout_ms != NET_NEVER_MS && !net->stopping;
    if (timed && !uv_is_active((uv_handle_t *)&net->leaver)) {
        uv_update_time(&net->loop);
        uv_timer_start(&net->leaver, on_leaver, timeout_ms, 0);
    }
    bool alive = uv_run(&net->loop, UV_RUN_DEFAULT) != 0;
    ASSERT(alive || (net->stopping && net->conns == NULL));
    return alive;
}

void net_close(struct net *net) {
    net_stop(net);
    wake_stop(net);
    uv_close((uv_handle_t *)&net->sweeper, NULL);
    uv_run(&net->loop, UV_RUN_DEFAULT);
    ASSERT(net->conns == NULL);
    wake_close(net);
    int result = uv_loop_close(&net->loop);
    ASSERT(result == 0);
    memory_free(net->read_bytes);
    memory_free(net);
}
