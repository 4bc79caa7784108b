/* The node's state as other threads see it: a copy, made after each turn; see server.h. */
#include "base/assert.h"
#include "server/internal.h"

void state_init(struct state_copy *state) {
    memset(state, 0, sizeof(*state));
    int result = uv_mutex_init(&state->mutex);
    ASSERT(result == 0);
}

void state_clear(struct state_copy *state) {
    uv_mutex_destroy(&state->mutex);
}

/* The members' text is most of the bytes and hardly ever changes. */
void state_publish(struct server *server) {
    struct node_status *latest = &server->state.latest;
    struct node_status *shown = &server->state.shown;
    node_peek_status(server->node, latest);
    uv_mutex_lock(&server->state.mutex);
    memcpy(shown->role, latest->role, sizeof(shown->role));
    memcpy(shown->leader, latest->leader, sizeof(shown->leader));
    shown->node_id = latest->node_id;
    shown->term = latest->term;
    shown->commit_index = latest->commit_index;
    shown->applied_index = latest->applied_index;
    if (shown->members_version != latest->members_version || shown->members[0] == '\0') {
        memcpy(shown->members, latest->members, sizeof(shown->members));
        shown->members_version = latest->members_version;
    }
    uv_mutex_unlock(&server->state.mutex);
}

/* Roles and addresses are plain ASCII without quotes: they stand in JSON as they are. */
void server_peek_state(struct server *server, struct buffer *json) {
    uv_mutex_lock(&server->state.mutex);
    const struct node_status *shown = &server->state.shown;
    buffer_append_format(json, "{\"role\":\"%s\",\"node_id\":", shown->role);
    if (shown->node_id == 0) {
        buffer_append_text(json, "null");
    } else {
        buffer_append_u64(json, shown->node_id);
    }
    buffer_append_text(json, ",\"term\":");
    buffer_append_u64(json, shown->term);
    if (shown->leader[0] == '\0') {
        buffer_append_text(json, ",\"leader\":null");
    } else {
        buffer_append_format(json, ",\"leader\":\"%s\"", shown->leader);
    }
    buffer_append_text(json, ",\"members\":");
    buffer_append_text(json, shown->members[0] == '\0' ? "[]" : shown->members);
    buffer_append_text(json, ",\"commit_index\":");
    buffer_append_u64(json, shown->commit_index);
    buffer_append_text(json, ",\"applied_index\":");
    buffer_append_u64(json, shown->applied_index);
    buffer_append_char(json, '}');
    uv_mutex_unlock(&server->state.mutex);
}
