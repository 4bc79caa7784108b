/* Whether what stands behind the last good line is a write that a crash tore, or damage.
 *
 * What was torn was never acknowledged and may be cut; damage may have been acknowledged, and
 * cutting it in silence would lose that. The difference can be told because of the writer's
 * habits: lines are only ever written *over line feeds that are already durable* (layout.h),
 * never more than UNSYNCED_BYTES_MAX without a sync, and a file is trimmed only when all in it
 * is synced. So where a crash lost a piece of a write, the old line feeds show - from the
 * write's beginning or a sector's boundary to a sector's end - and never NUL bytes, other text,
 * or a whole line with a wrong checksum. Behind the last good line of the last segment stand
 *
 *   half a line, then filling                  torn: the process died in its write
 *   text, a sector of line feeds, more text    torn: a sector never reached the disk
 *   half a line, then the file's end           torn: taken for a write that grew the file
 *   line feeds and NULs only                   torn filling: nothing was written there yet
 *   anything else                              damage
 *
 * Half a line is the beginning of the line that must come next, holds no NUL or other control
 * character, and does not end as a sealed line does. Pure: bytes in, verdict out. */
#ifndef RAFTPICO_STORAGE_TORN_H
#define RAFTPICO_STORAGE_TORN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"

enum torn_verdict {
    TORN_NOTHING, /* blank, or torn filling: no text behind the last good line */
    TORN_WRITE,
    TORN_DAMAGE,
};

struct torn_tail {
    struct span text;    /* from the end of the last good line to the last byte that is no LF */
    uint64_t offset;     /* where that begins in the file */
    uint64_t file_bytes; /* the file's size */
    struct span expect;  /* how the next line must begin */
};

enum torn_verdict torn_judge(const struct torn_tail *tail);

#endif
