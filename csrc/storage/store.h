/* A data directory: the durable half of one member.
 *
 *     lock                                 flock()ed while a process uses the directory
 *     meta.jsonl                           identity, term, vote: the last record counts
 *     log-00000000000000000001.jsonl       a segment, named by the index of its first entry
 *     snapshot-00000000000000004095.jsonl  header line, state lines, trailer line
 *     quarantine.jsonl                     there while the member must not vote
 *     NAME.damaged-1                       what was broken, kept for people; never read
 *
 * All calls after store_open() come from one thread (the disk thread). Nothing is durable
 * before store_sync() or the call says so. After a failed write or sync the store is broken for
 * good: every later call returns the same error and nothing is tried again (the kernel may have
 * marked the pages clean). STATUS_NO_SPACE is the exception: what was half-written is cut off
 * again, nothing has changed, and the caller may try the same call again when there is room.
 * (Only store_snapshot_write and _commit drop what was written of the snapshot: begin anew.)
 *
 * Must not know: Raft roles, connections, Python. */
#ifndef RAFTPICO_STORAGE_STORE_H
#define RAFTPICO_STORAGE_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/limits.h"
#include "base/status.h"
#include "storage/file.h"
#include "wire/meta.h"

struct store;

/* What store_open() found. The spans and the callback's line are borrowed for the call. */
struct store_recovery {
    bool fresh; /* the directory was empty */
    struct meta meta;
    uint64_t snapshot_index; /* 0: no snapshot */
    uint64_t snapshot_term;
    uint32_t snapshot_crc; /* the chain's checksum at snapshot_index: seed of the next entry */
    uint64_t first_index;  /* of the log after the snapshot: snapshot_index + 1 */
    uint64_t last_index;   /* snapshot_index when there are no entries */
    bool tail_cut;         /* a torn, never acknowledged tail was cut */
    bool quarantined;      /* damaged where entries may have been acknowledged: cut there,
                              and the member must not vote until it has caught up */
    char note[ERROR_TEXT_BYTES_MAX]; /* what was cut and where, for the log; "" when nothing */
};

struct store_options {
    const char *path;    /* created (0700) when missing; its parent must exist */
    const char *address; /* "host:port" of this server: a directory of another one is refused */
    uint64_t segment_bytes; /* roll over past this; 0: SEGMENT_BYTES_DEFAULT */
    bool sync;              /* false: never fsync (for benchmarks of what a sync costs) */
};

/* Called once, before any entry, with the snapshot's header line (whole, with seal and LF),
 * when there is one; then for every entry line after it, in order. Returning anything but OK
 * stops the opening. */
struct store_visitor {
    void *context;
    enum status (*snapshot_header)(void *context, struct span line);
    enum status (*entry)(void *context, uint64_t index, uint64_t term, uint32_t crc,
                         struct span line);
};

enum status store_open(const struct store_options *options, const struct store_visitor *visitor,
                       struct store_recovery *recovery, struct store **store,
                       struct error *error) MUST_USE;
void store_close(struct store *store); /* closes and unlocks; syncs nothing */

/* Replace identity, term and vote: durable when it returns OK. `incarnation` is the store's own
 * business: the one that store_open() counted up is kept whatever `meta` says. A term must be
 * saved before entries of it are appended. STATUS_INVALID: within one identity the term would
 * go back, or the vote change within a term. STATUS_NO_SPACE: nothing has changed; may be tried
 * again. */
enum status store_save_meta(struct store *store, const struct meta *meta,
                            struct error *error) MUST_USE;

/* End the quarantine, durably: the member has been brought past its leader's commit index. */
enum status store_clear_quarantine(struct store *store, struct error *error) MUST_USE;

/* Drop the entries at and after `index`, durably when it returns OK. Never into the snapshot.
 * */
enum status store_truncate(struct store *store, uint64_t index, struct error *error) MUST_USE;

/* Write the lines of entries first..last (whole lines, in order, sealed) behind the last entry.
 * Not durable before store_sync(). `offsets[i]` is where the line of first + i begins in
 * `lines`. */
enum status store_append(struct store *store, uint64_t first, uint64_t last, struct span lines,
                         const uint32_t *offsets, struct error *error) MUST_USE;
enum status store_sync(struct store *store, struct error *error) MUST_USE;

/* Append to `lines` the stored lines from index `first` on: at least one, then as long as they
 * fit in `bytes_max`, at most to `last`; `*read_last` says how far. They are checked on the
 * way. STATUS_NOT_FOUND: compacted away. STATUS_CORRUPT: the disk has changed them since. */
enum status store_read(struct store *store, uint64_t first, uint64_t last, size_t bytes_max,
                       struct buffer *lines, uint64_t *read_last, struct error *error) MUST_USE;

/* --- snapshots ------------------------------------------------------------------------------
 *
 * A snapshot file is a sequence of sealed lines (wire/snapshot.h) that the caller makes; the
 * store carries bytes, and checks them as they pass. begin, write, commit: a temporary file,
 * synced, renamed, the directory synced; the older snapshot goes only after that. One at a time
 * in each slot; what was not committed is dropped at the next opening. */
enum store_slot {
    STORE_SLOT_OWN,      /* taken here */
    STORE_SLOT_RECEIVED, /* coming from the leader */
};
enum status store_snapshot_begin(struct store *store, enum store_slot slot,
                                 struct error *error) MUST_USE;
enum status store_snapshot_write(struct store *store, enum store_slot slot, struct span bytes,
                                 struct error *error) MUST_USE;
void store_snapshot_abort(struct store *store, enum store_slot slot);

/* Instead of store_snapshot_write: the slot's file, for whoever writes all of it - on another
 * thread, in another process - and syncs it, while the store works on. Borrowed until the slot
 * is committed or aborted, which must wait for the writer. Afterwards store_snapshot_check
 * reads back and checks the next bytes_max bytes at a time, until `*whole`: the file has ended;
 * `*checked` says how many bytes so far.
 * STATUS_CORRUPT: what was written is no snapshot; the slot is empty then. */
struct file store_snapshot_file(const struct store *store, enum store_slot slot);
enum status store_snapshot_check(struct store *store, enum store_slot slot, size_t bytes_max,
                                 bool *whole, uint64_t *checked, struct error *error) MUST_USE;

/* Verify the temporary file end to end (seals, count, trailer), then make it the snapshot at
 * `index`, `term`, durably. `chain_crc` is the checksum of the entry at that index. For
 * STORE_SLOT_OWN segments wholly covered (but for `keep_entries` before index) are removed; for
 * STORE_SLOT_RECEIVED with `reset_log` the whole log is dropped (it conflicts or ends before).
 * Crash-safe at every step: see the recovery rule in recovery.c. STATUS_CORRUPT: the bytes are
 * not a whole snapshot of that entry and this cluster. STATUS_INVALID: there is a later one
 * already, or, without `reset_log`, the log does not hold that entry with that checksum. After
 * both of them the slot is empty and all else as it was. STATUS_IO: also where the log itself
 * has changed since it was written. */
enum status store_snapshot_commit(struct store *store, enum store_slot slot, uint64_t index,
                                  uint64_t term, uint32_t chain_crc, bool reset_log,
                                  uint64_t keep_entries, struct error *error) MUST_USE;

/* Read up to bytes_max bytes of the current snapshot (which must be the one at `index`) from
 * `offset`, appended to `bytes`; `*total` is the file's size. STATUS_NOT_FOUND: it has been
 * replaced by a newer one. */
enum status store_snapshot_read(struct store *store, uint64_t index, uint64_t offset,
                                size_t bytes_max, struct buffer *bytes, uint64_t *total,
                                struct error *error) MUST_USE;

/* Open the current snapshot (which must be the one at `index`, else STATUS_NOT_FOUND) to read
 * it on any thread: what replaces it does not disturb. The caller closes the file. */
enum status store_snapshot_open(const struct store *store, uint64_t index, struct file *file,
                                uint64_t *bytes, struct error *error) MUST_USE;

#define SEGMENT_BYTES_DEFAULT (64ull * 1024 * 1024)

#endif
