/* The loop goes from thread to thread (server/crew.h) while machines and disks are fast, slow,
 * and stuck in turn, clients ask, snapshots are taken and members stop at any moment: run it
 * under the thread sanitizer. All is answered, once, commands reach each machine in order, and
 * nothing is left. */
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

#include "base/memory.h"
#include "check.h"
#include "server/server.h"
#include "server/writing.h"

#define MEMBERS 3
#define CLIENTS 4
#define ANSWER_MS 30000

struct host {
    struct server *server;
    pthread_t thread;
    uint64_t seed;
    uint64_t applied; /* index of the last command */
};

struct client {
    pthread_t thread;
    const char *address;
    uint64_t seed;
    unsigned depth; /* requests in flight */
    unsigned answered;
    atomic_bool *over;
};

/* --- slow machines, slow disks --- */

static atomic_uint slowness_us; /* the longest that a command or a sync takes */

static uint64_t draw(uint64_t *seed) {
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return *seed >> 33;
}

static void take_time(uint64_t *seed) {
    unsigned most_us = atomic_load(&slowness_us);
    if (most_us > 0 && draw(seed) % 4 == 0) {
        usleep((unsigned)(draw(seed) % most_us));
    }
}

/* Instead of the system's. */
int fdatasync(int fd) {
    static _Thread_local uint64_t seed = 1;
    (void)fd;
    take_time(&seed);
    return 0;
}

/* --- the machine --- */

static void take_snapshot(struct server *server, struct span header_line) {
    struct writer writer;
    struct error error = {0};
    writing_start(server_writing(server), header_line, &writer);
    snapshot_stream_open_line(&writer.stream);
    buffer_append_text(&writer.stream.out, "0");
    snapshot_stream_close_line(&writer.stream);
    CHECK(writer_end(&writer, &error) == STATUS_OK);
    writing_finish(server_writing(server), STATUS_OK, "");
    writer_clear(&writer);
}

static void run_item(struct host *host, struct apply_batch *batch, struct apply_item *item) {
    item->outcome = APPLY_DONE;
    item->output_offset = batch->output.size;
    if (item->kind == APPLY_COMMAND) {
        CHECK(item->index > host->applied);
        host->applied = item->index;
    } else if (item->kind == APPLY_QUERY) {
        CHECK(item->index >= host->applied);
    }
    switch (item->kind) {
    case APPLY_COMMAND:
    case APPLY_QUERY:
    case APPLY_LOCAL_QUERY:
        take_time(&host->seed);
        buffer_append_span(&batch->output, apply_item_input(batch, item));
        break;
    case APPLY_SNAPSHOT:
        take_snapshot(host->server, apply_item_input(batch, item));
        break;
    case APPLY_STATE:
    case APPLY_RESTORE:
    case APPLY_NOTICE:
        break;
    }
    item->output_size = batch->output.size - item->output_offset;
}

static void *apply_loop(void *argument) {
    struct host *host = argument;
    bool stopped = false;
    while (!stopped) {
        struct apply_batch *batch = server_wait_batch(host->server, 100, &stopped);
        for (uint32_t i = 0; batch != NULL && i < batch->count; i++) {
            run_item(host, batch, &batch->items[i]);
        }
        if (batch != NULL) {
            server_finish_batch(host->server, batch);
        }
    }
    return NULL;
}

static void host_open(struct host *host, const char *path, uint64_t seed) {
    struct server_options options = {
        .address = "127.0.0.1:0", .data_path = path, .sync = true, .seed = seed};
    struct error error = {0};
    *host = (struct host){.seed = seed};
    CHECK(server_open(&options, &host->server, &error) == STATUS_OK);
    CHECK(server_start(host->server, &error) == STATUS_OK);
    CHECK(pthread_create(&host->thread, NULL, apply_loop, host) == 0);
}

static void ask(struct host *host, const char *request, const char *expected) {
    struct buffer response;
    buffer_init(&response);
    struct span line = {request, strlen(request)};
    CHECK(server_call(host->server, line, ANSWER_MS, &response) == STATUS_OK);
    buffer_append_char(&response, '\0');
    if (strstr(buffer_peek(&response), expected) == NULL) {
        fprintf(stderr, "%s gave %s\n", request, buffer_peek(&response));
        CHECK(false);
    }
    buffer_free(&response);
}

/* --- clients: some requests in flight, of all kinds, until they are told to end --- */

static int dial(const char *address) {
    const char *colon = strrchr(address, ':');
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 10)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0);
    return fd;
}

static bool send_some(struct client *client, int fd, unsigned count) {
    static const char *const kinds[] = {"Command", "Query", "LocalQuery", "Command"};
    char text[256];
    for (unsigned i = 0; i < count; i++) {
        int bytes =
            snprintf(text, sizeof(text),
                     "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"Apply\",\"params\":{\"kind\":"
                     "\"%s\",\"input\":%llu}}\n",
                     kinds[draw(&client->seed) % 4], (unsigned long long)draw(&client->seed));
        if (send(fd, text, (size_t)bytes, MSG_NOSIGNAL) != bytes) {
            return false;
        }
    }
    return true;
}

/* So many answers; fewer: the member has stopped. */
static unsigned take_answers(int fd, unsigned count) {
    char piece[4096];
    unsigned lines = 0;
    while (lines < count) {
        struct pollfd wait = {fd, POLLIN, 0};
        CHECK(poll(&wait, 1, ANSWER_MS) == 1);
        ssize_t got = recv(fd, piece, sizeof(piece), 0);
        if (got <= 0) {
            break;
        }
        for (ssize_t i = 0; i < got; i++) {
            lines += piece[i] == '\n';
        }
    }
    CHECK(lines <= count);
    return lines;
}

static void *client_loop(void *argument) {
    struct client *client = argument;
    int fd = dial(client->address);
    bool going = true;
    while (going && !atomic_load(client->over)) {
        unsigned count = 1 + (unsigned)(draw(&client->seed) % client->depth);
        going = send_some(client, fd, count);
        if (going) {
            unsigned got = take_answers(fd, count);
            client->answered += got;
            going = got == count;
        }
    }
    close(fd);
    return NULL;
}

/* --- one life --- */

static void stop(struct host *host, uint64_t *seed) {
    server_stop(host->server);
    if (draw(seed) % 2 == 0) {
        usleep((unsigned)(draw(seed) % 2000));
        server_stop(host->server);
    }
}

static void close_host(struct host *host) {
    CHECK(pthread_join(host->thread, NULL) == 0);
    struct error error = {0};
    CHECK(server_exit_status(host->server, &error) == STATUS_OK);
    server_close(host->server);
}

static void add_members(struct host *hosts, unsigned count) {
    ask(&hosts[0], "{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"CreateCluster\"}",
        "\"members\"");
    for (unsigned i = 1; i < count; i++) {
        char request[512];
        snprintf(request, sizeof(request),
                 "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"AddServer\",\"params\":"
                 "{\"addr\":\"%s\"}}",
                 server_address(hosts[i].server));
        ask(&hosts[0], request, "\"members\"");
    }
}

static unsigned live(const char *folder, uint64_t seed, unsigned count) {
    static const unsigned slow_us[] = {0, 300, 1500, 2500, 6000};
    struct host hosts[MEMBERS];
    struct client clients[CLIENTS];
    atomic_bool over = false;
    atomic_store(&slowness_us, 0);
    for (unsigned i = 0; i < count; i++) {
        char path[4096];
        snprintf(path, sizeof(path), "%s/%llu-%u", folder, (unsigned long long)seed, i);
        host_open(&hosts[i], draw(&seed) % 4 == 0 ? NULL : path, 1 + draw(&seed));
    }
    add_members(hosts, count);
    for (unsigned i = 0; i < CLIENTS; i++) {
        clients[i] = (struct client){.address = server_address(hosts[i % count].server),
                                     .seed = draw(&seed),
                                     .depth = i % 2 == 0 ? 1 : 100,
                                     .over = &over};
        CHECK(pthread_create(&clients[i].thread, NULL, client_loop, &clients[i]) == 0);
    }
    for (int phase = 0; phase < 5; phase++) {
        atomic_store(&slowness_us, slow_us[draw(&seed) % 5]);
        usleep(50000 + (unsigned)(draw(&seed) % 50000));
        ask(&hosts[draw(&seed) % count],
            "{\"jsonrpc\":\"2.0\",\"id\":9,\"method\":\"TakeSnapshot\"}", "\"id\":9");
    }
    bool clients_first = draw(&seed) % 2 == 0;
    if (clients_first) {
        atomic_store(&over, true);
    }
    for (unsigned i = 0; i < count; i++) {
        stop(&hosts[i], &seed);
    }
    atomic_store(&over, true);
    unsigned answered = 0;
    for (unsigned i = 0; i < CLIENTS; i++) {
        CHECK(pthread_join(clients[i].thread, NULL) == 0);
        answered += clients[i].answered;
    }
    for (unsigned i = 0; i < count; i++) {
        close_host(&hosts[i]);
    }
    return answered;
}

/* A folder, how many seconds, a seed. */
int main(int count, char **arguments) {
    CHECK(count == 4);
    uint64_t until_ns = uv_hrtime() + strtoull(arguments[2], NULL, 10) * 1000000000u;
    uint64_t seed = strtoull(arguments[3], NULL, 10);
    unsigned lives = 0;
    do {
        unsigned answered = live(arguments[1], seed + lives, lives % 2 == 0 ? MEMBERS : 1);
        CHECK(answered > 0);
        CHECK(memory_live_count() == 0);
        lives++;
    } while (uv_hrtime() < until_ns);
    printf("ok\n");
    return 0;
}
