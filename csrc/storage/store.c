/* The public face of a data directory; see store.h.
 *
 * The format: every file holds lines of JSON, each sealed with ,"crc32c":"XXXXXXXX"} over what
 * stands before (wire/line.h). Runs of line feeds are filling and mean nothing.
 *
 *   meta.jsonl         one block of 4096 bytes: records of wire/meta.h, seed 0; the last counts
 *   log-N.jsonl        lines of wire/entry.h from entry N on; the seed of each is the checksum
 *                      of the line before, over all segments; 0 before entry 1
 *   snapshot-N.jsonl   lines of wire/snapshot.h: the state after entry N
 *   quarantine.jsonl   one line, seed 0: which file was damaged, and where
 *   *.tmp              unfinished; removed at opening
 *
 * What reaches the disk before what:
 *
 *   - content before its name: write temporary, sync, rename, sync the directory;
 *   - filling before the lines that replace it, a segment before the next one;
 *   - a cut before anything that is written after it;
 *   - the mark of quarantine before damage is cut, a new snapshot before the old one goes.
 *
 * The recovery rule stands in opening.c, its part on the log in recovery.c.
 *
 * Must not know: Raft roles, connections, Python. */
#include "storage/store.h"

#include <inttypes.h>

#include "base/assert.h"
#include "base/memory.h"
#include "storage/opening.h"
#include "storage/quarantine.h"

/* --- failing for good --- */

/* Passes on how a call that writes has ended. What may pass by itself, or was refused before
 * anything was touched, leaves the store as it is; all else breaks it. */
static enum status finish(struct store *store, enum status status, const struct error *why,
                          struct error *error) {
    switch (status) {
    case STATUS_OK:
        return STATUS_OK;
    case STATUS_NO_SPACE:
    case STATUS_INVALID:
        break;
    case STATUS_IO:
    case STATUS_NO_MEMORY:
    case STATUS_CORRUPT:
    case STATUS_NOT_FOUND:
    case STATUS_LOCKED:
    case STATUS_MISMATCH:
    case STATUS_CLOSED:
    case STATUS_TIMEOUT:
    case STATUS_PYTHON:
        store->broken = *why;
        store->broken.status = status == STATUS_CORRUPT ? STATUS_CORRUPT : STATUS_IO;
        status = store->broken.status;
        break;
    }
    return error_set(error, status, "%s", why->text);
}

static bool is_broken(const struct store *store, struct error *error) {
    if (store->broken.status == STATUS_OK) {
        return false;
    }
    error_set(error, store->broken.status, "%s", store->broken.text);
    return true;
}

/* --- opening and closing --- */

static enum status check_options(const struct store_options *options, struct error *error) {
    struct meta meta = {0};
    if (strlen(options->address) >= sizeof(meta.address)) {
        return error_set(error, STATUS_INVALID, "an address of more than %u bytes",
                         (unsigned)sizeof(meta.address) - 1);
    }
    memcpy(meta.address, options->address, strlen(options->address) + 1);
    if (!meta_valid(&meta)) {
        return error_set(error, STATUS_INVALID, "\"%s\" is not an address", meta.address);
    }
    return STATUS_OK;
}

static struct store *store_new(const struct store_options *options) {
    struct store *store = memory_alloc_zero(sizeof(*store));
    if (store != NULL) {
        store->directory = (struct directory){.fd = -1, .lock_fd = -1};
        metafile_init(&store->metafile, &store->directory);
        snapfile_init(&store->snapfile, &store->directory);
        uint64_t bytes = options->segment_bytes;
        journal_init(&store->journal, &store->directory,
                     bytes > 0 ? bytes : SEGMENT_BYTES_DEFAULT);
    }
    return store;
}

static void store_free(struct store *store) {
    journal_clear(&store->journal);
    snapfile_close(&store->snapfile);
    metafile_close(&store->metafile);
    directory_close(&store->directory);
    memory_free(store);
}

enum status store_open(const struct store_options *options, const struct store_visitor *visitor,
                       struct store_recovery *recovery, struct store **store,
                       struct error *error) {
    memset(recovery, 0, sizeof(*recovery));
    enum status status = check_options(options, error);
    if (status != STATUS_OK) {
        return status;
    }
    struct store *opened = store_new(options);
    if (opened == NULL) {
        return error_set(error, STATUS_NO_MEMORY, "%s: no memory to open it", options->path);
    }
    status = directory_open(&opened->directory, options->path, options->sync, error);
    if (status == STATUS_OK) {
        status = directory_lock(&opened->directory, error);
    }
    if (status == STATUS_OK) {
        status = opening_load(opened, options, visitor, recovery, error);
    }
    if (status != STATUS_OK) {
        store_free(opened);
        return status;
    }
    *store = opened;
    return STATUS_OK;
}

void store_close(struct store *store) {
    if (store->broken.status == STATUS_OK) {
        journal_close(&store->journal);
    }
    store_free(store);
}

/* --- meta and log --- */

enum status store_save_meta(struct store *store, const struct meta *meta, struct error *error) {
    if (is_broken(store, error)) {
        return store->broken.status;
    }
    struct error why = {.status = STATUS_OK};
    struct meta next = *meta;
    next.incarnation = store->metafile.meta.incarnation;
    return finish(store, metafile_save(&store->metafile, &next, &why), &why, error);
}

enum status store_clear_quarantine(struct store *store, struct error *error) {
    if (is_broken(store, error)) {
        return store->broken.status;
    }
    struct error why = {.status = STATUS_OK};
    return finish(store, quarantine_clear(&store->directory, &why), &why, error);
}

enum status store_truncate(struct store *store, uint64_t index, struct error *error) {
    ASSERT(index > store->snapfile.index);
    if (is_broken(store, error)) {
        return store->broken.status;
    }
    struct error why = {.status = STATUS_OK};
    enum status status = journal_truncate(&store->journal, index, &why);
    /* Cutting needs no room; whoever says so has left it half done. */
    status = status == STATUS_NO_SPACE ? STATUS_IO : status;
    return finish(store, status, &why, error);
}

enum status store_append(struct store *store, uint64_t first, uint64_t last, struct span lines,
                         const uint32_t *offsets, struct error *error) {
    if (is_broken(store, error)) {
        return store->broken.status;
    }
    struct error why = {.status = STATUS_OK};
    enum status status = journal_append(&store->journal, first, last, lines, offsets, &why);
    return finish(store, status, &why, error);
}

enum status store_sync(struct store *store, struct error *error) {
    if (is_broken(store, error)) {
        return store->broken.status;
    }
    struct error why = {.status = STATUS_OK};
    return finish(store, journal_sync(&store->journal, &why), &why, error);
}

enum status store_read(struct store *store, uint64_t first, uint64_t last, size_t bytes_max,
                       struct buffer *lines, uint64_t *read_last, struct error *error) {
    if (is_broken(store, error)) {
        return store->broken.status;
    }
    return journal_read(&store->journal, first, last, bytes_max, lines, read_last, error);
}

/* --- snapshots --- */

enum status store_snapshot_begin(struct store *store, enum store_slot slot,
                                 struct error *error) {
    if (is_broken(store, error)) {
        return store->broken.status;
    }
    struct error why = {.status = STATUS_OK};
    return finish(store, snapfile_begin(&store->snapfile, slot, &why), &why, error);
}

enum status store_snapshot_write(struct store *store, enum store_slot slot, struct span bytes,
                                 struct error *error) {
    if (is_broken(store, error)) {
        return store->broken.status;
    }
    struct error why = {.status = STATUS_OK};
    enum status status = snapfile_write(&store->snapfile, slot, bytes, &why);
    if (status == STATUS_CORRUPT) {
        return error_set(error, status, "%s",
                         why.text); /* rubbish from outside: not our disk */
    }
    return finish(store, status, &why, error);
}

void store_snapshot_abort(struct store *store, enum store_slot slot) {
    snapfile_abort(&store->snapfile, slot);
}

struct file store_snapshot_file(const struct store *store, enum store_slot slot) {
    return snapfile_slot_file(&store->snapfile, slot);
}

enum status store_snapshot_check(struct store *store, enum store_slot slot, size_t bytes_max,
                                 bool *whole, uint64_t *checked, struct error *error) {
    if (is_broken(store, error)) {
        return store->broken.status;
    }
    struct error why = {.status = STATUS_OK};
    enum status status =
        snapfile_check(&store->snapfile, slot, bytes_max, whole, checked, &why);
    if (status == STATUS_CORRUPT) {
        return error_set(error, status, "%s", why.text); /* the writer's fault */
    }
    return finish(store, status, &why, error);
}

/* A snapshot that leaves the log alone must be of an entry in it, and of the same history:
 * otherwise the next opening would find a log that does not go on from it. */
static enum status check_position(struct store *store, uint64_t index, uint32_t chain_crc,
                                  bool reset_log, struct error *error) {
    if (index < store->snapfile.index) {
        return error_set(error, STATUS_INVALID,
                         "a snapshot at entry %" PRIu64 ", but there is one at %" PRIu64, index,
                         store->snapfile.index);
    }
    if (reset_log) {
        return STATUS_OK;
    }
    uint32_t crc = store->snapfile.chain_crc;
    if (index != store->snapfile.index) {
        enum status status = journal_find_crc(&store->journal, index, &crc, error);
        if (status != STATUS_OK) { /* but for NOT_FOUND: our own disk, whatever came in */
            return status == STATUS_NOT_FOUND ? STATUS_INVALID : STATUS_IO;
        }
    }
    return crc == chain_crc ? STATUS_OK
                            : error_set(error, STATUS_INVALID,
                                        "the snapshot at entry %" PRIu64
                                        " is of another history than the log: checksum %08x, "
                                        "not %08x",
                                        index, chain_crc, crc);
}

static enum status commit(struct store *store, enum store_slot slot, bool reset_log,
                          uint64_t keep_entries, struct error *error) {
    struct snapfile *snapfile = &store->snapfile;
    enum status status = snapfile_commit(snapfile, slot, error);
    if (status != STATUS_OK) {
        return status;
    }
    if (reset_log) {
        status = journal_reset(&store->journal, snapfile->index, snapfile->chain_crc, error);
    } else {
        uint64_t next = snapfile->index + 1;
        uint64_t keep_from = next > keep_entries ? next - keep_entries : 1;
        status = journal_compact(&store->journal, keep_from, error);
    }
    /* Removing needs no room; whoever says so has left it half done. */
    return status == STATUS_NO_SPACE ? STATUS_IO : status;
}

enum status store_snapshot_commit(struct store *store, enum store_slot slot, uint64_t index,
                                  uint64_t term, uint32_t chain_crc, bool reset_log,
                                  uint64_t keep_entries, struct error *error) {
    if (is_broken(store, error)) {
        return store->broken.status;
    }
    ASSERT(slot == STORE_SLOT_RECEIVED || !reset_log);
    struct error why = {.status = STATUS_OK};
    const char *cluster_id = store->metafile.meta.cluster_id;
    enum status status =
        snapfile_verify(&store->snapfile, slot, index, term, chain_crc, cluster_id, &why);
    if (status == STATUS_OK) {
        status = check_position(store, index, chain_crc, reset_log, &why);
    }
    if (status != STATUS_OK) {
        snapfile_abort(&store->snapfile, slot);
        return status == STATUS_CORRUPT ? error_set(error, status, "%s", why.text)
                                        : finish(store, status, &why, error);
    }
    /* The snapshot stands for entries: none of them may be only in the page cache. */
    status = journal_sync(&store->journal, &why);
    if (status == STATUS_OK) {
        status = commit(store, slot, reset_log, keep_entries, &why);
    }
    return finish(store, status, &why, error);
}

enum status store_snapshot_read(struct store *store, uint64_t index, uint64_t offset,
                                size_t bytes_max, struct buffer *bytes, uint64_t *total,
                                struct error *error) {
    if (is_broken(store, error)) {
        return store->broken.status;
    }
    return snapfile_read(&store->snapfile, index, offset, bytes_max, bytes, total, error);
}

enum status store_snapshot_open(const struct store *store, uint64_t index, struct file *file,
                                uint64_t *bytes, struct error *error) {
    if (is_broken(store, error)) {
        return store->broken.status;
    }
    return snapfile_open(&store->snapfile, index, file, bytes, error);
}
