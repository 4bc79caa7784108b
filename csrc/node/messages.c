/* The core's messages on their way out and in: ranges of the log become lines, lines become
 * positions.
 *
 * Invariant: a line enters our log only when its seal continues our own chain. */
#include "base/assert.h"
#include "base/memory.h"
#include "node/internal.h"
#include "wire/line.h"

/* --- out --- */
static enum peer_kind wire_kind(enum raft_message_kind kind) {
    switch (kind) {
    case RAFT_VOTE:
        return PEER_VOTE;
    case RAFT_VOTE_REPLY:
        return PEER_VOTE_REPLY;
    case RAFT_APPEND:
        return PEER_APPEND;
    case RAFT_APPEND_REPLY:
        return PEER_APPEND_REPLY;
    case RAFT_SNAPSHOT:
        return PEER_SNAPSHOT;
    case RAFT_SNAPSHOT_REPLY:
        return PEER_SNAPSHOT_REPLY;
    case RAFT_TIMEOUT_NOW:
        return PEER_TIMEOUT_NOW;
    }
    ASSERT(false && "a kind of its own");
    return PEER_VOTE;
}

static void sent(struct node *node, struct peer *peer, uint64_t index) {
    execute_quietly(
        node, &(struct raft_event){.kind = RAFT_EVENT_SENT, .id = peer->id, .index = index});
}

static void read_back(struct node *node, struct peer *peer, uint64_t first, uint64_t last) {
    if (peer->reading) {
        return;
    }
    struct job *job = job_new(JOB_READ);
    job->reader = peer->id;
    job->first = first;
    job->last = last < node->entries.first ? last : node->entries.first - 1;
    peer->reading = true;
    node_push_job(node, job);
}

/* Old lines that were read back for this peer, from `first` on; returns the index behind them.
 */
static uint64_t copy_old(struct peer *peer, uint64_t first, struct buffer *lines) {
    struct span rest = buffer_span(&peer->old_lines);
    uint64_t index = peer->old_first;
    while (index < first) {
        const char *end = memchr(rest.data, '\n', rest.size);
        ASSERT(end != NULL);
        size_t bytes = (size_t)(end + 1 - rest.data);
        rest = (struct span){rest.data + bytes, rest.size - bytes};
        index++;
    }
    buffer_append_span(lines, rest);
    index = peer->old_last + 1;
    buffer_free(&peer->old_lines);
    peer->old_first = peer->old_last = 0;
    return index;
}

/* Of lines that were sent and are not acknowledged, as far as they are in memory. */
static uint64_t bytes_in_flight(const struct node *node, const struct peer *peer,
                                uint64_t first) {
    struct raft_peer_state progress;
    if (!raft_peek_peer(node->raft, peer->id, &progress) || progress.match + 1 >= first) {
        return 0;
    }
    return entries_bytes_after(&node->entries, progress.match) -
           entries_bytes_after(&node->entries, first - 1);
}

static uint64_t copy_lines(struct node *node, struct peer *peer,
                           const struct raft_message *message, struct buffer *lines) {
    uint64_t first = message->first;
    if (first > message->end || conn_backlog(peer->out) >= PEER_OUT_BYTES_MAX ||
        bytes_in_flight(node, peer, first) >= PEER_IN_FLIGHT_BYTES_MAX) {
        return first;
    }
    if (first >= node->entries.first) {
        return entries_copy(&node->entries, first, message->end, APPEND_BYTES_MAX, lines, NULL);
    }
    if (peer->old_first > 0 && first >= peer->old_first && first <= peer->old_last &&
        peer->old_last <= message->end) {
        return copy_old(peer, first, lines);
    }
    read_back(node, peer, first, message->end);
    return first;
}

static void send_append(struct node *node, struct peer *peer,
                        const struct raft_message *message) {
    struct peer_message line = {.kind = PEER_APPEND, .raft = *message};
    struct buffer lines;
    buffer_init(&lines);
    uint64_t end = copy_lines(node, peer, message, &lines);
    line.count = end - message->first;
    line.bytes = buffer_count(&lines);
    if (message->first > message->end) {
        line.count = 0;
    }
    conn_send_message(node, peer->out, &line);
    buffer_append_span(&peer->out->out, buffer_span(&lines));
    buffer_free(&lines);
    if (message->first <= message->end) {
        sent(node, peer, end - 1);
    }
}

void messages_send(struct node *node, const struct raft_message *message) {
    struct peer *peer = peers_find_ready(node, message->to);
    if (message->kind == RAFT_SNAPSHOT) {
        struct peer *to = peers_find(node, message->to);
        if (to != NULL) {
            snapshot_send(node, to);
        }
        return;
    }
    if (peer == NULL) {
        return; /* lost, as a message may be: the core sends again */
    }
    if (message->kind == RAFT_APPEND) {
        send_append(node, peer, message);
    } else {
        conn_send_message(
            node, peer->out,
            &(struct peer_message){.kind = wire_kind(message->kind), .raft = *message});
    }
}

void messages_read_done(struct node *node, struct job *job) {
    struct peer *peer = peers_find(node, job->reader);
    if (peer == NULL) {
        return;
    }
    peer->reading = false;
    if (job->status != STATUS_OK && job->status != STATUS_NOT_FOUND) {
        node_fail(node, job->status, job->error.text);
        return;
    }
    struct raft_peer_state progress;
    if (job->status != STATUS_OK || !raft_peek_peer(node->raft, peer->id, &progress)) {
        return; /* compacted meanwhile: the core finds out and sends a snapshot */
    }
    buffer_free(&peer->old_lines);
    peer->old_lines = job->data;
    buffer_init(&job->data);
    peer->old_first = job->first;
    peer->old_last = job->last;
    execute_quietly(node, &(struct raft_event){.kind = RAFT_EVENT_ROOM, .id = peer->id});
}

/* --- in --- */
struct arrivals {
    struct raft_entry *entries;
    struct span *lines;
    uint32_t *crcs;
    uint64_t *times;
    struct cluster *clusters; /* of the configurations among them, in order */
    uint32_t cluster_count;
    uint32_t count;
};

static void arrivals_free(struct arrivals *arrivals) {
    memory_free(arrivals->entries);
    memory_free(arrivals->lines);
    memory_free(arrivals->crcs);
    memory_free(arrivals->times);
    memory_free(arrivals->clusters);
}

static void arrivals_reserve(struct arrivals *arrivals, uint64_t count) {
    *arrivals = (struct arrivals){
        .entries = memory_must_alloc_zero(count * sizeof(struct raft_entry)),
        .lines = memory_must_alloc_zero(count * sizeof(struct span)),
        .crcs = memory_must_alloc_zero(count * sizeof(uint32_t)),
        .times = memory_must_alloc_zero(count * sizeof(uint64_t)),
    };
}

/* The checksum that the entry behind `previous` must go on from; false where we do not know. */
static bool chain_seed(const struct node *node, struct raft_position previous, uint32_t *seed) {
    if (previous.index == 0) {
        *seed = 0;
        return true;
    }
    if (previous.index > node->entries.last ||
        raft_term_at(node->raft, previous.index) != previous.term) {
        return false; /* the core refuses such an append anyway */
    }
    if (previous.index == node->entries.last) {
        *seed = node->entries.tail_crc;
        return true;
    }
    struct span body;
    struct span line = entries_peek(&node->entries, previous.index);
    return line.size > 0 && line_peek_crc(line, &body, seed) == STATUS_OK;
}

static bool read_configuration(struct arrivals *arrivals, uint32_t at,
                               const struct entry *entry) {
    if (arrivals->clusters == NULL) {
        /* Pointers into it go to the core, so it must not move: room for all that can be. */
        arrivals->clusters =
            memory_must_alloc_zero(CONFIGURATIONS_MAX * sizeof(struct cluster));
    }
    struct cluster *cluster = &arrivals->clusters[arrivals->cluster_count];
    if (arrivals->cluster_count == CONFIGURATIONS_MAX ||
        configuration_read(entry->body, cluster) != STATUS_OK) {
        return false;
    }
    arrivals->cluster_count++;
    arrivals->entries[at].configuration = &cluster->raft;
    return true;
}

static enum raft_entry_kind core_kind(enum entry_kind kind) {
    switch (kind) {
    case ENTRY_COMMAND:
        return RAFT_ENTRY_COMMAND;
    case ENTRY_NOOP:
        return RAFT_ENTRY_NOOP;
    case ENTRY_CONFIGURATION:
        return RAFT_ENTRY_CONFIGURATION;
    }
    return RAFT_ENTRY_COMMAND;
}

static bool read_arrival(struct arrivals *arrivals, struct span line, uint64_t index,
                         bool seeded, uint32_t *seed) {
    struct entry entry;
    struct span body;
    uint32_t crc;
    enum status status =
        seeded ? entry_read(line, *seed, &entry, &crc) : entry_parse(line, &entry);
    if (status != STATUS_OK || entry.index != index ||
        (!seeded && line_peek_crc(line, &body, &crc) != STATUS_OK)) {
        return false;
    }
    uint32_t at = arrivals->count++;
    arrivals->lines[at] = line;
    arrivals->crcs[at] = crc;
    arrivals->times[at] = entry.time_ms;
    arrivals->entries[at] =
        (struct raft_entry){.term = entry.term, .kind = core_kind(entry.kind)};
    *seed = crc;
    return entry.kind != ENTRY_CONFIGURATION || read_configuration(arrivals, at, &entry);
}

/* Lines of a payload to positions, checked against our chain; false: not what a leader sends.
 */
static bool read_arrivals(struct node *node, const struct peer_message *message,
                          struct span payload, struct arrivals *arrivals) {
    uint32_t seed = 0;
    bool seeded = chain_seed(node, message->raft.previous, &seed);
    for (uint64_t i = 0; i < message->count; i++) {
        const char *end = memchr(payload.data, '\n', payload.size);
        if (end == NULL) {
            return false;
        }
        size_t bytes = (size_t)(end + 1 - payload.data);
        if (!read_arrival(arrivals, (struct span){payload.data, bytes},
                          message->raft.previous.index + 1 + i, seeded, &seed)) {
            return false;
        }
        seeded = true;
        payload = (struct span){payload.data + bytes, payload.size - bytes};
    }
    return payload.size == 0;
}

static void keep_lines(struct node *node, const struct arrivals *arrivals, uint64_t first_index,
                       const struct raft_outcome *outcome) {
    uint32_t cluster = 0;
    for (uint32_t i = 0; i < arrivals->count; i++) {
        uint64_t index = first_index + i;
        bool configures = arrivals->entries[i].kind == RAFT_ENTRY_CONFIGURATION;
        if (index >= outcome->first && index <= outcome->last) {
            ASSERT(index == node->entries.last + 1);
            struct span line = arrivals->lines[i];
            struct buffer *text = entries_begin(&node->entries, line.size);
            size_t start = text->size;
            buffer_append_span(text, line);
            entries_commit(&node->entries, start, arrivals->crcs[i], arrivals->times[i]);
            node->snapshots.log_bytes += line.size;
            if (configures) {
                members_add(node, index, &arrivals->clusters[cluster]);
            }
        }
        cluster += configures;
    }
}

static void receive_append(struct node *node, struct peer *peer,
                           const struct peer_message *message, struct span payload) {
    bool takes = !node->snapshots.installing && !execute_is_behind(node);
    uint64_t count = takes ? message->count : 0; /* what is not taken is sent again */
    if (message->count > payload.size / ENTRY_LINE_BYTES_LEAST) {
        conn_close(node, peer->in); /* before room is made for so many */
        return;
    }
    struct arrivals arrivals;
    arrivals_reserve(&arrivals, count);
    if (count > 0 && !read_arrivals(node, message, payload, &arrivals)) {
        apply_notice(node, "error", "peer",
                     "entries from %s do not continue this member's log: refused",
                     peer->address);
        arrivals_free(&arrivals);
        conn_close(node, peer->in);
        return;
    }
    struct raft_message in = message->raft;
    in.from = peer->id;
    in.to = node->meta.node_id;
    in.count = arrivals.count;
    in.entries = arrivals.entries;
    struct raft_event event = {.kind = RAFT_EVENT_RECEIVE, .message = &in};
    struct raft_outcome outcome;
    enum raft_result result = execute_step(node, &event, &outcome);
    if (outcome.first <= outcome.last && outcome.first > 0) {
        keep_lines(node, &arrivals, message->raft.previous.index + 1, &outcome);
    }
    arrivals_free(&arrivals);
    if (result == RAFT_BAD_MESSAGE) {
        apply_notice(node, "error", "peer", "an impossible message from %s was refused",
                     peer->address);
    }
    ASSERT(node->entries.last == node->state.last.index);
}

void messages_receive(struct node *node, struct peer *peer, const struct peer_message *message,
                      struct span payload) {
    if (message->kind == PEER_APPEND) {
        receive_append(node, peer, message, payload);
        return;
    }
    if (message->kind == PEER_SNAPSHOT_REPLY) {
        snapshot_sent(peer);
    }
    struct raft_message in = message->raft;
    in.from = peer->id;
    in.to = node->meta.node_id;
    struct raft_event event = {.kind = RAFT_EVENT_RECEIVE, .message = &in};
    struct raft_outcome outcome;
    if (execute_step(node, &event, &outcome) == RAFT_BAD_MESSAGE) {
        apply_notice(node, "error", "peer", "an impossible message from %s was refused",
                     peer->address);
    }
}
