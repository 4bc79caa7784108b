/* What a store consists of, and how its parts are loaded. Shared by store.c and opening.c
 * alone. */
#ifndef RAFTPICO_STORAGE_OPENING_H
#define RAFTPICO_STORAGE_OPENING_H

#include "storage/file.h"
#include "storage/journal.h"
#include "storage/metafile.h"
#include "storage/snapfile.h"
#include "storage/store.h"

struct store {
    struct directory directory;
    struct metafile metafile;
    struct snapfile snapfile;
    struct journal journal;
    struct error broken; /* STATUS_OK: it works; otherwise why nothing is tried any more */
};

/* Load everything in a directory that is open and locked, by the rule in opening.c. */
enum status opening_load(struct store *store, const struct store_options *options,
                         const struct store_visitor *visitor, struct store_recovery *recovery,
                         struct error *error) MUST_USE;

#endif
