/* Reading a file line by line; see lines.h. */
#include "storage/lines.h"

#ifndef READ_BYTES
#define READ_BYTES (128u * 1024u)
#endif

void lines_open(struct lines *lines, const struct file *file, uint64_t offset, uint64_t limit,
                size_t line_bytes_max) {
    *lines = (struct lines){
        .file = file,
        .read_to = offset,
        .limit = limit,
        .line_bytes_max = line_bytes_max,
        .offset = offset,
        .end = offset,
    };
    buffer_init(&lines->bytes);
}

void lines_close(struct lines *lines) {
    buffer_free(&lines->bytes);
}

/* Read on; `*more` says whether anything came. */
static enum status read_more(struct lines *lines, bool *more, struct error *error) {
    uint64_t left = lines->limit > lines->read_to ? lines->limit - lines->read_to : 0;
    size_t want = left < READ_BYTES ? (size_t)left : READ_BYTES;
    size_t got = 0;
    char *into = buffer_reserve(&lines->bytes, want);
    enum status status = file_read(lines->file, lines->read_to, into, want, &got, error);
    if (status == STATUS_OK) {
        buffer_extend(&lines->bytes, got);
        lines->read_to += got;
    }
    *more = got > 0;
    return status;
}

static void skip_blank(struct lines *lines) {
    struct span rest = buffer_span(&lines->bytes);
    size_t blank = 0;
    while (blank < rest.size && rest.data[blank] == '\n') {
        blank++;
    }
    lines->number += blank;
    buffer_consume(&lines->bytes, blank);
}

static bool take_line(struct lines *lines, struct span *line) {
    struct span rest = buffer_span(&lines->bytes);
    if (rest.size <= lines->scanned) {
        return false;
    }
    const char *lf = memchr(rest.data + lines->scanned, '\n', rest.size - lines->scanned);
    if (lf == NULL) {
        lines->scanned = rest.size;
        return false;
    }
    *line = (struct span){rest.data, (size_t)(lf - rest.data) + 1};
    lines->scanned = 0;
    lines->offset = lines->read_to - rest.size;
    lines->end = lines->offset + line->size;
    lines->number++;
    /* The bytes stay where they are until the next read, so the caller may look at them. */
    buffer_consume(&lines->bytes, line->size);
    return true;
}

enum lines_result lines_next(struct lines *lines, struct span *line, struct error *error) {
    for (;;) {
        if (lines->scanned == 0) {
            skip_blank(lines);
        }
        if (take_line(lines, line)) {
            return line->size <= lines->line_bytes_max ? LINES_LINE : LINES_BROKEN;
        }
        if (lines->scanned > lines->line_bytes_max) {
            return LINES_BROKEN;
        }
        bool more;
        if (read_more(lines, &more, error) != STATUS_OK) {
            return LINES_FAILED;
        }
        if (!more) {
            return buffer_count(&lines->bytes) == 0 ? LINES_END : LINES_BROKEN;
        }
    }
}
