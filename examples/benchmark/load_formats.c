/* Requests and answers by lines: JSON-RPC over JSON Lines, and the protocol of Redis. */
#include <string.h>

#include "load.h"

static void send_as_it_is(struct conn *conn, const struct request *request) {
    bytes_append(&conn->out, request->data, request->size);
}

/* --- JSON lines --- */

/* {"jsonrpc":"2.0","id":N,"result":... or "error":...: answers may come in any order. */
static void take_line(struct conn *conn, const char *line, size_t size) {
    static const char ID[] = "\"id\":";
    const char *id = memmem(line, size < 64 ? size : 64, ID, sizeof(ID) - 1);
    const char *end = line + size;
    if (id == NULL) {
        load_answered(conn, NO_REQUEST, true, line, size);
        return;
    }
    uint32_t number = 0;
    const char *at = id + sizeof(ID) - 1;
    for (; at < end && *at >= '0' && *at <= '9'; at++) {
        number = number * 10 + (uint32_t)(*at - '0');
    }
    bool error = end - at > 8 && memcmp(at, ",\"error\"", 8) == 0;
    load_answered(conn, number, error, line, size);
}

static void line_answers(struct conn *conn) {
    struct bytes *in = &conn->in;
    const char *lf;
    while (in->start < in->size &&
           (lf = memchr(in->data + in->start, '\n', in->size - in->start)) != NULL) {
        const char *line = in->data + in->start;
        take_line(conn, line, (size_t)(lf - line));
        bytes_consume(in, (size_t)(lf - line) + 1);
    }
}

const struct format LINE_FORMAT = {
    .name = "line", .send = send_as_it_is, .answers = line_answers};

/* --- Redis --- */

/* The length of the answer at `text`, with its line ends; 0 while it is not whole. */
static size_t resp_size(const char *text, size_t size) {
    const char *lf = memchr(text, '\n', size);
    if (lf == NULL) {
        return 0;
    }
    size_t head = (size_t)(lf - text) + 1;
    if (text[0] != '$' || text[1] == '-') {
        return head;
    }
    size_t bulk = 0;
    for (const char *at = text + 1; *at >= '0' && *at <= '9'; at++) {
        bulk = bulk * 10 + (size_t)(*at - '0');
    }
    return size >= head + bulk + 2 ? head + bulk + 2 : 0;
}

static void resp_answers(struct conn *conn) {
    struct bytes *in = &conn->in;
    size_t size;
    while (in->start < in->size &&
           (size = resp_size(in->data + in->start, in->size - in->start)) > 0) {
        const char *text = in->data + in->start;
        uint32_t number = conn->answered_count < conn->sent_count
                              ? conn->sent[conn->answered_count++]
                              : NO_REQUEST;
        load_answered(conn, number, text[0] == '-', text, size);
        bytes_consume(in, size);
    }
}

const struct format RESP_FORMAT = {
    .name = "resp", .send = send_as_it_is, .answers = resp_answers};
