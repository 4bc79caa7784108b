/* The whole test framework: a condition that must hold, with its place. */
#ifndef RAFTPICO_TESTS_CHECK_H
#define RAFTPICO_TESTS_CHECK_H

#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition)                                                                       \
    do {                                                                                       \
        if (!(condition)) {                                                                    \
            fprintf(stderr, "%s:%d: %s: failed: %s\n", __FILE__, __LINE__, __func__,           \
                    #condition);                                                               \
            exit(1);                                                                           \
        }                                                                                      \
    } while (0)

#endif
