/* The methods, their params by name and by position, and what each value must be. It knows
 * nothing of the envelope around them.
 *
 * Invariant: a request leaves here either with every field of its method checked and in range,
 * or with an error that says which member was wrong and what was expected. */
#include <stdio.h>

#include "base/assert.h"
#include "wire/address.h"
#include "wire/rpc_inner.h"
#include "wire/scan.h"

#define ADDR_RAW_BYTES_MAX (6 * ADDRESS_BYTES_MAX) /* every byte of it escaped */

static const struct span PARAM_NAMES[RPC_PARAM_COUNT] = {
    [RPC_PARAM_KIND] = {"kind", 4},
    [RPC_PARAM_INPUT] = {"input", 5},
    [RPC_PARAM_ADDR] = {"addr", 4},
    [RPC_PARAM_MIN_ELECTION_TIMEOUT_MS] = {"min_election_timeout_ms", 23},
    [RPC_PARAM_MAX_ELECTION_TIMEOUT_MS] = {"max_election_timeout_ms", 23},
    [RPC_PARAM_USER] = {"user", 4},
    [RPC_PARAM_SESSION] = {"session", 7},
    [RPC_PARAM_SEQ] = {"seq", 3},
    [RPC_PARAM_INDEX] = {"index", 5},
    [RPC_PARAM_MIN_INDEX] = {"min_index", 9},
    [RPC_PARAM_MAX_STALENESS_MS] = {"max_staleness_ms", 16},
};

struct method {
    struct span name;
    size_t param_count;
    enum rpc_param params[RPC_POSITIONS_MAX]; /* in the order of their positions */
};

static const struct method METHODS[] = {
    [RPC_CREATE_CLUSTER] = {{"CreateCluster", 13},
                            2,
                            {RPC_PARAM_MIN_ELECTION_TIMEOUT_MS,
                             RPC_PARAM_MAX_ELECTION_TIMEOUT_MS}},
    [RPC_ADD_SERVER] = {{"AddServer", 9}, 1, {RPC_PARAM_ADDR}},
    [RPC_REMOVE_SERVER] = {{"RemoveServer", 12}, 1, {RPC_PARAM_ADDR}},
    [RPC_APPLY] = {{"Apply", 5}, 2, {RPC_PARAM_KIND, RPC_PARAM_INPUT}},
    [RPC_TAKE_SNAPSHOT] = {{"TakeSnapshot", 12}, 0, {0}},
    [RPC_GET_SERVER_STATE] = {{"GetServerState", 14}, 1, {RPC_PARAM_USER}},
};
#define METHOD_COUNT (sizeof(METHODS) / sizeof(METHODS[0]))

const char *rpc_method_name(enum rpc_method method) {
    ASSERT((size_t)method < METHOD_COUNT);
    return METHODS[method].name.data;
}

/* --- the method's name -----------------------------------------------------------------------
 */

#define NAME_BYTES_MAX 32 /* of a name compared; what is longer is cut, and still far off */

static char lower(char c) {
    return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

/* How many letters to take out and put in, letter case ignored; row by row. A letter replaced
 * counts as both, so that "Create" is nearer to CreateCluster than to any short name. */
static size_t edit_distance(struct span a, struct span b) {
    size_t row[NAME_BYTES_MAX + 1];
    for (size_t j = 0; j <= b.size; j++) {
        row[j] = j;
    }
    for (size_t i = 1; i <= a.size; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b.size; j++) {
            bool same = lower(a.data[i - 1]) == lower(b.data[j - 1]);
            size_t best = diagonal + (same ? 0 : 2);
            diagonal = row[j];
            best = best <= row[j] ? best : row[j] + 1;
            row[j] = best <= row[j - 1] ? best : row[j - 1] + 1;
        }
    }
    return row[b.size];
}

static enum rpc_method nearest_method(struct span name) {
    char decoded[6 * NAME_BYTES_MAX];
    struct span plain = name;
    if (name.size <= sizeof(decoded)) {
        plain = (struct span){decoded, scanner_decode(name, false, decoded)};
    }
    if (plain.size > NAME_BYTES_MAX) {
        plain.size = NAME_BYTES_MAX;
    }
    size_t nearest = 0;
    size_t least = SIZE_MAX;
    for (size_t i = 0; i < METHOD_COUNT; i++) {
        size_t distance = edit_distance(plain, METHODS[i].name);
        if (distance < least) {
            least = distance;
            nearest = i;
        }
    }
    return (enum rpc_method)nearest;
}

void rpc_method_read(struct rpc_request *request, struct span name) {
    for (size_t i = 0; i < METHOD_COUNT; i++) {
        if (rpc_text_is(name, METHODS[i].name)) {
            request->method = (enum rpc_method)i;
            return;
        }
    }
    request->code = RPC_METHOD_NOT_FOUND;
    snprintf(request->data, sizeof(request->data), "{\"nearest\":\"%s\"}",
             rpc_method_name(nearest_method(name)));
}

/* --- the pass over params --------------------------------------------------------------------
 */

static bool pass_named(struct scanner *scanner, unsigned depth, struct rpc_params *params) {
    struct scanner_text key;
    enum scanner_step step = scanner_next_member(scanner, true, &key);
    while (step == SCANNER_ITEM) {
        struct span ignored;
        struct span *value = &ignored;
        for (size_t i = 0; i < RPC_PARAM_COUNT; i++) {
            if (scanner_text_equal(key, PARAM_NAMES[i])) {
                value = &params->named[i];
                break;
            }
        }
        if (!rpc_pass_value(scanner, depth + 1, value)) {
            return false;
        }
        step = scanner_next_member(scanner, false, &key);
    }
    return step == SCANNER_END;
}

static bool pass_positioned(struct scanner *scanner, unsigned depth,
                            struct rpc_params *params) {
    enum scanner_step step = scanner_next_element(scanner, true);
    while (step == SCANNER_ITEM) {
        struct span ignored;
        bool known = params->count < RPC_POSITIONS_MAX;
        if (!rpc_pass_value(scanner, depth + 1,
                            known ? &params->positioned[params->count] : &ignored)) {
            return false;
        }
        params->count++;
        step = scanner_next_element(scanner, false);
    }
    return step == SCANNER_END;
}

bool rpc_params_pass(struct scanner *scanner, unsigned depth, struct rpc_params *params) {
    *params = (struct rpc_params){.shape = RPC_PARAMS_NEITHER}; /* a second params wins */
    if (scanner->at < scanner->end && *scanner->at == '{') {
        params->shape = RPC_PARAMS_BY_NAME;
        return pass_named(scanner, depth, params);
    }
    if (scanner->at < scanner->end && *scanner->at == '[') {
        params->shape = RPC_PARAMS_BY_POSITION;
        return pass_positioned(scanner, depth, params);
    }
    return scanner_value(scanner, depth);
}

/* --- what the values must be -----------------------------------------------------------------
 */

static void refuse(struct rpc_request *request, enum rpc_param param, const char *expected) {
    rpc_refuse(request, RPC_INVALID_PARAMS, PARAM_NAMES[param].data, expected);
}

static bool read_flag(struct rpc_request *request, const struct span *named,
                      enum rpc_param param, bool *flag) {
    struct span value = named[param];
    *flag = span_equal(value, SPAN("true"));
    if (value.data != NULL && !*flag && !span_equal(value, SPAN("false"))) {
        refuse(request, param, "true or false");
        return false;
    }
    return true;
}

static bool read_number(struct rpc_request *request, const struct span *named,
                        enum rpc_param param, uint64_t least, uint64_t *number) {
    uint64_t value;
    if (named[param].data == NULL || !scan_u64(named[param], NUMBER_MAX, &value) ||
        value < least) {
        char expected[64];
        snprintf(expected, sizeof(expected), "an integer from %llu to %llu",
                 (unsigned long long)least, (unsigned long long)NUMBER_MAX);
        refuse(request, param, expected);
        return false;
    }
    *number = value;
    return true;
}

/* A name has one text however the client escaped it, since members compare the text. */
static bool read_session_name(struct rpc_request *request, struct span raw) {
    char plain[SESSION_TEXT_BYTES_MAX];
    char kept[SESSION_TEXT_BYTES_MAX];
    if (raw.data == NULL || raw.size == 0 || raw.size > sizeof(plain)) {
        return false;
    }
    if (memchr(raw.data, '\\', raw.size) == NULL) {
        request->session = raw;
        return raw.size <= SESSION_BYTES_MAX;
    }
    size_t size = scanner_decode(raw, false, plain);
    if (size > SESSION_BYTES_MAX || scanner_decode(raw, true, kept) != size ||
        memcmp(plain, kept, size) != 0) {
        return false; /* too long, or half a surrogate pair, which is no text */
    }
    struct buffer text;
    buffer_init(&text);
    scan_append_string(&text, (struct span){plain, size});
    size_t inside = buffer_count(&text) - 2;
    ASSERT(inside <= sizeof(request->session_text));
    memcpy(request->session_text, buffer_peek(&text) + 1, inside);
    request->session = (struct span){request->session_text, inside};
    buffer_free(&text);
    return true;
}

static void read_session(struct rpc_request *request, const struct span *named) {
    if (named[RPC_PARAM_SESSION].data == NULL && named[RPC_PARAM_SEQ].data == NULL) {
        return;
    }
    if (!read_session_name(request, rpc_string_text(named[RPC_PARAM_SESSION]))) {
        char expected[64];
        snprintf(expected, sizeof(expected), "a string of 1 to %u bytes", SESSION_BYTES_MAX);
        refuse(request, RPC_PARAM_SESSION, expected);
        return;
    }
    read_number(request, named, RPC_PARAM_SEQ, 1, &request->session_seq);
}

static void read_bounds(struct rpc_request *request, const struct span *named) {
    if (named[RPC_PARAM_MIN_INDEX].data != NULL &&
        !read_number(request, named, RPC_PARAM_MIN_INDEX, 0, &request->min_index)) {
        return;
    }
    if (named[RPC_PARAM_MAX_STALENESS_MS].data != NULL) {
        read_number(request, named, RPC_PARAM_MAX_STALENESS_MS, 0, &request->max_staleness_ms);
    }
}

/* What belongs to another kind is refused: it would be ignored, and the client misled. */
static bool params_fit_kind(struct rpc_request *request, const struct span *named) {
    static const enum rpc_param COMMANDS[] = {RPC_PARAM_SESSION, RPC_PARAM_SEQ};
    static const enum rpc_param QUERIES[] = {RPC_PARAM_MIN_INDEX, RPC_PARAM_MAX_STALENESS_MS};
    bool command = request->kind == RPC_COMMAND;
    for (size_t i = 0; i < 2; i++) {
        enum rpc_param misplaced = command ? QUERIES[i] : COMMANDS[i];
        if (named[misplaced].data != NULL) {
            refuse(request, misplaced,
                   command ? "it with a query only" : "it with a command only");
            return false;
        }
    }
    return true;
}

static void read_apply(struct rpc_request *request, const struct span *named) {
    static const struct span KINDS[] = {
        [RPC_COMMAND] = {"Command", 7},
        [RPC_QUERY] = {"Query", 5},
        [RPC_LOCAL_QUERY] = {"LocalQuery", 10},
    };
    struct span kind = rpc_string_text(named[RPC_PARAM_KIND]);
    size_t i = 0;
    while (i < sizeof(KINDS) / sizeof(KINDS[0]) && !rpc_text_is(kind, KINDS[i])) {
        i++;
    }
    if (i == sizeof(KINDS) / sizeof(KINDS[0])) {
        refuse(request, RPC_PARAM_KIND, "\\\"Command\\\", \\\"Query\\\" or \\\"LocalQuery\\\"");
        return;
    }
    request->kind = (enum rpc_apply_kind)i;
    if (named[RPC_PARAM_INPUT].data == NULL) {
        refuse(request, RPC_PARAM_INPUT, "any JSON value");
        return;
    }
    request->input = named[RPC_PARAM_INPUT];
    if (read_flag(request, named, RPC_PARAM_INDEX, &request->index) &&
        params_fit_kind(request, named) && request->kind == RPC_COMMAND) {
        read_session(request, named);
    } else if (request->code == RPC_OK) {
        read_bounds(request, named);
    }
}

static void read_address(struct rpc_request *request, const struct span *named) {
    char decoded[ADDR_RAW_BYTES_MAX];
    struct span text = rpc_string_text(named[RPC_PARAM_ADDR]);
    if (text.data == NULL || text.size > sizeof(decoded)) {
        refuse(request, RPC_PARAM_ADDR, ADDRESS_EXPECTED);
        return;
    }
    struct span address = {decoded, scanner_decode(text, false, decoded)};
    if (!address_is_valid(address)) {
        refuse(request, RPC_PARAM_ADDR, ADDRESS_EXPECTED);
        return;
    }
    memcpy(request->address, address.data, address.size);
    request->address[address.size] = '\0';
}

static bool read_timeout(struct rpc_request *request, const struct span *named,
                         enum rpc_param param, uint32_t *timeout_ms) {
    uint64_t number;
    if (named[param].data == NULL) {
        return true;
    }
    if (!scan_u64(named[param], ELECTION_TIMEOUT_MS_MOST, &number) ||
        number < ELECTION_TIMEOUT_MS_LEAST) {
        char expected[64];
        snprintf(expected, sizeof(expected), "an integer from %u to %u",
                 ELECTION_TIMEOUT_MS_LEAST, ELECTION_TIMEOUT_MS_MOST);
        refuse(request, param, expected);
        return false;
    }
    *timeout_ms = (uint32_t)number;
    return true;
}

/* Equal bounds would be legal numbers and a bad cluster: without a range to draw from, members
 * that campaign at the same moment do so again and again. */
static void read_timeouts(struct rpc_request *request, const struct span *named) {
    if (read_timeout(request, named, RPC_PARAM_MIN_ELECTION_TIMEOUT_MS,
                     &request->min_election_timeout_ms) &&
        read_timeout(request, named, RPC_PARAM_MAX_ELECTION_TIMEOUT_MS,
                     &request->max_election_timeout_ms) &&
        request->min_election_timeout_ms >= request->max_election_timeout_ms) {
        char expected[96];
        snprintf(expected, sizeof(expected), "more than min_election_timeout_ms, which is %u",
                 (unsigned)request->min_election_timeout_ms);
        refuse(request, RPC_PARAM_MAX_ELECTION_TIMEOUT_MS, expected);
    }
}

/* Give the values by position their names. False: there are too many. */
static bool name_positions(struct rpc_request *request, struct rpc_params *params) {
    const struct method *method = &METHODS[request->method];
    if (params->count > method->param_count) {
        char expected[64];
        snprintf(expected, sizeof(expected), "at most %zu params by position",
                 method->param_count);
        rpc_refuse(request, RPC_INVALID_PARAMS, NULL, expected);
        return false;
    }
    for (size_t i = 0; i < params->count; i++) {
        params->named[method->params[i]] = params->positioned[i];
    }
    return true;
}

void rpc_params_read(struct rpc_request *request, struct rpc_params *params) {
    if (!name_positions(request, params)) {
        return;
    }
    switch (request->method) {
    case RPC_CREATE_CLUSTER:
        read_timeouts(request, params->named);
        break;
    case RPC_ADD_SERVER:
    case RPC_REMOVE_SERVER:
        read_address(request, params->named);
        break;
    case RPC_APPLY:
        read_apply(request, params->named);
        break;
    case RPC_TAKE_SNAPSHOT:
        break;
    case RPC_GET_SERVER_STATE:
        read_flag(request, params->named, RPC_PARAM_USER, &request->user);
        break;
    }
}
