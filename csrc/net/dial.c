/* Connecting to an address: looked up where it is a name, and each result tried in turn.
 *
 * Must not know why somebody is dialled, or when to try again. Invariant: a connection's `dial`
 * is there exactly until it is open or closed, and never goes while libuv holds one of its
 * requests. */
#include <string.h>

#include "base/assert.h"
#include "base/memory.h"
#include "net/internal.h"

static void on_connect(uv_connect_t *request, int result) {
    struct net_conn *conn = request->data;
    if (conn->stage != NET_CONNECTING || result == UV_ECANCELED) {
        return; /* closed meanwhile */
    }
    if (result != 0) {
        /* A socket that failed to connect is of no more use: a new one for the next address is
         * made in the close callback. */
        dial_try_next(conn);
        return;
    }
    dial_free(conn);
    net_conn_opened(conn);
    conn->net->events->connected(conn->net->host, conn->user);
}

/* Called with a fresh socket: connect it to the next address that is left. */
static int connect_next(struct net_conn *conn) {
    struct net_dial *dial = conn->dial;
    int result = UV_EADDRNOTAVAIL;
    while (dial->next != NULL && result != 0) {
        const struct sockaddr *address = dial->next->ai_addr;
        dial->next = dial->next->ai_next;
        result = uv_tcp_connect(&dial->connect, &conn->tcp, address, on_connect);
    }
    return result;
}

static void on_reopen(uv_handle_t *handle) {
    struct net_conn *conn = handle->data;
    conn->tcp_closed = true;
    if (conn->stage == NET_CONNECTING) {
        int result = uv_tcp_init(&conn->net->loop, &conn->tcp);
        ASSERT(result == 0);
        conn->tcp_closed = false;
        if (connect_next(conn) != 0) {
            net_conn_fail(conn);
        }
        return;
    }
    net_conn_free_if_done(conn);
}

void dial_try_next(struct net_conn *conn) {
    if (conn->dial->next == NULL) {
        net_conn_fail(conn);
    } else {
        uv_close((uv_handle_t *)&conn->tcp, on_reopen);
    }
}

static void on_lookup(uv_getaddrinfo_t *request, int result, struct addrinfo *found) {
    struct net_conn *conn = request->data;
    conn->dial->looking_up = false;
    conn->dial->found = found;
    conn->dial->next = found;
    if (conn->stage != NET_RESOLVING) {
        net_conn_free_if_done(conn);
        return;
    }
    conn->stage = NET_CONNECTING;
    net_conn_set_deadline(conn, net_now_ms() + CONNECT_TIMEOUT_MS);
    if (result != 0 || connect_next(conn) != 0) {
        net_conn_fail(conn);
    }
}

/* A literal address needs no look-up, and no thread of the pool that may hang in one. */
static int begin(struct net_conn *conn, const char *address) {
    struct net_dial *dial = conn->dial;
    struct resolve_parts parts;
    if (!resolve_split(address, &parts)) {
        return UV_EINVAL;
    }
    if (resolve_literal(&parts, &dial->literal)) {
        conn->stage = NET_CONNECTING;
        net_conn_set_deadline(conn, net_now_ms() + CONNECT_TIMEOUT_MS);
        return uv_tcp_connect(&dial->connect, &conn->tcp,
                              (const struct sockaddr *)&dial->literal, on_connect);
    }
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    int result = uv_getaddrinfo(&conn->net->loop, &dial->lookup, on_lookup, parts.host,
                                parts.port, &hints);
    dial->looking_up = result == 0;
    return result;
}

struct net_conn *net_dial(struct net *net, const char *address, void *user) {
    struct net_conn *conn = net_conn_open(net, NET_RESOLVING);
    conn->user = user;
    conn->dial = memory_must_alloc_zero(sizeof(*conn->dial));
    conn->dial->connect.data = conn;
    conn->dial->lookup.data = conn;
    if (begin(conn, address) != 0) {
        net_conn_set_deadline(conn,
                              1); /* fails at the next sweep: no event from within a call */
    }
    return conn;
}

void dial_free(struct net_conn *conn) {
    if (conn->dial != NULL) {
        ASSERT(!conn->dial->looking_up);
        uv_freeaddrinfo(conn->dial->found);
        memory_free(conn->dial);
        conn->dial = NULL;
    }
}
