/* Fuzzing what a stranger can send: bytes to lines, lines to requests, requests to answers.
 *
 * The first byte says at which sizes the rest arrives, the others are the stream. Each line is
 * read from a block of exactly its size. What must hold whatever comes: the same lines however
 * the bytes arrive, an answer that is JSON, and the scanner's two forms of one mind. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wire/frame.h"
#include "wire/rpc.h"
#include "wire/scan.h"
#include "wire/scanner.h"

#define FUZZ_LINE_BYTES_MAX 2048

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
    struct buffer text = {0};
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
        struct buffer again = {0};
        unescape((struct span){value.data + 1, value.size - 2}, &text);
        scan_append_string(&again, buffer_span(&text));
        MUST(is_document(buffer_span(&again)));
        buffer_free(&again);
    }
    buffer_free(&text);
}

static void check_request(const struct rpc_request *request) {
    struct buffer out = {0};
    struct span data = {request->data, strnlen(request->data, sizeof(request->data))};
    MUST(data.size < sizeof(request->data));
    MUST(data.size == 0 || is_document(data));
    MUST((request->code == RPC_OK) == (data.size == 0));
    if (request->code != RPC_OK) {
        rpc_write_error(&out, request->id, request->code, data, false);
    } else {
        struct span result = request->method == RPC_APPLY ? request->input : SPAN("null");
        rpc_write_result(&out, request->id, result, false);
    }
    MUST(is_document(buffer_span(&out)));
    buffer_free(&out);
}

static void check_line(struct span line) {
    struct rpc_request request;
    struct span batch;
    struct span value;
    struct scan_error error;
    bool http = frame_looks_like_http(line);
    bool document = scan_document(line, &value, &error);
    MUST(!http || !document);
    check_plain(line);
    if (document) {
        check_walk(value);
    }
    switch (rpc_read(line, &request, &batch)) {
    case RPC_BLANK:
        MUST(!document);
        break;
    case RPC_SINGLE:
        MUST(document == (request.code != RPC_PARSE_ERROR));
        check_request(&request);
        break;
    case RPC_BATCH:
        MUST(document);
        for (size_t at = 0; rpc_batch_next(batch, &at, &request);) {
            MUST(request.code != RPC_PARSE_ERROR);
            check_request(&request);
        }
        break;
    }
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
                char *copy = malloc(line.size + 1);
                memcpy(copy + 1, line.data, line.size);
                check_line((struct span){copy + 1, line.size});
                free(copy);
            }
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1) {
        return 0;
    }
    struct buffer once = {0};
    struct buffer pieces = {0};
    struct buffer text = {0};
    buffer_append(&text, data + 1, size - 1);
    buffer_append_char(&text, '\n');
    feed(buffer_span(&text), SIZE_MAX, &once, true);
    feed(buffer_span(&text), (size_t)data[0] + 1, &pieces, false);
    MUST(span_equal(buffer_span(&once), buffer_span(&pieces)));
    buffer_free(&once);
    buffer_free(&pieces);
    buffer_free(&text);
    return 0;
}
