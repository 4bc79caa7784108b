/* A member's log and snapshots in a data directory; see backend.h. */
#include "server/backend.h"

static enum status append(struct store *store, struct job *job) {
    enum status status = store_append(store, job->first, job->last, buffer_span(&job->data),
                                      job->offsets, &job->error);
    if (status != STATUS_OK) {
        return status;
    }
    status = store_sync(store, &job->error);
    /* Only a write that was cut off again may be tried again; a sync that failed is final. */
    return status == STATUS_NO_SPACE ? STATUS_IO : status;
}

/* Each step that is done is struck off the job: where the disk is full the same job comes
 * again. */
static enum status write_log(void *self, struct job *job) {
    struct store *store = self;
    enum status status = STATUS_OK;
    if (job->save_meta) {
        status = store_save_meta(store, &job->meta, &job->error);
        job->save_meta = status != STATUS_OK;
    }
    if (status == STATUS_OK && job->truncate_from > 0) {
        status = store_truncate(store, job->truncate_from, &job->error);
        job->truncate_from = status == STATUS_OK ? 0 : job->truncate_from;
    }
    if (status == STATUS_OK && job->first <= job->last) {
        status = append(store, job);
    }
    return status;
}

static enum status read_log(void *self, struct job *job) {
    uint64_t read_last = 0;
    enum status status = store_read(self, job->first, job->last, APPEND_BYTES_MAX, &job->data,
                                    &read_last, &job->error);
    if (status == STATUS_OK) {
        job->last = read_last;
    }
    return status;
}

static enum status clear_quarantine(void *self, struct error *error) {
    return store_clear_quarantine(self, error);
}

static enum status snapshot_begin(void *self, enum store_slot slot, struct error *error) {
    return store_snapshot_begin(self, slot, error);
}

static enum status snapshot_write(void *self, enum store_slot slot, struct span bytes,
                                  struct error *error) {
    return store_snapshot_write(self, slot, bytes, error);
}

static struct file snapshot_file(void *self, enum store_slot slot) {
    return store_snapshot_file(self, slot);
}

static enum status snapshot_check(void *self, enum store_slot slot, size_t bytes_max,
                                  bool *whole, uint64_t *checked, struct error *error) {
    return store_snapshot_check(self, slot, bytes_max, whole, checked, error);
}

static void snapshot_abort(void *self, enum store_slot slot) {
    store_snapshot_abort(self, slot);
}

static enum status snapshot_commit(void *self, enum store_slot slot,
                                   const struct snapshot_header *header, bool reset_log,
                                   struct error *error) {
    return store_snapshot_commit(self, slot, header->index, header->term, header->chain_crc,
                                 reset_log, COMPACT_KEEP_ENTRIES, error);
}

static enum status snapshot_read(void *self, uint64_t index, uint64_t offset, size_t bytes_max,
                                 struct buffer *bytes, uint64_t *total, struct error *error) {
    return store_snapshot_read(self, index, offset, bytes_max, bytes, total, error);
}

static enum status snapshot_open(void *self, uint64_t index, struct file *file, uint64_t *bytes,
                                 struct error *error) {
    return store_snapshot_open(self, index, file, bytes, error);
}

static void close_store(void *self) {
    store_close(self);
}

struct backend backend_store(struct store *store) {
    static const struct backend_calls calls = {
        .write = write_log,
        .read = read_log,
        .clear_quarantine = clear_quarantine,
        .snapshot_begin = snapshot_begin,
        .snapshot_write = snapshot_write,
        .snapshot_file = snapshot_file,
        .snapshot_check = snapshot_check,
        .snapshot_abort = snapshot_abort,
        .snapshot_commit = snapshot_commit,
        .snapshot_read = snapshot_read,
        .snapshot_open = snapshot_open,
        .close = close_store,
    };
    return (struct backend){&calls, store};
}
