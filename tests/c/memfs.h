/* A file system in memory behind storage/file.h's table of calls, with one directory.
 *
 * It keeps what the disk holds apart from what the page cache shows, and so can do what a real
 * one does only on bad days: the n-th call fails, is interrupted or cut short; the process dies
 * there; the power goes, and everything that was not synced is lost in whole or in part, sector
 * by sector and name by name in any order; a sync fails once, after which the pages count as
 * clean and the disk never gets them. */
#ifndef RAFTPICO_TESTS_MEMFS_H
#define RAFTPICO_TESTS_MEMFS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "storage/file.h"

extern const struct file_calls MEMFS_CALLS;

#define MEMFS_PATH "/mem/data" /* the one directory there is */

void memfs_reset(void); /* empty, and without any plan */
void memfs_free(void);

enum memfs_fault {
    MEMFS_EIO,
    MEMFS_ENOSPC,
    MEMFS_EINTR,
    MEMFS_SHORT,   /* a read or write does a part of its work */
    MEMFS_DIE,     /* the process dies before the call: from now on nothing has any effect */
    MEMFS_DIE_MID, /* the same in the middle of a write */
};

/* Let the n-th call from now (1 is the next) fail so; with `for_ever` all later ones too. 0: no
 * fault. */
void memfs_fail_at(unsigned long n, enum memfs_fault fault, bool for_ever);
unsigned long memfs_calls(void); /* since memfs_fail_at or memfs_reset */
bool memfs_hit(void);            /* the fault has happened */
void memfs_die(void);            /* now: for a store that is closed before memfs_crash */
bool memfs_dead(void);
const char *memfs_hit_call(void); /* which call it was, for texts */

enum memfs_crash {
    MEMFS_KILL,       /* the process only: the page cache lives on */
    MEMFS_POWER_NONE, /* nothing that was not synced survives */
    MEMFS_POWER_SOME, /* a random part of it does */
};

/* Descriptors and locks are gone, no fault is planned, and the files are what survived. */
void memfs_crash(enum memfs_crash crash, uint64_t seed);

/* --- the files, for a test that looks or tampers; as the page cache shows them and the disk
 * holds them --- */
int memfs_count(void);
const char *memfs_name(int number);                /* NULL for a free place */
const struct buffer *memfs_peek(const char *name); /* NULL: there is no such file */
void memfs_put(const char *name, struct span content);
void memfs_remove(const char *name);

/* All files, to go back to. */
struct memfs_image;
struct memfs_image *memfs_save(void);
void memfs_load(const struct memfs_image *image);
void memfs_image_free(struct memfs_image *image);

#endif
