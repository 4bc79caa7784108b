/* Who waits for an answer, and answering exactly once.
 *
 * A caller is a request on a connection, alone or inside a JSON-RPC batch; one without an id
 * waits like any other, so that it counts as in flight, and hears nothing. Must not know what
 * was asked. Invariant: each caller is answered or dropped once; conn->waiting counts those
 * that are neither yet. */
#include "base/assert.h"
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
    conn_wait(conn, true);
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
    *caller = (struct caller){.conn = conn};
    conn_wait(conn, !request->notification);
    if (request->notification) {
        return;
    }
    caller->gather = gather;
    caller->wants_index = request->index;
    caller->id_size = (uint32_t)request->id.size;
    caller->id = request->id.size <= sizeof(caller->id_inline)
                     ? caller->id_inline
                     : memory_must_grow(NULL, request->id.size);
    memcpy(caller->id, request->id.data, request->id.size);
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

/* Where the answer goes, or NULL when nobody can read it any more, or wants to. */
static struct buffer *answer_out(struct node *node, struct caller *caller) {
    if (caller->conn == NULL || caller->conn->gone) {
        return NULL;
    }
    if (caller->gather != NULL) {
        return gather_out(caller->gather);
    }
    conn_mark_dirty(node, caller->conn); /* at least it may be read from again */
    return caller->id == NULL ? NULL : &caller->conn->out;
}

/* The largest answer of late, slowly forgotten: bounds what may be in flight (conn.c). */
static void expect_answers(struct node_conn *conn, size_t bytes) {
    conn->answered = true;
    conn->answer_bytes = conn_faded_max(conn->answer_bytes, bytes);
    if (conn->load != NULL) {
        conn->load->answer_bytes = conn_faded_max(conn->load->answer_bytes, bytes);
    }
}

void caller_result(struct node *node, struct caller *caller, struct span result) {
    if (caller->id != NULL) {
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

/* `data` of an outcome that is an error: what the machine's side said, and what came of it. */
static void error_outcome(struct node *node, struct caller *caller,
                          const struct outcome *outcome) {
    struct buffer data;
    buffer_init(&data);
    if (outcome->text.size > 2 && outcome->text.data[0] == '{') {
        buffer_append(&data, outcome->text.data, outcome->text.size - 1);
        buffer_append_char(&data, ',');
    } else {
        buffer_append_char(&data, '{');
    }
    buffer_append_text(&data, outcome->applied ? "\"outcome\":\"applied\""
                                               : "\"outcome\":\"not_applied\"");
    if (caller->wants_index) {
        buffer_append_text(&data, ",\"index\":");
        buffer_append_u64(&data, outcome->index);
    }
    buffer_append_char(&data, '}');
    caller_error(node, caller, outcome->code, buffer_span(&data));
    buffer_free(&data);
}

void caller_outcome(struct node *node, struct caller *caller, const struct outcome *outcome) {
    if (outcome->code != RPC_OK) {
        error_outcome(node, caller, outcome);
        return;
    }
    if (!caller->wants_index) {
        caller_result(node, caller, outcome->text);
        return;
    }
    struct buffer result;
    buffer_init(&result);
    buffer_append_text(&result, "{\"index\":");
    buffer_append_u64(&result, outcome->index);
    buffer_append_text(&result, ",\"output\":");
    buffer_append_span(&result, outcome->text);
    buffer_append_char(&result, '}');
    caller_result(node, caller, buffer_span(&result));
    buffer_free(&result);
}

void caller_refuse_session(struct node *node, struct caller *caller,
                           enum session_verdict verdict, uint64_t last_seq) {
    switch (verdict) {
    case SESSION_EXPIRED:
        caller_refuse(node, caller, RPC_SESSION_EXPIRED, "unknown",
                      "there is no such session (any more): seq 1 opens one");
        return;
    case SESSION_FULL:
        caller_refuse(node, caller, RPC_OVERLOADED, "not_applied",
                      "too many sessions are open");
        return;
    case SESSION_STALE: {
        struct buffer data;
        buffer_init(&data);
        buffer_append_text(&data, "{\"outcome\":\"unknown\",\"last_seq\":");
        buffer_append_u64(&data, last_seq);
        buffer_append_char(&data, '}');
        caller_error(node, caller, RPC_STALE_SEQ, buffer_span(&data));
        buffer_free(&data);
        return;
    }
    case SESSION_APPLY:
    case SESSION_REPEAT:
        break;
    }
    ASSERT(false && "a refusal");
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
