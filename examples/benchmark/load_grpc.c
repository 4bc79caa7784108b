/* Unary gRPC calls over HTTP/2 in clear text, as little of both as a load needs (RFC 9113).
 *
 * The n-th call of a connection is stream 2n + 1. Headers go out as literals that never enter
 * a table; those that come in are not decoded: an answer without a message is an error, for a
 * unary call that fails has trailers alone. What the server sends is far less than the window
 * that it is given at the start, so no update follows. A request must fit into the window that
 * HTTP/2 gives a new stream (65,535 bytes). */
#include <string.h>

#include "load.h"

#define FRAME_HEADER_BYTES 9u
#define MESSAGE_HEADER_BYTES 5u /* of gRPC: not compressed, and the length */
#define WINDOW_FIRST 65535
#define WINDOW_MAX 0x7fffffffu

enum { DATA = 0, HEADERS = 1, SETTINGS = 4, PING = 6, GOAWAY = 7, WINDOW_UPDATE = 8 };
enum { END_STREAM = 1, ACK = 1, END_HEADERS = 4 };

static char headers[512];
static size_t headers_bytes;

static void header(const void *data, size_t size) {
    if (headers_bytes + size > sizeof(headers)) {
        load_die("the path is too long");
    }
    memcpy(headers + headers_bytes, data, size);
    headers_bytes += size;
}

static void header_text(const char *text) {
    char size = (char)strlen(text); /* below 127: one byte in HPACK */
    header(&size, 1);
    header(text, strlen(text));
}

void grpc_set_path(const char *path) {
    if (strlen(path) > 120) {
        load_die("the path is too long");
    }
    headers_bytes = 0;
    header("\x83\x86\x04", 3); /* :method POST, :scheme http; :path is */
    header_text(path);
    header("\x01", 1); /* :authority is */
    header_text("127.0.0.1");
    header("\x0f\x10", 2); /* content-type is */
    header_text("application/grpc");
    header("\x00", 1);
    header_text("te");
    header_text("trailers");
}

static void put_u32(unsigned char *at, uint32_t value) {
    at[0] = (unsigned char)(value >> 24);
    at[1] = (unsigned char)(value >> 16);
    at[2] = (unsigned char)(value >> 8);
    at[3] = (unsigned char)value;
}

static uint32_t get_u32(const unsigned char *at) {
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static void frame(struct conn *conn, uint32_t size, int kind, int flags, uint32_t stream) {
    unsigned char head[FRAME_HEADER_BYTES];
    put_u32(head, size << 8);
    head[3] = (unsigned char)kind;
    head[4] = (unsigned char)flags;
    put_u32(head + 5, stream);
    bytes_append(&conn->out, head, sizeof(head));
}

static void grpc_open(struct conn *conn) {
    static const char PREFACE[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    unsigned char update[4];
    bytes_append(&conn->out, PREFACE, sizeof(PREFACE) - 1);
    frame(conn, 0, SETTINGS, 0, 0);
    frame(conn, sizeof(update), WINDOW_UPDATE, 0, 0);
    put_u32(update, WINDOW_MAX - WINDOW_FIRST);
    bytes_append(&conn->out, update, sizeof(update));
    conn->send_window = WINDOW_FIRST;
}

static bool grpc_may_send(const struct conn *conn, const struct request *request) {
    if (request->size + MESSAGE_HEADER_BYTES > WINDOW_FIRST) {
        load_die("a request is larger than a stream's window");
    }
    return conn->send_window >= (int64_t)(request->size + MESSAGE_HEADER_BYTES);
}

#define FRAME_DATA_MAX 16384u /* unless the server says otherwise */

static void grpc_send(struct conn *conn, const struct request *request) {
    uint32_t stream = 2 * conn->sent_count + 1;
    unsigned char head[MESSAGE_HEADER_BYTES] = {0};
    put_u32(head + 1, request->size);
    frame(conn, (uint32_t)headers_bytes, HEADERS, END_HEADERS, stream);
    bytes_append(&conn->out, headers, headers_bytes);
    conn->send_window -= request->size + MESSAGE_HEADER_BYTES;
    uint32_t first = FRAME_DATA_MAX - MESSAGE_HEADER_BYTES;
    uint32_t size = request->size < first ? request->size : first;
    frame(conn, size + MESSAGE_HEADER_BYTES, DATA, size == request->size ? END_STREAM : 0,
          stream);
    bytes_append(&conn->out, head, sizeof(head));
    bytes_append(&conn->out, request->data, size);
    for (uint32_t at = size; at < request->size; at += size) {
        uint32_t left = request->size - at;
        size = left < FRAME_DATA_MAX ? left : FRAME_DATA_MAX;
        frame(conn, size, DATA, size == left ? END_STREAM : 0, stream);
        bytes_append(&conn->out, request->data + at, size);
    }
}

/* --- answers --- */

/* Of each stream whether a message has come: bit 31 of what `sent` has for it. */
#define HAS_MESSAGE 0x80000000u

static void of_stream(struct conn *conn, uint32_t stream, int kind, int flags, uint32_t size) {
    uint32_t at = (stream - 1) / 2;
    if (at >= conn->sent_count) {
        return;
    }
    if (kind == DATA && size > 0) {
        conn->sent[at] |= HAS_MESSAGE;
    }
    if (flags & END_STREAM) {
        bool error = (conn->sent[at] & HAS_MESSAGE) == 0;
        load_answered(conn, conn->sent[at] & ~HAS_MESSAGE, error, "a gRPC status", 13);
    }
}

static void of_connection(struct conn *conn, int kind, int flags, const unsigned char *payload,
                          uint32_t size) {
    if (kind == SETTINGS && !(flags & ACK)) {
        frame(conn, 0, SETTINGS, ACK, 0);
    } else if (kind == PING && !(flags & ACK)) {
        frame(conn, size, PING, ACK, 0);
        bytes_append(&conn->out, payload, size);
    } else if (kind == WINDOW_UPDATE && size == 4) {
        conn->send_window += get_u32(payload);
    } else if (kind == GOAWAY) {
        load_die("the server ends the connection");
    }
    load_wake(conn);
}

static void grpc_answers(struct conn *conn) {
    struct bytes *in = &conn->in;
    while (in->size - in->start >= FRAME_HEADER_BYTES) {
        const unsigned char *head = (const unsigned char *)in->data + in->start;
        uint32_t size = get_u32(head) >> 8;
        if (in->size - in->start < FRAME_HEADER_BYTES + size) {
            return;
        }
        uint32_t stream = get_u32(head + 5) & WINDOW_MAX;
        if (stream == 0) {
            of_connection(conn, head[3], head[4], head + FRAME_HEADER_BYTES, size);
        } else if (head[3] == DATA || head[3] == HEADERS) {
            of_stream(conn, stream, head[3], head[4], size);
        }
        bytes_consume(in, FRAME_HEADER_BYTES + size);
    }
}

const struct format GRPC_FORMAT = {.name = "grpc",
                                   .open = grpc_open,
                                   .may_send = grpc_may_send,
                                   .send = grpc_send,
                                   .answers = grpc_answers};
