/* What the rooms of node/ share: the node's parts, who owns them, and each room's face.
 *
 * Owners: a conn is the host's from node_conn_open() to node_conn_closed(), after which it
 * lives on (as `gone`) until the last request that came through it is answered. Jobs and
 * batches are the host's while it carries them. Everything else is the node's. */
#ifndef RAFTPICO_NODE_INTERNAL_H
#define RAFTPICO_NODE_INTERNAL_H

#include "base/random.h"
#include "node/entries.h"
#include "node/node.h"
#include "node/sessions.h"
#include "raft/raft.h"
#include "wire/configuration.h"
#include "wire/entry.h"
#include "wire/frame.h"
#include "wire/peer.h"
#include "wire/rpc.h"

#define NEVER_MS UINT64_MAX

/* --- connections (conn.c) --- */
enum conn_kind {
    CONN_CLIENT,   /* until it says hello */
    CONN_PEER_IN,  /* a peer's: its messages to us */
    CONN_PEER_OUT, /* ours: our messages to a peer, its answers to our hello */
    CONN_PROBE,    /* ours: who listens at the address that is to be added? */
    CONN_CHECK,    /* ours: which life of a peer listens at its address? */
};

/* What all clients' connections come to together. */
struct load {
    uint32_t waiting;       /* requests */
    uint32_t waiting_conns; /* connections with a request that waits */
    uint64_t shared_ms;     /* until then each has a share of what may be in flight */
    uint64_t out_bytes;     /* unread answers that the host holds */
    uint64_t expected;      /* bytes that the answers under way may come to */
    size_t answer_bytes;    /* of a large answer of late, on any connection */
};

struct node_conn {
    void *host;
    struct load *load; /* the node's; NULL: not accepted */
    enum conn_kind kind;
    struct buffer in; /* an unfinished line or payload */
    struct frame frame;
    uint64_t payload_bytes;       /* still to come of `message`; 0: lines */
    struct peer_message *message; /* PEER_*: the line that was read last; owned */
    struct buffer out;
    size_t unsent;       /* bytes the host holds */
    size_t seen_backlog; /* of a full one, as last seen; 0: it is not full */
    uint64_t taken_ms;   /* when a full one last took something, or became full */
    bool held;           /* a client's lines wait in `in` for their turn */
    struct node_conn *next_held;
    uint32_t waiting;    /* requests not answered yet */
    bool answered;       /* something, so that the next is known: */
    size_t answer_bytes; /* of a large answer of late */
    uint64_t expected;   /* bytes that the answers to the waiting ones may come to */
    uint32_t bad_lines;  /* in a row */
    bool peers_only;
    bool dirty;
    bool closing;              /* no more input; closed by the host when all is written */
    bool gone;                 /* the host's end is closed */
    struct peer *peer;         /* PEER_IN, PEER_OUT, CHECK; NULL once the peer is forgotten */
    uint64_t peer_incarnation; /* PEER_IN: as its hello said */
    struct node_conn *next_dirty;
};

void conn_send_message(struct node *node, struct node_conn *conn,
                       const struct peer_message *message);
void conn_mark_dirty(struct node *node, struct node_conn *conn);
void conn_close(struct node *node, struct node_conn *conn);
static inline size_t conn_backlog(const struct node_conn *conn) {
    return conn->unsent + buffer_count(&conn->out);
}
/* The larger of the two, the past slowly forgotten: what the next one may come to. */
static inline size_t conn_faded_max(size_t past, size_t bytes) {
    size_t faded = past - past / 1024;
    return bytes > faded ? bytes : faded;
}
void conn_wait(struct node_conn *conn); /* one waiting request more */
void conn_go_on(struct node *node); /* with the lines that were held, a share of each in turn */
struct node_conn *conn_new(void *host, enum conn_kind kind);
void conn_release(struct node_conn *conn); /* one waiting request fewer; frees a gone one */

/* --- callers (caller.c): who waits for an answer --- */
struct gather; /* the answers of a JSON-RPC batch, collected */

struct caller {
    struct node_conn *conn; /* NULL: nobody (a notification, or answered) */
    struct gather *gather;  /* NULL: not part of a batch */
    bool wants_index;       /* the result says at which index it was made */
    char *id;               /* raw JSON text; points to id_inline or to the heap */
    uint32_t id_size;
    char id_inline[20];
};

void caller_init(struct caller *caller, struct node_conn *conn, struct gather *gather,
                 const struct rpc_request *request);
void caller_move(struct caller *to, struct caller *from);
/* Answer (once) and forget; on an empty caller nothing happens but freeing. */
void caller_result(struct node *node, struct caller *caller, struct span result);
void caller_error(struct node *node, struct caller *caller, enum rpc_code code,
                  struct span data);
/* The same with {"outcome":..,"reason":..}; reason may be NULL. */
void caller_refuse(struct node *node, struct caller *caller, enum rpc_code code,
                   const char *outcome, const char *reason);
/* What the machine made of it. */
struct outcome {
    enum rpc_code code; /* RPC_OK: a result */
    bool applied;       /* a command; false: a query, which changes nothing */
    uint64_t index;     /* of the command's entry, or of the last one that the query saw */
    struct span text;   /* the result, or an error's JSON object; may be empty then */
};
void caller_outcome(struct node *node, struct caller *caller, const struct outcome *outcome);
/* EXPIRED, STALE (then with the session's last number) or FULL. */
void caller_refuse_session(struct node *node, struct caller *caller,
                           enum session_verdict verdict, uint64_t last_seq);
void caller_drop(struct caller *caller);
struct gather *gather_new(struct node_conn *conn);
void gather_close(struct node *node, struct gather *gather); /* all requests are dispatched */
/* Answer a request that has no caller yet. */
void caller_answer_now(struct node *node, struct node_conn *conn, struct gather *gather,
                       const struct rpc_request *request, enum rpc_code code,
                       struct span data_or_result);

/* --- commands of our own that wait (pending.c) --- */
struct pending {
    struct caller caller;
    char *input; /* JSON text, and the session's behind it; owned; NULL: this place is free
                    (answered) */
    uint32_t input_size;
    uint32_t session_size; /* 0: none */
    uint64_t session_seq;
    bool sent;   /* to some leader's log, perhaps */
    bool handed; /* to the machine */
    uint64_t deadline_ms;
    uint64_t since_ms;
};

struct pendings {
    struct pending *ring;
    uint64_t capacity;  /* power of two */
    uint64_t base;      /* sequence of the oldest that may be waiting */
    uint64_t next;      /* sequence of the next one */
    uint64_t again_end; /* before this some are older than those before them */
    uint64_t bytes;     /* of all inputs */
    uint64_t count;     /* waiting */
    /* Forwarding: everything before `forward` was given to the leader of this epoch. */
    uint64_t forward;
    uint64_t epoch_term;
    uint64_t epoch_leader;
    bool rewound; /* `forward` was set back: the next proposal says so */
    uint64_t pause_until_ms;
};

void pending_init(struct pendings *pendings);
void pending_clear(struct pendings *pendings);
void pending_add(struct node *node, struct caller *caller, const struct rpc_request *request);
struct pending *pending_peek(struct node *node, uint64_t sequence); /* NULL: not waiting */
void pending_forget(struct node *node, uint64_t sequence); /* after its caller was answered */
void pending_again(struct node *node,
                   uint64_t sequence); /* certainly not applied: new sequence */
void pending_forward(struct node *node);
void pending_restart_forwarding(struct node *node);
void pending_expire(struct node *node);
void pending_fail_all(struct node *node, enum rpc_code code, const char *reason);
void pending_overtaken(struct node *node, uint64_t sequence); /* by a snapshot, up to it */
/* We can answer the peer (again): what was not taken from it is to come again. */
void pending_ask_again(struct node *node, struct peer *peer);
void pending_receive_propose(struct node *node, struct peer *peer,
                             const struct peer_message *message, struct span payload);
void pending_receive_again(struct node *node, struct peer *peer,
                           const struct peer_message *message);

/* --- queries (reads.c) --- */
enum read_stage {
    READ_UNSENT,
    READ_ASKED,
    READ_READY, /* `index` is known */
};

struct read_item {
    struct caller caller;
    enum apply_kind kind;
    uint64_t min_index; /* not before this is applied */
    size_t input_offset;
    size_t input_size;
};

struct read_group {
    struct read_group *next;
    enum read_stage stage;
    uint64_t batch; /* ASKED elsewhere: the question's number */
    uint64_t term;  /* ASKED: of the leader */
    uint64_t round; /* ASKED of our own core; 0: of a leader elsewhere */
    uint64_t index; /* READY: answer when applied so far; ASKED of our own core: the same */
    uint64_t since_ms;
    uint64_t asked_ms;
    uint32_t count;
    uint32_t capacity;
    struct read_item *items;
    struct buffer text;
};

struct remote_read {
    uint64_t peer;
    uint64_t batch;
    uint64_t term;
    uint64_t round;
    uint64_t index;
};
#define REMOTE_READS_MAX (64u * MEMBERS_MAX)

struct reads {
    struct read_group *first;
    struct read_group *last;
    uint64_t next_batch;
    uint32_t count; /* queries in all groups, and parked ones */
    uint64_t bytes;
    struct parked *parked; /* parked.c */
    uint32_t parked_count;
    uint32_t parked_capacity;
    /* What a leader confirmed last: everything that was answered anywhere before fresh_ms, by
     * our own clock, stands at or before fresh_index. */
    bool confirmed;
    uint64_t fresh_ms;
    uint64_t fresh_index;
    struct remote_read remote[REMOTE_READS_MAX];
    uint32_t remote_count;
};

void reads_add(struct node *node, struct caller *caller, const struct rpc_request *request);
/* Whether what is applied here lacks nothing that was answered, anywhere, more than so many
 * milliseconds ago. */
bool reads_are_fresh(const struct node *node, uint64_t max_staleness_ms);
void reads_flush(struct node *node);   /* ask the leader for what has not been asked */
void reads_restart(struct node *node); /* the leader changed: ask again */
void reads_confirm(struct node *node, uint64_t confirmed_round);
void reads_release(struct node *node); /* READY and applied far enough: to the machine */
void reads_expire(struct node *node);
void reads_fail_all(struct node *node, enum rpc_code code, const char *reason);
void reads_forget_peer(struct node *node, uint64_t id); /* a new connection: it asks again */
void reads_receive(struct node *node, struct peer *peer, const struct peer_message *message);
void reads_receive_reply(struct node *node, struct peer *peer,
                         const struct peer_message *message);

/* --- queries that wait for an index (parked.c) --- */
void parked_add(struct node *node, enum apply_kind kind, struct caller *caller,
                struct span input, uint64_t min_index, uint64_t deadline_ms);
void parked_release(struct node *node);
void parked_expire(struct node *node);
void parked_fail_all(struct node *node, enum rpc_code code, const char *reason);

/* --- the way to the machine and back (apply.c) --- */
struct query_slot {
    struct caller caller;
    uint64_t deadline_ms;
    uint32_t next_free;
    bool used;
};

struct applies {
    struct apply_batch *filling; /* NULL: none begun */
    struct apply_batch *ready;   /* complete, not taken yet (a list) */
    struct apply_batch *ready_last;
    struct apply_batch *spare;
    uint32_t outstanding; /* with the apply thread */
    uint64_t
        through[APPLY_BATCHES_MAX]; /* applied index after each outstanding one, in order */
    uint64_t handed;                /* last entry put into a batch */
    uint32_t handed_crc;            /* the chain's checksum there */
    uint64_t handed_time_ms;
    uint64_t applied;
    bool reading;             /* old lines are being read back from the disk */
    bool restoring;           /* a snapshot is being loaded: hand out nothing */
    struct query_slot *slots; /* queries with the machine */
    uint32_t slot_count;
    uint32_t slot_free; /* head of the free list; UINT32_MAX: none */
    uint32_t slots_used;
    uint32_t states_asked; /* GetServerState {"user":true} with the machine */
    uint32_t local_count;  /* of the local queries in `filling`, which take nobody's room */
    size_t local_bytes;
    size_t output_bytes; /* of a large output of late: what a batch's may come to */
    /* Last applied tag of each server: a tag takes effect once. */
    struct entry_tag sessions[SESSIONS_MAX];
    uint32_t session_count;
    struct sessions clients; /* the clients' own sessions */
};

void apply_clear(struct node *node);
void apply_advance(struct node *node);
bool apply_has_room(const struct node *node);
void apply_query(struct node *node, enum apply_kind kind, struct caller *caller,
                 struct span input, uint64_t deadline_ms);
void apply_snapshot_item(struct node *node, struct span head, bool in_process);
void apply_notice(struct node *node, const char *level, const char *event, const char *format,
                  ...) PRINTF_LIKE(4, 5);
void apply_read_done(struct node *node, struct job *job);
void apply_restore(struct node *node, struct cargo *cargo); /* takes it */
void apply_expire(struct node *node);
void apply_hand_over(struct node *node); /* end of the turn: what was filled may be taken */
void apply_load_sessions(struct node *node, const struct snapshot_header *header);

/* --- peers (peers.c, messages.c) --- */
enum peer_stage {
    PEER_IDLE,
    PEER_DIALING,
    PEER_GREETING, /* hello sent */
    PEER_JOINING,  /* join sent */
    PEER_READY,
};

struct sending { /* of our snapshot to a peer */
    bool active;
    bool reading;
    struct raft_position position;
    uint64_t offset;
    uint64_t total;
    uint64_t progress_ms;
};

struct peer {
    uint64_t id;
    char address[ADDRESS_BYTES_MAX];
    bool member; /* in the configuration in force; otherwise a guest known from its hello */
    enum peer_stage stage;
    struct node_conn *out;
    struct node_conn *in;
    struct node_conn *check;
    uint64_t check_ms;       /* when the last check began */
    uint64_t redial_ms;      /* when */
    uint64_t redial_wait_ms; /* how long the next time */
    uint64_t stage_deadline_ms;
    uint64_t incarnation;  /* highest that the one at its address said; hellos only claim */
    uint64_t added_term;   /* we added it to the configuration, as the leader of this term */
    bool complained;       /* why there is no connection was said */
    uint64_t refused_from; /* proposals after this sequence wait for it; 0: none are refused */
    uint64_t refused_term; /* ... in this term */
    bool reading;          /* old lines for it are being read back */
    struct buffer old_lines; /* that were read back: entries old_first..old_last */
    uint64_t old_first;
    uint64_t old_last;
    uint64_t guest_until_ms;
    struct sending sending;
};
#define PEERS_MAX (2 * MEMBERS_MAX)

struct peer *peers_find(struct node *node, uint64_t id);
struct peer *peers_find_ready(struct node *node, uint64_t id);
void peers_sync(struct node *node); /* the configuration changed */
void peers_tick(struct node *node);
uint64_t peers_deadline_ms(const struct node *node);
void peers_connected(struct node *node, struct node_conn *conn);
void peers_closed(struct node *node, struct node_conn *conn);
void peers_hang_up_all(struct node *node); /* for good: the node has failed */
/* A line (and its payload) on a connection that is a peer's or wants to be. */
void peers_receive(struct node *node, struct node_conn *conn,
                   const struct peer_message *message, struct span payload);
void peers_identity_saved(struct node *node);
void peers_free(struct node *node);
void peers_dial_probe(struct node *node, const char *address);

void messages_send(struct node *node, const struct raft_message *message);
void messages_receive(struct node *node, struct peer *peer, const struct peer_message *message,
                      struct span payload);
void messages_read_done(struct node *node, struct job *job);

/* --- members (members.c, admin.c) --- */
struct configuration_record {
    uint64_t index;
    struct cluster cluster;
};
#define CONFIGURATIONS_MAX                                                                     \
    64u /* with the one of the snapshot; more only between two snapshots */

struct members {
    struct configuration_record *records; /* by index, rising */
    uint32_t count;
    uint32_t capacity;
    uint64_t version;                /* counts changes of the one in force */
    char joining[ADDRESS_BYTES_MAX]; /* address of the learner that is being added */
    uint32_t create_min_timeout_ms;  /* CreateCluster: of the first configuration */
    uint32_t create_max_timeout_ms;
};

void members_add(struct node *node, uint64_t index, const struct cluster *cluster);
void members_truncate(struct node *node, uint64_t index);
void members_compact(struct node *node, uint64_t index);
void members_reset(struct node *node, uint64_t index, const struct cluster *cluster);
/* The configuration in force (committed or not); NULL before there is one. */
const struct cluster *members_peek(const struct node *node);
const struct cluster *members_at(const struct node *node, uint64_t index);
uint64_t members_index(const struct node *node);
void members_write(const struct node *node, struct buffer *json);
void members_entry_body(struct node *node, uint64_t index,
                        const struct raft_configuration *configuration, struct buffer *json);

enum admin_kind {
    ADMIN_CREATE,
    ADMIN_ADD,
    ADMIN_REMOVE,
    ADMIN_SNAPSHOT,
};
enum admin_stage {
    ADMIN_WAITING, /* for its turn, or for a leader */
    ADMIN_FORWARDED,
    ADMIN_PROBING, /* ADD: who listens there? */
    ADMIN_PROPOSING,
    ADMIN_CATCHING_UP, /* ADD: learner until it votes. REMOVE: until committed */
    ADMIN_UNDOING,     /* ADD: takes the learner out again */
};
struct admin {
    struct admin *next;
    enum admin_kind kind;
    enum admin_stage stage;
    char address[ADDRESS_BYTES_MAX];
    struct caller
        caller;       /* of our own client; empty for one that came from a peer or ourselves */
    uint64_t origin;  /* peer that forwarded it; 0: our own */
    uint64_t batch;   /* its number there, or ours when forwarded */
    bool again;       /* sent before to an earlier leader: may be done already */
    uint64_t node_id; /* ADD: the learner. REMOVE: who goes */
    uint64_t index;   /* SNAPSHOT: covers at least this */
    uint64_t term;    /* FORWARDED: to the leader of this term */
    uint64_t deadline_ms;
    uint64_t step_deadline_ms;
    uint64_t progress; /* ADD: how far the learner came */
};

void admin_submit(struct node *node, struct node_conn *conn, struct gather *gather,
                  const struct rpc_request *request);
void admin_create_cluster(struct node *node, struct node_conn *conn, struct gather *gather,
                          const struct rpc_request *request);
void admin_tick(struct node *node);
uint64_t admin_deadline_ms(const struct node *node);
bool admin_wants_snapshot(const struct node *node);
void admin_snapshot_failed(struct node *node, enum rpc_code code, const char *reason);
/* The server at the address to be added said who it is (message) or cannot be reached (reason).
 */
void admin_probe_done(struct node *node, const struct peer_message *message,
                      const char *reason);
void admin_replace(struct node *node, struct peer *peer);
void admin_receive(struct node *node, struct peer *peer, const struct peer_message *message);
void admin_receive_reply(struct node *node, struct peer *peer,
                         const struct peer_message *message);
void admin_fail_all(struct node *node, enum rpc_code code, const char *reason);

/* --- snapshots (snapshot.c) --- */
struct snapshots {
    struct raft_position position; /* of the current one; index 0: none */
    uint32_t chain_crc;
    uint64_t time_ms;   /* of the entry there */
    uint64_t base;      /* the core's log starts after this: a little before position */
    uint64_t bytes;     /* of the file */
    uint64_t log_bytes; /* lines since then, roughly */
    bool taking;        /* from the file's making to the job that makes it the snapshot */
    bool file_ready;    /* the machine is to be asked, once it has answered everything */
    struct job *take;   /* header captured; waits until the state is written and checked */
    uint64_t taking_log_bytes;
    uint64_t taking_since_ms;
    uint32_t failures;       /* in a row */
    uint32_t child_failures; /* in a row, of processes that did not end well */
    uint64_t failed_ms;
    /* coming in */
    bool receiving;
    uint64_t from;
    struct raft_position incoming;
    uint64_t incoming_offset; /* wanted next */
    uint64_t incoming_total;
    bool incoming_busy; /* a job is writing a piece */
    bool installing;    /* the whole file is being verified: no entries meanwhile */
};

/* Whose turn it is to take one (turn.c). */
struct turns {
    uint64_t ours_until_ms; /* the leader gave it to us */
    uint64_t ask_ms;        /* not again before */
    /* leading */
    uint64_t term; /* of our leadership, of which the two below are */
    uint64_t holder;
    uint64_t until_ms;
    uint64_t next; /* refused first, and so next; 0: nobody */
    uint64_t next_asked_ms;
};

void turn_tick(struct node *node);    /* before the others */
bool turn_is_ours(struct node *node); /* asks for it where it is not */
void turn_keep(struct node *node);    /* we are still at it */
void turn_end(struct node *node);     /* done, or given up */
void turn_receive(struct node *node, struct peer *peer, const struct peer_message *message);
void turn_receive_reply(struct node *node, struct peer *peer,
                        const struct peer_message *message);

void snapshot_tick(struct node *node);
void snapshot_job_done(struct node *node, struct job *job);
void snapshot_send(struct node *node, struct peer *peer);         /* begin or go on */
void snapshot_stop_sending(struct node *node, struct peer *peer); /* may go on later */
void snapshot_sent(struct node *node, struct peer *peer);         /* it wants no more of it */
void snapshot_receive_piece(struct node *node, struct peer *peer,
                            const struct peer_message *message, struct span payload);
void snapshot_connected(struct node *node, struct peer *peer); /* our messages reach it again */
void snapshot_receive_want(struct node *node, struct peer *peer,
                           const struct peer_message *message);

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
    uint64_t state_version;  /* role, term or leader changed */
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
    char no_space
        [ERROR_TEXT_BYTES_MAX]; /* why commands are refused (112); "" when they are not */
    uint64_t full_since_ms;     /* while no_space says so */
    struct job *stuck;          /* a JOB_WRITE that found no space: to be tried again */
    uint64_t stuck_retry_ms;

    struct node_conn *dirty;
    struct node_conn *held; /* in the order in which they go on */
    struct node_conn *held_last;
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

/* execute.c: one step of the core with its consequences for the lines, and the turn's actions
 */
enum raft_result execute_step(struct node *node, struct raft_event *event,
                              struct raft_outcome *outcome);
void execute_quietly(struct node *node,
                     struct raft_event *event); /* a refusal needs no answer */
void execute_actions(struct node *node);
bool execute_is_behind(const struct node *node); /* too many bytes wait for the disk */
void execute_write(struct node *node);
void execute_write_done(struct node *node, struct job *job);
enum raft_result execute_propose(struct node *node, uint32_t count, uint64_t *first);
/* The line of the next proposed entry; `command` says tag, session and body. */
void execute_add_command(struct node *node, const struct entry *command);

/* request.c */
void request_line(struct node *node, struct node_conn *conn, struct span line);

#endif
