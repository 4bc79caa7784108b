/* Snapshots in memory, checked as strictly as those in a directory; see backend.h.
 *
 * Invariant: `current` is a whole snapshot whose seals were checked, or empty at index 0. */
#include <inttypes.h>

#include "base/assert.h"
#include "base/memory.h"
#include "server/backend.h"

#define SLOTS 2 /* of enum store_slot */

struct slot {
    bool open;
    struct buffer bytes;
    struct snapshot_check check;
};

struct memory_backend {
    struct slot slots[SLOTS];
    struct buffer current;
    uint64_t index; /* of the current one; 0: none */
};

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

static void snapshot_abort(void *self, enum store_slot number) {
    struct slot *slot = &((struct memory_backend *)self)->slots[number];
    snapshot_check_clear(&slot->check);
    snapshot_check_init(&slot->check);
    buffer_free(&slot->bytes);
    slot->open = false;
}

static enum status snapshot_begin(void *self, enum store_slot number, struct error *error) {
    (void)error;
    snapshot_abort(self, number);
    ((struct memory_backend *)self)->slots[number].open = true;
    return STATUS_OK;
}

static enum status snapshot_write(void *self, enum store_slot number, struct span bytes,
                                  struct error *error) {
    struct slot *slot = &((struct memory_backend *)self)->slots[number];
    ASSERT(slot->open);
    if (snapshot_check_feed(&slot->check, bytes) != STATUS_OK) {
        error_set(error, STATUS_CORRUPT, "not a snapshot's bytes at line %" PRIu64,
                  snapshot_check_line(&slot->check));
        snapshot_abort(self, number);
        return STATUS_CORRUPT;
    }
    buffer_append_span(&slot->bytes, bytes);
    return STATUS_OK;
}

static enum status snapshot_commit(void *self, enum store_slot number,
                                   const struct snapshot_header *header, bool reset_log,
                                   struct error *error) {
    (void)reset_log; /* the log is the node's */
    struct memory_backend *memory = self;
    struct slot *slot = &memory->slots[number];
    ASSERT(slot->open);
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
        buffer_free(&memory->current);
        memory->current = slot->bytes;
        buffer_init(&slot->bytes);
        memory->index = header->index;
    }
    snapshot_abort(self, number);
    return status;
}

static enum status snapshot_read(void *self, uint64_t index, uint64_t offset, size_t bytes_max,
                                 struct buffer *bytes, uint64_t *total, struct error *error) {
    struct memory_backend *memory = self;
    if (index == 0 || index != memory->index) {
        return error_set(error, STATUS_NOT_FOUND, "snapshot %" PRIu64 " is not there any more",
                         index);
    }
    struct span all = buffer_span(&memory->current);
    *total = all.size;
    size_t at = offset < all.size ? (size_t)offset : all.size;
    size_t size = all.size - at < bytes_max ? all.size - at : bytes_max;
    buffer_append(bytes, all.data + at, size);
    return STATUS_OK;
}

static void close_memory(void *self) {
    struct memory_backend *memory = self;
    for (int number = 0; number < SLOTS; number++) {
        snapshot_check_clear(&memory->slots[number].check);
        buffer_free(&memory->slots[number].bytes);
    }
    buffer_free(&memory->current);
    memory_free(memory);
}

struct backend backend_memory(void) {
    static const struct backend_calls calls = {
        .write = nothing_to_write,
        .read = nothing_to_read,
        .clear_quarantine = no_quarantine,
        .snapshot_begin = snapshot_begin,
        .snapshot_write = snapshot_write,
        .snapshot_abort = snapshot_abort,
        .snapshot_commit = snapshot_commit,
        .snapshot_read = snapshot_read,
        .close = close_memory,
    };
    struct memory_backend *memory = memory_must_alloc_zero(sizeof(*memory));
    for (int number = 0; number < SLOTS; number++) {
        snapshot_check_init(&memory->slots[number].check);
    }
    return (struct backend){&calls, memory};
}
