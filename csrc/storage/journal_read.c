/* Reading the log back: from the nearest mark on, checking the chain again on the way, so that
 * what a disk has spoilt since it was written is never handed out. See journal.h. */
#include "storage/journal.h"

#include <inttypes.h>

#include "base/assert.h"
#include "storage/internal.h"
#include "storage/layout.h"
#include "storage/lines.h"
#include "wire/entry.h"

/* The file of a segment, open to read; borrowed. */
static enum status peek_file(struct journal *journal, const struct segment *segment,
                             const struct file **file, struct error *error) {
    if (segment == journal_peek_last(journal) && journal->active.fd >= 0) {
        *file = &journal->active;
        return STATUS_OK;
    }
    char name[NAME_BYTES_MAX];
    segment_name(LOG_PREFIX, segment->first_index, name);
    if (journal->reading.fd < 0 || strcmp(journal->reading.name, name) != 0) {
        file_close(&journal->reading);
        enum status status =
            file_open(&journal->reading, journal->directory, name, FILE_READ, error);
        if (status != STATUS_OK) {
            /* The log holds it, so its absence is no "not found". */
            return error_set(error, STATUS_IO, "%s/%s: cannot be opened any more",
                             journal->directory->path, name);
        }
    }
    *file = &journal->reading;
    return STATUS_OK;
}

/* A walk over the checked lines of one segment. */
struct walk {
    struct lines lines;
    uint64_t index; /* of the next line */
    uint32_t seed;  /* checksum of the entry before it */
};

static enum status walk_open(struct walk *walk, struct journal *journal,
                             const struct segment *segment, uint64_t index,
                             struct error *error) {
    const struct segment_mark *mark = segment_find(segment, index);
    const struct file *file = NULL;
    enum status status = peek_file(journal, segment, &file, error);
    if (status == STATUS_OK) {
        lines_open(&walk->lines, file, mark->offset, segment->bytes, ENTRY_LINE_BYTES_MAX);
        walk->index = mark->index;
        walk->seed = mark->seed;
    }
    return status;
}

static enum status walk_next(struct walk *walk, struct span *line, struct error *error) {
    enum lines_result result = lines_next(&walk->lines, line, error);
    if (result == LINES_FAILED) {
        return STATUS_IO;
    }
    struct entry entry;
    uint32_t crc;
    if (result != LINES_LINE || entry_read(*line, walk->seed, &entry, &crc) != STATUS_OK ||
        entry.index != walk->index) {
        const struct file *file = walk->lines.file;
        return error_set(error, STATUS_CORRUPT,
                         "%s/%s: the line of entry %" PRIu64 " (offset %" PRIu64
                         ") has changed since it was written: the disk cannot be trusted",
                         file->directory->path, file->name, walk->index, walk->lines.end);
    }
    walk->seed = crc;
    walk->index++;
    return STATUS_OK;
}

enum status journal_locate(struct journal *journal, const struct segment *segment,
                           uint64_t index, uint64_t *offset, uint32_t *seed,
                           struct error *error) {
    ASSERT(index >= segment->first_index && index <= segment->last_index + 1);
    struct walk walk;
    enum status status = walk_open(&walk, journal, segment, index, error);
    if (status != STATUS_OK) {
        return status;
    }
    while (status == STATUS_OK && walk.index < index) {
        struct span line;
        status = walk_next(&walk, &line, error);
    }
    *offset = walk.lines.end;
    *seed = walk.seed;
    lines_close(&walk.lines);
    return status;
}

static struct segment *find_segment(struct journal *journal, uint64_t index) {
    size_t low = 0;
    size_t high = journal->count;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (journal->segments[middle].first_index <= index) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return &journal->segments[low];
}

static bool holds(const struct journal *journal, uint64_t index) {
    return index >= journal->floor && index <= journal->last_index && journal->count > 0 &&
           index >= journal->segments[0].first_index;
}

/* What is still wanted of a read. */
struct wanted {
    uint64_t next;
    uint64_t last;
    size_t bytes_max;
    size_t bytes; /* appended so far */
    bool full;
};

static enum status read_segment(struct journal *journal, struct wanted *wanted,
                                struct buffer *lines, struct error *error) {
    const struct segment *segment = find_segment(journal, wanted->next);
    uint64_t last = segment->last_index < wanted->last ? segment->last_index : wanted->last;
    struct walk walk;
    enum status status = walk_open(&walk, journal, segment, wanted->next, error);
    if (status != STATUS_OK) {
        return status;
    }
    while (status == STATUS_OK && wanted->next <= last && !wanted->full) {
        struct span line;
        status = walk_next(&walk, &line, error);
        if (status != STATUS_OK || walk.index <= wanted->next) {
            continue;
        }
        wanted->full = wanted->bytes > 0 && wanted->bytes + line.size > wanted->bytes_max;
        if (!wanted->full) {
            buffer_append_span(lines, line);
            wanted->bytes += line.size;
            wanted->next++;
        }
    }
    lines_close(&walk.lines);
    return status;
}

enum status journal_read(struct journal *journal, uint64_t first, uint64_t last,
                         size_t bytes_max, struct buffer *lines, uint64_t *read_last,
                         struct error *error) {
    if (!holds(journal, first) || last < first) {
        return error_set(error, STATUS_NOT_FOUND, "entry %" PRIu64 " is not in the log", first);
    }
    struct wanted wanted = {
        .next = first,
        .last = last < journal->last_index ? last : journal->last_index,
        .bytes_max = bytes_max,
    };
    size_t before = buffer_count(lines);
    enum status status = STATUS_OK;
    while (status == STATUS_OK && wanted.next <= wanted.last && !wanted.full) {
        status = read_segment(journal, &wanted, lines, error);
    }
    if (status != STATUS_OK) {
        lines->size -= buffer_count(lines) - before;
        return status;
    }
    *read_last = wanted.next - 1;
    return STATUS_OK;
}

enum status journal_find_crc(struct journal *journal, uint64_t index, uint32_t *crc,
                             struct error *error) {
    if (!holds(journal, index)) {
        return error_set(error, STATUS_NOT_FOUND, "entry %" PRIu64 " is not in the log", index);
    }
    if (index == journal->last_index) {
        *crc = journal->last_crc;
        return STATUS_OK;
    }
    uint64_t offset;
    return journal_locate(journal, find_segment(journal, index), index + 1, &offset, crc,
                          error);
}
