/* The sizes and names that the files of a data directory share. */
#ifndef RAFTPICO_STORAGE_LAYOUT_H
#define RAFTPICO_STORAGE_LAYOUT_H

#include "base/limits.h"

/* The least that a disk writes in one piece: a torn write lost whole sectors, nothing smaller.
 */
#define SECTOR_BYTES 512u

/* The size of a filled file is a multiple of this; one that is not has been trimmed. */
#ifndef BLOCK_BYTES
#define BLOCK_BYTES 4096u
#endif

/* A live segment is filled ahead with line feeds in steps of this, and the filling is synced
 * before anything is written over it. Measured on ext4 on a 2-core virtual machine, write +
 * fdatasync, in microseconds (median / mean / processor):
 *
 *                   200 B              10 KB              64 KB
 *   growing         121 / 123 / 52     198 / 203 / 92     210 / 229 / 109
 *   steps of 1 MiB   90 /  94 / 42     125 / 144 / 67     132 / 199 /  86
 *   steps of 4 MiB   95 / 106 / 53     106 / 136 / 71     166 / 331 / 200
 *   fallocate 4 MiB  87 /  94 / 39     162 / 166 / 69     272 / 285 / 107
 *
 * One step of 1 MiB costs 1 to 1.6 ms, one of 4 MiB 3 to 12 ms: the smaller step it is. */
#ifndef FILL_STEP_BYTES
#define FILL_STEP_BYTES (1024u * 1024u)
#endif

/* More than this is never written without a sync, so a torn write reaches no further back. */
#ifndef UNSYNCED_BYTES_MAX
#define UNSYNCED_BYTES_MAX (4u * 1024 * 1024)
#endif

#define ENTRY_LINE_BYTES_MAX (ENTRY_BYTES_MAX + 1u) /* with its LF */

#define SEGMENTS_MAX 1000000u   /* in one directory; more is no log of ours */
#define DAMAGED_FILES_MAX 1000u /* side files of one name */

#define META_NAME "meta.jsonl"
#define META_FILE_BYTES BLOCK_BYTES
#define QUARANTINE_NAME "quarantine.jsonl"
#define LOG_PREFIX "log-"
#define SNAPSHOT_PREFIX "snapshot-"
#define FILE_SUFFIX ".jsonl"
#define INDEX_DIGITS 20 /* in a file's name */

STATIC_ASSERT(ENTRY_LINE_BYTES_MAX <= UNSYNCED_BYTES_MAX, "an entry can be written at all");
STATIC_ASSERT(BLOCK_BYTES % SECTOR_BYTES == 0 && FILL_STEP_BYTES % BLOCK_BYTES == 0, "aligned");

#endif
