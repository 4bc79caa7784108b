/* The other members: connections to them, who they are, snapshots to and from them; the parts
 * of internal.h that are about more than this server. */
#ifndef RAFTPICO_NODE_OTHERS_H
#define RAFTPICO_NODE_OTHERS_H

#include "node/callers.h"
#include "node/job.h"
#include "raft/raft.h"
#include "wire/configuration.h"

struct node;
struct peer;

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
/* With the one of the snapshot; more only between two snapshots. */
#define CONFIGURATIONS_MAX 64u

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
    struct caller caller; /* our own client; empty where a peer, or we ourselves, asked */
    uint64_t origin;      /* peer that forwarded it; 0: our own */
    uint64_t batch;       /* its number there, or ours when forwarded */
    bool again;           /* begun before, here or by an earlier leader: may be done already */
    uint64_t node_id;     /* ADD: the learner. REMOVE: who goes */
    uint64_t index;       /* SNAPSHOT: covers at least this */
    uint64_t term;        /* FORWARDED: to the leader of this term */
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
void snapshot_send(struct node *node, struct peer *peer); /* begin or go on */
void snapshot_sent(struct peer *peer);                    /* it wants no more of it */
void snapshot_receive_piece(struct node *node, struct peer *peer,
                            const struct peer_message *message, struct span payload);
void snapshot_connected(struct node *node, struct peer *peer); /* our messages reach it again */
void snapshot_receive_want(struct node *node, struct peer *peer,
                           const struct peer_message *message);

#endif
