/* The log as files: segments, of which only the last one grows.
 *
 * A segment takes lines until it has segment_bytes; then it is trimmed, synced and never
 * changed again, and the next one comes into being, filled and durable, before a line is
 * written to it. So lines are only ever written over durable line feeds, which is what lets
 * torn.h tell a torn write from damage.
 *
 * Failure: STATUS_NO_SPACE leaves the journal as it was before the call; after any other
 * failure of a call that writes, the caller must not use it again.
 *
 * Invariant: segments[i].last_index + 1 == segments[i + 1].first_index, and the last segment
 * ends at last_index. Entries before `floor` are not read, even where their lines are still
 * there. */
#ifndef RAFTPICO_STORAGE_JOURNAL_H
#define RAFTPICO_STORAGE_JOURNAL_H

#include "storage/file.h"
#include "storage/segment.h"

struct journal {
    struct directory *directory; /* borrowed */
    struct segment *segments;    /* oldest first */
    size_t count;
    size_t capacity;
    struct file active;     /* the last segment, open to write; closed until it is needed */
    struct file reading;    /* the segment that was read last, when it is not the active one */
    uint64_t segment_bytes; /* roll over at this size */
    uint64_t unsynced;      /* bytes written since the last sync */
    uint64_t floor;         /* the lowest index that can be read, when the log holds it */
    uint64_t last_index;
    uint32_t last_crc; /* the chain's checksum at last_index */
};

void journal_init(struct journal *journal, struct directory *directory, uint64_t segment_bytes);
void journal_close(struct journal *journal); /* trims the filling, as far as that works */
void journal_clear(struct journal *journal); /* the same, but touches no file */

/* Add a segment behind the last one, in memory only; borrowed until the next call. */
struct segment *journal_add(struct journal *journal, uint64_t first_index);

/* See store.h for these four. `last` comes back as far as was read. */
enum status journal_append(struct journal *journal, uint64_t first, uint64_t last,
                           struct span lines, const uint32_t *offsets,
                           struct error *error) MUST_USE;
enum status journal_sync(struct journal *journal, struct error *error) MUST_USE;
enum status journal_truncate(struct journal *journal, uint64_t index,
                             struct error *error) MUST_USE;
enum status journal_read(struct journal *journal, uint64_t first, uint64_t last,
                         size_t bytes_max, struct buffer *lines, uint64_t *read_last,
                         struct error *error) MUST_USE;

/* The checksum of entry `index`; STATUS_NOT_FOUND when the log does not hold it. */
enum status journal_find_crc(struct journal *journal, uint64_t index, uint32_t *crc,
                             struct error *error) MUST_USE;

/* Remove the segments whose entries all come before `index`, but never the last one. */
enum status journal_compact(struct journal *journal, uint64_t index,
                            struct error *error) MUST_USE;

/* Remove the whole log, so that it goes on behind a snapshot at `index`. A crash in the middle
 * leaves entries at or before `index` and a run of those behind it, as recovery.h expects. */
enum status journal_reset(struct journal *journal, uint64_t index, uint32_t crc,
                          struct error *error) MUST_USE;

#endif
