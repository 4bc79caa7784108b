/* The validating pass over JSON text; see scanner.h.
 *
 * No recursion: which brackets are open is a stack of bits, one a level, JSON_DEPTH_MAX of
 * them. The place in the text is handed from step to step in a register: each pass_* takes
 * where it begins and returns where it ended, or NULL after fail() has noted the fault in the
 * scanner. Invariant: every step reads only bytes before `end`, and moves forward or fails. */
#include "wire/scanner.h"

#include <stdint.h>

#include "base/assert.h"
#include "base/limits.h"

STATIC_ASSERT(JSON_DEPTH_MAX == 128, "the stack of bits and the text of the refusal say 128");

/* The open brackets, outermost first. */
struct nest {
    uint64_t objects[2]; /* bit set: that level is an object */
    unsigned depth;      /* levels open */
};

static const char *fail(struct scanner *scanner, const char *at, const char *reason) {
    scanner->at = at;
    scanner->reason = reason;
    return NULL;
}

/* What stands at `at` is wrong; or nothing does, and the text was cut. */
static const char *fail_or_cut(struct scanner *scanner, const char *at, const char *wrong,
                               const char *cut) {
    return fail(scanner, at, at == scanner->end ? cut : wrong);
}

static inline const char *pass_space(const struct scanner *scanner, const char *at) {
    while (at < scanner->end && (unsigned char)*at <= ' ' && scanner_is_space(*at)) {
        at++;
    }
    return at;
}

/* --- strings ---------------------------------------------------------------------------------
 */

static bool is_continuation(char c) {
    return ((unsigned char)c & 0xc0u) == 0x80u;
}

size_t scanner_utf8_bytes(const char *at, const char *end) {
    size_t left = (size_t)(end - at);
    unsigned char lead = left > 0 ? (unsigned char)at[0] : 0;
    unsigned char next = left > 1 ? (unsigned char)at[1] : 0;
    if (lead >= 0xc2 && lead <= 0xdf) {
        return is_continuation((char)next) ? 2 : 0;
    }
    if (lead >= 0xe0 && lead <= 0xef) {
        unsigned char low = lead == 0xe0 ? 0xa0 : 0x80;
        unsigned char high = lead == 0xed ? 0x9f : 0xbf;
        return next >= low && next <= high && left > 2 && is_continuation(at[2]) ? 3 : 0;
    }
    if (lead >= 0xf0 && lead <= 0xf4) {
        unsigned char low = lead == 0xf0 ? 0x90 : 0x80;
        unsigned char high = lead == 0xf4 ? 0x8f : 0xbf;
        bool good = next >= low && next <= high && left > 3 && is_continuation(at[2]) &&
                    is_continuation(at[3]);
        return good ? 4 : 0;
    }
    return 0;
}

static bool is_hex(char c) {
    return (unsigned char)(c - '0') <= 9 || (unsigned char)((c | 0x20) - 'a') <= 5;
}

/* `at` stands behind the backslash. */
static const char *pass_escape(struct scanner *scanner, const char *at) {
    static const char LETTERS[] = "\"\\/bfnrtu";
    if (at == scanner->end || *at == '\0' || strchr(LETTERS, *at) == NULL) {
        return fail_or_cut(scanner, at, "unknown escape in a string",
                           "the text ends inside a string");
    }
    if (*at++ != 'u') {
        return at;
    }
    for (int digit = 0; digit < 4; digit++, at++) {
        if (at == scanner->end || !is_hex(*at)) {
            return fail_or_cut(scanner, at, "an escape without its four hexadecimal digits",
                               "the text ends inside a string");
        }
    }
    return at;
}

/* `at` stands on a byte of 0x80 or more; go on while there are such bytes. */
static const char *pass_utf8(struct scanner *scanner, const char *at) {
    while (at < scanner->end && (unsigned char)*at >= 0x80) {
        size_t bytes = scanner_utf8_bytes(at, scanner->end);
        if (bytes == 0) {
            return fail(scanner, at, "invalid UTF-8");
        }
        at += bytes;
    }
    return at;
}

/* `at` stands on the opening quote. */
static inline const char *pass_string(struct scanner *scanner, const char *at, bool *escaped) {
    at++;
    while (at != NULL) {
        at = scanner_plain_run(at, scanner->end);
        if (at < scanner->end && *at == '"') {
            return at + 1;
        }
        if (at == scanner->end || (unsigned char)*at < ' ') {
            return fail_or_cut(scanner, at, "raw control character in a string",
                               "the text ends inside a string");
        }
        if (*at == '\\') {
            *escaped = true;
            at = pass_escape(scanner, at + 1);
        } else {
            at = pass_utf8(scanner, at);
        }
    }
    return NULL;
}

static inline const char *pass_text(struct scanner *scanner, const char *at,
                                    struct scanner_text *text) {
    const char *start = at + 1;
    text->escaped = false;
    at = pass_string(scanner, at, &text->escaped);
    if (at != NULL) {
        text->raw = (struct span){start, (size_t)(at - 1 - start)};
    }
    return at;
}

bool scanner_string(struct scanner *scanner, struct scanner_text *text) {
    const char *at = pass_text(scanner, scanner->at, text);
    if (at == NULL) {
        return false;
    }
    scanner->at = at;
    return true;
}

/* --- numbers and literals --------------------------------------------------------------------
 */

static inline bool digit_at(const struct scanner *scanner, const char *at) {
    return at < scanner->end && (unsigned char)(*at - '0') <= 9;
}

static inline const char *pass_digits(struct scanner *scanner, const char *at) {
    if (!digit_at(scanner, at)) {
        return fail_or_cut(scanner, at, "a digit is missing in a number",
                           "the text ends inside a number");
    }
    do {
        at++;
    } while (digit_at(scanner, at));
    return at;
}

static const char *pass_exponent(struct scanner *scanner, const char *at) {
    if (at < scanner->end && (*at == '+' || *at == '-')) {
        at++;
    }
    return pass_digits(scanner, at);
}

static const char *pass_number(struct scanner *scanner, const char *at) {
    if (*at == '-') {
        at++;
    }
    if (at < scanner->end && *at == '0') {
        at++;
        if (digit_at(scanner, at)) {
            return fail(scanner, at, "a number begins with a needless zero");
        }
    } else if ((at = pass_digits(scanner, at)) == NULL) {
        return NULL;
    }
    if (at < scanner->end && *at == '.' && (at = pass_digits(scanner, at + 1)) == NULL) {
        return NULL;
    }
    if (at < scanner->end && (*at == 'e' || *at == 'E')) {
        return pass_exponent(scanner, at + 1);
    }
    return at;
}

static const char *pass_literal(struct scanner *scanner, const char *at, const char *literal) {
    for (; *literal != '\0'; literal++, at++) {
        if (at == scanner->end || *at != *literal) {
            return fail_or_cut(scanner, at, "neither true, false nor null",
                               "the text ends inside a literal");
        }
    }
    return at;
}

/* A string, number or literal. */
static inline const char *pass_scalar(struct scanner *scanner, const char *at) {
    bool escaped;
    if (at < scanner->end) {
        switch (*at) {
        case '"':
            return pass_string(scanner, at, &escaped);
        case 't':
            return pass_literal(scanner, at, "true");
        case 'f':
            return pass_literal(scanner, at, "false");
        case 'n':
            return pass_literal(scanner, at, "null");
        default:
            if (*at == '-' || digit_at(scanner, at)) {
                return pass_number(scanner, at);
            }
            break;
        }
    }
    return fail_or_cut(scanner, at, "a value should begin here",
                       "the text ends where a value should begin");
}

/* --- brackets --------------------------------------------------------------------------------
 */

/* A member's name and its colon; on to the value. */
static inline const char *pass_key(struct scanner *scanner, const char *at,
                                   struct scanner_text *key) {
    if (at == scanner->end || *at != '"') {
        return fail_or_cut(scanner, at, "a member's name in quotes should stand here",
                           "the text ends inside an object");
    }
    at = pass_text(scanner, at, key);
    if (at == NULL) {
        return NULL;
    }
    at = pass_space(scanner, at);
    if (at == scanner->end || *at != ':') {
        return fail_or_cut(scanner, at, "a colon should stand here",
                           "the text ends inside an object");
    }
    return pass_space(scanner, at + 1);
}

/* Behind a bracket (`first`) or a member's value: to the next member's value, or out. */
static inline const char *pass_to_member(struct scanner *scanner, const char *at, bool first,
                                         struct scanner_text *key, bool *out) {
    at = pass_space(scanner, at);
    *out = at < scanner->end && *at == '}';
    if (*out) {
        return at + 1;
    }
    if (!first) {
        if (at == scanner->end || *at != ',') {
            return fail_or_cut(scanner, at, "a comma or } should stand here",
                               "the text ends inside an object");
        }
        at = pass_space(scanner, at + 1);
    }
    return pass_key(scanner, at, key);
}

static inline const char *pass_to_element(struct scanner *scanner, const char *at, bool first,
                                          bool *out) {
    at = pass_space(scanner, at);
    *out = at < scanner->end && *at == ']';
    if (*out) {
        return at + 1;
    }
    if (first) {
        return at;
    }
    if (at == scanner->end || *at != ',') {
        return fail_or_cut(scanner, at, "a comma or ] should stand here",
                           "the text ends inside an array");
    }
    return pass_space(scanner, at + 1);
}

static enum scanner_step step_to(struct scanner *scanner, const char *at, bool out) {
    if (at == NULL) {
        return SCANNER_BAD;
    }
    scanner->at = at;
    return out ? SCANNER_END : SCANNER_ITEM;
}

enum scanner_step scanner_next_member(struct scanner *scanner, bool first,
                                      struct scanner_text *key) {
    bool out;
    const char *at = pass_to_member(scanner, scanner->at + (first ? 1 : 0), first, key, &out);
    return step_to(scanner, at, out);
}

enum scanner_step scanner_next_element(struct scanner *scanner, bool first) {
    bool out;
    const char *at = pass_to_element(scanner, scanner->at + (first ? 1 : 0), first, &out);
    return step_to(scanner, at, out);
}

/* --- whole values ----------------------------------------------------------------------------
 */

static inline bool nest_push(struct nest *nest, bool object) {
    if (nest->depth >= JSON_DEPTH_MAX) {
        return false;
    }
    uint64_t bit = 1ULL << (nest->depth % 64);
    uint64_t *word = &nest->objects[nest->depth / 64];
    *word = object ? *word | bit : *word & ~bit;
    nest->depth++;
    return true;
}

static inline bool nest_in_object(const struct nest *nest) {
    unsigned level = nest->depth - 1;
    return ((nest->objects[level / 64] >> (level % 64)) & 1u) != 0;
}

/* Within the innermost open bracket: on to its next value, closing brackets that end here.
 * Stops when only `depth` are left open. */
static inline const char *pass_to_value(struct scanner *scanner, const char *at,
                                        struct nest *nest, unsigned depth, bool first) {
    bool out = true;
    struct scanner_text key;
    while (at != NULL && out && nest->depth > depth) {
        at = nest_in_object(nest) ? pass_to_member(scanner, at, first, &key, &out)
                                  : pass_to_element(scanner, at, first, &out);
        nest->depth -= out ? 1 : 0;
        first = false;
    }
    return at;
}

bool scanner_value(struct scanner *scanner, unsigned depth) {
    ASSERT(depth <= JSON_DEPTH_MAX);
    struct nest nest = {.depth = depth};
    const char *at = scanner->at;
    do {
        bool bracket = at < scanner->end && (*at == '{' || *at == '[');
        if (!bracket) {
            at = pass_scalar(scanner, at);
        } else if (nest_push(&nest, *at == '{')) {
            at++;
        } else {
            at = fail(scanner, at, "nested deeper than the limit of 128 levels");
        }
        at = at == NULL ? NULL : pass_to_value(scanner, at, &nest, depth, bracket);
    } while (at != NULL && nest.depth > depth);
    if (at == NULL) {
        return false;
    }
    scanner->at = at;
    return true;
}
