/* A small deterministic generator (xoshiro256**, seeded by splitmix64): the same seed gives the
 * same numbers on every machine. Not for secrets. */
#ifndef RAFTPICO_BASE_RANDOM_H
#define RAFTPICO_BASE_RANDOM_H

#include <stdint.h>

struct random {
    uint64_t state[4];
};

void random_seed(struct random *random, uint64_t seed);
uint64_t random_next(struct random *random);

/* Uniform in [low, high], both included; low <= high. */
uint64_t random_between(struct random *random, uint64_t low, uint64_t high);

#endif
