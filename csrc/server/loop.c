/* Hosting the node where the loop runs: inputs in, a turn, outputs out; see node/node.h.
 *
 * Decides nothing. Invariants: the node is told the time before each input; an iteration of the
 * loop has at most one turn, after all of its input; what a turn leaves is carried at once. */
#include "base/assert.h"
#include "server/internal.h"

void loop_input(struct server *server) {
    node_set_time(server->node, net_now_ms(), net_wall_ms());
    net_turn_soon(server->net);
}

/* --- from other threads --- */

static void take_jobs(struct server *server) {
    struct job *next = NULL;
    for (struct job *job = disk_take_done(&server->disk); job != NULL; job = next) {
        next = job->next;
        job->next = NULL;
        loop_input(server);
        node_job_done(server->node, job);
    }
}

static void take_batches(struct server *server) {
    struct apply_batch *next = NULL;
    for (struct apply_batch *batch = batches_take_done(&server->batches); batch != NULL;
         batch = next) {
        next = batch->next;
        batch->next = NULL;
        loop_input(server);
        node_batch_done(server->node, batch);
    }
}

/* After the end they stay where they are, and are freed with that. */
void loop_take_done(struct server *server) {
    if (!server->over) {
        take_jobs(server);
        take_batches(server);
    }
}

static void take_calls(struct server *server) {
    struct call *call;
    while ((call = calls_take(&server->calls)) != NULL) {
        links_call(server, call);
    }
    while ((call = calls_peek_abandoned(&server->calls)) != NULL) {
        links_close(call->owner, STATUS_TIMEOUT);
    }
}

/* Everything ends: nothing more goes to the node. Calls made from now on are refused. */
static void end(struct server *server) {
    if (!server->over) {
        links_close_all(server);
        server->over = true;
        calls_end(&server->calls);
        net_stop(server->net);
    }
}

static void take_stop(struct server *server) {
    uv_mutex_lock(&server->mutex);
    uint32_t wanted = server->stops_wanted;
    uv_mutex_unlock(&server->mutex);
    if (wanted > 0 && !server->stopping) {
        server->stopping = true;
        loop_input(server);
        node_stop(server->node);
    }
    if (wanted > 1) {
        end(server);
    }
}

static void on_woken(void *host) {
    struct server *server = host;
    loop_take_done(server);
    take_calls(server);
    take_stop(server);
}

/* --- a turn --- */

static void leave(struct server *server, enum hand next) {
    if (!server->leaving) {
        server->leaving = true;
        server->next = next;
    }
    net_leave(server->net);
}

static bool is_waited_for(const struct apply_batch *batch) {
    for (uint32_t i = 0; i < batch->count; i++) {
        if (batch->items[i].token != 0) {
            return true;
        }
    }
    return false;
}

/* What is for the thread that runs the loop can be done only by leaving it. */
static void carry_batch(struct server *server, struct apply_batch *batch) {
    bool own = server->crew.holder == HAND_APPLY;
    if (own ||
        (!server->leaving && shifts_batch_is_small(server, batch) && is_waited_for(batch))) {
        batches_place(&server->batches, batch);
        leave(server, HAND_APPLY);
    } else {
        batches_push(&server->batches, batch);
    }
}

/* A leader does not wait for its own disk: others write the same, and answer meanwhile. */
static void carry_job(struct server *server, struct job *job) {
    bool own = server->crew.holder == HAND_DISK;
    if (own || (!server->leaving && shifts_job_is_small(server, job) &&
                !node_leads_others(server->node))) {
        disk_place(&server->disk, job);
        leave(server, HAND_DISK);
    } else {
        disk_push(&server->disk, job);
    }
}

/* Peers first: the way over them is the longest, and whom we wake here may take the processor
 * from us at once. Then the disk and the machine, which work while clients are written to. */
static void carry(struct server *server) {
    struct node *node = server->node;
    struct job *job;
    struct apply_batch *batch;
    struct node_conn *conn;
    const char *address = NULL;
    while ((conn = node_take_dirty_peer(node)) != NULL) {
        links_flush(node_conn_host(conn));
    }
    while ((job = node_take_job(node)) != NULL) {
        carry_job(server, job);
    }
    while ((batch = node_take_batch(node)) != NULL) {
        carry_batch(server, batch);
    }
    while ((conn = node_take_dirty(node)) != NULL) {
        links_flush(node_conn_host(conn));
    }
    while ((conn = node_take_dial(node, &address)) != NULL) {
        links_dial(server, conn, address);
    }
    links_review(server);
}

/* Not by a wake: the node asks for turns while it waits for this. */
static void take_writing(struct server *server) {
    struct error result = {.status = STATUS_OK};
    if (writing_poll(&server->writing, net_now_ms(), &result)) {
        node_snapshot_written(server->node, result.status, result.text);
    }
}

static void on_turn(void *host) {
    struct server *server = host;
    node_set_time(server->node, net_now_ms(), net_wall_ms());
    take_writing(server);
    node_turn(server->node);
    carry(server);
    net_set_read_bytes(server->net, node_read_bytes_max(server->node));
    state_publish(server);
    struct error failure = {.status = STATUS_OK};
    if (node_stopped(server->node, &failure)) {
        uv_mutex_lock(&server->mutex);
        server->exit = failure;
        uv_mutex_unlock(&server->mutex);
        end(server);
        return;
    }
    uint64_t deadline_ms = node_deadline_ms(server->node);
    bool looks = server->watched != NULL || server->peak_bytes >= GIVE_BACK_BYTES_LEAST;
    uint64_t review_ms = looks ? server->review_ms : NET_NEVER_MS;
    net_turn_at(server->net, deadline_ms < review_ms ? deadline_ms : review_ms);
}

const struct net_events LOOP_EVENTS = {
    .accepted = links_accepted,
    .connected = links_connected,
    .bytes = links_bytes,
    .ended = links_ended,
    .drained = links_drained,
    .closed = links_closed,
    .woken = on_woken,
    .turn = on_turn,
};
