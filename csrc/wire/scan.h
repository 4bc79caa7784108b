/* A strict validating pass over JSON text (RFC 8259): finds where values end, builds nothing.
 *
 * What it accepts, Python's json and this project's own decoder accept with the same meaning:
 * full grammar, valid UTF-8 (no surrogates, no overlong forms), no raw control characters,
 * nesting at most JSON_DEPTH_MAX. Escaped lone surrogates ("\ud800") are accepted, as RFC 8259
 * does. A NUL byte is refused. */
#ifndef RAFTPICO_WIRE_SCAN_H
#define RAFTPICO_WIRE_SCAN_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buffer.h"

struct scan_error {
    size_t offset;      /* where in the text it went wrong, bytes */
    const char *reason; /* constant: "raw control character in a string" ...; stands in JSON
                           as it is */
};

/* The JSON kind by which a valid value begins. */
enum scan_kind {
    SCAN_NULL,
    SCAN_TRUE,
    SCAN_FALSE,
    SCAN_NUMBER,
    SCAN_STRING,
    SCAN_ARRAY,
    SCAN_OBJECT,
};
enum scan_kind scan_kind(struct span value);

/* Validate one value that begins at text.data[*at] (no leading space); on success *at stands
 * right behind it. */
bool scan_value(struct span text, size_t *at, struct scan_error *error);

/* A whole document: spaces, one value, spaces, end. `*value` is the value's own span. */
bool scan_document(struct span text, struct span *value, struct scan_error *error);

/* Walk the members of a valid object (as scanned before). Start with *at = 0; true while there
 * is one. `key` is the text between the quotes, escapes and all; `value` the value's span. */
bool scan_next_member(struct span object, size_t *at, struct span *key, struct span *value);
bool scan_next_element(struct span array, size_t *at, struct span *value);

/* A non-negative integer in plain digits up to `max`; false for all else (1e3, -1, 1.0). */
bool scan_u64(struct span number, uint64_t max, uint64_t *value);

/* Append `text` as a JSON string with its quotes, escaping what must be; invalid UTF-8 becomes
 * U+FFFD. */
void scan_append_string(struct buffer *json, struct span text);

#endif
