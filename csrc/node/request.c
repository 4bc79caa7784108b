/* A client's line: what is asked, and which room answers it.
 *
 * Must not know how a command is replicated or a query confirmed. Invariant: every request with
 * an id ends in exactly one of: an answer now, a pending, a read, an admin request. */
#include "node/internal.h"

static bool overloaded_reads(const struct node *node, size_t bytes) {
    return node->reads.count + node->applies.slots_used >= PENDING_READS_MAX ||
           node->reads.bytes + bytes > PENDING_READ_BYTES_MAX ||
           (node->applies.filling != NULL &&
            node->applies.filling->input.size > PENDING_READ_BYTES_MAX);
}

static void apply_command(struct node *node, struct caller *caller,
                          const struct rpc_request *request) {
    if (node->no_space[0] != '\0') {
        caller_refuse(node, caller, RPC_STORAGE_FAILURE, "not_applied", node->no_space);
    } else if (node->pendings.count >= PENDING_COMMANDS_MAX ||
               node->pendings.bytes + request->input.size > PENDING_BYTES_MAX) {
        caller_refuse(node, caller, RPC_OVERLOADED, "not_applied",
                      "too many commands wait for their answer");
    } else {
        pending_add(node, caller, request);
    }
}

/* At once, unless it asks for more than is applied, or the machine has not its state yet. */
static void local_query(struct node *node, struct caller *caller,
                        const struct rpc_request *request) {
    uint64_t deadline_ms = node->now_ms + node->request_timeout_ms;
    if (request->min_index > node->applies.handed || node->applies.restoring) {
        parked_add(node, APPLY_LOCAL_QUERY, caller, request->input, request->min_index,
                   deadline_ms);
    } else {
        apply_query(node, APPLY_LOCAL_QUERY, caller, request->input, deadline_ms);
    }
}

static void dispatch_apply(struct node *node, struct node_conn *conn, struct gather *gather,
                           const struct rpc_request *request) {
    struct caller caller;
    caller_init(&caller, conn, gather, request);
    if (!node_is_member(node)) {
        caller_refuse(node, &caller, RPC_NOT_MEMBER, "not_applied", NULL);
    } else if (node->stopping) {
        caller_refuse(node, &caller, RPC_NO_LEADER, "not_applied", "the server is stopping");
    } else if (request->kind == RPC_COMMAND) {
        apply_command(node, &caller, request);
    } else if (request->notification) {
        caller_drop(&caller); /* a query that nobody hears changes nothing */
    } else if (overloaded_reads(node, request->input.size)) {
        caller_refuse(node, &caller, RPC_OVERLOADED, "not_applied", "too many queries wait");
    } else if (request->kind == RPC_QUERY ||
               (request->max_staleness_ms < UINT64_MAX &&
                !reads_are_fresh(node, request->max_staleness_ms))) {
        reads_add(node, &caller, request);
    } else {
        local_query(node, &caller, request);
    }
}

/* The server's own state comes at once, whatever the cluster does; with {"user":true} the
 * machine is asked for its state in its turn. */
static void answer_state(struct node *node, struct node_conn *conn, struct gather *gather,
                         const struct rpc_request *request) {
    if (request->user && !request->notification) {
        struct caller caller;
        caller_init(&caller, conn, gather, request);
        if (node->applies.states_asked >= MACHINE_STATES_MAX || node->stopped) {
            caller_refuse(node, &caller, RPC_OVERLOADED, "not_applied",
                          "the machine's state is being written out for others already");
            return;
        }
        node->applies.states_asked++;
        apply_query(node, APPLY_STATE, &caller, (struct span){NULL, 0},
                    node->now_ms + node->request_timeout_ms);
        return;
    }
    struct buffer json;
    buffer_init(&json);
    node_write_state(node, &json, (struct span){NULL, 0});
    caller_answer_now(node, conn, gather, request, RPC_OK, buffer_span(&json));
    buffer_free(&json);
}

static void dispatch(struct node *node, struct node_conn *conn, struct gather *gather,
                     const struct rpc_request *request) {
    if (request->code != RPC_OK) {
        caller_answer_now(node, conn, gather, request, request->code,
                          (struct span){request->data, strlen(request->data)});
        return;
    }
    if (node->failure.status != STATUS_OK && request->method != RPC_GET_SERVER_STATE) {
        struct caller caller;
        caller_init(&caller, conn, gather, request);
        caller_refuse(node, &caller, RPC_STORAGE_FAILURE, "not_applied", node->failure.text);
        return;
    }
    switch (request->method) {
    case RPC_APPLY:
        dispatch_apply(node, conn, gather, request);
        return;
    case RPC_CREATE_CLUSTER:
        admin_create_cluster(node, conn, gather, request);
        return;
    case RPC_ADD_SERVER:
    case RPC_REMOVE_SERVER:
    case RPC_TAKE_SNAPSHOT:
        admin_submit(node, conn, gather, request);
        return;
    case RPC_GET_SERVER_STATE:
        answer_state(node, conn, gather, request);
        return;
    }
}

static void count_bad(struct node *node, struct node_conn *conn, bool bad) {
    conn->bad_lines = bad ? conn->bad_lines + 1 : 0;
    if (conn->bad_lines > BAD_LINES_MAX) {
        conn_close(node, conn);
    }
}

void request_line(struct node *node, struct node_conn *conn, struct span line) {
    if (frame_looks_like_http(line)) {
        conn_close(node, conn);
        return;
    }
    struct rpc_request request;
    struct span batch;
    switch (rpc_forms_read(&node->forms, line, &request, &batch)) {
    case RPC_BLANK:
        return;
    case RPC_SINGLE:
        dispatch(node, conn, NULL, &request);
        count_bad(node, conn,
                  request.code == RPC_PARSE_ERROR || request.code == RPC_INVALID_REQUEST);
        return;
    case RPC_BATCH: {
        struct gather *gather = gather_new(conn);
        size_t at = 0;
        while (rpc_batch_next(batch, &at, &request)) {
            dispatch(node, conn, gather, &request);
        }
        gather_close(node, gather);
        return;
    }
    }
}
