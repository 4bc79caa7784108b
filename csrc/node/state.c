/* How the node describes itself: GetServerState, and a copy for the host's other threads. */
#include <stdio.h>

#include "base/assert.h"
#include "node/internal.h"
#include "wire/scan.h"

bool node_is_member(const struct node *node) {
    return node->meta.node_id != 0 && !node->meta.removed && !node->stopped;
}

/* A learner is a follower to the core; whoever looks from outside wants to know. */
const char *node_role_name(const struct node *node) {
    const struct cluster *cluster = members_peek(node);
    const struct raft_member *self =
        cluster == NULL ? NULL : raft_configuration_find(&cluster->raft, node->meta.node_id);
    bool votes = self != NULL && (self->voter || self->voter_before);
    if (node->state.role == RAFT_FOLLOWER && self != NULL && !votes) {
        return "Learner";
    }
    return raft_role_name(node->state.role);
}

static const char *address_of(const struct node *node, uint64_t id) {
    if (id != 0 && id == node->meta.node_id) {
        return node->address;
    }
    const struct cluster *cluster = members_peek(node);
    return cluster == NULL || id == 0 ? NULL : configuration_address(cluster, id);
}

static void write_text(struct buffer *json, const char *text) {
    if (text == NULL) {
        buffer_append_text(json, "null");
    } else {
        scan_append_string(json, (struct span){text, strlen(text)});
    }
}

static void write_number_or_null(struct buffer *json, const char *name, uint64_t number) {
    buffer_append_format(json, ",\"%s\":", name);
    if (number == 0) {
        buffer_append_text(json, "null");
    } else {
        buffer_append_u64(json, number);
    }
}

static void write_number(struct buffer *json, const char *name, uint64_t number) {
    buffer_append_format(json, ",\"%s\":", name);
    buffer_append_u64(json, number);
}

static void write_machines(const struct node *node, struct buffer *json, struct span user) {
    const struct cluster *cluster = members_peek(node);
    buffer_append_text(json, ",\"machines\":{\"system\":{\"members\":");
    members_write(node, json);
    write_number(json, "min_election_timeout_ms",
                 cluster == NULL ? MIN_ELECTION_TIMEOUT_MS_DEFAULT
                                 : cluster->min_election_timeout_ms);
    write_number(json, "max_election_timeout_ms",
                 cluster == NULL ? MAX_ELECTION_TIMEOUT_MS_DEFAULT
                                 : cluster->max_election_timeout_ms);
    buffer_append_char(json, '}');
    if (user.size > 0) {
        buffer_append_text(json, ",\"user\":");
        buffer_append_span(json, user);
    }
    buffer_append_char(json, '}');
}

void node_write_state(const struct node *node, struct buffer *json, struct span user) {
    const char *cluster_id = node->meta.cluster_id;
    buffer_append_text(json, "{\"addr\":");
    write_text(json, node->address);
    write_number_or_null(json, "node_id", node->meta.node_id);
    write_number(json, "current_term", node->state.term);
    write_number_or_null(json, "voted_for", node->state.voted_for);
    buffer_append_format(json, ",\"role\":\"%s\"", node_role_name(node));
    write_number(json, "commit_index", node->state.commit_index);
    buffer_append_text(json, ",\"snapshot\":{\"term\":");
    buffer_append_u64(json, node->snapshots.position.term);
    write_number(json, "index", node->snapshots.position.index);
    buffer_append_char(json, '}');
    write_machines(node, json, user);
    buffer_append_text(json, ",\"cluster_id\":");
    write_text(json, cluster_id[0] == '\0' ? NULL : cluster_id);
    buffer_append_text(json, ",\"leader\":");
    write_text(json, address_of(node, node->state.leader));
    write_number(json, "applied_index", node->applies.applied);
    write_number(json, "last_log_index", node->state.last.index);
    if (node->failure.status != STATUS_OK || node->no_space[0] != '\0') {
        buffer_append_text(json, ",\"storage_failure\":");
        write_text(json, node->no_space[0] != '\0' ? node->no_space : node->failure.text);
    }
    buffer_append_char(json, '}');
}

/* After every turn: formatting would cost more than all the rest. */
static void put_text(char *to, size_t room, const char *text) {
    size_t bytes = strlen(text);
    ASSERT(bytes < room);
    memcpy(to, text, bytes + 1);
}

void node_peek_status(const struct node *node, struct node_status *status) {
    const char *leader = address_of(node, node->state.leader);
    put_text(status->role, sizeof(status->role), node_role_name(node));
    put_text(status->leader, sizeof(status->leader), leader == NULL ? "" : leader);
    status->node_id = node->meta.node_id;
    status->term = node->state.term;
    status->commit_index = node->state.commit_index;
    status->applied_index = node->applies.applied;
    uint64_t version = node->members.version + 1; /* 0 is a copy that was never filled in */
    if (status->members_version != version) {
        struct buffer json;
        buffer_init(&json);
        members_write(node, &json);
        snprintf(status->members, sizeof(status->members), "%.*s", (int)buffer_count(&json),
                 buffer_peek(&json));
        buffer_free(&json);
        status->members_version = version;
    }
}
