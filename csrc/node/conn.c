/* Connections as the node sees them: bytes in, lines and payloads to their rooms, bytes out.
 *
 * Must not know what a line means. Invariant: input is consumed in order; once `closing` is set
 * no more of it is looked at. */
#include "base/assert.h"
#include "base/memory.h"
#include "node/internal.h"

struct node_conn *conn_new(void *host, enum conn_kind kind) {
    struct node_conn *conn = memory_must_alloc_zero(sizeof(*conn));
    conn->host = host;
    conn->kind = kind;
    return conn;
}

static void conn_free(struct node_conn *conn) {
    buffer_free(&conn->in);
    buffer_free(&conn->out);
    memory_free(conn->message);
    memory_free(conn);
}

void conn_release(struct node_conn *conn) {
    ASSERT(conn->waiting > 0);
    conn->waiting--;
    if (conn->gone && conn->waiting == 0 && !conn->dirty) {
        conn_free(conn);
    }
}

void conn_mark_dirty(struct node *node, struct node_conn *conn) {
    if (!conn->dirty && !conn->gone) {
        conn->dirty = true;
        conn->next_dirty = node->dirty;
        node->dirty = conn;
    }
}

struct node_conn *node_take_dirty(struct node *node) {
    while (node->dirty != NULL) {
        struct node_conn *conn = node->dirty;
        node->dirty = conn->next_dirty;
        conn->next_dirty = NULL;
        conn->dirty = false;
        if (!conn->gone) {
            return conn;
        }
        if (conn->waiting == 0) {
            conn_free(conn);
        }
    }
    return NULL;
}

void conn_close(struct node *node, struct node_conn *conn) {
    conn->closing = true;
    conn_mark_dirty(node, conn);
}

void conn_send_message(struct node *node, struct node_conn *conn,
                       const struct peer_message *message) {
    peer_write(&conn->out, message);
    conn_mark_dirty(node, conn);
}

struct node_conn *node_conn_open(struct node *node, void *host) {
    (void)node;
    return conn_new(host, CONN_CLIENT);
}

void node_conn_connected(struct node *node, struct node_conn *conn) {
    peers_connected(node, conn);
}

void node_conn_closed(struct node *node, struct node_conn *conn) {
    ASSERT(!conn->gone);
    conn->gone = true;
    conn->host = NULL;
    buffer_free(&conn->in);
    buffer_free(&conn->out);
    if (conn->kind != CONN_CLIENT) {
        peers_closed(node, conn);
    }
    if (conn->waiting == 0 && !conn->dirty) {
        conn_free(conn);
    }
}

void node_conn_set_unsent(struct node_conn *conn, size_t bytes) {
    conn->unsent = bytes;
}

bool node_conn_wants_input(const struct node_conn *conn) {
    if (conn->closing) {
        return false;
    }
    if (conn->kind != CONN_CLIENT) {
        return true;
    }
    return conn_backlog(conn) < CLIENT_OUT_BYTES_MAX &&
           conn->waiting < IN_FLIGHT_PER_CLIENT_MAX &&
           (uint64_t)conn->waiting * conn->answer_bytes < ANSWERS_IN_FLIGHT_BYTES_MAX;
}

bool node_conn_waiting(const struct node_conn *conn) {
    return conn->waiting > 0;
}

void node_conn_set_peers_only(struct node_conn *conn) {
    conn->peers_only = true;
}

bool node_conn_is_peer(const struct node_conn *conn) {
    return conn->kind == CONN_PEER_IN && conn->peer != NULL;
}

void *node_conn_host(const struct node_conn *conn) {
    return conn->host;
}

void node_conn_set_host(struct node_conn *conn, void *host) {
    conn->host = host;
}

struct buffer *node_conn_out(struct node_conn *conn) {
    return &conn->out;
}

bool node_conn_closing(const struct node_conn *conn) {
    return conn->closing;
}

/* --- input --- */
#define NUMBER_TEXT(number) #number
#define TOO_LONG(number)                                                                       \
    "{\"reason\":\"line too long\",\"limit_bytes\":" NUMBER_TEXT(number) "}"
#define TOO_LONG_DATA TOO_LONG(1048576)
STATIC_ASSERT(LINE_BYTES_MAX == 1048576, "the text names the limit");

#define CROWDED_DATA                                                                           \
    "{\"outcome\":\"not_applied\",\"retry_after_ms\":1000,\"reason\":\"too many "              \
    "connections\"}"

static void too_long(struct node *node, struct node_conn *conn) {
    if (conn->kind == CONN_CLIENT) {
        rpc_write_error(&conn->out, SPAN("null"), RPC_PARSE_ERROR, SPAN(TOO_LONG_DATA), false);
    }
    conn_close(node, conn);
}

/* A line for servers is looked at here only as far as is needed to know what follows it. */
static void peer_line(struct node *node, struct node_conn *conn, struct span line) {
    if (conn->message == NULL) {
        conn->message = memory_must_alloc_zero(sizeof(*conn->message));
    }
    if (peer_read(line, conn->message) != STATUS_OK ||
        conn->message->bytes > PEER_PAYLOAD_BYTES_MAX) {
        apply_notice(node, "warning", "peer",
                     "a malformed message between servers was refused");
        conn_close(node, conn);
        return;
    }
    bool carries = conn->message->bytes > 0 && conn->kind == CONN_PEER_IN;
    if (carries) {
        conn->payload_bytes = conn->message->bytes;
    } else {
        peers_receive(node, conn, conn->message, (struct span){NULL, 0});
    }
}

static bool is_peer_line(const struct node_conn *conn, struct span line) {
    return conn->kind != CONN_CLIENT || peer_is_message(line);
}

/* Consume what is whole at the start of `input`; returns how much of it is done with. */
static size_t take_one(struct node *node, struct node_conn *conn, struct span input) {
    if (conn->payload_bytes > 0) {
        if (input.size < conn->payload_bytes) {
            return 0;
        }
        size_t bytes = conn->payload_bytes;
        conn->payload_bytes = 0;
        peers_receive(node, conn, conn->message, (struct span){input.data, bytes});
        return bytes;
    }
    struct span line;
    size_t consumed = 0;
    size_t bytes_max = conn->kind == CONN_CLIENT ? LINE_BYTES_MAX : PEER_LINE_BYTES_MAX;
    switch (frame_next(&conn->frame, input, bytes_max, &line, &consumed)) {
    case FRAME_MORE:
        return 0;
    case FRAME_TOO_LONG:
        too_long(node, conn);
        return 0;
    case FRAME_LINE:
        break;
    }
    if (is_peer_line(conn, line)) {
        peer_line(node, conn, line);
    } else if (conn->peers_only) {
        rpc_write_error(&conn->out, SPAN("null"), RPC_OVERLOADED, SPAN(CROWDED_DATA), false);
        conn_close(node, conn);
    } else {
        request_line(node, conn, line);
    }
    return consumed;
}

static size_t take_all(struct node *node, struct node_conn *conn, struct span input) {
    size_t done = 0;
    while (!conn->closing && done < input.size) {
        size_t consumed =
            take_one(node, conn, (struct span){input.data + done, input.size - done});
        if (consumed == 0) {
            break;
        }
        done += consumed;
    }
    return conn->closing ? input.size : done;
}

void node_conn_receive(struct node *node, struct node_conn *conn, struct span bytes) {
    if (conn->closing) {
        return;
    }
    if (buffer_count(&conn->in) == 0) {
        size_t done = take_all(node, conn, bytes); /* in place: the usual case copies nothing */
        buffer_append(&conn->in, bytes.data + done, bytes.size - done);
    } else {
        buffer_append_span(&conn->in, bytes);
        size_t done = take_all(node, conn, buffer_span(&conn->in));
        buffer_consume(&conn->in, done);
    }
    buffer_trim(&conn->in, 4096);
}
