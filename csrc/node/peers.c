/* Connections between servers: dialling, who is who, and what a peer may say.
 *
 * Each server dials every other one and sends its own messages on that connection; what comes
 * back on it is only the answer to its hello. This is the one place where a connection proves
 * who it is before anything else is heard from it.
 *
 * As long as there are no secrets, a hello is a claim. What bounds it: the one who answers at a
 * peer's address, when we dial it, says which life of that peer is the present one. While we
 * are connected there, a hello of another life is refused (of a later one, after looking there
 * again); when we get there, a connection of another life is closed; and commands are taken
 * only from the life that was met there. So a stranger that claims to be a member displaces it
 * only until we have reached the member. One that repeats what the member says of itself is
 * still not told from it.
 * Invariant: conn->peer is set only after a hello (in) or for a dial (out); a message counts
 * only from the connection that its peer said hello on last. */
#include "base/assert.h"
#include "base/memory.h"
#include "node/internal.h"

#define GUEST_MS 30000u /* a server outside the configuration is remembered this long */

/* --- the table --- */
struct peer *peers_find(struct node *node, uint64_t id) {
    for (uint32_t i = 0; i < node->peer_count; i++) {
        if (node->peers[i]->id == id) {
            return node->peers[i];
        }
    }
    return NULL;
}

struct peer *peers_find_ready(struct node *node, uint64_t id) {
    struct peer *peer = id == 0 ? NULL : peers_find(node, id);
    return peer != NULL && peer->stage == PEER_READY ? peer : NULL;
}

static void hang_up(struct node *node, struct peer *peer) {
    if (peer->out != NULL) {
        peer->out->peer = NULL;
        conn_close(node, peer->out);
        peer->out = NULL;
    }
    if (peer->stage == PEER_READY) {
        execute_quietly(node,
                        &(struct raft_event){.kind = RAFT_EVENT_DISCONNECTED, .id = peer->id});
    }
    peer->stage = PEER_IDLE;
    peer->redial_ms = node->now_ms + peer->redial_wait_ms;
    peer->redial_wait_ms =
        peer->redial_wait_ms * 2 < REDIAL_MS_MOST ? peer->redial_wait_ms * 2 : REDIAL_MS_MOST;
    peer->sending.active = false;
}

void peers_hang_up_all(struct node *node) {
    for (uint32_t i = 0; i < node->peer_count; i++) {
        struct peer *peer = node->peers[i];
        hang_up(node, peer);
        if (peer->in != NULL) {
            conn_close(node, peer->in);
        }
    }
}

static struct peer *add_peer(struct node *node, uint64_t id, const char *address) {
    if (node->peer_count == PEERS_MAX) {
        return NULL;
    }
    struct peer *peer = memory_must_alloc_zero(sizeof(*peer));
    peer->id = id;
    memcpy(peer->address, address, strlen(address) + 1);
    peer->redial_wait_ms = REDIAL_MS_LEAST;
    peer->guest_until_ms = node->now_ms + GUEST_MS;
    node->peers[node->peer_count++] = peer;
    return peer;
}

static void drop_in(struct node *node, struct peer *peer) {
    if (peer->in != NULL) {
        peer->in->peer = NULL;
        conn_close(node, peer->in);
        peer->in = NULL;
    }
}

static void drop_check(struct node *node, struct peer *peer) {
    if (peer->check != NULL) {
        peer->check->peer = NULL;
        conn_close(node, peer->check);
        peer->check = NULL;
    }
}

static void remove_peer(struct node *node, uint32_t at) {
    struct peer *peer = node->peers[at];
    hang_up(node, peer);
    drop_in(node, peer);
    drop_check(node, peer);
    node->peers[at] = node->peers[--node->peer_count];
    buffer_free(&peer->old_lines);
    memory_free(peer);
}

void peers_free(struct node *node) {
    while (node->peer_count > 0) {
        struct peer *peer = node->peers[--node->peer_count];
        buffer_free(&peer->old_lines);
        memory_free(peer);
    }
}

/* A member always finds a place: one who is none makes way. */
static void make_room(struct node *node) {
    for (uint32_t i = 0; node->peer_count == PEERS_MAX && i < node->peer_count; i++) {
        /* Not the leader's: its message may be what is being read just now. */
        if (!node->peers[i]->member && node->peers[i]->id != node->state.leader) {
            remove_peer(node, i--);
        }
    }
}

void peers_sync(struct node *node) {
    const struct cluster *cluster = members_peek(node);
    for (uint32_t i = 0; i < node->peer_count; i++) {
        struct peer *peer = node->peers[i];
        bool member = raft_configuration_find(&cluster->raft, peer->id) != NULL;
        if (peer->member && !member) {
            peer->guest_until_ms = node->now_ms + GUEST_MS;
        }
        peer->member = member;
    }
    for (uint32_t i = 0; i < cluster->raft.count; i++) {
        uint64_t id = cluster->raft.members[i].id;
        if (id == node->meta.node_id) {
            continue;
        }
        struct peer *peer = peers_find(node, id);
        if (peer == NULL) {
            make_room(node);
            peer = add_peer(node, id, cluster->addresses[i]);
            ASSERT(peer != NULL);
        } else if (strcmp(peer->address, cluster->addresses[i]) != 0) {
            memcpy(peer->address, cluster->addresses[i], sizeof(peer->address));
            hang_up(node, peer);
        }
        peer->member = true;
    }
}

/* --- dialling --- */
static void push_dial(struct node *node, struct node_conn *conn) {
    ASSERT(node->dial_count < PEERS_MAX + 1);
    node->dials[node->dial_count++] = conn;
}

static void dial(struct node *node, struct peer *peer) {
    if (node->dial_count == PEERS_MAX) {
        return;
    }
    peer->out = conn_new(NULL, CONN_PEER_OUT);
    peer->out->peer = peer;
    peer->stage = PEER_DIALING;
    peer->stage_deadline_ms = node->now_ms + DIAL_TIMEOUT_MS;
    push_dial(node, peer->out);
}

/* Whether the one that we are connected to is still the one at its address: a process may have
 * gone, with its machine, without a word. */
static void check_life(struct node *node, struct peer *peer) {
    if (peer->check != NULL || node->dial_count >= PEERS_MAX ||
        node->now_ms - peer->check_ms < REDIAL_MS_MOST) {
        return;
    }
    peer->check = conn_new(NULL, CONN_CHECK);
    peer->check->peer = peer;
    peer->check_ms = node->now_ms;
    push_dial(node, peer->check);
}

void peers_dial_probe(struct node *node, const char *address) {
    ASSERT(node->probe == NULL);
    node->probe = conn_new(NULL, CONN_PROBE);
    memcpy(node->probe_address, address, strlen(address) + 1);
    push_dial(node, node->probe);
}

struct node_conn *node_take_dial(struct node *node, const char **address) {
    if (node->dial_count == 0) {
        return NULL;
    }
    struct node_conn *conn = node->dials[0];
    memmove(node->dials, node->dials + 1, --node->dial_count * sizeof(node->dials[0]));
    *address = conn->kind == CONN_PROBE ? node->probe_address
               : conn->peer != NULL     ? conn->peer->address
                                        : node->address;
    return conn;
}

void peers_tick(struct node *node) {
    if (node->stopped) {
        return;
    }
    for (uint32_t i = 0; i < node->peer_count; i++) {
        struct peer *peer = node->peers[i];
        if (peer->check != NULL && node->now_ms - peer->check_ms >= DIAL_TIMEOUT_MS) {
            drop_check(node, peer);
        }
        if (!peer->member && peer->in == NULL && node->now_ms >= peer->guest_until_ms) {
            remove_peer(node, i--);
        } else if (peer->stage == PEER_IDLE && node->now_ms >= peer->redial_ms &&
                   node_is_member(node)) {
            dial(node, peer);
        } else if (peer->stage != PEER_IDLE && peer->stage != PEER_READY &&
                   node->now_ms >= peer->stage_deadline_ms) {
            hang_up(node, peer);
        }
    }
}

uint64_t peers_deadline_ms(const struct node *node) {
    uint64_t deadline = NEVER_MS;
    for (uint32_t i = 0; i < node->peer_count; i++) {
        const struct peer *peer = node->peers[i];
        uint64_t due = peer->stage == PEER_IDLE    ? peer->redial_ms
                       : peer->stage == PEER_READY ? NEVER_MS
                                                   : peer->stage_deadline_ms;
        deadline = due < deadline ? due : deadline;
    }
    return node_is_member(node) ? deadline : NEVER_MS;
}

/* --- hello, from us --- */
static void say_hello(struct node *node, struct node_conn *conn, uint64_t to) {
    struct peer_message hello = {.kind = PEER_HELLO,
                                 .protocol = PEER_PROTOCOL,
                                 .node = node->meta.node_id,
                                 .incarnation = node->meta.incarnation,
                                 .to = to};
    memcpy(hello.cluster_id, node->meta.cluster_id, sizeof(hello.cluster_id));
    memcpy(hello.address, node->address, sizeof(hello.address));
    conn_send_message(node, conn, &hello);
}

void peers_connected(struct node *node, struct node_conn *conn) {
    if (node->stopped) {
        conn_close(node, conn);
    } else if (conn->kind == CONN_PROBE || conn->kind == CONN_CHECK) {
        say_hello(node, conn, 0);
    } else if (conn->peer != NULL) {
        conn->peer->stage = PEER_GREETING;
        say_hello(node, conn, conn->peer->id);
    }
}

void peers_closed(struct node *node, struct node_conn *conn) {
    struct peer *peer = conn->peer;
    conn->peer = NULL;
    if (conn == node->probe) {
        node->probe = NULL;
        admin_probe_done(node, NULL, "the server does not answer");
    }
    if (peer != NULL && peer->out == conn) {
        peer->out = NULL;
        hang_up(node, peer);
    } else if (peer != NULL && peer->in == conn) {
        peer->in = NULL;
    } else if (peer != NULL && peer->check == conn) {
        peer->check = NULL;
    }
}

/* Whether this id was never lived under: a learner that we have added ourselves, in this term,
 * and that has not said hello or welcome as such. What an earlier leader added may have voted,
 * acknowledged entries, even have been promoted, and have lost its directory since. */
static bool is_untouched(const struct node *node, const struct peer *peer,
                         const struct raft_member *member) {
    return !member->voter && !member->voter_before && peer->incarnation == 0 &&
           peer->added_term == node->state.term;
}

/* A server without an identity where a member should be: a learner that is new takes it now;
 * anybody else's directory is gone, and it comes back through the learner's door, under a new
 * id (M13). */
static void meet_blank(struct node *node, struct peer *peer) {
    const struct cluster *cluster = members_peek(node);
    const struct raft_member *member =
        cluster == NULL ? NULL : raft_configuration_find(&cluster->raft, peer->id);
    bool leading = node->state.role == RAFT_LEADER && member != NULL &&
                   node->state.commit_index >= members_index(node);
    if (leading && is_untouched(node, peer, member)) {
        struct peer_message join = {.kind = PEER_JOIN, .node = peer->id};
        memcpy(join.cluster_id, node->meta.cluster_id, sizeof(join.cluster_id));
        conn_send_message(node, peer->out, &join);
        peer->stage = PEER_JOINING;
        peer->redial_wait_ms = REDIAL_MS_LEAST;
        return;
    }
    if (leading && !cluster->raft.joint) {
        admin_replace(node, peer);
    }
    hang_up(node, peer);
}

/* Said once, until it is again the member that it should be. */
static void complain(struct node *node, struct peer *peer, struct span reason) {
    if (!peer->complained) {
        peer->complained = true;
        apply_notice(node, "warning", "peer", "no connection with member %llu at %s: %.*s",
                     (unsigned long long)peer->id, peer->address, (int)reason.size,
                     reason.data);
    }
}

static void welcomed(struct node *node, struct peer *peer, const struct peer_message *message) {
    bool same_cluster = strcmp(message->cluster_id, node->meta.cluster_id) == 0;
    if (message->node == 0 && message->cluster_id[0] == '\0') {
        meet_blank(node, peer);
        return;
    }
    if (!same_cluster || message->node != peer->id ||
        message->incarnation < peer->incarnation) {
        complain(node, peer,
                 !same_cluster || message->node != peer->id
                     ? SPAN("there is another server at that address")
                     : SPAN("it is an earlier life of that member, with an old directory"));
        peer->redial_wait_ms = REDIAL_MS_MOST;
        hang_up(node, peer);
        return;
    }
    peer->incarnation = message->incarnation;
    peer->stage = PEER_READY;
    peer->complained = false;
    peer->redial_wait_ms = REDIAL_MS_LEAST;
    if (peer->in != NULL && peer->in->peer_incarnation != message->incarnation) {
        apply_notice(node, "warning", "peer",
                     "a connection that claimed to be of member %llu was not: closed",
                     (unsigned long long)peer->id);
        drop_in(node, peer);
    }
    pending_ask_again(node, peer);
    if (peer->id == node->state.leader) {
        pending_restart_forwarding(node);
        reads_restart(node);
    }
    execute_quietly(node, &(struct raft_event){.kind = RAFT_EVENT_CONNECTED,
                                               .id = peer->id,
                                               .incarnation = message->incarnation});
    snapshot_connected(node, peer);
}

/* A later life listens there: the connection that we have is to a dead one. */
static void checked(struct node *node, struct peer *peer, const struct peer_message *message) {
    if (message->kind == PEER_WELCOME && message->node == peer->id &&
        strcmp(message->cluster_id, node->meta.cluster_id) == 0 &&
        message->incarnation > peer->incarnation && peer->stage == PEER_READY) {
        peer->redial_wait_ms = REDIAL_MS_LEAST;
        hang_up(node, peer);
    }
}

static void refused(struct node *node, struct peer *peer, const struct peer_message *message) {
    if (message->removed && !node->meta.removed) {
        node->meta.removed = true;
        node_save_identity(node);
    } else {
        complain(node, peer, message->reason);
    }
    peer->redial_wait_ms = REDIAL_MS_MOST;
    hang_up(node, peer);
}

static void receive_out(struct node *node, struct node_conn *conn,
                        const struct peer_message *message) {
    struct peer *peer = conn->peer;
    if (peer == NULL) {
        return;
    }
    if (message->kind == PEER_WELCOME && peer->stage == PEER_GREETING) {
        welcomed(node, peer, message);
    } else if (message->kind == PEER_REFUSED) {
        refused(node, peer, message);
    } else {
        hang_up(node, peer);
    }
}

/* --- hello, to us --- */
static void refuse_hello(struct node *node, struct node_conn *conn, const char *reason,
                         bool removed) {
    conn_send_message(node, conn,
                      &(struct peer_message){.kind = PEER_REFUSED,
                                             .reason = {reason, strlen(reason)},
                                             .removed = removed});
    conn_close(node, conn);
}

static void welcome(struct node *node, struct node_conn *conn) {
    struct peer_message message = {.kind = PEER_WELCOME,
                                   .protocol = PEER_PROTOCOL,
                                   .node = node->meta.node_id,
                                   .incarnation = node->meta.incarnation};
    memcpy(message.cluster_id, node->meta.cluster_id, sizeof(message.cluster_id));
    conn_send_message(node, conn, &message);
}

/* Whether our committed configuration knows that this id is gone for good (M10). */
static bool was_removed(const struct node *node, uint64_t id) {
    const struct cluster *cluster = members_peek(node);
    return cluster != NULL && node->state.commit_index >= members_index(node) &&
           id < cluster->next_id && raft_configuration_find(&cluster->raft, id) == NULL;
}

/* Than the one at its address, or than the one that is connected. */
static bool is_of_earlier_life(const struct peer *peer, uint64_t incarnation) {
    return incarnation < peer->incarnation ||
           (peer->in != NULL && incarnation < peer->in->peer_incarnation);
}

static void greet(struct node *node, struct node_conn *conn,
                  const struct peer_message *message) {
    struct peer *peer = peers_find(node, message->node);
    if (peer != NULL && is_of_earlier_life(peer, message->incarnation)) {
        refuse_hello(node, conn,
                     "an earlier life of this server, with an old directory: "
                     "delete it, and the leader brings the member back",
                     false);
        return;
    }
    if (peer != NULL && peer->stage == PEER_READY && message->incarnation > peer->incarnation) {
        check_life(node, peer);
        refuse_hello(node, conn, "another life answers at this server's address", false);
        return;
    }
    if (peer == NULL) {
        peer = add_peer(node, message->node, message->address);
    }
    if (peer == NULL) {
        refuse_hello(node, conn, "too many servers", false);
        return;
    }
    drop_in(node, peer);
    peer->in = conn;
    peer->refused_from = 0;
    conn->peer = peer;
    conn->peer_incarnation = message->incarnation;
    if (peer->stage == PEER_IDLE) {
        peer->redial_ms = node->now_ms; /* it lives: no need to wait */
        peer->redial_wait_ms = REDIAL_MS_LEAST;
    }
    reads_forget_peer(node, peer->id);
    if (peer->id == node->state.leader) {
        /* What it told us on the old connection may be lost. */
        pending_restart_forwarding(node);
        reads_restart(node);
    }
    welcome(node, conn);
}

static void receive_hello(struct node *node, struct node_conn *conn,
                          const struct peer_message *message) {
    conn->kind = CONN_PEER_IN;
    bool ours = strcmp(message->cluster_id, node->meta.cluster_id) == 0;
    if (message->protocol != PEER_PROTOCOL) {
        refuse_hello(node, conn, "another protocol version", false);
    } else if (node->meta.node_id == 0 || message->to == 0) {
        welcome(node, conn); /* who we are, to one who only asks or may give us an identity */
    } else if (!ours) {
        refuse_hello(node, conn, "another cluster", false);
    } else if (message->to != node->meta.node_id || message->node == 0 ||
               message->node == node->meta.node_id) {
        welcome(node, conn); /* not who it takes us for: it sees that, and hangs up */
    } else if (node->meta.removed) {
        refuse_hello(node, conn, "this server was removed from the cluster", false);
    } else if (was_removed(node, message->node)) {
        refuse_hello(node, conn, "removed from the cluster", true);
    } else {
        greet(node, conn, message);
    }
}

/* A leader gives us our place in its cluster. Durable first; then it dials again and finds us
 * so. */
static void receive_join(struct node *node, struct node_conn *conn,
                         const struct peer_message *message) {
    struct meta given = node->meta;
    memcpy(given.cluster_id, message->cluster_id, sizeof(given.cluster_id));
    given.node_id = message->node;
    if (node->meta.node_id == 0 && message->node > 0 && message->cluster_id[0] != '\0' &&
        meta_valid(&given)) {
        node->meta = given;
        node_save_identity(node);
    }
    conn_close(node, conn);
}

void peers_identity_saved(struct node *node) {
    if (node->state.id == 0 && node->meta.node_id != 0) {
        raft_set_id(node->raft, node->meta.node_id);
        raft_peek_state(node->raft, &node->state);
    }
}

/* --- messages --- */
static void receive_in(struct node *node, struct peer *peer, const struct peer_message *message,
                       struct span payload) {
    switch (message->kind) {
    case PEER_VOTE:
    case PEER_VOTE_REPLY:
    case PEER_APPEND:
    case PEER_APPEND_REPLY:
    case PEER_TIMEOUT_NOW:
    case PEER_SNAPSHOT_REPLY:
        messages_receive(node, peer, message, payload);
        return;
    case PEER_SNAPSHOT:
        snapshot_receive_piece(node, peer, message, payload);
        return;
    case PEER_SNAPSHOT_WANT:
        snapshot_receive_want(node, peer, message);
        return;
    case PEER_PROPOSE:
        pending_receive_propose(node, peer, message, payload);
        return;
    case PEER_PROPOSE_AGAIN:
        pending_receive_again(node, peer, message);
        return;
    case PEER_READ:
        reads_receive(node, peer, message);
        return;
    case PEER_READ_REPLY:
        reads_receive_reply(node, peer, message);
        return;
    case PEER_TURN:
        turn_receive(node, peer, message);
        return;
    case PEER_TURN_REPLY:
        turn_receive_reply(node, peer, message);
        return;
    case PEER_ADMIN:
        admin_receive(node, peer, message);
        return;
    case PEER_ADMIN_REPLY:
        admin_receive_reply(node, peer, message);
        return;
    case PEER_HELLO:
    case PEER_WELCOME:
    case PEER_REFUSED:
    case PEER_JOIN:
        conn_close(node, peer->in);
        return;
    }
}

void peers_receive(struct node *node, struct node_conn *conn,
                   const struct peer_message *message, struct span payload) {
    switch (conn->kind) {
    case CONN_CLIENT:
        if (message->kind == PEER_HELLO && message->bytes == 0) {
            receive_hello(node, conn, message);
        } else {
            refuse_hello(node, conn, "say hello first", false);
        }
        return;
    case CONN_PEER_IN:
        if (conn->peer != NULL && !node->meta.removed) {
            receive_in(node, conn->peer, message, payload);
        } else if (message->kind == PEER_JOIN && conn->peer == NULL) {
            receive_join(node, conn, message);
        } else {
            conn_close(node, conn);
        }
        return;
    case CONN_PEER_OUT:
        receive_out(node, conn, message);
        return;
    case CONN_CHECK:
        if (conn->peer != NULL) {
            checked(node, conn->peer, message);
        }
        conn_close(node, conn);
        return;
    case CONN_PROBE:
        if (conn == node->probe) {
            node->probe = NULL;
            admin_probe_done(node, message->kind == PEER_WELCOME ? message : NULL,
                             "what answers there is no raftpico server");
        }
        conn_close(node, conn);
        return;
    }
}
