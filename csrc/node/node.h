/* A whole member as a function of its inputs: everything that decides, nothing that carries.
 *
 * In go bytes from connections, ticks, finished disk jobs and finished apply batches; out come
 * bytes for connections, addresses to dial, disk jobs and apply batches. Inputs mostly record;
 * node_turn() then acts on all of them at once, and the host carries what it left. No sockets,
 * files, threads or clock: time comes with each input, randomness from a seed, so a cluster of
 * nodes lives in one thread and replays.
 *
 * Threading: none; one thread owns a node. */
#ifndef RAFTPICO_NODE_NODE_H
#define RAFTPICO_NODE_NODE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/limits.h"
#include "node/batch.h"
#include "node/job.h"

struct node;
struct node_conn;

struct node_options {
    const char *address; /* "host:port" that others reach us at */
    bool durable;        /* jobs are done on a disk (false: in memory) */
    uint64_t seed;
    uint64_t now_ms;             /* monotonic */
    uint64_t wall_ms;            /* since 1970 */
    uint32_t request_timeout_ms; /* 0: default */
    uint64_t snapshot_log_bytes; /* 0: default */
};

struct node *node_new(const struct node_options *options);
void node_free(struct node *node);

/* What a directory held: snapshot header and entries in order, then the meta, all before
 * node_start(). STATUS_CORRUPT: not what we write. Without a directory only node_start() is
 * called. */
enum status node_recover_snapshot(struct node *node, struct span header_line) MUST_USE;
enum status node_recover_entry(struct node *node, uint64_t index, uint64_t term, uint32_t crc,
                               struct span line) MUST_USE;
void node_set_meta(struct node *node, const struct meta *meta, bool quarantined);
/* Whether what was recovered names this server as the only voter: nobody could make good a
 * loss. */
bool node_votes_alone(const struct node *node);
enum status node_start(struct node *node) MUST_USE;

/* A line for the log of the one who runs the server, through the machine's thread. */
void node_notice(struct node *node, const char *level, const char *event, const char *text);

/* --- connections ---
 *
 * The host keeps one node_conn for each of its connections and says when bytes came and when it
 * is gone. `host` is the host's own handle, handed back with what is to be written. */
struct node_conn *node_conn_open(struct node *node, void *host);
void node_conn_receive(struct node *node, struct node_conn *conn, struct span bytes);
void node_conn_closed(struct node *node, struct node_conn *conn); /* `conn` is gone after it */

/* The host could connect (or not: then node_conn_closed) what node_take_dial() asked for. */
void node_conn_connected(struct node *node, struct node_conn *conn);

/* How many bytes of this connection the host holds unsent; over a limit the node produces no
 * more. */
void node_conn_set_unsent(struct node_conn *conn, size_t bytes);

/* Whether so much is unread that its client may have to be dropped, when others do the same.
 * Then it is to be looked at although nothing happens to it: */
bool node_conn_is_behind(const struct node_conn *conn);
/* ... whether its client has left its answers unread for too long: the host is to drop it. To
 * be asked, with the unsent bytes up to date, ten times a second or so while it is behind. */
bool node_conn_is_stuck(struct node *node, struct node_conn *conn);

/* There is no room for a client any more: it may only say hello. */
void node_conn_set_peers_only(struct node_conn *conn);
bool node_conn_is_peer(const struct node_conn *conn); /* it has said hello, rightly */

/* Whether the host should read from this connection now. */
bool node_conn_wants_input(const struct node_conn *conn);
size_t node_read_bytes_max(const struct node *node);  /* at once, from a client */
uint64_t node_clients_bytes(const struct node *node); /* all they left unread or unfinished */
bool node_conn_waiting(const struct node_conn *conn); /* some request is not answered yet */
void *node_conn_host(const struct node_conn *conn);
void node_conn_set_host(struct node_conn *conn, void *host);

/* --- other inputs --- */
void node_set_time(struct node *node, uint64_t now_ms, uint64_t wall_ms); /* before any input */
void node_job_done(struct node *node, struct job *job);                   /* takes the job */
void node_batch_done(struct node *node, struct apply_batch *batch);       /* takes the batch */
/* The writing that an APPLY_SNAPSHOT item began has ended; the file of JOB_SNAPSHOT_BEGIN holds
 * all of it (STATUS_OK), or `reason` says why not. STATUS_INVALID: the machine's
 * snapshot() failed. STATUS_CLOSED, STATUS_TIMEOUT: the process that wrote it did not end well.
 * STATUS_NO_SPACE may pass; anything else is a failed disk. */
void node_snapshot_written(struct node *node, enum status status, const char *reason);
void node_stop(struct node *node); /* begin to stop gracefully */

/* Act on what came in. */
void node_turn(struct node *node);
uint64_t node_deadline_ms(const struct node *node); /* a turn is due then at the latest */

/* --- outputs, after a turn --- */
/* The next connection with bytes to write or a wish to be closed; NULL when there is none. The
 * host writes (and consumes) node_conn_out and, where node_conn_closing, closes once all is
 * written. */
struct node_conn *node_take_dirty(struct node *node);
struct node_conn *node_take_dirty_peer(struct node *node); /* of those that are no clients' */
struct buffer *node_conn_out(struct node_conn *conn);
bool node_conn_closing(const struct node_conn *conn);

/* The next address to dial: the host makes a connection of its own for the returned conn. */
struct node_conn *node_take_dial(struct node *node, const char **address);

struct job *node_take_job(struct node *node);
/* Whether others write the same lines as our disk, and will be heard while it does. */
bool node_leads_others(struct node *node);
struct apply_batch *node_take_batch(struct node *node);

/* Stopped for good; `error` (may be NULL) says why when it was a failure. After a failure the
 * node takes no part any more, but this is true only FAILURE_LINGER_MS later (or at node_stop):
 * until then it answers clients with the reason. */
bool node_stopped(const struct node *node, struct error *error);

/* --- a look inside --- */
struct node_status {
    char role[16];
    uint64_t node_id;
    uint64_t term;
    uint64_t commit_index;
    uint64_t applied_index;
    char leader[ADDRESS_BYTES_MAX];                          /* "" when unknown */
    char members[MEMBERS_MAX * (ADDRESS_BYTES_MAX + 3) + 3]; /* a JSON array of addresses */
    uint64_t members_version;                                /* changes with `members` */
};
void node_peek_status(const struct node *node, struct node_status *status);

#endif
