/* Where a member's log and snapshots are kept: in a directory, or in memory only.
 *
 * Two tables of the same calls, so that the jobs are written once (disk_jobs.c). All calls come
 * from one thread at a time. A call's contract is that of its namesake in storage/store.h; of
 * the log in memory nothing is kept here, because the node keeps all of its lines itself. */
#ifndef RAFTPICO_SERVER_BACKEND_H
#define RAFTPICO_SERVER_BACKEND_H

#include "base/buffer.h"
#include "node/job.h"
#include "storage/store.h"

struct backend_calls {
    enum status (*write)(void *self, struct job *job); /* JOB_WRITE; may be done again */
    enum status (*read)(void *self, struct job *job);  /* JOB_READ */
    enum status (*clear_quarantine)(void *self, struct error *error);
    enum status (*snapshot_begin)(void *self, enum store_slot slot, struct error *error);
    enum status (*snapshot_write)(void *self, enum store_slot slot, struct span bytes,
                                  struct error *error);
    struct file (*snapshot_file)(void *self, enum store_slot slot);
    enum status (*snapshot_check)(void *self, enum store_slot slot, size_t bytes_max,
                                  bool *whole, uint64_t *checked, struct error *error);
    void (*snapshot_abort)(void *self, enum store_slot slot);
    enum status (*snapshot_commit)(void *self, enum store_slot slot,
                                   const struct snapshot_header *header, bool reset_log,
                                   struct error *error);
    enum status (*snapshot_read)(void *self, uint64_t index, uint64_t offset, size_t bytes_max,
                                 struct buffer *bytes, uint64_t *total, struct error *error);
    enum status (*snapshot_open)(void *self, uint64_t index, struct file *file, uint64_t *bytes,
                                 struct error *error);
    void (*close)(void *self);
};

struct backend {
    const struct backend_calls *calls;
    void *self;
};

struct backend backend_store(struct store *store); /* takes the store */
struct backend backend_memory(void);

#endif
