/* Who waits for an answer, and answering exactly once.
 *
 * A caller is a request with an id on a connection, alone or inside a JSON-RPC batch. Must not
 * know what was asked. Invariant: each caller is answered or dropped once; conn->waiting counts
 * those that are neither yet. */
#include "base/memory.h"
#include "node/internal.h"
#include "wire/scan.h"

/* The answers of a batch are collected and written as one array when the last one is there. */
struct gather {
    struct node_conn *conn;
    struct buffer out;
    uint32_t open; /* requests dispatched and not answered, plus one while dispatching */
    bool any;
};

struct gather *gather_new(struct node_conn *conn) {
    struct gather *gather = memory_must_alloc_zero(sizeof(*gather));
    gather->conn = conn;
    gather->open = 1;
    conn->waiting++;
    return gather;
}

static void gather_leave(struct node *node, struct gather *gather) {
    if (--gather->open > 0) {
        return;
    }
    struct node_conn *conn = gather->conn;
    if (gather->any && !conn->gone && node != NULL) {
        buffer_append_char(&conn->out, '[');
        buffer_append_span(&conn->out, buffer_span(&gather->out));
        buffer_append(&conn->out, "]\n", 2);
        conn_mark_dirty(node, conn);
    }
    buffer_free(&gather->out);
    memory_free(gather);
    conn_release(conn);
}

void gather_close(struct node *node, struct gather *gather) {
    gather_leave(node, gather);
}

static struct buffer *gather_out(struct gather *gather) {
    if (gather->any) {
        buffer_append_char(&gather->out, ',');
    }
    gather->any = true;
    return &gather->out;
}

void caller_init(struct caller *caller, struct node_conn *conn, struct gather *gather,
                 const struct rpc_request *request) {
    *caller = (struct caller){0};
    if (request->notification) {
        return;
    }
    caller->conn = conn;
    caller->gather = gather;
    caller->id_size = (uint32_t)request->id.size;
    caller->id = request->id.size <= sizeof(caller->id_inline)
                     ? caller->id_inline
                     : memory_must_grow(NULL, request->id.size);
    memcpy(caller->id, request->id.data, request->id.size);
    conn->waiting++;
    if (gather != NULL) {
        gather->open++;
    }
}

void caller_move(struct caller *to, struct caller *from) {
    *to = *from;
    if (from->id == from->id_inline) {
        to->id = to->id_inline;
    }
    *from = (struct caller){0};
}

static void forget(struct node *node, struct caller *caller) {
    struct node_conn *conn = caller->conn;
    struct gather *gather = caller->gather;
    if (caller->id != NULL && caller->id != caller->id_inline) {
        memory_free(caller->id);
    }
    *caller = (struct caller){0};
    if (gather != NULL) {
        gather_leave(node, gather);
    }
    if (conn != NULL) {
        conn_release(conn);
    }
}

void caller_drop(struct caller *caller) {
    forget(NULL, caller);
}

/* Where the answer goes, or NULL when nobody can read it any more. */
static struct buffer *answer_out(struct node *node, struct caller *caller) {
    if (caller->conn == NULL || caller->conn->gone) {
        return NULL;
    }
    if (caller->gather != NULL) {
        return gather_out(caller->gather);
    }
    conn_mark_dirty(node, caller->conn);
    return &caller->conn->out;
}

/* The largest answer of late, slowly forgotten: bounds what may be in flight (conn.c). */
static void expect_answers(struct node_conn *conn, size_t bytes) {
    size_t faded = conn->answer_bytes - conn->answer_bytes / 1024;
    conn->answer_bytes = bytes > faded ? bytes : faded;
}

void caller_result(struct node *node, struct caller *caller, struct span result) {
    if (caller->conn != NULL) {
        expect_answers(caller->conn, result.size);
    }
    struct buffer *out = answer_out(node, caller);
    if (out != NULL) {
        rpc_write_result(out, (struct span){caller->id, caller->id_size}, result,
                         caller->gather != NULL);
    }
    forget(node, caller);
}

void caller_error(struct node *node, struct caller *caller, enum rpc_code code,
                  struct span data) {
    struct buffer *out = answer_out(node, caller);
    if (out != NULL) {
        rpc_write_error(out, (struct span){caller->id, caller->id_size}, code, data,
                        caller->gather != NULL);
    }
    forget(node, caller);
}

#define RETRY_AFTER_MS 100u /* advice with an Overloaded */

void caller_refuse(struct node *node, struct caller *caller, enum rpc_code code,
                   const char *outcome, const char *reason) {
    struct buffer data;
    buffer_init(&data);
    buffer_append_text(&data, "{\"outcome\":\"");
    buffer_append_text(&data, outcome);
    buffer_append_char(&data, '"');
    if (code == RPC_OVERLOADED) {
        buffer_append_format(&data, ",\"retry_after_ms\":%u", RETRY_AFTER_MS);
    }
    if (reason != NULL) {
        buffer_append_text(&data, ",\"reason\":");
        scan_append_string(&data, (struct span){reason, strlen(reason)});
    }
    buffer_append_char(&data, '}');
    caller_error(node, caller, code, buffer_span(&data));
    buffer_free(&data);
}

void caller_answer_now(struct node *node, struct node_conn *conn, struct gather *gather,
                       const struct rpc_request *request, enum rpc_code code,
                       struct span data_or_result) {
    struct caller caller;
    caller_init(&caller, conn, gather, request);
    if (code == RPC_OK) {
        caller_result(node, &caller, data_or_result);
    } else {
        caller_error(node, &caller, code, data_or_result);
    }
}
