/* Messages in flight: each waits until it is delivered, dropped or kept by name; see
 * scenario.h. */
#include <stdlib.h>
#include <string.h>

#include "scenario.h"

void flight_free(struct flight *flight) {
    free(flight->lines);
    free(flight->entries);
    *flight = (struct flight){0};
}

void network_put(struct cluster *cluster, const struct flight *flight) {
    ASSERT(cluster->flight_count < FLIGHTS_MAX);
    bool lost = cluster->cut[flight->message.from][flight->message.to];
    print_message(cluster, flight, lost ? " (lost)" : "");
    cluster->flights[cluster->flight_count++] = *flight;
    if (lost) {
        flight_free(&cluster->flights[--cluster->flight_count]);
    }
}

/* The entries of an APPEND: what the core offers, and the host says with SENT how much of it
 * went. */
static void carry_entries(const struct cluster *cluster, struct flight *flight,
                          const struct server *server) {
    struct raft_message *message = &flight->message;
    if (message->kind != RAFT_APPEND || message->end < message->first) {
        message->first = message->end = 0;
        return;
    }
    flight->count = (uint32_t)(message->end - message->first + 1);
    if (cluster->batch > 0 && flight->count > cluster->batch) {
        flight->count = (uint32_t)cluster->batch;
    }
    message->count = flight->count;
    flight->lines = calloc(flight->count, sizeof(*flight->lines));
    ASSERT(flight->lines != NULL);
    for (uint32_t i = 0; i < flight->count; i++) {
        flight->lines[i] = *lines_at(&server->lines, message->first + i);
    }
}

void network_send(struct cluster *cluster, struct server *server,
                  const struct raft_message *message) {
    struct flight flight = {.message = *message};
    if (message->kind == RAFT_SNAPSHOT) {
        flight.snapshot = server->disk.snapshot;
        flight.message.last = flight.snapshot.position;
    }
    carry_entries(cluster, &flight, server);
    network_put(cluster, &flight);
    if (flight.count > 0) {
        struct raft_outcome outcome;
        (void)!cluster_step(cluster, server,
                            &(struct raft_event){.kind = RAFT_EVENT_SENT,
                                                 .id = message->to,
                                                 .index = message->first + flight.count - 1},
                            NULL, &outcome);
    }
}

bool network_selected(const struct flight *flight, const struct selector *selector) {
    const struct raft_message *message = &flight->message;
    return (selector->from == 0 || message->from == selector->from) &&
           (selector->to == 0 || message->to == selector->to) &&
           (selector->kind == NULL || strcmp(kind_name(message), selector->kind) == 0);
}

static struct flight take(struct cluster *cluster, uint32_t at) {
    struct flight flight = cluster->flights[at];
    cluster->flight_count -= 1;
    memmove(&cluster->flights[at], &cluster->flights[at + 1],
            (cluster->flight_count - at) * sizeof(flight));
    return flight;
}

/* --- arrival ----------------------------------------------------------------------------- */
static void arrive(struct cluster *cluster, struct flight *flight) {
    struct server *server = cluster_find(cluster, flight->message.to);
    struct raft_outcome outcome;
    if (server == NULL || !server->up) {
        return;
    }
    flight->entries = calloc(flight->count + 1, sizeof(*flight->entries));
    ASSERT(flight->entries != NULL);
    for (uint32_t i = 0; i < flight->count; i++) {
        const struct line *line = &flight->lines[i];
        flight->entries[i] = (struct raft_entry){line->term, line->kind, &line->configuration};
    }
    flight->message.entries = flight->entries;
    const struct raft_event event = {.kind = RAFT_EVENT_RECEIVE, .message = &flight->message};
    (void)!cluster_step(cluster, server, &event, flight, &outcome);
    if (outcome.wanted) {
        disk_write(server,
                   &(struct write){.kind = WRITE_RECEIVED, .snapshot = flight->snapshot});
        say(cluster, "%llu writes the snapshot at %llut%llu", (unsigned long long)server->id,
            (unsigned long long)flight->snapshot.position.index,
            (unsigned long long)flight->snapshot.position.term);
    }
    cluster_turn(cluster, server);
}

/* What is in flight now, not what it brings about. */
uint32_t network_deliver(struct cluster *cluster, const struct selector *selector) {
    uint32_t delivered = 0;
    uint32_t waiting = cluster->flight_count;
    for (uint32_t at = 0; at < waiting && !(selector->first && delivered > 0);) {
        if (cluster->flights[at].kept || !network_selected(&cluster->flights[at], selector)) {
            at += 1;
            continue;
        }
        struct flight flight = take(cluster, at);
        waiting -= 1;
        delivered += 1;
        arrive(cluster, &flight);
        flight_free(&flight);
    }
    return delivered;
}

uint32_t network_drop(struct cluster *cluster, const struct selector *selector) {
    uint32_t dropped = 0;
    for (uint32_t at = 0; at < cluster->flight_count && !(selector->first && dropped > 0);) {
        if (cluster->flights[at].kept || !network_selected(&cluster->flights[at], selector)) {
            at += 1;
            continue;
        }
        struct flight flight = take(cluster, at);
        flight_free(&flight);
        dropped += 1;
    }
    return dropped;
}

uint32_t network_duplicate(struct cluster *cluster, const struct selector *selector) {
    uint32_t waiting = cluster->flight_count;
    for (uint32_t at = 0; at < waiting; at++) {
        const struct flight *flight = &cluster->flights[at];
        if (flight->kept || !network_selected(flight, selector)) {
            continue;
        }
        struct flight copy = *flight;
        if (copy.count > 0) {
            copy.lines = calloc(copy.count, sizeof(*copy.lines));
            ASSERT(copy.lines != NULL);
            memcpy(copy.lines, flight->lines, copy.count * sizeof(*copy.lines));
        }
        network_put(cluster, &copy);
    }
    return cluster->flight_count - waiting;
}

uint32_t network_keep(struct cluster *cluster, const struct selector *selector, bool kept) {
    uint32_t count = 0;
    for (uint32_t at = 0; at < cluster->flight_count; at++) {
        struct flight *flight = &cluster->flights[at];
        bool enough = selector->first && count > 0;
        if (flight->kept != kept && !enough && network_selected(flight, selector)) {
            flight->kept = kept;
            count += 1;
        }
    }
    return count;
}
