/* Opening a data directory: identity, snapshot and log, in that order.
 *
 * The recovery rule, step by step:
 *
 *  1. Another process has the lock: STATUS_LOCKED. (This step is in store.c.)
 *  2. Temporary files are removed.
 *  3. meta.jsonl: the last record counts. A torn record behind it was never acknowledged and is
 *     passed over (torn.h). Anything else, or no file where others are: STATUS_CORRUPT, for a
 *     vote that is forgotten could be cast twice. Another server's address: STATUS_MISMATCH.
 *  4. The newest snapshot is checked from end to end. Damaged: STATUS_CORRUPT, but while an
 *     older one is still there that one is used, in quarantine. Another cluster's:
 *     STATUS_MISMATCH.
 *  5. The log: the rule in recovery.c.
 *  6. An entry of a later term than meta.jsonl's shows an older copy of that file:
 *     STATUS_CORRUPT.
 *  7. meta.jsonl is replaced with the incarnation counted up; the sync of the directory that is
 *     part of it also makes every name durable that was found. */
#include "storage/opening.h"

#include <inttypes.h>
#include <stdio.h>

#include "storage/layout.h"
#include "storage/recovery.h"

static bool has_suffix(const char *name, const char *suffix) {
    size_t size = strlen(name);
    size_t suffix_size = strlen(suffix);
    return size >= suffix_size && strcmp(name + size - suffix_size, suffix) == 0;
}

/* What the listing shows, and what of it is removed at once. */
struct contents {
    struct buffer names; /* each with its NUL */
    bool has_data;       /* a log or a snapshot */
    bool has_mark;
};

static enum status look_around(struct store *store, struct contents *contents,
                               struct error *error) {
    enum status status = directory_list(&store->directory, &contents->names, error);
    struct span rest = buffer_span(&contents->names);
    while (status == STATUS_OK && rest.size > 0) {
        const char *name = rest.data;
        uint64_t index;
        if (has_suffix(name, FILE_TEMPORARY_SUFFIX)) {
            status = file_remove(&store->directory, name, error);
        }
        contents->has_data |= segment_parse_name(LOG_PREFIX, name, &index) ||
                              segment_parse_name(SNAPSHOT_PREFIX, name, &index);
        contents->has_mark |= strcmp(name, QUARANTINE_NAME) == 0;
        size_t size = strlen(name) + 1;
        rest = (struct span){name + size, rest.size - size};
    }
    return status;
}

static enum status check_address(const struct store *store, const char *address,
                                 struct error *error) {
    const char *ours = store->metafile.meta.address;
    if (ours[0] != 0 && strcmp(ours, address) != 0) {
        return error_set(error, STATUS_MISMATCH,
                         "%s: this data directory belongs to the server at %s, not to %s",
                         store->directory.path, ours, address);
    }
    return STATUS_OK;
}

/* The identity, as the files have it or, in an empty directory, new. */
static enum status load_meta(struct store *store, const struct store_options *options,
                             const struct contents *contents, struct store_recovery *recovery,
                             struct error *error) {
    struct metafile *metafile = &store->metafile;
    bool torn = false;
    enum status status = metafile_load(metafile, &torn, error);
    if (status == STATUS_NOT_FOUND && contents->has_data) {
        return error_set(error, STATUS_CORRUPT,
                         "%s/" META_NAME " is missing, but there is a log or a snapshot: term "
                         "and vote are lost; put the file back, or remove the member from its "
                         "cluster, delete the directory and add it anew",
                         store->directory.path);
    }
    recovery->fresh = status == STATUS_NOT_FOUND;
    if (recovery->fresh) {
        status = STATUS_OK;
    }
    if (torn) {
        snprintf(recovery->note, sizeof(recovery->note),
                 META_NAME ": a torn, never acknowledged record was passed over");
    }
    if (status != STATUS_OK) {
        return status;
    }
    status = check_address(store, options->address, error);
    if (status == STATUS_OK) {
        memcpy(metafile->meta.address, options->address, strlen(options->address) + 1);
    }
    return status;
}

static void add_note(struct store_recovery *recovery, const char *text) {
    size_t used = strlen(recovery->note);
    if (text[0] != 0) {
        snprintf(recovery->note + used, sizeof(recovery->note) - used, "%s%s",
                 used > 0 ? "; " : "", text);
    }
}

static enum status load_snapshot(struct store *store, const struct contents *contents,
                                 const struct store_visitor *visitor,
                                 struct store_recovery *recovery, struct error *error) {
    char note[ERROR_TEXT_BYTES_MAX] = "";
    struct snapfile *snapfile = &store->snapfile;
    enum status status =
        snapfile_load(snapfile, &contents->names, &recovery->quarantined, note, error);
    add_note(recovery, note);
    if (status != STATUS_OK || snapfile->index == 0) {
        return status;
    }
    const char *cluster_id = store->metafile.meta.cluster_id;
    if (cluster_id[0] != 0 && strcmp(cluster_id, snapfile->cluster_id) != 0) {
        return error_set(error, STATUS_MISMATCH,
                         "%s/%s: this snapshot is of cluster \"%s\", the directory of \"%s\"",
                         store->directory.path, snapfile->file.name, snapfile->cluster_id,
                         cluster_id);
    }
    recovery->snapshot_index = snapfile->index;
    recovery->snapshot_term = snapfile->term;
    recovery->snapshot_crc = snapfile->chain_crc;
    if (visitor->snapshot_header == NULL) {
        return STATUS_OK;
    }
    status = visitor->snapshot_header(visitor->context, buffer_span(&snapfile->header_line));
    return status == STATUS_OK
               ? STATUS_OK
               : error_set(error, status, "%s/%s: opening was stopped at the snapshot",
                           store->directory.path, snapfile->file.name);
}

static enum status load_log(struct store *store, const struct contents *contents,
                            const struct store_visitor *visitor,
                            struct store_recovery *recovery, struct error *error) {
    struct recovery log = {
        .directory = &store->directory,
        .journal = &store->journal,
        .visitor = visitor,
        .snapshot_index = recovery->snapshot_index,
        .snapshot_term = recovery->snapshot_term,
        .snapshot_crc = recovery->snapshot_crc,
        .quarantined = recovery->quarantined,
    };
    enum status status = recovery_run(&log, &contents->names, error);
    if (status != STATUS_OK) {
        return status;
    }
    recovery->quarantined = log.quarantined;
    recovery->tail_cut = log.tail_cut;
    recovery->first_index = recovery->snapshot_index + 1;
    recovery->last_index = store->journal.last_index;
    add_note(recovery, log.note);
    if (log.last_term > store->metafile.meta.term) {
        return error_set(error, STATUS_CORRUPT,
                         "%s: the log is of term %" PRIu64 ", " META_NAME
                         " only of term %" PRIu64
                         ": an older copy of that file? Votes may be forgotten; put the right "
                         "one back, or remove the member from its cluster, delete the "
                         "directory and add it anew",
                         store->directory.path, log.last_term, store->metafile.meta.term);
    }
    return STATUS_OK;
}

static enum status load(struct store *store, const struct store_options *options,
                        const struct store_visitor *visitor, struct store_recovery *recovery,
                        struct contents *contents, struct error *error) {
    enum status status = look_around(store, contents, error);
    if (status == STATUS_OK) {
        status = load_meta(store, options, contents, recovery, error);
    }
    if (status == STATUS_OK && contents->has_mark) {
        recovery->quarantined = true;
        add_note(recovery, "in quarantine since an earlier start: see " QUARANTINE_NAME);
    }
    if (status == STATUS_OK) {
        status = load_snapshot(store, contents, visitor, recovery, error);
    }
    if (status == STATUS_OK) {
        status = load_log(store, contents, visitor, recovery, error);
    }
    if (status == STATUS_OK) {
        struct meta meta = store->metafile.meta;
        meta.incarnation++;
        status = metafile_replace(&store->metafile, &meta, error);
    }
    recovery->meta = store->metafile.meta;
    return status;
}

enum status opening_load(struct store *store, const struct store_options *options,
                         const struct store_visitor *visitor, struct store_recovery *recovery,
                         struct error *error) {
    struct contents contents = {.has_data = false};
    buffer_init(&contents.names);
    enum status status = load(store, options, visitor, recovery, &contents, error);
    buffer_free(&contents.names);
    return status;
}
