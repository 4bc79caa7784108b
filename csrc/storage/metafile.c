/* Loading and saving meta.jsonl; see metafile.h. */
#include "storage/metafile.h"

#include <inttypes.h>

#include "storage/layout.h"
#include "storage/torn.h"

#define RECORD_BEGINS "{\"cluster\":\""
#define META_READ_BYTES_MAX (META_FILE_BYTES + 1u) /* enough to see that it is too long */
#define ADVICE                                                                                 \
    "term and vote cannot be trusted, so this member must not vote as itself again: remove "   \
    "it from its cluster, delete the directory and add it anew"

void metafile_init(struct metafile *metafile, struct directory *directory) {
    *metafile = (struct metafile){.directory = directory, .file = FILE_CLOSED};
}

void metafile_close(struct metafile *metafile) {
    file_close(&metafile->file);
}

/* Whether `next` may follow `last`; other identities have other terms. */
static bool may_follow(const struct meta *last, const struct meta *next) {
    if (last->node_id != next->node_id || strcmp(last->cluster_id, next->cluster_id) != 0) {
        return true;
    }
    bool vote_kept = last->voted_for == 0 || last->voted_for == next->voted_for;
    return next->term > last->term || (next->term == last->term && vote_kept);
}

struct reading {
    struct span bytes; /* the file */
    size_t at;         /* end of the last good record */
    size_t bad_at;     /* where the first bad one begins, and which line that is */
    uint64_t line;
    uint64_t records;
};

/* Take records as long as they are good; blank lines are passed over. */
static void read_records(struct metafile *metafile, struct reading *reading) {
    size_t at = 0;
    reading->line = 1;
    while (at < reading->bytes.size) {
        const char *from = reading->bytes.data + at;
        const char *lf = memchr(from, '\n', reading->bytes.size - at);
        size_t size = lf == NULL ? reading->bytes.size - at : (size_t)(lf - from) + 1;
        struct meta meta;
        reading->bad_at = at;
        if (size > 1 || lf == NULL) {
            if (meta_read((struct span){from, size}, &meta) != STATUS_OK ||
                (reading->records > 0 && !may_follow(&metafile->meta, &meta))) {
                return;
            }
            metafile->meta = meta;
            reading->records++;
            reading->at = at + size;
        }
        at += size;
        reading->line++;
    }
}

static enum status damaged(const struct metafile *metafile, const struct reading *reading,
                           struct error *error) {
    return error_set(error, STATUS_CORRUPT,
                     "%s/" META_NAME ": line %" PRIu64 " (offset %zu) is damaged; " ADVICE,
                     metafile->directory->path, reading->line, reading->bad_at);
}

static enum status judge(struct metafile *metafile, struct reading *reading, bool *torn,
                         struct error *error) {
    size_t end = reading->bytes.size;
    while (end > reading->at && reading->bytes.data[end - 1] == '\n') {
        end--;
    }
    struct torn_tail tail = {
        .text = {reading->bytes.data + reading->at, end - reading->at},
        .offset = reading->at,
        .file_bytes = reading->bytes.size,
        .expect = SPAN(RECORD_BEGINS),
    };
    *torn = tail.text.size > 0;
    /* The file comes into being whole, by rename: its first record and its size are never torn.
     */
    bool sound = reading->records > 0 && reading->bytes.size == META_FILE_BYTES &&
                 tail.text.size <= META_LINE_BYTES_MAX &&
                 memchr(tail.text.data, 0, tail.text.size) == NULL;
    if (!sound || torn_judge(&tail) == TORN_DAMAGE) {
        return damaged(metafile, reading, error);
    }
    metafile->bytes = reading->at;
    return STATUS_OK;
}

enum status metafile_load(struct metafile *metafile, bool *torn, struct error *error) {
    enum status status =
        file_open(&metafile->file, metafile->directory, META_NAME, FILE_WRITE, error);
    if (status != STATUS_OK) {
        return status;
    }
    file_forget(&metafile->file);
    struct buffer bytes;
    buffer_init(&bytes);
    size_t got = 0;
    char *into = buffer_reserve(&bytes, META_READ_BYTES_MAX);
    status = file_read(&metafile->file, 0, into, META_READ_BYTES_MAX, &got, error);
    if (status == STATUS_OK) {
        struct reading reading = {.bytes = {into, got}};
        read_records(metafile, &reading);
        status = judge(metafile, &reading, torn, error);
    }
    buffer_free(&bytes);
    return status;
}

static enum status check(const struct metafile *metafile, const struct meta *meta,
                         struct error *error) {
    if (!meta_valid(meta)) {
        return error_set(error, STATUS_INVALID, "a record that " META_NAME " cannot hold");
    }
    if (!may_follow(&metafile->meta, meta)) {
        return error_set(error, STATUS_INVALID,
                         "a vote of term %" PRIu64 " after one of term %" PRIu64
                         ": terms never go back and votes never change",
                         meta->term, metafile->meta.term);
    }
    return STATUS_OK;
}

static enum status write_anew(struct metafile *metafile, const struct meta *meta,
                              struct error *error) {
    struct buffer block;
    buffer_init(&block);
    meta_write(&block, meta);
    size_t size = buffer_count(&block);
    size_t fill = META_FILE_BYTES - size;
    memset(buffer_reserve(&block, fill), '\n', fill);
    buffer_extend(&block, fill);
    enum status status =
        file_replace(metafile->directory, META_NAME, buffer_span(&block), error);
    buffer_free(&block);
    if (status != STATUS_OK) {
        return status;
    }
    file_close(&metafile->file);
    status = file_open(&metafile->file, metafile->directory, META_NAME, FILE_WRITE, error);
    if (status != STATUS_OK) {
        /* The record is durable, but we can no longer say so in the next one. */
        return error != NULL ? (error->status = STATUS_IO) : STATUS_IO;
    }
    metafile->bytes = size;
    metafile->meta = *meta;
    return STATUS_OK;
}

enum status metafile_replace(struct metafile *metafile, const struct meta *meta,
                             struct error *error) {
    enum status status = check(metafile, meta, error);
    return status == STATUS_OK ? write_anew(metafile, meta, error) : status;
}

enum status metafile_save(struct metafile *metafile, const struct meta *meta,
                          struct error *error) {
    enum status status = check(metafile, meta, error);
    if (status != STATUS_OK) {
        return status;
    }
    struct buffer line;
    buffer_init(&line);
    meta_write(&line, meta);
    struct span record = buffer_span(&line);
    if (metafile->bytes + record.size > META_FILE_BYTES) {
        status = write_anew(metafile, meta, error);
    } else {
        status = file_write(&metafile->file, metafile->bytes, record, error);
        /* Over bytes that are there already "no space" is as final as any other failure. */
        status = status == STATUS_NO_SPACE ? STATUS_IO : status;
        if (status == STATUS_OK) {
            status = file_sync_data(&metafile->file, error);
        }
        if (status == STATUS_OK) {
            metafile->bytes += record.size;
            metafile->meta = *meta;
        }
    }
    buffer_free(&line);
    return status;
}
