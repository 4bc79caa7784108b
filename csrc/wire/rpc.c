/* A line to requests: the envelope of JSON-RPC 2.0; see rpc.h. What stands in params is read by
 * rpc_params.c, answers are written by rpc_write.c.
 *
 * One pass validates the whole line and notes where the members stand; only then are they
 * judged, so that a line that is not JSON is never taken for a bad request. Invariant: whatever
 * the bytes, the request that comes out can be answered as it is (its id and data are valid
 * JSON). */
#include "wire/rpc.h"

#include <stdio.h>

#include "base/assert.h"
#include "wire/rpc_inner.h"

void rpc_request_init(struct rpc_request *request) {
    request->notification = false;
    request->id = SPAN("null");
    request->code = RPC_OK;
    request->data[0] = '\0';
    request->method = RPC_GET_SERVER_STATE;
    request->kind = RPC_COMMAND;
    request->input = (struct span){NULL, 0};
    request->session = (struct span){NULL, 0};
    request->session_seq = 0;
    request->index = false;
    request->min_index = 0;
    request->max_staleness_ms = UINT64_MAX;
    request->address[0] = '\0';
    request->min_election_timeout_ms = MIN_ELECTION_TIMEOUT_MS_DEFAULT;
    request->max_election_timeout_ms = MAX_ELECTION_TIMEOUT_MS_DEFAULT;
    request->user = false;
}

static void set_data(struct rpc_request *request, int bytes) {
    ASSERT(bytes > 0 && (size_t)bytes < sizeof(request->data));
}

void rpc_refuse(struct rpc_request *request, enum rpc_code code, const char *member,
                const char *expected) {
    request->code = code;
    if (member == NULL) {
        set_data(request, snprintf(request->data, sizeof(request->data),
                                   "{\"expected\":\"%s\"}", expected));
    } else {
        set_data(request,
                 snprintf(request->data, sizeof(request->data),
                          "{\"member\":\"%s\",\"expected\":\"%s\"}", member, expected));
    }
}

static void refuse_text(struct rpc_request *request, struct span line,
                        const struct scanner *scanner) {
    request->code = RPC_PARSE_ERROR;
    set_data(request, snprintf(request->data, sizeof(request->data),
                               "{\"offset\":%zu,\"reason\":\"%s\"}",
                               (size_t)(scanner->at - line.data), scanner->reason));
}

/* The value of the member `key` of the request. Of a member that stands there twice the last
 * one counts, as in Python's json. */
static bool pass_member(struct scanner *scanner, unsigned depth, struct scanner_text key,
                        struct rpc_envelope *envelope) {
    struct span ignored;
    if (scanner_text_equal(key, SPAN("params"))) {
        return rpc_params_pass(scanner, depth, &envelope->params);
    }
    struct span *value = &ignored;
    if (scanner_text_equal(key, SPAN("jsonrpc"))) {
        value = &envelope->jsonrpc;
    } else if (scanner_text_equal(key, SPAN("id"))) {
        value = &envelope->id;
    } else if (scanner_text_equal(key, SPAN("method"))) {
        value = &envelope->method;
    }
    return rpc_pass_value(scanner, depth, value);
}

/* `scanner` stands on the request's `{`, inside `depth` brackets. */
static bool pass_request(struct scanner *scanner, unsigned depth,
                         struct rpc_envelope *envelope) {
    struct scanner_text key;
    enum scanner_step step = scanner_next_member(scanner, true, &key);
    while (step == SCANNER_ITEM) {
        if (!pass_member(scanner, depth + 1, key, envelope)) {
            return false;
        }
        step = scanner_next_member(scanner, false, &key);
    }
    return step == SCANNER_END;
}

/* Absent is a notification, if the rest is a request. False: refused. */
static bool judge_id(struct rpc_request *request, struct span id) {
    if (id.data == NULL) {
        return true;
    }
    if (id.data[0] == '{' || id.data[0] == '[' || id.data[0] == 't' || id.data[0] == 'f') {
        rpc_refuse(request, RPC_INVALID_REQUEST, "id", "a string, a number or null");
        return false;
    }
    if (id.size > ID_BYTES_MAX) {
        request->code = RPC_INVALID_REQUEST;
        set_data(request, snprintf(request->data, sizeof(request->data),
                                   "{\"member\":\"id\",\"expected\":\"at most %u bytes\"}",
                                   ID_BYTES_MAX));
        return false;
    }
    request->id = id;
    return true;
}

static void judge(struct rpc_request *request, struct rpc_envelope *envelope) {
    if (!judge_id(request, envelope->id)) {
        return;
    }
    if (!rpc_text_is(rpc_string_text(envelope->jsonrpc), SPAN("2.0"))) {
        rpc_refuse(request, RPC_INVALID_REQUEST, "jsonrpc", "\\\"2.0\\\"");
        return;
    }
    struct span method = rpc_string_text(envelope->method);
    if (method.data == NULL) {
        rpc_refuse(request, RPC_INVALID_REQUEST, "method", "a string");
        return;
    }
    if (envelope->params.shape == RPC_PARAMS_NEITHER) {
        rpc_refuse(request, RPC_INVALID_REQUEST, "params", "an object or an array");
        return;
    }
    request->notification = envelope->id.data == NULL;
    rpc_method_read(request, method);
    if (request->code == RPC_OK) {
        rpc_params_read(request, &envelope->params);
    }
}

/* One request at `scanner`, whatever kind of value it is. False: not JSON. */
static bool read_request(struct scanner *scanner, unsigned depth, struct rpc_request *request,
                         struct rpc_envelope *envelope) {
    rpc_request_init(request);
    *envelope = (struct rpc_envelope){0};
    if (scanner->at < scanner->end && *scanner->at == '{') {
        return pass_request(scanner, depth, envelope);
    }
    rpc_refuse(request, RPC_INVALID_REQUEST, NULL, "a request object, or an array of them");
    return scanner_value(scanner, depth);
}

static bool at_end(struct scanner *scanner) {
    scanner_space(scanner);
    if (scanner->at < scanner->end) {
        scanner->reason = "something follows the value";
        return false;
    }
    return true;
}

/* `scanner` stands on `[`: validate all of it, and count. */
static enum rpc_shape read_batch(struct scanner *scanner, struct span line,
                                 struct rpc_request *request, struct span *batch) {
    const char *start = scanner->at;
    size_t count = 0;
    enum scanner_step step = scanner_next_element(scanner, true);
    while (step == SCANNER_ITEM && scanner_value(scanner, 1)) {
        count++;
        step = scanner_next_element(scanner, false);
    }
    *batch = (struct span){start, (size_t)(scanner->at - start)};
    rpc_request_init(request);
    if (step != SCANNER_END || !at_end(scanner)) {
        refuse_text(request, line, scanner);
        return RPC_SINGLE;
    }
    if (count == 0) {
        rpc_refuse(request, RPC_INVALID_REQUEST, NULL, "a batch of at least one request");
        return RPC_SINGLE;
    }
    if (count > BATCH_REQUESTS_MAX) {
        request->code = RPC_INVALID_REQUEST;
        set_data(request, snprintf(request->data, sizeof(request->data),
                                   "{\"expected\":\"a batch of at most %u requests\"}",
                                   BATCH_REQUESTS_MAX));
        return RPC_SINGLE;
    }
    return RPC_BATCH;
}

enum rpc_shape rpc_read_envelope(struct span line, struct rpc_envelope *envelope,
                                 struct rpc_request *request, struct span *batch) {
    struct scanner scanner = scanner_of(line);
    scanner_space(&scanner);
    if (scanner.at == scanner.end) {
        return RPC_BLANK;
    }
    if (*scanner.at == '[') {
        return read_batch(&scanner, line, request, batch);
    }
    if (!read_request(&scanner, 0, request, envelope) || !at_end(&scanner)) {
        refuse_text(request, line, &scanner);
    } else if (request->code == RPC_OK) {
        judge(request, envelope);
    }
    return RPC_SINGLE;
}

enum rpc_shape rpc_read(struct span line, struct rpc_request *request, struct span *batch) {
    struct rpc_envelope envelope;
    return rpc_read_envelope(line, &envelope, request, batch);
}

bool rpc_batch_next(struct span batch, size_t *at, struct rpc_request *request) {
    ASSERT(*at <= batch.size && batch.size >= 2);
    struct scanner scanner = scanner_of(batch);
    scanner.at += *at;
    if (scanner_next_element(&scanner, *at == 0) != SCANNER_ITEM) {
        return false;
    }
    struct rpc_envelope envelope;
    bool valid = read_request(&scanner, 1, request, &envelope);
    ASSERT(valid); /* rpc_read has validated the batch */
    *at = (size_t)(scanner.at - batch.data);
    if (request->code == RPC_OK) {
        judge(request, &envelope);
    }
    return true;
}
