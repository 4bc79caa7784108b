/* Assertions that stay on in every build.
 *
 * A failed ASSERT is a bug of ours, never bad input and never a bad disk: it prints where and
 * aborts, because going on with a broken invariant could lose what was acknowledged.
 * Invariant: nothing a peer, a client, a file or the operating system can do trips one. */
#ifndef RAFTPICO_BASE_ASSERT_H
#define RAFTPICO_BASE_ASSERT_H

#include <stdio.h>
#include <stdlib.h>

#define ASSERT(condition)                                                                      \
    do {                                                                                       \
        if (!(condition)) {                                                                    \
            fprintf(stderr, "raftpico: %s:%d: %s: broken invariant: %s\n", __FILE__, __LINE__, \
                    __func__, #condition);                                                     \
            abort();                                                                           \
        }                                                                                      \
    } while (0)

#define STATIC_ASSERT(condition, text) _Static_assert(condition, text)

#endif
