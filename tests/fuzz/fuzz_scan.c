/* Fuzzing the first look at what a stranger sends: bytes to lines, lines through the scanner.
 *
 * The first byte says at which sizes the rest arrives, the others are the stream. Each line is
 * read from a block of exactly its size. What must hold whatever comes: the same lines however
 * the bytes arrive, and the scanner's two forms of one mind. What is made of a line is
 * fuzz_wire.c's. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wire/frame.h"
#include "wire/scan.h"
#include "wire/scanner.h"

#define FUZZ_LINE_BYTES_MAX 256

bool plain_value(struct scanner *scanner, unsigned depth); /* scanner_plain.c */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(condition)                                                                        \
    do {                                                                                       \
        if (!(condition)) {                                                                    \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                    \
            abort();                                                                           \
        }                                                                                      \
    } while (0)

static bool is_document(struct span text) {
    struct scan_error error = {SIZE_MAX, NULL};
    struct span value;
    bool good = scan_document(text, &value, &error);
    MUST(good || (error.offset <= text.size && error.reason != NULL));
    return good;
}

static void check_plain(struct span text) {
    struct scanner fast = scanner_of(text);
    struct scanner plain = fast;
    MUST(scanner_value(&fast, 0) == plain_value(&plain, 0));
    MUST(fast.at == plain.at);
}

static void unescape(struct span raw, struct buffer *text) {
    buffer_clear(text);
    if (raw.size > 0) {
        size_t bytes = scanner_decode(raw, false, buffer_reserve(text, raw.size));
        MUST(bytes <= raw.size);
        buffer_extend(text, bytes);
    }
}

/* Walk all of a valid value, a level deep, and unescape what is a string. */
static void check_walk(struct span value) {
    static struct buffer text;
    struct span key;
    struct span inner;
    size_t at = 0;
    if (scan_kind(value) == SCAN_OBJECT) {
        while (scan_next_member(value, &at, &key, &inner)) {
            unescape(key, &text);
            MUST(is_document(inner));
        }
    } else if (scan_kind(value) == SCAN_ARRAY) {
        while (scan_next_element(value, &at, &inner)) {
            MUST(is_document(inner));
        }
    } else if (scan_kind(value) == SCAN_STRING) {
        static struct buffer again;
        buffer_clear(&again);
        unescape((struct span){value.data + 1, value.size - 2}, &text);
        scan_append_string(&again, buffer_span(&text));
        MUST(is_document(buffer_span(&again)));
    }
}

static void check_line(struct span line) {
    struct span value;
    struct scan_error error;
    char *block = malloc(line.size + 1); /* ends where the line ends */
    memcpy(block + 1, line.data, line.size);
    struct span copy = {block + 1, line.size};
    bool document = scan_document(copy, &value, &error);
    MUST(!document || !frame_looks_like_http(copy));
    check_plain(copy);
    if (document) {
        check_walk(value);
    }
    free(block);
}

/* Feed the stream `step` bytes at a time. The lines go to `lines`; with `check` each is read.
 */
static void feed(struct span stream, size_t step, struct buffer *lines, bool check) {
    struct frame frame = {0};
    struct span line;
    size_t consumed;
    size_t start = 0;
    size_t end = 0;
    enum frame_result result = FRAME_MORE;
    buffer_clear(lines);
    while (result == FRAME_LINE || end < stream.size) {
        if (result == FRAME_MORE) {
            end = stream.size - end < step ? stream.size : end + step;
        }
        struct span input = {stream.data + start, end - start};
        result = frame_next(&frame, input, FUZZ_LINE_BYTES_MAX, &line, &consumed);
        if (result == FRAME_TOO_LONG) {
            buffer_append_text(lines, "too long");
            return;
        }
        if (result == FRAME_LINE) {
            buffer_append(lines, line.data, line.size + 1);
            start += consumed;
            if (check) {
                check_line(line);
            }
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct buffer once;
    static struct buffer pieces;
    if (size < 1) {
        return 0;
    }
    char *text = malloc(size);
    memcpy(text, data + 1, size - 1);
    text[size - 1] = '\n';
    struct span stream = {text, size};
    feed(stream, SIZE_MAX, &once, true);
    feed(stream, (size_t)data[0] + 1, &pieces, false);
    MUST(span_equal(buffer_span(&once), buffer_span(&pieces)));
    free(text);
    return 0;
}
