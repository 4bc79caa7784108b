/* Calling the system for files and directories; see file.h. */
#include "storage/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <unistd.h>

#include "base/assert.h"
#include "storage/calls.h"

#define LOCK_NAME "lock"
#define FILL_CHUNK_BYTES 16384u
#define IO_BYTES_MAX (1u << 30) /* one read or write: below every system's own limit */

static const struct file_calls *calls = &CALLS_REAL;

void file_use_calls(const struct file_calls *replacement) {
    calls = replacement != NULL ? replacement : &CALLS_REAL;
}

static enum status status_of(int failure) {
    switch (failure) {
    case ENOSPC:
    case EDQUOT:
        return STATUS_NO_SPACE;
    case ENOENT:
        return STATUS_NOT_FOUND;
    case ENOMEM:
        return STATUS_NO_MEMORY;
    default:
        return STATUS_IO;
    }
}

/* errno's failure to `what` a name, explained. */
static enum status failed(const struct directory *directory, const char *name, const char *what,
                          struct error *error) {
    int failure = errno;
    return error_set(error, status_of(failure), "%s/%s: cannot %s: %s", directory->path, name,
                     what, strerror(failure));
}

/* The same where nothing but STATUS_IO makes sense: reads, and (see the header) syncs. */
static enum status failed_for_good(const struct directory *directory, const char *name,
                                   const char *what, struct error *error) {
    int failure = errno;
    return error_set(error, STATUS_IO, "%s/%s: cannot %s: %s", directory->path, name, what,
                     strerror(failure));
}

/* Repeat a call that a signal interrupted. */
#define RETRY(result, call)                                                                    \
    do {                                                                                       \
        (result) = (call);                                                                     \
    } while ((result) < 0 && errno == EINTR)

static int open_retrying(int directory, const char *name, int flags) {
    int fd;
    RETRY(fd, calls->open(directory, name, flags | O_CLOEXEC, 0600));
    return fd;
}

static int sync_retrying(int (*sync)(int), int fd) {
    int result;
    RETRY(result, sync(fd));
    return result;
}

/* --- directories --- */

/* The new name lives in the parent: it is durable only once the parent is synced. */
static enum status sync_parent(struct directory *directory, bool made, struct error *error) {
    int parent = open_retrying(directory->fd, "..", O_RDONLY | O_DIRECTORY);
    if (parent < 0 && errno == EACCES && !made) {
        return STATUS_OK; /* whoever made it there could see to it; we cannot */
    }
    if (parent < 0) {
        return failed(directory, "..", "open", error);
    }
    int result = sync_retrying(calls->fsync, parent);
    enum status status =
        result == 0 ? STATUS_OK : failed_for_good(directory, "..", "sync", error);
    calls->close(parent);
    return status;
}

static enum status make(struct directory *directory, bool *made, struct error *error) {
    int result;
    RETRY(result, calls->mkdir(directory->path, 0700));
    *made = result == 0;
    if (result != 0 && errno != EEXIST) {
        int failure = errno;
        return error_set(error, status_of(failure), "%s: cannot make this directory: %s",
                         directory->path, strerror(failure));
    }
    return STATUS_OK;
}

enum status directory_open(struct directory *directory, const char *path, bool sync,
                           struct error *error) {
    *directory = (struct directory){.fd = -1, .lock_fd = -1, .sync = sync};
    size_t size = strlen(path);
    if (size == 0 || size >= PATH_BYTES_MAX) {
        return error_set(error, STATUS_INVALID, "a data directory's path of %zu bytes", size);
    }
    memcpy(directory->path, path, size + 1);
    bool made;
    enum status status = make(directory, &made, error);
    if (status != STATUS_OK) {
        return status;
    }
    directory->fd = open_retrying(AT_FDCWD, path, O_RDONLY | O_DIRECTORY);
    if (directory->fd < 0) {
        return failed(directory, "", "open this directory", error);
    }
    /* Not only when it was made just now: a crash may have come before the sync of last time.
     */
    return sync ? sync_parent(directory, made, error) : STATUS_OK;
}

static enum status locked_by_another(struct directory *directory, struct error *error) {
    char text[24];
    ssize_t size;
    RETRY(size, calls->pread(directory->lock_fd, text, sizeof(text) - 1, 0));
    long pid = 0;
    if (size > 0) {
        text[size] = 0;
        pid = strtol(text, NULL, 10);
    }
    if (pid > 0) {
        return error_set(error, STATUS_LOCKED,
                         "%s: this data directory is in use by process %ld", directory->path,
                         pid);
    }
    return error_set(error, STATUS_LOCKED, "%s: this data directory is in use",
                     directory->path);
}

/* The owner's id helps a person, nothing depends on it: whether it can be written does not
 * matter. */
static void note_owner(const struct directory *directory) {
    char text[24];
    int size = snprintf(text, sizeof(text), "%ld\n", (long)getpid());
    if (calls->ftruncate(directory->lock_fd, 0) == 0) {
        (void)!calls->pwrite(directory->lock_fd, text, (size_t)size, 0);
    }
}

enum status directory_lock(struct directory *directory, struct error *error) {
    directory->lock_fd = open_retrying(directory->fd, LOCK_NAME, O_RDWR | O_CREAT);
    if (directory->lock_fd < 0) {
        return failed(directory, LOCK_NAME, "open", error);
    }
    int result;
    RETRY(result, calls->lock(directory->lock_fd));
    if (result != 0) {
        enum status status = errno == EWOULDBLOCK ? locked_by_another(directory, error)
                                                  : failed(directory, LOCK_NAME, "lock", error);
        calls->close(directory->lock_fd);
        directory->lock_fd = -1;
        return status;
    }
    note_owner(directory);
    return STATUS_OK;
}

void directory_close(struct directory *directory) {
    if (directory->lock_fd >= 0) {
        calls->close(directory->lock_fd);
    }
    if (directory->fd >= 0) {
        calls->close(directory->fd);
    }
    directory->lock_fd = -1;
    directory->fd = -1;
}

enum status directory_list(struct directory *directory, struct buffer *names,
                           struct error *error) {
    int result;
    RETRY(result, (buffer_clear(names), calls->list(directory->fd, names)));
    return result == 0 ? STATUS_OK : failed(directory, "", "list this directory", error);
}

enum status directory_sync(struct directory *directory, struct error *error) {
    if (directory->sync && sync_retrying(calls->fsync, directory->fd) != 0) {
        return failed_for_good(directory, "", "sync this directory", error);
    }
    return STATUS_OK;
}

/* --- files --- */

enum status file_open(struct file *file, const struct directory *directory, const char *name,
                      enum file_mode mode, struct error *error) {
    static const int flags[] = {
        [FILE_READ] = O_RDONLY,
        [FILE_WRITE] = O_RDWR,
        [FILE_CREATE] = O_RDWR | O_CREAT | O_TRUNC,
    };
    ASSERT(strlen(name) < NAME_BYTES_MAX);
    int fd = open_retrying(directory->fd, name, flags[mode]);
    if (fd < 0) {
        return failed(directory, name, mode == FILE_CREATE ? "create" : "open", error);
    }
    *file = (struct file){.directory = directory, .fd = fd};
    memcpy(file->name, name, strlen(name) + 1);
    return STATUS_OK;
}

void file_close(struct file *file) {
    if (file->fd >= 0) {
        calls->close(file->fd);
        file->fd = -1;
    }
}

enum status file_size(const struct file *file, uint64_t *bytes, struct error *error) {
    int result;
    RETRY(result, calls->size(file->fd, bytes));
    return result == 0 ? STATUS_OK
                       : failed_for_good(file->directory, file->name, "stat", error);
}

enum status file_read(const struct file *file, uint64_t offset, char *into, size_t bytes,
                      size_t *got, struct error *error) {
    *got = 0;
    while (*got < bytes) {
        size_t want = bytes - *got < IO_BYTES_MAX ? bytes - *got : IO_BYTES_MAX;
        ssize_t count;
        RETRY(count, calls->pread(file->fd, into + *got, want, (off_t)(offset + *got)));
        if (count < 0) {
            return failed_for_good(file->directory, file->name, "read", error);
        }
        if (count == 0) {
            break;
        }
        *got += (size_t)count;
    }
    return STATUS_OK;
}

enum status file_write(const struct file *file, uint64_t offset, struct span bytes,
                       struct error *error) {
    while (bytes.size > 0) {
        size_t want = bytes.size < IO_BYTES_MAX ? bytes.size : IO_BYTES_MAX;
        ssize_t count;
        RETRY(count, calls->pwrite(file->fd, bytes.data, want, (off_t)offset));
        if (count == 0) {
            errno = EIO; /* no progress and no reason */
            count = -1;
        }
        if (count < 0) {
            return failed(file->directory, file->name, "write", error);
        }
        bytes = (struct span){bytes.data + count, bytes.size - (size_t)count};
        offset += (uint64_t)count;
    }
    return STATUS_OK;
}

enum status file_fill(const struct file *file, uint64_t offset, uint64_t bytes,
                      struct error *error) {
    char blank[FILL_CHUNK_BYTES];
    memset(blank, '\n', sizeof(blank));
    while (bytes > 0) {
        size_t size = bytes < sizeof(blank) ? (size_t)bytes : sizeof(blank);
        enum status status = file_write(file, offset, (struct span){blank, size}, error);
        if (status != STATUS_OK) {
            return status;
        }
        offset += size;
        bytes -= size;
    }
    return STATUS_OK;
}

enum status file_cut(const struct file *file, uint64_t size, struct error *error) {
    int result;
    RETRY(result, calls->ftruncate(file->fd, (off_t)size));
    return result == 0 ? STATUS_OK : failed(file->directory, file->name, "cut", error);
}

enum status file_sync_data(const struct file *file, struct error *error) {
    if (file->directory->sync && sync_retrying(calls->fdatasync, file->fd) != 0) {
        return failed_for_good(file->directory, file->name, "sync", error);
    }
    return STATUS_OK;
}

enum status file_sync(const struct file *file, struct error *error) {
    ASSERT(file->directory != NULL); /* it is open */
    if (file->directory->sync && sync_retrying(calls->fsync, file->fd) != 0) {
        return failed_for_good(file->directory, file->name, "sync", error);
    }
    return STATUS_OK;
}

void file_forget(const struct file *file) {
    (void)calls->forget(file->fd);
}

enum status file_rename(const struct directory *directory, const char *from, const char *to,
                        struct error *error) {
    int result;
    RETRY(result, calls->rename(directory->fd, from, to));
    return result == 0 ? STATUS_OK : failed(directory, to, "rename to this name", error);
}

enum status file_remove(const struct directory *directory, const char *name,
                        struct error *error) {
    int result;
    RETRY(result, calls->unlink(directory->fd, name));
    if (result != 0 && errno != ENOENT) {
        return failed(directory, name, "remove", error);
    }
    return STATUS_OK;
}

static enum status write_temporary(struct directory *directory, const char *name,
                                   struct span content, struct error *error) {
    struct file file = FILE_CLOSED;
    enum status status = file_open(&file, directory, name, FILE_CREATE, error);
    if (status == STATUS_OK) {
        status = file_write(&file, 0, content, error);
    }
    if (status == STATUS_OK) {
        status = file_sync(&file, error);
    }
    file_close(&file);
    return status;
}

enum status file_replace(struct directory *directory, const char *name, struct span content,
                         struct error *error) {
    char temporary[NAME_BYTES_MAX];
    int size = snprintf(temporary, sizeof(temporary), "%s" FILE_TEMPORARY_SUFFIX, name);
    ASSERT(size > 0 && (size_t)size < sizeof(temporary));
    enum status status = write_temporary(directory, temporary, content, error);
    if (status == STATUS_OK) {
        status = file_rename(directory, temporary, name, error);
    }
    if (status == STATUS_NO_SPACE) {
        enum status removed = file_remove(directory, temporary, error);
        return removed == STATUS_OK ? STATUS_NO_SPACE : removed;
    }
    return status == STATUS_OK ? directory_sync(directory, error) : status;
}
