/* Requests by their form: whatever the line and whatever came before it, rpc_forms_read comes
 * to what rpc_read comes to.
 *
 * Each line is read from a block of exactly its size, so that the sanitizer sees a byte read
 * too many. */
#include <stdio.h>
#include <string.h>

#include "base/random.h"
#include "check.h"
#include "same_request.h"
#include "wire/rpc_form.h"

/* Read a line both ways. Returns whether a form was found for it. */
static bool check_line(struct rpc_forms *forms, struct span line) {
    struct rpc_request plain, formed;
    struct span plain_batch = {NULL, 0}, formed_batch = {NULL, 0};
    char *copy = malloc(line.size > 0 ? line.size : 1);
    CHECK(copy != NULL);
    memcpy(copy, line.data, line.size);
    struct span text = {copy, line.size};
    memset(&plain, 0xa5, sizeof(plain));
    memset(&formed, 0x5a, sizeof(formed));
    uint32_t dice = forms->dice;
    enum rpc_shape shape = rpc_read(text, &plain, &plain_batch);
    enum rpc_shape formed_shape = rpc_forms_read(forms, text, &formed, &formed_batch);
    bool good = shape == formed_shape && (shape != RPC_SINGLE || same_request(&plain, &formed));
    if (!good) {
        fprintf(stderr, "read differently: %.*s\n", (int)line.size, line.data);
    }
    CHECK(good);
    CHECK(same_text(plain_batch, formed_batch));
    bool apply = shape == RPC_SINGLE && plain.code == RPC_OK && plain.method == RPC_APPLY;
    free(copy);
    return apply && line.size <= RPC_FORM_LINE_BYTES_MAX && forms->dice == dice;
}

static bool check_text(struct rpc_forms *forms, const char *line) {
    return check_line(forms, (struct span){line, strlen(line)});
}

/* --- which lines have the form of another ----------------------------------------------------
 */

#define APPLY(id, params)                                                                      \
    "{\"jsonrpc\":\"2.0\",\"id\":" id ",\"method\":\"Apply\",\"params\":" params "}"

static const struct {
    const char *first, *second;
    bool same_form;
} PAIRS[] = {
    {APPLY("1", "{\"kind\":\"Command\",\"input\":1}"),
     APPLY("\"x\"", "{\"kind\":\"Command\",\"input\":{\"a\":[1,2,{}]}}"), true},
    {APPLY("1", "[\"Query\",null]"), APPLY("-2.5e3", "[\"Query\",[[]]]"), true},
    {" { \"id\" : 1 , \"method\":\"Apply\",\"jsonrpc\":\"2.0\",\"params\" : [\"Query\", 1 ] } ",
     " { \"id\" : 2 , \"method\":\"Apply\",\"jsonrpc\":\"2.0\",\"params\" : [\"Query\", 3 ] } ",
     true},
    /* an input before the id, and keys that stand there twice */
    {"{\"params\":{\"input\":1,\"kind\":\"Query\"},\"id\":5,\"id\":6,\"jsonrpc\":\"2.0\","
     "\"method\":\"Apply\"}",
     "{\"params\":{\"input\":2,\"kind\":\"Query\"},\"id\":5,\"id\":7,\"jsonrpc\":\"2.0\","
     "\"method\":\"Apply\"}",
     true},
    {"{\"params\":{\"input\":1,\"kind\":\"Query\"},\"id\":5,\"id\":6,\"jsonrpc\":\"2.0\","
     "\"method\":\"Apply\"}",
     "{\"params\":{\"input\":2,\"kind\":\"Query\"},\"id\":6,\"id\":7,\"jsonrpc\":\"2.0\","
     "\"method\":\"Apply\"}",
     false},
    /* a notification; every option */
    {"{\"jsonrpc\":\"2.0\",\"method\":\"Apply\",\"params\":[\"Command\",1]}",
     "{\"jsonrpc\":\"2.0\",\"method\":\"Apply\",\"params\":[\"Command\",22]}", true},
    {APPLY("1",
           "{\"kind\":\"Command\",\"input\":1,\"session\":\"a\",\"seq\":1,\"index\":true}"),
     APPLY("2",
           "{\"kind\":\"Command\",\"input\":2,\"session\":\"bc\",\"seq\":77,\"index\":true}"),
     true},
    {APPLY("1", "{\"kind\":\"Query\",\"input\":1,\"min_index\":4}"),
     APPLY("2", "{\"kind\":\"Query\",\"input\":2,\"min_index\":0}"), true},
    {APPLY("1", "{\"kind\":\"LocalQuery\",\"input\":1,\"max_staleness_ms\":4}"),
     APPLY("2", "{\"kind\":\"LocalQuery\",\"input\":2,\"max_staleness_ms\":4}"), true},
    {APPLY("1", "{\"kind\":\"LocalQuery\",\"input\":1,\"max_staleness_ms\":4}"),
     APPLY("2", "{\"kind\":\"LocalQuery\",\"input\":2,\"max_staleness_ms\":5}"), false},
    /* another text, which means the same or does not */
    {APPLY("1", "[\"Query\",1]"), APPLY("1", "[\"Command\",1]"), false},
    {APPLY("1", "[\"Query\",1]"), APPLY("1", "[\"Query\",1 ]"), false},
    {APPLY("1", "[\"Query\",1]"), APPLY("1", "[\"Query\",1]") " ", false},
    {APPLY("1", "[\"Query\",1]"), " " APPLY("1", "[\"Query\",1]"), false},
    /* values that would be refused, or that are no value */
    {APPLY("1", "[\"Query\",1]"), APPLY("{}", "[\"Query\",1]"), false},
    {APPLY("1", "[\"Query\",1]"), APPLY("null", "[\"Query\",1]"), false},
    {APPLY("1", "[\"Query\",1]"), APPLY("01", "[\"Query\",1]"), false},
    {APPLY("1", "[\"Query\",1]"), APPLY("1", "[\"Query\",]"), false},
    {APPLY("1", "[\"Query\",1]"), APPLY("1", "[\"Query\",1,2]"), false},
    {APPLY("1", "{\"kind\":\"Command\",\"input\":1,\"session\":\"a\",\"seq\":1}"),
     APPLY("1", "{\"kind\":\"Command\",\"input\":1,\"session\":\"a\",\"seq\":0}"), false},
    {APPLY("1", "{\"kind\":\"Command\",\"input\":1,\"session\":\"a\",\"seq\":1}"),
     APPLY("1", "{\"kind\":\"Command\",\"input\":1,\"session\":\"\",\"seq\":1}"), false},
    {APPLY("1", "{\"kind\":\"Command\",\"input\":1,\"session\":\"a\",\"seq\":1}"),
     APPLY("1", "{\"kind\":\"Command\",\"input\":1,\"session\":\"\\u0061\",\"seq\":1}"), false},
    {APPLY("1", "{\"kind\":\"Command\",\"input\":1,\"session\":\"a\",\"seq\":1}"),
     APPLY("1",
           "{\"kind\":\"Command\",\"input\":1,\"session\":\"a\",\"seq\":99999999999999999999}"),
     false},
    {"[]", "[]", false},
    {"", " ", false},
    {"{", "{", false},
};
#define PAIR_COUNT (sizeof(PAIRS) / sizeof(PAIRS[0]))

static void test_pairs(void) {
    for (size_t i = 0; i < PAIR_COUNT; i++) {
        struct rpc_forms forms = {.latest = 0};
        CHECK(!check_text(&forms, PAIRS[i].first));
        bool found = check_text(&forms, PAIRS[i].second);
        if (found != PAIRS[i].same_form) {
            fprintf(stderr, "pair %zu: %s\n", i, PAIRS[i].second);
        }
        CHECK(found == PAIRS[i].same_form);
    }
}

static void write_line(char line[200], unsigned client, unsigned number) {
    CHECK(snprintf(line, 200, APPLY("%u", "{\"x\":%u,\"kind\":\"Query\",\"input\":[%u]}"),
                   number, client, number) > 0);
}

/* As many clients as there are forms take turns; one more is read in whole, and right, until
 * another one is gone. */
static void test_turns(void) {
    struct rpc_forms forms = {.latest = 0};
    char line[200];
    for (unsigned i = 0; i < 10u * RPC_FORMS; i++) {
        write_line(line, i % RPC_FORMS, i);
        CHECK(check_text(&forms, line) == (i >= RPC_FORMS));
    }
    unsigned read_whole = 0;
    do {
        CHECK(read_whole++ < 1000);
        write_line(line, RPC_FORMS, read_whole);
    } while (!check_text(&forms, line));
    CHECK(read_whole > RPC_FORMS);
}

/* Beside a client whose lines never repeat, in whatever step with it, one whose lines do goes
 * on by its form, and one that comes later gets its form soon. */
static void test_company(void) {
    for (unsigned others = 1; others <= 9; others++) {
        struct rpc_forms forms = {.latest = 0};
        char line[200];
        unsigned found[2] = {0, 0};
        for (unsigned i = 0; i < 2000; i++) {
            for (unsigned other = 0; other < others; other++) {
                write_line(line, 1000 + i * others + other, i);
                CHECK(!check_text(&forms, line));
            }
            for (unsigned client = 0; client < 1 + i / 1000; client++) {
                write_line(line, client, i);
                found[client] += check_text(&forms, line) ? 1 : 0;
            }
        }
        CHECK(found[0] > 1800 && found[1] > 800);
    }
}

/* What is long is read in whole: its text, its id or all of it. */
static void test_long_lines(void) {
    static char line[3 * RPC_FORM_LINE_BYTES_MAX];
    static char filling[2 * RPC_FORM_LINE_BYTES_MAX];
    static const struct {
        const char *format;
        int bytes;
        bool found;
    } CASES[] = {
        {APPLY("7", "{\"kind\":\"Query\",\"input\":\"%.*s\"}"), 4000, true},
        {APPLY("7", "{\"kind\":\"Query\",\"input\":\"%.*s\"}"), RPC_FORM_LINE_BYTES_MAX, false},
        {APPLY("\"%.*s\"", "[\"Query\",1]"), ID_BYTES_MAX - 200, true},
        {APPLY("7", "{\"x\":\"%.*s\",\"kind\":\"Query\",\"input\":1}"), 100, true},
        {APPLY("7", "{\"x\":\"%.*s\",\"kind\":\"Query\",\"input\":1}"), RPC_FORM_TEXT_BYTES_MAX,
         false},
    };
    memset(filling, 'x', sizeof(filling));
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        struct rpc_forms forms = {.latest = 0};
        CHECK(snprintf(line, sizeof(line), CASES[i].format, CASES[i].bytes, filling) > 0);
        CHECK(!check_text(&forms, line));
        CHECK(check_text(&forms, line) == CASES[i].found);
    }
}

/* A line of a known form whose value is as deep as may be, or one past it. */
static void test_depth(void) {
    char line[3 * JSON_DEPTH_MAX];
    for (int past = 0; past < 2; past++) {
        struct rpc_forms forms = {.latest = 0};
        CHECK(!check_text(&forms, APPLY("7", "[\"Query\",1]")));
        char open[JSON_DEPTH_MAX] = "", close[JSON_DEPTH_MAX] = "";
        int depth = (int)JSON_DEPTH_MAX - 2 + past;
        memset(open, '[', (size_t)depth);
        memset(close, ']', (size_t)depth);
        CHECK(snprintf(line, sizeof(line), APPLY("7", "[\"Query\",%.*s%.*s]"), depth, open,
                       depth, close) > 0);
        CHECK(check_text(&forms, line) == (past == 0));
    }
}

/* --- lines that are nearly alike -------------------------------------------------------------
 */

static const char BYTES[] = "\"\\{}[],: 019-.eEtfn\x80\xc3\x01";

/* Each byte of a known line left out, doubled, and replaced by whatever JSON minds. */
static void test_changed_bytes(void) {
    char changed[300];
    for (size_t pair = 0; pair < PAIR_COUNT; pair++) {
        struct span line = {PAIRS[pair].first, strlen(PAIRS[pair].first)};
        struct rpc_forms known = {.latest = 0};
        check_line(&known, line);
        for (size_t at = 0; at < line.size; at++) {
            for (size_t byte = 0; byte < sizeof(BYTES); byte++) { /* its NUL, too */
                struct rpc_forms forms = known;
                memcpy(changed, line.data, line.size);
                changed[at] = BYTES[byte];
                check_line(&forms, (struct span){changed, line.size});
                forms = known;
                memmove(changed + at + 1, line.data + at, line.size - at);
                check_line(&forms, (struct span){changed, line.size + 1});
            }
            struct rpc_forms forms = known;
            memcpy(changed, line.data, at);
            memcpy(changed + at, line.data + at + 1, line.size - at - 1);
            check_line(&forms, (struct span){changed, line.size - 1});
            check_line(&forms, (struct span){line.data, at});
        }
    }
}

/* All of them in any order, the forms going on. */
static void test_mixed(void) {
    struct random random;
    struct rpc_forms forms = {.latest = 0};
    unsigned found = 0;
    random_seed(&random, 1);
    for (unsigned i = 0; i < 20000; i++) {
        size_t pair = (size_t)random_between(&random, 0, PAIR_COUNT - 1);
        bool first = random_between(&random, 0, 1) == 0;
        found += check_text(&forms, first ? PAIRS[pair].first : PAIRS[pair].second) ? 1 : 0;
    }
    CHECK(found > 1000);
}

int main(void) {
    test_pairs();
    test_turns();
    test_company();
    test_long_lines();
    test_depth();
    test_changed_bytes();
    test_mixed();
    puts("ok");
    return 0;
}
