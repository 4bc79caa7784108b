/* Opening a directory and closing it again; see recover.h. */
#include "server/recover.h"

#include <stdio.h>
#include <string.h>

#include "storage/store.h"

enum status recover_identity(const char *path, struct store_recovery *recovery,
                             struct error *error) {
    struct meta *meta = &recovery->meta;
    if (meta->node_id == 0 || recovery->last_index > 0 || recovery->quarantined) {
        return STATUS_OK;
    }
    if (meta->node_id == 1 && meta->voted_for != 0) {
        return error_set(error, STATUS_CORRUPT,
                         "%s: the log-*.jsonl files are missing, and there is no snapshot: put "
                         "them back; or, where other members have it all, delete the "
                         "directory, and the leader brings this member back",
                         path);
    }
    meta->node_id = 0;
    meta->cluster_id[0] = 0;
    meta->removed = false;
    size_t used = strlen(recovery->note);
    snprintf(recovery->note + used, sizeof(recovery->note) - used,
             "%smeta.jsonl has an identity, but there is no log: this starts as a new server",
             used > 0 ? "; " : "");
    return STATUS_OK;
}

enum status server_recover(const char *path, const char *address, bool sync,
                           struct server_recovered *found, struct error *error) {
    const struct store_options options = {.path = path, .address = address, .sync = sync};
    const struct store_visitor visitor = {.context = NULL};
    struct store_recovery recovery;
    struct store *store = NULL;
    enum status status = store_open(&options, &visitor, &recovery, &store, error);
    if (status != STATUS_OK) {
        return status;
    }
    status = recover_identity(path, &recovery, error);
    if (status != STATUS_OK) {
        store_close(store);
        return status;
    }
    *found = (struct server_recovered){
        .snapshot_index = recovery.snapshot_index,
        .last_index = recovery.last_index,
        .tail_cut = recovery.tail_cut,
        .quarantined = recovery.quarantined,
    };
    memcpy(found->note, recovery.note, sizeof(found->note));
    store_close(store);
    return STATUS_OK;
}
