/* What must always hold, looked at after every event; see sim.h.
 *
 * Knows lines, disks and messages, but not why anything happens: a workload that forgets to do
 * something wrong cannot hide a fault from it. */
#include <stdlib.h>
#include <string.h>

#include "sim.h"

/* --- a map from two numbers to a record -------------------------------------------------- */
struct slot {
    bool used;
    uint64_t a;
    uint64_t b;
    uint64_t value;
    uint64_t extra;
};

struct map {
    struct slot *slots;
    uint64_t capacity; /* a power of two */
    uint64_t count;
};

static struct slot *map_place(struct map *map, uint64_t a, uint64_t b) {
    uint64_t at = (a * 0x9e3779b97f4a7c15u ^ b * 0xc2b2ae3d27d4eb4fu) >> 7;
    for (;; at++) {
        struct slot *slot = &map->slots[at & (map->capacity - 1)];
        if (!slot->used || (slot->a == a && slot->b == b)) {
            return slot;
        }
    }
}

static void map_grow(struct map *map) {
    struct map grown = {.capacity = map->capacity == 0 ? 256 : map->capacity * 2};
    grown.slots = calloc(grown.capacity, sizeof(*grown.slots));
    ASSERT(grown.slots != NULL);
    for (uint64_t i = 0; i < map->capacity; i++) {
        if (map->slots[i].used) {
            *map_place(&grown, map->slots[i].a, map->slots[i].b) = map->slots[i];
        }
    }
    grown.count = map->count;
    free(map->slots);
    *map = grown;
}

/* True when the record is new, or as it was before. */
static bool map_agrees(struct map *map, uint64_t a, uint64_t b, uint64_t value,
                       uint64_t extra) {
    if (map->count * 2 >= map->capacity) {
        map_grow(map);
    }
    struct slot *slot = map_place(map, a, b);
    if (slot->used) {
        return slot->value == value && slot->extra == extra;
    }
    *slot = (struct slot){true, a, b, value, extra};
    map->count += 1;
    return true;
}

/* --- the checker ------------------------------------------------------------------------- */
struct checker {
    struct map entries; /* index, term -> content, term of the entry before: log matching */
    struct map leaders; /* term -> who: election safety */
    struct map votes;   /* voter, term -> candidate */
    struct lines committed;
    uint64_t *states; /* states[i]: of the machine after entry i */
    uint64_t *terms;  /* terms[i]: of the leader that committed entry i */
    uint64_t state_capacity;
    uint64_t term_sent[NODES_MAX];
    uint64_t last_seen[NODES_MAX];
    uint32_t configuration_seen[NODES_MAX];
};

struct checker *checker_new(void) {
    struct checker *checker = calloc(1, sizeof(*checker));
    ASSERT(checker != NULL);
    checker->committed.first = 1;
    checker->state_capacity = 64;
    checker->states = calloc(checker->state_capacity, sizeof(*checker->states));
    checker->terms = calloc(checker->state_capacity, sizeof(*checker->terms));
    ASSERT(checker->states != NULL && checker->terms != NULL);
    return checker;
}

void checker_free(struct checker *checker) {
    free(checker->entries.slots);
    free(checker->leaders.slots);
    free(checker->votes.slots);
    lines_free(&checker->committed);
    free(checker->states);
    free(checker->terms);
    free(checker);
}

uint64_t checker_committed(const struct world *world) {
    return world->checker->committed.count;
}

static uint64_t content(const struct line *line) {
    return line->value * 4096 + (uint64_t)line->kind * 1024 + line->configuration % 1024;
}

/* Log matching (3.5): an entry's term and index determine it and the term of the one before it.
 */
void checker_line(struct world *world, struct node *node, uint64_t index) {
    const struct line *line = lines_at(&node->lines, index);
    const struct line *before = lines_at(&node->lines, index - 1);
    uint64_t term_before = before != NULL ? before->term : raft_term_at(node->raft, index - 1);
    if (!map_agrees(&world->checker->entries, index, line->term, content(line), term_before)) {
        world_fail(world, "node %llu: two entries at index %llu in term %llu",
                   (unsigned long long)node->id, (unsigned long long)index,
                   (unsigned long long)line->term);
    }
}

/* --- commits ----------------------------------------------------------------------------- */
static bool holds(const struct node *node, uint64_t index, uint64_t term) {
    const struct line *line = lines_at(&node->disk.lines, index);
    return node->wiped || node->damaged || node->disk.snapshot.position.index >= index ||
           (line != NULL && line->term == term);
}

static bool set_holds(const struct world *world, const struct raft_configuration *configuration,
                      bool old_set, uint64_t index, uint64_t term) {
    uint32_t voters = 0;
    uint32_t holders = 0;
    for (uint32_t i = 0; i < configuration->count; i++) {
        const struct raft_member *member = &configuration->members[i];
        if (old_set ? member->voter_before : member->voter) {
            voters += 1;
            holders += holds(&world->nodes[member->id - 1], index, term) ? 1 : 0;
        }
    }
    return voters == 0 || holders > voters / 2;
}

static bool quorum_holds(const struct world *world, uint32_t configuration, uint64_t index,
                         uint64_t term) {
    const struct raft_configuration *found = &world->configurations[configuration];
    return set_holds(world, found, false, index, term) &&
           (!found->joint || set_holds(world, found, true, index, term));
}

static void push_committed(struct checker *checker, const struct line *line, uint64_t term) {
    lines_append(&checker->committed, line);
    uint64_t index = checker->committed.count;
    if (index == checker->state_capacity) {
        checker->state_capacity *= 2;
        checker->states =
            realloc(checker->states, checker->state_capacity * sizeof(*checker->states));
        checker->terms =
            realloc(checker->terms, checker->state_capacity * sizeof(*checker->terms));
        ASSERT(checker->states != NULL && checker->terms != NULL);
    }
    checker->terms[index] = term;
    checker->states[index] = host_mix(checker->states[index - 1], line);
}

static void check_commit(struct world *world, struct node *node, uint64_t index) {
    struct checker *checker = world->checker;
    const struct line *line = lines_at(&node->lines, index);
    const struct line *known = lines_at(&checker->committed, index);
    unsigned long long id = node->id;
    if (known != NULL) {
        if (line != NULL && (line->term != known->term || content(line) != content(known))) {
            world_fail(world, "node %llu: commits another entry at %llu", id,
                       (unsigned long long)index);
        }
        return;
    }
    if (line == NULL || node->state.role != RAFT_LEADER) {
        world_fail(world, "node %llu: commits %llu before any leader did", id,
                   (unsigned long long)index);
        return;
    }
    uint32_t now = world_intern(world, raft_peek_configuration(node->raft));
    if (!quorum_holds(world, now, node->state.commit_index,
                      raft_term_at(node->raft, node->state.commit_index)) &&
        !quorum_holds(world, checker->configuration_seen[node->id - 1],
                      node->state.commit_index,
                      raft_term_at(node->raft, node->state.commit_index))) {
        world_fail(world, "node %llu: commits %llu without a durable quorum", id,
                   (unsigned long long)node->state.commit_index);
    }
    push_committed(checker, line, node->state.term);
}

/* --- leaders ----------------------------------------------------------------------------- */
static void check_leader(struct world *world, struct node *node) {
    struct checker *checker = world->checker;
    uint64_t known = checker->leaders.count;
    if (!map_agrees(&checker->leaders, node->state.term, 0, node->id, 0)) {
        world_fail(world, "node %llu: a second leader of term %llu",
                   (unsigned long long)node->id, (unsigned long long)node->state.term);
    }
    if (checker->leaders.count == known) {
        return;
    }
    world_trace(world, "%llu leads term %llu", (unsigned long long)node->id,
                (unsigned long long)node->state.term);
    for (uint64_t index = 1; index <= checker->committed.count; index++) {
        uint64_t term = checker->committed.lines[index - 1].term;
        bool before =
            checker->terms[index] < node->state.term; /* it may learn late that it won */
        if (before && index > node->state.snapshot.index &&
            raft_term_at(node->raft, index) != term) {
            world_fail(world, "node %llu: leads term %llu without the committed entry %llu",
                       (unsigned long long)node->id, (unsigned long long)node->state.term,
                       (unsigned long long)index);
            return;
        }
    }
}

/* What a leader believes of a peer must be on that peer's disk. */
static void check_peers(struct world *world, struct node *node) {
    for (uint32_t i = 0; i < world->node_count; i++) {
        struct raft_peer_state peer;
        if (!raft_peek_peer(node->raft, i + 1, &peer) ||
            world->nodes[i].disk.term > node->state.term) {
            continue; /* a later leader may have cut what this one still believes in */
        }
        if (peer.match >= peer.next) {
            world_fail(world, "node %llu: match of %u is not before next",
                       (unsigned long long)node->id, i + 1);
        }
        uint64_t term = raft_term_at(node->raft, peer.match);
        if (peer.match > node->state.snapshot.index &&
            !holds(&world->nodes[i], peer.match, term)) {
            world_fail(world, "node %llu: counts %llu on %u, which does not have it",
                       (unsigned long long)node->id, (unsigned long long)peer.match, i + 1);
        }
    }
}

/* --- after a step ------------------------------------------------------------------------ */
static void check_log(struct world *world, struct node *node) {
    const struct raft_state *state = &node->state;
    unsigned long long id = node->id;
    if (lines_last(&node->lines) != state->last.index ||
        node->lines.first > state->snapshot.index + 1) {
        world_fail(world, "node %llu: lines %llu..%llu, log ..%llu", id,
                   (unsigned long long)node->lines.first,
                   (unsigned long long)lines_last(&node->lines),
                   (unsigned long long)state->last.index);
    }
    const struct raft_configuration *in_force = raft_peek_configuration(node->raft);
    uint32_t number = world_intern(world, in_force);
    world->checker->configuration_seen[node->id - 1] = number;
    if (world->checker->last_seen[node->id - 1] == state->last.index) {
        return;
    }
    world->checker->last_seen[node->id - 1] = state->last.index;
    for (uint64_t i = state->last.index; i > state->snapshot.index; i--) {
        const struct line *line = lines_at(&node->lines, i);
        if (line->kind == RAFT_ENTRY_CONFIGURATION) {
            if (line->configuration != number || state->configuration_index != i) {
                world_fail(world, "node %llu: the configuration in force is not the last", id);
            }
            return;
        }
    }
}

/* In a term the vote changes once, from nobody; what is durable stays so, but for what was cut
 * or dropped with the whole log. */
static void check_own_disk(struct world *world, struct node *node,
                           const struct raft_outcome *outcome) {
    const struct raft_state *state = &node->state;
    if (state->term == node->term_seen && node->vote_seen != 0 &&
        state->voted_for != node->vote_seen) {
        world_fail(world, "node %llu: its vote in term %llu changes",
                   (unsigned long long)node->id, (unsigned long long)state->term);
    }
    bool cut =
        outcome->truncated_from > 0 && state->durable_index + 1 >= outcome->truncated_from;
    if (state->durable_index < node->durable_seen && !cut && !outcome->log_reset) {
        world_fail(world, "node %llu: what is durable goes back from %llu to %llu",
                   (unsigned long long)node->id, (unsigned long long)node->durable_seen,
                   (unsigned long long)state->durable_index);
    }
    node->vote_seen = state->voted_for;
    node->durable_seen = state->durable_index;
}

void checker_stepped(struct world *world, struct node *node, enum raft_result result,
                     const struct raft_outcome *outcome) {
    const struct raft_state *state = &node->state;
    unsigned long long id = node->id;
    if (result == RAFT_BAD_MESSAGE || result == RAFT_NO_MEMORY) {
        world_fail(world, "node %llu: a step ends with result %d", id, (int)result);
    }
    if (state->term < node->term_seen) {
        world_fail(world, "node %llu: the term goes back", id);
    }
    check_own_disk(world, node, outcome);
    if (state->commit_index < node->commit_seen) {
        world_fail(world, "node %llu: the commit index goes back", id);
    }
    for (uint64_t i = node->commit_seen + 1; i <= state->commit_index && !world->failed; i++) {
        check_commit(world, node, i);
    }
    if (state->term != node->term_seen) {
        world_trace(world, "%llu is in term %llu", id, (unsigned long long)state->term);
    }
    node->term_seen = state->term;
    node->commit_seen = state->commit_index;
    if (state->role == RAFT_LEADER) {
        check_leader(world, node);
        check_peers(world, node);
    }
    check_log(world, node);
}

void checker_started(struct world *world, struct node *node) {
    struct checker *checker = world->checker;
    if (node->state.term < checker->term_sent[node->id - 1]) {
        world_fail(world, "node %llu: starts in term %llu, but spoke in term %llu",
                   (unsigned long long)node->id, (unsigned long long)node->state.term,
                   (unsigned long long)checker->term_sent[node->id - 1]);
    }
    node->term_seen = node->state.term;
    node->vote_seen = node->state.voted_for;
    node->commit_seen = node->state.commit_index;
    node->durable_seen = node->state.durable_index;
    checker->last_seen[node->id - 1] = UINT64_MAX;
    for (uint64_t i = node->lines.first; i <= lines_last(&node->lines); i++) {
        checker_line(world, node, i);
    }
}

/* --- what is said ------------------------------------------------------------------------ */
static void check_acknowledgement(struct world *world, struct node *node,
                                  const struct raft_message *message) {
    uint64_t match = message->match;
    uint64_t term = raft_term_at(node->raft, match);
    const struct line *line = lines_at(&node->disk.lines, match);
    bool durable =
        node->disk.snapshot.position.index >= match || (line != NULL && line->term == term);
    if (!durable) {
        world_fail(world, "node %llu: acknowledges %llu before it is durable",
                   (unsigned long long)node->id, (unsigned long long)match);
    }
    const struct node *leader = &world->nodes[message->to - 1];
    if (leader->up && leader->state.role == RAFT_LEADER &&
        leader->state.term == message->term && match > leader->state.snapshot.index &&
        match >= node->state.snapshot.index && raft_term_at(leader->raft, match) != term) {
        world_fail(world, "node %llu: acknowledges %llu, which its leader does not have",
                   (unsigned long long)node->id, (unsigned long long)match);
    }
}

void checker_sending(struct world *world, struct node *node,
                     const struct raft_message *message) {
    struct checker *checker = world->checker;
    unsigned long long id = node->id;
    world_trace(
        world,
        "%llu -> %llu %s%s term %llu previous %llu/%llu count %u commit %llu match %llu "
        "round %llu%s%s",
        id, (unsigned long long)message->to,
        (const char *[]){"vote", "vote_reply", "append", "append_reply", "snapshot",
                         "snapshot_reply", "timeout_now"}[message->kind],
        message->pre ? " pre" : "", (unsigned long long)message->term,
        (unsigned long long)message->previous.term, (unsigned long long)message->previous.index,
        message->count, (unsigned long long)message->commit, (unsigned long long)message->match,
        (unsigned long long)message->round, message->granted ? " granted" : "",
        message->rejected ? " rejected" : "");
    world_mix(world, message->term ^ message->match << 20 ^ message->previous.index << 40);
    if (message->pre) {
        return;
    }
    if (node->disk.term < message->term && node->state.last.term < message->term) {
        world_fail(world, "node %llu: speaks in term %llu before it is durable", id,
                   (unsigned long long)message->term);
    }
    uint64_t *sent = &checker->term_sent[node->id - 1];
    *sent = message->term > *sent ? message->term : *sent;
    bool vote = message->kind == RAFT_VOTE_REPLY && message->granted;
    uint64_t candidate = message->kind == RAFT_VOTE ? node->id : message->to;
    if (vote || message->kind == RAFT_VOTE) {
        if (node->disk.term == message->term && node->disk.voted_for != candidate) {
            world_fail(world, "node %llu: a vote that is not durable", id);
        }
        if (!map_agrees(&checker->votes, node->id, message->term, candidate, 0)) {
            world_fail(world, "node %llu: votes twice in term %llu", id,
                       (unsigned long long)message->term);
        }
    }
    if ((message->kind == RAFT_APPEND_REPLY || message->kind == RAFT_SNAPSHOT_REPLY) &&
        message->match > 0) {
        check_acknowledgement(world, node, message);
    }
}

void checker_applied(struct world *world, struct node *node) {
    struct checker *checker = world->checker;
    if (node->applied > checker->committed.count ||
        node->applied_state != checker->states[node->applied]) {
        world_fail(world, "node %llu: another state at %llu", (unsigned long long)node->id,
                   (unsigned long long)node->applied);
    }
}

/* Linearizable (6.4): a read sees everything that was committed anywhere when it was asked. */
/* Its asker has yet to apply so far; the index must be right by now. */
void checker_proven(struct world *world, const struct node *node, const struct read *read) {
    world->reads_proven += 1;
    if (read->index < read->floor) {
        world_fail(world, "node %llu: a read that its asker proved, at %llu, misses %llu",
                   (unsigned long long)node->id, (unsigned long long)read->index,
                   (unsigned long long)read->floor);
    }
}

void checker_read(struct world *world, struct node *node, const struct read *read) {
    world->reads_answered += 1;
    if (read->index < read->floor || node->applied < read->floor) {
        world_fail(world, "node %llu: a read at %llu misses the commit of %llu",
                   (unsigned long long)node->id, (unsigned long long)read->index,
                   (unsigned long long)read->floor);
    }
}
