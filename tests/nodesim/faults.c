/* What goes wrong, and what peace means; see nodesim.h.
 *
 * Rates are drawn anew for each seed, zero among them: a swarm of different worlds finds more
 * than one world in which everything happens a little. */
#include <string.h>

#include "node/internal.h"
#include "nodesim.h"

typedef unsigned long long number;

/* --- rates ------------------------------------------------------------------------------- */
static uint32_t maybe(struct world *world, uint32_t most) {
    return world_chance(world, 400000) ? 0 : (uint32_t)world_between(world, 1, most);
}

static uint32_t between(struct world *world, uint32_t low, uint32_t high) {
    return (uint32_t)world_between(world, low, high);
}

static void draw_trouble(struct world *world, struct rates *rates) {
    rates->delay_us_max = between(world, 200, 20000);
    rates->split = maybe(world, 500000);
    rates->slow = maybe(world, 50000);
    rates->cut = maybe(world, 10000);
    rates->heal = between(world, 3000, 50000);
    rates->reset = maybe(world, 150000);
    rates->hold = maybe(world, 150000);
    rates->half_open = maybe(world, 500000);
    rates->crash = maybe(world, 8000);
    rates->stop = maybe(world, 4000);
    rates->restart_ms_max = between(world, 10, 3000);
    rates->power = maybe(world, 1000000);
    rates->mid_job = maybe(world, 800000);
    rates->io_error = maybe(world, 3000);
    rates->pause = maybe(world, 8000);
    rates->wipe = maybe(world, 1500);
    rates->full = maybe(world, 3000);
    rates->stall = maybe(world, 2000);
    rates->disk_us_max = between(world, 50, 15000);
    rates->disk_slow = maybe(world, 20000);
    rates->machine_us_max = between(world, 20, 5000);
    rates->machine_slow = maybe(world, 20000);
    rates->writing_dies = maybe(world, 300000);
    rates->clock = maybe(world, 10000);
    rates->turn_delay_us_max = between(world, 0, 2000);
    rates->drift = world_chance(world, 300000);
}

static void draw_wishes(struct world *world, struct rates *rates) {
    rates->request = between(world, 5000, 250000);
    rates->burst = maybe(world, 60000);
    rates->batch = maybe(world, 100000);
    rates->quiet = maybe(world, 100000);
    rates->query = maybe(world, 600000);
    rates->local_query = maybe(world, 400000);
    rates->garbage = maybe(world, 50000);
    rates->stranger = maybe(world, 5000);
    rates->deaf = maybe(world, 200000);
    rates->leave = maybe(world, 20000);
    rates->change = maybe(world, 20000);
    rates->snapshot = maybe(world, 20000);
    rates->look = maybe(world, 50000);
    rates->input_bytes_max = between(world, 40, 6000);
    rates->session = maybe(world, 700000);
    rates->again = between(world, 2000, 100000);
    rates->index = maybe(world, 500000);
    rates->min_index = maybe(world, 500000);
    rates->staleness = maybe(world, 500000);
}

void faults_draw(struct world *world) {
    world->min_timeout_ms = between(world, 100, 400);
    world->max_timeout_ms = world->min_timeout_ms * between(world, 15, 50) / 10;
    world->request_timeout_ms = between(world, 6000, 20000);
    world->snapshot_log_bytes = (uint64_t)between(world, 4, 400) * 1024;
    world->segment_bytes = (uint64_t)between(world, 2, 32) * 8192;
    draw_trouble(world, &world->rates);
    draw_wishes(world, &world->rates);
    world->server_count = between(world, 1, SERVERS_MAX - 1);
    world->client_count = between(world, 1, CLIENTS_MAX);
    for (uint32_t i = 0; i < world->server_count; i++) {
        host_new(world, i);
        host_start(world, &world->servers[i]);
    }
    for (uint32_t i = 0; i < world->client_count; i++) {
        world->clients[i] = (struct client){.number = i};
    }
}

/* --- the network ------------------------------------------------------------------------- */
static void cut_somebody(struct world *world) {
    uint32_t a = between(world, 0, world->server_count - 1);
    uint32_t b = between(world, 0, world->server_count - 1);
    uint64_t how = world_between(world, 0, 4);
    world_trace(world, "cut: s%u %s", a + 1,
                how == 0   ? "is heard by nobody"
                : how == 1 ? "hears nobody"
                : how == 2 ? "is alone"
                : how == 3 ? "and another one"
                           : "hears no client");
    for (uint32_t i = 0; i < world->server_count && how < 3; i++) {
        world->cut[a][i] = world->cut[a][i] || how != 1;
        world->cut[i][a] = world->cut[i][a] || how != 0;
    }
    if (how == 3) {
        world->cut[a][b] = true;
        world->cut[b][a] = world->cut[b][a] || world_chance(world, 500000);
    } else if (how == 4) {
        world->cut[SERVERS_MAX][a] = true;
        world->cut[a][SERVERS_MAX] = world_chance(world, 500000);
    }
}

/* Two halves that do not hear each other. */
static void divide(struct world *world) {
    uint64_t halves = world_between(world, 1, (1u << world->server_count) - 1);
    world_trace(world, "cut: two sides, %llx", (number)halves);
    for (uint32_t i = 0; i < world->server_count; i++) {
        for (uint32_t j = 0; j < world->server_count; j++) {
            bool apart = ((halves >> i) & 1) != ((halves >> j) & 1);
            world->cut[i][j] = world->cut[i][j] || apart;
        }
    }
}

static void disturb_network(struct world *world) {
    const struct rates *rates = &world->rates;
    if (world_chance(world, rates->cut)) {
        if (world_chance(world, 300000)) {
            divide(world);
        } else {
            cut_somebody(world);
        }
    }
    if (world_chance(world, rates->heal)) {
        memset(world->cut, 0, sizeof(world->cut));
    }
    struct pipe *pipe = world->pipes[world_between(world, 0, PIPES_MAX / 4 - 1)];
    if (pipe != NULL && world_chance(world, rates->hold)) {
        pipe->ends[world_between(world, 0, 1)].held_until_us =
            world->now_us + world_between(world, 10, 2000) * 1000;
    }
    if (pipe != NULL && world_chance(world, rates->reset)) {
        streams_reset(world, pipe->slot, pipe->id);
    }
}

/* --- servers ----------------------------------------------------------------------------- */
static void start_later(struct world *world, const struct server *server) {
    world_plan(world, &(struct happening){
                          .at_us = world->now_us +
                                   world_between(world, 1, world->rates.restart_ms_max) * 1000,
                          .kind = HAPPEN_START,
                          .a = server->number,
                          .life = server->life});
}

static void crash(struct world *world, struct server *server) {
    enum vdisk_crash how = !world_chance(world, world->rates.power) ? VDISK_KILL
                           : world_chance(world, 500000)            ? VDISK_POWER_NONE
                                                                    : VDISK_POWER_SOME;
    host_crash(world, server, how);
    start_later(world, server);
}

static void wipe(struct world *world, struct server *server) {
    uint64_t id = server->node->meta.node_id;
    if (!checker_survives(world, id)) {
        return;
    }
    world_trace(world, "s%u loses its directory", server->number + 1);
    host_crash(world, server, VDISK_KILL);
    vdisk_wipe(server->disk);
    if (id != 0) {
        checker_wiped(world, id);
    }
    start_later(world, server);
}

static void suspend(struct world *world, struct server *server) {
    server->paused_until_us =
        world->now_us + world_between(world, 1, 4ull * world->max_timeout_ms) * 1000;
    world_trace(world, "s%u pauses", server->number + 1);
}

static void fill_or_empty(struct world *world, struct server *server) {
    server->full = !server->full;
    vdisk_set_full(server->disk, server->full);
    world_trace(world, "s%u's disk %s", server->number + 1,
                server->full ? "is full" : "has room again");
}

static void disturb_server(struct world *world, struct server *server) {
    const struct rates *rates = &world->rates;
    if (world_chance(world, rates->full) || (server->full && world_chance(world, 20000))) {
        fill_or_empty(world, server);
    }
    if (world_chance(world, rates->stall)) {
        server->stalled_until_us = world->now_us + world_between(world, 100, 9000) * 1000;
        world_trace(world, "s%u's disk stalls", server->number + 1);
    }
    if (world_chance(world, rates->clock)) {
        server->wall_offset_ms += (int64_t)world_between(world, 0, 10000) - 5000;
    }
    if (world_chance(world, rates->io_error)) {
        world_trace(world, "s%u's disk will fail", server->number + 1);
        vdisk_fail_at(server->disk, between(world, 1, 6));
    }
    bool removed = server->node->meta.removed && world_chance(world, 10000);
    if (world_chance(world, rates->crash)) {
        crash(world, server);
    } else if (world_chance(world, rates->pause)) {
        suspend(world, server);
    } else if (removed || world_chance(world, rates->wipe)) {
        wipe(world, server);
    } else if (world_chance(world, rates->stop) && !server->stopping) {
        host_stop(world, server);
    }
}

void faults_round(struct world *world) {
    clients_round(world);
    history_deadlines(world);
    if (world_chance(world, world->rates.change + 3000)) {
        clients_change(world);
        if (world_chance(world, 300000)) {
            clients_change(world);
        }
    }
    disturb_network(world);
    struct server *server = &world->servers[world_between(world, 0, world->server_count - 1)];
    if (host_runs(world, server)) {
        disturb_server(world, server);
    }
}

/* --- peace ------------------------------------------------------------------------------- */
void faults_calm(struct world *world) {
    world_trace(world, "peace");
    world->calm = true;
    world->rates = (struct rates){.delay_us_max = 2000,
                                  .disk_us_max = 2000,
                                  .machine_us_max = 500,
                                  .input_bytes_max = 100};
    memset(world->cut, 0, sizeof(world->cut));
    for (uint32_t i = 0; i < world->server_count; i++) {
        struct server *server = &world->servers[i];
        vdisk_set_full(server->disk, false);
        vdisk_fail_at(server->disk, 0);
        server->full = false;
        server->stalled_until_us = 0;
        server->paused_until_us = 0;
        if (!server->up) {
            host_start(world, server);
        } else {
            host_wake(world, server);
        }
    }
    for (uint32_t i = 0; i < PIPES_MAX; i++) {
        if (world->pipes[i] != NULL) {
            world->pipes[i]->ends[0].held_until_us = world->pipes[i]->ends[1].held_until_us = 0;
        }
    }
    world->stuck = !checker_survives(world, 0);
}

static struct server *find_leader(struct world *world) {
    struct server *leader = NULL;
    for (uint32_t i = 0; i < world->server_count; i++) {
        struct server *server = &world->servers[i];
        if (server->up && server->node->state.role == RAFT_LEADER &&
            (leader == NULL || server->node->state.term > leader->node->state.term)) {
            leader = server;
        }
    }
    return leader;
}

static struct server *find_member(struct world *world, uint64_t id) {
    for (uint32_t i = 0; i < world->server_count; i++) {
        struct server *server = &world->servers[i];
        if (server->up && server->node->meta.node_id == id && !server->node->meta.removed) {
            return server;
        }
    }
    return NULL;
}

/* What their clients' sessions are is a function of the log. */
static bool same_sessions(const struct server *server, const struct server *leader) {
    struct buffer ours, theirs;
    buffer_init(&ours);
    buffer_init(&theirs);
    sessions_write(&server->node->applies.sessions, &ours);
    sessions_write(&leader->node->applies.sessions, &theirs);
    bool same = span_equal(buffer_span(&ours), buffer_span(&theirs));
    buffer_free(&ours);
    buffer_free(&theirs);
    return same;
}

static bool agrees(const struct server *server, const struct server *leader) {
    const struct node *node = server->node;
    const struct raft_state *state = &node->state;
    const struct raft_state *leading = &leader->node->state;
    return !state->quarantined && state->leader == leading->id &&
           state->term == leading->term && state->commit_index == leading->last.index &&
           state->last.index == leading->last.index &&
           node->applies.applied == leading->last.index && server->todo == NULL &&
           server->machine.hash == leader->machine.hash;
}

/* One leader, everybody votes and has applied all there is, everything that was asked is
 * answered, and then each member serves. */
bool faults_converged(struct world *world) {
    if (world->request_count == 0) {
        return true; /* the time was too short for anything */
    }
    const struct server *leader = find_leader(world);
    if (leader == NULL) {
        return !history_all_resolved(world)
                   ? false
                   : find_member(world, 1) == NULL && world->floor == 0;
    }
    const struct raft_configuration *configuration =
        raft_peek_configuration(leader->node->raft);
    uint32_t members[SERVERS_MAX];
    uint32_t count = 0;
    if (configuration->joint || configuration->count > SERVERS_MAX) {
        return false;
    }
    for (uint32_t i = 0; i < configuration->count; i++) {
        const struct raft_member *member = &configuration->members[i];
        const struct server *server = find_member(world, member->id);
        if (server == NULL || !member->voter || !agrees(server, leader)) {
            return false;
        }
        if (!same_sessions(server, leader)) {
            world_fail(world, "s%u and s%u remember different sessions of clients",
                       server->number + 1, leader->number + 1);
        }
        members[count++] = server->number;
    }
    count = count < world->client_count ? count : world->client_count;
    return history_all_resolved(world) && clients_served(world, members, count);
}
