/* Carrying for one node; see nodehost.h. */
#include "nodehost.h"

#include "base/memory.h"
#include "wire/scan.h"

#define ROUNDS_MAX 1000 /* more than any turn needs: a node that is never idle spins */
#define WALL_START_MS 1732406400000u

/* What is shared with a child, of which there are none here, is mapped once: a fuzzer makes a
 * host for each input. */
static void init_writing(struct nodehost *host) {
    static struct writing unused;
    struct error error = {.status = STATUS_OK};
    if (unused.report == NULL) {
        MUST(writing_init(&unused, 0, &error) == STATUS_OK);
    }
    host->writing = unused;
}

void nodehost_init(struct nodehost *host, bool durable) {
    *host = (struct nodehost){.now_ms = 1000, .wall_start_ms = WALL_START_MS};
    init_writing(host);
    disk_jobs_init(&host->disk, backend_memory(), &host->writing);
    host->node = node_new(&(struct node_options){.address = "127.0.0.1:4001",
                                                 .durable = durable,
                                                 .seed = 7,
                                                 .now_ms = host->now_ms,
                                                 .wall_ms = host->wall_start_ms});
}

void nodehost_clear(struct nodehost *host) {
    for (int i = 0; i < NODEHOST_ENDS_MAX; i++) {
        if (host->ends[i].conn != NULL) {
            nodehost_close(host, &host->ends[i]);
        }
        buffer_free(&host->ends[i].sent);
    }
    node_free(host->node);
    disk_jobs_clear(&host->disk);
    MUST(memory_live_count() == 0);
}

static struct nodehost_end *free_end(struct nodehost *host) {
    for (int i = 0; i < NODEHOST_ENDS_MAX; i++) {
        if (host->ends[i].conn == NULL) {
            buffer_free(&host->ends[i].sent);
            host->ends[i] = (struct nodehost_end){.closing = false};
            return &host->ends[i];
        }
    }
    return NULL;
}

struct nodehost_end *nodehost_open(struct nodehost *host) {
    struct nodehost_end *end = free_end(host);
    if (end != NULL) {
        end->conn = node_conn_open(host->node, end);
    }
    return end;
}

void nodehost_close(struct nodehost *host, struct nodehost_end *end) {
    struct node_conn *conn = end->conn;
    end->conn = NULL;
    node_conn_closed(host->node, conn);
}

void nodehost_receive(struct nodehost *host, struct nodehost_end *end, struct span bytes) {
    char *copy = malloc(bytes.size + 1); /* of exactly its size behind the first byte */
    if (bytes.size > 0) {
        memcpy(copy + 1, bytes.data, bytes.size);
    }
    node_set_time(host->node, host->now_ms, host->wall_start_ms + host->now_ms);
    if (end->conn != NULL && !end->closing) {
        node_conn_receive(host->node, end->conn, (struct span){copy + 1, bytes.size});
    }
    free(copy);
}

void nodehost_connected(struct nodehost *host, struct nodehost_end *end) {
    if (end->conn != NULL && end->dialled && !end->connected && !end->closing) {
        end->connected = true;
        node_conn_connected(host->node, end->conn);
    }
}

/* --- the machine --- */
static void put(struct apply_batch *batch, struct apply_item *item, enum apply_outcome outcome,
                struct span output) {
    item->outcome = outcome;
    item->output_offset = batch->output.size;
    item->output_size = output.size;
    buffer_append_span(&batch->output, output);
}

/* It gives back its input, but for what stands for the other things that a machine can do. */
static void apply(struct apply_batch *batch, struct apply_item *item) {
    struct span input = apply_item_input(batch, item);
    struct scan_error error;
    struct span value;
    MUST(scan_document(input, &value, &error));
    switch (scan_kind(value)) {
    case SCAN_STRING:
        put(batch, item, APPLY_INVALID_INPUT, SPAN("{\"reason\":\"no strings\"}"));
        return;
    case SCAN_NULL:
        put(batch, item, APPLY_NO_OUTPUT, SPAN(""));
        return;
    case SCAN_TRUE:
        put(batch, item, APPLY_RAISED, SPAN("{\"type\":\"KeyError\",\"reason\":\"x\"}"));
        return;
    case SCAN_FALSE:
        put(batch, item, APPLY_INVALID_OUTPUT, SPAN("{\"reason\":\"no JSON\"}"));
        return;
    case SCAN_NUMBER:
    case SCAN_ARRAY:
    case SCAN_OBJECT:
        put(batch, item, APPLY_DONE, value);
        return;
    }
}

/* What the machine's thread or its child would write, at once. */
static void write_snapshot(struct nodehost *host, struct span head) {
    static const char *const STATES[] = {"{\"a\":1}", "[2]"};
    struct writer writer;
    struct error error = {.status = STATUS_OK};
    writing_start(&host->writing, head, &writer);
    for (size_t i = 0; i < sizeof(STATES) / sizeof(STATES[0]); i++) {
        snapshot_stream_open_line(&writer.stream);
        buffer_append_text(&writer.stream.out, STATES[i]);
        snapshot_stream_close_line(&writer.stream);
    }
    MUST(writer_end(&writer, &error) == STATUS_OK);
    writer_clear(&writer);
    writing_finish(&host->writing, STATUS_OK, "");
}

static void run(struct nodehost *host, struct apply_batch *batch) {
    struct scan_error error;
    struct span value;
    for (uint32_t i = 0; i < batch->count; i++) {
        struct apply_item *item = &batch->items[i];
        switch (item->kind) {
        case APPLY_COMMAND:
        case APPLY_QUERY:
        case APPLY_LOCAL_QUERY:
            apply(batch, item);
            break;
        case APPLY_STATE:
            put(batch, item, APPLY_DONE, SPAN("{\"a\":1}\n[2]\n"));
            break;
        case APPLY_SNAPSHOT:
            write_snapshot(host, apply_item_input(batch, item));
            item->outcome = APPLY_DONE;
            break;
        case APPLY_RESTORE:
            item->outcome = APPLY_DONE;
            break;
        case APPLY_NOTICE:
            MUST(scan_document(apply_item_input(batch, item), &value, &error));
            item->outcome = APPLY_DONE;
            break;
        }
    }
}

/* --- carrying --- */
static bool carry_work(struct nodehost *host) {
    struct node *node = host->node;
    struct job *job;
    struct apply_batch *batch;
    bool any = false;
    while ((job = node_take_job(node)) != NULL) {
        disk_jobs_do(&host->disk, job);
        node_job_done(node, job);
        any = true;
    }
    while ((batch = node_take_batch(node)) != NULL) {
        run(host, batch);
        node_batch_done(node, batch);
        any = true;
    }
    return any;
}

static void review(struct nodehost *host, struct nodehost_end *end) {
    struct buffer *out = node_conn_out(end->conn);
    buffer_append_span(&end->sent, buffer_span(out));
    buffer_consume(out, buffer_count(out));
    end->closing = end->closing || node_conn_closing(end->conn);
    if (end->closing && !node_conn_waiting(end->conn)) {
        nodehost_close(host, end);
    }
}

static bool carry_bytes(struct nodehost *host) {
    struct node *node = host->node;
    struct node_conn *conn;
    const char *address;
    bool any = false;
    while ((conn = node_take_dirty(node)) != NULL) {
        if (node_conn_host(conn) != NULL) {
            review(host, node_conn_host(conn));
        }
        any = true;
    }
    while ((conn = node_take_dial(node, &address)) != NULL) {
        struct nodehost_end *end = free_end(host);
        if (end == NULL) {
            node_conn_closed(node, conn);
            continue;
        }
        end->conn = conn;
        end->dialled = true;
        memcpy(end->address, address, strlen(address) + 1);
        node_conn_set_host(conn, end);
        any = true;
    }
    for (int i = 0; i < NODEHOST_ENDS_MAX; i++) { /* closing ones whose last answer has come */
        if (host->ends[i].conn != NULL && host->ends[i].closing) {
            review(host, &host->ends[i]);
        }
    }
    return any;
}

void nodehost_turn(struct nodehost *host) {
    bool busy = true;
    for (int round = 0; busy; round++) {
        MUST(round < ROUNDS_MAX);
        node_set_time(host->node, host->now_ms, host->wall_start_ms + host->now_ms);
        struct error written = {.status = STATUS_OK};
        if (writing_poll(&host->writing, host->now_ms, &written)) {
            node_snapshot_written(host->node, written.status, written.text);
        }
        node_turn(host->node);
        bool worked = carry_work(host);
        busy = carry_bytes(host) || worked;
    }
}

void nodehost_wait(struct nodehost *host, uint64_t ms) {
    host->now_ms += ms;
    nodehost_turn(host);
}
