/* Connections as byte streams: delayed, split at any place, stopped by cuts, reset, half open;
 * see nodesim.h.
 *
 * Bytes arrive in order and whole or not at all, as in TCP: a cut only delays them, until the
 * connection is reset. Invariant: a pipe lives until both of its ends have left. */
#include <stdlib.h>
#include <string.h>

#include "node/internal.h"
#include "nodesim.h"

#define KERNEL_BYTES 8192u /* of one end's output that the node does not see as unsent */
#define CUT_POLL_US 20000u
#define REFUSED_US 1000u
#define CONNECT_GIVE_UP_US 3000000u
#define SILENCE_US 60000000u /* keep-alive: then a half-open connection is found out */
#define POLL_US 3000u

/* --- pipes ------------------------------------------------------------------------------- */
struct pipe *streams_find(struct world *world, uint64_t id) {
    for (uint32_t i = 0; id != 0 && i < PIPES_MAX; i++) {
        if (world->pipes[i] != NULL && world->pipes[i]->id == id) {
            return world->pipes[i];
        }
    }
    return NULL;
}

static struct pipe *at_slot(struct world *world, uint32_t slot, uint64_t id) {
    struct pipe *pipe = world->pipes[slot];
    return pipe != NULL && pipe->id == id ? pipe : NULL;
}

static void free_pipe(struct world *world, struct pipe *pipe) {
    world->pipes[pipe->slot] = NULL;
    buffer_free(&pipe->ends[0].out);
    buffer_free(&pipe->ends[1].out);
    free(pipe);
}

void streams_free(struct world *world) {
    for (uint32_t i = 0; i < PIPES_MAX; i++) {
        if (world->pipes[i] != NULL) {
            free_pipe(world, world->pipes[i]);
        }
    }
}

static uint32_t place(const struct end *end) {
    return end->server != NULL ? end->server->number : SERVERS_MAX;
}

static bool is_cut(const struct world *world, const struct end *from, const struct end *to) {
    return world->cut[place(from)][place(to)];
}

struct pipe *streams_dial(struct world *world, struct server *from, struct client *client,
                          struct node_conn *conn, uint32_t to) {
    uint32_t slot = 0;
    while (slot < PIPES_MAX && world->pipes[slot] != NULL) {
        slot++;
    }
    ASSERT(slot < PIPES_MAX);
    struct pipe *pipe = calloc(1, sizeof(*pipe));
    ASSERT(pipe != NULL);
    *pipe = (struct pipe){.id = world->next_pipe++, .slot = slot, .since_us = world->now_us};
    pipe->ends[0] = (struct end){
        .pipe = pipe, .server = from, .client = client, .conn = conn, .attached = true};
    pipe->ends[1] = (struct end){.pipe = pipe, .side = 1, .server = &world->servers[to]};
    world->pipes[slot] = pipe;
    world_plan(world,
               &(struct happening){.at_us = world->now_us +
                                            world_between(world, 50, world->rates.delay_us_max),
                                   .kind = HAPPEN_CONNECT,
                                   .a = slot,
                                   .life = pipe->id});
    return pipe;
}

/* --- ends -------------------------------------------------------------------------------- */
/* The end has left, by its own will or not: its owner is told where it did not decide. */
static void detach(struct world *world, struct pipe *pipe, uint32_t side) {
    struct end *end = &pipe->ends[side];
    if (!end->attached) {
        return;
    }
    end->attached = false;
    if (end->client != NULL) {
        clients_gone(world, end->client);
    } else if (end->server->up && end->conn != NULL) {
        host_input(world, end->server);
        history_conn_closed(world, pipe->id);
        node_conn_closed(end->server->node, end->conn);
    }
    end->conn = NULL;
    if (!pipe->ends[1 - side].attached) {
        free_pipe(world, pipe);
    }
}

static void break_pipe(struct world *world, struct pipe *pipe) {
    uint64_t id = pipe->id;
    uint32_t slot = pipe->slot;
    detach(world, pipe, 0);
    pipe = at_slot(world, slot, id);
    if (pipe != NULL) {
        detach(world, pipe, 1);
    }
}

static void plan_delivery(struct world *world, struct pipe *pipe, uint32_t side,
                          uint64_t delay_us) {
    struct end *end = &pipe->ends[side];
    if (!end->planned) {
        end->planned = true;
        world_plan(world, &(struct happening){.at_us = world->now_us + delay_us,
                                              .kind = HAPPEN_DELIVER,
                                              .a = pipe->slot,
                                              .side = side,
                                              .life = pipe->id});
    }
}

static uint64_t delay(struct world *world) {
    uint64_t us = world_between(world, 10, world->rates.delay_us_max);
    return world_chance(world, world->rates.slow) ? us * 20 : us;
}

void streams_reset_soon(struct world *world, struct pipe *pipe, uint64_t delay_us) {
    world_plan(world, &(struct happening){.at_us = world->now_us + delay_us,
                                          .kind = HAPPEN_RESET,
                                          .a = pipe->slot,
                                          .life = pipe->id});
}

void streams_reset(struct world *world, uint32_t slot, uint64_t id) {
    struct pipe *pipe = at_slot(world, slot, id);
    if (pipe != NULL) {
        break_pipe(world, pipe);
    }
}

/* --- connecting -------------------------------------------------------------------------- */
void streams_connect(struct world *world, uint32_t slot, uint64_t id) {
    struct pipe *pipe = at_slot(world, slot, id);
    if (pipe == NULL) {
        return;
    }
    struct end *from = &pipe->ends[0];
    struct end *to = &pipe->ends[1];
    bool held = !from->attached || is_cut(world, from, to) || is_cut(world, to, from) ||
                (to->server->up && !host_runs(world, to->server)) ||
                (from->server != NULL && !host_runs(world, from->server));
    if (held && world->now_us - pipe->since_us < CONNECT_GIVE_UP_US) {
        world_plan(world, &(struct happening){.at_us = world->now_us + CUT_POLL_US,
                                              .kind = HAPPEN_CONNECT,
                                              .a = slot,
                                              .life = id});
        return;
    }
    if (held || !to->server->up) {
        streams_reset_soon(world, pipe, REFUSED_US);
        return;
    }
    pipe->open = true;
    to->attached = true;
    host_input(world, to->server);
    to->conn = node_conn_open(to->server->node, to);
    plan_delivery(world, pipe, 0, delay(world));
    if (from->server != NULL) {
        host_input(world, from->server);
        node_conn_connected(from->server->node, from->conn);
    }
}

/* --- bytes ------------------------------------------------------------------------------- */
static void tell_unsent(struct end *end) {
    if (end->attached && end->conn != NULL) {
        size_t bytes = buffer_count(&end->out);
        node_conn_set_unsent(end->conn, bytes > KERNEL_BYTES ? bytes - KERNEL_BYTES : 0);
    }
}

/* The other end hears that no more will come. */
static void hang_up(struct world *world, struct pipe *pipe, uint32_t side) {
    struct end *to = &pipe->ends[1 - side];
    if (to->attached && !to->ended) {
        to->ended = true;
        if (to->client != NULL) {
            break_pipe(world, pipe);
        } else {
            host_input(world, to->server); /* the turn looks at it */
        }
    }
}

/* Why nothing can be delivered now: how long to wait; 0: it can. */
static uint64_t obstacle_us(const struct world *world, const struct pipe *pipe,
                            const struct end *from, const struct end *to) {
    bool dead = !to->attached && to->server != NULL && !to->server->up && pipe->silent;
    if (!pipe->open || dead || is_cut(world, from, to)) {
        return CUT_POLL_US;
    }
    if (from->held_until_us > world->now_us) {
        return from->held_until_us - world->now_us;
    }
    if (to->server != NULL && to->attached && !host_runs(world, to->server)) {
        uint64_t until = to->server->paused_until_us;
        return until > world->now_us ? until - world->now_us : CUT_POLL_US;
    }
    bool full = to->attached && (to->client != NULL ? to->client->deaf && !world->calm
                                                    : !node_conn_wants_input(to->conn));
    return full ? POLL_US : 0;
}

/* A line that the node holds back is like one that it has not read: its time has not begun. */
static void note_taken(struct world *world, const struct end *end) {
    if (end->pipe->ends[0].client != NULL) {
        history_given(world, end->server, end->pipe, buffer_count(&end->conn->in));
    }
}

static void hand(struct world *world, struct pipe *pipe, struct end *to, struct span bytes) {
    if (to->client != NULL) {
        clients_bytes(world, to->client, bytes);
    } else {
        host_input(world, to->server);
        pipe->given_bytes += bytes.size;
        node_conn_receive(to->server->node, to->conn, bytes);
        note_taken(world, to);
    }
}

void streams_deliver(struct world *world, uint32_t slot, uint64_t id, uint32_t side) {
    struct pipe *pipe = at_slot(world, slot, id);
    if (pipe == NULL) {
        return;
    }
    struct end *from = &pipe->ends[side];
    struct end *to = &pipe->ends[1 - side];
    from->planned = false;
    uint64_t wait_us = obstacle_us(world, pipe, from, to);
    if (wait_us > 0) {
        plan_delivery(world, pipe, side, wait_us);
        return;
    }
    size_t size = buffer_count(&from->out);
    if (!to->attached && size > 0) { /* nobody is there: the sender learns it by a reset */
        buffer_clear(&from->out);
        streams_reset_soon(world, pipe, delay(world));
        return;
    }
    if (size > 0) {
        size_t part = size < READ_BYTES_MAX ? size : READ_BYTES_MAX;
        if (world_chance(world, world->rates.split)) {
            part = (size_t)world_between(
                world, 1, part < 200 || world_chance(world, 500000) ? part : 200);
        }
        char *copy = malloc(part);
        ASSERT(copy != NULL);
        memcpy(copy, buffer_peek(&from->out), part);
        buffer_consume(&from->out, part);
        tell_unsent(from);
        if (from->attached && from->server != NULL && host_runs(world, from->server)) {
            host_wake(world, from->server); /* it may have held back what there is room for */
        }
        hand(world, pipe, to, (struct span){copy, part});
        free(copy);
        pipe = at_slot(world, slot, id);
        if (pipe == NULL) {
            return;
        }
    }
    if (buffer_count(&from->out) > 0) {
        plan_delivery(world, pipe, side, world_between(world, 1, 300));
    } else if (from->closed) {
        hang_up(world, pipe, side);
    }
}

void streams_write(struct world *world, struct end *end, struct span bytes) {
    buffer_append_span(&end->out, bytes);
    plan_delivery(world, end->pipe, end->side, delay(world));
}

void streams_close(struct world *world, struct end *end) {
    end->closed = true;
    plan_delivery(world, end->pipe, end->side, delay(world));
    detach(world, end->pipe, end->side);
}

void streams_flush(struct world *world, struct end *end) {
    struct buffer *out = node_conn_out(end->conn);
    note_taken(world, end);
    checker_backlog(world, end->server, end->conn);
    if (buffer_count(out) > 0) {
        if (end->pipe->ends[0].client != NULL) {
            history_answered(world, end->server, end->pipe->id, buffer_span(out));
        }
        checker_sends(world, end->server, buffer_span(out));
        buffer_append_span(&end->out, buffer_span(out));
        buffer_clear(out);
        tell_unsent(end);
        plan_delivery(world, end->pipe, end->side, delay(world));
    }
}

/* As server/links.c: closed when the node wishes it, or nothing more comes in, and all that had
 * to go out has. */
static bool is_done(const struct pipe *pipe, const struct end *end) {
    bool closing = node_conn_closing(end->conn);
    if (!pipe->open) {
        return closing;
    }
    return (closing || (end->ended && buffer_count(&end->out) == 0)) &&
           !node_conn_waiting(end->conn) && buffer_count(node_conn_out(end->conn)) == 0;
}

void streams_review(struct world *world, struct server *server) {
    for (uint32_t slot = 0; slot < PIPES_MAX; slot++) {
        for (uint32_t side = 0; side < 2; side++) {
            struct pipe *pipe = world->pipes[slot];
            struct end *end = pipe != NULL ? &pipe->ends[side] : NULL;
            if (end == NULL || end->server != server || !end->attached) {
                continue;
            }
            note_taken(world, end);
            checker_backlog(world, server, end->conn);
            if (is_done(pipe, end)) {
                streams_close(world, end);
            }
        }
    }
}

/* The process is gone: its connections break, or, when nobody could tell, hang. */
void streams_drop_server(struct world *world, struct server *server, bool told) {
    for (uint32_t slot = 0; slot < PIPES_MAX; slot++) {
        for (uint32_t side = 0; side < 2; side++) {
            struct pipe *pipe = world->pipes[slot];
            if (pipe == NULL || pipe->ends[side].server != server ||
                !pipe->ends[side].attached) {
                continue;
            }
            history_conn_closed(world, pipe->id);
            struct end *end = &pipe->ends[side];
            node_conn_closed(server->node, end->conn); /* frees it; nothing comes of it */
            end->attached = false;
            end->conn = NULL;
            pipe->silent = !told;
            if (!pipe->ends[1 - side].attached) {
                free_pipe(world, pipe);
            } else if (told && world_chance(world, 500000)) {
                end->closed = true; /* the system still sends what it was given */
                plan_delivery(world, pipe, side, delay(world));
            } else {
                buffer_clear(&end->out);
                streams_reset_soon(world, pipe, told ? delay(world) : SILENCE_US);
            }
        }
    }
}
