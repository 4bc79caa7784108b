/* One connection: reading, writing, closing; see net.h and the picture in internal.h.
 *
 * Must not know what the bytes mean. Invariants: a connection is written to by libuv only what
 * the system did not take at once; once `user` is NULL the host hears no more of it. */
#include <string.h>

#include "base/assert.h"
#include "base/memory.h"
#include "net/internal.h"

static uv_stream_t *stream_of(struct net_conn *conn) {
    return (uv_stream_t *)&conn->tcp;
}

/* --- life --- */

struct net_conn *net_conn_open(struct net *net, enum net_stage stage) {
    struct net_conn *conn = memory_must_alloc_zero(sizeof(*conn));
    int result = uv_tcp_init(&net->loop, &conn->tcp); /* makes no socket yet: cannot fail */
    ASSERT(result == 0);
    conn->tcp.data = conn;
    conn->net = net;
    conn->stage = stage;
    conn->next = net->conns;
    conn->link = &net->conns;
    if (conn->next != NULL) {
        conn->next->link = &conn->next;
    }
    net->conns = conn;
    return conn;
}

static void unlink_conn(struct net_conn *conn) {
    *conn->link = conn->next;
    if (conn->next != NULL) {
        conn->next->link = conn->link;
    }
}

void net_conn_free_if_done(struct net_conn *conn) {
    bool looking_up = conn->dial != NULL && conn->dial->looking_up;
    if (conn->stage == NET_CLOSING && conn->tcp_closed && !looking_up) {
        dial_free(conn);
        unlink_conn(conn);
        memory_free(conn);
    }
}

static void on_close(uv_handle_t *handle) {
    struct net_conn *conn = handle->data;
    conn->tcp_closed = true;
    net_conn_free_if_done(conn);
}

void net_conn_set_deadline(struct net_conn *conn, uint64_t deadline_ms) {
    bool had_one = conn->deadline_ms != 0;
    conn->deadline_ms = deadline_ms;
    if (!had_one && deadline_ms != 0) {
        net_count_deadline(conn->net, 1);
    } else if (had_one && deadline_ms == 0) {
        net_count_deadline(conn->net, -1);
    }
}

/* No more among those that are limited. */
static void uncount(struct net_conn *conn) {
    conn->net->accepted_count -= conn->accepted;
    conn->net->extra_count -= conn->extra;
    conn->accepted = conn->extra = false;
}

bool net_conn_is_extra(const struct net_conn *conn) {
    return conn->extra;
}

void net_conn_exempt(struct net_conn *conn) {
    if (conn->extra && conn->stage == NET_OPEN) {
        net_conn_set_deadline(conn, 0);
    }
    uncount(conn);
}

void net_conn_close_now(struct net_conn *conn) {
    if (conn->stage == NET_CLOSING) {
        return;
    }
    conn->stage = NET_CLOSING;
    conn->user = NULL;
    net_conn_set_deadline(conn, 0);
    uncount(conn);
    conn->net->finishing -= conn->finishing;
    conn->finishing = 0;
    if (conn->dial != NULL && conn->dial->looking_up) {
        uv_cancel((uv_req_t *)&conn->dial->lookup); /* where it has begun it ends by itself */
    }
    if (!uv_is_closing((uv_handle_t *)&conn->tcp)) {
        uv_close((uv_handle_t *)&conn->tcp, on_close);
    }
}

void net_conn_fail(struct net_conn *conn) {
    void *user = conn->user;
    struct net *net = conn->net;
    net_conn_close_now(conn);
    if (user != NULL) {
        net->events->closed(net->host, user);
    }
}

void net_conn_expire(struct net_conn *conn) {
    net_conn_set_deadline(conn, 0);
    if (conn->stage == NET_CONNECTING && conn->dial->next != NULL &&
        !uv_is_closing((uv_handle_t *)&conn->tcp)) {
        net_conn_set_deadline(conn, net_now_ms() + CONNECT_TIMEOUT_MS);
        dial_try_next(conn);
    } else {
        net_conn_fail(conn);
    }
}

/* --- reading --- */

/* libuv reads and calls back before it reads for anybody else: one place serves all. */
static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf) {
    (void)suggested;
    struct net_conn *conn = handle->data;
    bool clients = conn->accepted || conn->extra;
    size_t bytes = clients ? conn->net->client_bytes : READ_BYTES_MAX;
    *buf = uv_buf_init(conn->net->read_bytes, (unsigned)bytes);
}

void net_set_read_bytes(struct net *net, size_t bytes) {
    ASSERT(bytes > 0 && bytes <= READ_BYTES_MAX);
    net->client_bytes = bytes;
}

static void drop(struct net_conn *conn, size_t bytes) {
    conn->dropped += bytes;
    if (conn->dropped > FINISH_BYTES_MAX) {
        net_conn_close_now(conn);
    }
}

static void end(struct net_conn *conn) {
    conn->ended = true;
    uv_read_stop(stream_of(conn));
    if (conn->stage == NET_OPEN) {
        conn->net->events->ended(conn->net->host, conn->user);
    } else if (uv_stream_get_write_queue_size(stream_of(conn)) == 0) {
        net_conn_close_now(conn);
    }
}

static void on_read(uv_stream_t *stream, ssize_t got, const uv_buf_t *buf) {
    struct net_conn *conn = stream->data;
    if (got == UV_EOF) {
        end(conn);
    } else if (got < 0) {
        net_conn_fail(conn);
    } else if (got > 0 && conn->stage == NET_OPEN) {
        struct span bytes = {buf->base, (size_t)got};
        conn->net->events->bytes(conn->net->host, conn->user, bytes);
    } else {
        drop(conn, (size_t)got);
    }
}

static void start_reading(struct net_conn *conn) {
    if (!conn->ended) {
        /* Fails only for a handle that is closing or not connected, which it is not. */
        int result = uv_read_start(stream_of(conn), on_alloc, on_read);
        ASSERT(result == 0 || result == UV_EALREADY);
    }
}

void net_conn_opened(struct net_conn *conn) {
    conn->stage = NET_OPEN;
    net_conn_set_deadline(conn, 0);
    /* Without these two it works as well, only less well: a failure is not worth a word. */
    uv_tcp_nodelay(&conn->tcp, 1);
    uv_tcp_keepalive(&conn->tcp, 1, KEEPALIVE_SECONDS);
    start_reading(conn);
}

void net_conn_pause(struct net_conn *conn) {
    if (!conn->paused && conn->stage == NET_OPEN) {
        conn->paused = true;
        uv_read_stop(stream_of(conn));
    }
}

void net_conn_resume(struct net_conn *conn) {
    if (conn->paused && conn->stage == NET_OPEN) {
        conn->paused = false;
        start_reading(conn);
    }
}

/* --- writing --- */

struct write {
    uv_write_t request;
    struct net_conn *conn;
    struct buffer bytes; /* owned until the callback */
};

static void on_written(uv_write_t *request, int result) {
    struct write *write = request->data;
    struct net_conn *conn = write->conn;
    buffer_free(&write->bytes);
    memory_free(write);
    if (conn->stage == NET_CLOSING) {
        return;
    }
    if (result < 0) {
        net_conn_fail(conn);
    } else if (conn->user != NULL) {
        conn->net->events->drained(conn->net->host, conn->user);
    }
}

static bool write_later(struct net_conn *conn, struct buffer *bytes) {
    struct write *write = memory_must_alloc_zero(sizeof(*write));
    write->conn = conn;
    write->request.data = write;
    write->bytes = *bytes;
    buffer_init(bytes);
    buffer_fit(&write->bytes); /* a slow reader's: it may lie here for a minute */
    uv_buf_t piece = {.base = write->bytes.bytes + write->bytes.start,
                      .len = buffer_count(&write->bytes)};
    if (uv_write(&write->request, stream_of(conn), &piece, 1, on_written) != 0) {
        buffer_free(&write->bytes);
        memory_free(write);
        return false;
    }
    return true;
}

bool net_conn_write(struct net_conn *conn, struct buffer *bytes) {
    ASSERT(conn->stage == NET_OPEN);
    if (net_conn_unsent(conn) == 0 && buffer_count(bytes) > 0) {
        uv_buf_t piece = {.base = bytes->bytes + bytes->start, .len = buffer_count(bytes)};
        int sent = uv_try_write(stream_of(conn), &piece, 1);
        if (sent < 0 && sent != UV_EAGAIN) {
            return false;
        }
        buffer_consume(bytes, sent > 0 ? (size_t)sent : 0);
    }
    return buffer_count(bytes) == 0 || write_later(conn, bytes);
}

size_t net_conn_unsent(const struct net_conn *conn) {
    return uv_stream_get_write_queue_size((const uv_stream_t *)&conn->tcp);
}

bool net_conn_is_open(const struct net_conn *conn) {
    return conn->stage == NET_OPEN;
}

/* --- closing --- */

static void on_shutdown(uv_shutdown_t *request, int result) {
    struct net_conn *conn = request->data;
    if (conn->stage == NET_FINISHING && (result < 0 || conn->ended || conn->net->stopping)) {
        net_conn_close_now(conn);
    }
}

/* A socket that is closed with bytes unread answers with a reset, and a reset may overtake what
 * was sent last. So: send the rest, say that no more comes, and read (and drop) until the other
 * side has closed as well, or its time is up. */
static void finish(struct net_conn *conn, uint32_t timeout_ms) {
    conn->stage = NET_FINISHING;
    conn->user = NULL;
    conn->finishing = net_conn_unsent(conn);
    conn->net->finishing += conn->finishing;
    net_conn_set_deadline(conn, net_now_ms() + timeout_ms);
    conn->shutdown.data = conn;
    if (uv_shutdown(&conn->shutdown, stream_of(conn), on_shutdown) != 0) {
        net_conn_close_now(conn);
    } else if (!conn->net->stopping) {
        start_reading(conn);
    }
}

/* What is unsent is no more the host's to count: many that are closed while they read nothing,
 * one after the other, would leave as much of it as they like. */
static bool may_finish(const struct net_conn *conn) {
    return conn->stage == NET_OPEN &&
           conn->net->finishing + net_conn_unsent(conn) <= FINISH_UNSENT_BYTES_MAX;
}

void net_conn_close(struct net_conn *conn) {
    ASSERT(conn->stage != NET_FINISHING);
    if (may_finish(conn)) {
        finish(conn, FINISH_TIMEOUT_MS);
    } else {
        net_conn_close_now(conn);
    }
}

void net_conn_stop(struct net_conn *conn) {
    bool connected = conn->stage == NET_OPEN || conn->stage == NET_FINISHING;
    if (!connected || net_conn_unsent(conn) == 0) {
        net_conn_close_now(conn);
    } else if (conn->stage == NET_OPEN) {
        finish(conn, FINISH_STOP_TIMEOUT_MS);
    } else {
        net_conn_set_deadline(conn, net_now_ms() + FINISH_STOP_TIMEOUT_MS);
    }
}
