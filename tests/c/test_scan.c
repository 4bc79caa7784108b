/* The scanner: against a table of what is JSON and what is not, against jansson, against its
 * own plain form, and on every cut of a text. Each text is copied to a block of exactly its
 * size, so that the sanitizer sees a byte read too many. */
#include <jansson.h>
#include <string.h>

#include "base/limits.h"
#include "base/random.h"
#include "check.h"
#include "json_cases.h"
#include "wire/scan.h"
#include "wire/scanner.h"

#define RANDOM_TEXTS 60000
#define TEXT_BYTES_MAX 4096

bool plain_value(struct scanner *scanner, unsigned depth); /* scanner_plain.c */

static struct span copy_of(const char *text, size_t size) {
    char *copy = malloc(size > 0 ? size : 1);
    CHECK(copy != NULL);
    if (size > 0) {
        memcpy(copy, text, size);
    }
    return (struct span){copy, size};
}

static void free_copy(struct span copy) {
    free((void *)(uintptr_t)copy.data);
}

/* The plain form must pass over and refuse the same, at the same byte, for the same reason. */
static void check_plain_equal(struct span text) {
    struct scanner fast = scanner_of(text);
    struct scanner plain = scanner_of(text);
    fast.reason = plain.reason = "";
    bool valid = scanner_value(&fast, 0);
    CHECK(plain_value(&plain, 0) == valid);
    CHECK(fast.at == plain.at);
    CHECK(strcmp(fast.reason, plain.reason) == 0);
}

static bool is_document(const char *text, size_t size) {
    struct span copy = copy_of(text, size);
    struct scan_error error = {0, NULL};
    struct span value;
    bool good = scan_document(copy, &value, &error);
    CHECK(good || (error.reason != NULL && error.offset <= size));
    CHECK(!good || (value.data >= copy.data && value.data + value.size <= copy.data + size));
    check_plain_equal(copy);
    free_copy(copy);
    return good;
}

static void print_text(const char *text, size_t size) {
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)text[i];
        fprintf(stderr, c >= ' ' && c < 0x7f ? "%c" : "\\x%02x", c);
    }
    fputc('\n', stderr);
}

static void test_cases(void) {
    for (size_t i = 0; i < JSON_CASE_COUNT; i++) {
        const struct json_case *each = &JSON_CASES[i];
        if (is_document(each->text, each->size) != each->good) {
            print_text(each->text, each->size);
            CHECK(!"taken for what it is");
        }
    }
}

/* Long enough strings to pass through all of the fast path, with a bad byte at every place. */
static void test_special_bytes_everywhere(void) {
    char text[80];
    for (size_t size = 2; size <= 70; size++) {
        memset(text, 'x', size);
        text[0] = text[size - 1] = '"';
        CHECK(is_document(text, size));
        CHECK(!is_document(text, size - 1));
        for (size_t at = 1; at + 1 < size; at++) {
            static const unsigned char BYTES[] = {0x00, 0x1f, '"', '\\', 0x80, 0xff};
            for (size_t i = 0; i < sizeof(BYTES); i++) {
                text[at] = (char)BYTES[i];
                bool good = BYTES[i] == '\\' && at + 2 < size;
                if (good) {
                    text[at + 1] = 'n';
                }
                CHECK(is_document(text, size) == good);
                text[at] = 'x';
                if (good) {
                    text[at + 1] = 'x';
                }
            }
        }
    }
}

static void test_every_cut(void) {
    static const char *const TEXTS[] = {
        "{\"jsonrpc\":\"2.0\",\"id\":12345,\"method\":\"Apply\",\"params\":{\"kind\":"
        "\"Command\","
        "\"input\":{\"Put\":[\"key\",-1.5e+10]}}}",
        "[true,false,null,\"\\u00e9\\ud83d\\ude00 \xc3\xa9 \xe2\x82\xac "
        "\xf0\x9d\x84\x9e\\\\\"]",
        " [ { } , [ ] , { \"a\" : [ 0 , -0.0 , 1E5 ] } ]",
        "\"a string of more than sixteen bytes, with \\\"escapes\\\" \\n in it\"",
    };
    for (size_t i = 0; i < sizeof(TEXTS) / sizeof(TEXTS[0]); i++) {
        size_t size = strlen(TEXTS[i]);
        CHECK(is_document(TEXTS[i], size));
        for (size_t cut = 0; cut < size; cut++) {
            CHECK(!is_document(TEXTS[i], cut));
        }
    }
}

static void test_depth(void) {
    char text[4 * JSON_DEPTH_MAX];
    for (unsigned depth = 1; depth <= JSON_DEPTH_MAX + 1; depth++) {
        memset(text, '[', depth);
        memset(text + depth, ']', depth);
        CHECK(is_document(text, 2 * depth) == (depth <= JSON_DEPTH_MAX));
    }
    struct scan_error error;
    struct span value;
    memset(text, '[', sizeof(text));
    CHECK(!scan_document((struct span){text, sizeof(text)}, &value, &error));
    CHECK(error.offset == JSON_DEPTH_MAX);
    CHECK(strcmp(error.reason, "nested deeper than the limit of 128 levels") == 0);
}

/* --- random texts, and what jansson says of them ---------------------------------------------
 */

struct maker {
    struct random random;
    struct buffer text;
};

static size_t pick(struct maker *maker, size_t count) {
    return (size_t)random_between(&maker->random, 0, count - 1);
}

static void make_string(struct maker *maker) {
    static const char *const PIECES[] = {
        "a",
        "key",
        " ",
        "\xc3\xa9",
        "\xe2\x82\xac",
        "\xf0\x9d\x84\x9e",
        "\\n",
        "\\\"",
        "\\u0041",
        "\\ud83d\\ude00",
        "\\\\",
        "\\/",
        "\\u00e9",
        "0123456789abcdef",
        "\x7f",
        "\\ud800",
        "\\u0000",
        "\\udc00",
    };
    buffer_append_char(&maker->text, '"');
    for (size_t count = pick(maker, 6); count > 0; count--) {
        /* The last three, which jansson knows less well, seldom. */
        size_t known = sizeof(PIECES) / sizeof(PIECES[0]) - (pick(maker, 20) == 0 ? 0 : 3);
        buffer_append_text(&maker->text, PIECES[pick(maker, known)]);
    }
    buffer_append_char(&maker->text, '"');
}

static void make_scalar(struct maker *maker) {
    static const char *const SCALARS[] = {
        "null",
        "true",
        "false",
        "0",
        "-0",
        "17",
        "-123456789",
        "0.1",
        "1e5",
        "2E-3",
        "-0.0",
        "9223372036854775807",
        "1.7976931348623157e308",
        "5e-324",
    };
    if (pick(maker, 2) == 0) {
        make_string(maker);
    } else {
        buffer_append_text(&maker->text,
                           SCALARS[pick(maker, sizeof(SCALARS) / sizeof(SCALARS[0]))]);
    }
}

static void make_space(struct maker *maker) {
    static const char SPACES[] = " \t\r\n";
    if (pick(maker, 6) == 0) {
        buffer_append_char(&maker->text, SPACES[pick(maker, sizeof(SPACES) - 1)]);
    }
}

static void make_value(struct maker *maker, unsigned depth) {
    size_t kind = depth > 5 ? 0 : pick(maker, 4);
    make_space(maker);
    if (kind < 2) {
        make_scalar(maker);
    } else {
        size_t count = pick(maker, 5);
        buffer_append_char(&maker->text, kind == 2 ? '[' : '{');
        for (size_t i = 0; i < count; i++) {
            if (i > 0) {
                buffer_append_char(&maker->text, ',');
            }
            make_space(maker);
            if (kind == 3) {
                make_string(maker);
                make_space(maker);
                buffer_append_char(&maker->text, ':');
            }
            make_value(maker, depth + 1);
        }
        buffer_append_char(&maker->text, kind == 2 ? ']' : '}');
    }
    make_space(maker);
}

/* Change, drop, double or put in a byte. */
static void spoil(struct maker *maker) {
    static const char BYTES[] =
        "{}[]\",:\\0123456789-+.eEtrufalsn \t\n\x00\x01\x1f\x7f\x80\xc3\xed\xff";
    struct buffer *text = &maker->text;
    size_t size = buffer_count(text);
    if (size == 0) {
        return;
    }
    size_t at = pick(maker, size);
    char byte = BYTES[pick(maker, sizeof(BYTES) - 1)];
    switch (pick(maker, 4)) {
    case 0:
        text->bytes[at] = byte;
        break;
    case 1:
        memmove(text->bytes + at, text->bytes + at + 1, size - at - 1);
        text->size--;
        break;
    case 2:
        text->size = at;
        break;
    default:
        buffer_append_char(text, ' ');
        memmove(text->bytes + at + 1, text->bytes + at, size - at);
        text->bytes[at] = byte;
        break;
    }
}

/* Where the two differ, one of these says why ours is right:
 *   - jansson refuses numbers that do not fit its types (RFC 8259 sets no limit: they are
 * carried);
 *   - it refuses escaped lone surrogates, and U+0000 in a member's name (both are grammatical,
 * and Python writes them);
 *   - it takes the NUL that it finds behind a number for the end of the text (no JSON text
 * holds a NUL);
 *   - it nests to 2,048, we to JSON_DEPTH_MAX, which is what Python's own reader can bear. */
static bool is_known_difference(struct span text, bool ours, const json_error_t *error,
                                const char *our_reason) {
    if (!ours) {
        return memchr(text.data, '\0', text.size) != NULL ||
               strstr(our_reason, "nested deeper") != NULL;
    }
    switch (json_error_code(error)) {
    case json_error_numeric_overflow:
    case json_error_null_byte_in_key:
        return true;
    default:
        return strstr(error->text, "invalid Unicode") != NULL;
    }
}

static void compare_with_jansson(struct span text) {
    struct scan_error scan_error = {0, ""};
    struct span value;
    json_error_t error;
    struct span copy = copy_of(text.data, text.size);
    bool ours = scan_document(copy, &value, &scan_error);
    json_t *json = json_loadb(copy.data, copy.size, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    if (ours != (json != NULL) && !is_known_difference(copy, ours, &error, scan_error.reason)) {
        print_text(copy.data, copy.size);
        fprintf(stderr, "ours %d (%s), jansson: %s\n", ours, scan_error.reason, error.text);
        CHECK(!"a known difference");
    }
    json_decref(json);
    check_plain_equal(copy);
    free_copy(copy);
}

static void test_against_jansson(void) {
    struct maker maker = {0};
    random_seed(&maker.random, 20240517);
    size_t good = 0;
    for (int i = 0; i < RANDOM_TEXTS; i++) {
        buffer_clear(&maker.text);
        make_value(&maker, 0);
        good += is_document(buffer_peek(&maker.text), buffer_count(&maker.text)) ? 1 : 0;
        compare_with_jansson(buffer_span(&maker.text));
        for (size_t count = 1 + pick(&maker, 3); count > 0; count--) {
            spoil(&maker);
            compare_with_jansson(buffer_span(&maker.text));
        }
    }
    CHECK(good == RANDOM_TEXTS);
    buffer_free(&maker.text);
}

/* Bytes without any plan, and brackets without end. */
static void test_noise(void) {
    struct maker maker = {0};
    random_seed(&maker.random, 7);
    for (int i = 0; i < RANDOM_TEXTS; i++) {
        static const char BRACKETS[] = "[[{{]}\"\":, 1";
        buffer_clear(&maker.text);
        bool brackets = pick(&maker, 2) == 0;
        for (size_t count = pick(&maker, 40); count > 0; count--) {
            buffer_append_char(&maker.text, brackets
                                                ? BRACKETS[pick(&maker, sizeof(BRACKETS) - 1)]
                                                : (char)pick(&maker, 256));
        }
        compare_with_jansson(buffer_span(&maker.text));
    }
    buffer_free(&maker.text);
}

/* --- walking, finding, texts and numbers -----------------------------------------------------
 */

static bool span_is(struct span span, const char *text) {
    return span_equal(span, (struct span){text, strlen(text)});
}

static void test_walks(void) {
    struct span object = SPAN("{ \"a\" : 1 , \"b\":[2, 3],\"a\":\"x\", \"\\u0063\":null}");
    struct span key;
    struct span value;
    size_t at = 0;
    CHECK(scan_next_member(object, &at, &key, &value));
    CHECK(span_is(key, "a") && span_is(value, "1"));
    CHECK(scan_next_member(object, &at, &key, &value));
    CHECK(span_is(key, "b") && span_is(value, "[2, 3]"));
    CHECK(scan_next_member(object, &at, &key, &value));
    CHECK(scan_next_member(object, &at, &key, &value));
    CHECK(span_is(key, "\\u0063") && span_is(value, "null"));
    CHECK(!scan_next_member(object, &at, &key, &value));

    struct span array = SPAN("[ 1 , [2,\"]\"] ,{}]");
    at = 0;
    CHECK(scan_next_element(array, &at, &value) && span_is(value, "1"));
    CHECK(scan_next_element(array, &at, &value) && span_is(value, "[2,\"]\"]"));
    CHECK(scan_next_element(array, &at, &value) && span_is(value, "{}"));
    CHECK(!scan_next_element(array, &at, &value));
    at = 0;
    CHECK(!scan_next_element(SPAN("[ ]"), &at, &value));
    at = 0;
    CHECK(!scan_next_member(SPAN("{}"), &at, &key, &value));
}

static void test_numbers(void) {
    uint64_t n = 5;
    CHECK(scan_u64(SPAN("0"), 0, &n) && n == 0);
    CHECK(scan_u64(SPAN("18446744073709551615"), UINT64_MAX, &n) && n == UINT64_MAX);
    CHECK(scan_u64(SPAN("9007199254740991"), NUMBER_MAX, &n) && n == NUMBER_MAX);
    n = 5;
    CHECK(!scan_u64(SPAN("9007199254740992"), NUMBER_MAX, &n));
    CHECK(!scan_u64(SPAN("18446744073709551616"), UINT64_MAX, &n));
    CHECK(!scan_u64(SPAN("99999999999999999999"), UINT64_MAX, &n));
    CHECK(!scan_u64(SPAN("100000000000000000000"), UINT64_MAX, &n));
    CHECK(!scan_u64(SPAN("1"), 0, &n) && !scan_u64(SPAN("5"), 4, &n));
    CHECK(!scan_u64(SPAN("-1"), 9, &n) && !scan_u64(SPAN("1.0"), 9, &n));
    CHECK(!scan_u64(SPAN("1e0"), 9, &n) && !scan_u64(SPAN("01"), 9, &n));
    CHECK(!scan_u64(SPAN(""), 9, &n) && !scan_u64(SPAN("\"1\""), 9, &n) && n == 5);
}

/* The value of a string's text, with or without its quotes. */
static void unescape(struct span string, struct buffer *text) {
    bool quoted = string.size >= 2 && string.data[0] == '"';
    struct span raw = quoted ? (struct span){string.data + 1, string.size - 2} : string;
    char *out = buffer_reserve(text, raw.size);
    buffer_extend(text, raw.size == 0 ? 0 : scanner_decode(raw, false, out));
}

static void check_unescaped(const char *string, const char *expected, size_t size) {
    struct buffer text = {0};
    unescape((struct span){string, strlen(string)}, &text);
    CHECK(span_equal(buffer_span(&text), (struct span){expected, size}));
    buffer_free(&text);
}

static void check_appended(struct span text, const char *expected) {
    struct buffer json = {0};
    scan_append_string(&json, text);
    CHECK(span_is(buffer_span(&json), expected));
    buffer_free(&json);
}

static void test_texts(void) {
    check_unescaped("\"\"", "", 0);
    check_unescaped("\"plain\"", "plain", 5);
    check_unescaped("a\\u0062c", "abc", 3); /* a key, which has no quotes */
    check_unescaped("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\/\b\f\n\r\t", 8);
    check_unescaped("\"\\u0000\\u00e9\\u20AC\\ud834\\udd1e\"",
                    "\0\xc3\xa9\xe2\x82\xac\xf0\x9d\x84\x9e", 10);
    check_unescaped("\"\\ud800\"", "\xef\xbf\xbd", 3);
    check_unescaped("\"\\udc00\\ud800x\"", "\xef\xbf\xbd\xef\xbf\xbdx", 7);
    check_unescaped("\"\\udc00\\udc00\"", "\xef\xbf\xbd\xef\xbf\xbd", 6);
    check_unescaped("\"\\ud800\\u0041\"",
                    "\xef\xbf\xbd"
                    "A",
                    4);

    check_appended(SPAN(""), "\"\"");
    check_appended(SPAN("a\"b\\c/\b\f\n\r\t\x01\x7f"),
                   "\"a\\\"b\\\\c/\\b\\f\\n\\r\\t\\u0001\x7f\"");
    check_appended(SPAN("\0"), "\"\\u0000\"");
    check_appended(SPAN("\xc3\xa9\xff\xed\xa0\x80"),
                   "\"\xc3\xa9\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");
}

/* Whatever bytes a text has, it can be written; and what was UTF-8 is read again as it was. */
static void test_append_any(void) {
    struct maker maker = {0};
    struct buffer back = {0};
    struct buffer json = {0};
    random_seed(&maker.random, 99);
    for (int i = 0; i < 20000; i++) {
        buffer_clear(&maker.text);
        bool ascii = pick(&maker, 2) == 0;
        for (size_t count = pick(&maker, 60); count > 0; count--) {
            buffer_append_char(&maker.text, (char)pick(&maker, ascii ? 128 : 256));
        }
        buffer_clear(&json);
        buffer_clear(&back);
        scan_append_string(&json, buffer_span(&maker.text));
        CHECK(is_document(buffer_peek(&json), buffer_count(&json)));
        unescape(buffer_span(&json), &back);
        CHECK(!ascii || span_equal(buffer_span(&back), buffer_span(&maker.text)));
    }
    buffer_free(&maker.text);
    buffer_free(&back);
    buffer_free(&json);
}

int main(void) {
    test_cases();
    test_special_bytes_everywhere();
    test_every_cut();
    test_depth();
    test_against_jansson();
    test_noise();
    test_walks();
    test_numbers();
    test_texts();
    test_append_any();
    puts("ok");
    return 0;
}
