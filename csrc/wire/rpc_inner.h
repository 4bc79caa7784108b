/* What rpc.c, rpc_params.c and rpc_form.c share: the members as found in the pass over the
 * line, before it is known which method they are for (`params` may stand before `method`). */
#ifndef RAFTPICO_WIRE_RPC_INNER_H
#define RAFTPICO_WIRE_RPC_INNER_H

#include "wire/rpc.h"
#include "wire/scanner.h"

/* Every member of params that some method knows. */
enum rpc_param {
    RPC_PARAM_KIND,
    RPC_PARAM_INPUT,
    RPC_PARAM_ADDR,
    RPC_PARAM_MIN_ELECTION_TIMEOUT_MS,
    RPC_PARAM_MAX_ELECTION_TIMEOUT_MS,
    RPC_PARAM_USER,
    RPC_PARAM_SESSION,
    RPC_PARAM_SEQ,
    RPC_PARAM_INDEX,
    RPC_PARAM_MIN_INDEX,
    RPC_PARAM_MAX_STALENESS_MS,
};
#define RPC_PARAM_COUNT 11
#define RPC_POSITIONS_MAX 2 /* the most that a method takes by position */

enum rpc_params_shape {
    RPC_PARAMS_ABSENT,
    RPC_PARAMS_BY_NAME,
    RPC_PARAMS_BY_POSITION,
    RPC_PARAMS_NEITHER, /* a string, a number ...: no valid request */
};

struct rpc_params {
    enum rpc_params_shape shape;
    struct span named[RPC_PARAM_COUNT];        /* NULL data: absent */
    struct span positioned[RPC_POSITIONS_MAX]; /* the first of them, by position */
    size_t count;                              /* by position: how many there were */
};

/* The members of a request's object; NULL data: absent. */
struct rpc_envelope {
    struct span jsonrpc;
    struct span id;
    struct span method;
    struct rpc_params params; /* by name, too, once the request is RPC_OK */
};

/* What holds of a request of which nothing has been read. */
void rpc_request_init(struct rpc_request *request);

/* rpc_read, which also says where the members stand; `envelope` is filled in where the shape is
 * RPC_SINGLE and the code RPC_OK. */
enum rpc_shape rpc_read_envelope(struct span line, struct rpc_envelope *envelope,
                                 struct rpc_request *request, struct span *batch);

/* Pass over the value of `params`, inside `depth` brackets, and note what it holds. */
bool rpc_params_pass(struct scanner *scanner, unsigned depth, struct rpc_params *params);

/* Fill in the request's fields for request->method, or its error. */
void rpc_params_read(struct rpc_request *request, struct rpc_params *params);

/* Name the method of a request, or refuse it with the nearest name. */
void rpc_method_read(struct rpc_request *request, struct span name);

/* Refuse: `data` becomes {"member":..,"expected":..}; both stand in JSON strings as they are. A
 * NULL member leaves that one out. */
void rpc_refuse(struct rpc_request *request, enum rpc_code code, const char *member,
                const char *expected);

/* One whole value inside `depth` brackets, `scanner` on its first byte. */
static inline bool rpc_pass_value(struct scanner *scanner, unsigned depth, struct span *value) {
    const char *start = scanner->at;
    if (!scanner_value(scanner, depth)) {
        return false;
    }
    *value = (struct span){start, (size_t)(scanner->at - start)};
    return true;
}

/* The text between the quotes of a string value; NULL data where the value is no string. */
static inline struct span rpc_string_text(struct span value) {
    if (value.data == NULL || value.data[0] != '"') {
        return (struct span){NULL, 0};
    }
    return (struct span){value.data + 1, value.size - 2};
}

/* Whether a string's raw text means `literal`. Only what is longer than what it means can hold
 * an escape, so the usual spelling costs one comparison. */
static inline bool rpc_text_is(struct span raw, struct span literal) {
    return raw.data != NULL &&
           (span_equal(raw, literal) ||
            (raw.size > literal.size && scanner_escaped_equal(raw, literal)));
}

#endif
