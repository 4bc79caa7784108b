/* Snapshots of the simulated servers: taken at any moment, streamed piece by piece; see sim.h.
 */
#include <stdlib.h>
#include <string.h>

#include "sim.h"

#define AGAIN_US 60000u
#define TRIES_MAX 12u

void snapshot_take(struct world *world, struct node *node) {
    struct snapshot snapshot = {.position = {0, node->applied}, .state = node->applied_state};
    if (node->applied <= node->state.snapshot.index) {
        return;
    }
    /* Sometimes behind the tip, sometimes exactly there (S11); the state is only known at the
     * tip. */
    const struct raft_configuration *configuration =
        raft_configuration_at(node->raft, node->applied, &snapshot.configuration_index);
    if (configuration == NULL) {
        world_fail(world, "node %llu: no configuration at %llu", (unsigned long long)node->id,
                   (unsigned long long)node->applied);
        return;
    }
    snapshot.position.term = raft_term_at(node->raft, node->applied);
    snapshot.configuration = world_intern(world, configuration);
    world_trace(world, "%llu takes a snapshot at %llu", (unsigned long long)node->id,
                (unsigned long long)node->applied);
    host_write(world, node, &(struct write){.kind = WRITE_OWN, .snapshot = snapshot});
}

/* --- sending ----------------------------------------------------------------------------- */
static void send_piece(struct world *world, struct node *node, uint64_t to) {
    struct sending *sending = &node->sending[to - 1];
    struct parcel *parcel = calloc(1, sizeof(*parcel));
    ASSERT(parcel != NULL);
    parcel->message = (struct raft_message){.kind = RAFT_SNAPSHOT,
                                            .from = node->id,
                                            .to = to,
                                            .term = node->state.term,
                                            .commit = node->state.commit_index,
                                            .last = sending->snapshot.position};
    parcel->snapshot = sending->snapshot;
    parcel->piece = sending->piece;
    parcel->pieces = sending->pieces;
    sending->again_us = world->now_us + AGAIN_US;
    network_send(world, node, parcel);
}

void snapshot_begin_sending(struct world *world, struct node *node, uint64_t to) {
    struct sending *sending = &node->sending[to - 1];
    if (!sending->active) { /* one that was interrupted goes on where it stopped */
        *sending = (struct sending){.active = true,
                                    .snapshot = node->disk.snapshot,
                                    .pieces = (uint32_t)world_between(world, 1, 4)};
        world_trace(
            world, "%llu sends its snapshot at %llu to %llu", (unsigned long long)node->id,
            (unsigned long long)sending->snapshot.position.index, (unsigned long long)to);
    }
    sending->tries = 0;
    send_piece(world, node, to);
}

void snapshot_tick(struct world *world, struct node *node) {
    for (uint64_t id = 1; id <= world->node_count; id++) {
        struct sending *sending = &node->sending[id - 1];
        struct raft_peer_state peer;
        if (!sending->active) {
            continue;
        }
        if (node->state.role != RAFT_LEADER || !raft_peek_peer(node->raft, id, &peer) ||
            !peer.in_snapshot) {
            sending->active = false;
            continue;
        }
        if (world->now_us >= sending->again_us && ++sending->tries < TRIES_MAX) {
            send_piece(world, node, id);
        } else if (world->now_us >= sending->again_us) {
            struct raft_outcome outcome;
            sending->active = false;
            (void)host_step(world, node,
                            &(struct raft_event){.kind = RAFT_EVENT_SNAPSHOT_FAILED, .id = id},
                            NULL, &outcome);
            continue;
        }
        host_wake(world, node, sending->again_us);
    }
}

void snapshot_wanted(struct world *world, struct node *node, const struct parcel *parcel) {
    uint64_t from = parcel->message.from;
    struct sending *sending = &node->sending[from - 1];
    if (sending->active && node->state.role == RAFT_LEADER && parcel->piece > sending->piece &&
        parcel->piece < sending->pieces &&
        parcel->message.last.index == sending->snapshot.position.index) {
        sending->piece = parcel->piece;
        sending->tries = 0;
        send_piece(world, node, from);
    }
}

/* --- receiving --------------------------------------------------------------------------- */
void snapshot_piece(struct world *world, struct node *node, const struct parcel *parcel,
                    bool wanted) {
    struct raft_position last = parcel->message.last;
    if (!wanted) {
        return;
    }
    if (node->incoming_from != parcel->message.from || node->incoming.index != last.index) {
        node->incoming_from = parcel->message.from;
        node->incoming = last;
        node->incoming_piece = 0;
        node->incoming_stored = false;
    }
    if (parcel->piece == node->incoming_piece && node->incoming_piece < parcel->pieces) {
        node->incoming_piece += 1;
    }
    if (node->incoming_piece == parcel->pieces) {
        if (!node->incoming_stored) {
            node->incoming_stored = true;
            host_write(world, node,
                       &(struct write){.kind = WRITE_RECEIVED, .snapshot = parcel->snapshot});
        }
        return;
    }
    struct parcel *want = calloc(1, sizeof(*want));
    ASSERT(want != NULL);
    want->word = WORD_WANTED;
    want->message = (struct raft_message){.kind = RAFT_SNAPSHOT_REPLY,
                                          .from = node->id,
                                          .to = parcel->message.from,
                                          .last = last};
    want->piece = node->incoming_piece;
    network_send(world, node, want);
}

/* The core has taken note of a snapshot on the disk: the state and the lines follow. */
void snapshot_outcome(struct world *world, struct node *node, const struct input *input,
                      const struct raft_outcome *outcome, enum raft_result result) {
    if (result != RAFT_OK) {
        return;
    }
    uint64_t index = input->snapshot.position.index;
    if (outcome->log_reset) {
        host_write(world, node,
                   &(struct write){.kind = WRITE_RESET, .snapshot = input->snapshot});
    } else {
        lines_drop_before(&node->lines, index + 1);
    }
    if (node->applied < index) {
        node->applied = index;
        node->applied_state = input->snapshot.state;
        checker_applied(world, node);
    }
    world_trace(world, "%llu: the log begins after %llu%s", (unsigned long long)node->id,
                (unsigned long long)index, outcome->log_reset ? ", and is empty" : "");
}
