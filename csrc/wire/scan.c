/* Whole values and documents, and walking through what is valid already; see scan.h. The
 * grammar itself is scanner.c's. Invariant: a walk over text that was never validated is
 * harmless too, it just ends early. */
#include "wire/scan.h"

#include "base/assert.h"
#include "wire/scanner.h"

static bool give_error(const struct scanner *scanner, struct span text,
                       struct scan_error *error) {
    error->offset = (size_t)(scanner->at - text.data);
    error->reason = scanner->reason;
    return false;
}

enum scan_kind scan_kind(struct span value) {
    ASSERT(value.size > 0);
    switch (value.data[0]) {
    case 'n':
        return SCAN_NULL;
    case 't':
        return SCAN_TRUE;
    case 'f':
        return SCAN_FALSE;
    case '"':
        return SCAN_STRING;
    case '[':
        return SCAN_ARRAY;
    case '{':
        return SCAN_OBJECT;
    default:
        return SCAN_NUMBER;
    }
}

bool scan_value(struct span text, size_t *at, struct scan_error *error) {
    ASSERT(*at <= text.size);
    struct scanner scanner = scanner_of(text);
    scanner.at += *at;
    if (!scanner_value(&scanner, 0)) {
        return give_error(&scanner, text, error);
    }
    *at = (size_t)(scanner.at - text.data);
    return true;
}

bool scan_document(struct span text, struct span *value, struct scan_error *error) {
    struct scanner scanner = scanner_of(text);
    scanner_space(&scanner);
    const char *start = scanner.at;
    if (!scanner_value(&scanner, 0)) {
        return give_error(&scanner, text, error);
    }
    struct span found = {start, (size_t)(scanner.at - start)};
    scanner_space(&scanner);
    if (scanner.at < scanner.end) {
        scanner.reason = "something follows the value";
        return give_error(&scanner, text, error);
    }
    *value = found;
    return true;
}

/* The value that `scanner` stands on, and where that leaves the walk. */
static bool take_value(struct scanner *scanner, struct span text, size_t *at,
                       struct span *value) {
    const char *start = scanner->at;
    if (!scanner_value(scanner, 0)) {
        return false;
    }
    *value = (struct span){start, (size_t)(scanner->at - start)};
    *at = (size_t)(scanner->at - text.data);
    return true;
}

bool scan_next_member(struct span object, size_t *at, struct span *key, struct span *value) {
    ASSERT(*at <= object.size);
    struct scanner scanner = scanner_of(object);
    scanner.at += *at;
    struct scanner_text name;
    if ((*at == 0 && (object.size == 0 || object.data[0] != '{')) ||
        scanner_next_member(&scanner, *at == 0, &name) != SCANNER_ITEM) {
        return false;
    }
    *key = name.raw;
    return take_value(&scanner, object, at, value);
}

bool scan_next_element(struct span array, size_t *at, struct span *value) {
    ASSERT(*at <= array.size);
    struct scanner scanner = scanner_of(array);
    scanner.at += *at;
    if ((*at == 0 && (array.size == 0 || array.data[0] != '[')) ||
        scanner_next_element(&scanner, *at == 0) != SCANNER_ITEM) {
        return false;
    }
    return take_value(&scanner, array, at, value);
}

bool scan_u64(struct span number, uint64_t max, uint64_t *value) {
    if (number.size == 0 || number.size > 20 || (number.data[0] == '0' && number.size > 1)) {
        return false;
    }
    uint64_t sum = 0;
    for (size_t i = 0; i < number.size; i++) {
        unsigned digit = (unsigned char)(number.data[i] - '0');
        if (digit > 9 || sum > (max - digit) / 10 || digit > max) {
            return false;
        }
        sum = sum * 10 + digit;
    }
    *value = sum;
    return true;
}
