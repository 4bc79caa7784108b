/* Queries on their way to being linearizable (6.4): collected over a turn, asked once, released
 * when the machine has come as far as the leader's commit index was.
 *
 * Groups stand in the order in which they came: UNSENT, then ASKED, then READY, then with the
 * machine. Invariant: a group's index was learned after all its queries had come. So each time
 * that groups are asked for, they get a new number: an answer to an earlier question, which may
 * still be under way, says nothing about queries that came since (L3). */
#include "base/memory.h"
#include "node/internal.h"

#define ASK_AGAIN_MS 500u /* an answer that is lost is asked for again */

static struct read_group *open_group(struct node *node) {
    struct reads *reads = &node->reads;
    if (reads->last != NULL && reads->last->stage == READ_UNSENT &&
        reads->last->since_ms == node->now_ms) {
        return reads->last; /* its deadline is theirs */
    }
    struct read_group *group = memory_must_alloc_zero(sizeof(*group));
    group->since_ms = node->now_ms;
    if (reads->last == NULL) {
        reads->first = group;
    } else {
        reads->last->next = group;
    }
    reads->last = group;
    return group;
}

void reads_add(struct node *node, struct caller *caller, const struct rpc_request *request) {
    struct span input = request->input;
    struct read_group *group = open_group(node);
    if (group->count == group->capacity) {
        struct read_item *old = group->items;
        group->capacity = group->capacity == 0 ? 16 : group->capacity * 2;
        group->items = memory_must_alloc_zero(group->capacity * sizeof(*group->items));
        for (uint32_t i = 0; i < group->count; i++) {
            group->items[i] = old[i];
            caller_move(&group->items[i].caller, &old[i].caller);
        }
        memory_free(old);
    }
    struct read_item *item = &group->items[group->count++];
    caller_move(&item->caller, caller);
    item->kind = request->kind == RPC_QUERY ? APPLY_QUERY : APPLY_LOCAL_QUERY;
    item->min_index = request->min_index;
    item->input_offset = group->text.size;
    item->input_size = input.size;
    buffer_append_span(&group->text, input);
    node->reads.count++;
    node->reads.bytes += input.size;
}

static void free_first(struct node *node) {
    struct reads *reads = &node->reads;
    struct read_group *group = reads->first;
    reads->first = group->next;
    if (reads->first == NULL) {
        reads->last = NULL;
    }
    reads->count -= group->count;
    reads->bytes -= group->text.size;
    buffer_free(&group->text);
    memory_free(group->items);
    memory_free(group);
}

static void ask_here(struct node *node, struct read_group *group) {
    struct raft_event event = {.kind = RAFT_EVENT_READ};
    struct raft_outcome outcome;
    if (execute_step(node, &event, &outcome) == RAFT_OK) {
        group->stage = READ_ASKED;
        group->round = outcome.round;
        group->index = outcome.index;
        group->term = node->state.term;
        group->asked_ms = node->now_ms;
    }
}

/* One question for all groups of the number. */
static void ask_there(struct node *node, struct peer *leader, uint64_t batch) {
    conn_send_message(
        node, leader->out,
        &(struct peer_message){.kind = PEER_READ, .term = node->state.term, .batch = batch});
}

static void note_asked_there(struct node *node, struct read_group *group, uint64_t batch) {
    group->stage = READ_ASKED;
    group->batch = batch;
    group->round = 0;
    group->term = node->state.term;
    group->asked_ms = node->now_ms;
}

void reads_flush(struct node *node) {
    bool leading = node->state.role == RAFT_LEADER;
    struct peer *leader = leading ? NULL : peers_find_ready(node, node->state.leader);
    uint64_t batch = 0;
    for (struct read_group *group = node->reads.first; group != NULL; group = group->next) {
        if (group->stage == READ_ASKED && (group->term != node->state.term ||
                                           node->now_ms >= group->asked_ms + ASK_AGAIN_MS)) {
            group->stage = READ_UNSENT;
        }
        if (group->stage != READ_UNSENT) {
            continue;
        }
        if (leading) {
            ask_here(node, group);
        } else if (leader != NULL) {
            if (batch == 0) {
                batch = node_unique_number(node, ++node->reads.next_batch);
            }
            note_asked_there(node, group, batch);
        }
    }
    if (batch != 0) {
        ask_there(node, leader, batch);
    }
}

void reads_restart(struct node *node) {
    for (struct read_group *group = node->reads.first; group != NULL; group = group->next) {
        if (group->stage == READ_ASKED) {
            group->stage = READ_UNSENT;
        }
    }
}

static void answer_remote(struct node *node, const struct remote_read *read, uint64_t index) {
    struct peer *peer = peers_find_ready(node, read->peer);
    if (peer != NULL) {
        conn_send_message(node, peer->out,
                          &(struct peer_message){.kind = PEER_READ_REPLY,
                                                 .term = read->term,
                                                 .batch = read->batch,
                                                 .index = index});
    }
}

/* The group was open before the leader was asked, so what it learned is as new as its start, or
 * newer; how long the answer took, or lay unread, makes it no older. */
static void confirm(struct reads *reads, struct read_group *group, uint64_t index) {
    group->stage = READ_READY;
    group->index = index;
    if (!reads->confirmed || group->since_ms >= reads->fresh_ms) {
        reads->confirmed = true;
        reads->fresh_ms = group->since_ms;
        reads->fresh_index = index;
    }
}

/* Both times are of a clock that is cut to whole milliseconds: nearly one more may have passed,
 * in which something was answered. */
bool reads_are_fresh(const struct node *node, uint64_t max_staleness_ms) {
    const struct reads *reads = &node->reads;
    return reads->confirmed && node->applies.handed >= reads->fresh_index &&
           node->now_ms - reads->fresh_ms < max_staleness_ms;
}

void reads_confirm(struct node *node, uint64_t confirmed_round) {
    struct reads *reads = &node->reads;
    for (struct read_group *group = reads->first; group != NULL; group = group->next) {
        if (group->stage == READ_ASKED && group->round > 0 && group->term == node->state.term &&
            group->round <= confirmed_round) {
            confirm(reads, group, group->index);
        }
    }
    uint32_t kept = 0;
    for (uint32_t i = 0; i < reads->remote_count; i++) {
        struct remote_read *read = &reads->remote[i];
        if (read->term != node->state.term) {
            continue; /* the asker learns of the new term and asks again */
        }
        if (read->round <= confirmed_round) {
            answer_remote(node, read, read->index);
        } else {
            reads->remote[kept++] = *read;
        }
    }
    reads->remote_count = kept;
}

void reads_forget_peer(struct node *node, uint64_t id) {
    struct reads *reads = &node->reads;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < reads->remote_count; i++) {
        if (reads->remote[i].peer != id) {
            reads->remote[kept++] = reads->remote[i];
        }
    }
    reads->remote_count = kept;
}

void reads_receive(struct node *node, struct peer *peer, const struct peer_message *message) {
    struct reads *reads = &node->reads;
    if (node->state.role != RAFT_LEADER || message->term != node->state.term || !peer->member ||
        reads->remote_count == REMOTE_READS_MAX) {
        return; /* asked again when the asker knows better, or after ASK_AGAIN_MS */
    }
    struct raft_event event = {.kind = RAFT_EVENT_READ, .id = peer->id};
    struct raft_outcome outcome;
    if (execute_step(node, &event, &outcome) != RAFT_OK) {
        return;
    }
    struct remote_read read = {.peer = peer->id,
                               .batch = message->batch,
                               .term = message->term,
                               .round = outcome.round,
                               .index = outcome.index};
    if (outcome.round == 0) {
        answer_remote(node, &read, read.index);
    } else {
        reads->remote[reads->remote_count++] = read;
    }
}

void reads_receive_reply(struct node *node, struct peer *peer,
                         const struct peer_message *message) {
    if (peer->id != node->state.leader || message->term != node->state.term) {
        return;
    }
    for (struct read_group *group = node->reads.first; group != NULL; group = group->next) {
        if (group->stage == READ_ASKED && group->round == 0 && group->term == message->term &&
            group->batch <= message->batch) {
            confirm(&node->reads, group, message->index);
        }
    }
}

static void release(struct node *node, const struct read_group *group, struct read_item *item) {
    struct span input = {group->text.bytes + item->input_offset, item->input_size};
    uint64_t deadline_ms = group->since_ms + node->request_timeout_ms;
    if (item->min_index > node->applies.handed) {
        parked_add(node, item->kind, &item->caller, input, item->min_index, deadline_ms);
    } else {
        apply_query(node, item->kind, &item->caller, input, deadline_ms);
    }
}

void reads_release(struct node *node) {
    struct reads *reads = &node->reads;
    while (reads->first != NULL && reads->first->stage == READ_READY &&
           reads->first->index <= node->applies.handed && !node->applies.restoring &&
           apply_has_room(node)) {
        struct read_group *group = reads->first;
        for (uint32_t i = 0; i < group->count; i++) {
            release(node, group, &group->items[i]);
        }
        free_first(node);
    }
    parked_release(node);
}

static void fail_first(struct node *node, enum rpc_code code, const char *reason) {
    struct read_group *group = node->reads.first;
    for (uint32_t i = 0; i < group->count; i++) {
        caller_refuse(node, &group->items[i].caller, code, "not_applied", reason);
    }
    free_first(node);
}

void reads_expire(struct node *node) {
    struct reads *reads = &node->reads;
    while (reads->first != NULL) {
        uint64_t waited = node->now_ms - reads->first->since_ms;
        bool ready = reads->first->stage == READ_READY;
        if (waited >= node->request_timeout_ms) {
            fail_first(node, ready ? RPC_OVERLOADED : RPC_NO_LEADER, "no answer in time");
        } else if (!ready && waited >= NO_LEADER_TIMEOUT_MS) {
            fail_first(node, RPC_NO_LEADER, NULL);
        } else {
            break;
        }
    }
    parked_expire(node);
}

void reads_fail_all(struct node *node, enum rpc_code code, const char *reason) {
    while (node->reads.first != NULL) {
        fail_first(node, code, reason);
    }
    parked_fail_all(node, code, reason);
}
