/* What goes wrong, what clients ask for, and what peace means; see sim.h.
 *
 * Rates are drawn anew for each seed, zero among them: a swarm of different worlds finds more
 * than one world in which everything happens a little. */
#include <string.h>

#include "sim.h"

/* --- rates ------------------------------------------------------------------------------- */
static uint32_t maybe(struct world *world, uint32_t most) {
    return world_chance(world, 350000) ? 0 : (uint32_t)world_between(world, 1, most);
}

static void draw_rates(struct world *world) {
    struct rates *rates = &world->rates;
    *rates = (struct rates){
        .drop = maybe(world, 150000),
        .twice = maybe(world, 100000),
        .delay_us_max = (uint32_t)world_between(world, 100, 20000),
        .slow = maybe(world, 50000),
        .reorder = world_chance(world, 300000),
        .cut = maybe(world, 20000),
        .heal = (uint32_t)world_between(world, 5000, 100000),
        .flap = maybe(world, 30000),
        .waver = maybe(world, 200000),
        .crash = maybe(world, 20000),
        .restart = (uint32_t)world_between(world, 10, 2000),
        .pause = maybe(world, 20000),
        .damage = maybe(world, 300000),
        .wipe = maybe(world, 4000),
        .disk_us_max = (uint32_t)world_between(world, 10, 30000),
        .disk_slow = maybe(world, 30000),
        .late_notice = maybe(world, 200000),
        .propose = (uint32_t)world_between(world, 10000, 500000),
        .read = maybe(world, 200000),
        .add = maybe(world, 30000),
        .remove = maybe(world, 20000),
        .transfer = maybe(world, 20000),
        .step_down = maybe(world, 5000),
        .snapshot = maybe(world, 60000),
        .full = maybe(world, 200000),
        .silent = maybe(world, 50000),
        .entries_max = (uint32_t)world_between(world, 1, 100),
        .turn_delay_us_max = (uint32_t)world_between(world, 0, 2000),
        .drift = world_chance(world, 300000),
    };
}

/* Most runs begin with a cluster that is there; the others build it up from one server. */
static void begin(struct world *world) {
    uint32_t count = (uint32_t)world_between(world, 1, 5);
    bool founded = world_chance(world, 700000);
    world->founder = founded ? 0 : 1;
    struct raft_configuration configuration = {.count = count};
    for (uint32_t i = 0; i < count; i++) {
        configuration.members[i] = (struct raft_member){.id = i + 1, .voter = true};
    }
    struct line line = {.term = 1,
                        .kind = RAFT_ENTRY_CONFIGURATION,
                        .configuration = world_intern(world, &configuration)};
    for (uint32_t i = 0; i < count; i++) {
        struct node *node = world_new_node(world);
        if (founded) {
            node->disk.term = 1;
            lines_append(&node->disk.lines, &line);
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        host_start(world, &world->nodes[i]);
    }
    if (!founded) {
        world->rates.add = 200000;
    }
}

void faults_draw(struct world *world) {
    world->min_timeout_ms = (uint32_t)world_between(world, 60, 300);
    world->commit_notice_ms =
        world_chance(world, 500000) ? (uint32_t)world_between(world, 1, 20) : 0;
    world->max_timeout_ms = world->min_timeout_ms * (uint32_t)world_between(world, 13, 60) / 10;
    draw_rates(world);
    begin(world);
}

/* --- who may be lost --------------------------------------------------------------------- */
static bool impaired(const struct node *node) {
    return node->wiped || node->damaged;
}

static const struct raft_configuration *in_force(struct world *world, struct node *node) {
    if (node->up) {
        return raft_peek_configuration(node->raft);
    }
    const struct disk *disk = &node->disk;
    for (uint64_t i = lines_last(&disk->lines); i > disk->snapshot.position.index; i--) {
        const struct line *line = lines_at(&disk->lines, i);
        if (line != NULL && line->kind == RAFT_ENTRY_CONFIGURATION) {
            return &world->configurations[line->configuration];
        }
    }
    return &world->configurations[disk->snapshot.configuration];
}

enum set {
    SET_NEW,
    SET_OLD,
    SET_SOON, /* with the one that may be lost, should it be promoted this very moment */
    SET_ALL,
};

static bool in_set(const struct raft_member *member, enum set set, uint64_t lost) {
    switch (set) {
    case SET_NEW:
        return member->voter;
    case SET_OLD:
        return member->voter_before;
    case SET_SOON:
        return member->voter || member->id == lost;
    case SET_ALL:
        return true;
    }
    return false;
}

/* Whether a set keeps a majority that is sound when `lost` (0: nobody more) is lost as well. */
static bool set_survives(const struct world *world,
                         const struct raft_configuration *configuration, enum set set,
                         uint64_t lost, uint64_t removed) {
    uint32_t total = 0;
    uint32_t sound = 0;
    for (uint32_t i = 0; i < configuration->count; i++) {
        const struct raft_member *member = &configuration->members[i];
        if (in_set(member, set, lost) && member->id != removed) {
            total += 1;
            sound += member->id != lost && !impaired(&world->nodes[member->id - 1]) ? 1 : 0;
        }
    }
    return total == 0 || sound > total / 2;
}

static bool may_lose(struct world *world, uint64_t lost) {
    for (uint32_t i = 0; i < world->node_count; i++) {
        struct node *node = &world->nodes[i];
        if (node->wiped || node->retired) {
            continue;
        }
        const struct raft_configuration *configuration = in_force(world, node);
        if (!set_survives(world, configuration, SET_NEW, lost, 0) ||
            !set_survives(world, configuration, SET_OLD, lost, 0) ||
            !set_survives(world, configuration, SET_SOON, lost, 0) ||
            !set_survives(world, configuration, SET_ALL, lost, 0)) {
            return false;
        }
    }
    return true;
}

/* --- requests ---------------------------------------------------------------------------- */
static enum raft_result ask(struct world *world, struct node *node, enum raft_event_kind kind,
                            uint64_t id, uint32_t count) {
    struct raft_outcome outcome;
    enum raft_result result =
        host_step(world, node, &(struct raft_event){.kind = kind, .id = id, .count = count},
                  NULL, &outcome);
    host_wake(world, node, world->now_us);
    return result;
}

static struct node *any_node(struct world *world) {
    struct node *node = &world->nodes[world_between(world, 0, world->node_count - 1)];
    return node->up && node->paused_until_us <= world->now_us ? node : NULL;
}

static struct node *leader_or_any(struct world *world) {
    struct node *leader = world_find_leader(world);
    if (leader != NULL && leader->paused_until_us <= world->now_us &&
        world_chance(world, 900000)) {
        return leader;
    }
    return any_node(world);
}

static void ask_remove(struct world *world, struct node *leader, uint64_t id) {
    const struct raft_configuration *configuration = raft_peek_configuration(leader->raft);
    if (leader->state.role != RAFT_LEADER ||
        raft_configuration_find(configuration, id) == NULL ||
        !set_survives(world, configuration, SET_NEW, 0, id) ||
        !set_survives(world, configuration, SET_ALL, 0, id)) {
        return;
    }
    if (ask(world, leader, RAFT_EVENT_REMOVE, id, 0) == RAFT_OK) {
        world_trace(world, "%llu begins to remove %llu", (unsigned long long)leader->id,
                    (unsigned long long)id);
        world->nodes[id - 1].leaving = true;
    }
}

static void remove_somebody(struct world *world, struct node *leader) {
    const struct raft_configuration *configuration = raft_peek_configuration(leader->raft);
    if (configuration->count > 0) {
        uint64_t at = world_between(world, 0, configuration->count - 1);
        ask_remove(world, leader, configuration->members[at].id);
    }
}

/* The same moment, another server: it may still lead an older term (M18). */
static void remove_at_another(struct world *world, const struct node *leader) {
    struct node *other = any_node(world);
    if (other != NULL && other != leader) {
        remove_somebody(world, other);
    }
}

static uint32_t count_live(const struct world *world) {
    uint32_t live = 0;
    for (uint32_t i = 0; i < world->node_count; i++) {
        live += !world->nodes[i].wiped && !world->nodes[i].retired ? 1 : 0;
    }
    return live;
}

/* Add one that waits outside, or a new server. */
static void add_somebody(struct world *world, struct node *leader) {
    struct node *fresh = NULL;
    for (uint32_t i = 0; i < world->node_count && fresh == NULL; i++) {
        struct node *node = &world->nodes[i];
        bool outside =
            raft_configuration_find(raft_peek_configuration(leader->raft), node->id) == NULL;
        if (outside && !node->leaving && !node->wiped && !node->retired &&
            node->disk.lines.count == 0 && node->disk.snapshot.position.index == 0) {
            fresh = node;
        }
    }
    if (fresh == NULL && count_live(world) < 7) {
        fresh = world_new_node(world);
        if (fresh != NULL) {
            host_start(world, fresh);
        }
    }
    if (fresh != NULL && ask(world, leader, RAFT_EVENT_ADD, fresh->id, 0) == RAFT_OK) {
        world_trace(world, "%llu adds %llu", (unsigned long long)leader->id,
                    (unsigned long long)fresh->id);
    }
}

/* Members that will never come back are removed, by a patient administrator. */
static void remove_wiped(struct world *world, struct node *leader) {
    const struct raft_configuration configuration = *raft_peek_configuration(leader->raft);
    for (uint32_t i = 0; i < configuration.count; i++) {
        if (world->nodes[configuration.members[i].id - 1].wiped) {
            ask_remove(world, leader, configuration.members[i].id);
            return;
        }
    }
}

/* Servers that are out for good are switched off after a while, or left to themselves. */
static void retire(struct world *world, const struct node *leader) {
    for (uint32_t i = 0; i < world->node_count; i++) {
        struct node *node = &world->nodes[i];
        if (node != leader && node->leaving && !node->retired &&
            !leader->state.change_pending &&
            leader->state.commit_index >= leader->state.term_start_index &&
            checker_committed(world) == leader->state.commit_index &&
            raft_configuration_find(raft_peek_configuration(leader->raft), node->id) == NULL &&
            world_chance(world, 5000)) {
            world_trace(world, "%llu is switched off", (unsigned long long)node->id);
            if (node->up) {
                host_crash(world, node);
            }
            node->retired = true;
        }
    }
}

static void requests(struct world *world) {
    struct rates *rates = &world->rates;
    struct node *node = leader_or_any(world);
    if (node == NULL) {
        return;
    }
    if (world_chance(world, rates->propose)) {
        uint32_t most = world_chance(world, 20000) ? 300 : 5;
        (void)ask(world, node, RAFT_EVENT_PROPOSE, 0, (uint32_t)world_between(world, 1, most));
    }
    if (world_chance(world, rates->read)) {
        host_read(world, node);
        host_wake(world, node, world->now_us);
        struct node *asker = any_node(world);
        if (asker != NULL) {
            host_ask_read(world, asker);
        }
    }
    if (world_chance(world, rates->transfer)) {
        uint64_t id = world_between(world, 0, world->node_count);
        (void)ask(world, node, RAFT_EVENT_TRANSFER, id, 0);
    }
    if (world_chance(world, rates->step_down)) {
        (void)ask(world, node, RAFT_EVENT_STEP_DOWN, 0, 0);
    }
    if (node->state.role != RAFT_LEADER) {
        return;
    }
    if (world_chance(world, rates->add)) {
        add_somebody(world, node);
    }
    if (world_chance(world, rates->remove)) {
        remove_somebody(world, node);
        if (world_chance(world, 300000)) {
            remove_somebody(world, node);
        }
        if (world_chance(world, 300000)) {
            remove_at_another(world, node);
        }
    }
    if (world_chance(world, 50000)) {
        remove_wiped(world, node);
    }
    retire(world, node);
}

/* --- faults ------------------------------------------------------------------------------ */
/* Two halves that hear each other through `bridge` alone. */
static void cut_but_for(struct world *world, uint64_t bridge) {
    bool left[NODES_MAX];
    for (uint32_t i = 0; i < world->node_count; i++) {
        left[i] = world_chance(world, 500000);
    }
    for (uint32_t i = 0; i < world->node_count; i++) {
        for (uint32_t j = 0; j < world->node_count; j++) {
            world->cut[i][j] = left[i] != left[j] && i != bridge && j != bridge;
        }
    }
}

/* A cut that wavers is there for some rounds and away for some. */
static void waver(struct world *world) {
    bool away = memcmp(world->cut, (bool[NODES_MAX][NODES_MAX]){0}, sizeof(world->cut)) == 0;
    world_trace(world, "the cut %s", away ? "comes back" : "wavers");
    if (away) {
        memcpy(world->cut, world->wavering, sizeof(world->cut));
    } else {
        memcpy(world->wavering, world->cut, sizeof(world->cut));
        memset(world->cut, 0, sizeof(world->cut));
    }
}

static void cut_somebody(struct world *world) {
    uint64_t a = world_between(world, 0, world->node_count - 1);
    uint64_t b = world_between(world, 0, world->node_count - 1);
    uint64_t how = world_between(world, 0, 4);
    world_trace(world, "cut %llu %llu, %llu", (unsigned long long)a + 1,
                (unsigned long long)b + 1, (unsigned long long)how);
    for (uint32_t i = 0; i < world->node_count; i++) {
        if (how == 0 || how == 2) { /* nobody hears a; or nobody hears it and it hears nobody */
            world->cut[a][i] = true;
        }
        if (how == 1 || how == 2) {
            world->cut[i][a] = true;
        }
    }
    if (how == 3) {
        world->cut[a][b] = true;
        world->cut[b][a] = world_chance(world, 500000);
    }
    if (how == 4) {
        cut_but_for(world, a);
    }
}

static void damage(struct world *world, struct node *node) {
    struct disk *disk = &node->disk;
    uint64_t first = disk->snapshot.position.index + 1;
    if (lines_last(&disk->lines) < first || !may_lose(world, node->id)) {
        return;
    }
    first = first > disk->lines.first ? first : disk->lines.first;
    uint64_t from = world_between(world, first, lines_last(&disk->lines));
    world_trace(world, "%llu loses lines from %llu on", (unsigned long long)node->id,
                (unsigned long long)from);
    lines_truncate(&disk->lines, from);
    node->damaged = true;
}

static void crash(struct world *world, struct node *node) {
    host_crash(world, node);
    if (world_chance(world, world->rates.damage)) {
        damage(world, node);
    }
    world_plan(world, &(struct happening){
                          .at_us = world->now_us +
                                   world_between(world, 1, world->rates.restart) * 1000,
                          .kind = HAPPEN_START,
                          .a = (uint32_t)node->id - 1});
}

static void wipe(struct world *world, struct node *node) {
    if (may_lose(world, node->id)) {
        host_crash(world, node);
        node->wiped = true;
        world_trace(world, "%llu loses its disk", (unsigned long long)node->id);
    }
}

static void suspend(struct world *world, struct node *node) {
    uint64_t pause_us = world_between(world, 1, 3 * world->max_timeout_ms) * 1000;
    node->paused_until_us = world->now_us + pause_us;
    world_trace(world, "%llu pauses", (unsigned long long)node->id);
    world_plan(world, &(struct happening){.at_us = node->paused_until_us,
                                          .kind = HAPPEN_RESUME,
                                          .a = (uint32_t)node->id - 1,
                                          .incarnation = node->incarnation});
}

static void flap(struct world *world) {
    struct node *a = &world->nodes[world_between(world, 0, world->node_count - 1)];
    struct node *b = &world->nodes[world_between(world, 0, world->node_count - 1)];
    if (a != b) {
        network_break(world, a, b, true);
        network_connect_later(world, a, b);
    }
}

void faults_round(struct world *world) {
    struct rates *rates = &world->rates;
    requests(world);
    if (world_chance(world, rates->cut)) {
        cut_somebody(world);
    }
    if (world_chance(world, rates->heal)) {
        memset(world->cut, 0, sizeof(world->cut));
        memset(world->wavering, 0, sizeof(world->wavering));
    }
    if (world_chance(world, rates->waver)) {
        waver(world);
    }
    if (world_chance(world, rates->flap)) {
        flap(world);
    }
    struct node *node = any_node(world);
    if (node == NULL) {
        return;
    }
    if (world_chance(world, rates->snapshot)) {
        snapshot_take(world, node);
    }
    if (world_chance(world, rates->crash)) {
        crash(world, node);
    } else if (world_chance(world, rates->pause)) {
        suspend(world, node);
    } else if (world_chance(world, rates->wipe)) {
        wipe(world, node);
    }
    node->damaged = node->damaged && (!node->up || node->state.quarantined);
}

/* --- peace ------------------------------------------------------------------------------- */
void faults_calm(struct world *world) {
    world_trace(world, "peace");
    world->calm = true;
    world->rates =
        (struct rates){.delay_us_max = 2000, .disk_us_max = 2000, .entries_max = 100};
    memset(world->cut, 0, sizeof(world->cut));
    for (uint32_t i = 0; i < world->node_count; i++) {
        struct node *node = &world->nodes[i];
        node->paused_until_us = 0;
        if (!node->up && !node->wiped && !node->retired) {
            host_start(world, node);
        } else if (node->up) {
            host_wake(world, node, world->now_us);
        }
    }
    for (uint32_t i = 0; i < world->node_count; i++) {
        for (uint32_t j = i + 1; j < world->node_count; j++) {
            network_connect_later(world, &world->nodes[i], &world->nodes[j]);
        }
    }
}

static bool member_converged(const struct world *world, const struct node *leader,
                             const struct raft_member *member) {
    const struct node *node = &world->nodes[member->id - 1];
    return member->voter && node->up && !node->state.quarantined &&
           node->state.leader == leader->id && node->state.term == leader->state.term &&
           node->state.commit_index == leader->state.commit_index &&
           node->state.last.index == leader->state.last.index;
}

static bool cluster_converged(struct world *world, struct node *leader) {
    const struct raft_configuration *configuration = raft_peek_configuration(leader->raft);
    if (leader->state.change_pending || leader->state.transferee != 0 ||
        leader->state.commit_index != leader->state.last.index ||
        leader->state.term != world->marker_term ||
        leader->state.commit_index < world->marker_index) {
        return false;
    }
    for (uint32_t i = 0; i < configuration->count; i++) {
        if (!member_converged(world, leader, &configuration->members[i])) {
            return false;
        }
    }
    return true;
}

static void place_marker(struct world *world, struct node *leader) {
    if (leader->state.term != world->marker_term &&
        ask(world, leader, RAFT_EVENT_PROPOSE, 0, 1) == RAFT_OK) {
        world->marker_term = leader->state.term;
        world->marker_index = leader->state.last.index;
        world->stable_us = 0;
    }
}

/* One leader, everybody is up to it, it commits and reads, and it stays for a while (V12). */
bool faults_converged(struct world *world) {
    struct node *leader = world_find_leader(world);
    if (leader == NULL) {
        return false;
    }
    remove_wiped(world, leader);
    place_marker(world, leader);
    if (!cluster_converged(world, leader)) {
        return false;
    }
    if (world->stable_us == 0) {
        world->stable_us = world->now_us + 3000ull * world->max_timeout_ms;
        world->reads_answered = 0;
        host_read(world, leader);
        host_wake(world, leader, world->now_us);
    }
    return world->now_us >= world->stable_us && world->reads_answered > 0;
}
