/* The mark that a member's log was damaged where it may have been acknowledged.
 *
 * The file quarantine.jsonl: while it is there, the member must not vote. It is durable before
 * anything is cut, and goes only when the host has brought the member past the damage. One line
 * says what was damaged first, for people; that it is there is what counts:
 *
 *   {"quarantine":{"file":"log-...","line":7,"offset":812,"entry":7},"crc32c":"9a3f00c2"} */
#ifndef RAFTPICO_STORAGE_QUARANTINE_H
#define RAFTPICO_STORAGE_QUARANTINE_H

#include "storage/file.h"

/* Set the mark, durably; `name` is the damaged file. */
enum status quarantine_set(struct directory *directory, const char *name, uint64_t line,
                           uint64_t offset, uint64_t entry, struct error *error) MUST_USE;
enum status quarantine_clear(struct directory *directory, struct error *error) MUST_USE;

/* Copy bytes from..to of `file` into a new side file, durably; `side` gets its name,
 * "NAME.damaged-N". STATUS_IO when there are too many. */
enum status quarantine_copy(struct directory *directory, const struct file *file, uint64_t from,
                            uint64_t to, char side[NAME_BYTES_MAX],
                            struct error *error) MUST_USE;

/* Rename a whole file to a side file, durably. */
enum status quarantine_move(struct directory *directory, const char *name,
                            char side[NAME_BYTES_MAX], struct error *error) MUST_USE;

#endif
