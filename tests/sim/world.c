/* Time, the event queue, log lines; see sim.h. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

#define FAULT_ROUND_US 10000u
#define CALM_CHECK_US 50000u

/* --- lines ------------------------------------------------------------------------------- */
uint64_t lines_last(const struct lines *lines) {
    return lines->first + lines->count - 1;
}

struct line *lines_at(const struct lines *lines, uint64_t index) {
    bool has = index >= lines->first && index < lines->first + lines->count;
    return has ? &lines->lines[index - lines->first] : NULL;
}

void lines_append(struct lines *lines, const struct line *line) {
    if (lines->count == lines->capacity) {
        lines->capacity = lines->capacity == 0 ? 16 : lines->capacity * 2;
        lines->lines = realloc(lines->lines, lines->capacity * sizeof(*lines->lines));
        ASSERT(lines->lines != NULL);
    }
    lines->lines[lines->count++] = *line;
}

void lines_truncate(struct lines *lines, uint64_t index) {
    if (index < lines->first) {
        lines->count = 0;
    } else if (index <= lines_last(lines)) {
        lines->count = index - lines->first;
    }
}

void lines_drop_before(struct lines *lines, uint64_t index) {
    if (index <= lines->first) {
        return;
    }
    uint64_t drop = index - lines->first;
    ASSERT(drop <= lines->count);
    lines->count -= drop;
    memmove(lines->lines, lines->lines + drop, lines->count * sizeof(*lines->lines));
    lines->first = index;
}

void lines_reset(struct lines *lines, uint64_t first) {
    lines->first = first;
    lines->count = 0;
}

void lines_free(struct lines *lines) {
    free(lines->lines);
    *lines = (struct lines){.first = 1};
}

/* --- the queue --------------------------------------------------------------------------- */
static bool earlier(const struct happening *a, const struct happening *b) {
    return a->at_us < b->at_us || (a->at_us == b->at_us && a->number < b->number);
}

static void swap(struct world *world, uint64_t a, uint64_t b) {
    struct happening kept = world->queue[a];
    world->queue[a] = world->queue[b];
    world->queue[b] = kept;
}

void world_plan(struct world *world, const struct happening *happening) {
    if (world->queue_count == world->queue_capacity) {
        world->queue_capacity = world->queue_capacity == 0 ? 256 : world->queue_capacity * 2;
        world->queue = realloc(world->queue, world->queue_capacity * sizeof(*world->queue));
        ASSERT(world->queue != NULL);
    }
    uint64_t at = world->queue_count++;
    world->queue[at] = *happening;
    world->queue[at].number = world->planned++;
    ASSERT(happening->at_us >= world->now_us);
    while (at > 0 && earlier(&world->queue[at], &world->queue[(at - 1) / 2])) {
        swap(world, at, (at - 1) / 2);
        at = (at - 1) / 2;
    }
}

bool world_next(struct world *world, struct happening *happening) {
    if (world->queue_count == 0) {
        return false;
    }
    *happening = world->queue[0];
    world->queue[0] = world->queue[--world->queue_count];
    uint64_t at = 0;
    for (;;) {
        uint64_t least = at;
        for (uint64_t child = 2 * at + 1; child <= 2 * at + 2; child++) {
            if (child < world->queue_count &&
                earlier(&world->queue[child], &world->queue[least])) {
                least = child;
            }
        }
        if (least == at) {
            break;
        }
        swap(world, at, least);
        at = least;
    }
    world->now_us = happening->at_us;
    return true;
}

/* --- small things ------------------------------------------------------------------------ */
bool world_chance(struct world *world, uint32_t per_million) {
    return per_million > 0 && random_between(&world->random, 0, 999999) < per_million;
}

uint64_t world_between(struct world *world, uint64_t low, uint64_t high) {
    return random_between(&world->random, low, high);
}

void world_mix(struct world *world, uint64_t number) {
    world->fingerprint = (world->fingerprint ^ number) * 0x100000001b3u;
}

uint32_t world_intern(struct world *world, const struct raft_configuration *configuration) {
    for (uint32_t i = 0; i < world->configuration_count; i++) {
        struct raft_configuration *known = &world->configurations[i];
        bool equal =
            known->count == configuration->count && known->joint == configuration->joint;
        for (uint32_t j = 0; equal && j < known->count; j++) {
            equal = known->members[j].id == configuration->members[j].id &&
                    known->members[j].voter == configuration->members[j].voter &&
                    known->members[j].voter_before == configuration->members[j].voter_before;
        }
        if (equal) {
            return i;
        }
    }
    if (world->configuration_count == world->configuration_capacity) {
        world->configuration_capacity = world->configuration_capacity * 2 + 16;
        world->configurations =
            realloc(world->configurations,
                    world->configuration_capacity * sizeof(*world->configurations));
        ASSERT(world->configurations != NULL);
    }
    world->configurations[world->configuration_count] = *configuration;
    return world->configuration_count++;
}

void world_trace(struct world *world, const char *format, ...) {
    if (world->trace) {
        printf("%7llu.%03llu ", (unsigned long long)(world->now_us / 1000),
               (unsigned long long)(world->now_us % 1000));
        va_list args;
        va_start(args, format);
        vprintf(format, args);
        va_end(args);
        printf("\n");
    }
}

void world_fail(struct world *world, const char *format, ...) {
    if (world->failed) {
        return;
    }
    world->failed = true;
    printf("seed %llu: VIOLATION at %llu us, event %llu: ", (unsigned long long)world->seed,
           (unsigned long long)world->now_us, (unsigned long long)world->events);
    va_list args;
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n  again: sim --seed %llu --trace\n", (unsigned long long)world->seed);
}

struct node *world_find_leader(struct world *world) {
    struct node *leader = NULL;
    for (uint32_t i = 0; i < world->node_count; i++) {
        struct node *node = &world->nodes[i];
        if (node->up && node->state.role == RAFT_LEADER &&
            (leader == NULL || node->state.term > leader->state.term)) {
            leader = node;
        }
    }
    return leader;
}

struct node *world_new_node(struct world *world) {
    if (world->node_count == NODES_MAX) {
        return NULL;
    }
    struct node *node = &world->nodes[world->node_count++];
    *node = (struct node){.id = world->node_count, .used = true, .turn_us = UINT64_MAX};
    node->lines.first = 1;
    node->disk.lines.first = 1;
    node->rate_ppm =
        world->rates.drift ? (uint32_t)world_between(world, 950000, 1050000) : 1000000;
    return node;
}

/* --- life -------------------------------------------------------------------------------- */
void world_init(struct world *world, uint64_t seed, bool trace) {
    *world = (struct world){.seed = seed,
                            .trace = trace,
                            .chaos_us_max = UINT64_MAX,
                            .fingerprint = 14695981039346656037u};
    world->next_value = 1;
    world->next_session = 1;
    random_seed(&world->random, seed);
    world_intern(world, &(struct raft_configuration){0});
    world->checker = checker_new();
    faults_draw(world);
}

void world_clear(struct world *world) {
    world->calm = true; /* nothing is planned any more */
    for (uint32_t i = 0; i < world->node_count; i++) {
        struct node *node = &world->nodes[i];
        if (node->up) {
            host_crash(world, node);
        }
        lines_free(&node->lines);
        lines_free(&node->disk.lines);
    }
    for (uint64_t i = 0; i < world->queue_count; i++) {
        parcel_free(world->queue[i].parcel);
        free(world->queue[i].input);
    }
    free(world->queue);
    free(world->configurations);
    checker_free(world->checker);
}

static void happen(struct world *world, struct happening *happening) {
    struct node *a = &world->nodes[happening->a];
    bool same_life = a->up && a->incarnation == happening->incarnation;
    switch (happening->kind) {
    case HAPPEN_TURN:
        if (a->up && a->turn_us == happening->at_us) {
            a->turn_us = UINT64_MAX;
            host_turn(world, a);
        }
        return;
    case HAPPEN_DELIVER:
        network_deliver(world, happening->parcel);
        return;
    case HAPPEN_DISK:
        if (same_life) {
            host_disk_done(world, a);
        }
        return;
    case HAPPEN_NOTIFY:
        if (same_life) {
            host_input(world, a, happening->input);
        } else {
            free(happening->input);
        }
        return;
    case HAPPEN_CONNECT:
        network_connect(world, a, &world->nodes[happening->b]);
        return;
    case HAPPEN_RESUME:
        if (same_life) {
            host_wake(world, a, world->now_us);
        }
        return;
    case HAPPEN_START:
        if (!a->up && !a->wiped && !a->retired) {
            host_start(world, a);
        }
        return;
    case HAPPEN_FAULTS:
        if (!world->calm) {
            faults_round(world);
            world_plan(world, &(struct happening){.at_us = world->now_us + FAULT_ROUND_US,
                                                  .kind = HAPPEN_FAULTS});
        }
        return;
    }
}

static void run_until(struct world *world, uint64_t end_us) {
    struct happening happening;
    while (!world->failed && world->queue_count > 0 && world->queue[0].at_us <= end_us &&
           world_next(world, &happening)) {
        world->events += 1;
        happen(world, &happening);
    }
    world->now_us = end_us > world->now_us ? end_us : world->now_us;
}

/* Chaos, then peace: in peace everything must come to a good end within a bounded time. */
void world_run(struct world *world) {
    uint64_t chaos_us = world_between(world, 2000, 12000) * 1000;
    chaos_us = chaos_us < world->chaos_us_max ? chaos_us : world->chaos_us_max;
    world_plan(world, &(struct happening){.at_us = 0, .kind = HAPPEN_FAULTS});
    run_until(world, chaos_us);
    if (world->failed) {
        return;
    }
    faults_calm(world);
    uint64_t patience_us = (uint64_t)world->max_timeout_ms * 1000 * 40 + 5000000;
    uint64_t end_us = world->now_us + patience_us;
    while (!world->failed && world->now_us < end_us) {
        run_until(world, world->now_us + CALM_CHECK_US);
        if (!world->failed && faults_converged(world)) {
            return;
        }
    }
    world_fail(world, "no convergence within %llu ms of peace",
               (unsigned long long)(patience_us / 1000));
}
