/* Commands that this server took and has not answered, in the order in which it took them.
 *
 *     base                    forward              next
 *     | given to the leader   | not given yet      |
 *
 * The sequence number is the place in the ring and goes into the entry's tag. When the leader
 * changes, everything is given again, in order, under the same tags: members apply a tag once,
 * so a change of leader never makes an outcome unknown.
 * Invariant: within an epoch (one leader, one term) sequences are given in rising order. */
#include "base/assert.h"
#include "base/memory.h"
#include "node/internal.h"
#include "wire/cursor.h"
#include "wire/scan.h"

#define RING_CAPACITY_MIN 1024u
#define AGAIN_PAUSE_MS 20u /* before commands that a leader could not take are given again */

void pending_init(struct pendings *pendings) {
    *pendings = (struct pendings){.base = 1, .next = 1, .forward = 1};
}

static struct pending *place(const struct pendings *pendings, uint64_t sequence) {
    return &pendings->ring[sequence & (pendings->capacity - 1)];
}

void pending_clear(struct pendings *pendings) {
    for (uint64_t s = pendings->base; s < pendings->next; s++) {
        struct pending *pending = place(pendings, s);
        if (pending->input != NULL) {
            caller_drop(&pending->caller);
            memory_free(pending->input);
        }
    }
    memory_free(pendings->ring);
    pending_init(pendings);
}

static void grow(struct pendings *pendings) {
    uint64_t capacity = pendings->capacity == 0 ? RING_CAPACITY_MIN : pendings->capacity * 2;
    struct pendings grown = *pendings;
    grown.capacity = capacity;
    grown.ring = memory_must_alloc_zero(capacity * sizeof(struct pending));
    for (uint64_t s = pendings->base; s < pendings->next; s++) {
        struct pending *from = place(pendings, s);
        struct pending *to = place(&grown, s);
        *to = *from;
        caller_move(&to->caller, &from->caller);
    }
    memory_free(pendings->ring);
    *pendings = grown;
}

static struct pending *add_place(struct pendings *pendings) {
    if (pendings->next - pendings->base == pendings->capacity) {
        grow(pendings);
    }
    pendings->count++;
    return place(pendings, pendings->next++);
}

void pending_add(struct node *node, struct caller *caller, const struct rpc_request *request) {
    struct pending *pending = add_place(&node->pendings);
    struct span input = request->input;
    struct span session = request->session;
    *pending = (struct pending){.input = memory_must_grow(NULL, input.size + session.size + 1),
                                .input_size = (uint32_t)input.size,
                                .session_size = (uint32_t)session.size,
                                .session_seq = request->session_seq,
                                .since_ms = node->now_ms,
                                .deadline_ms = node->now_ms + node->request_timeout_ms};
    caller_move(&pending->caller, caller);
    memcpy(pending->input, input.data, input.size);
    if (session.size > 0) {
        memcpy(pending->input + input.size, session.data, session.size);
    }
    node->pendings.bytes += input.size;
}

struct pending *pending_peek(struct node *node, uint64_t sequence) {
    struct pendings *pendings = &node->pendings;
    if (sequence < pendings->base || sequence >= pendings->next) {
        return NULL;
    }
    struct pending *pending = place(pendings, sequence);
    return pending->input == NULL ? NULL : pending;
}

void pending_forget(struct node *node, uint64_t sequence) {
    struct pendings *pendings = &node->pendings;
    struct pending *pending = pending_peek(node, sequence);
    ASSERT(pending != NULL);
    caller_drop(&pending->caller);
    memory_free(pending->input);
    pendings->bytes -= pending->input_size;
    pendings->count--;
    *pending = (struct pending){0};
    while (pendings->base < pendings->next && place(pendings, pendings->base)->input == NULL) {
        pendings->base++;
    }
    if (pendings->forward < pendings->base) {
        pendings->forward = pendings->base;
    }
}

void pending_again(struct node *node, uint64_t sequence) {
    struct pending *old = pending_peek(node, sequence);
    ASSERT(old != NULL);
    struct pending *fresh = add_place(&node->pendings);
    old = pending_peek(node, sequence); /* the ring may have moved */
    *fresh = *old;
    caller_move(&fresh->caller, &old->caller);
    fresh->sent = fresh->handed = false;
    node->pendings.again_end = node->pendings.next;
    old->input = memory_must_grow(NULL, 1); /* only to be forgotten below */
    old->input_size = 0;
    pending_forget(node, sequence);
}

/* --- giving them to the leader --- */
void pending_restart_forwarding(struct node *node) {
    node->pendings.forward = node->pendings.base;
    node->pendings.rewound = true;
    node->pendings.pause_until_ms = 0;
}

static struct span session_of(const struct pending *pending) {
    return (struct span){pending->input + pending->input_size, pending->session_size};
}

static void propose_here(struct node *node) {
    struct pendings *pendings = &node->pendings;
    uint32_t count = 0;
    for (uint64_t s = pendings->forward; s < pendings->next; s++) {
        count += place(pendings, s)->input != NULL;
    }
    uint64_t first;
    if (count == 0) {
        pendings->forward = pendings->next;
        return;
    }
    if (execute_propose(node, 0, count, &first) != RAFT_OK) {
        pendings->pause_until_ms = node->now_ms + AGAIN_PAUSE_MS;
        return;
    }
    for (; pendings->forward < pendings->next; pendings->forward++) {
        struct pending *pending = place(pendings, pendings->forward);
        if (pending->input != NULL) {
            pending->sent = true;
            execute_add_command(
                node, &(struct entry){.tag = {node->meta.node_id, node->meta.incarnation,
                                              pendings->forward},
                                      .session = session_of(pending),
                                      .session_seq = pending->session_seq,
                                      .body = {pending->input, pending->input_size}});
        }
    }
}

static void write_proposal(struct buffer *lines, uint64_t sequence,
                           const struct pending *pending) {
    struct span session = session_of(pending);
    buffer_append_char(lines, '[');
    if (session.size > 0) {
        buffer_append_char(lines, '"');
        buffer_append_span(lines, session);
        buffer_append(lines, "\",", 2);
        buffer_append_u64(lines, pending->session_seq);
        buffer_append_char(lines, ',');
    }
    buffer_append_u64(lines, sequence);
    buffer_append_char(lines, ',');
    buffer_append(lines, pending->input, pending->input_size);
    buffer_append(lines, "]\n", 2);
}

static void propose_there(struct node *node, struct peer *leader) {
    struct pendings *pendings = &node->pendings;
    struct buffer lines;
    buffer_init(&lines);
    while (pendings->forward < pendings->next &&
           conn_backlog(leader->out) < PEER_OUT_BYTES_MAX) {
        struct peer_message message = {
            .kind = PEER_PROPOSE, .term = node->state.term, .again = pendings->rewound};
        buffer_clear(&lines);
        while (pendings->forward < pendings->next && buffer_count(&lines) < PROPOSE_BYTES_MAX) {
            struct pending *pending = place(pendings, pendings->forward);
            if (pending->input != NULL) {
                pending->sent = true;
                write_proposal(&lines, pendings->forward, pending);
                message.count++;
            }
            pendings->forward++;
        }
        message.bytes = buffer_count(&lines);
        if (message.count > 0) {
            pendings->rewound = false;
            conn_send_message(node, leader->out, &message);
            buffer_append_span(&leader->out->out, buffer_span(&lines));
        }
    }
    buffer_free(&lines);
}

void pending_forward(struct node *node) {
    struct pendings *pendings = &node->pendings;
    if (pendings->epoch_term != node->state.term ||
        pendings->epoch_leader != node->state.leader) {
        pendings->epoch_term = node->state.term;
        pendings->epoch_leader = node->state.leader;
        pending_restart_forwarding(node);
    }
    if (pendings->forward == pendings->next || node->state.leader == 0 ||
        node->now_ms < pendings->pause_until_ms) {
        return;
    }
    if (node->state.role == RAFT_LEADER) {
        propose_here(node);
        return;
    }
    struct peer *leader = peers_find_ready(node, node->state.leader);
    if (leader != NULL) {
        propose_there(node, leader);
    }
}

void pending_receive_again(struct node *node, struct peer *peer,
                           const struct peer_message *message) {
    struct pendings *pendings = &node->pendings;
    if (message->term != pendings->epoch_term || peer->id != pendings->epoch_leader) {
        return; /* about an epoch that is over: everything is given again anyway */
    }
    if (message->sequence < pendings->forward) {
        pendings->forward =
            message->sequence > pendings->base ? message->sequence : pendings->base;
        pendings->rewound = true;
        pendings->pause_until_ms = node->now_ms + AGAIN_PAUSE_MS;
    }
}

/* --- taking them as the leader --- */
/* One line `[SEQUENCE,INPUT]`, or `["SESSION",SEQ,SEQUENCE,INPUT]`, to the command's tag,
 * session and body. */
static bool cut_proposal(struct span *lines, struct entry *command) {
    struct cursor cursor = cursor_over(*lines);
    struct span line;
    *command = (struct entry){0};
    if (!cursor_until(&cursor, '\n', &line) || line.size < 4 ||
        line.data[line.size - 1] != ']') {
        return false;
    }
    *lines = cursor_rest(&cursor);
    cursor = cursor_over((struct span){line.data, line.size - 1});
    if (!cursor_text(&cursor, SPAN("[")) ||
        (cursor_text(&cursor, SPAN("\"")) &&
         (!cursor_string(&cursor, &command->session) ||
          !cursor_member(&cursor, SPAN(","), &command->session_seq) ||
          command->session.size == 0 || command->session.size > SESSION_TEXT_BYTES_MAX ||
          command->session_seq == 0 || !cursor_text(&cursor, SPAN(","))))) {
        return false;
    }
    uint64_t *sequence = &command->tag.sequence;
    if (!cursor_number(&cursor, sequence) || *sequence == 0 ||
        !cursor_text(&cursor, SPAN(","))) {
        return false;
    }
    command->body = cursor_rest(&cursor);
    return command->body.size > 0 && command->body.size <= LINE_BYTES_MAX;
}

static bool is_json(struct span value) {
    struct scan_error error;
    size_t at = 0;
    return scan_value(value, &at, &error) && at == value.size;
}

/* The server that took it has validated the text; it is validated again, at some 80 ns: a line
 * that is not JSON would stand in every member's log for good. */
static bool is_sound(const struct entry *command) {
    struct span session = command->session;
    return is_json(command->body) &&
           (session.size == 0 || is_json((struct span){session.data - 1, session.size + 2}));
}

static void take_proposal(struct span *lines, struct entry *command) {
    bool sound = cut_proposal(lines, command);
    ASSERT(sound); /* proposals_are_sound() has seen it */
}

static bool proposals_are_sound(struct span lines, uint64_t count, uint64_t *first) {
    uint64_t previous = 0;
    for (uint64_t i = 0; i < count; i++) {
        struct entry command;
        if (!cut_proposal(&lines, &command) || command.tag.sequence <= previous ||
            !is_sound(&command)) {
            return false;
        }
        previous = command.tag.sequence;
        if (i == 0) {
            *first = previous;
        }
    }
    return lines.size == 0;
}

void pending_ask_again(struct node *node, struct peer *peer) {
    if (peer->refused_from != 0 && peer->stage == PEER_READY) {
        conn_send_message(node, peer->out,
                          &(struct peer_message){.kind = PEER_PROPOSE_AGAIN,
                                                 .term = peer->refused_term,
                                                 .sequence = peer->refused_from});
    }
}

static void refuse_proposals(struct node *node, struct peer *peer, uint64_t term,
                             uint64_t first) {
    peer->refused_from = first;
    peer->refused_term = term;
    pending_ask_again(node, peer);
}

/* A tag that was applied bars all earlier lives for good: only the life that answers at the
 * peer's address may set one. */
static bool life_is_known(const struct peer *peer) {
    return peer->stage == PEER_READY && peer->in->peer_incarnation == peer->incarnation;
}

void pending_receive_propose(struct node *node, struct peer *peer,
                             const struct peer_message *message, struct span payload) {
    uint64_t first = 0;
    if (!peer->member || message->count == 0 || message->count > PENDING_COMMANDS_MAX ||
        !proposals_are_sound(payload, message->count, &first)) {
        conn_close(node, peer->in);
        return;
    }
    bool waits = peer->refused_from != 0 && peer->refused_term == message->term;
    if (waits && first > peer->refused_from && !message->again) {
        return; /* behind one that was refused: they come again, in order */
    }
    uint64_t index;
    if (!life_is_known(peer) || node->state.role != RAFT_LEADER ||
        node->state.term != message->term || node->no_space[0] != '\0' ||
        execute_is_behind(node) ||
        execute_propose(node, peer->id, (uint32_t)message->count, &index) != RAFT_OK) {
        refuse_proposals(node, peer, message->term, first);
        return;
    }
    peer->refused_from = 0;
    for (uint64_t i = 0; i < message->count; i++) {
        struct entry command;
        take_proposal(&payload, &command);
        command.tag.node = peer->id;
        command.tag.incarnation = peer->in->peer_incarnation;
        execute_add_command(node, &command);
    }
}

/* --- deadlines --- */
static void refuse(struct node *node, uint64_t sequence, enum rpc_code code,
                   const char *reason) {
    struct pending *pending = pending_peek(node, sequence);
    caller_refuse(node, &pending->caller, code, pending->sent ? "unknown" : "not_applied",
                  reason);
    pending_forget(node, sequence);
}

void pending_expire(struct node *node) {
    struct pendings *pendings = &node->pendings;
    bool no_leader = node->state.leader == 0;
    for (uint64_t s = pendings->base; s < pendings->next; s++) {
        struct pending *pending = pending_peek(node, s);
        if (pending == NULL) {
            continue;
        }
        if (node->now_ms >= pending->deadline_ms) {
            refuse(node, s, pending->sent ? RPC_UNKNOWN_RESULT : RPC_NO_LEADER, NULL);
        } else if (no_leader && !pending->sent &&
                   node->now_ms - pending->since_ms >= NO_LEADER_TIMEOUT_MS) {
            refuse(node, s, RPC_NO_LEADER, NULL);
        } else if (pending->since_ms + NO_LEADER_TIMEOUT_MS > node->now_ms &&
                   s >= pendings->again_end) {
            break; /* from here on they are in the order in which they came */
        }
    }
}

void pending_fail_all(struct node *node, enum rpc_code code, const char *reason) {
    struct pendings *pendings = &node->pendings;
    for (uint64_t s = pendings->base; s < pendings->next; s++) {
        struct pending *pending = pending_peek(node, s);
        if (pending != NULL) {
            refuse(node, s,
                   pending->sent && code != RPC_STORAGE_FAILURE ? RPC_UNKNOWN_RESULT : code,
                   reason);
        }
    }
}

/* The answers went by with the entries; that of a command with a session can be had by sending
 * it once more. */
void pending_overtaken(struct node *node, uint64_t sequence) {
    struct pendings *pendings = &node->pendings;
    uint64_t last = sequence < pendings->next ? sequence : pendings->next - 1;
    for (uint64_t s = pendings->base; s <= last; s++) {
        const struct pending *pending = pending_peek(node, s);
        if (pending != NULL && pending->session_size > 0) {
            pending_again(node, s);
        } else if (pending != NULL) {
            refuse(node, s, RPC_UNKNOWN_RESULT, "a snapshot overtook the answer");
        }
    }
}
