/* From what a directory held to a node that can start.
 *
 * Invariant: lines enter in index order behind the snapshot; the core is made once, from all of
 * it. */
#include "base/assert.h"
#include "base/memory.h"
#include "node/internal.h"

/* What is collected until the core is made. */
struct recovered {
    struct raft_entry *entries;
    uint64_t count;
    uint64_t capacity;
    struct raft_configuration **configurations; /* that `entries` points to; owned */
    uint32_t configuration_count;
    uint64_t configuration_index; /* as of the snapshot */
    struct cluster snapshot_cluster;
};

static struct recovered *collection(struct node *node) {
    if (node->recovered == NULL) {
        node->recovered = memory_must_alloc_zero(sizeof(*node->recovered));
    }
    return node->recovered;
}

void recovery_free(struct node *node) {
    struct recovered *recovered = node->recovered;
    if (recovered != NULL) {
        for (uint32_t i = 0; i < recovered->configuration_count; i++) {
            memory_free(recovered->configurations[i]);
        }
        memory_free(recovered->configurations);
        memory_free(recovered->entries);
        memory_free(recovered);
        node->recovered = NULL;
    }
}

enum status node_recover_snapshot(struct node *node, struct span header_line) {
    struct recovered *recovered = collection(node);
    struct snapshot_header *header = memory_must_alloc_zero(sizeof(*header));
    uint32_t crc;
    enum status status = snapshot_read_header(header_line, header, &crc);
    if (status == STATUS_OK) {
        status = configuration_read(header->configuration, &recovered->snapshot_cluster);
    }
    if (status == STATUS_OK) {
        struct snapshots *snapshots = &node->snapshots;
        snapshots->position = (struct raft_position){header->term, header->index};
        snapshots->chain_crc = header->chain_crc;
        snapshots->time_ms = header->time_ms;
        snapshots->base = header->index;
        recovered->configuration_index = header->configuration_index;
        entries_init(&node->entries, header->index, header->chain_crc, header->time_ms);
        node->applies.handed = node->applies.applied = header->index;
        node->applies.handed_crc = header->chain_crc;
        node->applies.handed_time_ms = header->time_ms;
        apply_load_tags(node, header);
        members_reset(node, header->configuration_index, &recovered->snapshot_cluster);
    }
    memory_free(header);
    return status;
}

static enum status keep_configuration(struct node *node, struct raft_entry *place,
                                      const struct entry *entry) {
    struct recovered *recovered = node->recovered;
    struct cluster *cluster = memory_must_alloc_zero(sizeof(*cluster));
    enum status status = configuration_read(entry->body, cluster);
    if (status == STATUS_OK) {
        uint32_t count = recovered->configuration_count + 1;
        recovered->configurations = memory_must_grow(
            recovered->configurations, count * sizeof(recovered->configurations[0]));
        struct raft_configuration *kept = memory_must_alloc_zero(sizeof(*kept));
        *kept = cluster->raft;
        recovered->configurations[recovered->configuration_count++] = kept;
        place->configuration = kept;
        members_add(node, entry->index, cluster);
    }
    memory_free(cluster);
    return status;
}

static struct raft_entry *add_place(struct recovered *recovered) {
    if (recovered->count == recovered->capacity) {
        recovered->capacity = recovered->capacity == 0 ? 1024 : recovered->capacity * 2;
        recovered->entries = memory_must_grow(recovered->entries,
                                              recovered->capacity * sizeof(struct raft_entry));
    }
    struct raft_entry *place = &recovered->entries[recovered->count++];
    *place = (struct raft_entry){0};
    return place;
}

enum status node_recover_entry(struct node *node, uint64_t index, uint64_t term, uint32_t crc,
                               struct span line) {
    struct recovered *recovered = collection(node);
    struct entry entry;
    if (entry_parse(line, &entry) != STATUS_OK || entry.index != index || entry.term != term ||
        index != node->entries.last + 1) {
        return STATUS_CORRUPT;
    }
    struct buffer *text = entries_begin(&node->entries, line.size);
    size_t start = text->size;
    buffer_append_span(text, line);
    entries_commit(&node->entries, start, crc, entry.time_ms);
    node->snapshots.log_bytes += line.size;
    struct raft_entry *place = add_place(recovered);
    place->term = term;
    switch (entry.kind) {
    case ENTRY_COMMAND:
        place->kind = RAFT_ENTRY_COMMAND;
        return STATUS_OK;
    case ENTRY_NOOP:
        place->kind = RAFT_ENTRY_NOOP;
        return STATUS_OK;
    case ENTRY_CONFIGURATION:
        place->kind = RAFT_ENTRY_CONFIGURATION;
        return keep_configuration(node, place, &entry);
    }
    return STATUS_CORRUPT;
}

void node_set_meta(struct node *node, const struct meta *meta, bool quarantined) {
    node->meta = *meta;
    node->quarantined = quarantined;
}

bool node_votes_alone(const struct node *node) {
    const struct cluster *cluster = members_peek(node);
    for (uint32_t i = 0; cluster != NULL && i < cluster->raft.count; i++) {
        const struct raft_member *member = &cluster->raft.members[i];
        if (member->id != node->meta.node_id && (member->voter || member->voter_before)) {
            return false;
        }
    }
    return node->meta.node_id != 0;
}

/* Id 1 is the founder's alone, and all its log begins with the entry that founds the cluster. A
 * crash before that entry was durable has founded nothing, and nothing was answered: such a
 * server is nobody yet, and can create a cluster or join one. A damaged log is another matter.
 */
static bool has_founded_nothing(const struct node *node) {
    return node->meta.node_id == 1 && !node->meta.removed && !node->quarantined &&
           node->entries.last == 0 && node->snapshots.position.index == 0;
}

static void forget_identity(struct node *node) {
    node->meta.node_id = 0;
    node->meta.cluster_id[0] = '\0';
    node->meta.term = 0;
    node->meta.voted_for = 0;
}

enum status node_start(struct node *node) {
    struct recovered *recovered = collection(node);
    if (has_founded_nothing(node)) {
        forget_identity(node);
    }
    struct raft_options options = {
        .id = node->meta.node_id,
        .seed = random_next(&node->random),
        .now_ms = node->now_ms,
        .min_election_timeout_ms = MIN_ELECTION_TIMEOUT_MS_DEFAULT,
        .max_election_timeout_ms = MAX_ELECTION_TIMEOUT_MS_DEFAULT,
        .commit_notice_ms = COMMIT_NOTICE_MS,
        .term = node->meta.term,
        .voted_for = node->meta.voted_for,
        .snapshot = node->snapshots.position,
        .configuration = recovered->snapshot_cluster.raft,
        .configuration_index = recovered->configuration_index,
        .entry_count = recovered->count,
        .entries = recovered->entries,
        .quarantined = node->quarantined,
    };
    const struct cluster *cluster = members_peek(node);
    if (cluster != NULL) {
        options.min_election_timeout_ms = cluster->min_election_timeout_ms;
        options.max_election_timeout_ms = cluster->max_election_timeout_ms;
    }
    node->raft = raft_new(&options);
    if (node->raft == NULL) {
        return STATUS_NO_MEMORY;
    }
    recovery_free(node);
    raft_peek_state(node->raft, &node->state);
    node->disk_next = node->entries.last + 1;
    if (cluster != NULL) {
        peers_sync(node);
    }
    if (node->snapshots.position.index > 0) {
        struct job *job = job_new(JOB_SNAPSHOT_LOAD);
        job->snapshot = node->snapshots.position;
        node->applies.restoring = true;
        node_push_job(node, job);
    }
    return STATUS_OK;
}
