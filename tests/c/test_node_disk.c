/* A leader reads back what a member that lags needs: as fast as the disk gives it, and where it
 * cannot, the leader says so and ends, rather than trying for ever while the member waits.
 *
 * The node is member 1 of three; the test speaks for the others, and for the disk. */
#include "check.h"
#include "node/internal.h"
#include "nodehost.h"

#define CLUSTER "0123456789abcdef0123456789abcdef"
#define MEMBERS 3
#define LAST 100     /* entry of the log that is recovered */
#define READ_LINES 7 /* that the disk gives at once */

static struct nodehost host;
static struct nodehost_end *in[MEMBERS + 1];  /* the others' connections to us */
static struct nodehost_end *out[MEMBERS + 1]; /* ours to them */
static struct buffer lines[LAST + 1];
static int reads;

/* --- the disk --- */
static enum status read_lines(void *self, struct job *job) {
    (void)self;
    uint64_t most = job->first + READ_LINES - 1;
    job->last = job->last < most ? job->last : most;
    for (uint64_t index = job->first; index <= job->last; index++) {
        buffer_append_span(&job->data, buffer_span(&lines[index]));
    }
    reads++;
    return STATUS_OK;
}

static void use_disk(void) {
    static struct backend_calls calls;
    calls = *host.disk.backend.calls;
    calls.read = read_lines;
    host.disk.backend.calls = &calls;
}

/* --- the log --- */
static void configuration(struct buffer *json) {
    static struct cluster cluster = {.next_id = MEMBERS + 1,
                                     .min_election_timeout_ms = 100,
                                     .max_election_timeout_ms = 200};
    cluster.raft.count = MEMBERS;
    for (uint32_t i = 0; i < MEMBERS; i++) {
        cluster.raft.members[i] = (struct raft_member){.id = i + 1, .voter = true};
        snprintf(cluster.addresses[i], ADDRESS_BYTES_MAX, "127.0.0.1:%u", 4001 + i);
    }
    configuration_write(json, &cluster);
}

static void recover(void) {
    struct buffer json = {0};
    configuration(&json);
    uint32_t crc = 0;
    for (uint64_t index = 1; index <= LAST; index++) {
        struct entry entry = {.index = index,
                              .term = 1,
                              .time_ms = 1,
                              .kind = index == 1 ? ENTRY_CONFIGURATION : ENTRY_COMMAND,
                              .tag = {.node = 1, .incarnation = 1, .sequence = index},
                              .body = index == 1 ? buffer_span(&json) : SPAN("[12345678]")};
        crc = entry_write(&lines[index], &entry, crc);
        CHECK(node_recover_entry(host.node, index, 1, crc, buffer_span(&lines[index])) ==
              STATUS_OK);
    }
    struct meta meta = {.cluster_id = CLUSTER,
                        .address = "127.0.0.1:4001",
                        .node_id = 1,
                        .incarnation = 2,
                        .term = 1};
    node_set_meta(host.node, &meta, false);
    CHECK(node_start(host.node) == STATUS_OK);
    buffer_free(&json);
}

/* --- the others --- */
static void say(struct nodehost_end *end, const struct peer_message *message) {
    struct buffer text = {0};
    peer_write(&text, message);
    nodehost_receive(&host, end, buffer_span(&text));
    nodehost_turn(&host);
    buffer_free(&text);
}

static void hello(uint64_t id) {
    in[id] = nodehost_open(&host);
    say(in[id], &(struct peer_message){.kind = PEER_HELLO,
                                       .protocol = PEER_PROTOCOL,
                                       .cluster_id = CLUSTER,
                                       .node = id,
                                       .incarnation = 1,
                                       .address = "127.0.0.1:4009",
                                       .to = 1});
}

static void answer_dials(void) {
    for (int i = 0; i < NODEHOST_ENDS_MAX; i++) {
        struct nodehost_end *end = &host.ends[i];
        if (end->conn != NULL && end->dialled && !end->connected) {
            uint64_t id = (uint64_t)(end->address[strlen(end->address) - 1] - '0');
            out[id] = end;
            nodehost_connected(&host, end);
            say(end, &(struct peer_message){.kind = PEER_WELCOME,
                                            .protocol = PEER_PROTOCOL,
                                            .cluster_id = CLUSTER,
                                            .node = id,
                                            .incarnation = 1});
        }
    }
}

static void grant(bool pre, uint64_t term) {
    say(in[2], &(struct peer_message){.kind = PEER_VOTE_REPLY,
                                      .raft = {.term = term, .pre = pre, .granted = true}});
}

static void accept(uint64_t id, struct raft_position previous) {
    say(in[id], &(struct peer_message){.kind = PEER_APPEND_REPLY,
                                       .raft = {.term = host.node->state.term,
                                                .previous = previous,
                                                .match = previous.index}});
}

/* A leader with member 2 at its side, which has everything. */
static void lead(void) {
    nodehost_init(&host, true);
    use_disk();
    recover();
    nodehost_turn(&host);
    hello(2);
    hello(3);
    const struct raft_state *state = &host.node->state;
    for (int tries = 0; tries < 500 && state->role != RAFT_LEADER; tries++) {
        nodehost_wait(&host, 10);
        answer_dials();
        grant(true, state->term + 1);
        grant(false, state->term);
    }
    CHECK(state->role == RAFT_LEADER && state->last.index == LAST + 1);
    accept(2, state->last);
    CHECK(state->commit_index == LAST + 1);
}

static void stop(void) {
    for (uint64_t index = 1; index <= LAST; index++) {
        buffer_free(&lines[index]);
    }
    nodehost_clear(&host);
}

/* --- tests --- */
static bool was_sent(uint64_t id, uint64_t index) {
    struct span sent = buffer_span(&out[id]->sent);
    struct span line = buffer_span(&lines[index]);
    return memmem(sent.data, sent.size, line.data, line.size) != NULL;
}

/* Without time going by: no read waits for the next offer. */
static void test_read_as_fast_as_the_disk_gives_it(void) {
    lead();
    CHECK(host.node->entries.first > LAST / 2);
    say(in[3], &(struct peer_message){.kind = PEER_APPEND_REPLY,
                                      .raft = {.term = host.node->state.term,
                                               .rejected = true,
                                               .previous = {1, LAST}}});
    accept(3, (struct raft_position){0, 0});
    for (uint64_t index = 1; index <= LAST; index++) {
        CHECK(was_sent(3, index));
    }
    CHECK(reads > LAST / 2 / READ_LINES);
    stop();
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

static void test_a_read_that_fails(enum job_kind kind) {
    lead();
    end_job(kind, STATUS_NOT_FOUND); /* compacted, or replaced by a newer one */
    CHECK(host.node->state.role == RAFT_LEADER && !host.node->stopped);
    end_job(kind, kind == JOB_READ ? STATUS_CORRUPT : STATUS_IO);
    CHECK(host.node->state.role != RAFT_LEADER && host.node->stopped);
    CHECK(strstr(host.node->failure.text, "cannot be trusted") != NULL);
    stop();
}

/* The host ends between an input and the turn that would have carried what it asked for. */
static void test_an_end_before_a_dial_is_taken(void) {
    lead();
    struct buffer text = {0};
    peer_write(&text, &(struct peer_message){.kind = PEER_HELLO,
                                             .protocol = PEER_PROTOCOL,
                                             .cluster_id = CLUSTER,
                                             .node = 2,
                                             .incarnation = 9,
                                             .address = "127.0.0.1:4009",
                                             .to = 1});
    nodehost_receive(&host, nodehost_open(&host), buffer_span(&text));
    buffer_free(&text);
    CHECK(host.node->dial_count == 1); /* another life: who is at that address? */
    stop(); /* nothing is left */
}

int main(void) {
    test_an_end_before_a_dial_is_taken();
    test_read_as_fast_as_the_disk_gives_it();
    test_a_read_that_fails(JOB_READ);
    test_a_read_that_fails(JOB_SNAPSHOT_READ);
    puts("ok");
    return 0;
}
