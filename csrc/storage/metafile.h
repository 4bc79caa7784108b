/* meta.jsonl: who this member is, and its term and vote.
 *
 * One block of sealed records followed by line feeds. A save writes its record over the line
 * feeds and syncs; the last record counts. When the block is full, and at every opening, a new
 * block with one record replaces the file by rename. Nothing else of a member may be wrong with
 * so little notice: a vote that is forgotten is cast twice, so whatever may have been
 * acknowledged and cannot be read refuses to open.
 *
 * Invariant: within one identity the term never goes back, and a vote is never changed in a
 * term. */
#ifndef RAFTPICO_STORAGE_METAFILE_H
#define RAFTPICO_STORAGE_METAFILE_H

#include "storage/file.h"
#include "wire/meta.h"

struct metafile {
    struct directory *directory; /* borrowed */
    struct file file;
    uint64_t bytes;   /* written so far */
    struct meta meta; /* the last record */
};

void metafile_init(struct metafile *metafile, struct directory *directory);
void metafile_close(struct metafile *metafile);

/* Read the file; STATUS_NOT_FOUND when there is none. `*torn` says that a half-written record
 * was passed over. */
enum status metafile_load(struct metafile *metafile, bool *torn, struct error *error) MUST_USE;

/* Make `meta` the last record / the only one, durably. STATUS_NO_SPACE: nothing has changed.
 * STATUS_INVALID: it would break the invariant. */
enum status metafile_save(struct metafile *metafile, const struct meta *meta,
                          struct error *error) MUST_USE;
enum status metafile_replace(struct metafile *metafile, const struct meta *meta,
                             struct error *error) MUST_USE;

#endif
