/* Writing the log: appending, rolling over, syncing, truncating; see journal.h. Reading it
 * stands in journal_read.c, opening it in recovery.c. */
#include "storage/journal.h"

#include "base/assert.h"
#include "base/memory.h"
#include "storage/internal.h"
#include "storage/layout.h"
#include "wire/entry.h"
#include "wire/line.h"

#define SEGMENTS_FIRST 16u
#define NEW_SEGMENT_NAME "segment" FILE_TEMPORARY_SUFFIX

void journal_init(struct journal *journal, struct directory *directory,
                  uint64_t segment_bytes) {
    *journal = (struct journal){
        .directory = directory,
        .active = FILE_CLOSED,
        .reading = FILE_CLOSED,
        .segment_bytes = segment_bytes,
        .floor = 1,
    };
}

void journal_clear(struct journal *journal) {
    file_close(&journal->active);
    file_close(&journal->reading);
    for (size_t i = 0; i < journal->count; i++) {
        segment_clear(&journal->segments[i]);
    }
    memory_free(journal->segments);
    journal_init(journal, journal->directory, journal->segment_bytes);
}

void journal_close(struct journal *journal) {
    if (journal->active.fd >= 0 && journal->unsynced == 0) {
        /* For people who look into the file; whether it works does not matter. */
        enum status ignored =
            file_cut(&journal->active, journal_peek_last(journal)->bytes, NULL);
        (void)ignored;
    }
    journal_clear(journal);
}

struct segment *journal_add(struct journal *journal, uint64_t first_index) {
    ASSERT(journal->count == 0 || first_index > journal_peek_last(journal)->first_index);
    if (journal->count == journal->capacity) {
        size_t capacity = journal->capacity > 0 ? journal->capacity * 2 : SEGMENTS_FIRST;
        journal->segments =
            memory_must_grow(journal->segments, capacity * sizeof(*journal->segments));
        journal->capacity = capacity;
    }
    struct segment *segment = &journal->segments[journal->count++];
    segment_init(segment, first_index);
    return segment;
}

enum status journal_open_active(struct journal *journal, struct error *error) {
    if (journal->active.fd >= 0) {
        return STATUS_OK;
    }
    char name[NAME_BYTES_MAX];
    segment_name(LOG_PREFIX, journal_peek_last(journal)->first_index, name);
    return file_open(&journal->active, journal->directory, name, FILE_WRITE, error);
}

/* --- filling ahead, rolling over --- */

static uint64_t round_up(uint64_t bytes) {
    return (bytes + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
}

/* How far to fill so that lines up to `need` fit: a step, but not far past the segment's end.
 */
static uint64_t fill_target(const struct journal *journal, uint64_t need) {
    uint64_t step = (need / FILL_STEP_BYTES + 1) * FILL_STEP_BYTES;
    uint64_t most = round_up(journal->segment_bytes);
    uint64_t target = step < most ? step : most;
    return target > need ? target : round_up(need);
}

/* Cut the active file, durably. What stands before the cut is synced first: a file that has
 * been trimmed holds no torn write, and torn.h counts on that. */
static enum status cut_active(struct journal *journal, uint64_t bytes, struct error *error) {
    enum status status = journal_sync(journal, error);
    if (status == STATUS_OK) {
        status = file_cut(&journal->active, bytes, error);
    }
    if (status == STATUS_OK) {
        status = file_sync(&journal->active, error);
    }
    if (status == STATUS_OK) {
        journal_peek_last(journal)->filled = bytes;
    }
    return status;
}

/* Fill and sync; when the disk is full, the file is again as it was. */
static enum status fill(const struct file *file, uint64_t from, uint64_t to,
                        struct error *error) {
    enum status status = file_fill(file, from, to - from, error);
    if (status == STATUS_NO_SPACE) {
        enum status undone = file_cut(file, from, error);
        if (undone == STATUS_OK) {
            undone = file_sync(file, error);
        }
        return undone == STATUS_OK ? STATUS_NO_SPACE : STATUS_IO;
    }
    /* fsync, not fdatasync: the new size must be durable, and on every system. */
    return status == STATUS_OK ? file_sync(file, error) : status;
}

static enum status extend(struct journal *journal, uint64_t need, struct error *error) {
    struct segment *segment = journal_peek_last(journal);
    if (need <= segment->filled) {
        return STATUS_OK;
    }
    uint64_t target = fill_target(journal, need);
    enum status status = fill(&journal->active, segment->filled, target, error);
    if (status == STATUS_OK) {
        segment->filled = target;
        journal->unsynced = 0;
    }
    return status;
}

/* The last segment takes no more lines: trim and sync it. */
static enum status finish_segment(struct journal *journal, struct error *error) {
    struct segment *segment = journal_peek_last(journal);
    enum status status = journal_open_active(journal, error);
    if (status == STATUS_OK) {
        status = cut_active(journal, segment->bytes, error);
    }
    if (status == STATUS_OK) {
        file_close(&journal->active);
    }
    return status;
}

/* Make a new segment under a temporary name, filled and synced, and only then give it its own.
 */
static enum status create_segment(struct journal *journal, uint64_t first_index,
                                  struct error *error) {
    char name[NAME_BYTES_MAX];
    segment_name(LOG_PREFIX, first_index, name);
    uint64_t filled = fill_target(journal, 1);
    enum status status =
        file_open(&journal->active, journal->directory, NEW_SEGMENT_NAME, FILE_CREATE, error);
    if (status == STATUS_OK) {
        status = fill(&journal->active, 0, filled, error);
    }
    if (status == STATUS_OK) {
        status = file_rename(journal->directory, NEW_SEGMENT_NAME, name, error);
    }
    if (status == STATUS_OK) {
        status = directory_sync(journal->directory, error);
    }
    if (status != STATUS_OK) {
        file_close(&journal->active);
        return status;
    }
    memcpy(journal->active.name, name, sizeof(name));
    journal_add(journal, first_index)->filled = filled;
    return STATUS_OK;
}

static enum status roll_over(struct journal *journal, uint64_t first_index,
                             struct error *error) {
    enum status status = STATUS_OK;
    if (journal->count > 0) {
        status = finish_segment(journal, error);
    }
    if (status != STATUS_OK) {
        return status;
    }
    status = create_segment(journal, first_index, error);
    if (status == STATUS_NO_SPACE) {
        enum status removed = file_remove(journal->directory, NEW_SEGMENT_NAME, error);
        return removed == STATUS_OK ? STATUS_NO_SPACE : STATUS_IO;
    }
    return status;
}

/* --- appending --- */

/* A run of lines that goes into one segment with one write. */
struct piece {
    uint64_t first;
    uint64_t last;
    struct span lines;
    const uint32_t *offsets; /* of the lines, from the start of `base` */
    uint32_t base;
};

static size_t line_end(const struct piece *batch, uint64_t index, size_t batch_bytes) {
    return index == batch->last ? batch_bytes : batch->offsets[index + 1 - batch->first];
}

/* The longest run from `first` on that ends with the line that fills the segment. */
static struct piece next_piece(const struct piece *batch, uint64_t first, uint64_t room) {
    const uint32_t *offsets = batch->offsets + (first - batch->first);
    uint64_t last = first;
    size_t end = line_end(batch, first, batch->lines.size);
    while (last < batch->last && end - offsets[0] < room) {
        size_t next_end = line_end(batch, last + 1, batch->lines.size);
        if (next_end - offsets[0] > UNSYNCED_BYTES_MAX) {
            break;
        }
        end = next_end;
        last++;
    }
    ASSERT(end > offsets[0] && end <= batch->lines.size);
    return (struct piece){
        .first = first,
        .last = last,
        .lines = {batch->lines.data + offsets[0], end - offsets[0]},
        .offsets = offsets,
        .base = offsets[0],
    };
}

static uint32_t crc_of(struct span line) {
    struct span body;
    uint32_t crc = 0;
    enum status status = line_peek_crc(line, &body, &crc);
    ASSERT(status == STATUS_OK);
    return crc;
}

/* Count a piece that was written into the index. */
static void note_piece(struct journal *journal, const struct piece *piece) {
    struct segment *segment = journal_peek_last(journal);
    for (uint64_t index = piece->first; index <= piece->last; index++) {
        size_t i = (size_t)(index - piece->first);
        size_t begin = piece->offsets[i] - piece->base;
        segment_mark(segment, index, segment->bytes + begin, journal->last_crc);
        size_t end = index == piece->last ? piece->lines.size
                                          : piece->offsets[i + 1] - (size_t)piece->base;
        ASSERT(end > begin && end - begin <= ENTRY_LINE_BYTES_MAX);
        journal->last_crc = crc_of((struct span){piece->lines.data + begin, end - begin});
    }
    segment->bytes += piece->lines.size;
    segment->last_index = piece->last;
    journal->last_index = piece->last;
    journal->unsynced += piece->lines.size;
}

static enum status write_piece(struct journal *journal, const struct piece *piece,
                               struct error *error) {
    enum status status = STATUS_OK;
    if (journal->unsynced + piece->lines.size > UNSYNCED_BYTES_MAX) {
        status = journal_sync(journal, error);
    }
    uint64_t offset = journal_peek_last(journal)->bytes;
    if (status == STATUS_OK) {
        status = extend(journal, offset + piece->lines.size, error);
    }
    if (status == STATUS_OK) {
        status = file_write(&journal->active, offset, piece->lines, error);
        if (status == STATUS_NO_SPACE) {
            /* Room was there, but a file system that copies on write needs more: cut what was
             * half-written, together with the filling that it has spoilt. */
            enum status undone = cut_active(journal, offset, error);
            return undone == STATUS_OK ? STATUS_NO_SPACE : STATUS_IO;
        }
    }
    if (status == STATUS_OK) {
        note_piece(journal, piece);
    }
    return status;
}

static enum status append_piece(struct journal *journal, const struct piece *batch,
                                uint64_t first, struct error *error) {
    struct segment *segment = journal_peek_last(journal);
    enum status status;
    if (segment == NULL || segment->bytes >= journal->segment_bytes) {
        status = roll_over(journal, first, error);
    } else {
        status = journal_open_active(journal, error);
    }
    if (status != STATUS_OK) {
        return status;
    }
    segment = journal_peek_last(journal);
    struct piece piece = next_piece(batch, first, journal->segment_bytes - segment->bytes);
    return write_piece(journal, &piece, error);
}

/* The batch must go on exactly where the journal ends, in index and in chain. */
static void assert_continues(const struct journal *journal, const struct piece *batch) {
    struct span line = {batch->lines.data, line_end(batch, batch->first, batch->lines.size)};
    struct entry entry;
    uint32_t crc;
    ASSERT(entry_read(line, journal->last_crc, &entry, &crc) == STATUS_OK);
    ASSERT(entry.index == batch->first);
}

enum status journal_append(struct journal *journal, uint64_t first, uint64_t last,
                           struct span lines, const uint32_t *offsets, struct error *error) {
    ASSERT(first == journal->last_index + 1 && last >= first);
    ASSERT(offsets[0] == 0 && lines.size > 0 && lines.size <= UINT32_MAX);
    struct piece batch = {.first = first, .last = last, .lines = lines, .offsets = offsets};
    assert_continues(journal, &batch);
    while (journal->last_index < last) {
        enum status status = append_piece(journal, &batch, journal->last_index + 1, error);
        if (status == STATUS_NO_SPACE) {
            enum status undone = journal_truncate(journal, first, error);
            return undone == STATUS_OK ? STATUS_NO_SPACE : STATUS_IO;
        }
        if (status != STATUS_OK) {
            return status;
        }
    }
    return STATUS_OK;
}

enum status journal_sync(struct journal *journal, struct error *error) {
    if (journal->unsynced == 0) {
        return STATUS_OK;
    }
    enum status status = file_sync_data(&journal->active, error);
    if (status == STATUS_OK) {
        journal->unsynced = 0;
    }
    return status;
}

/* --- removing --- */

static void close_reading(struct journal *journal) {
    file_close(&journal->reading);
}

static enum status remove_last(struct journal *journal, bool sync, struct error *error) {
    char name[NAME_BYTES_MAX];
    segment_name(LOG_PREFIX, journal_peek_last(journal)->first_index, name);
    file_close(&journal->active);
    close_reading(journal);
    enum status status = file_remove(journal->directory, name, error);
    if (status == STATUS_OK && sync) {
        status = directory_sync(journal->directory, error);
    }
    segment_clear(&journal->segments[--journal->count]);
    return status;
}

static enum status cut_last(struct journal *journal, uint64_t index, struct error *error) {
    struct segment *segment = journal_peek_last(journal);
    uint64_t offset;
    uint32_t seed;
    enum status status = journal_locate(journal, segment, index, &offset, &seed, error);
    if (status == STATUS_OK) {
        status = journal_open_active(journal, error);
    }
    if (status == STATUS_OK) {
        status = cut_active(journal, offset, error);
    }
    if (status == STATUS_OK) {
        segment_truncate(segment, index, offset);
        journal->last_crc = seed;
    }
    return status;
}

enum status journal_truncate(struct journal *journal, uint64_t index, struct error *error) {
    if (index > journal->last_index) {
        return STATUS_OK;
    }
    enum status status = STATUS_OK;
    while (status == STATUS_OK && journal->count > 0 &&
           journal_peek_last(journal)->first_index >= index) {
        struct segment *segment = journal_peek_last(journal);
        if (segment->mark_count > 0) {
            journal->last_crc = segment->marks[0].seed;
        }
        journal->last_index = segment->first_index - 1;
        /* Synced one by one: a crash must not leave a later segment without an earlier one. */
        status = remove_last(journal, true, error);
        journal->unsynced = 0; /* whatever was not synced went with the file */
    }
    if (status == STATUS_OK && journal->last_index >= index) {
        status = cut_last(journal, index, error);
    }
    if (status == STATUS_OK) {
        journal->last_index = index - 1;
    }
    return status;
}

enum status journal_compact(struct journal *journal, uint64_t index, struct error *error) {
    size_t removed = 0;
    enum status status = STATUS_OK;
    while (status == STATUS_OK && removed + 1 < journal->count &&
           journal->segments[removed].last_index < index) {
        char name[NAME_BYTES_MAX];
        segment_name(LOG_PREFIX, journal->segments[removed].first_index, name);
        status = file_remove(journal->directory, name, error);
        segment_clear(&journal->segments[removed++]);
    }
    if (removed > 0) {
        close_reading(journal);
        journal->count -= removed;
        memmove(journal->segments, journal->segments + removed,
                journal->count * sizeof(*journal->segments));
        uint64_t first = journal->segments[0].first_index;
        journal->floor = first > journal->floor ? first : journal->floor;
    }
    return status;
}

enum status journal_reset(struct journal *journal, uint64_t index, uint32_t crc,
                          struct error *error) {
    enum status status = STATUS_OK;
    while (status == STATUS_OK && journal->count > 0) {
        /* What the snapshot covers may go in any order. */
        bool beyond = journal_peek_last(journal)->last_index > index;
        status = remove_last(journal, beyond, error);
    }
    journal->unsynced = 0;
    journal->floor = index + 1;
    journal->last_index = index;
    journal->last_crc = crc;
    return status;
}
