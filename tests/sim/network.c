/* Connections that break, and messages that come late, twice, or not at all; see sim.h.
 *
 * Messages of a connection that broke are never delivered after the next one is up: a server's
 * TCP connections give that. Within a connection anything may happen here, which TCP would not
 * do. */
#include <stdlib.h>
#include <string.h>

#include "sim.h"

static uint64_t *session_of(struct world *world, uint64_t a, uint64_t b) {
    uint64_t small = a < b ? a : b;
    uint64_t large = a < b ? b : a;
    return &world->session[small - 1][large - 1];
}

void parcel_free(struct parcel *parcel) {
    if (parcel != NULL) {
        free(parcel->entries);
        free(parcel->lines);
        free(parcel);
    }
}

static void tell(struct world *world, struct node *node, enum raft_event_kind kind,
                 const struct node *other) {
    struct input *input = calloc(1, sizeof(*input));
    ASSERT(input != NULL);
    input->event.kind = kind;
    input->event.id = other->id;
    input->event.incarnation = other->incarnation;
    host_input(world, node, input);
}

void network_connect_later(struct world *world, struct node *a, struct node *b) {
    world_plan(world,
               &(struct happening){.at_us = world->now_us + world_between(world, 100, 30000),
                                   .kind = HAPPEN_CONNECT,
                                   .a = (uint32_t)a->id - 1,
                                   .b = (uint32_t)b->id - 1});
}

void network_connect(struct world *world, struct node *a, struct node *b) {
    uint64_t *session = session_of(world, a->id, b->id);
    if (!a->up || !b->up || *session != 0) {
        return;
    }
    *session = world->next_session++;
    tell(world, a, RAFT_EVENT_CONNECTED, b);
    tell(world, b, RAFT_EVENT_CONNECTED, a);
}

void network_break(struct world *world, struct node *a, struct node *b, bool told) {
    uint64_t *session = session_of(world, a->id, b->id);
    if (*session == 0) {
        return;
    }
    *session = 0;
    struct node *ends[2] = {a, b};
    for (int i = 0; i < 2; i++) {
        if (ends[i]->up && told) {
            tell(world, ends[i], RAFT_EVENT_DISCONNECTED, ends[1 - i]);
        }
    }
}

void network_break_all(struct world *world, struct node *node) {
    for (uint32_t i = 0; i < world->node_count; i++) {
        struct node *other = &world->nodes[i];
        if (other != node) {
            network_break(world, node, other, world->calm || world_chance(world, 800000));
        }
    }
}

static struct parcel *copy_of(const struct parcel *parcel) {
    struct parcel *copy = malloc(sizeof(*copy));
    ASSERT(copy != NULL);
    *copy = *parcel;
    if (parcel->count > 0) {
        copy->entries = malloc(parcel->count * sizeof(*copy->entries));
        copy->lines = malloc(parcel->count * sizeof(*copy->lines));
        ASSERT(copy->entries != NULL && copy->lines != NULL);
        memcpy(copy->entries, parcel->entries, parcel->count * sizeof(*copy->entries));
        memcpy(copy->lines, parcel->lines, parcel->count * sizeof(*copy->lines));
    }
    return copy;
}

static void plan_delivery(struct world *world, struct parcel *parcel) {
    uint64_t from = parcel->message.from - 1;
    uint64_t to = parcel->message.to - 1;
    uint64_t delay_us = world_between(world, 50, 50 + world->rates.delay_us_max);
    if (world_chance(world, world->rates.slow)) {
        delay_us *= 10;
    }
    uint64_t at_us = world->now_us + delay_us;
    if (!world->rates.reorder && at_us <= world->last_arrival_us[from][to]) {
        at_us = world->last_arrival_us[from][to] + 1;
    }
    world->last_arrival_us[from][to] = at_us;
    world_plan(world,
               &(struct happening){.at_us = at_us, .kind = HAPPEN_DELIVER, .parcel = parcel});
}

void network_send(struct world *world, struct node *node, struct parcel *parcel) {
    uint64_t to = parcel->message.to;
    if (parcel->word == WORD_NONE) {
        checker_sending(world, node, &parcel->message);
    }
    parcel->session = to <= world->node_count ? *session_of(world, node->id, to) : 0;
    if (parcel->session == 0 || world->cut[node->id - 1][to - 1] ||
        world_chance(world, world->rates.drop)) {
        parcel_free(parcel);
        return;
    }
    if (world_chance(world, world->rates.twice)) {
        plan_delivery(world, copy_of(parcel));
    }
    plan_delivery(world, parcel);
}

void network_deliver(struct world *world, struct parcel *parcel) {
    struct node *node = &world->nodes[parcel->message.to - 1];
    uint64_t from = parcel->message.from;
    if (!node->up || *session_of(world, from, node->id) != parcel->session ||
        world->cut[from - 1][node->id - 1]) {
        parcel_free(parcel);
        return;
    }
    struct input *input = calloc(1, sizeof(*input));
    ASSERT(input != NULL);
    input->event.kind = RAFT_EVENT_RECEIVE;
    input->parcel = parcel;
    host_input(world, node, input);
}
