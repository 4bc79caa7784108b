/* What the rooms of node/ share: the node's parts, who owns them, and each room's face. The
 * parts stand in callers.h, requests.h and others.h.
 *
 * Owners: jobs and batches are the host's while it carries them, a conn until it is closed
 * (callers.h). Everything else is the node's. */
#ifndef RAFTPICO_NODE_INTERNAL_H
#define RAFTPICO_NODE_INTERNAL_H

#include "base/random.h"
#include "node/callers.h"
#include "node/entries.h"
#include "node/node.h"
#include "node/others.h"
#include "node/requests.h"
#include "node/sessions.h"
#include "raft/raft.h"
#include "wire/configuration.h"
#include "wire/entry.h"
#include "wire/rpc_form.h"

#define NEVER_MS UINT64_MAX

/* Where the log's time stood when this term's leader met it ahead of its clock, and when. */
struct log_clock {
    uint64_t term; /* 0: it is not ahead */
    uint64_t time_ms;
    uint64_t since_ms;
};

/* --- the node --- */
struct node {
    char address[ADDRESS_BYTES_MAX];
    bool durable;
    uint32_t request_timeout_ms;
    uint64_t snapshot_log_bytes;
    uint64_t now_ms;
    uint64_t wall_ms;
    struct random random;

    struct meta meta;    /* as it is, or is about to be, on the disk */
    bool identity_dirty; /* cluster id, node id or `removed` changed: save */
    bool identity_saving;
    struct raft *raft;
    struct raft_state state; /* after the last step */
    uint64_t noticed_term;
    char noticed_role[16];
    uint64_t noticed_leader;

    struct entries entries;
    struct members members;
    struct peer *peers[PEERS_MAX];
    uint32_t peer_count;
    struct pendings pendings;
    struct reads reads;
    struct applies applies;
    struct snapshots snapshots;
    struct turns turns;
    struct admin *admins;
    uint32_t admin_count;
    uint64_t next_admin_batch;
    struct node_conn *probe; /* CONN_PROBE under way, or NULL */
    char probe_address[ADDRESS_BYTES_MAX];

    /* the disk */
    struct job *jobs; /* to be taken */
    struct job *jobs_last;
    bool writing;           /* a JOB_WRITE is with the disk */
    uint64_t disk_next;     /* first index that no JOB_WRITE has carried yet */
    uint64_t disk_truncate; /* 0: nothing to drop */
    bool save_vote;
    uint64_t vote_term, vote_for;
    uint64_t generation;
    uint64_t writing_since_ms;
    bool stall_noticed;
    struct log_clock ahead; /* execute.c: while the log's time is past our clock's */
    char no_space[ERROR_TEXT_BYTES_MAX]; /* why commands are refused (112); "": they are not */
    uint64_t full_since_ms;              /* while no_space says so */
    struct job *stuck; /* a JOB_WRITE that found no space: to be tried again */
    uint64_t stuck_retry_ms;

    struct rpc_forms forms;        /* of what clients send */
    struct node_conn *dirty;       /* clients' */
    struct node_conn *dirty_peers; /* all others: these are written to first */
    struct load load;
    struct node_conn *dials[PEERS_MAX + 1]; /* to be dialled */
    uint32_t dial_count;

    bool quarantined; /* as recovered; until the core has caught up */
    bool left;        /* removed, and said so */
    uint64_t housekeeping_ms;
    bool stopping;
    uint64_t stop_deadline_ms;
    bool stopped;
    struct error failure;

    /* recovery: what node_recover_* collected for raft_new */
    struct recovered *recovered;
};

void recovery_free(struct node *node); /* recovery.c */
void node_fail(struct node *node, enum status status, const char *reason);
void node_push_job(struct node *node, struct job *job);
/* A number that no earlier life of this server has used: the incarnation, then a counter. */
uint64_t node_unique_number(const struct node *node, uint64_t counter);
void node_save_identity(struct node *node);
bool node_is_member(const struct node *node);
const char *node_role_name(const struct node *node);
/* GetServerState's result; `user` is the machine's own state as JSON text, or empty. */
void node_write_state(const struct node *node, struct buffer *json, struct span user);

/* execute.c: one step of the core with its consequences for the lines; the turn's actions. */
enum raft_result execute_step(struct node *node, struct raft_event *event,
                              struct raft_outcome *outcome);
/* The same, where a refusal needs no answer. */
void execute_quietly(struct node *node, struct raft_event *event);
void execute_actions(struct node *node);
bool execute_is_behind(const struct node *node); /* too many bytes wait for the disk */
void execute_write(struct node *node);
void execute_write_done(struct node *node, struct job *job);
/* A snapshot took the place of the log on the disk, which goes on behind `index`. */
void execute_log_replaced(struct node *node, uint64_t index);
enum raft_result execute_propose(struct node *node, uint64_t peer, uint32_t count,
                                 uint64_t *first);
/* The line of the next proposed entry; `command` says tag, session and body. */
void execute_add_command(struct node *node, const struct entry *command);

/* request.c */
void request_line(struct node *node, struct node_conn *conn, struct span line);

#endif
