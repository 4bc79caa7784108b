/* Files of one directory: the only place of the engine that calls the operating system for
 * them.
 *
 * Every call goes through a table that tests replace: they fail the n-th call, cut a write
 * short, or let the process "die" there and lose what was not synced. Here errno becomes a
 * status and a text that names the file; an interrupted call (EINTR) and a short write simply
 * go on.
 *
 * A sync that fails is STATUS_IO whatever its errno says: after it the page cache may show
 * bytes that the disk does not hold, so it must never be tried again and never be taken for
 * "full".
 *
 * Must not know: what the files mean. */
#ifndef RAFTPICO_STORAGE_FILE_H
#define RAFTPICO_STORAGE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buffer.h"
#include "base/status.h"

#define PATH_BYTES_MAX 4096u
#define NAME_BYTES_MAX 128u /* a file in a data directory, with its NUL */

/* The system calls, with their usual meaning of results and errno. */
struct file_calls {
    int (*open)(int directory, const char *name, int flags, mode_t mode); /* openat */
    int (*close)(int fd);
    ssize_t (*pread)(int fd, void *bytes, size_t size, off_t offset);
    ssize_t (*pwrite)(int fd, const void *bytes, size_t size, off_t offset);
    int (*ftruncate)(int fd, off_t size);
    int (*fsync)(int fd);
    int (*fdatasync)(int fd);
    int (*rename)(int directory, const char *from, const char *to);
    int (*unlink)(int directory, const char *name);
    int (*mkdir)(const char *path, mode_t mode);
    int (*lock)(int fd);                              /* flock(LOCK_EX | LOCK_NB) */
    int (*size)(int fd, uint64_t *bytes);             /* fstat */
    int (*forget)(int fd);                            /* drop the page cache; only advice */
    int (*list)(int directory, struct buffer *names); /* each name with its NUL */
};

/* Tests only: use another table from now on; NULL: the real one. Not thread-safe. */
void file_use_calls(const struct file_calls *calls);

/* A directory that is open and, from directory_lock on, ours. */
struct directory {
    int fd;
    int lock_fd;               /* -1: not locked */
    bool sync;                 /* false: nothing is ever synced */
    char path[PATH_BYTES_MAX]; /* as it was given, for texts */
};

/* Open `path`, creating it (and making its name durable) when it is missing. */
enum status directory_open(struct directory *directory, const char *path, bool sync,
                           struct error *error) MUST_USE;
/* Take the lock; STATUS_LOCKED, with the owner's process id, when another process has it. */
enum status directory_lock(struct directory *directory, struct error *error) MUST_USE;
void directory_close(struct directory *directory); /* unlocks too */
enum status directory_list(struct directory *directory, struct buffer *names,
                           struct error *error) MUST_USE;
enum status directory_sync(struct directory *directory, struct error *error) MUST_USE;

/* A file that is open, and where it is. */
struct file {
    const struct directory *directory; /* borrowed; outlives the file */
    int fd;                            /* -1: closed */
    char name[NAME_BYTES_MAX];
};

#define FILE_CLOSED ((struct file){.directory = NULL, .fd = -1, .name = ""})

enum file_mode {
    FILE_READ,   /* must exist: STATUS_NOT_FOUND otherwise */
    FILE_WRITE,  /* to read and write; must exist */
    FILE_CREATE, /* to read and write; made anew, empty */
};

enum status file_open(struct file *file, const struct directory *directory, const char *name,
                      enum file_mode mode, struct error *error) MUST_USE;
void file_close(struct file *file); /* closing twice is fine */
enum status file_size(const struct file *file, uint64_t *bytes, struct error *error) MUST_USE;
/* Read until `bytes` are there or the file ends; `*got` says how many. */
enum status file_read(const struct file *file, uint64_t offset, char *into, size_t bytes,
                      size_t *got, struct error *error) MUST_USE;
enum status file_write(const struct file *file, uint64_t offset, struct span bytes,
                       struct error *error) MUST_USE;
/* Write `bytes` line feeds. */
enum status file_fill(const struct file *file, uint64_t offset, uint64_t bytes,
                      struct error *error) MUST_USE;
/* Cut the file to `size` bytes, without a sync. */
enum status file_cut(const struct file *file, uint64_t size, struct error *error) MUST_USE;
/* Make the content durable / the content, the size and everything else. */
enum status file_sync_data(const struct file *file, struct error *error) MUST_USE;
enum status file_sync(const struct file *file, struct error *error) MUST_USE;
/* Advise the kernel to forget what it has cached, so that reads see the disk. */
void file_forget(const struct file *file);

/* By name; neither is durable before directory_sync. */
enum status file_rename(const struct directory *directory, const char *from, const char *to,
                        struct error *error) MUST_USE;
enum status file_remove(const struct directory *directory, const char *name,
                        struct error *error) MUST_USE;

/* Make `name` hold `content`, wholly or not at all: write a temporary file, sync, rename, sync
 * the directory. On STATUS_NO_SPACE nothing has changed. */
enum status file_replace(struct directory *directory, const char *name, struct span content,
                         struct error *error) MUST_USE;

#define FILE_TEMPORARY_SUFFIX ".tmp" /* a name that ends so is removed at opening */

#endif
