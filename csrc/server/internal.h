/* What the files of server/ share: the parts of a running member, and which thread owns each.
 *
 *     the loop's: net, node, links, status.latest     the disk thread's: disk.jobs
 *     handed over under a mutex of their own: calls, the state's copy
 *     the same, under that of crew: disk (jobs), batches, the loop itself
 *     handed from thread to thread along with a job or a batch: writing
 *
 * Until server_start() and after both threads were joined, all of it belongs to the caller: the
 * disk's may have the loop still, which has ended, and give the node what it has done. */
#ifndef RAFTPICO_SERVER_INTERNAL_H
#define RAFTPICO_SERVER_INTERNAL_H

#include <uv.h>

#include "net/net.h"
#include "node/node.h"
#include "server/batches.h"
#include "server/calls.h"
#include "server/crew.h"
#include "server/disk.h"
#include "server/server.h"
#include "server/writing.h"

enum link_kind {
    LINK_SOCKET,
    LINK_CALL, /* a call from within the process, as if from a client */
};

/* A connection of the node's, and what carries its bytes. */
struct link {
    enum link_kind kind;
    struct server *server;
    struct node_conn *node_conn;
    struct net_conn *net_conn; /* SOCKET */
    struct call *call;         /* CALL */
    bool paused;               /* the node takes no more from it for now */
    bool ended;                /* the client sends no more, but may wait for answers */
    struct link *next;         /* of all */
    struct link **link;
    struct link *next_watched;  /* of the paused and the ended ones */
    struct link **watched_link; /* NULL: not among them */
};

/* A recent copy of the node's state, for any thread. */
struct state_copy {
    struct node_status latest; /* the loop's own */
    uv_mutex_t mutex;          /* of `shown` */
    struct node_status shown;
};

struct server {
    char address[ADDRESS_BYTES_MAX]; /* port filled in; never changes once it is open */
    struct net *net;
    struct node *node;
    struct link *links;
    struct link *watched;
    uint64_t review_ms;  /* when all of these are looked at next */
    uint64_t peak_bytes; /* that clients had us hold, since memory was last given back */
    struct crew crew;
    bool leaving;   /* the loop's: it is left, */
    enum hand next; /* ... and who is to have it then */
    struct disk disk;
    struct batches batches;
    uint64_t began_ns; /* the apply thread's: when it got its batch */
    struct writing writing;
    struct calls calls;
    struct state_copy state;

    uv_thread_t thread;  /* the loop's own */
    uint64_t crowded_ms; /* the loop's: when clients that are turned away may be spoken of */
    bool started;
    bool stopping; /* the loop's: node_stop() was called */
    bool over;     /* the loop's: everything is being closed */

    uv_mutex_t mutex;      /* of the two below */
    uint32_t stops_wanted; /* calls of server_stop() */
    struct error exit;
};

/* opening.c: the node, with what its directory held. */
enum status opening_make_node(struct server *server, const struct server_options *options,
                              struct error *error) MUST_USE;

/* loop.c: hosting the node. */
extern const struct net_events LOOP_EVENTS;
void loop_input(struct server *server);     /* before every input to the node */
void loop_take_done(struct server *server); /* jobs and batches, in their order */

/* shifts.c: what the threads do. */
void shifts_loop(void *server);
void shifts_disk(void *server);
bool shifts_batch_is_small(struct server *server, const struct apply_batch *batch);
bool shifts_job_is_small(struct server *server, const struct job *job);

/* links.c: the node's connections. */
void links_flush(struct link *link); /* carry what the node has left for it */
void links_dial(struct server *server, struct node_conn *node_conn, const char *address);
void links_call(struct server *server, struct call *call);
void links_close(struct link *link, enum status status); /* our end: tells the node, frees */
void links_review(struct server *server); /* whom to read from again, who is done */
void links_close_all(struct server *server);
void *links_accepted(void *host, struct net_conn *conn);
void links_connected(void *host, void *user);
void links_bytes(void *host, void *user, struct span bytes);
void links_ended(void *host, void *user);
void links_drained(void *host, void *user);
void links_closed(void *host, void *user);

/* state.c: the copy of the node's state. */
void state_init(struct state_copy *state);
void state_clear(struct state_copy *state);
void state_publish(struct server *server);

#endif
