/* A whole member without Python: a machine that returns its input, hosted on real threads,
 * sockets and files. What a request must answer in detail is tested elsewhere; here it is that
 * everything is carried, ends, and is freed (run it under the address and the thread
 * sanitizer). */
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/memory.h"
#include "check.h"
#include "server/reader.h"
#include "server/server.h"
#include "server/writing.h"

#define CALL_TIMEOUT_MS 20000u

/* --- the machine ----------------------------------------------------------------------- */

struct host {
    struct server *server;
    pthread_t thread;
};

static const struct span PIECES[] = {{"{\"pieces\":2}", 12}, {"[\"the second\"]", 14}};

static void write_pieces(struct writer *writer) {
    struct error error = {0};
    for (size_t i = 0; i < 2; i++) {
        snapshot_stream_open_line(&writer->stream);
        buffer_append_span(&writer->stream.out, PIECES[i]);
        snapshot_stream_close_line(&writer->stream);
        CHECK(writer_flush(writer, &error) == STATUS_OK);
    }
    CHECK(writer_end(writer, &error) == STATUS_OK);
}

/* By this thread and by a process in turn, as a machine of Python's may. */
static void take_snapshot(struct server *server, struct span header_line) {
    static atomic_uint count;
    struct writing *writing = server_writing(server);
    struct writer writer;
    writing_start(writing, header_line, &writer);
    if (atomic_fetch_add(&count, 1) % 2 == 0) {
        write_pieces(&writer);
        writing_finish(writing, STATUS_OK, "");
    } else {
        sigset_t mask;
        pthread_sigmask(SIG_SETMASK, NULL, &mask);
        pid_t parent = getpid();
        pid_t pid = fork();
        if (pid == 0) {
            writing_isolate(writing, parent, &mask);
            write_pieces(&writer);
            writing_finish(writing, STATUS_OK, "");
            _exit(0);
        }
        CHECK(pid > 0);
        writing_forked(writing, pid);
    }
    writer_clear(&writer);
}

static void restore(struct apply_item *item) {
    struct reader *reader = reader_of(item->cargo);
    struct error error = {0};
    struct span json;
    bool ended = false;
    for (size_t i = 0; i < 2; i++) {
        CHECK(reader_next(reader, &json, &ended, &error) == STATUS_OK && !ended);
        CHECK(span_equal(json, PIECES[i]));
    }
    CHECK(reader_next(reader, &json, &ended, &error) == STATUS_OK && ended);
}

/* Commands and queries return their input; the state is one piece, and restoring it does
 * nothing. */
static void run_item(struct server *server, struct apply_batch *batch,
                     struct apply_item *item) {
    struct span input = apply_item_input(batch, item);
    item->outcome = APPLY_DONE;
    item->output_offset = batch->output.size;
    switch (item->kind) {
    case APPLY_COMMAND:
    case APPLY_QUERY:
    case APPLY_LOCAL_QUERY:
        buffer_append_span(&batch->output, input);
        break;
    case APPLY_STATE:
        buffer_append_text(&batch->output, "{\"pieces\":2}\n[\"the second\"]\n");
        break;
    case APPLY_SNAPSHOT:
        take_snapshot(server, input);
        break;
    case APPLY_RESTORE:
        restore(item);
        break;
    case APPLY_NOTICE:
        fprintf(stderr, "  %.*s\n", (int)input.size, input.data);
        break;
    }
    item->output_size = batch->output.size - item->output_offset;
}

static void *apply_loop(void *argument) {
    struct server *server = argument;
    bool stopped = false;
    while (!stopped) {
        struct apply_batch *batch = server_wait_batch(server, 100, &stopped);
        for (uint32_t i = 0; batch != NULL && i < batch->count; i++) {
            run_item(server, batch, &batch->items[i]);
        }
        if (batch != NULL) {
            server_finish_batch(server, batch);
        }
    }
    return NULL;
}

static void host_open(struct host *host, const char *address, const char *data_path) {
    struct server_options options = {.address = address, .data_path = data_path, .sync = true};
    struct error error = {0};
    enum status status = server_open(&options, &host->server, &error);
    if (status != STATUS_OK) {
        fprintf(stderr, "%s\n", error.text);
    }
    CHECK(status == STATUS_OK);
    CHECK(server_start(host->server, &error) == STATUS_OK);
    CHECK(pthread_create(&host->thread, NULL, apply_loop, host->server) == 0);
}

static void host_stop(struct host *host) {
    server_stop(host->server);
    CHECK(pthread_join(host->thread, NULL) == 0);
    struct error error = {0};
    CHECK(server_exit_status(host->server, &error) == STATUS_OK);
}

static void host_close(struct host *host) {
    host_stop(host);
    server_close(host->server);
}

/* --- asking ---------------------------------------------------------------------------- */

static void ask(struct host *host, const char *request, const char *expected) {
    struct buffer response;
    buffer_init(&response);
    struct span line = {request, strlen(request)};
    CHECK(server_call(host->server, line, CALL_TIMEOUT_MS, &response) == STATUS_OK);
    buffer_append_char(&response, '\0');
    if (strstr(buffer_peek(&response), expected) == NULL) {
        fprintf(stderr, "%s\n  gave %s\n  not  %s\n", request, buffer_peek(&response),
                expected);
        CHECK(false);
    }
    buffer_free(&response);
}

static void create_cluster(struct host *host) {
    ask(host, "{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"CreateCluster\"}", "\"members\":[");
}

static int dial(const char *address) {
    const char *colon = strrchr(address, ':');
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 10)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0);
    return fd;
}

/* Send everything, close the sending side, count the lines of what comes until the end. */
static size_t exchange(int fd, struct buffer *requests) {
    char piece[65536];
    size_t lines = 0;
    while (true) {
        bool sending = buffer_count(requests) > 0;
        struct pollfd wait = {fd, (short)(POLLIN | (sending ? POLLOUT : 0)), 0};
        CHECK(poll(&wait, 1, (int)CALL_TIMEOUT_MS) == 1);
        if ((wait.revents & POLLOUT) != 0) {
            ssize_t sent =
                send(fd, buffer_peek(requests), buffer_count(requests), MSG_DONTWAIT);
            CHECK(sent > 0);
            buffer_consume(requests, (size_t)sent);
            if (buffer_count(requests) == 0) {
                CHECK(shutdown(fd, SHUT_WR) == 0);
            }
        }
        if ((wait.revents & (POLLIN | POLLHUP)) != 0) {
            ssize_t got = recv(fd, piece, sizeof(piece), 0);
            CHECK(got >= 0);
            if (got == 0) {
                return lines;
            }
            for (ssize_t i = 0; i < got; i++) {
                lines += piece[i] == '\n';
            }
        }
    }
}

static void apply_many(struct host *host, unsigned count, size_t input_bytes) {
    struct buffer requests;
    buffer_init(&requests);
    for (unsigned i = 0; i < count; i++) {
        buffer_append_format(&requests,
                             "{\"jsonrpc\":\"2.0\",\"id\":%u,\"method\":\"Apply\",\"params\":"
                             "{\"kind\":\"%s\",\"input\":\"",
                             i, i % 2 == 0 ? "Command" : "Query");
        memset(buffer_reserve(&requests, input_bytes), 'x', input_bytes);
        buffer_extend(&requests, input_bytes);
        buffer_append_text(&requests, "\"}}\n");
    }
    int fd = dial(server_address(host->server));
    CHECK(exchange(fd, &requests) == count);
    close(fd);
    buffer_free(&requests);
}

/* --- the tests ------------------------------------------------------------------------- */

static void test_open_and_close(void) {
    struct server_options options = {.address = "127.0.0.1:0"};
    struct error error = {0};
    struct server *server = NULL;
    CHECK(server_open(&options, &server, &error) == STATUS_OK);
    struct server_options same = {.address = server_address(server)};
    struct server *second = NULL;
    CHECK(server_open(&same, &second, &error) == STATUS_LOCKED);
    CHECK(strstr(error.text, same.address) != NULL && second == NULL);
    struct buffer json;
    buffer_init(&json);
    server_peek_state(server, &json);
    CHECK(buffer_count(&json) > 0);
    buffer_free(&json);
    server_stop(server);
    server_close(server);
}

static void test_addresses(void) {
    static const char *const refused[] = {"0.0.0.0:0", "[::]:0", "127.0.0.1", "127.0.0.1:65536",
                                          "::1:0",     "",       ":0",        "127.0.0.1:x"};
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        struct server_options options = {.address = refused[i]};
        struct error error = {0};
        struct server *server = NULL;
        CHECK(server_open(&options, &server, &error) == STATUS_INVALID);
        CHECK(error.text[0] != '\0');
    }
    struct server_options named = {.address = "localhost:0"};
    struct error error = {0};
    struct server *server = NULL;
    CHECK(server_open(&named, &server, &error) == STATUS_OK);
    CHECK(strncmp(server_address(server), "localhost:", 10) == 0);
    CHECK(strcmp(server_address(server), "localhost:0") != 0);
    server_close(server);
}

static void test_requests(void) {
    struct host host;
    host_open(&host, "127.0.0.1:0", NULL);
    create_cluster(&host);
    ask(&host,
        "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"Apply\",\"params\":{\"kind\":\"Command\","
        "\"input\":{\"a\":0.1}}}",
        "{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{\"a\":0.1}}");
    ask(&host, "{\"jsonrpc\":\"2.0\",\"id\":8,\"method\":\"GetServerState\"}", "\"Leader\"");
    ask(&host, "{\"jsonrpc\":\"2.0\",\"id\":9,\"method\":\"TakeSnapshot\"}",
        "\"snapshot_index\":");
    apply_many(&host, 2000, 10);
    apply_many(&host, 100, 200000); /* more than the system and the limits hold at once */
    struct buffer json;
    buffer_init(&json);
    server_peek_state(host.server, &json);
    buffer_append_char(&json, '\0');
    CHECK(strstr(buffer_peek(&json), "\"role\":\"Leader\"") != NULL);
    buffer_free(&json);
    host_close(&host);
}

/* Whoever gives up leaves safely, and whoever comes late is told so. */
static void test_calls_that_get_no_answer(void) {
    struct host host;
    host_open(&host, "127.0.0.1:0", NULL);
    struct buffer response;
    buffer_init(&response);
    struct span notification = SPAN("{\"jsonrpc\":\"2.0\",\"method\":\"GetServerState\"}");
    CHECK(server_call(host.server, notification, 20, &response) == STATUS_TIMEOUT);
    CHECK(server_call(host.server, notification, 0, &response) == STATUS_TIMEOUT);
    CHECK(server_call(host.server, SPAN("POST / HTTP/1.1"), 5000, &response) == STATUS_CLOSED);
    host_stop(&host);
    CHECK(server_call(host.server, notification, 5000, &response) == STATUS_CLOSED);
    server_close(host.server);
    buffer_free(&response);
}

/* Clients that are connected, half way through a line, or not reading do not hold up the end.
 */
static void test_stop_with_clients(void) {
    struct host host;
    host_open(&host, "127.0.0.1:0", NULL);
    create_cluster(&host);
    int fds[50];
    for (size_t i = 0; i < 50; i++) {
        fds[i] = dial(server_address(host.server));
        CHECK(send(fds[i], "{\"jsonrpc\":", 11, 0) == 11);
    }
    close(fds[0]);
    host_close(&host);
    for (size_t i = 1; i < 50; i++) {
        close(fds[i]);
    }
}

static void test_second_stop_is_at_once(void) {
    struct host host;
    host_open(&host, "127.0.0.1:0", NULL);
    create_cluster(&host);
    server_stop(host.server);
    host_close(&host);
}

/* Three members by sockets alone; the third comes through a snapshot's door or the log's. */
static void test_three_members(void) {
    struct host hosts[3];
    for (size_t i = 0; i < 3; i++) {
        host_open(&hosts[i], "127.0.0.1:0", NULL);
    }
    create_cluster(&hosts[0]);
    for (size_t i = 1; i < 3; i++) {
        struct buffer request;
        buffer_init(&request);
        buffer_append_format(
            &request,
            "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"AddServer\",\"params\":"
            "{\"addr\":\"%s\"}}",
            server_address(hosts[i].server));
        buffer_append_char(&request, '\0');
        ask(&hosts[0], buffer_peek(&request), "\"members\":[");
        buffer_free(&request);
    }
    for (size_t i = 0; i < 3; i++) {
        apply_many(&hosts[i], 500, 20);
    }
    for (size_t i = 0; i < 3; i++) {
        host_close(&hosts[i]);
    }
}

static void test_directory(const char *folder) {
    char path[4096];
    char address[ADDRESS_BYTES_MAX];
    snprintf(path, sizeof(path), "%s/member", folder);
    struct host host;
    host_open(&host, "127.0.0.1:0", path);
    snprintf(address, sizeof(address), "%s", server_address(host.server));
    create_cluster(&host);
    apply_many(&host, 500, 100);
    ask(&host, "{\"jsonrpc\":\"2.0\",\"id\":9,\"method\":\"TakeSnapshot\"}",
        "\"snapshot_index\":");
    apply_many(&host, 500, 100);
    host_close(&host);
    host_open(&host, address, path);
    apply_many(&host, 500, 100);
    host_close(&host);
}

int main(int count, char **arguments) {
    signal(SIGPIPE, SIG_IGN); /* of this thread's own sockets */
    test_open_and_close();
    test_addresses();
    test_calls_that_get_no_answer();
    test_requests();
    test_stop_with_clients();
    test_second_stop_is_at_once();
    test_three_members();
    if (count > 1) {
        test_directory(arguments[1]);
    }
    CHECK(memory_live_count() == 0);
    printf("ok\n");
    return 0;
}
