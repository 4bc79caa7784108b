/* The shortest chaos that still fails; see sim.h.
 *
 * A seed tells the same story up to the moment when peace begins, so peace is let begin earlier:
 * after every number of fault rounds, until the seed fails. Each trial is a process of its own,
 * for a failure may be an ASSERT of the core. */
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sim.h"

#define ROUND_MS 10u
#define CHAOS_MS_MAX 12000u
#define TRIAL_SECONDS_MAX 30u

static bool fails(uint64_t seed, uint64_t chaos_ms) {
    fflush(stdout);
    pid_t child = fork();
    ASSERT(child >= 0);
    if (child == 0) {
        (void)!freopen("/dev/null", "w", stdout);
        (void)!freopen("/dev/null", "w", stderr);
        alarm(TRIAL_SECONDS_MAX); /* one that hangs has failed */
        struct world *world = malloc(sizeof(*world));
        ASSERT(world != NULL);
        world_init(world, seed, false);
        world->chaos_us_max = chaos_ms * 1000;
        if (!world->failed) {
            world_run(world);
        }
        _exit(world->failed ? 1 : 0);
    }
    int status = 0;
    ASSERT(waitpid(child, &status, 0) == child);
    return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

uint64_t shrink_seed(uint64_t seed, uint64_t *trials) {
    *trials = 0;
    for (uint64_t chaos_ms = 0; chaos_ms <= CHAOS_MS_MAX; chaos_ms += ROUND_MS) {
        *trials += 1;
        if (fails(seed, chaos_ms)) {
            return chaos_ms;
        }
    }
    return UINT64_MAX;
}
