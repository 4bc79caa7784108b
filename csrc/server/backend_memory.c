/* Snapshots in memory, checked as strictly as those in a directory; see backend.h.
 *
 * They are files without a name, so that a child process can write one and the machine can be
 * restored from one just as in a directory.
 *
 * Invariant: `current` is a whole snapshot whose seals were checked, or closed at index 0. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "base/assert.h"
#include "base/memory.h"
#include "server/backend.h"

#define SLOTS 2 /* of enum store_slot */

struct slot {
    struct file file; /* closed: not in use */
    uint64_t bytes;   /* checked so far */
    struct snapshot_check check;
};

struct memory_backend {
    struct slot slots[SLOTS];
    struct file current;
    uint64_t bytes; /* of the current one */
    uint64_t index; /* of the current one; 0: none */
};

static const struct directory NO_DIRECTORY = {
    .fd = -1, .lock_fd = -1, .sync = false, .path = "(in memory)"};

static enum status nothing_to_write(void *self, struct job *job) {
    (void)self;
    (void)job;
    return STATUS_OK;
}

static enum status nothing_to_read(void *self, struct job *job) {
    (void)self;
    return error_set(&job->error, STATUS_NOT_FOUND, "entry %" PRIu64 " is in memory only",
                     job->first);
}

static enum status no_quarantine(void *self, struct error *error) {
    (void)self;
    (void)error;
    return STATUS_OK;
}

/* --- files without a name --- */

static int open_nameless(void) {
#if defined(__linux__)
    return memfd_create("raftpico-snapshot", MFD_CLOEXEC);
#else
    FILE *file = tmpfile();
    int fd = file != NULL ? fcntl(fileno(file), F_DUPFD_CLOEXEC, 0) : -1;
    if (file != NULL) {
        fclose(file);
    }
    return fd;
#endif
}

static struct file file_of(int fd) {
    return (struct file){.directory = &NO_DIRECTORY, .fd = fd, .name = "snapshot"};
}

/* --- a snapshot that comes into being --- */

static void snapshot_abort(void *self, enum store_slot number) {
    struct slot *slot = &((struct memory_backend *)self)->slots[number];
    file_close(&slot->file);
    snapshot_check_clear(&slot->check);
    snapshot_check_init(&slot->check);
    slot->bytes = 0;
}

static enum status snapshot_begin(void *self, enum store_slot number, struct error *error) {
    snapshot_abort(self, number);
    int fd = open_nameless();
    if (fd < 0) {
        return error_set(error, STATUS_NO_SPACE, "no memory for a snapshot: %s",
                         strerror(errno));
    }
    ((struct memory_backend *)self)->slots[number].file = file_of(fd);
    return STATUS_OK;
}

static enum status damaged(void *self, enum store_slot number, struct error *error) {
    uint64_t line = snapshot_check_line(&((struct memory_backend *)self)->slots[number].check);
    snapshot_abort(self, number);
    return error_set(error, STATUS_CORRUPT, "not a snapshot's bytes at line %" PRIu64, line);
}

static enum status snapshot_write(void *self, enum store_slot number, struct span bytes,
                                  struct error *error) {
    struct slot *slot = &((struct memory_backend *)self)->slots[number];
    ASSERT(slot->file.fd >= 0);
    if (snapshot_check_feed(&slot->check, bytes) != STATUS_OK) {
        return damaged(self, number, error);
    }
    enum status status = file_write(&slot->file, slot->bytes, bytes, error);
    slot->bytes += bytes.size;
    return status;
}

static struct file snapshot_file(void *self, enum store_slot number) {
    return ((struct memory_backend *)self)->slots[number].file;
}

static enum status snapshot_check(void *self, enum store_slot number, size_t bytes_max,
                                  bool *whole, uint64_t *checked, struct error *error) {
    struct slot *slot = &((struct memory_backend *)self)->slots[number];
    ASSERT(slot->file.fd >= 0);
    struct buffer piece;
    buffer_init(&piece);
    char *into = buffer_reserve(&piece, bytes_max);
    size_t got = 0;
    enum status status = file_read(&slot->file, slot->bytes, into, bytes_max, &got, error);
    if (status == STATUS_OK) {
        status = snapshot_check_feed(&slot->check, (struct span){into, got});
        slot->bytes += got;
        *checked = slot->bytes;
    }
    buffer_free(&piece);
    *whole = got < bytes_max;
    return status == STATUS_CORRUPT ? damaged(self, number, error) : status;
}

static enum status snapshot_commit(void *self, enum store_slot number,
                                   const struct snapshot_header *header, bool reset_log,
                                   struct error *error) {
    (void)reset_log; /* the log is the node's */
    struct memory_backend *memory = self;
    struct slot *slot = &memory->slots[number];
    ASSERT(slot->file.fd >= 0);
    const struct snapshot_header *found = &slot->check.header;
    enum status status = snapshot_check_finish(&slot->check);
    if (status == STATUS_OK && (found->index != header->index || found->term != header->term ||
                                found->chain_crc != header->chain_crc)) {
        status = STATUS_CORRUPT;
    }
    if (status != STATUS_OK) {
        error_set(error, status, "the snapshot of entry %" PRIu64 " is not whole",
                  header->index);
    } else if (header->index < memory->index) {
        status = error_set(error, STATUS_INVALID,
                           "a snapshot at entry %" PRIu64 ", but there is one at %" PRIu64,
                           header->index, memory->index);
    } else {
        file_close(&memory->current);
        memory->current = slot->file;
        memory->bytes = slot->bytes;
        memory->index = header->index;
        slot->file = FILE_CLOSED; /* it has a new owner */
    }
    snapshot_abort(self, number);
    return status;
}

/* --- the current one --- */

static enum status find(const struct memory_backend *memory, uint64_t index,
                        struct error *error) {
    return index != 0 && index == memory->index
               ? STATUS_OK
               : error_set(error, STATUS_NOT_FOUND,
                           "snapshot %" PRIu64 " is not there any more", index);
}

static enum status snapshot_read(void *self, uint64_t index, uint64_t offset, size_t bytes_max,
                                 struct buffer *bytes, uint64_t *total, struct error *error) {
    struct memory_backend *memory = self;
    enum status status = find(memory, index, error);
    if (status != STATUS_OK) {
        return status;
    }
    *total = memory->bytes;
    size_t got = 0;
    char *into = buffer_reserve(bytes, bytes_max);
    status = file_read(&memory->current, offset, into, bytes_max, &got, error);
    buffer_extend(bytes, status == STATUS_OK ? got : 0);
    return status;
}

static enum status snapshot_open(void *self, uint64_t index, struct file *file, uint64_t *bytes,
                                 struct error *error) {
    struct memory_backend *memory = self;
    enum status status = find(memory, index, error);
    if (status != STATUS_OK) {
        return status;
    }
    int fd = fcntl(memory->current.fd, F_DUPFD_CLOEXEC, 0);
    if (fd < 0) {
        return error_set(error, STATUS_IO, "cannot read a snapshot: %s", strerror(errno));
    }
    *file = file_of(fd);
    *bytes = memory->bytes;
    return STATUS_OK;
}

static void close_memory(void *self) {
    struct memory_backend *memory = self;
    for (int number = 0; number < SLOTS; number++) {
        file_close(&memory->slots[number].file);
        snapshot_check_clear(&memory->slots[number].check);
    }
    file_close(&memory->current);
    memory_free(memory);
}

struct backend backend_memory(void) {
    static const struct backend_calls calls = {
        .write = nothing_to_write,
        .read = nothing_to_read,
        .clear_quarantine = no_quarantine,
        .snapshot_begin = snapshot_begin,
        .snapshot_write = snapshot_write,
        .snapshot_file = snapshot_file,
        .snapshot_check = snapshot_check,
        .snapshot_abort = snapshot_abort,
        .snapshot_commit = snapshot_commit,
        .snapshot_read = snapshot_read,
        .snapshot_open = snapshot_open,
        .close = close_memory,
    };
    struct memory_backend *memory = memory_must_alloc_zero(sizeof(*memory));
    for (int number = 0; number < SLOTS; number++) {
        memory->slots[number].file = FILE_CLOSED;
        snapshot_check_init(&memory->slots[number].check);
    }
    memory->current = FILE_CLOSED;
    return (struct backend){&calls, memory};
}
