/* The allocator behind memory.h: malloc with a fuse for tests. */
#include "base/memory.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

static unsigned long fail_countdown;
static atomic_long live_count;

static int burn(void) {
    return fail_countdown > 0 && --fail_countdown == 0;
}

void memory_fail_at(unsigned long n) {
    fail_countdown = n;
}

long memory_live_count(void) {
    return atomic_load_explicit(&live_count, memory_order_relaxed);
}

static void *counted(void *block) {
    if (block != NULL) {
        atomic_fetch_add_explicit(&live_count, 1, memory_order_relaxed);
    }
    return block;
}

void *memory_alloc_zero(size_t bytes) {
    return burn() ? NULL : counted(calloc(1, bytes > 0 ? bytes : 1));
}

void *memory_grow(void *block, size_t bytes) {
    if (burn()) {
        return NULL;
    }
    void *grown = realloc(block, bytes > 0 ? bytes : 1);
    return block == NULL ? counted(grown) : grown;
}

void memory_free(void *block) {
    if (block != NULL) {
        atomic_fetch_sub_explicit(&live_count, 1, memory_order_relaxed);
        free(block);
    }
}

/* Of a heap with something in use at its end glibc keeps all; it has one for each thread. */
void memory_trim(void) {
#if defined(__GLIBC__)
    (void)malloc_trim(0);
#endif
}

static void *or_die(void *block, size_t bytes) {
    if (block == NULL) {
        fprintf(stderr, "raftpico: out of memory (%zu bytes wanted): stopping\n", bytes);
        abort();
    }
    return block;
}

void *memory_must_alloc_zero(size_t bytes) {
    return or_die(memory_alloc_zero(bytes), bytes);
}

void *memory_must_grow(void *block, size_t bytes) {
    return or_die(memory_grow(block, bytes), bytes);
}
