/* Snapshots: when to take one, and the pieces of a file on their way to or from another member.
 *
 * Must not know files: jobs carry bytes. Invariant: a snapshot that is taken holds the
 * machine's state, the sessions, the configuration and the time of exactly its index (S6). */
#include "base/memory.h"
#include "node/internal.h"

#define SENDING_TIMEOUT_MS 10000u

/* --- taking --- */
/* Members reach the threshold at different sizes, so that they do not all stop to save at once
 * (S15). */
static bool log_outgrew_state(const struct node *node) {
    const struct snapshots *snapshots = &node->snapshots;
    uint64_t threshold = node->snapshot_log_bytes;
    if (snapshots->bytes > threshold) {
        threshold = snapshots->bytes;
    }
    threshold += threshold / 8 * (node->meta.node_id % 4);
    return snapshots->log_bytes > threshold;
}

static void capture_header(struct node *node, struct job *job) {
    const struct applies *applies = &node->applies;
    struct snapshot_header *header = &job->header;
    memcpy(header->cluster_id, node->meta.cluster_id, sizeof(header->cluster_id));
    header->index = applies->handed;
    header->term = raft_term_at(node->raft, applies->handed);
    header->chain_crc = applies->handed_crc;
    header->time_ms = applies->handed_time_ms;
    header->session_count = applies->session_count;
    memcpy(header->sessions, applies->sessions,
           applies->session_count * sizeof(struct entry_tag));
    raft_configuration_at(node->raft, applies->handed, &header->configuration_index);
    configuration_write(&job->configuration, members_at(node, applies->handed));
    job->snapshot = (struct raft_position){header->term, header->index};
    job->chain_crc = header->chain_crc;
}

static void begin_taking(struct node *node) {
    struct snapshots *snapshots = &node->snapshots;
    snapshots->take = job_new(JOB_SNAPSHOT_TAKE);
    capture_header(node, snapshots->take);
    snapshots->taking = true;
    snapshots->taking_log_bytes = snapshots->log_bytes;
    apply_snapshot_item(node);
}

void snapshot_tick(struct node *node) {
    struct snapshots *snapshots = &node->snapshots;
    bool possible = !snapshots->taking && !snapshots->installing && !node->applies.restoring &&
                    !node->stopped && node->now_ms >= snapshots->retry_ms &&
                    node->applies.handed > snapshots->position.index && apply_has_room(node);
    if (possible && (admin_wants_snapshot(node) || log_outgrew_state(node))) {
        begin_taking(node);
    }
    for (uint32_t i = 0; i < node->peer_count; i++) {
        struct sending *sending = &node->peers[i]->sending;
        if (sending->active && node->now_ms - sending->progress_ms >= SENDING_TIMEOUT_MS) {
            snapshot_stop_sending(node, node->peers[i]);
            struct raft_event event = {.kind = RAFT_EVENT_SNAPSHOT_FAILED,
                                       .id = node->peers[i]->id};
            execute_quietly(node, &event);
        }
    }
}

static void stop_taking(struct node *node, const char *reason) {
    struct snapshots *snapshots = &node->snapshots;
    job_free(snapshots->take);
    snapshots->take = NULL;
    snapshots->taking = false;
    snapshots->retry_ms = node->now_ms + SNAPSHOT_RETRY_MS;
    if (reason != NULL) {
        apply_notice(node, "error", "snapshot", "no snapshot could be taken: %s", reason);
        admin_snapshot_failed(node, reason);
    }
}

/* The machine has answered every command up to here, and none behind: so have the sessions. */
void snapshot_capture_sessions(struct node *node) {
    if (node->snapshots.take != NULL) {
        sessions_write(&node->applies.clients, &node->snapshots.take->sessions);
    }
}

void snapshot_machine_done(struct node *node, const struct apply_batch *batch,
                           const struct apply_item *item) {
    struct snapshots *snapshots = &node->snapshots;
    struct job *job = snapshots->take;
    if (job == NULL) {
        return;
    }
    struct span output = apply_item_output(batch, item);
    if (item->outcome != APPLY_DONE) {
        stop_taking(node, "the machine's snapshot() failed");
    } else if (job->snapshot.index <= snapshots->position.index) {
        stop_taking(node, NULL); /* a newer one came from the leader meanwhile */
    } else {
        buffer_append_span(&job->data, output);
        snapshots->take = NULL;
        node_push_job(node, job);
    }
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
    if (job->status != STATUS_OK) {
        if (job->status == STATUS_INVALID) {
            stop_taking(node, NULL); /* a newer one was installed before it */
        } else if (job->status == STATUS_NO_SPACE) {
            stop_taking(node, job->error.text);
        } else {
            node_fail(node, job->status, job->error.text);
        }
        return;
    }
    snapshots->taking = false;
    if (job->snapshot.index <= snapshots->position.index) {
        return;
    }
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
    *sending = (struct sending){.active = true,
                                .reading = reading,
                                .position = node->snapshots.position,
                                .progress_ms = node->now_ms};
    if (!reading) {
        read_chunk(node, peer);
    }
}

void snapshot_stop_sending(struct node *node, struct peer *peer) {
    (void)node;
    peer->sending.active = false;
}

static void chunk_read(struct node *node, struct job *job) {
    struct peer *peer = peers_find(node, job->reader);
    if (peer == NULL) {
        return;
    }
    struct sending *sending = &peer->sending;
    sending->reading = false;
    if (!sending->active || node->state.role != RAFT_LEADER || peer->stage != PEER_READY) {
        return;
    }
    bool current = job->status == STATUS_OK && job->snapshot.index == sending->position.index &&
                   job->offset == sending->offset;
    if (job->status != STATUS_OK && job->status != STATUS_NOT_FOUND) {
        sending->active = false;
        execute_quietly(
            node, &(struct raft_event){.kind = RAFT_EVENT_SNAPSHOT_FAILED, .id = peer->id});
        return;
    }
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
    for (uint32_t i = 0; i < job->header.session_count; i++) {
        const struct entry_tag *tag = &job->header.sessions[i];
        if (tag->node == node->meta.node_id && tag->incarnation == node->meta.incarnation) {
            pending_overtaken(node, tag->sequence);
        }
    }
    apply_load_sessions(node, &job->header);
    sessions_clear(&applies->clients); /* the file's come with the machine's state */
    applies->handed = job->header.index;
    applies->handed_crc = job->header.chain_crc;
    applies->handed_time_ms = job->header.time_ms;
    load(node, job->header.index);
}

static void start_log_after(struct node *node, const struct job *job,
                            const struct cluster *cluster) {
    entries_clear(&node->entries);
    entries_init(&node->entries, job->header.index, job->header.chain_crc, job->header.time_ms);
    node->disk_next = job->header.index + 1;
    node->disk_truncate = 0;
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
    if (sessions_read(&node->applies.clients, buffer_span(&job->sessions)) != STATUS_OK) {
        node_fail(node, STATUS_CORRUPT, "a snapshot's sessions are not what was written");
        return;
    }
    node->applies.restoring = false;
    apply_restore(node, buffer_span(&job->data));
}

void snapshot_job_done(struct node *node, struct job *job) {
    switch (job->kind) {
    case JOB_SNAPSHOT_TAKE:
        taken(node, job);
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
