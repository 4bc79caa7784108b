/* A load generator: requests from a file, so many in flight over so many connections.
 *
 *     load FORMAT FILE IN_FLIGHT CONNECTIONS IDLE TIMEOUT_S PATH PORT...
 *
 * FORMAT is line, resp or grpc (PATH is that of the gRPC method, else "-"). Connections go to
 * the ports of 127.0.0.1 in turn, as many IDLE ones besides send nothing. A request is sent as
 * soon as there are fewer than IN_FLIGHT, on the connection that has waited longest. When no
 * answer comes for TIMEOUT_S, what is left counts as unanswered. The result is one line of
 * JSON; times in milliseconds, from the moment at which a request was put into a write. */
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define EVENTS_MAX 512
#define READ_BYTES (1u << 20)
#define CONNECTIONS_MAX 60000u

static const struct format *const FORMATS[] = {&LINE_FORMAT, &RESP_FORMAT, &GRPC_FORMAT};

static struct {
    const struct format *format;
    struct request *requests;
    uint32_t request_count;
    uint32_t next;     /* the request that is sent next */
    uint32_t answered; /* so far */
    uint32_t errors;
    uint32_t strange; /* answers to what was not asked, or asked once and answered twice */
    uint32_t in_flight;
    uint32_t in_flight_max;
    uint32_t window; /* of one connection */
    uint64_t first_ns;
    uint64_t last_ns;
    uint64_t now_ns; /* of this round */
    int epoll;
    struct conn *conns;
    uint32_t conn_count;
    struct conn *ready_first;
    struct conn *ready_last;
    struct conn *dirty;
    bool error_shown;
} load;

void load_die(const char *text) {
    fprintf(stderr, "load: %s%s%s\n", text, errno ? ": " : "", errno ? strerror(errno) : "");
    exit(1);
}

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void *must(void *memory) {
    if (memory == NULL) {
        load_die("out of memory");
    }
    return memory;
}

/* --- bytes --- */

void bytes_append(struct bytes *bytes, const void *data, size_t size) {
    if (bytes->start == bytes->size) {
        bytes->start = bytes->size = 0;
    }
    if (bytes->size + size > bytes->capacity && bytes->start > bytes->size / 2) {
        memmove(bytes->data, bytes->data + bytes->start, bytes->size - bytes->start);
        bytes->size -= bytes->start;
        bytes->start = 0;
    }
    if (bytes->size + size > bytes->capacity) {
        bytes->capacity = 2 * (bytes->size + size);
        bytes->data = must(realloc(bytes->data, bytes->capacity));
    }
    memcpy(bytes->data + bytes->size, data, size);
    bytes->size += size;
}

void bytes_consume(struct bytes *bytes, size_t size) {
    bytes->start += size;
}

/* --- requests --- */

/* The file stays mapped: nothing of a request is copied but into a connection's output. */
static void read_requests(const char *name) {
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    struct stat about;
    if (fd < 0 || fstat(fd, &about) != 0 || about.st_size == 0) {
        load_die(name);
    }
    size_t size = (size_t)about.st_size;
    const char *text = mmap(NULL, size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
    if (text == MAP_FAILED) {
        load_die(name);
    }
    close(fd);
    uint32_t capacity = 0;
    for (size_t at = 0; at + sizeof(uint32_t) <= size;) {
        uint32_t bytes;
        memcpy(&bytes, text + at, sizeof(bytes));
        at += sizeof(bytes);
        if (bytes > size - at) {
            load_die("the file of requests is cut short");
        }
        if (load.request_count == capacity) {
            capacity = capacity == 0 ? 1024 : 2 * capacity;
            load.requests = must(realloc(load.requests, capacity * sizeof(*load.requests)));
        }
        load.requests[load.request_count++] =
            (struct request){.data = text + at, .size = bytes};
        at += bytes;
    }
}

void load_answered(struct conn *conn, uint32_t number, bool error, const char *text,
                   size_t size) {
    if (number >= load.next || load.requests[number].answered) {
        load.strange++;
        return;
    }
    load.requests[number].answered = true;
    load.requests[number].answered_ns = load.now_ns;
    load.last_ns = load.now_ns;
    load.answered++;
    load.in_flight--;
    conn->in_flight--;
    if (error) {
        load.errors++;
        if (!load.error_shown) {
            load.error_shown = true;
            fprintf(stderr, "load: first error: %.*s\n", (int)(size < 300 ? size : 300), text);
        }
    }
    load_wake(conn);
}

/* --- connections --- */

void load_wake(struct conn *conn) {
    if (!conn->dirty && conn->out.start < conn->out.size && !conn->polls_out) {
        conn->dirty = true;
        conn->next_dirty = load.dirty;
        load.dirty = conn;
    }
    if (!conn->ready && conn->in_flight < load.window) {
        conn->ready = true;
        conn->next_ready = NULL;
        if (load.ready_first == NULL) {
            load.ready_first = conn;
        } else {
            load.ready_last->next_ready = conn;
        }
        load.ready_last = conn;
    }
}

static int connect_to(int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)) != 0) {
        load_die("cannot connect");
    }
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (fcntl(fd, F_SETFL, O_NONBLOCK) != 0) {
        load_die("fcntl");
    }
    return fd;
}

static void poll_for(struct conn *conn, int operation, bool out) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = conn};
    event.events |= out ? (uint32_t)EPOLLOUT : 0u;
    if (epoll_ctl(load.epoll, operation, conn->fd, &event) != 0) {
        load_die("epoll_ctl");
    }
    conn->polls_out = out;
}

static void open_conns(uint32_t count, uint32_t idle, int port_count, char **ports) {
    load.conns = must(calloc(count, sizeof(*load.conns)));
    load.conn_count = count;
    load.epoll = epoll_create1(EPOLL_CLOEXEC);
    for (uint32_t i = 0; i < idle; i++) {
        connect_to(atoi(ports[i % (uint32_t)port_count])); /* closed by our end */
    }
    for (uint32_t i = 0; i < count; i++) {
        struct conn *conn = &load.conns[i];
        conn->fd = connect_to(atoi(ports[i % (uint32_t)port_count]));
        poll_for(conn, EPOLL_CTL_ADD, false);
        if (load.format->open != NULL) {
            load.format->open(conn);
        }
        load_wake(conn);
    }
}

static void write_out(struct conn *conn) {
    struct bytes *out = &conn->out;
    ssize_t sent = send(conn->fd, out->data + out->start, out->size - out->start, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) {
        load_die("send");
    }
    bytes_consume(out, sent > 0 ? (size_t)sent : 0);
    bool waits = out->start < out->size;
    if (waits != conn->polls_out) {
        poll_for(conn, EPOLL_CTL_MOD, waits);
    }
}

static void write_dirty(void) {
    while (load.dirty != NULL) {
        struct conn *conn = load.dirty;
        load.dirty = conn->next_dirty;
        conn->dirty = false;
        if (!conn->polls_out) {
            write_out(conn);
        }
    }
}

static void read_in(struct conn *conn) {
    static char piece[READ_BYTES];
    ssize_t got = recv(conn->fd, piece, sizeof(piece), 0);
    if (got == 0) {
        errno = 0;
        load_die("the server closed a connection");
    }
    if (got < 0) {
        if (errno != EAGAIN) {
            load_die("recv");
        }
        return;
    }
    bytes_append(&conn->in, piece, (size_t)got);
    load.format->answers(conn);
}

/* --- the run --- */

static void note_sent(struct conn *conn, uint32_t number) {
    if (conn->sent_count == conn->sent_capacity) {
        conn->sent_capacity = conn->sent_capacity == 0 ? 16 : 2 * conn->sent_capacity;
        conn->sent = must(realloc(conn->sent, conn->sent_capacity * sizeof(*conn->sent)));
    }
    conn->sent[conn->sent_count++] = number;
    conn->in_flight++;
    load.in_flight++;
}

/* As many as may be in flight, each on the connection that is longest without one. */
static void send_more(void) {
    while (load.next < load.request_count && load.in_flight < load.in_flight_max &&
           load.ready_first != NULL) {
        struct conn *conn = load.ready_first;
        struct request *request = &load.requests[load.next];
        load.ready_first = conn->next_ready;
        conn->ready = false;
        if (load.format->may_send != NULL && !load.format->may_send(conn, request)) {
            continue; /* it is woken when there is room */
        }
        load.format->send(conn, request);
        request->sent_ns = load.now_ns;
        note_sent(conn, load.next++);
        load_wake(conn);
    }
}

static void run(int timeout_ms) {
    static struct epoll_event events[EVENTS_MAX];
    load.first_ns = load.last_ns = load.now_ns = now_ns();
    send_more();
    write_dirty();
    while (load.answered < load.request_count) {
        int count = epoll_wait(load.epoll, events, EVENTS_MAX, timeout_ms);
        load.now_ns = now_ns();
        if (count < 0 && errno != EINTR) {
            load_die("epoll_wait");
        }
        if (load.now_ns - load.last_ns > (uint64_t)timeout_ms * 1000000u) {
            return;
        }
        for (int i = 0; i < count; i++) {
            struct conn *conn = events[i].data.ptr;
            if (events[i].events & EPOLLOUT) {
                write_out(conn);
            }
            if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
                read_in(conn);
            }
        }
        send_more();
        write_dirty();
    }
}

/* --- what came of it --- */

static int compare(const void *a, const void *b) {
    uint64_t left = *(const uint64_t *)a;
    uint64_t right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

static double percentile(const uint64_t *sorted, uint32_t count, double percent) {
    uint32_t at = (uint32_t)(count * percent / 100);
    return count == 0 ? 0 : (double)sorted[at < count ? at : count - 1] / 1e6;
}

static void report(double processor_before_s, double processor_s) {
    uint64_t *took = must(calloc(load.request_count, sizeof(*took)));
    uint32_t count = 0;
    for (uint32_t i = 0; i < load.request_count; i++) {
        if (load.requests[i].answered) {
            took[count++] = load.requests[i].answered_ns - load.requests[i].sent_ns;
        }
    }
    qsort(took, count, sizeof(*took), compare);
    double seconds = (double)(load.last_ns - load.first_ns) / 1e9;
    printf("{\"rate\":%.1f,\"p50_ms\":%.4f,\"p90_ms\":%.4f,\"p99_ms\":%.4f,"
           "\"p999_ms\":%.4f,\"max_ms\":%.4f,\"seconds\":%.6f,\"answered\":%u,"
           "\"errors\":%u,\"unanswered\":%u,\"strange\":%u,\"generator_s\":%.4f}\n",
           seconds > 0 ? count / seconds : 0, percentile(took, count, 50),
           percentile(took, count, 90), percentile(took, count, 99),
           percentile(took, count, 99.9), percentile(took, count, 100), seconds, count,
           load.errors, load.request_count - load.answered, load.strange,
           processor_s - processor_before_s);
    free(took);
}

static double processor_seconds(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static uint32_t number(const char *text, uint32_t most) {
    unsigned long value = strtoul(text, NULL, 10);
    if (value > most) {
        load_die("a number is too large");
    }
    return (uint32_t)value;
}

int main(int argc, char **argv) {
    if (argc < 9) {
        load_die("usage: load FORMAT FILE IN_FLIGHT CONNECTIONS IDLE TIMEOUT_S PATH PORT...");
    }
    for (size_t i = 0; i < sizeof(FORMATS) / sizeof(FORMATS[0]); i++) {
        if (strcmp(argv[1], FORMATS[i]->name) == 0) {
            load.format = FORMATS[i];
        }
    }
    read_requests(argv[2]);
    load.in_flight_max = number(argv[3], UINT32_MAX - 1);
    uint32_t conns = number(argv[4], CONNECTIONS_MAX);
    if (load.format == NULL || load.in_flight_max == 0 || conns == 0) {
        load_die("unknown format, nothing in flight, or no connection");
    }
    load.window = (load.in_flight_max + conns - 1) / conns;
    grpc_set_path(argv[7]);
    open_conns(conns, number(argv[5], CONNECTIONS_MAX), argc - 8, argv + 8);
    double before_s = processor_seconds();
    run((int)number(argv[6], 86400) * 1000);
    report(before_s, processor_seconds());
    return 0;
}
