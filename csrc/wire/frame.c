/* Finding lines in a stream, and strangers who speak HTTP; see frame.h.
 *
 * Invariant: the first `scanned` bytes of the input hold no LF and are never searched again. */
#include "wire/frame.h"

#include "base/assert.h"

enum frame_result frame_next(struct frame *frame, struct span input, size_t bytes_max,
                             struct span *line, size_t *consumed) {
    ASSERT(frame->scanned <= input.size);
    /* The LF of the longest line stands at bytes_max; past that there is no use in looking. */
    size_t until = input.size <= bytes_max ? input.size : bytes_max + 1;
    const char *lf = NULL;
    if (frame->scanned < until) {
        lf = memchr(input.data + frame->scanned, '\n', until - frame->scanned);
    }
    *consumed = 0;
    if (lf != NULL) {
        *line = (struct span){input.data, (size_t)(lf - input.data)};
        *consumed = line->size + 1;
        frame->scanned = 0;
        return FRAME_LINE;
    }
    frame->scanned = until;
    return input.size > bytes_max ? FRAME_TOO_LONG : FRAME_MORE;
}

/* --- HTTP ----------------------------------------------------------------------------------
 */

static char lower(char c) {
    return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

static bool is_token(char c) {
    char l = lower(c);
    return (l >= 'a' && l <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

static struct span trim(struct span line) {
    while (line.size > 0 && (*line.data == ' ' || *line.data == '\t' || *line.data == '\r')) {
        line.data++;
        line.size--;
    }
    while (line.size > 0 && (unsigned char)line.data[line.size - 1] <= ' ') {
        line.size--;
    }
    return line;
}

static struct span take_token(struct span *line) {
    struct span token = {line->data, 0};
    while (token.size < line->size && is_token(token.data[token.size])) {
        token.size++;
    }
    line->data += token.size;
    line->size -= token.size;
    return token;
}

static bool token_begins(struct span text, const char *prefix) {
    size_t bytes = strlen(prefix);
    if (text.size < bytes) {
        return false;
    }
    for (size_t i = 0; i < bytes; i++) {
        if (lower(text.data[i]) != prefix[i]) {
            return false;
        }
    }
    return true;
}

static bool token_is(struct span text, const char *name) {
    return text.size == strlen(name) && token_begins(text, name);
}

/* Headers that browsers and common tools send, in lower case; some families besides. */
static bool is_header_name(struct span name) {
    static const char *const NAMES[] = {
        "host",
        "user-agent",
        "content-type",
        "content-length",
        "connection",
        "accept",
        "origin",
        "accept-encoding",
        "accept-language",
        "transfer-encoding",
        "referer",
        "cookie",
        "cache-control",
        "pragma",
        "authorization",
        "upgrade",
        "upgrade-insecure-requests",
        "dnt",
        "te",
        "expect",
        "range",
        "via",
        "forwarded",
        "date",
        "server",
        "if-none-match",
        "if-modified-since",
        "keep-alive",
        "proxy-connection",
        "priority",
    };
    for (size_t i = 0; i < sizeof(NAMES) / sizeof(NAMES[0]); i++) {
        if (token_is(name, NAMES[i])) {
            return true;
        }
    }
    return token_begins(name, "sec-") || token_begins(name, "x-") ||
           token_begins(name, "access-control-");
}

/* Methods whose line is taken for HTTP even without a version at its end (HTTP/0.9, or cut). */
static bool is_method(struct span word) {
    static const char *const METHODS[] = {"get",     "post",    "put",   "head", "delete",
                                          "options", "connect", "trace", "patch"};
    for (size_t i = 0; i < sizeof(METHODS) / sizeof(METHODS[0]); i++) {
        if (token_is(word, METHODS[i])) {
            return true;
        }
    }
    return false;
}

/* "... HTTP/1.1": the last word, whatever the method and the target were. */
static bool ends_with_version(struct span rest) {
    size_t at = rest.size;
    while (at > 0 && rest.data[at - 1] != ' ') {
        at--;
    }
    struct span word = {rest.data + at, rest.size - at};
    return at > 0 && token_begins(word, "http/") && word.size > 5 &&
           (unsigned char)(word.data[5] - '0') <= 9;
}

bool frame_looks_like_http(struct span line) {
    struct span rest = trim(line);
    if (rest.size == 0 || *rest.data == '{' || *rest.data == '[') {
        return false;
    }
    struct span word = take_token(&rest);
    if (word.size == 0 || rest.size == 0) {
        return false;
    }
    if (*rest.data == ':') {
        return is_header_name(word);
    }
    if (*rest.data == '/') {
        return token_is(word, "http") && rest.size > 1 &&
               (unsigned char)(rest.data[1] - '0') <= 9;
    }
    if (*rest.data != ' ') {
        return false;
    }
    return ends_with_version(rest) || (is_method(word) && rest.size > 1 && rest.data[1] == '/');
}
