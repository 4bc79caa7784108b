/* Opening the log: which of its lines count, what is cut, and what is damage.
 *
 * The rule stands above the code in recovery.c. Invariant: what is handed to the visitor is
 * checked, continuous from the snapshot on, and durable by the time the opening returns. */
#ifndef RAFTPICO_STORAGE_RECOVERY_H
#define RAFTPICO_STORAGE_RECOVERY_H

#include "storage/journal.h"
#include "storage/store.h"

struct recovery {
    struct directory *directory; /* all borrowed */
    struct journal *journal;     /* empty; filled by recovery_run */
    const struct store_visitor *visitor;
    uint64_t snapshot_index;
    uint64_t snapshot_term;
    uint32_t snapshot_crc;

    bool quarantined;                /* in: the mark is there already. out: it is there now */
    bool tail_cut;                   /* out */
    uint64_t last_term;              /* out */
    char note[ERROR_TEXT_BYTES_MAX]; /* out: "" when there is nothing to say */

    /* The walk. */
    bool seeking;            /* before the snapshot's position */
    bool passed_by;          /* ... whose entry no segment held */
    bool conflicting;        /* the log's entry at that position has another checksum ... */
    uint32_t conflict_crc;   /* ... this one */
    bool dropped;            /* ... and what follows continues that one: another history */
    uint64_t expected;       /* index of the next entry */
    uint32_t seed;           /* checksum of the entry before it */
    struct segment *segment; /* being read */
    bool misplaced;          /* it does not begin where the one before it ends */
    uint64_t good_end;       /* offset behind its last good line */
    uint64_t bad_line;       /* number of the first bad line since; 0: none */
};

/* `names` is the directory's listing. */
enum status recovery_run(struct recovery *recovery, const struct buffer *names,
                         struct error *error) MUST_USE;

#endif
