/* A reader of lines whose members stand in a fixed order: literal text, numbers, digits.
 *
 * For the lines that we write ourselves (entries, meta, snapshot headers) and for nothing that
 * a client sends. Strict: a number is plain digits without a leading zero, at most NUMBER_MAX.
 * Invariant: a step that fails leaves the cursor where it was. */
#ifndef RAFTPICO_WIRE_CURSOR_H
#define RAFTPICO_WIRE_CURSOR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/assert.h"
#include "base/buffer.h"
#include "base/limits.h"

struct cursor {
    const char *at;
    const char *end;
};

static inline struct cursor cursor_over(struct span text) {
    return (struct cursor){text.data, text.data + text.size};
}

static inline struct span cursor_rest(const struct cursor *cursor) {
    return (struct span){cursor->at, (size_t)(cursor->end - cursor->at)};
}

static inline bool cursor_text(struct cursor *cursor, struct span text) {
    if ((size_t)(cursor->end - cursor->at) < text.size ||
        memcmp(cursor->at, text.data, text.size) != 0) {
        return false;
    }
    cursor->at += text.size;
    return true;
}

/* One digit more than NUMBER_MAX has fits into 64 bits, and is too large unless it begins with
 * a zero: so nothing has to be compared for each digit. */
#define NUMBER_DIGITS_READ 17
STATIC_ASSERT(NUMBER_MAX < 10000000000000000u, "NUMBER_MAX has fewer digits than are read");

static inline bool cursor_number(struct cursor *cursor, uint64_t *number) {
    const char *at = cursor->at;
    const char *end =
        cursor->end - at > NUMBER_DIGITS_READ ? at + NUMBER_DIGITS_READ : cursor->end;
    uint64_t value = 0;
    for (unsigned digit; at < end && (digit = (unsigned)*at - '0') <= 9; at++) {
        value = value * 10 + digit;
    }
    if (at == cursor->at || value > NUMBER_MAX || (*cursor->at == '0' && at - cursor->at > 1)) {
        return false;
    }
    cursor->at = at;
    *number = value;
    return true;
}

/* A member of an object: its literal key, with punctuation, and then its number. */
static inline bool cursor_member(struct cursor *cursor, struct span key, uint64_t *number) {
    struct cursor before = *cursor;
    if (cursor_text(cursor, key) && cursor_number(cursor, number)) {
        return true;
    }
    *cursor = before;
    return false;
}

/* What stands before the next `stop`, which is passed as well. */
static inline bool cursor_until(struct cursor *cursor, char stop, struct span *text) {
    struct span rest = cursor_rest(cursor);
    const char *found = rest.size > 0 ? memchr(rest.data, stop, rest.size) : NULL;
    if (found == NULL) {
        return false;
    }
    *text = (struct span){rest.data, (size_t)(found - rest.data)};
    cursor->at = found + 1;
    return true;
}

/* The inside of a JSON string whose opening quote is passed; its closing one is passed too. */
static inline bool cursor_string(struct cursor *cursor, struct span *inside) {
    const char *at = cursor->at;
    while (at < cursor->end && *at != '"') {
        at += *at == '\\' && at + 1 < cursor->end ? 2 : 1;
    }
    if (at >= cursor->end) {
        return false;
    }
    *inside = (struct span){cursor->at, (size_t)(at - cursor->at)};
    cursor->at = at + 1;
    return true;
}

#endif
