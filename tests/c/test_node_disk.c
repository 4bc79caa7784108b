/* A leader whose disk cannot give back what a member that lags needs: it says so and ends,
 * rather than trying for ever while the member waits.
 *
 * The node is member 1 of two; the test speaks for member 2, and for the disk. */
#include "check.h"
#include "node/internal.h"
#include "nodehost.h"

#define CLUSTER "0123456789abcdef0123456789abcdef"

static struct nodehost host;
static struct nodehost_end *in;

static void recover(void) {
    static struct cluster cluster = {
        .next_id = 3, .min_election_timeout_ms = 100, .max_election_timeout_ms = 200};
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

static void grant(bool pre, uint64_t term) {
    say(in, &(struct peer_message){.kind = PEER_VOTE_REPLY,
                                   .raft = {.term = term, .pre = pre, .granted = true}});
}

static void answer_dials(void) {
    for (int i = 0; i < NODEHOST_ENDS_MAX; i++) {
        struct nodehost_end *end = &host.ends[i];
        if (end->conn != NULL && end->dialled && !end->connected) {
            nodehost_connected(&host, end);
            say(end, &(struct peer_message){.kind = PEER_WELCOME,
                                            .protocol = PEER_PROTOCOL,
                                            .cluster_id = CLUSTER,
                                            .node = 2,
                                            .incarnation = 1});
        }
    }
}

static void lead(void) {
    nodehost_init(&host, true);
    recover();
    nodehost_turn(&host);
    in = nodehost_open(&host);
    say(in, &(struct peer_message){.kind = PEER_HELLO,
                                   .protocol = PEER_PROTOCOL,
                                   .cluster_id = CLUSTER,
                                   .node = 2,
                                   .incarnation = 1,
                                   .address = "127.0.0.1:4002",
                                   .to = 1});
    const struct raft_state *state = &host.node->state;
    for (int tries = 0; tries < 500 && state->role != RAFT_LEADER; tries++) {
        nodehost_wait(&host, 10);
        answer_dials();
        grant(true, state->term + 1);
        grant(false, state->term);
    }
    CHECK(state->role == RAFT_LEADER);
}

static void end_job(enum job_kind kind, enum status status) {
    struct job *job = job_new(kind);
    job->reader = 2;
    job->last = 0;
    job->status = status;
    error_set(&job->error, status, "log-1.jsonl: the disk cannot be trusted");
    node_job_done(host.node, job);
    nodehost_turn(&host);
}

static void test_read_for_a_peer(enum job_kind kind) {
    lead();
    end_job(kind, STATUS_NOT_FOUND); /* compacted, or replaced by a newer one */
    CHECK(host.node->state.role == RAFT_LEADER && !host.node->stopped);
    end_job(kind, kind == JOB_READ ? STATUS_CORRUPT : STATUS_IO);
    CHECK(host.node->state.role != RAFT_LEADER && host.node->stopped);
    CHECK(strstr(host.node->failure.text, "cannot be trusted") != NULL);
    nodehost_clear(&host);
}

int main(void) {
    test_read_for_a_peer(JOB_READ);
    test_read_for_a_peer(JOB_SNAPSHOT_READ);
    puts("ok");
    return 0;
}
