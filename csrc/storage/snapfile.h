/* The snapshot files of a directory: the current one, and those that are being written.
 *
 * A snapshot is written to a temporary file, checked as its bytes pass (seals, count, trailer)
 * and synced every few MiB, so that the commit at the end stalls the disk thread only briefly:
 * sync, rename, sync the directory. Only then does the older one go. One that somebody else
 * writes into the slot's file (another thread, another process) is read back and checked piece
 * by piece instead, between other work of the disk thread.
 *
 * Invariant: `index` names a file that is whole, durable and open to read; 0: there is none. */
#ifndef RAFTPICO_STORAGE_SNAPFILE_H
#define RAFTPICO_STORAGE_SNAPFILE_H

#include "storage/file.h"
#include "storage/store.h"
#include "wire/snapshot.h"

#define SNAPFILE_SLOTS 2

struct snapfile_slot {
    struct file file; /* closed: the slot is not in use */
    uint64_t bytes;
    uint64_t unsynced;
    struct snapshot_check check;
};

struct snapfile {
    struct directory *directory; /* borrowed */
    uint64_t index;
    uint64_t term;
    uint32_t chain_crc;
    char cluster_id[CLUSTER_ID_BYTES];
    struct file file; /* the current snapshot */
    uint64_t bytes;
    struct buffer header_line;
    struct snapfile_slot slots[SNAPFILE_SLOTS];
};

void snapfile_init(struct snapfile *snapfile, struct directory *directory);
void snapfile_close(struct snapfile *snapfile);

/* Find the newest snapshot among `names` and check it from end to end. One that is damaged
 * while an older one is still there is set aside: `*quarantined` becomes true and `note` says
 * so. A damaged one alone is STATUS_CORRUPT. Older ones are removed. */
enum status snapfile_load(struct snapfile *snapfile, const struct buffer *names,
                          bool *quarantined, char note[ERROR_TEXT_BYTES_MAX],
                          struct error *error) MUST_USE;

/* See store.h for these. Committing makes the slot's file the current one; it neither looks at
 * nor touches the log. */
enum status snapfile_begin(struct snapfile *snapfile, enum store_slot slot,
                           struct error *error) MUST_USE;
enum status snapfile_write(struct snapfile *snapfile, enum store_slot slot, struct span bytes,
                           struct error *error) MUST_USE;
void snapfile_abort(struct snapfile *snapfile, enum store_slot slot);
/* The slot's file, for a writer of its own; borrowed until the slot is committed or aborted. */
struct file snapfile_slot_file(const struct snapfile *snapfile, enum store_slot slot);
enum status snapfile_check(struct snapfile *snapfile, enum store_slot slot, size_t bytes_max,
                           bool *whole, uint64_t *checked, struct error *error) MUST_USE;
enum status snapfile_open(const struct snapfile *snapfile, uint64_t index, struct file *file,
                          uint64_t *bytes, struct error *error) MUST_USE;
/* Is the slot's content a whole snapshot of this position and (unless "") this cluster? */
enum status snapfile_verify(struct snapfile *snapfile, enum store_slot slot, uint64_t index,
                            uint64_t term, uint32_t chain_crc, const char *cluster_id,
                            struct error *error) MUST_USE;
enum status snapfile_commit(struct snapfile *snapfile, enum store_slot slot,
                            struct error *error) MUST_USE;
enum status snapfile_read(struct snapfile *snapfile, uint64_t index, uint64_t offset,
                          size_t bytes_max, struct buffer *bytes, uint64_t *total,
                          struct error *error) MUST_USE;

#endif
