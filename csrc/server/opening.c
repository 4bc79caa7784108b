/* Making the node, with what its data directory held; see server.h.
 *
 * Invariant: on failure nothing is left behind; on success the disk and the node are whole. */
#include "base/assert.h"
#include "server/internal.h"
#include "server/recover.h"

static enum status recover_snapshot(void *context, struct span line) {
    return node_recover_snapshot(context, line);
}

static enum status recover_entry(void *context, uint64_t index, uint64_t term, uint32_t crc,
                                 struct span line) {
    return node_recover_entry(context, index, term, crc, line);
}

static enum status pick_seed(uint64_t *seed, struct error *error) {
    if (*seed != 0) {
        return STATUS_OK;
    }
    int result = uv_random(NULL, NULL, seed, sizeof(*seed), 0, NULL);
    return result == 0 ? STATUS_OK
                       : error_set(error, STATUS_IO, "no random numbers from the system: %s",
                                   uv_strerror(result));
}

static enum status open_store(struct server *server, const struct server_options *options,
                              struct store_recovery *recovery, struct store **store,
                              struct error *error) {
    const struct store_options wanted = {.path = options->data_path,
                                         .address = server->address,
                                         .segment_bytes = options->segment_bytes,
                                         .sync = options->sync};
    const struct store_visitor visitor = {
        .context = server->node, .snapshot_header = recover_snapshot, .entry = recover_entry};
    enum status status = store_open(&wanted, &visitor, recovery, store, error);
    if (status != STATUS_OK && error != NULL && error->text[0] == '\0') {
        error_set(error, status, "%s: what it holds was not written by this version: %s",
                  options->data_path, status_name(status));
    }
    return status;
}

/* What was cut may have been answered, and no other member has it: going on would lose it. */
static enum status refuse_lone_damage(const struct server_options *options,
                                      const struct store_recovery *recovery,
                                      struct error *error) {
    const char *note =
        recovery->note[0] != '\0' ? recovery->note : "its log was damaged before";
    return error_set(
        error, STATUS_CORRUPT,
        "%s: %.250s. No other member can make it good: restore the directory from a "
        "backup, or remove quarantine.jsonl there to go on without those entries",
        options->data_path, note);
}

/* With a directory: read it into the node. The store is the disk's afterwards. */
static enum status recover(struct server *server, const struct server_options *options,
                           struct backend *backend, struct error *error) {
    struct store_recovery recovery;
    struct store *store = NULL;
    enum status status = open_store(server, options, &recovery, &store, error);
    if (status == STATUS_OK) {
        status = recover_identity(options->data_path, &recovery, error);
        if (status != STATUS_OK) {
            store_close(store);
        }
    }
    if (status == STATUS_OK) {
        node_set_meta(server->node, &recovery.meta, recovery.quarantined);
        if (recovery.note[0] != '\0') {
            node_notice(server->node, "warning", "recovery", recovery.note);
        }
        *backend = backend_store(store);
        if (recovery.quarantined && node_votes_alone(server->node)) {
            status = refuse_lone_damage(options, &recovery, error);
            backend->calls->close(backend->self);
        }
    }
    return status;
}

enum status opening_make_node(struct server *server, const struct server_options *options,
                              struct error *error) {
    struct node_options wanted = {.address = server->address,
                                  .durable = options->data_path != NULL,
                                  .seed = options->seed,
                                  .now_ms = net_now_ms(),
                                  .wall_ms = net_wall_ms(),
                                  .request_timeout_ms = options->request_timeout_ms,
                                  .snapshot_log_bytes = options->snapshot_log_bytes};
    enum status status = pick_seed(&wanted.seed, error);
    if (status != STATUS_OK) {
        return status;
    }
    struct backend backend = {NULL, NULL};
    server->node = node_new(&wanted);
    if (options->data_path != NULL) {
        status = recover(server, options, &backend, error);
    } else {
        backend = backend_memory();
    }
    if (status == STATUS_OK) {
        node_set_time(server->node, net_now_ms(),
                      net_wall_ms()); /* reading may have taken long */
        status = node_start(server->node);
        if (status != STATUS_OK) {
            error_set(error, status, "cannot start from what %s holds: %s",
                      options->data_path != NULL ? options->data_path : "memory",
                      status_name(status));
            backend.calls->close(backend.self);
        }
    }
    if (status != STATUS_OK) {
        node_free(server->node);
        server->node = NULL;
        return status;
    }
    disk_init(&server->disk, backend, &server->writing, &server->crew);
    return STATUS_OK;
}
