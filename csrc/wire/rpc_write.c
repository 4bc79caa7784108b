/* Answers as text, and the table of errors.
 *
 * Invariant: the id, result and data that come in are valid JSON on one line, so what goes out
 * is one line of valid JSON. */
#include "wire/rpc.h"

#include "base/assert.h"

#define HEAD "{\"jsonrpc\":\"2.0\",\"id\":"
#define RESULT ",\"result\":"

const char *rpc_message(enum rpc_code code) {
    switch (code) {
    case RPC_OK:
        return "OK";
    case RPC_PARSE_ERROR:
        return "Parse error";
    case RPC_INVALID_REQUEST:
        return "Invalid request";
    case RPC_METHOD_NOT_FOUND:
        return "Method not found";
    case RPC_INVALID_PARAMS:
        return "Invalid params";
    case RPC_INTERNAL_ERROR:
        return "Internal error";
    case RPC_CLUSTER_EXISTS:
        return "Cluster already created";
    case RPC_ALREADY_ADDED:
        return "Server already added";
    case RPC_NOT_MEMBER:
        return "Not a cluster member";
    case RPC_INVALID_INPUT:
        return "Invalid machine input";
    case RPC_INVALID_OUTPUT:
        return "Invalid machine output";
    case RPC_NO_OUTPUT:
        return "No machine output";
    case RPC_LEADER_CHANGE:
        return "Request rejected due to leader change";
    case RPC_UNKNOWN_RESULT:
        return "Request result unknown (it could either be accepted or rejected)";
    case RPC_NO_LEADER:
        return "No leader in the cluster or not known by the server";
    case RPC_MACHINE_ERROR:
        return "Machine error";
    case RPC_OVERLOADED:
        return "Overloaded";
    case RPC_UNREACHABLE:
        return "Server unreachable";
    case RPC_STORAGE_FAILURE:
        return "Storage failure";
    case RPC_SESSION_EXPIRED:
        return "Session expired or unknown";
    case RPC_STALE_SEQ:
        return "Sequence number passed";
    case RPC_ANSWER_FORGOTTEN:
        return "Applied, but the answer is no longer kept";
    case RPC_INDEX_NOT_REACHED:
        return "Index not reached in time";
    }
    return "Unknown error";
}

static char *put(char *at, const char *bytes, size_t size) {
    memcpy(at, bytes, size);
    return at + size;
}

/* Written for every request that is answered: one reservation, then copies. */
void rpc_write_result(struct buffer *out, struct span id, struct span result, bool in_batch) {
    ASSERT(id.size > 0);
    ASSERT(result.size > 0);
    size_t bytes = sizeof(HEAD) - 1 + id.size + sizeof(RESULT) - 1 + result.size + 2;
    char *start = buffer_reserve(out, bytes);
    char *at = put(start, HEAD, sizeof(HEAD) - 1);
    at = put(at, id.data, id.size);
    at = put(at, RESULT, sizeof(RESULT) - 1);
    at = put(at, result.data, result.size);
    at = put(at, "}\n", in_batch ? 1 : 2);
    buffer_extend(out, (size_t)(at - start));
}

void rpc_write_error(struct buffer *out, struct span id, enum rpc_code code, struct span data,
                     bool in_batch) {
    ASSERT(id.size > 0);
    ASSERT(code != RPC_OK);
    buffer_append_text(out, HEAD);
    buffer_append_span(out, id);
    buffer_append_format(out, ",\"error\":{\"code\":%d,\"message\":\"%s\"", (int)code,
                         rpc_message(code));
    if (data.size > 0) {
        buffer_append_text(out, ",\"data\":");
        buffer_append_span(out, data);
    }
    buffer_append_text(out, in_batch ? "}}" : "}}\n");
}
