/* Marking damage and keeping what was damaged; see quarantine.h. */
#include "storage/quarantine.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/assert.h"
#include "storage/layout.h"
#include "wire/line.h"

#ifndef COPY_BYTES
#define COPY_BYTES (128u * 1024u)
#endif

enum status quarantine_set(struct directory *directory, const char *name, uint64_t line,
                           uint64_t offset, uint64_t entry, struct error *error) {
    struct buffer mark;
    buffer_init(&mark);
    buffer_append_format(&mark,
                         "{\"quarantine\":{\"file\":\"%s\",\"line\":%" PRIu64
                         ",\"offset\":%" PRIu64 ",\"entry\":%" PRIu64 "}",
                         name, line, offset, entry);
    line_seal(&mark, 0, 0);
    enum status status = file_replace(directory, QUARANTINE_NAME, buffer_span(&mark), error);
    buffer_free(&mark);
    return status;
}

enum status quarantine_clear(struct directory *directory, struct error *error) {
    enum status status = file_remove(directory, QUARANTINE_NAME, error);
    return status == STATUS_OK ? directory_sync(directory, error) : status;
}

static bool is_taken(const struct buffer *names, const char *name) {
    struct span rest = buffer_span(names);
    while (rest.size > 0) {
        if (strcmp(rest.data, name) == 0) {
            return true;
        }
        size_t size = strlen(rest.data) + 1;
        rest = (struct span){rest.data + size, rest.size - size};
    }
    return false;
}

/* A name "NAME.damaged-N" that is not taken. */
static enum status find_side_name(struct directory *directory, const char *name,
                                  char side[NAME_BYTES_MAX], struct error *error) {
    struct buffer names;
    buffer_init(&names);
    enum status status = directory_list(directory, &names, error);
    unsigned number = 0;
    do {
        int size = snprintf(side, NAME_BYTES_MAX, "%s.damaged-%u", name, ++number);
        ASSERT(size > 0 && (unsigned)size < NAME_BYTES_MAX);
    } while (status == STATUS_OK && number < DAMAGED_FILES_MAX && is_taken(&names, side));
    buffer_free(&names);
    if (status == STATUS_OK && number == DAMAGED_FILES_MAX) {
        return error_set(error, STATUS_IO,
                         "%s/%s: too many damaged copies of it; move them away",
                         directory->path, name);
    }
    return status;
}

static enum status copy_bytes(const struct file *from, uint64_t offset, uint64_t end,
                              const struct file *into, struct error *error) {
    struct buffer piece;
    buffer_init(&piece);
    enum status status = STATUS_OK;
    for (uint64_t at = offset; at < end && status == STATUS_OK;) {
        size_t want = end - at < COPY_BYTES ? (size_t)(end - at) : COPY_BYTES;
        size_t got = 0;
        char *bytes = buffer_reserve(&piece, want);
        status = file_read(from, at, bytes, want, &got, error);
        if (status == STATUS_OK) {
            status = file_write(into, at - offset, (struct span){bytes, got}, error);
        }
        if (got == 0) {
            break;
        }
        at += got;
    }
    buffer_free(&piece);
    return status;
}

enum status quarantine_copy(struct directory *directory, const struct file *file, uint64_t from,
                            uint64_t to, char side[NAME_BYTES_MAX], struct error *error) {
    enum status status = find_side_name(directory, file->name, side, error);
    if (status != STATUS_OK) {
        return status;
    }
    struct file copy = FILE_CLOSED;
    status = file_open(&copy, directory, side, FILE_CREATE, error);
    if (status == STATUS_OK) {
        status = copy_bytes(file, from, to, &copy, error);
    }
    if (status == STATUS_OK) {
        status = file_sync(&copy, error);
    }
    file_close(&copy);
    return status == STATUS_OK ? directory_sync(directory, error) : status;
}

enum status quarantine_move(struct directory *directory, const char *name,
                            char side[NAME_BYTES_MAX], struct error *error) {
    enum status status = find_side_name(directory, name, side, error);
    if (status == STATUS_OK) {
        status = file_rename(directory, name, side, error);
    }
    return status == STATUS_OK ? directory_sync(directory, error) : status;
}
