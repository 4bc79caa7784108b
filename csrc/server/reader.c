/* A snapshot's lines, pulled one by one out of a check that pushes them; see reader.h. */
#include "server/reader.h"

#include <inttypes.h>

#include "base/limits.h"
#include "base/memory.h"

static void drop(struct cargo *cargo) {
    struct reader *reader = reader_of(cargo);
    file_close(&reader->file);
    snapshot_check_clear(&reader->check);
    buffer_free(&reader->sessions);
    buffer_free(&reader->lines);
    memory_free(reader);
}

static void keep_line(struct buffer *lines, struct span json) {
    buffer_append_span(lines, json);
    buffer_append_char(lines, '\n');
}

static enum status keep_session(void *context, struct span json) {
    keep_line(&((struct reader *)context)->sessions, json);
    return STATUS_OK;
}

static enum status keep_state(void *context, struct span json) {
    keep_line(&((struct reader *)context)->lines, json);
    return STATUS_OK;
}

struct reader *reader_new(struct file file) {
    struct reader *reader = memory_must_alloc_zero(sizeof(*reader));
    reader->cargo.drop = drop;
    reader->file = file;
    snapshot_check_init(&reader->check);
    reader->check.context = reader;
    reader->check.session = keep_session;
    reader->check.state = keep_state;
    return reader;
}

struct reader *reader_of(struct cargo *cargo) {
    return (struct reader *)(void *)cargo;
}

/* One piece of the file further. */
static enum status read_on(struct reader *reader, struct error *error) {
    struct buffer piece;
    buffer_init(&piece);
    char *into = buffer_reserve(&piece, SNAPSHOT_IO_BYTES);
    size_t got = 0;
    enum status status =
        file_read(&reader->file, reader->offset, into, SNAPSHOT_IO_BYTES, &got, error);
    bool damaged = false;
    if (status == STATUS_OK) {
        reader->offset += got;
        reader->ended = got < SNAPSHOT_IO_BYTES;
        damaged = snapshot_check_feed(&reader->check, (struct span){into, got}) != STATUS_OK ||
                  (reader->ended && snapshot_check_finish(&reader->check) != STATUS_OK);
    }
    buffer_free(&piece);
    if (damaged) {
        status =
            error_set(error, STATUS_CORRUPT, "%s/%s: the snapshot is damaged at line %" PRIu64,
                      reader->file.directory->path, reader->file.name,
                      snapshot_check_line(&reader->check));
    }
    return status;
}

enum status reader_take_sessions(struct reader *reader, struct buffer *lines,
                                 struct error *error) {
    enum status status = STATUS_OK;
    while (status == STATUS_OK && buffer_count(&reader->lines) == 0 && !reader->ended) {
        status = read_on(reader, error);
    }
    if (status == STATUS_OK) {
        buffer_free(lines);
        *lines = reader->sessions;
        buffer_init(&reader->sessions);
    }
    return status;
}

enum status reader_next(struct reader *reader, struct span *json, bool *ended,
                        struct error *error) {
    while (buffer_count(&reader->lines) == 0 && !reader->ended) {
        enum status status = read_on(reader, error);
        if (status != STATUS_OK) {
            return status;
        }
    }
    struct span lines = buffer_span(&reader->lines);
    *ended = lines.size == 0;
    if (*ended) {
        return STATUS_OK;
    }
    const char *lf = memchr(lines.data, '\n', lines.size);
    *json = (struct span){lines.data, (size_t)(lf - lines.data)};
    /* The bytes stay where they are until something is appended. */
    buffer_consume(&reader->lines, json->size + 1);
    return STATUS_OK;
}
