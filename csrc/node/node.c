/* A node's life and its turn: what came in is acted on once, in a fixed order.
 *
 * Must not know how any of it is done; the rooms do. Invariant: after a turn nothing that could
 * go out is held back but by a full queue. */
#include "node/node.h"

#include <stdio.h>

#include "base/assert.h"
#include "base/memory.h"
#include "node/internal.h"

#define HOUSEKEEPING_MS 100u /* deadlines are looked at this often while somebody waits */

struct node *node_new(const struct node_options *options) {
    struct node *node = memory_must_alloc_zero(sizeof(*node));
    snprintf(node->address, sizeof(node->address), "%s", options->address);
    snprintf(node->meta.address, sizeof(node->meta.address), "%s", options->address);
    node->meta.incarnation = 1;
    node->durable = options->durable;
    node->now_ms = options->now_ms;
    node->wall_ms = options->wall_ms;
    node->request_timeout_ms = options->request_timeout_ms > 0 ? options->request_timeout_ms
                                                               : REQUEST_TIMEOUT_MS_DEFAULT;
    node->snapshot_log_bytes = options->snapshot_log_bytes > 0 ? options->snapshot_log_bytes
                                                               : SNAPSHOT_LOG_BYTES_DEFAULT;
    node->load.answer_bytes = ANSWER_BYTES_GUESS;
    node->load.turn_bytes_max = TURN_BYTES_MAX;
    random_seed(&node->random, options->seed);
    entries_init(&node->entries, 0, 0, 0);
    pending_init(&node->pendings);
    node->applies.slot_free = UINT32_MAX;
    sessions_init(&node->applies.sessions, random_next(&node->random));
    node->disk_next = 1;
    return node;
}

/* What was to be dialled, where the host's end came before it took that. */
static void drop_dials(struct node *node) {
    const char *address;
    struct node_conn *conn;
    while ((conn = node_take_dial(node, &address)) != NULL) {
        node_conn_closed(node, conn);
    }
}

void node_free(struct node *node) {
    if (node == NULL) {
        return;
    }
    admin_fail_all(node, RPC_UNKNOWN_RESULT, NULL);
    reads_fail_all(node, RPC_NO_LEADER, NULL);
    pending_clear(&node->pendings);
    apply_clear(node);
    drop_dials(node);
    peers_free(node);
    while (node->jobs != NULL) {
        struct job *next = node->jobs->next;
        job_free(node->jobs);
        node->jobs = next;
    }
    job_free(node->stuck);
    job_free(node->snapshots.take);
    while (node_take_dirty(node) != NULL) {
        continue; /* frees those that are gone already */
    }
    entries_clear(&node->entries);
    memory_free(node->members.records);
    recovery_free(node);
    raft_free(node->raft);
    memory_free(node);
}

void node_set_time(struct node *node, uint64_t now_ms, uint64_t wall_ms) {
    if (now_ms > node->now_ms) {
        node->now_ms = now_ms;
    }
    node->wall_ms = wall_ms;
}

void node_notice(struct node *node, const char *level, const char *event, const char *text) {
    apply_notice(node, level, event, "%s", text);
}

/* --- jobs --- */
void node_push_job(struct node *node, struct job *job) {
    job->next = NULL;
    if (node->jobs == NULL) {
        node->jobs = job;
    } else {
        node->jobs_last->next = job;
    }
    node->jobs_last = job;
}

struct job *node_take_job(struct node *node) {
    struct job *job = node->jobs;
    if (job != NULL) {
        node->jobs = job->next;
        job->next = NULL;
    }
    return job;
}

void node_job_done(struct node *node, struct job *job) {
    switch (job->kind) {
    case JOB_WRITE:
        execute_write_done(node, job); /* may keep it */
        return;
    case JOB_READ:
        if (job->reader == 0) {
            apply_read_done(node, job);
        } else {
            messages_read_done(node, job);
        }
        break;
    case JOB_SNAPSHOT_BEGIN:
    case JOB_SNAPSHOT_CHECK:
    case JOB_SNAPSHOT_TAKE:
    case JOB_SNAPSHOT_DROP:
    case JOB_SNAPSHOT_RECEIVE:
    case JOB_SNAPSHOT_INSTALL:
    case JOB_SNAPSHOT_READ:
    case JOB_SNAPSHOT_LOAD:
        snapshot_job_done(node, job);
        break;
    case JOB_CLEAR_QUARANTINE:
        if (job->status != STATUS_OK) {
            node_fail(node, job->status, job->error.text);
        }
        break;
    }
    job_free(job);
}

#define COUNTER_BITS 32
#define INCARNATIONS_KEPT ((1u << 20) - 1) /* 20 + 32 bits stay below NUMBER_MAX */

uint64_t node_unique_number(const struct node *node, uint64_t counter) {
    return ((node->meta.incarnation & INCARNATIONS_KEPT) << COUNTER_BITS) |
           (counter & ((1ull << COUNTER_BITS) - 1));
}

void node_save_identity(struct node *node) {
    if (node->durable) {
        node->identity_dirty = true;
    } else {
        peers_identity_saved(node);
    }
}

/* --- the end --- */
void node_fail(struct node *node, enum status status, const char *reason) {
    if (node->stopped) {
        return;
    }
    error_set(&node->failure, status, "%s", reason);
    apply_notice(node, "error", "disk", "%s: this member takes no part any more", reason);
    execute_quietly(node, &(struct raft_event){.kind = RAFT_EVENT_STEP_DOWN});
    pending_fail_all(node, RPC_STORAGE_FAILURE, node->failure.text);
    reads_fail_all(node, RPC_STORAGE_FAILURE, node->failure.text);
    apply_fail_all(node, RPC_STORAGE_FAILURE, node->failure.text);
    admin_fail_all(node, RPC_STORAGE_FAILURE, node->failure.text);
    peers_hang_up_all(node);
    node->stopped = true;
    node->stop_deadline_ms = node->now_ms + FAILURE_LINGER_MS;
}

/* After a failure the node does nothing more, but for a while it still tells clients why. */
static bool lingers(const struct node *node) {
    return node->failure.status != STATUS_OK && !node->stopping &&
           node->now_ms < node->stop_deadline_ms;
}

bool node_stopped(const struct node *node, struct error *error) {
    if (!node->stopped || lingers(node)) {
        return false;
    }
    if (error != NULL) {
        *error = node->failure;
    }
    return true;
}

void node_stop(struct node *node) {
    if (node->stopping) {
        return;
    }
    node->stopping = true;
    if (node->stopped) {
        return;
    }
    node->stop_deadline_ms = node->now_ms + STOP_TIMEOUT_MS;
    if (node->state.role == RAFT_LEADER) {
        execute_quietly(node, &(struct raft_event){.kind = RAFT_EVENT_TRANSFER});
    }
}

/* Whether there is somebody to hand leadership over to. */
static bool another_voter_hears(struct node *node) {
    const struct cluster *cluster = members_peek(node);
    for (uint32_t i = 0; cluster != NULL && i < cluster->raft.count; i++) {
        const struct raft_member *member = &cluster->raft.members[i];
        if (member->voter && peers_find_ready(node, member->id) != NULL) {
            return true;
        }
    }
    return false;
}

bool node_leads_others(struct node *node) {
    return node->state.role == RAFT_LEADER && another_voter_hears(node);
}

static void try_to_stop(struct node *node) {
    if (!node->stopping || node->stopped) {
        return;
    }
    bool leading = node_leads_others(node);
    bool busy = node->pendings.count > 0 || node->reads.count > 0 ||
                node->applies.outstanding > 0 || node->writing;
    if ((!leading && !busy) || node->now_ms >= node->stop_deadline_ms) {
        pending_fail_all(node, RPC_UNKNOWN_RESULT, "the server is stopping");
        reads_fail_all(node, RPC_NO_LEADER, "the server is stopping");
        apply_fail_all(node, RPC_NO_LEADER, "the server is stopping");
        admin_fail_all(node, RPC_UNKNOWN_RESULT, "the server is stopping");
        node->stopped = true;
    }
}

/* --- what the one who runs the server should hear --- */
static void say_what_changed(struct node *node) {
    const char *role = node_role_name(node);
    bool same = node->noticed_term == node->state.term &&
                node->noticed_leader == node->state.leader &&
                strcmp(node->noticed_role, role) == 0;
    if (same || !node_is_member(node)) {
        return;
    }
    const struct cluster *cluster = members_peek(node);
    const char *leader = node->state.leader == 0 || cluster == NULL
                             ? NULL
                             : configuration_address(cluster, node->state.leader);
    node->noticed_term = node->state.term;
    node->noticed_leader = node->state.leader;
    snprintf(node->noticed_role, sizeof(node->noticed_role), "%s", role);
    apply_notice(node, "info", "role", "%s in term %llu, leader %s", role,
                 (unsigned long long)node->state.term, leader == NULL ? "unknown" : leader);
}

/* A committed configuration without us, made after we were: we are out. */
static void notice_removal(struct node *node) {
    const struct cluster *cluster = members_peek(node);
    if (!node_is_member(node) || cluster == NULL || cluster->raft.joint ||
        node->state.commit_index < members_index(node) || node->state.role == RAFT_LEADER ||
        raft_configuration_find(&cluster->raft, node->meta.node_id) != NULL ||
        cluster->next_id <= node->meta.node_id) {
        return;
    }
    node->meta.removed = true;
    node_save_identity(node);
}

static void leave_if_removed(struct node *node) {
    if (!node->meta.removed || node->left) {
        return;
    }
    node->left = true;
    apply_notice(node, "warning", "member", "this server was removed from its cluster");
    admin_tick(node); /* our own removal, if we were asked for it, is done */
    pending_fail_all(node, RPC_NOT_MEMBER, "this server was removed from its cluster");
    reads_fail_all(node, RPC_NOT_MEMBER, "this server was removed from its cluster");
    admin_fail_all(node, RPC_NOT_MEMBER, "this server was removed from its cluster");
}

/* A leader whose disk hangs, or stays full, would keep its followers quiet for ever: it makes
 * way (D6). Reads and the state are still answered. */
static void heed_stalled_disk(struct node *node) {
    bool full = node->no_space[0] != '\0' && node->now_ms - node->full_since_ms >= DISK_FULL_MS;
    bool stalled = node->writing && node->stuck == NULL &&
                   node->now_ms - node->writing_since_ms >= DISK_STALL_MS;
    if (stalled && !node->stall_noticed) {
        apply_notice(node, "error", "disk", "a write has not returned for %u ms",
                     DISK_STALL_MS);
    }
    node->stall_noticed = stalled;
    if ((stalled || full) && node_leads_others(node)) {
        execute_quietly(node, &(struct raft_event){.kind = RAFT_EVENT_STEP_DOWN});
    }
}

static void housekeep(struct node *node) {
    if (node->now_ms < node->housekeeping_ms) {
        return;
    }
    node->housekeeping_ms = node->now_ms + HOUSEKEEPING_MS;
    pending_expire(node);
    reads_expire(node);
    apply_expire(node);
    heed_stalled_disk(node);
    if (node->quarantined && !node->state.quarantined && node->durable) {
        node->quarantined = false;
        apply_notice(node, "info", "disk", "caught up after damage: this member votes again");
        node_push_job(node, job_new(JOB_CLEAR_QUARANTINE));
    }
}

/* While a snapshot is installed the log may be about to go, and the write with it. */
static bool may_retry(const struct node *node) {
    return node->stuck != NULL && !node->snapshots.installing;
}

static void retry_stuck_write(struct node *node) {
    if (may_retry(node) && node->now_ms >= node->stuck_retry_ms) {
        struct job *job = node->stuck;
        node->stuck = NULL; /* the disk's again */
        node->writing_since_ms = node->now_ms;
        job->status = STATUS_OK;
        node_push_job(node, job);
    }
}

static void forget_old_lines(struct node *node) {
    uint64_t needed =
        node->applies.handed < node->disk_next ? node->applies.handed : node->disk_next - 1;
    if (node->durable) {
        entries_evict(&node->entries, needed, ENTRY_CACHE_BYTES_MAX);
    } else {
        entries_evict(&node->entries,
                      node->snapshots.base < needed ? node->snapshots.base : needed, 0);
    }
}

/* --- the turn --- */
void node_turn(struct node *node) {
    if (node->stopped) {
        conn_go_on(node);
        apply_hand_over(node); /* what it has to say; the core is not stepped any more */
        return;
    }
    execute_quietly(node, &(struct raft_event){.kind = RAFT_EVENT_TICK});
    notice_removal(node);
    leave_if_removed(node);
    conn_go_on(node);
    peers_tick(node);
    admin_tick(node);
    reads_flush(node);
    pending_forward(node);
    execute_actions(node);
    apply_advance(node);
    reads_release(node);
    snapshot_tick(node);
    say_what_changed(node);
    housekeep(node);
    try_to_stop(node);
    apply_hand_over(node);
    retry_stuck_write(node);
    execute_write(node);
    forget_old_lines(node);
}

static uint64_t earlier(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

uint64_t node_deadline_ms(const struct node *node) {
    if (node->stopped) {
        return node->load.cut_short ? node->now_ms : node->stop_deadline_ms;
    }
    if (node->load.cut_short || raft_has_actions(node->raft)) {
        return node->now_ms;
    }
    uint64_t deadline = earlier(raft_deadline_ms(node->raft), peers_deadline_ms(node));
    deadline = earlier(deadline, admin_deadline_ms(node));
    deadline = earlier(deadline, apply_deadline_ms(node));
    bool waiting = node->pendings.count > 0 || node->reads.count > 0 ||
                   node->applies.slots_used > 0 || node->snapshots.taking ||
                   node->quarantined || node->writing;
    for (uint32_t i = 0; i < node->peer_count; i++) {
        waiting = waiting || node->peers[i]->sending.active;
    }
    if (waiting) {
        deadline = earlier(deadline, node->housekeeping_ms);
    }
    if (node->pendings.forward < node->pendings.next &&
        node->pendings.pause_until_ms > node->now_ms) {
        deadline = earlier(deadline, node->pendings.pause_until_ms);
    }
    if (may_retry(node)) {
        deadline = earlier(deadline, node->stuck_retry_ms);
    }
    if (node->load.shared_ms > 0) {
        deadline = earlier(deadline, node->load.shared_ms);
    }
    return node->stopping ? earlier(deadline, node->now_ms + 20) : deadline;
}
