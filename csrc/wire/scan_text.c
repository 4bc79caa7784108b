/* Strings between JSON's spelling and UTF-8; see scan.h and scanner.h.
 *
 * Invariant: decoding never writes more bytes than it reads (an escape of six bytes gives three
 * at most, a pair of twelve gives four), so the raw text's size is room enough. */
#include "wire/scan.h"
#include "wire/scanner.h"

#define REPLACEMENT_CODE 0xfffdu
#define REPLACEMENT "\xef\xbf\xbd" /* the same in UTF-8 */

static unsigned hex_digit(char c) {
    unsigned digit = (unsigned char)(c - '0');
    return digit <= 9 ? digit : (unsigned)((c | 0x20) - 'a') + 10u;
}

static unsigned hex4(const char *at) {
    return hex_digit(at[0]) << 12 | hex_digit(at[1]) << 8 | hex_digit(at[2]) << 4 |
           hex_digit(at[3]);
}

static size_t put_utf8(unsigned code, char *out) {
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (char)(0xc0 | code >> 6);
        out[1] = (char)(0x80 | (code & 0x3f));
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (char)(0xe0 | code >> 12);
        out[1] = (char)(0x80 | (code >> 6 & 0x3f));
        out[2] = (char)(0x80 | (code & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | code >> 18);
    out[1] = (char)(0x80 | (code >> 12 & 0x3f));
    out[2] = (char)(0x80 | (code >> 6 & 0x3f));
    out[3] = (char)(0x80 | (code & 0x3f));
    return 4;
}

/* The code point of the \u escape at `*at`, both halves of a pair or a lone surrogate; moves
 * behind it. */
static unsigned take_unicode(const char **at, const char *end) {
    unsigned code = hex4(*at + 2);
    *at += 6;
    if (code < 0xd800 || code > 0xdfff) {
        return code;
    }
    if (code <= 0xdbff && end - *at >= 6 && (*at)[0] == '\\' && (*at)[1] == 'u') {
        unsigned low = hex4(*at + 2);
        if (low >= 0xdc00 && low <= 0xdfff) {
            *at += 6;
            return 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
        }
    }
    return code;
}

/* The code point of the escape at `*at`; moves behind it. */
static unsigned take_escape(const char **at, const char *end) {
    char c = (*at)[1];
    if (c == 'u') {
        return take_unicode(at, end);
    }
    *at += 2;
    switch (c) {
    case 'b':
        return '\b';
    case 'f':
        return '\f';
    case 'n':
        return '\n';
    case 'r':
        return '\r';
    case 't':
        return '\t';
    default:
        return (unsigned char)c;
    }
}

size_t scanner_decode(struct span raw, bool keep_surrogates, char *out) {
    const char *at = raw.data;
    const char *end = at + raw.size;
    char *to = out;
    while (at < end) {
        const char *escape = memchr(at, '\\', (size_t)(end - at));
        size_t plain = (size_t)((escape != NULL ? escape : end) - at);
        memcpy(to, at, plain);
        to += plain;
        at += plain;
        if (escape != NULL) {
            unsigned code = take_escape(&at, end);
            bool lone = code >= 0xd800 && code <= 0xdfff;
            to += put_utf8(lone && !keep_surrogates ? REPLACEMENT_CODE : code, to);
        }
    }
    return (size_t)(to - out);
}

bool scanner_escaped_equal(struct span raw, struct span literal) {
    char decoded[6 * 64];
    if (raw.size > sizeof(decoded) || raw.size > 6 * literal.size ||
        memchr(raw.data, '\\', raw.size) == NULL) {
        return false;
    }
    return span_equal((struct span){decoded, scanner_decode(raw, false, decoded)}, literal);
}

static void append_control(struct buffer *json, unsigned char c) {
    static const char HEX[] = "0123456789abcdef";
    static const char SHORT[] = "\bb\tt\nn\ff\rr";
    const char *letter = memchr(SHORT, c, sizeof(SHORT) - 1);
    if (c != '\0' && letter != NULL) {
        char escape[] = {'\\', letter[1]};
        buffer_append(json, escape, sizeof(escape));
    } else {
        char escape[] = {'\\', 'u', '0', '0', HEX[c >> 4], HEX[c & 15]};
        buffer_append(json, escape, sizeof(escape));
    }
}

void scan_append_string(struct buffer *json, struct span text) {
    const char *at = text.data;
    const char *end = at + text.size;
    buffer_append_char(json, '"');
    while (at < end) {
        const char *stop = scanner_plain_run(at, end);
        buffer_append(json, at, (size_t)(stop - at));
        at = stop;
        if (at == end) {
            break;
        }
        size_t bytes = 1;
        if (*at == '"' || *at == '\\') {
            char escape[] = {'\\', *at};
            buffer_append(json, escape, sizeof(escape));
        } else if ((unsigned char)*at < ' ') {
            append_control(json, (unsigned char)*at);
        } else if ((bytes = scanner_utf8_bytes(at, end)) > 0) {
            buffer_append(json, at, bytes);
        } else {
            bytes = 1;
            buffer_append(json, REPLACEMENT, sizeof(REPLACEMENT) - 1);
        }
        at += bytes;
    }
    buffer_append_char(json, '"');
}
