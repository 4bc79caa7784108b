/* Fuzzing what other servers can say: before a hello, after it, as follower and as leader.
 *
 * The node is member 1 of three, on a disk in memory. The input is a list of small records: raw
 * bytes for a connection, or a message of the right shape whose numbers are near the node's own
 * (so that much of it is taken), lines that continue its log, answers to its dials, requests of
 * a client, time. What must hold: no assertion, nothing stops the node, the commit index never
 * goes back, and what it says to peers can be read. */
#include "nodehost.h"
#include "node/internal.h"
#include "wire/line.h"
#include "wire/snapshot.h"

#define CLUSTER "0123456789abcdef0123456789abcdef"
#define RECORDS_MAX 200
#define SHAPES 64 /* of a configuration */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
    const uint8_t *data;
    size_t size;
};

struct world {
    struct nodehost host;
    struct input input;
    struct nodehost_end *now; /* the connection that messages go to */
    uint64_t commit_index;
};

static uint8_t take(struct input *input) {
    if (input->size == 0) {
        return 0;
    }
    input->size--;
    return *input->data++;
}

/* --- a member of three --- */
static void make_cluster(struct buffer *json, uint8_t shape) {
    static struct cluster cluster;
    cluster = (struct cluster){
        .next_id = 5, .min_election_timeout_ms = 100, .max_election_timeout_ms = 200};
    cluster.raft.count = 3 + (shape & 1);
    cluster.raft.joint = (shape & 2) != 0;
    for (uint32_t i = 0; i < cluster.raft.count; i++) {
        cluster.raft.members[i].id = i + 1;
        cluster.raft.members[i].voter = (shape >> (2 + i) & 1) == 0;
        cluster.raft.members[i].voter_before = cluster.raft.joint && i < 3;
        snprintf(cluster.addresses[i], ADDRESS_BYTES_MAX, "127.0.0.1:%u", 4001 + i);
    }
    configuration_write(json, &cluster);
}

/* Each of them is written once: that takes longer than all else that a message needs. */
static void write_cluster(struct buffer *json, uint8_t shape) {
    static char *made[SHAPES];
    shape %= SHAPES;
    if (made[shape] == NULL) {
        struct buffer text = {0};
        make_cluster(&text, shape);
        made[shape] = strndup(text.bytes, buffer_count(&text));
        buffer_free(&text);
    }
    buffer_append_text(json, made[shape]);
}

static uint32_t write_line(struct buffer *lines, uint64_t index, uint64_t term, uint8_t shape,
                           uint32_t seed) {
    struct buffer body = {0};
    struct entry entry = {.index = index, .term = term, .time_ms = 1732406400000 + index % 4};
    switch (shape & 3) {
    case 0:
        entry.kind = ENTRY_NOOP;
        break;
    case 1:
        entry.kind = ENTRY_CONFIGURATION;
        write_cluster(&body, shape >> 2);
        break;
    default:
        entry.kind = ENTRY_COMMAND;
        if ((shape & 1) != 0) { /* of a client's session */
            entry.session = (shape & 8) != 0 ? SPAN("s") : SPAN("t");
            entry.session_seq = 1 + (shape >> 5 & 3);
        }
        entry.tag = (struct entry_tag){1 + (shape >> 2 & 3), 1 + (shape >> 4 & 1), index};
        buffer_append_text(&body, "{\"a\":1}");
        break;
    }
    entry.body = buffer_span(&body);
    uint32_t crc = entry_write(lines, &entry, seed);
    buffer_free(&body);
    return crc;
}

static void start(struct world *world) {
    nodehost_init(&world->host, true);
    struct node *node = world->host.node;
    struct meta meta = {.cluster_id = CLUSTER,
                        .address = "127.0.0.1:4001",
                        .node_id = 1,
                        .incarnation = 3,
                        .term = 1};
    uint32_t seed = 0;
    for (uint64_t index = 1; index <= 3; index++) {
        struct buffer line = {0};
        seed = write_line(&line, index, 1, index == 1 ? 1 : index == 2 ? 0 : 2, seed);
        MUST(node_recover_entry(node, index, 1, seed, buffer_span(&line)) == STATUS_OK);
        buffer_free(&line);
    }
    node_set_meta(node, &meta, false);
    MUST(node_start(node) == STATUS_OK);
    nodehost_turn(&world->host);
}

/* --- numbers near the node's own --- */
static uint64_t near(uint64_t number, uint8_t byte) {
    if (byte >= 250) {
        return byte == 255 ? NUMBER_MAX : byte == 254 ? NUMBER_MAX - 1 : byte - 250u;
    }
    uint64_t up = number + byte % 8;
    return up < 4 ? 0 : up - 4 < NUMBER_MAX ? up - 4 : NUMBER_MAX;
}

static uint64_t smaller(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

static uint64_t a_term(struct world *world) {
    uint8_t byte = take(&world->input);
    uint64_t term = world->host.node->state.term;
    if (byte >= 250) {
        return near(term, byte);
    }
    return byte % 4 == 3 && term > 0 ? term - 1 : smaller(term + byte % 4, NUMBER_MAX);
}

static uint64_t an_index(struct world *world) {
    return near(world->host.node->state.last.index, take(&world->input));
}

/* Mostly one of our own log. */
static struct raft_position a_position(struct world *world) {
    uint64_t index = an_index(world);
    uint64_t term = raft_term_at(world->host.node->raft, index);
    if (term == 0 && index > 0) {
        term = a_term(world);
    }
    return (struct raft_position){term, index};
}

static uint32_t crc_at(const struct node *node, uint64_t index) {
    struct span body;
    uint32_t crc = 0;
    struct span line = entries_peek(&node->entries, index);
    if (line.size > 0 && line_peek_crc(line, &body, &crc) == STATUS_OK) {
        return crc;
    }
    return index == node->snapshots.position.index ? node->snapshots.chain_crc : 0;
}

/* --- messages --- */
static void say(struct world *world, const struct peer_message *message, struct span payload) {
    struct buffer text = {0};
    peer_write(&text, message);
    buffer_append_span(&text, payload);
    if (world->now != NULL) {
        nodehost_receive(&world->host, world->now, buffer_span(&text));
    }
    buffer_free(&text);
}

static void say_plain(struct world *world, const struct peer_message *message) {
    say(world, message, (struct span){NULL, 0});
}

static void say_hello(struct world *world) {
    uint8_t byte = take(&world->input);
    struct peer_message hello = {.kind = PEER_HELLO,
                                 .protocol = PEER_PROTOCOL,
                                 .cluster_id = CLUSTER,
                                 .node = 2 + byte % 4,
                                 .incarnation = 1 + byte / 64,
                                 .address = "127.0.0.1:4002",
                                 .to = byte % 32 == 31 ? 9 : 1};
    world->now = nodehost_open(&world->host);
    say_plain(world, &hello);
}

static void say_append(struct world *world) {
    struct peer_message message = {.kind = PEER_APPEND};
    struct buffer lines = {0};
    message.raft.term = a_term(world);
    message.raft.previous = a_position(world);
    message.raft.commit = an_index(world);
    message.raft.round = take(&world->input);
    message.count = take(&world->input) % 6;
    uint32_t seed = crc_at(world->host.node, message.raft.previous.index);
    uint64_t term = message.raft.previous.term;
    for (uint64_t i = 1; i <= message.count; i++) {
        uint8_t shape = take(&world->input);
        if (shape >= 128 || term == 0) {
            term = message.raft.term;
        }
        uint64_t index = message.raft.previous.index + i;
        seed = write_line(&lines, smaller(index, NUMBER_MAX), term, shape, seed);
    }
    message.bytes = buffer_count(&lines);
    say(world, &message, buffer_span(&lines));
    buffer_free(&lines);
}

static void say_core(struct world *world, enum peer_kind kind) {
    struct peer_message message = {.kind = kind};
    struct raft_message *raft = &message.raft;
    uint8_t flags = take(&world->input);
    raft->term = a_term(world);
    raft->pre = (flags & 1) != 0;
    raft->granted = (flags & 2) != 0;
    raft->transfer = (flags & 4) != 0;
    raft->rejected = (flags & 8) != 0;
    raft->last = a_position(world);
    raft->previous = a_position(world);
    raft->hint = a_position(world);
    raft->match = an_index(world);
    raft->round = take(&world->input);
    say_plain(world, &message);
}

static void write_snapshot(struct world *world, struct buffer *file, struct raft_position at) {
    static const struct span SESSIONS[] = {
        SPAN("[\"s\",2,1732406400000,2,0,{\"a\":1}]"), SPAN("[\"t\",1,1732406400001,3,105]"),
        SPAN("[\"t\",1,1732406400001,3,109,{\"type\":\"x\",\"reason\":\"y\"}]"),
        SPAN("[\"u\",9,1732406400002,9007199254740991,115]")};
    static struct snapshot_header header;
    struct buffer configuration = {0};
    uint8_t shape = take(&world->input);
    write_cluster(&configuration, shape);
    header = (struct snapshot_header){.cluster_id = CLUSTER,
                                      .index = at.index,
                                      .term = at.term,
                                      .chain_crc = crc_at(world->host.node, at.index),
                                      .time_ms = 1732406400000,
                                      .configuration_index = 1,
                                      .configuration = buffer_span(&configuration),
                                      .tag_count = 1,
                                      .tags = {{2, 1, 9}}};
    uint32_t seed = snapshot_write_header(file, &header);
    if (shape >= SHAPES) {
        seed = snapshot_write_session(file, SESSIONS[shape / SHAPES], seed);
        seed = snapshot_write_session(file, SESSIONS[shape % 4], seed);
    }
    seed = snapshot_write_state(file, SPAN("{\"a\":1}"), seed);
    snapshot_write_end(file, 1, buffer_count(file), seed);
    buffer_free(&configuration);
}

static void say_snapshot(struct world *world) {
    struct peer_message message = {.kind = PEER_SNAPSHOT};
    struct buffer file = {0};
    message.raft.term = a_term(world);
    message.raft.last = a_position(world);
    message.raft.commit = an_index(world);
    uint8_t cut = take(&world->input);
    write_snapshot(world, &file, message.raft.last);
    message.total = buffer_count(&file);
    size_t half = buffer_count(&file) / 2;
    message.offset = cut % 4 == 1 ? half : cut % 4 == 2 ? cut : 0;
    size_t end = cut % 4 == 3 ? half : buffer_count(&file);
    message.bytes = end - message.offset;
    say(world, &message, (struct span){file.bytes + message.offset, message.bytes});
    buffer_free(&file);
}

static void say_propose(struct world *world) {
    static const char *const INPUTS[] = {"{\"Put\":[\"a\",1]}", "1", "null", "}", "\x01"};
    struct peer_message message = {.kind = PEER_PROPOSE, .term = a_term(world)};
    struct buffer lines = {0};
    uint8_t flags = take(&world->input);
    message.again = (flags & 1) != 0;
    message.count = flags >> 1 & 3;
    for (uint64_t i = 0; i < message.count; i++) {
        uint8_t byte = take(&world->input);
        buffer_append_format(&lines, "[%u,%s]\n", byte >> 3,
                             INPUTS[byte % 8 < 5 ? byte % 8 : 0]);
    }
    message.bytes = buffer_count(&lines);
    say(world, &message, buffer_span(&lines));
    buffer_free(&lines);
}

static void say_number(struct world *world, enum peer_kind kind) {
    static const char *const METHODS[] = {"add", "remove", "snapshot", "AddServer"};
    static const char *const ADDRESSES[] = {"127.0.0.1:4002", "127.0.0.1:4009",
                                            "127.0.0.1:4001", "x"};
    struct peer_message message = {.kind = kind, .term = a_term(world)};
    uint8_t byte = take(&world->input);
    const char *method = METHODS[byte & 3];
    message.again = (byte & 64) != 0;
    message.method = (struct span){method, strlen(method)};
    memcpy(message.address, ADDRESSES[byte >> 2 & 3], strlen(ADDRESSES[byte >> 2 & 3]) + 1);
    message.body = SPAN("{\"members\":[]}");
    message.code = byte % 4 == 0 ? 0 : 100 + byte % 13;
    message.batch = message.sequence = near(world->host.node->reads.next_batch, byte);
    if ((byte & 128) == 0) { /* numbers that this life gave out */
        message.batch = node_unique_number(world->host.node, byte & 7);
    }
    message.offset = take(&world->input);
    message.index = an_index(world);
    message.raft.last = a_position(world);
    say_plain(world, &message);
}

static void say_raw(struct world *world, bool line) {
    size_t bytes = take(&world->input);
    bytes = bytes < world->input.size ? bytes : world->input.size;
    struct buffer text = {0};
    buffer_append(&text, world->input.data, bytes);
    if (line) {
        buffer_append_char(&text, '\n');
    }
    world->input.data += bytes;
    world->input.size -= bytes;
    if (world->now == NULL || world->now->conn == NULL) {
        world->now = nodehost_open(&world->host);
    }
    if (world->now != NULL) {
        nodehost_receive(&world->host, world->now, buffer_span(&text));
    }
    buffer_free(&text);
}

/* --- what else happens --- */
static void ask_as_client(struct world *world) {
    static const char *const REQUESTS[] = {
        "\"Apply\",\"params\":[\"Command\",[1]]",
        "\"Apply\",\"params\":[\"Query\",[1]]",
        "\"AddServer\",\"params\":[\":4009\"]",
        "\"RemoveServer\",\"params\":[\":4003\"]",
        "\"TakeSnapshot\"",
        "\"GetServerState\",\"params\":[true]",
        "\"Apply\",\"params\":{\"kind\":\"Command\",\"input\":[7],\"session\":\"s\",\"seq\":2}",
        "\"Apply\",\"params\":{\"kind\":\"LocalQuery\",\"input\":[8],\"min_index\":5}",
        "\"Apply\",\"params\":{\"kind\":\"LocalQuery\",\"input\":[9],\"max_staleness_ms\":50}",
    };
    char request[200];
    int bytes = snprintf(request, sizeof(request),
                         "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":%s}\n",
                         REQUESTS[take(&world->input) % 9]);
    struct nodehost_end *client = &world->host.ends[NODEHOST_ENDS_MAX - 1];
    if (client->conn == NULL) {
        client->conn = node_conn_open(world->host.node, client);
        client->dialled = client->closing = false;
    }
    nodehost_receive(&world->host, client, (struct span){request, (size_t)bytes});
}

/* Somebody answers our dials, as the member that we wanted or as somebody else. */
static void answer_dials(struct world *world) {
    uint8_t byte = take(&world->input);
    for (int i = 0; i < NODEHOST_ENDS_MAX; i++) {
        struct nodehost_end *end = &world->host.ends[i];
        if (end->conn == NULL || !end->dialled || end->connected) {
            continue;
        }
        nodehost_connected(&world->host, end);
        struct peer_message message = {.kind = byte & 128 ? PEER_REFUSED : PEER_WELCOME,
                                       .protocol = PEER_PROTOCOL,
                                       .cluster_id = CLUSTER,
                                       .node = (uint64_t)(end->address[13] - '0'),
                                       .incarnation = 1 + byte / 32 % 4,
                                       .removed = (byte & 64) != 0 && (byte & 7) == 7,
                                       .reason = SPAN("no")};
        if (byte % 16 == 15) { /* a server without an identity */
            message.node = 0;
            message.cluster_id[0] = '\0';
        }
        struct nodehost_end *before = world->now;
        world->now = end;
        say_plain(world, &message);
        world->now = before;
    }
}

static void close_one(struct world *world) {
    struct nodehost_end *end = &world->host.ends[take(&world->input) % NODEHOST_ENDS_MAX];
    if (end->conn != NULL) {
        nodehost_close(&world->host, end);
    }
}

static void choose(struct world *world) {
    struct nodehost_end *end = &world->host.ends[take(&world->input) % 8];
    world->now = end->conn != NULL && !end->dialled ? end : world->now;
}

static void step(struct world *world) {
    static const enum peer_kind CORE[] = {PEER_VOTE,        PEER_VOTE_REPLY,
                                          PEER_VOTE_REPLY,  PEER_APPEND_REPLY,
                                          PEER_TIMEOUT_NOW, PEER_SNAPSHOT_REPLY};
    static const enum peer_kind NUMBERS[] = {PEER_PROPOSE_AGAIN, PEER_READ,
                                             PEER_READ_REPLY,    PEER_ADMIN,
                                             PEER_ADMIN_REPLY,   PEER_SNAPSHOT_WANT};
    uint8_t kind = take(&world->input) % 24;
    if (kind < 2) {
        say_raw(world, kind == 1);
    } else if (kind < 4) {
        say_hello(world);
    } else if (kind < 7) {
        say_append(world);
    } else if (kind == 7) {
        say_snapshot(world);
    } else if (kind == 8) {
        say_propose(world);
    } else if (kind < 15) {
        say_core(world, CORE[kind - 9]);
    } else if (kind < 21) {
        say_number(world, NUMBERS[kind - 15]);
    } else if (kind == 21) {
        ask_as_client(world);
    } else if (kind == 22) {
        answer_dials(world);
    } else if (take(&world->input) % 4 == 0) {
        close_one(world);
    } else {
        choose(world);
    }
    uint8_t then = take(&world->input);
    if (then < 32) {
        nodehost_wait(&world->host, then * 8u);
    } else if (then < 200) {
        nodehost_turn(&world->host);
    } /* else: in the same turn as what comes next */
}

/* What it says to peers can be read, as far as it goes line by line. */
static void check_sent(const struct nodehost_end *end) {
    struct span sent = buffer_span(&end->sent);
    struct peer_message message;
    while (end->dialled && sent.size > 0) {
        const char *lf = memchr(sent.data, '\n', sent.size);
        MUST(lf != NULL);
        struct span line = {sent.data, (size_t)(lf - sent.data)};
        MUST(peer_read(line, &message) == STATUS_OK);
        size_t bytes = line.size + 1 + message.bytes;
        MUST(bytes <= sent.size);
        sent = (struct span){sent.data + bytes, sent.size - bytes};
    }
}

/* Nothing that a peer says ends the server. */
static void check_alive(const struct world *world) {
    struct error why = {.status = STATUS_OK};
    if (node_stopped(world->host.node, &why)) {
        fprintf(stderr, "it stopped: %s\n", why.text);
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct world world;
    world = (struct world){.input = {data, size}};
    start(&world);
    for (int i = 0; i < RECORDS_MAX && world.input.size > 0; i++) {
        step(&world);
        struct node_status status;
        node_peek_status(world.host.node, &status);
        MUST(status.commit_index >= world.commit_index);
        world.commit_index = status.commit_index;
        check_alive(&world);
    }
    for (uint64_t ms = 300; ms <= 5000; ms *= 4) { /* elections, and time-outs of all kinds */
        nodehost_wait(&world.host, ms);
    }
    for (int i = 0; i < NODEHOST_ENDS_MAX; i++) {
        check_sent(&world.host.ends[i]);
    }
    nodehost_clear(&world.host);
    return 0;
}
