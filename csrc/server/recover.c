/* Opening a directory and closing it again; see recover.h. */
#include "server/recover.h"

#include <string.h>

#include "storage/store.h"

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
