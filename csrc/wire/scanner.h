/* The validating pass, step by step: what scan.c offers whole and rpc.c takes apart, so that a
 * request's spans are found while it is validated, in one pass.
 *
 * It knows RFC 8259 and nothing of what the values mean. Invariant: `at` never passes `end`,
 * and no byte at or behind `end` is read; after a failure `at` is the byte at fault. */
#ifndef RAFTPICO_WIRE_SCANNER_H
#define RAFTPICO_WIRE_SCANNER_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buffer.h"

#if defined(__SSE2__) && !defined(SCANNER_PLAIN)
#include <emmintrin.h>
#define SCANNER_SSE2 1
#else
#define SCANNER_SSE2 0
#endif

struct scanner {
    const char *at;     /* the next byte */
    const char *end;    /* behind the last one */
    const char *reason; /* after a failure: what is wrong; constant, stands in JSON as it is */
};

/* A string's text between its quotes. */
struct scanner_text {
    struct span raw; /* escapes and all */
    bool escaped;    /* it holds a backslash */
};

enum scanner_step {
    SCANNER_ITEM, /* `at` stands on the first byte of the next value */
    SCANNER_END,  /* the bracket is closed, `at` stands behind it */
    SCANNER_BAD,
};

static inline struct scanner scanner_of(struct span text) {
    return (struct scanner){text.data, text.data + text.size, NULL};
}

static inline bool scanner_is_space(char c) {
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static inline void scanner_space(struct scanner *scanner) {
    while (scanner->at < scanner->end && scanner_is_space(*scanner->at)) {
        scanner->at++;
    }
}

/* Pass over the bytes that stand for themselves in a string and are one byte in UTF-8: ASCII,
 * no control character, neither quote nor backslash. Stops at any other byte, or at `end`. */
static inline const char *scanner_plain_run(const char *at, const char *end) {
#if SCANNER_SSE2
    const __m128i space = _mm_set1_epi8(' ');
    const __m128i quote = _mm_set1_epi8('"');
    const __m128i backslash = _mm_set1_epi8('\\');
    while (end - at >= 16) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)at);
        /* As signed numbers, bytes from 0x80 up are below the space too. */
        __m128i special = _mm_or_si128(
            _mm_cmplt_epi8(bytes, space),
            _mm_or_si128(_mm_cmpeq_epi8(bytes, quote), _mm_cmpeq_epi8(bytes, backslash)));
        unsigned mask = (unsigned)_mm_movemask_epi8(special);
        if (mask != 0) {
            return at + __builtin_ctz(mask);
        }
        at += 16;
    }
#endif
    while (at < end && (unsigned char)*at >= ' ' && (unsigned char)*at < 0x80 && *at != '"' &&
           *at != '\\') {
        at++;
    }
    return at;
}

/* The size of the well-formed UTF-8 sequence of two to four bytes at `at` (Unicode's table 3-7:
 * no overlong form, no surrogate, nothing above U+10FFFF); 0 where there is none. */
size_t scanner_utf8_bytes(const char *at, const char *end);

/* Decode a string's valid raw text, escapes and all, to UTF-8; `out` has room for raw.size
 * bytes, which is always enough. A lone surrogate becomes U+FFFD, or, to be kept, the three
 * bytes that UTF-8 would have for it. Returns the bytes written. */
size_t scanner_decode(struct span raw, bool keep_surrogates, char *out);

/* Whether a string with escapes in it means `literal` all the same ("\u0069d" is "id"). */
bool scanner_escaped_equal(struct span raw, struct span literal);

static inline bool scanner_text_equal(struct scanner_text text, struct span literal) {
    if (text.escaped) {
        return scanner_escaped_equal(text.raw, literal);
    }
    return text.raw.size == literal.size &&
           memcmp(text.raw.data, literal.data, literal.size) == 0;
}

/* From a string's opening quote to behind the closing one. */
bool scanner_string(struct scanner *scanner, struct scanner_text *text);

/* One whole value, `at` on its first byte, with `depth` brackets already open around it. */
bool scanner_value(struct scanner *scanner, unsigned depth);

/* Walk an object: with `first`, `at` stands on its `{`; later, behind a member's value. */
enum scanner_step scanner_next_member(struct scanner *scanner, bool first,
                                      struct scanner_text *key);

/* Walk an array in the same way. */
enum scanner_step scanner_next_element(struct scanner *scanner, bool first);

#endif
