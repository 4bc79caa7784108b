/* Writing, loading and reading snapshot files; see snapfile.h. */
#include "storage/snapfile.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/assert.h"
#include "storage/layout.h"
#include "storage/quarantine.h"
#include "storage/segment.h"

#define SYNC_STEP_BYTES (4u * 1024 * 1024)
#ifndef LOAD_BYTES
#define LOAD_BYTES (256u * 1024u)
#endif

static const char *const slot_names[SNAPFILE_SLOTS] = {
    [STORE_SLOT_OWN] = "snapshot-own" FILE_TEMPORARY_SUFFIX,
    [STORE_SLOT_RECEIVED] = "snapshot-received" FILE_TEMPORARY_SUFFIX,
};

void snapfile_init(struct snapfile *snapfile, struct directory *directory) {
    *snapfile = (struct snapfile){.directory = directory, .file = FILE_CLOSED};
    buffer_init(&snapfile->header_line);
    for (int slot = 0; slot < SNAPFILE_SLOTS; slot++) {
        snapfile->slots[slot].file = FILE_CLOSED;
        snapshot_check_init(&snapfile->slots[slot].check);
    }
}

void snapfile_close(struct snapfile *snapfile) {
    file_close(&snapfile->file);
    buffer_free(&snapfile->header_line);
    for (int slot = 0; slot < SNAPFILE_SLOTS; slot++) {
        file_close(&snapfile->slots[slot].file);
        snapshot_check_clear(&snapfile->slots[slot].check);
    }
}

/* --- loading --- */

/* Feed a whole file through a check. */
static enum status check_file(const struct file *file, struct snapshot_check *check,
                              uint64_t *bytes, struct error *error) {
    struct buffer piece;
    buffer_init(&piece);
    char *into = buffer_reserve(&piece, LOAD_BYTES);
    enum status status;
    size_t got = 0;
    *bytes = 0;
    do {
        status = file_read(file, *bytes, into, LOAD_BYTES, &got, error);
        if (status == STATUS_OK) {
            status = snapshot_check_feed(check, (struct span){into, got});
            *bytes += got;
        }
    } while (status == STATUS_OK && got == LOAD_BYTES);
    buffer_free(&piece);
    return status == STATUS_OK ? snapshot_check_finish(check) : status;
}

/* What a check has learnt about the file that is now the current one. */
static void take_position(struct snapfile *snapfile, const struct snapshot_check *check) {
    snapfile->index = check->header.index;
    snapfile->term = check->header.term;
    snapfile->chain_crc = check->header.chain_crc;
    memcpy(snapfile->cluster_id, check->header.cluster_id, CLUSTER_ID_BYTES);
    buffer_clear(&snapfile->header_line);
    buffer_append_span(&snapfile->header_line, buffer_span(&check->header_line));
}

static enum status load_one(struct snapfile *snapfile, uint64_t index, struct error *error) {
    char name[NAME_BYTES_MAX];
    segment_name(SNAPSHOT_PREFIX, index, name);
    enum status status =
        file_open(&snapfile->file, snapfile->directory, name, FILE_READ, error);
    if (status != STATUS_OK) {
        return status;
    }
    file_forget(&snapfile->file);
    struct snapshot_check check;
    snapshot_check_init(&check);
    status = check_file(&snapfile->file, &check, &snapfile->bytes, error);
    if (status == STATUS_OK && check.header.index != index) {
        status = STATUS_CORRUPT;
    }
    if (status == STATUS_CORRUPT) {
        error_set(error, status,
                  "%s/%s: damaged at line %" PRIu64 " (offset %" PRIu64
                  "): the state up to entry %" PRIu64
                  " cannot be restored from it; put a good copy of this file back, or remove "
                  "the member from its cluster, delete the directory and add it anew",
                  snapfile->directory->path, name, snapshot_check_line(&check), check.bytes,
                  index);
    }
    if (status == STATUS_OK) {
        take_position(snapfile, &check);
    } else {
        file_close(&snapfile->file);
    }
    snapshot_check_clear(&check);
    return status;
}

/* The greatest snapshot number among `names` below `below`; 0: none. */
static uint64_t find_newest(const struct buffer *names, uint64_t below) {
    uint64_t newest = 0;
    struct span rest = buffer_span(names);
    while (rest.size > 0) {
        uint64_t index;
        if (segment_parse_name(SNAPSHOT_PREFIX, rest.data, &index) && index > newest &&
            index < below) {
            newest = index;
        }
        size_t size = strlen(rest.data) + 1;
        rest = (struct span){rest.data + size, rest.size - size};
    }
    return newest;
}

/* The mark first, then the file out of the way: as with a damaged log. */
static enum status set_aside(struct snapfile *snapfile, uint64_t index, bool *quarantined,
                             char note[ERROR_TEXT_BYTES_MAX], struct error *error) {
    char name[NAME_BYTES_MAX];
    char side[NAME_BYTES_MAX];
    segment_name(SNAPSHOT_PREFIX, index, name);
    enum status status = quarantine_set(snapfile->directory, name, 1, 0, index, error);
    if (status == STATUS_OK) {
        status = quarantine_move(snapfile->directory, name, side, error);
    }
    if (status == STATUS_OK) {
        *quarantined = true;
        snprintf(note, ERROR_TEXT_BYTES_MAX, "%s: damaged, kept as %s, an older one is used",
                 name, side);
    }
    return status;
}

static enum status remove_older(struct snapfile *snapfile, const struct buffer *names,
                                struct error *error) {
    enum status status = STATUS_OK;
    uint64_t older = find_newest(names, snapfile->index);
    while (status == STATUS_OK && older > 0) {
        char name[NAME_BYTES_MAX];
        segment_name(SNAPSHOT_PREFIX, older, name);
        status = file_remove(snapfile->directory, name, error);
        older = find_newest(names, older);
    }
    return status;
}

enum status snapfile_load(struct snapfile *snapfile, const struct buffer *names,
                          bool *quarantined, char note[ERROR_TEXT_BYTES_MAX],
                          struct error *error) {
    uint64_t index = find_newest(names, UINT64_MAX);
    while (index > 0) {
        struct error damage = {.status = STATUS_OK};
        enum status status = load_one(snapfile, index, &damage);
        if (status == STATUS_OK) {
            return remove_older(snapfile, names, error);
        }
        uint64_t older = find_newest(names, index);
        if (status != STATUS_CORRUPT || older == 0) {
            return error_set(error, status, "%s", damage.text);
        }
        status = set_aside(snapfile, index, quarantined, note, error);
        if (status != STATUS_OK) {
            return status;
        }
        index = older;
    }
    return STATUS_OK;
}

/* --- writing --- */

static void release(struct snapfile_slot *slot) {
    file_close(&slot->file);
    snapshot_check_clear(&slot->check);
    snapshot_check_init(&slot->check);
    slot->bytes = 0;
    slot->unsynced = 0;
}

void snapfile_abort(struct snapfile *snapfile, enum store_slot slot) {
    if (snapfile->slots[slot].file.fd >= 0) {
        /* What is left behind is removed at the next opening, or made empty by the next begin.
         */
        enum status ignored = file_remove(snapfile->directory, slot_names[slot], NULL);
        (void)ignored;
    }
    release(&snapfile->slots[slot]);
}

enum status snapfile_begin(struct snapfile *snapfile, enum store_slot slot,
                           struct error *error) {
    snapfile_abort(snapfile, slot);
    return file_open(&snapfile->slots[slot].file, snapfile->directory, slot_names[slot],
                     FILE_CREATE, error);
}

enum status snapfile_write(struct snapfile *snapfile, enum store_slot number, struct span bytes,
                           struct error *error) {
    struct snapfile_slot *slot = &snapfile->slots[number];
    ASSERT(slot->file.fd >= 0);
    enum status status = snapshot_check_feed(&slot->check, bytes);
    if (status != STATUS_OK) {
        error_set(error, status, "%s/%s: not a snapshot's bytes at line %" PRIu64,
                  snapfile->directory->path, slot->file.name,
                  snapshot_check_line(&slot->check));
    } else {
        status = file_write(&slot->file, slot->bytes, bytes, error);
    }
    if (status == STATUS_OK) {
        slot->bytes += bytes.size;
        slot->unsynced += bytes.size;
    }
    if (status == STATUS_OK && slot->unsynced >= SYNC_STEP_BYTES) {
        status = file_sync_data(&slot->file, error);
        slot->unsynced = 0;
    }
    if (status == STATUS_NO_SPACE || status == STATUS_CORRUPT) {
        snapfile_abort(snapfile, number);
    }
    return status;
}

struct file snapfile_slot_file(const struct snapfile *snapfile, enum store_slot slot) {
    ASSERT(snapfile->slots[slot].file.fd >= 0);
    return snapfile->slots[slot].file;
}

enum status snapfile_check(struct snapfile *snapfile, enum store_slot number, size_t bytes_max,
                           bool *whole, uint64_t *checked, struct error *error) {
    struct snapfile_slot *slot = &snapfile->slots[number];
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
    if (status == STATUS_CORRUPT) {
        error_set(error, status, "%s/%s: what was written is not a snapshot at line %" PRIu64,
                  snapfile->directory->path, slot->file.name,
                  snapshot_check_line(&slot->check));
        snapfile_abort(snapfile, number);
    }
    *whole = got < bytes_max;
    return status;
}

enum status snapfile_verify(struct snapfile *snapfile, enum store_slot number, uint64_t index,
                            uint64_t term, uint32_t chain_crc, const char *cluster_id,
                            struct error *error) {
    struct snapfile_slot *slot = &snapfile->slots[number];
    ASSERT(slot->file.fd >= 0);
    const char *path = snapfile->directory->path;
    const struct snapshot_header *header = &slot->check.header;
    if (snapshot_check_finish(&slot->check) != STATUS_OK) {
        return error_set(error, STATUS_CORRUPT,
                         "%s/%s: the snapshot is not whole: it stops at line %" PRIu64
                         " (offset %" PRIu64 ")",
                         path, slot->file.name, snapshot_check_line(&slot->check),
                         slot->check.bytes);
    }
    if (header->index != index || header->term != term || header->chain_crc != chain_crc) {
        return error_set(error, STATUS_CORRUPT,
                         "%s/%s: the snapshot is of entry %" PRIu64 " in term %" PRIu64
                         ", not of entry %" PRIu64 " in term %" PRIu64,
                         path, slot->file.name, header->index, header->term, index, term);
    }
    if (cluster_id[0] != 0 && strcmp(cluster_id, header->cluster_id) != 0) {
        return error_set(error, STATUS_CORRUPT, "%s/%s: the snapshot is of cluster \"%s\"",
                         path, slot->file.name, header->cluster_id);
    }
    return STATUS_OK;
}

enum status snapfile_commit(struct snapfile *snapfile, enum store_slot number,
                            struct error *error) {
    struct snapfile_slot *slot = &snapfile->slots[number];
    char name[NAME_BYTES_MAX];
    segment_name(SNAPSHOT_PREFIX, slot->check.header.index, name);
    enum status status = file_sync(&slot->file, error);
    if (status == STATUS_OK) {
        status = file_rename(snapfile->directory, slot->file.name, name, error);
    }
    if (status == STATUS_NO_SPACE) {
        snapfile_abort(snapfile, number);
    }
    if (status == STATUS_OK) {
        status = directory_sync(snapfile->directory, error);
    }
    if (status != STATUS_OK) {
        return status;
    }
    char before[NAME_BYTES_MAX];
    memcpy(before, snapfile->file.name, sizeof(before));
    bool replaced = snapfile->file.fd >= 0 && strcmp(before, name) != 0;
    file_close(&snapfile->file);
    snapfile->file = slot->file;
    memcpy(snapfile->file.name, name, sizeof(name));
    snapfile->bytes = slot->bytes;
    take_position(snapfile, &slot->check);
    slot->file = FILE_CLOSED; /* it has a new owner */
    release(slot);
    status = replaced ? file_remove(snapfile->directory, before, error) : STATUS_OK;
    /* The new one stands: whoever heard of "no space" would count on the old one. */
    return status == STATUS_NO_SPACE ? STATUS_IO : status;
}

enum status snapfile_read(struct snapfile *snapfile, uint64_t index, uint64_t offset,
                          size_t bytes_max, struct buffer *bytes, uint64_t *total,
                          struct error *error) {
    if (index == 0 || snapfile->index != index) {
        return error_set(error, STATUS_NOT_FOUND, "snapshot %" PRIu64 " is not there any more",
                         index);
    }
    *total = snapfile->bytes;
    uint64_t left = offset < snapfile->bytes ? snapfile->bytes - offset : 0;
    size_t want = left < bytes_max ? (size_t)left : bytes_max;
    size_t got = 0;
    char *into = buffer_reserve(bytes, want);
    enum status status = file_read(&snapfile->file, offset, into, want, &got, error);
    if (status == STATUS_OK) {
        buffer_extend(bytes, got);
    }
    return status;
}

/* By its name: a descriptor of its own stays good when a newer snapshot takes the place. */
enum status snapfile_open(const struct snapfile *snapfile, uint64_t index, struct file *file,
                          uint64_t *bytes, struct error *error) {
    if (index == 0 || snapfile->index != index) {
        return error_set(error, STATUS_NOT_FOUND, "snapshot %" PRIu64 " is not there any more",
                         index);
    }
    *bytes = snapfile->bytes;
    return file_open(file, snapfile->directory, snapfile->file.name, FILE_READ, error);
}
