/* Who asks for what: lines of JSON-RPC from clients that come, go, fall silent and talk
 * nonsense; see nodesim.h.
 *
 * A client sends a command again only in its session, to whomever it is connected to, until it
 * has an answer; what became of all others is the history's to find out. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/internal.h"
#include "nodesim.h"

typedef unsigned long long number;

/* --- connections ------------------------------------------------------------------------- */
static void connect_to(struct world *world, struct client *client, uint32_t server) {
    ASSERT(client->pipe == NULL);
    buffer_clear(&client->in);
    client->deaf = world_chance(world, world->rates.deaf);
    client->pipe = streams_dial(world, NULL, client, NULL, server);
}

static void leave(struct world *world, struct client *client, bool abruptly) {
    if (abruptly) {
        streams_reset(world, client->pipe->slot, client->pipe->id);
    } else {
        streams_close(world, &client->pipe->ends[0]);
    }
}

void clients_gone(struct world *world, struct client *client) {
    if (!client->pipe->open) {
        history_conn_closed(world, client->pipe->id);
    }
    client->pipe = NULL;
}

void clients_bytes(struct world *world, struct client *client, struct span bytes) {
    buffer_append_span(&client->in, bytes);
    for (;;) {
        struct span in = buffer_span(&client->in);
        const char *end = in.size > 0 ? memchr(in.data, '\n', in.size) : NULL;
        if (end == NULL) {
            return;
        }
        struct span line = {in.data, (size_t)(end - in.data)};
        if (!peer_is_message(line)) { /* a stranger is answered as a server would be */
            history_heard(world, line);
        }
        buffer_consume(&client->in, line.size + 1);
    }
}

/* --- requests ---------------------------------------------------------------------------- */
struct request *clients_find(struct world *world, uint64_t id) {
    return id == 0 || id > world->request_count ? NULL : &world->requests[id - 1];
}

static struct request *new_request(struct world *world, const struct client *client,
                                   enum request_kind kind) {
    if (world->request_count == world->request_capacity) {
        world->request_capacity = world->request_capacity * 2 + 64;
        world->requests =
            realloc(world->requests, world->request_capacity * sizeof(*world->requests));
        ASSERT(world->requests != NULL);
    }
    struct request *request = &world->requests[world->request_count++];
    *request = (struct request){.id = world->request_count,
                                .kind = kind,
                                .key = (uint32_t)world_between(world, 0, KEYS_MAX - 1),
                                .origin = world->request_count,
                                .client = client->number,
                                .age_ms_max = NEVER,
                                .pipe = client->pipe->id,
                                .server = client->pipe->ends[1].server->number,
                                .floor = world->floor};
    return request;
}

static void write_pad(struct world *world, struct buffer *line) {
    size_t size = world_chance(world, 100000)
                      ? (size_t)world_between(world, 0, world->rates.input_bytes_max)
                      : (size_t)world_between(world, 0, 40);
    memset(buffer_reserve(line, size), 'x', size);
    buffer_extend(line, size);
}

static void write_input(struct world *world, struct buffer *line, struct request *request) {
    uint64_t kind = world_between(world, 0, 19);
    const char *verb = kind < 12 ? "put" : kind < 17 ? "cas" : kind < 18 ? "mute" : "raise";
    request->outcome = kind < 17 ? RPC_OK : kind < 18 ? RPC_NO_OUTPUT : RPC_MACHINE_ERROR;
    buffer_append_format(line, "{\"%s\":{\"key\":%u,\"value\":%llu,\"old\":%llu,\"pad\":\"",
                         verb, request->key, (number)request->id,
                         (number)world_between(world, 0, request->id));
    write_pad(world, line);
    buffer_append_text(line, "\"}}");
}

/* What a client asks to be told, or to see at least. */
static void write_wishes(struct world *world, struct buffer *line, struct request *request) {
    const struct rates *rates = &world->rates;
    if (world_chance(world, rates->index)) {
        request->wants_index = true;
        buffer_append_text(line, "\"index\":true,");
    }
    if (request->kind != REQUEST_COMMAND && world_chance(world, rates->min_index)) {
        uint64_t how = world_between(world, 0, 9);
        request->min_index = how < 6   ? world->seen_index
                             : how < 8 ? world_between(world, 0, world->floor)
                                       : world->floor + world_between(world, 1, 30);
        buffer_append_format(line, "\"min_index\":%llu,", (number)request->min_index);
    }
    if (request->kind != REQUEST_COMMAND && world_chance(world, rates->staleness)) {
        request->age_ms_max = world_between(world, 0, world_chance(world, 500000) ? 50 : 3000);
        buffer_append_format(line, "\"max_staleness_ms\":%llu,", (number)request->age_ms_max);
    }
}

/* The next command of the client's session, with its input; or the first of another one. */
static void begin_command(struct world *world, struct client *client, struct request *request) {
    if (client->session == 0 || world_chance(world, 30000)) {
        client->session = request->id;
        client->seq = 0;
        client->opened = false;
    }
    client->seq++;
    client->unanswered = request->id;
    buffer_clear(&client->input);
    write_input(world, &client->input, request);
}

static void write_session(struct world *world, struct client *client, struct buffer *line,
                          struct request *request) {
    bool gives_up = client->opened && world_chance(world, 20000);
    if (client->unanswered == 0 || gives_up) {
        begin_command(world, client, request);
    }
    struct request *opener = clients_find(world, client->session);
    const struct request *first = clients_find(world, client->unanswered);
    opener->sent_seq = client->seq;
    request->origin = first->id;
    request->key = first->key;
    request->session = client->session;
    request->seq = client->seq;
    buffer_append_format(line, "\"session\":\"s%llu\",\"seq\":%llu,\"input\":",
                         (number)request->session, (number)request->seq);
    buffer_append_span(line, buffer_span(&client->input));
}

void clients_settled(struct world *world, const struct request *request, bool applied) {
    struct client *client = &world->clients[request->client];
    client->opened = client->opened || (applied && request->session == client->session);
    if (request->origin == client->unanswered) {
        client->unanswered = 0;
    }
}

static void write_apply(struct world *world, struct client *client, struct buffer *line,
                        struct request *request, bool session) {
    const char *kind = request->kind == REQUEST_COMMAND ? "Command"
                       : request->kind == REQUEST_QUERY ? "Query"
                                                        : "LocalQuery";
    bool named = session || world_chance(world, 800000);
    buffer_append_format(line,
                         named ? "\"Apply\",\"params\":{\"kind\":\"%s\","
                               : "\"Apply\",\"params\":[\"%s\",",
                         kind);
    if (named) {
        write_wishes(world, line, request);
        buffer_append_text(line, session ? "" : "\"input\":");
    }
    if (session) {
        write_session(world, client, line, request);
    } else if (request->kind == REQUEST_COMMAND) {
        write_input(world, line, request);
    } else {
        buffer_append_format(line, "{\"get\":%u}", request->key);
    }
    clients_find(world, request->origin)->tries++;
    buffer_append_char(line, named ? '}' : ']');
}

/* One request object; `method` (with its params) is NULL for an Apply. */
static struct request *write_request(struct world *world, struct client *client,
                                     struct buffer *line, enum request_kind kind,
                                     const char *method, bool again) {
    struct request *request = new_request(world, client, kind);
    bool session =
        again || (kind == REQUEST_COMMAND && world_chance(world, world->rates.session));
    request->quiet = kind == REQUEST_COMMAND && world_chance(world, world->rates.quiet);
    buffer_append_text(line, "{\"jsonrpc\":\"2.0\",");
    if (!request->quiet) {
        buffer_append_format(line, "\"id\":%llu,", (number)request->id);
    }
    buffer_append_text(line, "\"method\":");
    if (method == NULL) {
        write_apply(world, client, line, request, session);
    } else {
        buffer_append_text(line, method);
    }
    buffer_append_char(line, '}');
    return request;
}

static void send_line(struct world *world, struct client *client, struct buffer *line,
                      uint64_t first_id) {
    buffer_append_text(line, world_chance(world, 100000) ? " \r\n" : "\n");
    struct pipe *pipe = client->pipe;
    pipe->sent_bytes += buffer_count(line);
    for (uint64_t id = first_id; id <= world->request_count; id++) {
        world->requests[id - 1].end_bytes = pipe->sent_bytes;
    }
    world_trace(world, "c%u to s%u: %.*s", client->number + 1, pipe->ends[1].server->number + 1,
                (int)(buffer_count(line) < 150 ? buffer_count(line) - 1 : 150),
                buffer_peek(line));
    streams_write(world, &pipe->ends[0], buffer_span(line));
}

static void send_method(struct world *world, struct client *client, enum request_kind kind,
                        const char *method) {
    struct buffer line;
    buffer_init(&line);
    struct request *request = write_request(world, client, &line, kind, method, false);
    send_line(world, client, &line, request->id);
    buffer_free(&line);
}

static void send_again(struct world *world, struct client *client) {
    struct buffer line;
    buffer_init(&line);
    struct request *request = write_request(world, client, &line, REQUEST_COMMAND, NULL, true);
    send_line(world, client, &line, request->id);
    buffer_free(&line);
}

static enum request_kind some_kind(struct world *world) {
    return world_chance(world, world->rates.query)         ? REQUEST_QUERY
           : world_chance(world, world->rates.local_query) ? REQUEST_LOCAL_QUERY
                                                           : REQUEST_COMMAND;
}

static void send_batch(struct world *world, struct client *client) {
    struct buffer line;
    buffer_init(&line);
    uint64_t first_id = world->request_count + 1;
    uint64_t count = world_between(world, 1, 8);
    for (uint64_t i = 0; i < count; i++) {
        buffer_append_char(&line, i == 0 ? '[' : ',');
        write_request(world, client, &line, some_kind(world), NULL, false);
    }
    buffer_append_char(&line, ']');
    send_line(world, client, &line, first_id);
    buffer_free(&line);
}

static void send_garbage(struct world *world, struct client *client) {
    static const char *const lines[] = {
        "nonsense",
        "{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":\"Apply\"}",
        "[]",
        "{\"jsonrpc\":\"2.0\",\"method\":7,\"id\":null}",
        "{\"a\":\"\xff\"}",
        "[[[[[[[[",
    };
    struct buffer line;
    buffer_init(&line);
    struct request *request = new_request(world, client, REQUEST_GARBAGE);
    buffer_append_text(&line,
                       lines[world_between(world, 0, sizeof(lines) / sizeof(lines[0]) - 1)]);
    send_line(world, client, &line, request->id);
    buffer_free(&line);
}

/* Somebody who takes itself for one of them, and would have them all at a distant term. */
static void pretend(struct world *world, struct client *client) {
    const struct server *server = client->pipe->ends[1].server;
    if (!server->up || server->node->meta.node_id == 0) {
        return;
    }
    struct peer_message message = {
        .kind = PEER_HELLO,
        .protocol = PEER_PROTOCOL,
        .node = world_between(world, 1, 9),
        .incarnation = 1000,
        .to = server->node->meta.node_id,
        .cluster_id = "00112233445566778899aabbccddeeff",
        .address = "10.0.0.1:4000",
    };
    struct buffer lines;
    buffer_init(&lines);
    if (world_chance(world, 700000)) {
        peer_write(&lines, &message);
    }
    message.kind = PEER_VOTE;
    message.raft = (struct raft_message){.kind = RAFT_VOTE,
                                         .term = 1ull << 40,
                                         .transfer = true,
                                         .last = {.term = 1ull << 39, .index = 1ull << 39}};
    peer_write(&lines, &message);
    message.kind = PEER_APPEND;
    message.raft = (struct raft_message){.kind = RAFT_APPEND, .term = 1ull << 41};
    peer_write(&lines, &message);
    client->pipe->sent_bytes += buffer_count(&lines);
    world_trace(world, "c%u pretends to s%u that it is a server", client->number + 1,
                server->number + 1);
    streams_write(world, &client->pipe->ends[0], buffer_span(&lines));
    buffer_free(&lines);
}

/* --- rounds ------------------------------------------------------------------------------ */
static void ask_something(struct world *world, struct client *client) {
    const struct rates *rates = &world->rates;
    if (world_chance(world, rates->garbage)) {
        send_garbage(world, client);
    } else if (world_chance(world, rates->batch)) {
        send_batch(world, client);
    } else if (world_chance(world, rates->snapshot)) {
        send_method(world, client, REQUEST_SNAPSHOT, "\"TakeSnapshot\"");
    } else if (world_chance(world, rates->look)) {
        send_method(world, client, REQUEST_STATE,
                    world_chance(world, 300000)
                        ? "\"GetServerState\",\"params\":{\"user\":true}"
                        : "\"GetServerState\"");
    } else {
        uint64_t count =
            world_chance(world, rates->burst) ? world_between(world, 2, BURST_MAX) : 1;
        for (uint64_t i = 0; i < count; i++) {
            send_method(world, client, some_kind(world), NULL);
        }
    }
}

/* The cluster begins with the first server; nobody else is ever told to create one. */
static void found(struct world *world, struct client *client) {
    if (client->pipe != NULL && client->pipe->ends[1].server->number == 0 &&
        world_chance(world, 300000)) {
        char method[128];
        snprintf(method, sizeof(method),
                 "\"CreateCluster\",\"params\":{\"min_election_timeout_ms\":%u,"
                 "\"max_election_timeout_ms\":%u}",
                 world->min_timeout_ms, world->max_timeout_ms);
        send_method(world, client, REQUEST_ADMIN, method);
    }
}

void clients_round(struct world *world) {
    const struct rates *rates = &world->rates;
    bool founded = checker_founded(world);
    for (uint32_t i = 0; i < world->client_count; i++) {
        struct client *client = &world->clients[i];
        if (client->pipe == NULL) {
            if (world_chance(world, 200000)) {
                connect_to(world, client,
                           founded ? (uint32_t)world_between(world, 0, world->server_count - 1)
                                   : 0);
            }
        } else if (world_chance(world, rates->leave)) {
            leave(world, client, world_chance(world, 500000));
        } else if (!founded) {
            found(world, client);
        } else if (client->unanswered != 0 && world_chance(world, rates->again)) {
            send_again(world, client);
        } else if (world_chance(world, rates->request)) {
            ask_something(world, client);
        } else if (world_chance(world, rates->stranger)) {
            pretend(world, client);
        }
    }
}

void clients_change(struct world *world) {
    struct client *client = &world->clients[world_between(world, 0, world->client_count - 1)];
    if (client->pipe == NULL) {
        return;
    }
    const struct server *server =
        &world->servers[world_between(world, 0, world->server_count - 1)];
    bool blank = server->up && server->node->meta.node_id == 0;
    if (!blank && !world_chance(world, 300000)) {
        return; /* rather more members than fewer */
    }
    char method[96];
    snprintf(method, sizeof(method), "\"%sServer\",\"params\":{\"addr\":\"%s\"}",
             blank || world_chance(world, 100000) ? "Add" : "Remove", server->address);
    send_method(world, client, REQUEST_ADMIN, method);
}

/* --- peace ------------------------------------------------------------------------------- */
static void send_markers(struct world *world, const uint32_t *servers, uint32_t count) {
    world->first_marker = world->request_count + 1;
    for (uint32_t i = 0; i < count; i++) {
        struct client *client = &world->clients[i];
        if (client->pipe != NULL) {
            leave(world, client, true);
        }
        connect_to(world, client, servers[i]);
        for (int kind = 0; kind < 2; kind++) {
            send_method(world, client, kind == 0 ? REQUEST_COMMAND : REQUEST_QUERY, NULL);
        }
        if (client->session != 0) { /* the last command, or a new one; and the same again */
            send_again(world, client);
            send_again(world, client);
        }
    }
    world->last_marker = world->request_count;
}

bool clients_served(struct world *world, const uint32_t *servers, uint32_t count) {
    if (world->first_marker == 0) {
        send_markers(world, servers, count);
        return false;
    }
    bool all = true;
    for (uint64_t id = world->first_marker; id <= world->last_marker; id++) {
        const struct request *request = clients_find(world, id);
        bool over = request->stage == STAGE_HEARD || request->stage == STAGE_CLOSED ||
                    streams_find(world, request->pipe) == NULL;
        if (!over) {
            return false;
        }
        /* Of a command of a session it must be known: that is what a session is for. */
        all = all && (request->succeeded || (request->session == 0 && request->applied != 0));
    }
    if (!all) {
        world->first_marker = 0; /* once more */
    }
    return all;
}
