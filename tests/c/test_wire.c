/* Requests and answers: a line in, the line that answers it out. Requests that are right are
 * answered with what was understood of them, as an array: ["Apply","Command",INPUT].
 *
 * Each line is read from a block of exactly its size, so that the sanitizer sees a byte read
 * too many. */
#include <stdint.h>
#include <string.h>

#include "base/random.h"
#include "check.h"
#include "wire/address.h"
#include "wire/rpc.h"
#include "wire/scan.h"

/* --- a server that only repeats what it understood -------------------------------------------
 */

static void describe_options(struct buffer *result, const struct rpc_request *request) {
    if (request->session.size > 0) {
        CHECK(request->session.size <= SESSION_TEXT_BYTES_MAX);
        buffer_append_text(result, ",\"");
        buffer_append_span(result, request->session);
        buffer_append_text(result, "\",");
        buffer_append_u64(result, request->session_seq);
    }
    CHECK((request->session.size > 0) == (request->session_seq > 0));
    if (request->index) {
        buffer_append_text(result, ",\"index\"");
    }
    if (request->min_index > 0) {
        buffer_append_text(result, ",\"from\",");
        buffer_append_u64(result, request->min_index);
    }
    if (request->max_staleness_ms < UINT64_MAX) {
        buffer_append_text(result, ",\"stale\",");
        buffer_append_u64(result, request->max_staleness_ms);
    }
}

static void describe(struct buffer *result, const struct rpc_request *request) {
    static const char *const KINDS[] = {"Command", "Query", "LocalQuery"};
    buffer_append_format(result, "[\"%s\"", rpc_method_name(request->method));
    switch (request->method) {
    case RPC_APPLY:
        buffer_append_format(result, ",\"%s\",", KINDS[request->kind]);
        buffer_append_span(result, request->input);
        describe_options(result, request);
        break;
    case RPC_ADD_SERVER:
    case RPC_REMOVE_SERVER:
        buffer_append_format(result, ",\"%s\"", request->address);
        break;
    case RPC_CREATE_CLUSTER:
        buffer_append_format(result, ",%u,%u", request->min_election_timeout_ms,
                             request->max_election_timeout_ms);
        break;
    case RPC_GET_SERVER_STATE:
        buffer_append_text(result, request->user ? ",true" : ",false");
        break;
    case RPC_TAKE_SNAPSHOT:
        break;
    }
    buffer_append_char(result, ']');
}

static bool is_document(struct span text) {
    struct scan_error error;
    struct span value;
    return scan_document(text, &value, &error);
}

static void answer(struct buffer *out, const struct rpc_request *request, bool in_batch) {
    CHECK(is_document(request->id));
    CHECK(memchr(request->data, '\0', sizeof(request->data)) != NULL);
    CHECK((request->code == RPC_OK) == (request->data[0] == '\0'));
    struct span data = {request->data, strlen(request->data)};
    CHECK(data.size == 0 || is_document(data));
    if (request->notification) {
        return;
    }
    if (in_batch && buffer_count(out) > 1) {
        buffer_append_char(out, ',');
    }
    if (request->code != RPC_OK) {
        rpc_write_error(out, request->id, request->code, data, in_batch);
        return;
    }
    struct buffer result = {0};
    describe(&result, request);
    rpc_write_result(out, request->id, buffer_span(&result), in_batch);
    buffer_free(&result);
}

static void answer_line(struct buffer *out, struct span line) {
    struct rpc_request request;
    struct span batch = {NULL, 0};
    memset(&request, 0xa5, sizeof(request));
    switch (rpc_read(line, &request, &batch)) {
    case RPC_BLANK:
        break;
    case RPC_SINGLE:
        answer(out, &request, false);
        break;
    case RPC_BATCH:
        buffer_append_char(out, '[');
        for (size_t at = 0; rpc_batch_next(batch, &at, &request);) {
            answer(out, &request, true);
        }
        buffer_append_text(out, "]\n");
        if (buffer_count(out) == 3) {
            buffer_clear(out);
        }
        break;
    }
}

static void answer_copy(struct buffer *out, struct span line) {
    char *copy = malloc(line.size > 0 ? line.size : 1);
    CHECK(copy != NULL);
    memcpy(copy, line.data, line.size);
    buffer_clear(out);
    answer_line(out, (struct span){copy, line.size});
    free(copy);
}

/* `expected` has no LF; "" stands for no answer. */
static void check_sized(struct span line, const char *expected) {
    struct buffer out = {0};
    answer_copy(&out, line);
    buffer_append_char(&out, '\0');
    char *text = out.bytes + out.start;
    size_t size = strlen(text);
    CHECK(size == 0 || (text[size - 1] == '\n' && strchr(text, '\n') == text + size - 1));
    text[size > 0 ? size - 1 : 0] = '\0';
    if (strcmp(text, expected) != 0) {
        fprintf(stderr, "request:  %.*s\nanswer:   %s\nexpected: %s\n", (int)line.size,
                line.data, text, expected);
        CHECK(!"the expected answer");
    }
    CHECK(size == 0 || is_document((struct span){text, size - 1}));
    buffer_free(&out);
}

static void check(const char *line, const char *expected) {
    check_sized((struct span){line, strlen(line)}, expected);
}

#define HEAD "{\"jsonrpc\":\"2.0\",\"id\":"
#define ERROR(id, code, message, data)                                                         \
    HEAD id ",\"error\":{\"code\":" code ",\"message\":\"" message "\",\"data\":" data "}}"
#define INVALID(id, data) ERROR(id, "-32600", "Invalid request", data)
#define INVALID_MEMBER(id, member, expected)                                                   \
    INVALID(id, "{\"member\":\"" member "\",\"expected\":\"" expected "\"}")
#define PARAMS(expected) ERROR("1", "-32602", "Invalid params", expected)
#define PARAM(member, expected)                                                                \
    PARAMS("{\"member\":\"" member "\",\"expected\":\"" expected "\"}")
#define PARSE(data) ERROR("null", "-32700", "Parse error", data)
#define NOT_A_REQUEST                                                                          \
    INVALID("null", "{\"expected\":\"a request object, or an array of them\"}")
#define UNKNOWN(id, nearest)                                                                   \
    ERROR(id, "-32601", "Method not found", "{\"nearest\":\"" nearest "\"}")
#define CALL(method, params) HEAD "1,\"method\":\"" method "\",\"params\":" params "}"

/* --- the examples of the JSON-RPC 2.0 specification, section 7 -------------------------------
 */

/* The methods are this server's where the example's would have a result. */
static void test_specification(void) {
    /* Positional and named parameters, in either order. */
    check(
        "{\"jsonrpc\": \"2.0\", \"method\": \"Apply\", \"params\": [\"Query\", 23], \"id\": 1}",
        HEAD "1,\"result\":[\"Apply\",\"Query\",23]}");
    check("{\"jsonrpc\": \"2.0\", \"method\": \"Apply\", \"params\": {\"kind\": \"Query\", "
          "\"input\": 42}, \"id\": 3}",
          HEAD "3,\"result\":[\"Apply\",\"Query\",42]}");
    check("{\"jsonrpc\": \"2.0\", \"method\": \"Apply\", \"params\": {\"input\": 42, "
          "\"kind\": \"Query\"}, \"id\": 4}",
          HEAD "4,\"result\":[\"Apply\",\"Query\",42]}");
    /* Notifications. */
    check("{\"jsonrpc\": \"2.0\", \"method\": \"update\", \"params\": [1,2,3,4,5]}", "");
    check("{\"jsonrpc\": \"2.0\", \"method\": \"foobar\"}", "");
    /* A method that does not exist. */
    check("{\"jsonrpc\": \"2.0\", \"method\": \"foobar\", \"id\": \"1\"}",
          UNKNOWN("\"1\"", "Apply"));
    /* Invalid JSON. */
    check("{\"jsonrpc\": \"2.0\", \"method\": \"foobar, \"params\": \"bar\", \"baz]",
          PARSE("{\"offset\":39,\"reason\":\"a comma or } should stand here\"}"));
    /* An invalid request object. */
    check("{\"jsonrpc\": \"2.0\", \"method\": 1, \"params\": \"bar\"}",
          INVALID_MEMBER("null", "method", "a string"));
    /* A batch that is no JSON. */
    check("[ {\"jsonrpc\": \"2.0\", \"method\": \"sum\", \"params\": [1,2,4], \"id\": \"1\"}, "
          "{\"jsonrpc\": \"2.0\", \"method\" ]",
          PARSE("{\"offset\":97,\"reason\":\"a colon should stand here\"}"));
    /* An empty array, and batches of what is no request. */
    check("[]", INVALID("null", "{\"expected\":\"a batch of at least one request\"}"));
    check("[1]", "[" NOT_A_REQUEST "]");
    check("[1,2,3]", "[" NOT_A_REQUEST "," NOT_A_REQUEST "," NOT_A_REQUEST "]");
    /* A mixed batch. */
    check("[{\"jsonrpc\": \"2.0\", \"method\": \"Apply\", \"params\": [\"Command\",[1,2,4]], "
          "\"id\": \"1\"},"
          "{\"jsonrpc\": \"2.0\", \"method\": \"notify_hello\", \"params\": [7]},"
          "{\"jsonrpc\": \"2.0\", \"method\": \"GetServerState\", \"id\": \"2\"},"
          "{\"foo\": \"boo\"},"
          "{\"jsonrpc\": \"2.0\", \"method\": \"foo.get\", \"params\": {\"name\": \"myself\"}, "
          "\"id\": \"5\"},"
          "{\"jsonrpc\": \"2.0\", \"method\": \"TakeSnapshot\", \"id\": \"9\"}]",
          "[" HEAD "\"1\",\"result\":[\"Apply\",\"Command\",[1,2,4]]}," HEAD
          "\"2\",\"result\":[\"GetServerState\",false]}," INVALID_MEMBER(
              "null", "jsonrpc",
              "\\\"2.0\\\"") "," UNKNOWN("\"5\"", "Apply") "," HEAD "\"9\",\"result\":["
                                                           "\"TakeSnapshot\"]}]");
    /* A batch of notifications alone. */
    check("[{\"jsonrpc\": \"2.0\", \"method\": \"notify_sum\", \"params\": [1,2,4]},"
          "{\"jsonrpc\": \"2.0\", \"method\": \"notify_hello\", \"params\": [7]}]",
          "");
}

/* --- the envelope ----------------------------------------------------------------------------
 */

static void check_id(const char *id) {
    char line[ID_BYTES_MAX + 200];
    char expected[ID_BYTES_MAX + 200];
    snprintf(line, sizeof(line), "{\"id\":%s,\"method\":\"TakeSnapshot\",\"jsonrpc\":\"2.0\"}",
             id);
    snprintf(expected, sizeof(expected), HEAD "%s,\"result\":[\"TakeSnapshot\"]}", id);
    check(line, expected);
}

static void test_ids(void) {
    static const char *const IDS[] = {"0",
                                      "-0",
                                      "1",
                                      "null",
                                      "1e400",
                                      "1.50",
                                      "123456789012345678901234567890",
                                      "\"\"",
                                      "\"a\"",
                                      "\"\\u0061\\n\\\"\"",
                                      "\"\xc3\xa9\"",
                                      "\"\\ud800\"",
                                      "-1E-2"};
    for (size_t i = 0; i < sizeof(IDS) / sizeof(IDS[0]); i++) {
        check_id(IDS[i]);
    }
    static const char *const NO_IDS[] = {"{}", "[]", "[1]", "true", "false", "{\"id\":1}"};
    for (size_t i = 0; i < sizeof(NO_IDS) / sizeof(NO_IDS[0]); i++) {
        char line[200];
        snprintf(line, sizeof(line), HEAD "%s,\"method\":\"TakeSnapshot\"}", NO_IDS[i]);
        check(line, INVALID_MEMBER("null", "id", "a string, a number or null"));
    }
    char id[ID_BYTES_MAX + 2];
    memset(id, 'x', sizeof(id));
    id[0] = id[ID_BYTES_MAX - 1] = '"';
    id[ID_BYTES_MAX] = '\0';
    check_id(id);
    char line[ID_BYTES_MAX + 200];
    id[ID_BYTES_MAX - 1] = 'x';
    id[ID_BYTES_MAX] = '"';
    snprintf(line, sizeof(line), HEAD "%.*s,\"method\":\"TakeSnapshot\"}",
             (int)ID_BYTES_MAX + 1, id);
    check(line, INVALID_MEMBER("null", "id", "at most 4096 bytes"));
}

static void test_envelope(void) {
    check("", "");
    check(" \t\r\n ", "");
    check(" \r{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"TakeSnapshot\"} \r",
          HEAD "1,\"result\":[\"TakeSnapshot\"]}");
    /* No request at all. */
    check("1", NOT_A_REQUEST);
    check("\"x\"", NOT_A_REQUEST);
    check("null", NOT_A_REQUEST);
    check("{}", INVALID_MEMBER("null", "jsonrpc", "\\\"2.0\\\""));
    check("[[]]", "[" NOT_A_REQUEST "]");
    /* The version. */
    check("{\"id\":1,\"method\":\"Apply\"}", INVALID_MEMBER("1", "jsonrpc", "\\\"2.0\\\""));
    check("{\"jsonrpc\":2.0,\"id\":1,\"method\":\"Apply\"}",
          INVALID_MEMBER("1", "jsonrpc", "\\\"2.0\\\""));
    check("{\"jsonrpc\":\"1.0\",\"id\":1,\"method\":\"Apply\"}",
          INVALID_MEMBER("1", "jsonrpc", "\\\"2.0\\\""));
    check("{\"jsonrpc\":\"2.0 \",\"id\":1,\"method\":\"Apply\"}",
          INVALID_MEMBER("1", "jsonrpc", "\\\"2.0\\\""));
    check("{\"\\u006asonrpc\":\"\\u0032.0\",\"\\u0069d\":1,\"metho\\u0064\":"
          "\"\\u0054akeSnapshot\"}",
          HEAD "1,\"result\":[\"TakeSnapshot\"]}");
    /* The method. */
    check(HEAD "1}", INVALID_MEMBER("1", "method", "a string"));
    check(HEAD "1,\"method\":null}", INVALID_MEMBER("1", "method", "a string"));
    check(HEAD "1,\"method\":\"apply\"}", UNKNOWN("1", "Apply"));
    check(HEAD "1,\"method\":\"Aply\"}", UNKNOWN("1", "Apply"));
    check(HEAD "1,\"method\":\"AddSever\"}", UNKNOWN("1", "AddServer"));
    check(HEAD "1,\"method\":\"get_server_state\"}", UNKNOWN("1", "GetServerState"));
    check(HEAD "1,\"method\":\"\\u0052emoveServers\"}", UNKNOWN("1", "RemoveServer"));
    check(HEAD "1,\"method\":\"Snapshot\"}", UNKNOWN("1", "TakeSnapshot"));
    check(HEAD "1,\"method\":\"Create\"}", UNKNOWN("1", "CreateCluster"));
    check(HEAD "1,\"method\":\"\"}", UNKNOWN("1", "Apply"));
    check(HEAD "1,\"method\":\"Apply\\u0000\"}", UNKNOWN("1", "Apply"));
    /* Params of another kind make no request. */
    check(CALL("TakeSnapshot", "null"), INVALID_MEMBER("1", "params", "an object or an array"));
    check(CALL("TakeSnapshot", "\"x\""),
          INVALID_MEMBER("1", "params", "an object or an array"));
    check(CALL("Nonsense", "7"), INVALID_MEMBER("1", "params", "an object or an array"));
    /* Of what stands there twice, the last counts; unknown members are ignored. */
    check("{\"id\":1,\"id\":\"b\",\"jsonrpc\":\"1\",\"jsonrpc\":\"2.0\",\"method\":4,"
          "\"method\":\"Apply\",\"params\":{\"kind\":\"Query\",\"input\":1},\"x\":[{}],"
          "\"params\":{\"input\":1,\"kind\":\"Query\",\"input\":2,\"x\":null}}",
          HEAD "\"b\",\"result\":[\"Apply\",\"Query\",2]}");
    check("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"Apply\",\"params\":[\"Query\",1],"
          "\"params\":{\"input\":2}}",
          PARAM("kind", "\\\"Command\\\", \\\"Query\\\" or \\\"LocalQuery\\\""));
    check("{\"id\":1,\"jsonrpc\":\"2.0\",\"id\":[],\"method\":\"Apply\"}",
          INVALID_MEMBER("null", "id", "a string, a number or null"));
    /* A notification is not answered, however wrong its method and params are; but what is no
     * request is no notification either. */
    check("{\"jsonrpc\":\"2.0\",\"method\":\"Apply\",\"params\":{}}", "");
    check("{\"jsonrpc\":\"2.0\",\"method\":\"TakeSnapshot\"}", "");
    check("{\"jsonrpc\":\"2.0\",\"method\":\"TakeSnapshot\",\"params\":3}",
          INVALID_MEMBER("null", "params", "an object or an array"));
    check("{\"method\":\"TakeSnapshot\"}", INVALID_MEMBER("null", "jsonrpc", "\\\"2.0\\\""));
}

static void test_parse_errors(void) {
    check("{", PARSE("{\"offset\":1,\"reason\":\"the text ends inside an object\"}"));
    check("{\"a\":1} x", PARSE("{\"offset\":8,\"reason\":\"something follows the value\"}"));
    check("[] []", PARSE("{\"offset\":3,\"reason\":\"something follows the value\"}"));
    check("[{\"jsonrpc\":\"2.0\"},",
          PARSE("{\"offset\":19,\"reason\":\"the text ends where a value should begin\"}"));
    check("hello", PARSE("{\"offset\":0,\"reason\":\"a value should begin here\"}"));
    check("\xef\xbb\xbf{}", PARSE("{\"offset\":0,\"reason\":\"a value should begin here\"}"));
    check(CALL("Apply", "{\"input\":\"\xff\"}"),
          PARSE("{\"offset\":60,\"reason\":\"invalid UTF-8\"}"));
    check(
        CALL("Apply", "{\"input\":\"\\u12\"}"),
        PARSE("{\"offset\":64,\"reason\":\"an escape without its four hexadecimal digits\"}"));
    check_sized(SPAN("{\"a\":\"\0\"}"),
                PARSE("{\"offset\":6,\"reason\":\"raw control character in a string\"}"));
    check_sized(SPAN("{}\0"),
                PARSE("{\"offset\":2,\"reason\":\"something follows the value\"}"));
    check("[01]", PARSE("{\"offset\":2,\"reason\":\"a number begins with a needless zero\"}"));
    check("[\x01]", PARSE("{\"offset\":1,\"reason\":\"a value should begin here\"}"));
    /* A request that came before the fault does not count. */
    check(CALL("TakeSnapshot", "{}") ",",
          PARSE("{\"offset\":60,\"reason\":\"something follows the value\"}"));
}

/* The levels are counted over the whole line: the request's object and params are two of them,
 * a batch's array one more. */
static void test_depth(void) {
    for (int batch = 0; batch < 2; batch++) {
        for (unsigned extra = 0; extra < 2; extra++) {
            char line[1000] = "";
            unsigned depth = JSON_DEPTH_MAX - 2 - (unsigned)batch + extra;
            char brackets[2 * JSON_DEPTH_MAX + 3];
            memset(brackets, '[', depth);
            memset(brackets + depth, ']', depth);
            brackets[2 * depth] = '\0';
            snprintf(line, sizeof(line),
                     "%s" HEAD "1,\"method\":\"Apply\",\"params\":"
                     "{\"kind\":\"Query\",\"input\":%s}}%s",
                     batch != 0 ? "[" : "", brackets, batch != 0 ? "]" : "");
            struct buffer out = {0};
            answer_copy(&out, (struct span){line, strlen(line)});
            buffer_append_char(&out, '\0');
            CHECK((strstr(buffer_peek(&out), "-32700") != NULL) == (extra == 1));
            CHECK((strstr(buffer_peek(&out), "limit of 128") != NULL) == (extra == 1));
            buffer_free(&out);
        }
    }
}

static void test_batch_limit(void) {
    for (unsigned extra = 0; extra < 2; extra++) {
        struct buffer line = {0};
        for (unsigned i = 0; i < BATCH_REQUESTS_MAX + extra; i++) {
            buffer_append_char(&line, i == 0 ? '[' : ',');
            buffer_append_text(&line, CALL("TakeSnapshot", "[]"));
        }
        buffer_append_char(&line, ']');
        struct rpc_request request;
        struct span batch;
        enum rpc_shape shape = rpc_read(buffer_span(&line), &request, &batch);
        CHECK(shape == (extra == 0 ? RPC_BATCH : RPC_SINGLE));
        if (extra == 0) {
            size_t count = 0;
            for (size_t at = 0; rpc_batch_next(batch, &at, &request); count++) {
                CHECK(request.code == RPC_OK && request.method == RPC_TAKE_SNAPSHOT);
            }
            CHECK(count == BATCH_REQUESTS_MAX);
        } else {
            CHECK(request.code == RPC_INVALID_REQUEST && !request.notification);
            CHECK(strcmp(request.data, "{\"expected\":\"a batch of at most 1000 requests\"}") ==
                  0);
        }
        buffer_free(&line);
    }
}

/* --- params ----------------------------------------------------------------------------------
 */

#define KIND_EXPECTED "\\\"Command\\\", \\\"Query\\\" or \\\"LocalQuery\\\""

static void test_apply(void) {
    check(CALL("Apply",
               "{\"input\":{\"Put\":{\"key\":\"foo\",\"value\":1}}, \"kind\":\"Command\"}"),
          HEAD "1,\"result\":[\"Apply\",\"Command\",{\"Put\":{\"key\":\"foo\",\"value\":1}}]}");
    check(CALL("Apply", "[\"LocalQuery\", \"List\"]"),
          HEAD "1,\"result\":[\"Apply\",\"LocalQuery\",\"List\"]}");
    check(CALL("Apply", "{\"kind\":\"\\u0051uery\",\"inpu\\u0074\":0.1}"),
          HEAD "1,\"result\":[\"Apply\",\"Query\",0.1]}");
    /* The input as it stands, without the spaces around it; null is a value. */
    check(CALL("Apply", "{\"kind\":\"Query\",\"input\": \t{ \"a\" : 1.50e3 , \"a\" : [ ] }  }"),
          HEAD "1,\"result\":[\"Apply\",\"Query\",{ \"a\" : 1.50e3 , \"a\" : [ ] }]}");
    check(CALL("Apply", "{\"kind\":\"Query\",\"input\":null}"),
          HEAD "1,\"result\":[\"Apply\",\"Query\",null]}");
    check(HEAD "1,\"method\":\"Apply\"}", PARAM("kind", KIND_EXPECTED));
    check(CALL("Apply", "{}"), PARAM("kind", KIND_EXPECTED));
    check(CALL("Apply", "[]"), PARAM("kind", KIND_EXPECTED));
    check(CALL("Apply", "{\"kind\":\"command\",\"input\":1}"), PARAM("kind", KIND_EXPECTED));
    check(CALL("Apply", "{\"kind\":1,\"input\":1}"), PARAM("kind", KIND_EXPECTED));
    check(CALL("Apply", "{\"kind\":\"\",\"input\":1}"), PARAM("kind", KIND_EXPECTED));
    check(CALL("Apply", "{\"kind\":\"Query\"}"), PARAM("input", "any JSON value"));
    check(CALL("Apply", "[\"Query\"]"), PARAM("input", "any JSON value"));
    check(CALL("Apply", "[\"Query\",1,2]"),
          PARAMS("{\"expected\":\"at most 2 params by position\"}"));
}

#define COMMAND(options) CALL("Apply", "{\"kind\":\"Command\",\"input\":1," options "}")
#define QUERY(options) CALL("Apply", "{\"kind\":\"LocalQuery\",\"input\":1," options "}")
#define COMMANDED(options) HEAD "1,\"result\":[\"Apply\",\"Command\",1" options "]}"
#define QUERIED(options) HEAD "1,\"result\":[\"Apply\",\"LocalQuery\",1" options "]}"
#define SESSION_EXPECTED "a string of 1 to 128 bytes"
#define SEQ_EXPECTED "an integer from 1 to 9007199254740991"
#define INDEX_EXPECTED "an integer from 0 to 9007199254740991"
#define REPEAT_16(text)                                                                        \
    text text text text text text text text text text text text text text text text
#define TEXT_128 REPEAT_16("12345678")

static void test_apply_session(void) {
    check(COMMAND("\"session\":\"a\",\"seq\":1"), COMMANDED(",\"a\",1"));
    check(COMMAND("\"seq\":9007199254740991,\"session\":\"\\u0061 \\\"\\n\\/\\u00e9\""),
          COMMANDED(",\"a \\\"\\n/\xc3\xa9\",9007199254740991"));
    check(COMMAND("\"session\":\"\\ud83d\\ude00\",\"seq\":2"),
          COMMANDED(",\"\xf0\x9f\x98\x80\",2"));
    check(COMMAND("\"session\":\"\\u0000\",\"seq\":2"), COMMANDED(",\"\\u0000\",2"));
    check(COMMAND("\"session\":\"" TEXT_128 "\",\"seq\":2"), COMMANDED(",\"" TEXT_128 "\",2"));
    check(COMMAND("\"session\":\"" TEXT_128 "9\",\"seq\":2"),
          PARAM("session", SESSION_EXPECTED));
    check(COMMAND("\"session\":\"\\n" TEXT_128 "\",\"seq\":2"),
          PARAM("session", SESSION_EXPECTED));
    check(COMMAND("\"session\":\"" TEXT_128 TEXT_128 TEXT_128 TEXT_128 TEXT_128 TEXT_128
                  "9\",\"seq\":2"),
          PARAM("session", SESSION_EXPECTED));
    check(COMMAND("\"session\":\"\",\"seq\":2"), PARAM("session", SESSION_EXPECTED));
    check(COMMAND("\"session\":7,\"seq\":2"), PARAM("session", SESSION_EXPECTED));
    check(COMMAND("\"seq\":2"), PARAM("session", SESSION_EXPECTED));
    /* Half a pair is no text: two of them would be one name. */
    check(COMMAND("\"session\":\"\\ud800\",\"seq\":2"), PARAM("session", SESSION_EXPECTED));
    check(COMMAND("\"session\":\"a\""), PARAM("seq", SEQ_EXPECTED));
    check(COMMAND("\"session\":\"a\",\"seq\":0"), PARAM("seq", SEQ_EXPECTED));
    check(COMMAND("\"session\":\"a\",\"seq\":-1"), PARAM("seq", SEQ_EXPECTED));
    check(COMMAND("\"session\":\"a\",\"seq\":1.0"), PARAM("seq", SEQ_EXPECTED));
    check(COMMAND("\"session\":\"a\",\"seq\":9007199254740992"), PARAM("seq", SEQ_EXPECTED));
    check(QUERY("\"session\":\"a\",\"seq\":1"), PARAM("session", "it with a command only"));
    check(QUERY("\"seq\":1"), PARAM("seq", "it with a command only"));
}

static void test_apply_index(void) {
    check(COMMAND("\"index\":true"), COMMANDED(",\"index\""));
    check(COMMAND("\"index\":false"), COMMANDED(""));
    check(COMMAND("\"index\":1"), PARAM("index", "true or false"));
    check(QUERY("\"index\":true"), QUERIED(",\"index\""));
    check(QUERY("\"min_index\":7,\"max_staleness_ms\":0"), QUERIED(",\"from\",7,\"stale\",0"));
    check(QUERY("\"min_index\":0"), QUERIED(""));
    check(QUERY("\"min_index\":\"7\""), PARAM("min_index", INDEX_EXPECTED));
    check(QUERY("\"max_staleness_ms\":1.5"), PARAM("max_staleness_ms", INDEX_EXPECTED));
    check(COMMAND("\"min_index\":7"), PARAM("min_index", "it with a query only"));
    check(COMMAND("\"max_staleness_ms\":7"), PARAM("max_staleness_ms", "it with a query only"));
}

static void test_admin(void) {
    check(HEAD "1,\"method\":\"CreateCluster\"}",
          HEAD "1,\"result\":[\"CreateCluster\",300,2000]}");
    check(CALL("CreateCluster", "{}"), HEAD "1,\"result\":[\"CreateCluster\",300,2000]}");
    check(CALL("CreateCluster", "[]"), HEAD "1,\"result\":[\"CreateCluster\",300,2000]}");
    check(CALL("CreateCluster", "[100]"), HEAD "1,\"result\":[\"CreateCluster\",100,2000]}");
    check(CALL("CreateCluster", "[10,600000]"),
          HEAD "1,\"result\":[\"CreateCluster\",10,600000]}");
    check(CALL("CreateCluster",
               "{\"max_election_timeout_ms\":500,\"min_election_timeout_ms\":50}"),
          HEAD "1,\"result\":[\"CreateCluster\",50,500]}");
    check(CALL("CreateCluster", "[9]"),
          PARAM("min_election_timeout_ms", "an integer from 10 to 600000"));
    check(CALL("CreateCluster", "[10,600001]"),
          PARAM("max_election_timeout_ms", "an integer from 10 to 600000"));
    check(CALL("CreateCluster", "[300.0]"),
          PARAM("min_election_timeout_ms", "an integer from 10 to 600000"));
    check(CALL("CreateCluster", "{\"max_election_timeout_ms\":\"500\"}"),
          PARAM("max_election_timeout_ms", "an integer from 10 to 600000"));
    check(CALL("CreateCluster", "[99999999999999999999999,1]"),
          PARAM("min_election_timeout_ms", "an integer from 10 to 600000"));
    check(CALL("CreateCluster", "[2000]"),
          PARAM("max_election_timeout_ms", "more than min_election_timeout_ms, which is 2000"));

    check(CALL("AddServer", "{\"addr\":\"127.0.0.1:4001\"}"),
          HEAD "1,\"result\":[\"AddServer\",\"127.0.0.1:4001\"]}");
    check(CALL("RemoveServer", "[\"[\\u003a:1]:4001\"]"),
          HEAD "1,\"result\":[\"RemoveServer\",\"[::1]:4001\"]}");
    check(CALL("AddServer", "{}"), PARAM("addr", ADDRESS_EXPECTED));
    check(CALL("AddServer", "{\"addr\":4001}"), PARAM("addr", ADDRESS_EXPECTED));
    check(CALL("RemoveServer", "{\"addr\":\":4001\"}"), PARAM("addr", ADDRESS_EXPECTED));
    check(CALL("AddServer", "[\"a:1\",2]"),
          PARAMS("{\"expected\":\"at most 1 params by position\"}"));

    check(CALL("TakeSnapshot", "{}"), HEAD "1,\"result\":[\"TakeSnapshot\"]}");
    check(CALL("TakeSnapshot", "[1]"),
          PARAMS("{\"expected\":\"at most 0 params by position\"}"));
    check(HEAD "1,\"method\":\"GetServerState\"}",
          HEAD "1,\"result\":[\"GetServerState\",false]}");
    check(CALL("GetServerState", "{\"user\":true}"),
          HEAD "1,\"result\":[\"GetServerState\",true]}");
    check(CALL("GetServerState", "[false]"), HEAD "1,\"result\":[\"GetServerState\",false]}");
    check(CALL("GetServerState", "{\"user\":1}"), PARAM("user", "true or false"));
    check(CALL("GetServerState", "{\"user\":null}"), PARAM("user", "true or false"));
}

/* Far too long, plain and escaped. */
static void test_long_address(void) {
    struct buffer line = {0};
    for (int escaped = 0; escaped < 2; escaped++) {
        buffer_clear(&line);
        buffer_append_text(&line, HEAD "1,\"method\":\"AddServer\",\"params\":[\"");
        for (int i = 0; i < 3000; i++) {
            buffer_append_text(&line, escaped != 0 ? "\\u0061" : "a");
        }
        buffer_append_text(&line, ":4000\"]}");
        check_sized(buffer_span(&line), PARAM("addr", ADDRESS_EXPECTED));
    }
    buffer_free(&line);
}

/* --- answers ---------------------------------------------------------------------------------
 */

static void test_error_table(void) {
    static const struct {
        enum rpc_code code;
        int number;
        const char *message;
    } TABLE[] = {{RPC_PARSE_ERROR, -32700, "Parse error"},
                 {RPC_INVALID_REQUEST, -32600, "Invalid request"},
                 {RPC_METHOD_NOT_FOUND, -32601, "Method not found"},
                 {RPC_INVALID_PARAMS, -32602, "Invalid params"},
                 {RPC_INTERNAL_ERROR, -32603, "Internal error"},
                 {RPC_CLUSTER_EXISTS, 100, "Cluster already created"},
                 {RPC_ALREADY_ADDED, 101, "Server already added"},
                 {RPC_NOT_MEMBER, 102, "Not a cluster member"},
                 {RPC_INVALID_INPUT, 103, "Invalid machine input"},
                 {RPC_INVALID_OUTPUT, 104, "Invalid machine output"},
                 {RPC_NO_OUTPUT, 105, "No machine output"},
                 {RPC_LEADER_CHANGE, 106, "Request rejected due to leader change"},
                 {RPC_UNKNOWN_RESULT, 107,
                  "Request result unknown (it could either be accepted or rejected)"},
                 {RPC_NO_LEADER, 108, "No leader in the cluster or not known by the server"},
                 {RPC_MACHINE_ERROR, 109, "Machine error"},
                 {RPC_OVERLOADED, 110, "Overloaded"},
                 {RPC_UNREACHABLE, 111, "Server unreachable"},
                 {RPC_STORAGE_FAILURE, 112, "Storage failure"}};
    for (size_t i = 0; i < sizeof(TABLE) / sizeof(TABLE[0]); i++) {
        char expected[300];
        struct buffer out = {0};
        rpc_write_error(&out, SPAN("\"x\""), TABLE[i].code, SPAN("{\"a\":1}"), false);
        rpc_write_error(&out, SPAN("null"), TABLE[i].code, SPAN(""), true);
        snprintf(expected, sizeof(expected),
                 HEAD
                 "\"x\",\"error\":{\"code\":%d,\"message\":\"%s\",\"data\":{\"a\":1}}}\n" HEAD
                 "null,\"error\":{\"code\":%d,\"message\":\"%s\"}}",
                 TABLE[i].number, TABLE[i].message, TABLE[i].number, TABLE[i].message);
        CHECK(span_equal(buffer_span(&out), (struct span){expected, strlen(expected)}));
        CHECK(strcmp(rpc_message(TABLE[i].code), TABLE[i].message) == 0);
        buffer_free(&out);
    }
}

static void test_results(void) {
    struct buffer out = {0};
    rpc_write_result(&out, SPAN("7"), SPAN("{\"members\":[\"127.0.0.1:4000\"]}"), false);
    rpc_write_result(&out, SPAN("\"a\""), SPAN("null"), true);
    struct span expected = SPAN(HEAD "7,\"result\":{\"members\":[\"127.0.0.1:4000\"]}}\n" HEAD
                                     "\"a\",\"result\":null}");
    CHECK(span_equal(buffer_span(&out), expected));
    buffer_free(&out);
}

/* --- spoiled lines ---------------------------------------------------------------------------
 */

static const char *const LINES[] = {
    CALL("Apply", "{\"kind\":\"Command\",\"input\":{\"Put\":[\"key\",-1.5e+10]}}"),
    CALL("AddServer", "{\"addr\":\"127.0.0.1:4001\",\"x\":\"\\u00e9\xc3\xa9\\ud83d\\ude00\"}"),
    "[" CALL("Apply",
             "[\"Query\",[null,true]]") ",{\"jsonrpc\":\"2.0\",\"method\":\"x\"},1, {} ]",
    CALL("CreateCluster", "[300, 2000]")};
#define LINE_COUNT (sizeof(LINES) / sizeof(LINES[0]))

/* No cut of a request is a request. */
static void test_every_cut(void) {
    struct buffer out = {0};
    for (size_t i = 0; i < LINE_COUNT; i++) {
        for (size_t cut = 1; cut < strlen(LINES[i]); cut++) {
            answer_copy(&out, (struct span){LINES[i], cut});
            struct span begin = SPAN(HEAD "null,\"error\":{\"code\":-32700,");
            CHECK(buffer_count(&out) > begin.size);
            CHECK(memcmp(buffer_peek(&out), begin.data, begin.size) == 0);
        }
    }
    buffer_free(&out);
}

/* Whatever came, the answer is nothing or one line of JSON (answer() checks id and data). */
static void test_spoiled(void) {
    static const char BYTES[] = "{}[]\",:\\0129-.eEu \0\x01\x80\xff";
    struct random random;
    struct buffer out = {0};
    random_seed(&random, 5);
    for (int turn = 0; turn < 100000; turn++) {
        char line[400];
        const char *source = LINES[random_between(&random, 0, LINE_COUNT - 1)];
        size_t size = strlen(source);
        memcpy(line, source, size);
        for (uint64_t changes = random_between(&random, 1, 3); changes > 0; changes--) {
            size_t at = (size_t)random_between(&random, 0, size - 1);
            line[at] = BYTES[random_between(&random, 0, sizeof(BYTES) - 2)];
        }
        answer_copy(&out, (struct span){line, size});
        size_t count = buffer_count(&out);
        CHECK(count == 0 || is_document(buffer_span(&out)));
        CHECK(count == 0 ||
              memchr(buffer_peek(&out), '\n', count) == buffer_peek(&out) + count - 1);
    }
    buffer_free(&out);
}

int main(void) {
    test_specification();
    test_ids();
    test_envelope();
    test_parse_errors();
    test_depth();
    test_batch_limit();
    test_apply();
    test_apply_session();
    test_apply_index();
    test_admin();
    test_long_address();
    test_error_table();
    test_results();
    test_every_cut();
    test_spoiled();
    puts("ok");
    return 0;
}
