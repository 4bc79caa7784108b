/* The log's time on a leader whose clock is behind it, because another's was far ahead once. */
#include "check.h"
#include "node/internal.h"
#include "nodehost.h"

#define CLUSTER "0123456789abcdef0123456789abcdef"
#define NEVER_CLOSE (100ull * 365 * 86400 * 1000)
#define BEFORE_1970 ((uint64_t)0 - 86400000u) /* as a second below zero comes from the system */

static struct nodehost host;
static struct nodehost_end *client;

#define START_MS 1732406401000u /* the host's clock at its start, nearly */

static uint64_t clock_ms(void) {
    return host.wall_start_ms + host.now_ms;
}

/* A member that is alone, with one entry that has this time. */
static void start(uint64_t time_ms) {
    static struct cluster cluster = {
        .next_id = 2, .min_election_timeout_ms = 10, .max_election_timeout_ms = 20};
    struct buffer json = {0};
    struct buffer line = {0};
    nodehost_init(&host, true);
    cluster.raft.count = 1;
    cluster.raft.members[0] = (struct raft_member){.id = 1, .voter = true};
    snprintf(cluster.addresses[0], ADDRESS_BYTES_MAX, "127.0.0.1:4001");
    configuration_write(&json, &cluster);
    struct entry entry = {.index = 1,
                          .term = 1,
                          .time_ms = time_ms,
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
    client = nodehost_open(&host);
    for (int tries = 0; tries < 100 && host.node->state.role != RAFT_LEADER; tries++) {
        nodehost_wait(&host, 10);
    }
    CHECK(host.node->state.role == RAFT_LEADER);
}

static void stop(void) {
    nodehost_clear(&host);
}

/* A command now; returns the time of its entry. */
static uint64_t stamp(const char *params) {
    struct buffer line = {0};
    struct entry entry;
    uint64_t last = host.node->entries.last;
    uint64_t before = host.node->entries.tail_time_ms;
    buffer_append_format(
        &line, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"Apply\",\"params\":%s}\n", params);
    buffer_clear(&client->sent);
    nodehost_receive(&host, client, buffer_span(&line));
    nodehost_turn(&host);
    buffer_free(&line);
    CHECK(host.node->entries.last == last + 1);
    CHECK(entry_parse(entries_peek(&host.node->entries, last + 1), &entry) == STATUS_OK);
    CHECK(entry.time_ms >= before);
    return entry.time_ms;
}

static uint64_t stamp_any(void) {
    return stamp("[\"Command\",[1]]");
}

static bool was_told(const char *text) {
    struct span sent = buffer_span(&client->sent);
    return memmem(sent.data, sent.size, text, strlen(text)) != NULL;
}

/* At half speed, also where entries come so often that each is half a step of no length. */
static void test_it_goes_on(void) {
    start(START_MS + NEVER_CLOSE);
    uint64_t first = stamp_any();
    uint64_t began_ms = host.now_ms;
    for (int i = 0; i < 1000; i++) {
        host.now_ms++;
        stamp_any();
    }
    uint64_t later = stamp_any();
    CHECK(later >= first + 499 && later <= first + (host.now_ms - began_ms) / 2 + 1);
    host.now_ms += 2000000;
    CHECK(stamp_any() >= later + 999999);
    stop();
}

/* A clock that is a little behind comes level, and is then what counts. */
static void test_the_clock_comes_level(void) {
    start(START_MS + 10000);
    uint64_t first = stamp_any();
    CHECK(first > clock_ms());
    host.now_ms += 5000;
    CHECK(stamp_any() > clock_ms());
    host.now_ms += 20000;
    CHECK(stamp_any() == clock_ms());
    stop();
}

static void test_sessions_expire(void) {
    start(START_MS + NEVER_CLOSE);
    stamp("{\"kind\":\"Command\",\"input\":[1],\"session\":\"a\",\"seq\":1}");
    CHECK(was_told("\"result\":[1]"));
    host.now_ms += SESSION_IDLE_MS;
    stamp("{\"kind\":\"Command\",\"input\":[2],\"session\":\"a\",\"seq\":2}");
    CHECK(was_told("\"result\":[2]"));
    host.now_ms += 2 * SESSION_IDLE_MS + 10;
    stamp("{\"kind\":\"Command\",\"input\":[3],\"session\":\"a\",\"seq\":3}");
    CHECK(was_told("\"code\":113"));
    stop();
}

/* What no entry can hold is never written, whatever the clocks and the log say. */
static void test_bounds(void) {
    start(NUMBER_MAX);
    host.now_ms += 1000;
    CHECK(stamp_any() == NUMBER_MAX);
    stop();
    start(5);
    uint64_t before = stamp_any();
    host.wall_start_ms = BEFORE_1970;
    host.now_ms += 1000;
    uint64_t later = stamp_any();
    CHECK(later >= before && later <= before + 1000);
    stop();
}

int main(void) {
    test_it_goes_on();
    test_the_clock_comes_level();
    test_sessions_expire();
    test_bounds();
    puts("ok");
    return 0;
}
