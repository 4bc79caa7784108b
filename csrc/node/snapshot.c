/* Snapshots: when to take one, and the pieces of a file on their way to or from another member.
 *
 * Must not know files: jobs carry bytes. Invariant: a snapshot that is taken holds the
 * machine's state, the sessions, the configuration and the time of exactly its index (S6). */
#include "base/assert.h"
#include "base/memory.h"
#include "node/internal.h"

#define SENDING_TIMEOUT_MS 10000u
#define PATIENCE 4u          /* times as long may the log grow while one had better wait */
#define RETRY_DOUBLED_MAX 6u /* a failure's wait grows to 64 times SNAPSHOT_RETRY_MS */
#define CHILD_TRIES 2u       /* processes that may end badly in a row: then the machine waits */

/* --- taking --- */
/* A newer snapshot would make a transfer begin anew (S8); one that is broken off for a moment
 * counts as under way. */
static bool is_being_sent(const struct node *node) {
    for (uint32_t i = 0; i < node->peer_count; i++) {
        const struct sending *sending = &node->peers[i]->sending;
        if (sending->total > 0 && sending->offset < sending->total &&
            sending->position.index == node->snapshots.position.index &&
            node->now_ms - sending->progress_ms < SENDING_TIMEOUT_MS) {
            return true;
        }
    }
    return false;
}

/* While a snapshot is on its way to another member, and while it is another member's turn, the
 * log may grow further, but not for ever. */
static bool wants_by_itself(struct node *node) {
    const struct snapshots *snapshots = &node->snapshots;
    uint64_t threshold = node->snapshot_log_bytes;
    if (snapshots->bytes > threshold) {
        threshold = snapshots->bytes;
    }
    if (snapshots->log_bytes <= threshold) {
        return false;
    }
    return snapshots->log_bytes / PATIENCE > threshold ||
           (!is_being_sent(node) && turn_is_ours(node));
}

static void capture_header(struct node *node, struct job *job) {
    const struct applies *applies = &node->applies;
    struct snapshot_header *header = &job->header;
    memcpy(header->cluster_id, node->meta.cluster_id, sizeof(header->cluster_id));
    header->index = applies->handed;
    header->term = raft_term_at(node->raft, applies->handed);
    header->chain_crc = applies->handed_crc;
    header->time_ms = applies->handed_time_ms;
    header->tag_count = applies->tag_count;
    memcpy(header->tags, applies->tags, applies->tag_count * sizeof(struct entry_tag));
    raft_configuration_at(node->raft, applies->handed, &header->configuration_index);
    configuration_write(&job->configuration, members_at(node, applies->handed));
    job->snapshot = (struct raft_position){header->term, header->index};
    job->chain_crc = header->chain_crc;
}

static void push_simple(struct node *node, enum job_kind kind) {
    node_push_job(node, job_new(kind));
}

static void begin_taking(struct node *node) {
    struct snapshots *snapshots = &node->snapshots;
    snapshots->taking = true;
    snapshots->file_ready = false;
    snapshots->taking_since_ms = node->now_ms;
    push_simple(node, JOB_SNAPSHOT_BEGIN);
}

/* A line for each client's session, as of what the machine has answered. */
static void write_sessions(const struct node *node, struct buffer *head, uint32_t seed) {
    struct buffer lines;
    buffer_init(&lines);
    sessions_write(&node->applies.sessions, &lines);
    for (struct span rest = buffer_span(&lines); rest.size > 0;) {
        const char *lf = memchr(rest.data, '\n', rest.size);
        size_t bytes = (size_t)(lf - rest.data);
        seed = snapshot_write_session(head, (struct span){rest.data, bytes}, seed);
        rest = (struct span){lf + 1, rest.size - bytes - 1};
    }
    buffer_free(&lines);
}

/* The file is there, and the machine has answered all that it was given, so that the answers
 * which sessions keep are those up to here: the state is wanted as of here (S6). */
static void ask_machine(struct node *node) {
    struct snapshots *snapshots = &node->snapshots;
    struct buffer head;
    buffer_init(&head);
    snapshots->take = job_new(JOB_SNAPSHOT_TAKE);
    capture_header(node, snapshots->take);
    snapshots->take->header.configuration = buffer_span(&snapshots->take->configuration);
    uint32_t seed = snapshot_write_header(&head, &snapshots->take->header);
    write_sessions(node, &head, seed);
    snapshots->file_ready = false;
    snapshots->taking_log_bytes = snapshots->log_bytes;
    apply_snapshot_item(node, buffer_span(&head), snapshots->child_failures >= CHILD_TRIES);
    buffer_free(&head);
}

/* A cause that stays is not met every second for ever. */
static uint64_t retry_ms(const struct node *node) {
    const struct snapshots *snapshots = &node->snapshots;
    uint32_t doubled = snapshots->failures > 0 ? snapshots->failures - 1 : 0;
    bool asked = admin_wants_snapshot(node);
    uint64_t wait = asked ? SNAPSHOT_RETRY_MS
                          : (uint64_t)SNAPSHOT_RETRY_MS
                                << (doubled < RETRY_DOUBLED_MAX ? doubled : RETRY_DOUBLED_MAX);
    return snapshots->failures == 0 ? 0 : snapshots->failed_ms + wait;
}

static bool may_take(const struct node *node) {
    const struct snapshots *snapshots = &node->snapshots;
    return !snapshots->taking && !snapshots->installing && !node->applies.restoring &&
           !node->stopped && !node->stopping &&
           node->applies.handed > snapshots->position.index && node->now_ms >= retry_ms(node) &&
           members_at(node, node->applies.handed) != NULL; /* S6; a hostile leader */
}

void snapshot_tick(struct node *node) {
    struct snapshots *snapshots = &node->snapshots;
    turn_tick(node);
    if (may_take(node) && (admin_wants_snapshot(node) || wants_by_itself(node))) {
        begin_taking(node);
    }
    if (snapshots->taking) {
        turn_keep(node);
    }
    if (snapshots->file_ready && !node->applies.restoring && apply_has_room(node) &&
        node->applies.applied == node->applies.handed) {
        ask_machine(node);
    }
    for (uint32_t i = 0; i < node->peer_count; i++) {
        struct sending *sending = &node->peers[i]->sending;
        if (sending->active && node->now_ms - sending->progress_ms >= SENDING_TIMEOUT_MS) {
            sending->active = false; /* it may go on later */
            struct raft_event event = {.kind = RAFT_EVENT_SNAPSHOT_FAILED,
                                       .id = node->peers[i]->id};
            execute_quietly(node, &event);
        }
    }
}

/* A newer one was installed meanwhile: nothing is wrong, and nothing is taken. */
static void forget_taking(struct node *node) {
    struct snapshots *snapshots = &node->snapshots;
    job_free(snapshots->take);
    snapshots->take = NULL;
    snapshots->taking = false;
    snapshots->file_ready = false;
    turn_end(node);
}

static void stop_taking(struct node *node, enum rpc_code code, const char *reason) {
    struct snapshots *snapshots = &node->snapshots;
    forget_taking(node);
    snapshots->failures++;
    snapshots->failed_ms = node->now_ms;
    apply_notice(node, "error", "snapshot", "no snapshot could be taken: %s", reason);
    admin_snapshot_failed(node, code, reason);
}

/* How a job on the way to our own snapshot failed. True: it did, and that was dealt with. */
static bool taking_failed(struct node *node, const struct job *job) {
    switch (job->status) {
    case STATUS_OK:
        return false;
    case STATUS_INVALID:
        forget_taking(node); /* a newer one was installed before it */
        return true;
    case STATUS_NO_SPACE:
    case STATUS_CORRUPT:
        stop_taking(node, RPC_STORAGE_FAILURE, job->error.text);
        return true;
    case STATUS_NO_MEMORY:
    case STATUS_IO:
    case STATUS_LOCKED:
    case STATUS_MISMATCH:
    case STATUS_NOT_FOUND:
    case STATUS_CLOSED:
    case STATUS_TIMEOUT:
    case STATUS_PYTHON:
        break;
    }
    node_fail(node, job->status, job->error.text);
    return true;
}

static void begun(struct node *node, struct job *job) {
    node->snapshots.file_ready = !taking_failed(node, job);
}

void node_snapshot_written(struct node *node, enum status status, const char *reason) {
    struct snapshots *snapshots = &node->snapshots;
    ASSERT(snapshots->take != NULL);
    bool child_failed = status == STATUS_CLOSED || status == STATUS_TIMEOUT;
    snapshots->child_failures = child_failed ? snapshots->child_failures + 1 : 0;
    if (status == STATUS_OK && snapshots->take->snapshot.index > snapshots->position.index) {
        push_simple(node, JOB_SNAPSHOT_CHECK);
        return;
    }
    push_simple(node, JOB_SNAPSHOT_DROP);
    if (status == STATUS_OK) {
        forget_taking(node); /* a newer one came from the leader meanwhile */
    } else if (status == STATUS_INVALID) {
        stop_taking(node, RPC_MACHINE_ERROR, reason);
    } else if (status == STATUS_NO_SPACE || child_failed) {
        stop_taking(node, RPC_STORAGE_FAILURE, reason);
    } else {
        node_fail(node, status, reason);
    }
}

/* Piece by piece, so that writes of the log come in between. */
static void checked(struct node *node, struct job *job) {
    struct snapshots *snapshots = &node->snapshots;
    if (taking_failed(node, job)) {
        return;
    }
    if (!job->whole) {
        push_simple(node, JOB_SNAPSHOT_CHECK);
        return;
    }
    struct job *take = snapshots->take;
    snapshots->take = NULL;
    take->total = job->total;
    node_push_job(node, take);
}

static void compact(struct node *node, uint64_t base) {
    struct raft_event event = {.kind = RAFT_EVENT_COMPACTED,
                               .position = {raft_term_at(node->raft, base), base}};
    struct raft_outcome outcome;
    if (base > node->snapshots.base && execute_step(node, &event, &outcome) == RAFT_OK) {
        node->snapshots.base = base;
        members_compact(node, base);
    }
}

static void taken(struct node *node, struct job *job) {
    struct snapshots *snapshots = &node->snapshots;
    if (taking_failed(node, job)) {
        return;
    }
    snapshots->taking = false;
    snapshots->failures = 0;
    turn_end(node);
    if (job->snapshot.index <= snapshots->position.index) {
        return;
    }
    apply_notice(node, "info", "snapshot", "took a snapshot at index %llu: %llu bytes, %llu ms",
                 (unsigned long long)job->snapshot.index, (unsigned long long)job->total,
                 (unsigned long long)(node->now_ms - snapshots->taking_since_ms));
    snapshots->position = job->snapshot;
    snapshots->chain_crc = job->chain_crc;
    snapshots->time_ms = job->header.time_ms;
    snapshots->bytes = job->total;
    snapshots->log_bytes -= snapshots->taking_log_bytes < snapshots->log_bytes
                                ? snapshots->taking_log_bytes
                                : snapshots->log_bytes;
    if (job->snapshot.index > COMPACT_KEEP_ENTRIES) {
        compact(node, job->snapshot.index - COMPACT_KEEP_ENTRIES);
    }
}

/* --- sending --- */
static void read_chunk(struct node *node, struct peer *peer) {
    struct job *job = job_new(JOB_SNAPSHOT_READ);
    job->reader = peer->id;
    job->snapshot = peer->sending.position;
    job->offset = peer->sending.offset;
    peer->sending.reading = true;
    node_push_job(node, job);
}

void snapshot_send(struct node *node, struct peer *peer) {
    struct sending *sending = &peer->sending;
    if (sending->active || node->snapshots.position.index == 0) {
        return;
    }
    bool reading = sending->reading;
    /* After a break it goes on where it was; the receiver, who knows, corrects that (S8). */
    bool same = sending->position.index == node->snapshots.position.index &&
                sending->position.term == node->snapshots.position.term &&
                sending->offset < sending->total;
    *sending = (struct sending){.active = true,
                                .reading = reading,
                                .position = node->snapshots.position,
                                .offset = same ? sending->offset : 0,
                                .progress_ms = node->now_ms};
    if (!reading) {
        read_chunk(node, peer);
    }
}

void snapshot_sent(struct peer *peer) {
    peer->sending.active = false;
    peer->sending.total = 0;
}

static void chunk_read(struct node *node, struct job *job) {
    struct peer *peer = peers_find(node, job->reader);
    if (peer == NULL) {
        return;
    }
    struct sending *sending = &peer->sending;
    sending->reading = false;
    if (job->status != STATUS_OK && job->status != STATUS_NOT_FOUND) {
        node_fail(node, job->status, job->error.text);
        return;
    }
    if (!sending->active || node->state.role != RAFT_LEADER || peer->stage != PEER_READY) {
        return;
    }
    bool current = job->status == STATUS_OK && job->snapshot.index == sending->position.index &&
                   job->offset == sending->offset;
    if (!current) { /* replaced by a newer one, or asked to go on elsewhere: from there */
        if (job->status != STATUS_OK || job->snapshot.index != sending->position.index) {
            sending->position = node->snapshots.position;
            sending->offset = 0;
        }
        read_chunk(node, peer);
        return;
    }
    sending->total = job->total;
    struct peer_message message = {.kind = PEER_SNAPSHOT,
                                   .raft = {.term = node->state.term,
                                            .commit = node->state.commit_index,
                                            .last = sending->position},
                                   .offset = sending->offset,
                                   .total = sending->total,
                                   .bytes = buffer_count(&job->data)};
    conn_send_message(node, peer->out, &message);
    buffer_append_span(&peer->out->out, buffer_span(&job->data));
}

void snapshot_receive_want(struct node *node, struct peer *peer,
                           const struct peer_message *message) {
    struct sending *sending = &peer->sending;
    if (!sending->active || peer->stage != PEER_READY ||
        message->raft.last.index != sending->position.index ||
        message->raft.last.term != sending->position.term ||
        (sending->total > 0 && message->offset > sending->total)) {
        return;
    }
    sending->offset = message->offset;
    sending->progress_ms = node->now_ms;
    if (!sending->reading && conn_backlog(peer->out) < PEER_OUT_BYTES_MAX &&
        (sending->total == 0 || sending->offset < sending->total)) {
        read_chunk(node, peer);
    }
}

/* --- receiving --- */
static void want_more(struct node *node) {
    struct snapshots *snapshots = &node->snapshots;
    struct peer *peer = peers_find_ready(node, snapshots->from);
    if (peer != NULL) {
        conn_send_message(node, peer->out,
                          &(struct peer_message){.kind = PEER_SNAPSHOT_WANT,
                                                 .raft = {.last = snapshots->incoming},
                                                 .offset = snapshots->incoming_offset});
    }
}

void snapshot_connected(struct node *node, struct peer *peer) {
    const struct snapshots *snapshots = &node->snapshots;
    if (snapshots->receiving && snapshots->from == peer->id && !snapshots->incoming_busy &&
        !snapshots->installing) {
        want_more(node); /* the last one may be lost with the connection before */
    }
}

void snapshot_receive_piece(struct node *node, struct peer *peer,
                            const struct peer_message *message, struct span payload) {
    struct snapshots *snapshots = &node->snapshots;
    struct raft_message in = message->raft;
    in.from = peer->id;
    in.to = node->meta.node_id;
    struct raft_event event = {.kind = RAFT_EVENT_RECEIVE, .message = &in};
    struct raft_outcome outcome;
    if (execute_step(node, &event, &outcome) != RAFT_OK || !outcome.wanted ||
        snapshots->installing || snapshots->incoming_busy) {
        return;
    }
    bool same = snapshots->receiving && snapshots->incoming.index == in.last.index &&
                snapshots->incoming.term == in.last.term &&
                snapshots->incoming_total == message->total;
    if (!same) {
        snapshots->receiving = true;
        snapshots->incoming = in.last;
        snapshots->incoming_offset = 0;
        snapshots->incoming_total = message->total;
    }
    snapshots->from = peer->id;
    if (message->offset != snapshots->incoming_offset || payload.size == 0 ||
        payload.size > message->total - message->offset) {
        want_more(node);
        return;
    }
    struct job *job = job_new(JOB_SNAPSHOT_RECEIVE);
    job->snapshot = in.last;
    job->offset = message->offset;
    buffer_append_span(&job->data, payload);
    snapshots->incoming_busy = true;
    node_push_job(node, job);
}

static void piece_written(struct node *node, struct job *job) {
    struct snapshots *snapshots = &node->snapshots;
    snapshots->incoming_busy = false;
    if (job->status != STATUS_OK) {
        bool theirs = job->status == STATUS_CORRUPT || job->status == STATUS_INVALID;
        snapshots->receiving = false; /* the next piece begins anew */
        if (!theirs && job->status != STATUS_NO_SPACE) {
            node_fail(node, job->status, job->error.text);
        }
        return;
    }
    snapshots->incoming_offset += buffer_count(&job->data);
    if (snapshots->incoming_offset < snapshots->incoming_total) {
        want_more(node);
        return;
    }
    struct job *install = job_new(JOB_SNAPSHOT_INSTALL);
    install->snapshot = snapshots->incoming;
    install->reset_log =
        raft_term_at(node->raft, snapshots->incoming.index) != snapshots->incoming.term;
    snapshots->installing = true;
    node_push_job(node, install);
}

static void load(struct node *node, uint64_t index) {
    struct job *job = job_new(JOB_SNAPSHOT_LOAD);
    job->snapshot.index = index;
    node->applies.restoring = true;
    node_push_job(node, job);
}

/* The machine's past is behind the snapshot: everything jumps to it. */
static void jump(struct node *node, const struct job *job) {
    struct applies *applies = &node->applies;
    if (applies->handed >= job->header.index) {
        return;
    }
    for (uint32_t i = 0; i < job->header.tag_count; i++) {
        const struct entry_tag *tag = &job->header.tags[i];
        if (tag->node == node->meta.node_id && tag->incarnation == node->meta.incarnation) {
            pending_overtaken(node, tag->sequence);
        }
    }
    apply_load_tags(node, &job->header);
    sessions_clear(&applies->sessions); /* the file's come with the machine's state */
    applies->handed = job->header.index;
    applies->handed_crc = job->header.chain_crc;
    applies->handed_time_ms = job->header.time_ms;
    load(node, job->header.index);
}

static void start_log_after(struct node *node, const struct job *job,
                            const struct cluster *cluster) {
    entries_clear(&node->entries);
    entries_init(&node->entries, job->header.index, job->header.chain_crc, job->header.time_ms);
    node->snapshots.base = job->header.index;
    node->snapshots.log_bytes = 0;
    members_reset(node, job->header.configuration_index, cluster);
}

static void installed(struct node *node, struct job *job) {
    struct snapshots *snapshots = &node->snapshots;
    snapshots->installing = false;
    snapshots->receiving = false;
    if (job->status == STATUS_CORRUPT) {
        apply_notice(node, "error", "snapshot", "a snapshot arrived damaged: %s",
                     job->error.text);
        snapshots->incoming_offset = 0;
        want_more(node);
        return;
    }
    if (job->status == STATUS_INVALID || job->status == STATUS_NO_SPACE) {
        return; /* our own became newer, or there is no room: the leader tries again */
    }
    struct cluster *cluster = memory_must_alloc_zero(sizeof(*cluster));
    if (job->status != STATUS_OK ||
        configuration_read(buffer_span(&job->configuration), cluster) != STATUS_OK) {
        node_fail(node, job->status == STATUS_OK ? STATUS_CORRUPT : job->status,
                  job->error.text[0] ? job->error.text : "a snapshot without a configuration");
        memory_free(cluster);
        return;
    }
    if (job->reset_log) {
        execute_log_replaced(node, job->header.index);
    }
    snapshots->position = job->snapshot;
    snapshots->chain_crc = job->header.chain_crc;
    snapshots->time_ms = job->header.time_ms;
    snapshots->bytes = snapshots->incoming_total;
    struct raft_event event = {.kind = RAFT_EVENT_INSTALLED,
                               .position = job->snapshot,
                               .configuration = &cluster->raft,
                               .configuration_index = job->header.configuration_index};
    struct raft_outcome outcome;
    if (execute_step(node, &event, &outcome) != RAFT_OK) {
        jump(node, job); /* our log is past it already; the machine may not be */
        memory_free(cluster);
        return;
    }
    if (outcome.log_reset) {
        start_log_after(node, job, cluster);
    }
    jump(node, job);
    apply_notice(node, "info", "snapshot", "installed the leader's snapshot at index %llu",
                 (unsigned long long)job->header.index);
    memory_free(cluster);
}

static void loaded(struct node *node, struct job *job) {
    bool replaced = job->snapshot.index != node->snapshots.position.index;
    if (job->status == STATUS_NOT_FOUND && replaced) { /* by a newer one */
        load(node, node->snapshots.position.index);
        return;
    }
    if (job->status != STATUS_OK) {
        node_fail(node, job->status, job->error.text);
        return;
    }
    if (sessions_read(&node->applies.sessions, buffer_span(&job->sessions),
                      job->snapshot.index) != STATUS_OK) {
        node_fail(node, STATUS_CORRUPT, "a snapshot's sessions are not what was written");
        return;
    }
    node->applies.restoring = false;
    apply_restore(node, job->cargo);
    job->cargo = NULL;
}

void snapshot_job_done(struct node *node, struct job *job) {
    switch (job->kind) {
    case JOB_SNAPSHOT_BEGIN:
        begun(node, job);
        return;
    case JOB_SNAPSHOT_CHECK:
        checked(node, job);
        return;
    case JOB_SNAPSHOT_TAKE:
        taken(node, job);
        return;
    case JOB_SNAPSHOT_DROP:
        return;
    case JOB_SNAPSHOT_READ:
        chunk_read(node, job);
        return;
    case JOB_SNAPSHOT_RECEIVE:
        piece_written(node, job);
        return;
    case JOB_SNAPSHOT_INSTALL:
        installed(node, job);
        return;
    case JOB_SNAPSHOT_LOAD:
        loaded(node, job);
        return;
    case JOB_WRITE:
    case JOB_READ:
    case JOB_CLEAR_QUARANTINE:
        return;
    }
}
