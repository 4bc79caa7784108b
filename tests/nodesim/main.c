/* nodesim --seed N [--until US] [--trace] | --seeds A-B [--once] | --for SECONDS [--seeds A-B]:
 * runs them and says how it went; see nodesim.h.
 *
 * Each range runs in a child process, so that a broken invariant of the engine itself (it
 * aborts) is a finding like any other: the parent tells the seed, looks for the shortest run
 * that fails as well, and goes on behind it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/memory.h"
#include "nodesim.h"

#define SHRINK_FIRST_US 40000000u /* no chaos is longer */
#define SHRINK_LEAST_US 20000u
#define FAILURES_MAX 20u

typedef unsigned long long number;

struct totals {  /* shared with the child */
    number seed; /* that is running */
    number seeds;
    number failures;
    number stuck;
    number events;
    number requests;
    number answers;
    number simulated_us;
};

struct wish {
    number first;
    number last;
    number until_us;
    number seconds; /* 0: no limit but the seeds */
    bool trace;
    bool single;
    bool once; /* end at the first failure, and look for no shorter one */
};

const char *__asan_default_options(void);
const char *__asan_default_options(void) {
    return "abort_on_error=1";
}

/* --- one seed ---------------------------------------------------------------------------- */
static bool run(uint64_t seed, bool trace, uint64_t until_us, struct totals *totals) {
    struct world *world = malloc(sizeof(*world));
    ASSERT(world != NULL);
    long before = memory_live_count();
    world_init(world, seed, trace, until_us);
    if (!world->failed) {
        world_run(world);
    }
    bool failed = world->failed;
    totals->seeds += 1;
    totals->failures += failed ? 1 : 0;
    totals->stuck += world->stuck ? 1 : 0;
    totals->events += world->events;
    totals->requests += world->request_count;
    totals->answers += world->answers;
    totals->simulated_us += world->now_us;
    if (trace) {
        printf("seed %llu: fingerprint %016llx, %llu events, %llu requests, %llu answers\n",
               (number)seed, (number)world->fingerprint, (number)world->events,
               (number)world->request_count, (number)world->answers);
    }
    world_clear(world);
    free(world);
    ASSERT(memory_live_count() == before);
    fflush(stdout);
    return !failed;
}

/* --- a failure --------------------------------------------------------------------------- */
/* Whether the seed fails when everything is quiet from `until_us` on; in a process of its own. */
static bool fails(uint64_t seed, uint64_t until_us) {
    fflush(stdout);
    pid_t child = fork();
    ASSERT(child >= 0);
    if (child == 0) {
        ASSERT(freopen("/dev/null", "w", stdout) != NULL);
        ASSERT(freopen("/dev/null", "w", stderr) != NULL);
        struct totals totals = {0};
        bool sound = run(seed, false, until_us, &totals);
        _exit(sound ? 0 : 1);
    }
    int status = 0;
    pid_t ended = waitpid(child, &status, 0);
    ASSERT(ended == child);
    return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

/* The shortest time of trouble that still ends badly, as far as halving finds it. */
static void shrink(uint64_t seed) {
    uint64_t good_us = 0;
    uint64_t bad_us = SHRINK_FIRST_US;
    while (bad_us - good_us > SHRINK_LEAST_US) {
        uint64_t middle_us = good_us + (bad_us - good_us) / 2;
        if (fails(seed, middle_us)) {
            bad_us = middle_us;
        } else {
            good_us = middle_us;
        }
    }
    printf("  again: nodesim --seed %llu --trace\n", (number)seed);
    printf("  shortest found: nodesim --seed %llu --until %llu --trace\n", (number)seed,
           (number)bad_us);
    fflush(stdout);
}

/* --- ranges ------------------------------------------------------------------------------ */
/* In the child: until the range ends, the time is up or a seed fails. */
static int run_range(const struct wish *wish, time_t end, struct totals *totals) {
    for (number seed = wish->first; seed <= wish->last; seed++) {
        if (wish->seconds > 0 && time(NULL) >= end) {
            return 0;
        }
        totals->seed = seed;
        if (!run(seed, wish->trace, wish->until_us, totals)) {
            return 1;
        }
    }
    return 0;
}

static int run_all(struct wish wish) {
    struct totals *totals =
        mmap(NULL, sizeof(*totals), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT(totals != MAP_FAILED);
    time_t end = time(NULL) + (time_t)wish.seconds;
    number found = 0;
    for (;;) {
        fflush(stdout);
        pid_t child = fork();
        ASSERT(child >= 0);
        if (child == 0) {
            exit(run_range(&wish, end, totals));
        }
        int status = 0;
        pid_t ended = waitpid(child, &status, 0);
        ASSERT(ended == child);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
            break;
        }
        if (!WIFEXITED(status)) {
            printf("seed %llu: VIOLATION: the engine aborted\n", totals->seed);
            totals->failures++;
            totals->seeds++;
        }
        if (wish.once) {
            found++;
            break;
        }
        shrink(totals->seed);
        wish.first = totals->seed + 1;
        if (++found == FAILURES_MAX) {
            printf("enough: the rest is not run\n");
            break;
        }
    }
    printf("%llu seeds, %llu violations, %llu without a quorum left, %llu events, "
           "%llu requests, %llu answers, %llu simulated seconds\n",
           totals->seeds, totals->failures, totals->stuck, totals->events, totals->requests,
           totals->answers, totals->simulated_us / 1000000);
    return found == 0 ? 0 : 1;
}

/* --- what is wanted ---------------------------------------------------------------------- */
static int usage(void) {
    fprintf(stderr, "usage: nodesim --seed N [--until MICROSECONDS] [--trace]\n"
                    "       nodesim --seeds A-B [--once]\n"
                    "       nodesim --for SECONDS [--seeds A-B] [--once]\n");
    return 2;
}

static bool read_wish(int argc, char **argv, struct wish *wish) {
    *wish = (struct wish){.last = UINT64_MAX, .until_us = NEVER};
    bool given = false;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "--trace") == 0) {
            wish->trace = true;
            continue;
        }
        if (strcmp(argv[i], "--once") == 0) {
            wish->once = true;
            continue;
        }
        if (value == NULL) {
            return false;
        }
        if (strcmp(argv[i], "--seed") == 0) {
            wish->first = wish->last = strtoull(value, NULL, 10);
            wish->single = given = true;
        } else if (strcmp(argv[i], "--seeds") == 0) {
            given = sscanf(value, "%llu-%llu", &wish->first, &wish->last) == 2;
        } else if (strcmp(argv[i], "--until") == 0) {
            wish->until_us = strtoull(value, NULL, 10);
        } else if (strcmp(argv[i], "--for") == 0) {
            wish->seconds = strtoull(value, NULL, 10);
            given = wish->seconds > 0;
        } else {
            return false;
        }
        i++;
    }
    return given;
}

int main(int argc, char **argv) {
    struct wish wish;
    if (!read_wish(argc, argv, &wish)) {
        return usage();
    }
    if (wish.single) {
        struct totals totals = {0};
        return run(wish.first, wish.trace, wish.until_us, &totals) ? 0 : 1;
    }
    return run_all(wish);
}
