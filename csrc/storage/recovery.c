/* Opening the log; see recovery.h.
 *
 * The rule: segments are read in the order of their names, each line checked against the chain.
 * With no snapshot the chain begins at entry 1 with seed 0; with a snapshot at S it begins at
 * S + 1 with the snapshot's chain checksum, and what stands before is passed over, for nothing
 * depends on it any more - in a segment whose name is of S or before: what is named after S + 1
 * begins there.
 *
 *  1. The log ends before S: the snapshot came from a leader, and the process died before the
 *     old log was removed. It is removed now. The same where entry S has another checksum and
 *     the entries behind it continue that one: another history, overruled by the snapshot.
 *  2. Entry S has the snapshot's checksum, or S + 1 continues it: the entries behind S count.
 *  3. The first line that does not check, or is not the next entry, ends the log. In the last
 *     segment torn.h decides whether it was torn - then it is cut - or damaged. Anywhere else,
 *     a missing segment or one too many included, it is damage.
 *  4. Damage may have been acknowledged. The mark quarantine.jsonl is made durable; then all
 *     that follows the last good line is moved to side files NAME.damaged-N, later segments
 *     first, so that a crash in between leaves the same picture; then the log is cut there.
 *  5. What was read may never have been synced, by a process that was killed. The last segment
 *     is synced before anybody hears of its entries as recovered.
 *
 * Segments that the snapshot covers wholly are removed. */
#include "storage/recovery.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/assert.h"
#include "storage/internal.h"
#include "storage/layout.h"
#include "storage/lines.h"
#include "storage/quarantine.h"
#include "storage/torn.h"
#include "wire/entry.h"
#include "wire/line.h"

#define EXPECT_BYTES_MAX 64u

/* --- which segments there are --- */

static int compare_numbers(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static enum status add_segments(struct recovery *recovery, const struct buffer *names,
                                struct error *error) {
    struct buffer found;
    buffer_init(&found);
    struct span rest = buffer_span(names);
    while (rest.size > 0) {
        uint64_t index;
        if (segment_parse_name(LOG_PREFIX, rest.data, &index)) {
            buffer_append(&found, &index, sizeof(index));
        }
        size_t size = strlen(rest.data) + 1;
        rest = (struct span){rest.data + size, rest.size - size};
    }
    size_t count = buffer_count(&found) / sizeof(uint64_t);
    uint64_t *indexes = (uint64_t *)(void *)found.bytes;
    enum status status = STATUS_OK;
    if (count > SEGMENTS_MAX) {
        status = error_set(error, STATUS_CORRUPT, "%s: %zu log files",
                           recovery->directory->path, count);
    } else if (count > 0) {
        qsort(indexes, count, sizeof(*indexes), compare_numbers);
        for (size_t i = 0; i < count; i++) {
            journal_add(recovery->journal, indexes[i]);
        }
    }
    buffer_free(&found);
    return status;
}

/* Remove segments from the front, of which nothing counts. */
static enum status remove_front(struct recovery *recovery, size_t count, struct error *error) {
    struct journal *journal = recovery->journal;
    enum status status = STATUS_OK;
    for (size_t i = 0; i < count; i++) {
        char name[NAME_BYTES_MAX];
        segment_name(LOG_PREFIX, journal->segments[i].first_index, name);
        if (status == STATUS_OK) {
            status = file_remove(journal->directory, name, error);
        }
        segment_clear(&journal->segments[i]);
    }
    if (count > 0) {
        journal->count -= count;
        memmove(journal->segments, journal->segments + count,
                journal->count * sizeof(*journal->segments));
    }
    return status;
}

/* Segments before the one that holds, or would hold, the snapshot's position. */
static size_t count_covered(const struct recovery *recovery) {
    const struct journal *journal = recovery->journal;
    size_t covered = 0;
    while (covered + 1 < journal->count &&
           journal->segments[covered + 1].first_index <= recovery->snapshot_index) {
        covered++;
    }
    return covered;
}

/* --- one line --- */

static enum status accept(struct recovery *recovery, const struct entry *entry, uint32_t crc,
                          struct span line, uint64_t offset) {
    segment_mark(recovery->segment, entry->index, offset, recovery->seed);
    recovery->segment->last_index = entry->index;
    recovery->good_end = offset + line.size;
    recovery->seed = crc;
    recovery->expected = entry->index + 1;
    recovery->last_term = entry->term;
    recovery->bad_line = 0;
    const struct store_visitor *visitor = recovery->visitor;
    return visitor->entry != NULL
               ? visitor->entry(visitor->context, entry->index, entry->term, crc, line)
               : STATUS_OK;
}

/* The line must be the next entry. STATUS_NOT_FOUND: it is not. */
static enum status follow(struct recovery *recovery, struct span line, uint64_t offset) {
    struct entry entry;
    uint32_t crc;
    bool next = entry_read(line, recovery->seed, &entry, &crc) == STATUS_OK &&
                entry.index == recovery->expected && entry.term >= recovery->last_term;
    if (next) {
        recovery->conflicting = false;
        return accept(recovery, &entry, crc, line, offset);
    }
    recovery->dropped = recovery->conflicting &&
                        entry_read(line, recovery->conflict_crc, &entry, &crc) == STATUS_OK &&
                        entry.index == recovery->expected;
    return STATUS_NOT_FOUND;
}

/* At or before the snapshot only the index matters, and the checksum of the entry at S. */
static enum status seek(struct recovery *recovery, const struct lines *lines,
                        struct span line) {
    struct entry entry;
    if (entry_parse(line, &entry) != STATUS_OK) {
        if (recovery->bad_line == 0) {
            recovery->bad_line = lines->number;
        }
        return STATUS_OK;
    }
    if (entry.index > recovery->snapshot_index) {
        recovery->seeking = false;
        return follow(recovery, line, lines->offset);
    }
    recovery->segment->last_index = entry.index;
    recovery->good_end = lines->end;
    recovery->bad_line = 0;
    if (entry.index == recovery->snapshot_index) {
        struct span body;
        enum status status = line_peek_crc(line, &body, &recovery->conflict_crc);
        ASSERT(status == STATUS_OK);
        recovery->conflicting = recovery->conflict_crc != recovery->snapshot_crc;
        recovery->seeking = false;
    }
    return STATUS_OK;
}

/* Read the lines of the segment until one does not fit; `bad_line` says which. */
static enum status read_lines(struct recovery *recovery, struct lines *lines,
                              struct error *error) {
    for (;;) {
        struct span line;
        switch (lines_next(lines, &line, error)) {
        case LINES_LINE:
            break;
        case LINES_END:
            return STATUS_OK;
        case LINES_BROKEN:
            if (recovery->bad_line == 0) {
                recovery->bad_line = lines->number + 1;
            }
            return STATUS_OK;
        case LINES_FAILED:
            return STATUS_IO;
        }
        enum status status = recovery->seeking ? seek(recovery, lines, line)
                                               : follow(recovery, line, lines->offset);
        if (status == STATUS_NOT_FOUND) {
            recovery->bad_line = lines->number;
            return STATUS_OK;
        }
        if (status != STATUS_OK) {
            return error_set(error, status, "%s/%s: opening was stopped at entry %" PRIu64,
                             recovery->directory->path, lines->file->name,
                             recovery->expected - 1);
        }
    }
}

static enum status read_segment(struct recovery *recovery, size_t number, struct error *error) {
    struct segment *segment = &recovery->journal->segments[number];
    recovery->segment = segment;
    recovery->good_end = 0;
    recovery->bad_line = 0;
    uint64_t first_allowed =
        recovery->seeking ? recovery->snapshot_index + 1 : recovery->expected;
    bool may_hold_snapshot = recovery->seeking && number == 0;
    recovery->misplaced = segment->first_index != first_allowed &&
                          !(may_hold_snapshot && segment->first_index < first_allowed);
    if (recovery->misplaced) {
        recovery->bad_line = 1; /* a gap before it, or an overlap */
        return STATUS_OK;
    }
    if (recovery->seeking && segment->first_index > recovery->snapshot_index) {
        recovery->seeking = false; /* by its name it holds nothing to pass over */
        recovery->passed_by = true;
    }
    char name[NAME_BYTES_MAX];
    segment_name(LOG_PREFIX, segment->first_index, name);
    struct file file = FILE_CLOSED;
    enum status status = file_open(&file, recovery->directory, name, FILE_READ, error);
    if (status != STATUS_OK) {
        return status;
    }
    file_forget(&file);
    struct lines lines;
    lines_open(&lines, &file, 0, UINT64_MAX, ENTRY_LINE_BYTES_MAX);
    status = file_size(&file, &segment->filled, error);
    if (status == STATUS_OK) {
        status = read_lines(recovery, &lines, error);
    }
    segment->bytes = recovery->good_end;
    lines_close(&lines);
    file_close(&file);
    return status;
}

/* --- what does not fit --- */

/* Where the file's last byte that is no line feed ends, at or behind `from`. */
static enum status find_text_end(const struct file *file, uint64_t from, uint64_t bytes,
                                 uint64_t *end, struct error *error) {
    char piece[BLOCK_BYTES];
    *end = bytes;
    while (*end > from) {
        size_t want = *end - from < sizeof(piece) ? (size_t)(*end - from) : sizeof(piece);
        size_t got = 0;
        enum status status = file_read(file, *end - want, piece, want, &got, error);
        if (status != STATUS_OK) {
            return status;
        }
        size_t text = got;
        while (text > 0 && piece[text - 1] == '\n') {
            text--;
        }
        *end -= want - text;
        if (text > 0) {
            break;
        }
    }
    return STATUS_OK;
}

static enum status judge(const struct recovery *recovery, uint64_t from, uint64_t to,
                         enum torn_verdict *verdict, struct error *error) {
    if (to - from > UNSYNCED_BYTES_MAX) {
        *verdict = TORN_DAMAGE;
        return STATUS_OK;
    }
    struct buffer text;
    buffer_init(&text);
    size_t got = 0;
    char *into = buffer_reserve(&text, (size_t)(to - from));
    enum status status =
        file_read(&recovery->journal->active, from, into, (size_t)(to - from), &got, error);
    char expect[EXPECT_BYTES_MAX];
    uint64_t next = recovery->segment->last_index + 1;
    int size = snprintf(expect, sizeof(expect), "{\"index\":%" PRIu64 ",\"term\":", next);
    ASSERT(size > 0 && (size_t)size < sizeof(expect));
    struct torn_tail tail = {
        .text = {into, got},
        .offset = from,
        .file_bytes = recovery->segment->filled,
        .expect = {expect, (size_t)size},
    };
    *verdict = torn_judge(&tail);
    buffer_free(&text);
    return status;
}

/* Say it in the note, behind what is there already. */
static void note(struct recovery *recovery, const char *text) {
    size_t used = strlen(recovery->note);
    snprintf(recovery->note + used, sizeof(recovery->note) - used, "%s%s", used > 0 ? "; " : "",
             text);
}

static void note_place(struct recovery *recovery, const char *what, const char *kept) {
    char text[ERROR_TEXT_BYTES_MAX];
    snprintf(text, sizeof(text),
             "%s: %s at line %" PRIu64 " (offset %" PRIu64
             "): the log now ends at entry %" PRIu64 "%s%s",
             recovery->journal->active.name, what, recovery->bad_line, recovery->good_end,
             recovery->expected - 1, kept[0] != 0 ? ", what followed is kept in " : "", kept);
    note(recovery, text);
}

/* Let the last segment end behind its last good line. What stands before the cut may be in the
 * page cache only: it is synced first, so that a file that has been trimmed holds no torn
 * write. */
static enum status cut(struct journal *journal, struct error *error) {
    struct segment *last = journal_peek_last(journal);
    enum status status = file_sync(&journal->active, error);
    if (status == STATUS_OK) {
        status = file_cut(&journal->active, last->bytes, error);
    }
    if (status == STATUS_OK) {
        last->filled = last->bytes;
    }
    return status;
}

/* Move the last segment's whole file aside; it is gone from memory, too. */
static enum status move_last(struct recovery *recovery, char side[NAME_BYTES_MAX],
                             struct error *error) {
    struct journal *journal = recovery->journal;
    struct segment *last = journal_peek_last(journal);
    char name[NAME_BYTES_MAX];
    segment_name(LOG_PREFIX, last->first_index, name);
    segment_clear(last);
    journal->count--;
    return quarantine_move(recovery->directory, name, side, error);
}

/* Rule 4: keep all that follows the last good line in side files. */
static enum status set_aside(struct recovery *recovery, uint64_t text_end,
                             struct error *error) {
    struct journal *journal = recovery->journal;
    char side[NAME_BYTES_MAX];
    enum status status = STATUS_OK;
    if (!recovery->quarantined) {
        status = quarantine_set(recovery->directory, journal->active.name, recovery->bad_line,
                                recovery->good_end, recovery->expected, error);
    }
    recovery->quarantined = true;
    while (status == STATUS_OK && journal_peek_last(journal) != recovery->segment) {
        status = move_last(recovery, side, error);
    }
    if (status == STATUS_OK && recovery->good_end > 0) {
        status = quarantine_copy(recovery->directory, &journal->active, recovery->good_end,
                                 text_end, side, error);
    } else if (status == STATUS_OK) {
        status = move_last(recovery, side, error);
    }
    if (status == STATUS_OK) {
        note_place(recovery, "damage", side);
    }
    if (status == STATUS_OK && recovery->good_end > 0) {
        return cut(journal, error);
    }
    file_close(&journal->active); /* it was moved */
    return status;
}

/* The log ends at recovery->segment, before its end or that of the files. */
static enum status end_log(struct recovery *recovery, struct error *error) {
    struct journal *journal = recovery->journal;
    ASSERT(recovery->segment != NULL);
    bool is_last = recovery->segment == journal_peek_last(journal);
    uint64_t text_end = 0;
    char name[NAME_BYTES_MAX];
    segment_name(LOG_PREFIX, recovery->segment->first_index, name);
    enum status status =
        file_open(&journal->active, recovery->directory, name, FILE_WRITE, error);
    if (status == STATUS_OK) {
        status = file_size(&journal->active, &recovery->segment->filled, error);
    }
    if (status == STATUS_OK) {
        status = find_text_end(&journal->active, recovery->good_end, recovery->segment->filled,
                               &text_end, error);
    }
    enum torn_verdict verdict = TORN_DAMAGE;
    if (status == STATUS_OK && is_last && !recovery->misplaced && !recovery->quarantined) {
        status = judge(recovery, recovery->good_end, text_end, &verdict, error);
    }
    if (status != STATUS_OK) {
        return status;
    }
    if (verdict == TORN_DAMAGE) {
        return set_aside(recovery, text_end, error);
    }
    if (verdict == TORN_WRITE) {
        recovery->tail_cut = true;
        note_place(recovery, "a torn, never acknowledged write was cut", "");
    }
    return cut(journal, error);
}

/* --- the whole --- */

static enum status read_segments(struct recovery *recovery, struct error *error) {
    struct journal *journal = recovery->journal;
    enum status status = STATUS_OK;
    for (size_t i = 0; i < journal->count && status == STATUS_OK; i++) {
        status = read_segment(recovery, i, error);
        if (status == STATUS_OK && recovery->dropped) {
            return STATUS_OK;
        }
        if (status == STATUS_OK && recovery->seeking && i + 1 < journal->count) {
            continue; /* whatever it holds, the snapshot covers it */
        }
        if (status == STATUS_OK && recovery->bad_line > 0) {
            return end_log(recovery, error);
        }
    }
    return status;
}

/* The process died while it filled ahead: torn.h would take the file for a trimmed one. */
static bool has_broken_filling(struct journal *journal) {
    const struct segment *last = journal_peek_last(journal);
    return last->filled > last->bytes && last->filled % BLOCK_BYTES != 0;
}

/* The last segment is the one to write on: its content is synced (rule 5) and it stays open. */
static enum status settle(struct recovery *recovery, struct error *error) {
    struct journal *journal = recovery->journal;
    bool nothing_follows = recovery->expected == recovery->snapshot_index + 1;
    bool before_snapshot =
        recovery->seeking || recovery->passed_by || recovery->conflicting;
    if (journal->count > 0 && recovery->snapshot_index > 0 &&
        (recovery->dropped || (before_snapshot && nothing_follows))) {
        file_close(&journal->active);
        return journal_reset(journal, recovery->snapshot_index, recovery->snapshot_crc, error);
    }
    enum status status = STATUS_OK;
    while (status == STATUS_OK && journal->count > 1 &&
           journal->segments[1].first_index <= recovery->snapshot_index + 1) {
        status = remove_front(recovery, 1, error);
    }
    if (status == STATUS_OK && journal->count > 0) {
        status = journal_open_active(journal, error);
    }
    if (status == STATUS_OK && journal->count > 0 && has_broken_filling(journal)) {
        status = cut(journal, error);
    }
    if (status == STATUS_OK && journal->count > 0) {
        status = file_sync(&journal->active, error);
    }
    journal->floor = recovery->snapshot_index + 1;
    journal->last_index = recovery->expected - 1;
    journal->last_crc = recovery->seed;
    return status;
}

enum status recovery_run(struct recovery *recovery, const struct buffer *names,
                         struct error *error) {
    recovery->expected = recovery->snapshot_index + 1;
    recovery->seed = recovery->snapshot_crc;
    recovery->last_term = recovery->snapshot_term;
    enum status status = add_segments(recovery, names, error);
    if (status == STATUS_OK) {
        status = remove_front(recovery, count_covered(recovery), error);
    }
    struct journal *journal = recovery->journal;
    recovery->seeking = recovery->snapshot_index > 0 && journal->count > 0 &&
                        journal->segments[0].first_index <= recovery->snapshot_index;
    if (status == STATUS_OK) {
        status = read_segments(recovery, error);
    }
    return status == STATUS_OK ? settle(recovery, error) : status;
}
