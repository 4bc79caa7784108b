/* sim --seed N [--chaos MS] [--trace]   one seed; peace begins after MS at the latest
 * sim --seeds A-B                       these seeds
 * sim --for SECONDS [--from A]          seeds from A on (by default from what the clock says)
 * sim --shrink N                        the shortest chaos with which seed N fails
 *
 * Says how it went; a failure is followed by its shortest chaos and the command that tells its
 * story. --keep does without the shortening. See sim.h. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/memory.h"
#include "sim.h"

#define SECONDS_A_YEAR 31557600.0

struct totals {
    uint64_t seeds;
    uint64_t failures;
    uint64_t events;
    uint64_t simulated_us;
};

struct order {
    unsigned long long first;
    unsigned long long last;
    unsigned long long chaos_ms; /* 0: as drawn */
    unsigned long long seconds;  /* 0: until `last` */
    bool trace;
    bool keep;
    bool shrink;
};

static char current_seed[24]; /* for the handler */
static bool keep_as_it_is;

/* An ASSERT: the seed is told, and a fresh process looks for its shortest chaos. */
static void aborted(int number) {
    static const char text[] = "  ASSERT in seed ";
    (void)!write(STDOUT_FILENO, text, sizeof(text) - 1);
    (void)!write(STDOUT_FILENO, current_seed, strlen(current_seed));
    (void)!write(STDOUT_FILENO, "\n", 1);
    if (!keep_as_it_is) {
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        execl("/proc/self/exe", "sim", "--shrink", current_seed, (char *)NULL);
    }
    signal(number, SIG_DFL);
    raise(number);
}

static bool shrink(unsigned long long seed) {
    uint64_t trials = 0;
    uint64_t chaos_ms = shrink_seed(seed, &trials);
    if (chaos_ms == UINT64_MAX) {
        printf("seed %llu: no shortened chaos fails (%llu tried)\n", seed,
               (unsigned long long)trials);
        return false;
    }
    printf("  shortest: %llu ms of chaos (%llu tried)\n  again: sim --seed %llu --chaos %llu "
           "--trace\n",
           (unsigned long long)chaos_ms, (unsigned long long)trials, seed,
           (unsigned long long)chaos_ms);
    return true;
}

static void run(unsigned long long seed, const struct order *order, struct totals *totals) {
    struct world *world = malloc(sizeof(*world));
    ASSERT(world != NULL);
    long before = memory_live_count();
    snprintf(current_seed, sizeof(current_seed), "%llu", seed);
    world_init(world, seed, order->trace);
    if (order->chaos_ms > 0) {
        world->chaos_us_max = order->chaos_ms * 1000;
    }
    if (!world->failed) {
        world_run(world);
    }
    bool failed = world->failed;
    totals->seeds += 1;
    totals->failures += failed ? 1 : 0;
    totals->events += world->events;
    totals->simulated_us += world->now_us;
    if (order->trace) {
        printf("seed %llu: fingerprint %016llx, %llu events\n", seed,
               (unsigned long long)world->fingerprint, (unsigned long long)world->events);
    }
    world_clear(world);
    free(world);
    ASSERT(memory_live_count() == before);
    if (failed && !order->keep && order->chaos_ms == 0) {
        (void)shrink(seed);
    }
}

static bool read_order(int argc, char **argv, struct order *order) {
    bool given = false;
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i];
        bool has_value = i + 1 < argc;
        if (strcmp(name, "--trace") == 0) {
            order->trace = true;
        } else if (strcmp(name, "--keep") == 0) {
            order->keep = true;
        } else if (!has_value) {
            return false;
        } else if (strcmp(name, "--seed") == 0 || strcmp(name, "--shrink") == 0) {
            order->first = order->last = strtoull(argv[++i], NULL, 10);
            order->shrink = strcmp(name, "--shrink") == 0;
            given = true;
        } else if (strcmp(name, "--seeds") == 0) {
            given = sscanf(argv[++i], "%llu-%llu", &order->first, &order->last) == 2;
        } else if (strcmp(name, "--chaos") == 0) {
            order->chaos_ms = strtoull(argv[++i], NULL, 10);
        } else if (strcmp(name, "--from") == 0) {
            order->first = strtoull(argv[++i], NULL, 10);
        } else if (strcmp(name, "--for") == 0) {
            order->seconds = strtoull(argv[++i], NULL, 10);
            order->last = UINT64_MAX - 1;
            given = true;
        } else {
            return false;
        }
    }
    if (order->seconds > 0 && order->first == 0) {
        order->first = (unsigned long long)time(NULL) * 1000000;
    }
    return given;
}

static double seconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

int main(int argc, char **argv) {
    struct order order = {0};
    if (!read_order(argc, argv, &order)) {
        fprintf(stderr, "usage: sim --seed N [--chaos MS] [--trace] | --seeds A-B | --for "
                        "SECONDS [--from A] | --shrink N; and --keep\n");
        return 2;
    }
    if (order.shrink) {
        return shrink(order.first) ? 1 : 0;
    }
    keep_as_it_is = order.keep || order.chaos_ms > 0 || order.trace;
    signal(SIGABRT, aborted);
    struct totals totals = {0};
    double begin = seconds_now();
    for (unsigned long long seed = order.first; seed <= order.last; seed++) {
        if (order.seconds > 0 && seconds_now() - begin >= (double)order.seconds) {
            printf("seeds %llu to %llu\n", order.first, seed - 1);
            break;
        }
        run(seed, &order, &totals);
        fflush(stdout);
    }
    printf("%llu seeds, %llu violations, %llu events, %llu simulated seconds (%.4f years)",
           (unsigned long long)totals.seeds, (unsigned long long)totals.failures,
           (unsigned long long)totals.events,
           (unsigned long long)(totals.simulated_us / 1000000),
           (double)totals.simulated_us / 1e6 / SECONDS_A_YEAR);
    double took = seconds_now() - begin;
    if (!order.trace && took > 0) { /* a trace is the same every time */
        printf(", %.0f events/s", (double)totals.events / took);
    }
    printf("\n");
    return totals.failures == 0 ? 0 : 1;
}
