/* Queries of a follower whose leader answers late: what was learned for some is not told others.
 *
 * The node is member 1 of two; the test speaks for member 2, its leader. */
#include "check.h"
#include "node/internal.h"
#include "nodehost.h"

#define CLUSTER "0123456789abcdef0123456789abcdef"
#define TERM 2

static struct nodehost host;
static struct nodehost_end *client;
static struct nodehost_end *leader; /* its connection to us */

static void recover(void) {
    static struct cluster cluster = {
        .next_id = 3, .min_election_timeout_ms = 10000, .max_election_timeout_ms = 20000};
    struct buffer json = {0};
    struct buffer line = {0};
    cluster.raft.count = 2;
    for (uint32_t i = 0; i < 2; i++) {
        cluster.raft.members[i] = (struct raft_member){.id = i + 1, .voter = true};
        snprintf(cluster.addresses[i], ADDRESS_BYTES_MAX, "127.0.0.1:%u", 4001 + i);
    }
    configuration_write(&json, &cluster);
    struct entry entry = {.index = 1,
                          .term = 1,
                          .time_ms = 1,
                          .kind = ENTRY_CONFIGURATION,
                          .body = buffer_span(&json)};
    uint32_t crc = entry_write(&line, &entry, 0);
    struct meta meta = {.cluster_id = CLUSTER,
                        .address = "127.0.0.1:4001",
                        .node_id = 1,
                        .incarnation = 1,
                        .term = 1};
    CHECK(node_recover_entry(host.node, 1, 1, crc, buffer_span(&line)) == STATUS_OK);
    node_set_meta(host.node, &meta, false);
    CHECK(node_start(host.node) == STATUS_OK);
    buffer_free(&json);
    buffer_free(&line);
}

static void say(struct nodehost_end *end, const struct peer_message *message) {
    struct buffer text = {0};
    peer_write(&text, message);
    nodehost_receive(&host, end, buffer_span(&text));
    nodehost_turn(&host);
    buffer_free(&text);
}

static void hear_the_leader(void) {
    say(leader,
        &(struct peer_message){.kind = PEER_APPEND,
                               .raft = {.term = TERM, .previous = {1, 1}, .commit = 1}});
    CHECK(host.node->state.leader == 2);
}

static void follow(void) {
    leader = nodehost_open(&host);
    say(leader, &(struct peer_message){.kind = PEER_HELLO,
                                       .protocol = PEER_PROTOCOL,
                                       .cluster_id = CLUSTER,
                                       .node = 2,
                                       .incarnation = 1,
                                       .address = "127.0.0.1:4002",
                                       .to = 1});
    hear_the_leader();
}

/* Our own dial to the leader, which answers it. */
static struct nodehost_end *welcome(void) {
    for (int tries = 0; tries < 100; tries++) {
        for (int i = 0; i < NODEHOST_ENDS_MAX; i++) {
            struct nodehost_end *end = &host.ends[i];
            if (end->conn != NULL && end->dialled && !end->connected) {
                nodehost_connected(&host, end);
                say(end, &(struct peer_message){.kind = PEER_WELCOME,
                                                .protocol = PEER_PROTOCOL,
                                                .cluster_id = CLUSTER,
                                                .node = 2,
                                                .incarnation = 1});
                hear_the_leader();
                return end;
            }
        }
        nodehost_wait(&host, 10);
    }
    CHECK(!"it dials its leader");
    return NULL;
}

static void apply(const char *id, const char *params) {
    struct buffer line = {0};
    buffer_append_format(&line,
                         "{\"jsonrpc\":\"2.0\",\"id\":\"%s\",\"method\":\"Apply\","
                         "\"params\":%s}\n",
                         id, params);
    nodehost_receive(&host, client, buffer_span(&line));
    nodehost_turn(&host);
    buffer_free(&line);
}

static void ask(const char *id) {
    apply(id, "[\"Query\",[1]]");
}

static bool is_answered(const char *id) {
    char begin[64];
    snprintf(begin, sizeof(begin), "\"id\":\"%s\"", id);
    struct span sent = buffer_span(&client->sent);
    return sent.size > 0 && memmem(sent.data, sent.size, begin, strlen(begin)) != NULL;
}

/* The batch of the last `read` that was said on the connection. */
static uint64_t asked_batch(const struct nodehost_end *end) {
    uint64_t batch = 0;
    struct span sent = buffer_span(&end->sent);
    while (sent.size > 0) {
        const char *lf = memchr(sent.data, '\n', sent.size);
        struct peer_message message;
        CHECK(lf != NULL);
        struct span line = {sent.data, (size_t)(lf - sent.data)};
        CHECK(peer_read(line, &message) == STATUS_OK);
        batch = message.kind == PEER_READ ? message.batch : batch;
        sent = (struct span){lf + 1, sent.size - line.size - 1};
    }
    return batch;
}

static void reply(uint64_t batch) {
    say(leader, &(struct peer_message){
                    .kind = PEER_READ_REPLY, .term = TERM, .batch = batch, .index = 1});
}

/* L3: the answer to an earlier asking is no answer to a query that came after it. */
static void test_a_late_answer_is_not_for_later_queries(void) {
    struct nodehost_end *out = welcome();
    ask("first");
    uint64_t first = asked_batch(out);
    CHECK(first > 0 && !is_answered("first"));
    nodehost_close(&host, out); /* the question went out; the way back is slow */
    nodehost_wait(&host, 600);
    ask("second"); /* by now the first is to be asked again */
    out = welcome();
    uint64_t second = asked_batch(out);
    reply(first); /* to its first asking, from before the second query */
    CHECK(!is_answered("second"));
    CHECK(second > first);
    reply(second);
    CHECK(is_answered("first") && is_answered("second"));
}

/* All that wait to be asked go together, once. */
static void test_queries_that_were_not_asked_share_a_question(void) {
    struct nodehost_end *out = welcome();
    nodehost_close(&host, out);
    ask("third");
    ask("fourth");
    out = welcome();
    reply(asked_batch(out));
    CHECK(is_answered("third") && is_answered("fourth"));
}

static void hang_up(void) {
    for (int i = 0; i < NODEHOST_ENDS_MAX; i++) { /* the next test begins with a dial */
        if (host.ends[i].conn != NULL && host.ends[i].connected) {
            nodehost_close(&host, &host.ends[i]);
        }
    }
}

/* Within a millisecond the clock does not tell what came first: a command may have been answered
 * after the leader was asked, and before this query came. */
static void test_a_bound_is_not_rounded_in_our_favour(void) {
    static const char LOCAL[] =
        "{\"kind\":\"LocalQuery\",\"input\":[1],\"max_staleness_ms\":%d}";
    char params[96];
    struct nodehost_end *out = welcome();
    ask("fifth");
    reply(asked_batch(out));
    CHECK(is_answered("fifth"));
    for (int bound = 0; bound < 3; bound++) { /* and so many milliseconds later */
        char strict[16];
        char loose[16];
        snprintf(strict, sizeof(strict), "s%d", bound);
        snprintf(loose, sizeof(loose), "l%d", bound);
        snprintf(params, sizeof(params), LOCAL, bound + 1);
        apply(loose, params);
        CHECK(is_answered(loose));
        snprintf(params, sizeof(params), LOCAL, bound);
        apply(strict, params);
        CHECK(!is_answered(strict));
        nodehost_wait(&host, 1);
    }
}

int main(void) {
    nodehost_init(&host, true);
    recover();
    nodehost_turn(&host);
    client = nodehost_open(&host);
    follow();
    test_a_late_answer_is_not_for_later_queries();
    nodehost_wait(&host, 10);
    hang_up();
    test_queries_that_were_not_asked_share_a_question();
    nodehost_wait(&host, 10);
    hang_up();
    test_a_bound_is_not_rounded_in_our_favour();
    nodehost_clear(&host);
    puts("ok");
    return 0;
}
