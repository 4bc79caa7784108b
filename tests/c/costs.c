/* What a request costs a member: three whole nodes with their stores in one thread, counted.
 *
 *     costs DIRECTORY
 *
 * Run under callgrind, the inclusive cost of the functions `NAME_leader`, `NAME_follower` and
 * `..._disk` below is that of the node and of its disk's jobs for one scenario; the rest is
 * printed: one line of JSON a scenario. Virtual time, one seed and bytes that pass at once make
 * every run the same, instruction by instruction. Nothing is synced: that costs time, not
 * instructions. */
#include <malloc.h>
#include <stdio.h>

#include "base/limits.h"
#include "check.h"
#include "node/node.h"
#include "server/disk_jobs.h"
#include "server/writing.h"

#define MEMBERS 3
#define ENDS_MAX 64
#define ROUND 1000u       /* requests that come in together */
#define ROUNDS 5u         /* of them in a scenario */
#define ALONE 100u        /* requests one after the other */
#define PATIENCE_MS 60000 /* of virtual time */

/* One end of a connection; what the other end wrote and this one has not read yet. */
struct end {
    int member; /* -1: the client's */
    struct node_conn *conn;
    struct end *other;
    struct buffer inbox;
    bool ended; /* the other end is closed: nothing comes behind the inbox */
};

struct member {
    char address[32];
    struct node *node;
    struct disk_jobs disk;
    struct writing writing;
    struct job *done_jobs; /* newest first: there is one at a time */
    struct apply_batch *done_batches;
};

struct counts {
    uint64_t requests;
    uint64_t peer_bytes;
    uint64_t peer_sends;
    uint64_t log_bytes; /* of one member */
    uint64_t writes;    /* jobs that would have synced, of all members */
    uint64_t turns;
};

static struct member members[MEMBERS];
static struct end ends[ENDS_MAX];
static int end_count;
static struct counts counts;
static uint64_t now_ms = 1000;
static uint64_t answers; /* lines that the client got */
static int leader;

static const uint64_t WALL_MS = 1700000000000u;

/* --- one step of one member, by who takes it ------------------------------------------- */

static void run_item(struct apply_batch *batch, struct apply_item *item) {
    item->outcome = APPLY_DONE;
    item->output_offset = batch->output.size;
    if (item->wants_output) {
        buffer_append_text(&batch->output, "null");
    }
    item->output_size = batch->output.size - item->output_offset;
}

static struct end *new_end(int member) {
    CHECK(end_count < ENDS_MAX);
    struct end *end = &ends[end_count++];
    end->member = member;
    return end;
}

static void close_end(struct end *end) {
    node_conn_closed(members[end->member].node, end->conn);
    end->conn = NULL;
    end->other->ended = true;
}

/* What is written on one end stands in the other's inbox. */
static void flush_conn(int from, struct node_conn *conn) {
    struct end *end = node_conn_host(conn);
    struct buffer *out = node_conn_out(conn);
    CHECK(end->member == from);
    if (buffer_count(out) == 0 && !node_conn_closing(conn)) {
        return;
    }
    if (end->other->member >= 0) {
        counts.peer_bytes += buffer_count(out);
        counts.peer_sends++;
    }
    buffer_append_span(&end->other->inbox, buffer_span(out));
    buffer_clear(out);
    if (node_conn_closing(conn)) {
        close_end(end);
    }
}

static void dial(int from, struct node_conn *conn, const char *address) {
    struct end *ours = new_end(from);
    for (int i = 0; i < MEMBERS; i++) {
        if (strcmp(members[i].address, address) == 0) {
            struct end *theirs = new_end(i);
            ours->conn = conn;
            ours->other = theirs;
            theirs->other = ours;
            theirs->conn = node_conn_open(members[i].node, theirs);
            node_conn_set_host(conn, ours);
            node_conn_connected(members[from].node, conn);
            return;
        }
    }
    CHECK(false && "a member's address");
}

/* Everything that has come in, a turn, and what it leaves; false when nothing had come. */
static bool step(int number) {
    struct member *member = &members[number];
    bool moved = false;
    node_set_time(member->node, now_ms, WALL_MS + now_ms);
    for (int i = 0; i < end_count; i++) {
        struct end *end = &ends[i];
        if (end->member != number || end->conn == NULL) {
            continue;
        }
        if (buffer_count(&end->inbox) > 0) {
            struct buffer bytes = end->inbox;
            buffer_init(&end->inbox);
            node_conn_receive(member->node, end->conn, buffer_span(&bytes));
            buffer_free(&bytes);
            moved = true;
        } else if (end->ended) {
            close_end(end);
            moved = true;
        }
    }
    struct job *job = member->done_jobs;
    struct apply_batch *batch = member->done_batches;
    member->done_jobs = NULL;
    member->done_batches = NULL;
    if (job != NULL) {
        node_job_done(member->node, job);
    }
    if (batch != NULL) {
        node_batch_done(member->node, batch);
    }
    moved = moved || job != NULL || batch != NULL;
    if (!moved && node_deadline_ms(member->node) > now_ms) {
        return false;
    }
    counts.turns++;
    node_turn(member->node);
    return moved;
}

static void do_job(int number, struct job *job) {
    counts.writes += job->kind == JOB_WRITE;
    counts.log_bytes += number == leader ? buffer_count(&job->data) : 0;
    disk_jobs_do(&members[number].disk, job);
    CHECK(job->status == STATUS_OK && members[number].done_jobs == NULL);
    members[number].done_jobs = job;
}

static void flush_all(int number) {
    struct node *node = members[number].node;
    struct node_conn *conn;
    const char *address = NULL;
    while ((conn = node_take_dirty(node)) != NULL) {
        flush_conn(number, conn);
    }
    while ((conn = node_take_dial(node, &address)) != NULL) {
        dial(number, conn, address);
    }
}

static void run_batches(int number) {
    struct apply_batch *batch = node_take_batch(members[number].node);
    if (batch != NULL) {
        CHECK(members[number].done_batches == NULL);
        for (uint32_t i = 0; i < batch->count; i++) {
            run_item(batch, &batch->items[i]);
        }
        members[number].done_batches = batch;
    }
}

/* A scenario counts under names of its own, which callgrind tells apart. */
struct counted {
    const char *name;
    bool (*leader)(int number);
    bool (*follower)(int number);
    void (*leader_disk)(int number, struct job *job);
    void (*follower_disk)(int number, struct job *job);
};

#define KEPT __attribute__((noinline, noclone))
#define COUNTED(NAME)                                                                          \
    static KEPT bool NAME##_leader(int number) {                                               \
        bool moved = step(number);                                                             \
        __asm__ volatile("" ::: "memory"); /* no tail call: the frame must stay */             \
        return moved;                                                                          \
    }                                                                                          \
    static KEPT bool NAME##_follower(int number) {                                             \
        bool moved = step(number);                                                             \
        __asm__ volatile("" ::: "memory");                                                     \
        return moved;                                                                          \
    }                                                                                          \
    static KEPT void NAME##_leader_disk(int number, struct job *job) {                         \
        do_job(number, job);                                                                   \
        __asm__ volatile("" ::: "memory");                                                     \
    }                                                                                          \
    static KEPT void NAME##_follower_disk(int number, struct job *job) {                       \
        do_job(number, job);                                                                   \
        __asm__ volatile("" ::: "memory");                                                     \
    }                                                                                          \
    static const struct counted NAME = {#NAME, NAME##_leader, NAME##_follower,                 \
                                        NAME##_leader_disk, NAME##_follower_disk};

COUNTED(preparing)
COUNTED(put)
COUNTED(put_forwarded)
COUNTED(put_alone)
COUNTED(query)
COUNTED(query_forwarded)
COUNTED(query_alone)
COUNTED(local_query)

/* --- the cluster ----------------------------------------------------------------------- */

static bool step_all(const struct counted *by) {
    bool moved = false;
    for (int i = 0; i < MEMBERS; i++) {
        moved = (i == leader ? by->leader(i) : by->follower(i)) || moved;
        struct job *job;
        while ((job = node_take_job(members[i].node)) != NULL) {
            (i == leader ? by->leader_disk : by->follower_disk)(i, job);
        }
        run_batches(i);
        flush_all(i);
    }
    return moved;
}

static void take_answers(struct end *client, bool show) {
    struct span rest = buffer_span(&client->inbox);
    for (size_t i = 0; i < rest.size; i++) {
        answers += rest.data[i] == '\n';
    }
    if (show || (rest.size > 0 && memmem(rest.data, rest.size, "\"error\"", 7) != NULL)) {
        fprintf(stderr, "%.*s", (int)rest.size, rest.data);
    }
    CHECK(memmem(rest.data, rest.size, "\"error\"", 7) == NULL);
    buffer_clear(&client->inbox);
}

/* Until so many answers more have come; time passes only where nothing else happens. */
static void wait_answers(const struct counted *by, struct end *client, uint64_t count) {
    uint64_t wanted = answers + count;
    uint64_t end_ms = now_ms + PATIENCE_MS;
    while (answers < wanted) {
        if (!step_all(by)) {
            now_ms++;
            CHECK(now_ms < end_ms);
        }
        take_answers(client, false);
    }
}

static void let_pass(const struct counted *by, uint64_t ms) {
    for (uint64_t end_ms = now_ms + ms; now_ms < end_ms; now_ms++) {
        while (step_all(by)) {
            continue;
        }
    }
}

static enum status no_snapshot(void *context, struct span line) {
    (void)context;
    (void)line;
    return STATUS_CORRUPT;
}

static enum status no_entry(void *context, uint64_t index, uint64_t term, uint32_t crc,
                            struct span line) {
    (void)context;
    (void)index;
    (void)term;
    (void)crc;
    (void)line;
    return STATUS_CORRUPT;
}

static void member_open(int number, const char *directory) {
    struct member *member = &members[number];
    char path[512];
    snprintf(member->address, sizeof(member->address), "127.0.0.1:%d", 4000 + number);
    snprintf(path, sizeof(path), "%s/%d", directory, number);
    member->node = node_new(&(struct node_options){.address = member->address,
                                                   .durable = true,
                                                   .seed = 7u + (uint64_t)number,
                                                   .now_ms = now_ms,
                                                   .wall_ms = WALL_MS});
    struct store_recovery recovery;
    struct store *store = NULL;
    struct error error = {0};
    enum status status = store_open(
        &(struct store_options){.path = path, .address = member->address, .sync = false},
        &(struct store_visitor){.snapshot_header = no_snapshot, .entry = no_entry}, &recovery,
        &store, &error);
    if (status != STATUS_OK) {
        fprintf(stderr, "%s\n", error.text);
    }
    CHECK(status == STATUS_OK);
    node_set_meta(member->node, &recovery.meta, false);
    CHECK(node_start(member->node) == STATUS_OK);
    CHECK(writing_init(&member->writing, 0, &error) == STATUS_OK);
    disk_jobs_init(&member->disk, backend_store(store), &member->writing);
}

static struct end *client_open(int number) {
    struct end *theirs = new_end(number);
    struct end *client = new_end(-1);
    client->other = theirs;
    theirs->other = client;
    theirs->conn = node_conn_open(members[number].node, theirs);
    return client;
}

static void ask(struct end *client, const char *line) {
    buffer_append_text(&client->other->inbox, line);
    wait_answers(&preparing, client, 1);
}

static void cluster_open(const char *directory, struct end *clients[MEMBERS]) {
    for (int i = 0; i < MEMBERS; i++) {
        member_open(i, directory);
        clients[i] = client_open(i);
    }
    ask(clients[0], "{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"CreateCluster\"}\n");
    for (int i = 1; i < MEMBERS; i++) {
        char line[128];
        snprintf(line, sizeof(line),
                 "{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"AddServer\","
                 "\"params\":{\"addr\":\"%s\"}}\n",
                 members[i].address);
        ask(clients[0], line);
    }
    let_pass(&preparing, 3000); /* learners get their votes, connections settle */
    for (int i = 0; i < MEMBERS; i++) {
        struct node_status status;
        node_peek_status(members[i].node, &status);
        leader = strcmp(status.role, "Leader") == 0 ? i : leader;
    }
}

static void cluster_close(void) {
    for (int i = 0; i < end_count; i++) {
        if (ends[i].member >= 0 && ends[i].conn != NULL) {
            node_conn_closed(members[ends[i].member].node, ends[i].conn);
        }
        buffer_free(&ends[i].inbox);
    }
    for (int i = 0; i < MEMBERS; i++) {
        if (members[i].done_jobs != NULL) {
            node_job_done(members[i].node, members[i].done_jobs);
        }
        if (members[i].done_batches != NULL) {
            node_batch_done(members[i].node, members[i].done_batches);
        }
        node_free(members[i].node);
        disk_jobs_clear(&members[i].disk);
        writing_clear(&members[i].writing);
    }
}

/* --- scenarios ------------------------------------------------------------------------- */

static void write_request(struct buffer *out, const char *kind, uint32_t number) {
    bool puts = strcmp(kind, "Command") == 0;
    buffer_append_format(out,
                         "{\"jsonrpc\":\"2.0\",\"id\":%u,\"method\":\"Apply\",\"params\":"
                         "{\"kind\":\"%s\",\"input\":{\"%s\":{\"key\":\"k%03u\"",
                         number, kind, puts ? "Put" : "Get", number % 1000);
    if (puts) {
        buffer_append_format(out, ",\"value\":%u", 1000000 + number);
    }
    buffer_append_text(out, "}}}}\n");
}

static size_t heap_bytes(void) {
    return mallinfo2().uordblks;
}

static void report(const struct counted *by, size_t heap_before) {
    double n = (double)counts.requests;
    double grown = (double)heap_bytes() - (double)heap_before;
    printf("{\"scenario\":\"%s\",\"requests\":%llu,\"peer_bytes\":%.3f,\"peer_sends\":%.4f,"
           "\"log_bytes\":%.3f,\"writes\":%.4f,\"turns\":%.4f,\"memory_bytes\":%.2f}\n",
           by->name, (unsigned long long)counts.requests, (double)counts.peer_bytes / n,
           (double)counts.peer_sends / n, (double)counts.log_bytes / n,
           (double)counts.writes / n, (double)counts.turns / n, grown / n / MEMBERS);
}

/* `together` requests at a time; the same load once before, so that buffers have grown. */
static void scenario(const struct counted *by, struct end *client, const char *kind,
                     uint32_t rounds, uint32_t together) {
    uint32_t number = 0;
    size_t heap_before = 0;
    for (uint32_t round = 0; round <= rounds; round++) {
        const struct counted *now = round == 0 ? &preparing : by;
        struct buffer lines;
        buffer_init(&lines);
        for (uint32_t i = 0; i < together; i++) {
            write_request(&lines, kind, number++);
        }
        buffer_append_span(&client->other->inbox, buffer_span(&lines));
        buffer_free(&lines);
        wait_answers(now, client, together);
        while (step_all(now)) {
            continue;
        }
        if (round == 0) {
            let_pass(now, COMMIT_NOTICE_MS + 1); /* the followers learn of the commit */
            counts = (struct counts){0};
            heap_before = heap_bytes();
        }
    }
    let_pass(by, COMMIT_NOTICE_MS + 1);
    counts.requests = (uint64_t)rounds * together;
    report(by, heap_before);
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    struct end *clients[MEMBERS];
    cluster_open(argv[1], clients);
    struct end *at_leader = clients[leader];
    struct end *at_follower = clients[(leader + 1) % MEMBERS];
    scenario(&put, at_leader, "Command", ROUNDS, ROUND);
    scenario(&put_forwarded, at_follower, "Command", ROUNDS, ROUND);
    scenario(&put_alone, at_leader, "Command", ALONE, 1);
    scenario(&query, at_leader, "Query", ROUNDS, ROUND);
    scenario(&query_forwarded, at_follower, "Query", ROUNDS, ROUND);
    scenario(&query_alone, at_leader, "Query", ALONE, 1);
    scenario(&local_query, at_follower, "LocalQuery", ROUNDS, ROUND);
    cluster_close();
    return 0;
}
