/* Fuzzing what a stranger can ask: lines to requests, requests to answers.
 *
 * Each line of the input is read from a block of exactly its size. What must hold whatever
 * comes: a request or a refusal that is well formed, an answer that is JSON, and the same
 * request where it is read by the form of a line before it. Framing and the
 * scanner are fuzz_scan.c's, what a node does with a request is fuzz_request.c's. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "same_request.h"
#include "wire/rpc_form.h"
#include "wire/scan.h"

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

static void check_request(const struct rpc_request *request) {
    static struct buffer out;
    buffer_clear(&out);
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
}

static void check_line(struct rpc_forms *forms, struct span line) {
    struct rpc_request request;
    struct rpc_request formed;
    struct span batch;
    bool document = is_document(line);
    enum rpc_shape shape = rpc_forms_read(forms, line, &formed, &batch);
    MUST(shape == rpc_read(line, &request, &batch));
    MUST(shape != RPC_SINGLE || same_request(&formed, &request));
    switch (shape) {
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct rpc_forms forms = {.latest = 0};
    while (size > 0) {
        const uint8_t *lf = memchr(data, '\n', size);
        size_t bytes = lf == NULL ? size : (size_t)(lf - data);
        char *block = malloc(bytes + 1); /* ends where the line ends */
        memcpy(block + 1, data, bytes);
        check_line(&forms, (struct span){block + 1, bytes});
        free(block);
        bytes += lf == NULL ? 0 : 1;
        data += bytes;
        size -= bytes;
    }
    return 0;
}
