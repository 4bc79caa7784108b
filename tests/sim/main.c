/* sim --seed N [--trace], sim --seeds A-B: run them and say how it went; see sim.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "sim.h"

struct totals {
    uint64_t seeds;
    uint64_t failures;
    uint64_t events;
    uint64_t simulated_us;
};

static void run(uint64_t seed, bool trace, struct totals *totals) {
    struct world *world = malloc(sizeof(*world));
    ASSERT(world != NULL);
    long before = memory_live_count();
    world_init(world, seed, trace);
    if (!world->failed) {
        world_run(world);
    }
    totals->seeds += 1;
    totals->failures += world->failed ? 1 : 0;
    totals->events += world->events;
    totals->simulated_us += world->now_us;
    if (trace) {
        printf("seed %llu: fingerprint %016llx, %llu events\n", (unsigned long long)seed,
               (unsigned long long)world->fingerprint, (unsigned long long)world->events);
    }
    world_clear(world);
    free(world);
    ASSERT(memory_live_count() == before);
}

static int usage(void) {
    fprintf(stderr, "usage: sim --seed N [--trace] | sim --seeds A-B\n");
    return 2;
}

int main(int argc, char **argv) {
    bool trace = false;
    unsigned long long first = 0;
    unsigned long long last = 0;
    bool given = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--trace") == 0) {
            trace = true;
        } else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc) {
            first = last = strtoull(argv[++i], NULL, 10);
            given = true;
        } else if (strcmp(argv[i], "--seeds") == 0 && i + 1 < argc) {
            given = sscanf(argv[++i], "%llu-%llu", &first, &last) == 2;
        } else {
            return usage();
        }
    }
    if (!given) {
        return usage();
    }
    struct totals totals = {0};
    for (unsigned long long seed = first; seed <= last; seed++) {
        run(seed, trace, &totals);
        fflush(stdout);
    }
    printf("%llu seeds, %llu violations, %llu events, %llu simulated seconds\n",
           (unsigned long long)totals.seeds, (unsigned long long)totals.failures,
           (unsigned long long)totals.events,
           (unsigned long long)(totals.simulated_us / 1000000));
    return totals.failures == 0 ? 0 : 1;
}
