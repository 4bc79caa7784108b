/* The one door to the heap, so that a test can make the n-th allocation fail.
 *
 * memory_alloc_zero and memory_grow return NULL when there is no memory and leave everything as
 * it was; the memory_must_* pair is for small bookkeeping whose size is bounded by a named
 * limit: there the process ends with a clear text instead, which Raft survives by design (a
 * crash loses nothing that was acknowledged). */
#ifndef RAFTPICO_BASE_MEMORY_H
#define RAFTPICO_BASE_MEMORY_H

#include <stddef.h>

void *memory_alloc_zero(size_t bytes);        /* zeroed; NULL when there is none */
void *memory_grow(void *block, size_t bytes); /* like realloc: on failure `block` stays valid */
void memory_free(void *block);

void *memory_must_alloc_zero(size_t bytes);
void *memory_must_grow(void *block, size_t bytes);

/* Give what is free back to the system, where the allocator would keep it. Takes milliseconds
 * for each 100 MiB. */
void memory_trim(void);

/* Tests only: fail the n-th allocation from now (1 is the next); 0 switches it off. Once it has
 * failed, all later ones succeed. Not thread-safe. */
void memory_fail_at(unsigned long n);

/* Tests only: blocks that were allocated through here and not freed yet. */
long memory_live_count(void);

#endif
