/* Time, the event queue, and a seed's life; see nodesim.h. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nodesim.h"

#define CALM_CHECK_US 50000u

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

static void take_first(struct world *world, struct happening *happening) {
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
    printf("\n");
}

/* --- life -------------------------------------------------------------------------------- */
void world_init(struct world *world, uint64_t seed, bool trace, uint64_t quiet_us) {
    *world = (struct world){.seed = seed,
                            .trace = trace,
                            .quiet_us = quiet_us,
                            .next_pipe = 1,
                            .fingerprint = 14695981039346656037u};
    random_seed(&world->random, seed);
    file_use_calls(&VDISK_CALLS);
    world->checker = checker_new();
    faults_draw(world);
}

void world_clear(struct world *world) {
    world->calm = true;
    world->trace = false;
    for (uint32_t i = 0; i < world->server_count; i++) {
        host_free(world, &world->servers[i]);
    }
    streams_free(world);
    for (uint32_t i = 0; i < world->client_count; i++) {
        buffer_free(&world->clients[i].in);
        buffer_free(&world->clients[i].input);
    }
    checker_free(world->checker);
    free(world->requests);
    free(world->queue);
}

static void happen(struct world *world, const struct happening *happening) {
    struct server *server =
        happening->a < world->server_count ? &world->servers[happening->a] : NULL;
    bool same_life = server != NULL && server->up && server->life == happening->life;
    switch (happening->kind) {
    case HAPPEN_TURN:
        if (same_life && server->turn_us == happening->at_us) {
            server->turn_us = NEVER;
            host_turn(world, server);
        }
        return;
    case HAPPEN_CONNECT:
        streams_connect(world, happening->a, happening->life);
        return;
    case HAPPEN_DELIVER:
        streams_deliver(world, happening->a, happening->life, happening->side);
        return;
    case HAPPEN_RESET:
        streams_reset(world, happening->a, happening->life);
        return;
    case HAPPEN_DISK:
        if (same_life) {
            host_disk(world, server);
        }
        return;
    case HAPPEN_MACHINE:
        if (same_life) {
            host_machine(world, server);
        }
        return;
    case HAPPEN_START:
        if (!server->up && server->life == happening->life) {
            host_start(world, server);
        }
        return;
    case HAPPEN_ROUND:
        if (!world->calm) {
            faults_round(world);
            world_plan(world, &(struct happening){.at_us = world->now_us + ROUND_US,
                                                  .kind = HAPPEN_ROUND});
        }
        return;
    }
}

static void run_until(struct world *world, uint64_t end_us) {
    struct happening happening;
    while (!world->failed && world->queue_count > 0 && world->queue[0].at_us <= end_us) {
        take_first(world, &happening);
        world->events += 1;
        world_mix(world, happening.at_us ^ ((uint64_t)happening.kind << 56) ^
                             ((uint64_t)happening.a << 48));
        happen(world, &happening);
    }
    world->now_us = end_us > world->now_us ? end_us : world->now_us;
}

/* Chaos, then peace: in peace everything must come to a good end within a bounded time. */
void world_run(struct world *world) {
    uint64_t chaos_us = world_between(world, 3000, 30000) * 1000;
    chaos_us = chaos_us < world->quiet_us ? chaos_us : world->quiet_us;
    world_plan(world, &(struct happening){.at_us = 0, .kind = HAPPEN_ROUND});
    run_until(world, chaos_us);
    if (world->failed) {
        return;
    }
    faults_calm(world);
    uint64_t patience_us = (uint64_t)world->max_timeout_ms * 1000 * 40 +
                           (uint64_t)world->request_timeout_ms * 2000 + 60000000;
    uint64_t end_us = world->now_us + patience_us;
    while (!world->failed && world->now_us < end_us) {
        run_until(world, world->now_us + CALM_CHECK_US);
        history_deadlines(world);
        if (!world->failed && faults_converged(world)) {
            return;
        }
    }
    world->stuck = world->stuck || !checker_survives(world, 0);
    if (!world->failed && world->stuck) {
        world_trace(world, "too many voters lost their directories: no convergence is owed");
        return;
    }
    checker_summary(world);
    world_fail(world, "no convergence within %llu ms of peace",
               (unsigned long long)(patience_us / 1000));
}
