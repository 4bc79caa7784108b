/* What a start does to a directory besides the store's own opening; and the whole of it without
 * starting a member, for tools (python -m raftpico.log).
 *
 * Exactly what a member's start does to its directory, by the same code, and nothing else: a
 * torn tail is cut, damage is set aside and marked, what a snapshot covers is removed, the
 * incarnation is counted up. */
#ifndef RAFTPICO_SERVER_RECOVER_H
#define RAFTPICO_SERVER_RECOVER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

struct store_recovery;

struct server_recovered {
    uint64_t snapshot_index; /* 0: none */
    uint64_t last_index;     /* of the log; snapshot_index when there are no entries */
    bool tail_cut;           /* a torn, never acknowledged tail was cut */
    bool quarantined;        /* the member will not vote until its leader has brought it up */
    char note[ERROR_TEXT_BYTES_MAX]; /* what was found; "" when nothing */
};

/* `address`: of the directory's server. The directory is locked meanwhile. Failures are those
 * of a start: STATUS_LOCKED, STATUS_CORRUPT, STATUS_MISMATCH, STATUS_IO, STATUS_NO_SPACE;
 * STATUS_INVALID where `address` is none. */
enum status server_recover(const char *path, const char *address, bool sync,
                           struct server_recovered *found, struct error *error) MUST_USE;

/* An identity without a log and a snapshot: a server that was killed before its cluster was
 * made, or before its first entry came - or one whose files were removed, and which must not
 * vote for what it lost. It starts as a new server (`recovery->meta` has no identity any more,
 * the note says so), and the leader, if there is one, brings it back under a new id. Only the
 * founder may have been alone: where it has voted, its log was lost, and it is refused:
 * STATUS_CORRUPT. */
enum status recover_identity(const char *path, struct store_recovery *recovery,
                             struct error *error) MUST_USE;

#endif
