/* The load generator's parts: connections, and the formats in which requests travel.
 *
 * One thread, epoll, one write a connection and round: the generator must cost less than what
 * it measures. It knows nothing of what a request means. */
#ifndef BENCHMARK_LOAD_H
#define BENCHMARK_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NO_REQUEST UINT32_MAX

struct bytes {
    char *data;
    size_t start; /* what is before it has been consumed */
    size_t size;
    size_t capacity;
};

/* A request as the file has it: 4 bytes of length (little-endian), then that many. */
struct request {
    const char *data;
    uint32_t size;
    bool answered;
    uint64_t sent_ns;
    uint64_t answered_ns;
};

struct conn {
    int fd;
    bool ready;     /* in the queue of those that may send */
    bool dirty;     /* in the list of those with bytes to write */
    bool polls_out; /* waits until the system takes more */
    uint32_t in_flight;
    uint32_t *sent; /* the requests that went out on it, in order */
    uint32_t sent_count;
    uint32_t sent_capacity;
    uint32_t answered_count; /* of `sent`, where answers come in order */
    int64_t send_window;     /* HTTP/2: bytes that the server takes now */
    struct bytes in;
    struct bytes out;
    struct conn *next_ready;
    struct conn *next_dirty;
};

/* What a format does. `answers` consumes what is whole in conn->in and calls load_answered(). */
struct format {
    const char *name;
    void (*open)(struct conn *conn);                                          /* may be NULL */
    bool (*may_send)(const struct conn *conn, const struct request *request); /* may be NULL */
    void (*send)(struct conn *conn, const struct request *request);
    void (*answers)(struct conn *conn);
};

extern const struct format LINE_FORMAT; /* JSON lines with the number of the request as "id" */
extern const struct format RESP_FORMAT; /* Redis: answers in order */
extern const struct format GRPC_FORMAT; /* unary calls over HTTP/2: a stream each */

/* load.c */
void bytes_append(struct bytes *bytes, const void *data, size_t size);
void bytes_consume(struct bytes *bytes, size_t size);
void load_answered(struct conn *conn, uint32_t request, bool error, const char *text,
                   size_t size);
void load_wake(struct conn *conn); /* it may send again, or has something to write */
void load_die(const char *text) __attribute__((noreturn));

/* load_grpc.c */
void grpc_set_path(const char *path); /* such as /etcdserverpb.KV/Put */

#endif
