/* Which configurations stand in our log, with their addresses: the core knows ids only.
 *
 * Invariant: records mirror the core's: the one at or before the start of the log, and each
 * later one; the last is the one in force. */
#include "base/assert.h"
#include "base/memory.h"
#include "node/internal.h"

static void changed(struct node *node) {
    node->members.version++;
    const struct cluster *cluster = members_peek(node);
    if (cluster != NULL && node->raft != NULL) {
        raft_set_election_timeouts(node->raft, cluster->min_election_timeout_ms,
                                   cluster->max_election_timeout_ms);
        peers_sync(node);
    }
}

void members_add(struct node *node, uint64_t index, const struct cluster *cluster) {
    struct members *members = &node->members;
    ASSERT(members->count == 0 || members->records != NULL);
    ASSERT(members->count == 0 || members->records[members->count - 1].index < index);
    if (members->count == members->capacity) {
        members->capacity = members->capacity == 0 ? 4 : members->capacity * 2;
        members->records =
            memory_must_grow(members->records, members->capacity * sizeof(*members->records));
    }
    members->records[members->count++] =
        (struct configuration_record){.index = index, .cluster = *cluster};
    changed(node);
}

void members_truncate(struct node *node, uint64_t index) {
    struct members *members = &node->members;
    uint32_t before = members->count;
    while (members->count > 0 && members->records[members->count - 1].index >= index) {
        members->count--;
    }
    if (members->count != before) {
        changed(node);
    }
}

void members_compact(struct node *node, uint64_t index) {
    struct members *members = &node->members;
    uint32_t drop = 0;
    while (drop + 1 < members->count && members->records[drop + 1].index <= index) {
        drop++;
    }
    memmove(members->records, members->records + drop,
            (members->count - drop) * sizeof(*members->records));
    members->count -= drop;
}

void members_reset(struct node *node, uint64_t index, const struct cluster *cluster) {
    node->members.count = 0;
    members_add(node, index, cluster);
}

const struct cluster *members_peek(const struct node *node) {
    const struct members *members = &node->members;
    return members->count == 0 ? NULL : &members->records[members->count - 1].cluster;
}

const struct cluster *members_at(const struct node *node, uint64_t index) {
    const struct members *members = &node->members;
    for (uint32_t i = members->count; i > 0; i--) {
        if (members->records[i - 1].index <= index) {
            return &members->records[i - 1].cluster;
        }
    }
    return NULL;
}

uint64_t members_index(const struct node *node) {
    const struct members *members = &node->members;
    return members->count == 0 ? 0 : members->records[members->count - 1].index;
}

void members_write(const struct node *node, struct buffer *json) {
    const struct cluster *cluster = members_peek(node);
    if (cluster == NULL) {
        buffer_append_text(json, "[]");
    } else {
        configuration_write_addresses(json, cluster);
    }
}

/* The body of a configuration that the core has just appended: the addresses are those of the
 * configuration before it; only a learner can be new. */
void members_entry_body(struct node *node, uint64_t index,
                        const struct raft_configuration *configuration, struct buffer *json) {
    const struct cluster *before = members_peek(node);
    struct cluster *cluster = memory_must_alloc_zero(sizeof(*cluster));
    cluster->raft = *configuration;
    cluster->next_id = before == NULL ? 1 : before->next_id;
    cluster->min_election_timeout_ms =
        before == NULL ? node->members.create_min_timeout_ms : before->min_election_timeout_ms;
    cluster->max_election_timeout_ms =
        before == NULL ? node->members.create_max_timeout_ms : before->max_election_timeout_ms;
    for (uint32_t i = 0; i < configuration->count; i++) {
        uint64_t id = configuration->members[i].id;
        const char *address = before == NULL ? NULL : configuration_address(before, id);
        if (address == NULL) {
            address = node->members.joining;
        }
        memcpy(cluster->addresses[i], address, strlen(address) + 1);
        if (id >= cluster->next_id) {
            cluster->next_id = id + 1;
        }
    }
    configuration_write(json, cluster);
    members_add(node, index, cluster);
    memory_free(cluster);
}
