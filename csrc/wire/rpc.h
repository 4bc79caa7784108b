/* JSON-RPC 2.0: a line to requests, and answers to lines. One scan over the bytes of a request;
 * spans, no tree. The contract is README.md's section "JSON-RPC". */
#ifndef RAFTPICO_WIRE_RPC_H
#define RAFTPICO_WIRE_RPC_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/limits.h"

enum rpc_code {
    RPC_OK = 0,
    RPC_PARSE_ERROR = -32700,
    RPC_INVALID_REQUEST = -32600,
    RPC_METHOD_NOT_FOUND = -32601,
    RPC_INVALID_PARAMS = -32602,
    RPC_INTERNAL_ERROR = -32603,
    RPC_CLUSTER_EXISTS = 100,
    RPC_ALREADY_ADDED = 101,
    RPC_NOT_MEMBER = 102,
    RPC_INVALID_INPUT = 103,
    RPC_INVALID_OUTPUT = 104,
    RPC_NO_OUTPUT = 105,
    RPC_LEADER_CHANGE = 106,
    RPC_UNKNOWN_RESULT = 107,
    RPC_NO_LEADER = 108,
    RPC_MACHINE_ERROR = 109,
    RPC_OVERLOADED = 110,
    RPC_UNREACHABLE = 111,
    RPC_STORAGE_FAILURE = 112,
    RPC_SESSION_EXPIRED = 113,
    RPC_STALE_SEQ = 114,
    RPC_ANSWER_FORGOTTEN = 115,
    RPC_INDEX_NOT_REACHED = 116,
};
const char *rpc_message(enum rpc_code code); /* the table's text */

enum rpc_method {
    RPC_CREATE_CLUSTER,
    RPC_ADD_SERVER,
    RPC_REMOVE_SERVER,
    RPC_APPLY,
    RPC_TAKE_SNAPSHOT,
    RPC_GET_SERVER_STATE,
};
const char *rpc_method_name(enum rpc_method method);

enum rpc_apply_kind {
    RPC_COMMAND,
    RPC_QUERY,
    RPC_LOCAL_QUERY,
};

/* One request, or why it is none. All spans are borrowed from the line. */
struct rpc_request {
    bool notification;  /* no id: never answer, not even with an error */
    struct span id;     /* raw text to echo; "null" where it could not be read */
    enum rpc_code code; /* RPC_OK, or the error to answer with */
    char data[256];     /* error only: JSON text of `data`, "" for none */

    enum rpc_method method;
    enum rpc_apply_kind kind; /* APPLY */
    struct span input;        /* APPLY: the value's text, validated, spaces outside cut */
    struct span session;      /* APPLY, Command: as in struct entry, or empty; borrowed from the
                                 line or from session_text */
    uint64_t session_seq;     /* from 1; 0 without a session */
    bool index;               /* APPLY: the answer says at which index */
    uint64_t min_index;       /* APPLY, queries: not before this is applied; 0: at once */
    uint64_t max_staleness_ms; /* APPLY, LocalQuery: UINT64_MAX where not asked */
    char session_text[SESSION_TEXT_BYTES_MAX];
    char address[ADDRESS_BYTES_MAX];  /* ADD_SERVER, REMOVE_SERVER: unescaped, "host:port"
                                         checked */
    uint32_t min_election_timeout_ms; /* CREATE_CLUSTER, defaults filled in, ranges checked */
    uint32_t max_election_timeout_ms;
    bool user; /* GET_SERVER_STATE: {"user":true} */
};

enum rpc_shape {
    RPC_BLANK,  /* nothing but spaces: ignore the line */
    RPC_SINGLE, /* `request` is filled in */
    RPC_BATCH,  /* an array, validated: walk it with rpc_batch_next */
};

/* Read a line (without its LF). Everything that can be wrong ends in request->code. An empty
 * batch, one of too many requests, and a line that is not JSON are RPC_SINGLE with an error. */
enum rpc_shape rpc_read(struct span line, struct rpc_request *request, struct span *batch);

/* The next request of a batch; *at starts at 0; false at its end. */
bool rpc_batch_next(struct span batch, size_t *at, struct rpc_request *request);

/* Append a response line; LF included unless `in_batch` (the caller puts the commas and
 * brackets). `result` is JSON text, `data` JSON text or empty. */
void rpc_write_result(struct buffer *out, struct span id, struct span result, bool in_batch);
void rpc_write_error(struct buffer *out, struct span id, enum rpc_code code, struct span data,
                     bool in_batch);

#endif
