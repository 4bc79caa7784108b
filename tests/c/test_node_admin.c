/* A leader that loses its leadership while it adds a server: the next one is asked to finish.
 *
 * The node is member 1 of two; the test speaks for member 2, and for the server to be added. */
#include "check.h"
#include "node/internal.h"
#include "nodehost.h"
#include "wire/line.h"

#define CLUSTER "0123456789abcdef0123456789abcdef"
#define ADDED "127.0.0.1:4009"

static struct nodehost host;
static struct nodehost_end *client;
static struct nodehost_end *in;  /* member 2's connection to us */
static struct nodehost_end *out; /* ours to member 2 */
static size_t heard;             /* bytes of what we said there */

/* Members 1 and 2, and 3 where it has an address. */
static uint32_t write_configuration(struct buffer *line, uint64_t index, uint64_t term,
                                    const char *third, uint32_t seed) {
    static struct cluster cluster;
    cluster = (struct cluster){
        .next_id = 3, .min_election_timeout_ms = 100, .max_election_timeout_ms = 200};
    cluster.raft.count = third == NULL ? 2 : 3;
    cluster.next_id = cluster.raft.count + 1;
    for (uint32_t i = 0; i < cluster.raft.count; i++) {
        cluster.raft.members[i] = (struct raft_member){.id = i + 1, .voter = true};
        snprintf(cluster.addresses[i], ADDRESS_BYTES_MAX, "%s",
                 i == 0   ? "127.0.0.1:4001"
                 : i == 1 ? "127.0.0.1:4002"
                          : third);
    }
    struct buffer json = {0};
    configuration_write(&json, &cluster);
    struct entry entry = {.index = index,
                          .term = term,
                          .time_ms = 1,
                          .kind = ENTRY_CONFIGURATION,
                          .body = buffer_span(&json)};
    uint32_t crc = entry_write(line, &entry, seed);
    buffer_free(&json);
    return crc;
}

static void say(struct nodehost_end *end, const struct peer_message *message,
                struct span payload) {
    struct buffer text = {0};
    peer_write(&text, message);
    buffer_append_span(&text, payload);
    nodehost_receive(&host, end, buffer_span(&text));
    nodehost_turn(&host);
    buffer_free(&text);
}

static void say_plain(struct nodehost_end *end, const struct peer_message *message) {
    say(end, message, (struct span){NULL, 0});
}

/* The next message to member 2; false: none. */
static bool hear(struct peer_message *message) {
    struct span sent = out == NULL ? (struct span){NULL, 0} : buffer_span(&out->sent);
    if (heard >= sent.size) {
        return false;
    }
    const char *lf = memchr(sent.data + heard, '\n', sent.size - heard);
    CHECK(lf != NULL);
    struct span line = {sent.data + heard, (size_t)(lf - sent.data) - heard};
    CHECK(peer_read(line, message) == STATUS_OK);
    heard += line.size + 1 + message->bytes;
    return true;
}

/* As member 2: it votes for us and stores what we send. */
static void answer_all(void) {
    struct peer_message message;
    while (hear(&message)) {
        struct raft_message raft = {.term = message.raft.term, .round = message.raft.round};
        if (message.kind == PEER_VOTE) {
            raft.pre = message.raft.pre;
            raft.granted = true;
            say_plain(in, &(struct peer_message){.kind = PEER_VOTE_REPLY, .raft = raft});
        } else if (message.kind == PEER_APPEND) {
            raft.previous = message.raft.previous;
            if (message.count > 0) {
                raft.previous.index += message.count;
                raft.previous.term = message.raft.term;
            }
            raft.match = raft.previous.index;
            say_plain(in, &(struct peer_message){.kind = PEER_APPEND_REPLY, .raft = raft});
        }
    }
}

static void answer_dials(void) {
    for (int i = 0; i < NODEHOST_ENDS_MAX; i++) {
        struct nodehost_end *end = &host.ends[i];
        if (end->conn == NULL || !end->dialled || end->connected) {
            continue;
        }
        bool added = strcmp(end->address, ADDED) == 0;
        struct peer_message welcome = {
            .kind = PEER_WELCOME, .protocol = PEER_PROTOCOL, .incarnation = 1};
        if (!added) {
            CHECK(strcmp(end->address, "127.0.0.1:4002") == 0);
            welcome.node = 2;
            memcpy(welcome.cluster_id, CLUSTER, sizeof(CLUSTER));
            out = end;
            heard = 0;
        }
        nodehost_connected(&host, end);
        say_plain(end, &welcome);
    }
}

static void start(void) {
    nodehost_init(&host, true);
    out = NULL;
    struct buffer line = {0};
    uint32_t crc = write_configuration(&line, 1, 1, NULL, 0);
    CHECK(node_recover_entry(host.node, 1, 1, crc, buffer_span(&line)) == STATUS_OK);
    struct meta meta = {.cluster_id = CLUSTER,
                        .address = "127.0.0.1:4001",
                        .node_id = 1,
                        .incarnation = 1,
                        .term = 1};
    node_set_meta(host.node, &meta, false);
    CHECK(node_start(host.node) == STATUS_OK);
    buffer_free(&line);
    nodehost_turn(&host);
    client = nodehost_open(&host);
    in = nodehost_open(&host);
    say_plain(in, &(struct peer_message){.kind = PEER_HELLO,
                                         .protocol = PEER_PROTOCOL,
                                         .cluster_id = CLUSTER,
                                         .node = 2,
                                         .incarnation = 1,
                                         .address = "127.0.0.1:4002",
                                         .to = 1});
}

static void lead(void) {
    const struct raft_state *state = &host.node->state;
    for (int tries = 0; tries < 500; tries++) {
        if (state->role == RAFT_LEADER && state->commit_index >= state->term_start_index) {
            return;
        }
        nodehost_wait(&host, 10);
        answer_dials();
        answer_all();
    }
    CHECK(!"it leads");
}

/* Until the addition is in our log, and nowhere else. */
static void add(void) {
    static const char REQUEST[] = "{\"jsonrpc\":\"2.0\",\"id\":\"add\",\"method\":"
                                  "\"AddServer\",\"params\":[\"" ADDED "\"]}\n";
    nodehost_receive(&host, client, SPAN(REQUEST));
    nodehost_turn(&host);
    for (int tries = 0; tries < 50; tries++) {
        if (configuration_id_at(members_peek(host.node), ADDED) != 0) {
            CHECK(members_index(host.node) > host.node->state.commit_index);
            return;
        }
        answer_dials();
        nodehost_wait(&host, 10);
    }
    CHECK(!"it adds");
}

static bool is_answered(void) {
    return buffer_count(&client->sent) > 0;
}

/* The addition, passed on; within a second, though the addition's own step had ten. */
static struct peer_message hear_the_addition(void) {
    struct peer_message message;
    for (int tries = 0; tries < 100; tries++) {
        while (hear(&message)) {
            if (message.kind == PEER_ADMIN) {
                CHECK(strcmp(message.address, ADDED) == 0);
                return message;
            }
        }
        CHECK(!is_answered());
        nodehost_wait(&host, 10);
        answer_dials();
        if (host.node->state.leader != 2) {
            say_plain(in, &(struct peer_message){.kind = PEER_APPEND,
                                                 .raft = {.term = host.node->state.term,
                                                          .previous = {1, 1},
                                                          .commit = 1}});
        }
    }
    CHECK(!"it passes the addition on");
    return message;
}

/* Member 2 leads and may have the addition in its log: that it is done is no refusal (101). */
static void test_the_next_leader_is_told_that_it_may_be_done(void) {
    start();
    lead();
    add();
    uint64_t term = host.node->state.term + 1;
    say_plain(in,
              &(struct peer_message){.kind = PEER_APPEND,
                                     .raft = {.term = term, .previous = {1, 1}, .commit = 1}});
    CHECK(host.node->state.leader == 2);
    struct peer_message message = hear_the_addition();
    CHECK(message.again);
    say_plain(in, &(struct peer_message){.kind = PEER_ADMIN_REPLY,
                                         .batch = message.batch,
                                         .body = SPAN("{\"members\":[]}")});
    CHECK(is_answered());
    CHECK(memmem(client->sent.bytes, buffer_count(&client->sent), "result", 6) != NULL);
    nodehost_clear(&host);
}

static uint32_t crc_at(uint64_t index) {
    struct span body;
    uint32_t crc = 0;
    CHECK(line_peek_crc(entries_peek(&host.node->entries, index), &body, &crc) == STATUS_OK);
    return crc;
}

/* Member 2 leads and gave the addition's id to another server, of which nobody asked us. */
static void test_an_id_that_went_to_another_is_no_success(void) {
    start();
    lead();
    add();
    nodehost_close(&host, out); /* the addition cannot be passed on yet */
    out = NULL;
    uint64_t commit = host.node->state.commit_index;
    uint64_t term = host.node->state.term;
    struct buffer line = {0};
    write_configuration(&line, commit + 1, term + 1, "127.0.0.1:4010", crc_at(commit));
    struct peer_message append = {.kind = PEER_APPEND,
                                  .count = 1,
                                  .bytes = buffer_count(&line),
                                  .raft = {.term = term + 1,
                                           .previous = {.term = term, .index = commit},
                                           .commit = commit + 1}};
    say(in, &append, buffer_span(&line));
    buffer_free(&line);
    CHECK(host.node->state.leader == 2 && host.node->state.commit_index == commit + 1);
    CHECK(configuration_id_at(members_peek(host.node), "127.0.0.1:4010") == 3);
    nodehost_turn(&host);
    CHECK(!is_answered());
    nodehost_clear(&host);
}

int main(void) {
    test_the_next_leader_is_told_that_it_may_be_done();
    test_an_id_that_went_to_another_is_no_success();
    puts("ok");
    return 0;
}
