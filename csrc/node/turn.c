/* Whose turn it is to take a snapshot: one member at a time, so that the others have their
 * processors and disks for the clients (S15).
 *
 * The leader gives a turn to whoever asks while nobody has one, and next to the one who was
 * refused first. The holder says again and again that it is still at it, and when it is done; a
 * turn that is not renewed ends by itself, so nothing has to be remembered or taken back. A new
 * leader gives none before a turn of its predecessor would have ended, except to who says that
 * he has one. It is a courtesy, no safety hangs on it: a snapshot that is asked for by hand
 * waits for no turn, and a log that has grown far too long (no leader, or another's snapshot
 * that takes for ever) does not wait any longer. */
#include "node/internal.h"

#define TURN_MS 2000u       /* a turn lasts so long after it was last asked for */
#define TURN_ASK_MS 250u    /* it is asked for this often */
#define TURN_START_MS 1000u /* who was given one begins within this, or asks again */
#define UNKNOWN UINT64_MAX  /* of a former leader's, perhaps */

/* `code` of a PEER_TURN message. */
enum turn_wish {
    TURN_WANTED,
    TURN_KEPT, /* still at it */
    TURN_DONE,
};

/* Whether somebody else was refused before, and still asks. */
static bool another_waits(const struct node *node, uint64_t id) {
    const struct turns *turns = &node->turns;
    return turns->next != 0 && turns->next != id &&
           node->now_ms - turns->next_asked_ms <= 4 * TURN_ASK_MS;
}

static void refuse(struct node *node, uint64_t id) {
    struct turns *turns = &node->turns;
    if (!another_waits(node, id)) {
        turns->next = id;
        turns->next_asked_ms = node->now_ms;
    }
}

void turn_tick(struct node *node) {
    struct turns *turns = &node->turns;
    if (node->state.role == RAFT_LEADER && turns->term != node->state.term) {
        *turns = (struct turns){
            .term = node->state.term, .holder = UNKNOWN, .until_ms = node->now_ms + TURN_MS};
    }
}

/* The leader's decision. */
static bool give(struct node *node, uint64_t id, enum turn_wish wish) {
    struct turns *turns = &node->turns;
    if (turns->holder == id && wish != TURN_KEPT) {
        turns->until_ms = node->now_ms; /* done, or not begun */
    }
    if (wish == TURN_DONE) {
        return false;
    }
    bool free = node->now_ms >= turns->until_ms && !another_waits(node, id);
    bool goes_on = wish == TURN_KEPT && (turns->holder == id || turns->holder == UNKNOWN);
    if (!free && !goes_on) {
        refuse(node, id);
        return false;
    }
    turns->holder = id;
    turns->until_ms = node->now_ms + TURN_MS;
    turns->next = turns->next == id ? 0 : turns->next;
    return true;
}

static void say(struct node *node, enum turn_wish wish) {
    struct turns *turns = &node->turns;
    struct peer *leader = peers_find_ready(node, node->state.leader);
    if (leader == NULL || (wish != TURN_DONE && node->now_ms < turns->ask_ms)) {
        return;
    }
    turns->ask_ms = node->now_ms + TURN_ASK_MS;
    conn_send_message(node, leader->out,
                      &(struct peer_message){
                          .kind = PEER_TURN, .term = node->state.term, .code = (uint64_t)wish});
}

static bool is_alone(const struct node *node) {
    const struct cluster *cluster = members_peek(node);
    return cluster == NULL || cluster->raft.count <= 1;
}

bool turn_is_ours(struct node *node) {
    if (is_alone(node)) {
        return true;
    }
    if (node->state.role == RAFT_LEADER) {
        return give(node, node->meta.node_id, TURN_WANTED);
    }
    if (node->now_ms < node->turns.ours_until_ms) {
        return true;
    }
    say(node, TURN_WANTED);
    return false;
}

static void tell(struct node *node, enum turn_wish wish) {
    node->turns.ours_until_ms = 0;
    if (!is_alone(node) && node->state.role == RAFT_LEADER) {
        give(node, node->meta.node_id, wish);
    } else if (!is_alone(node)) {
        say(node, wish);
    }
}

void turn_keep(struct node *node) {
    tell(node, TURN_KEPT);
}

void turn_end(struct node *node) {
    tell(node, TURN_DONE);
}

void turn_receive(struct node *node, struct peer *peer, const struct peer_message *message) {
    struct peer *to = peers_find_ready(node, peer->id);
    if (node->state.role == RAFT_LEADER && message->term == node->state.term && to != NULL &&
        message->code <= TURN_DONE && give(node, peer->id, (enum turn_wish)message->code)) {
        conn_send_message(
            node, to->out,
            &(struct peer_message){.kind = PEER_TURN_REPLY, .term = node->state.term});
    }
}

void turn_receive_reply(struct node *node, struct peer *peer,
                        const struct peer_message *message) {
    if (peer->id == node->state.leader && message->term == node->state.term &&
        !node->snapshots.taking) {
        node->turns.ours_until_ms = node->now_ms + TURN_START_MS;
    }
}
