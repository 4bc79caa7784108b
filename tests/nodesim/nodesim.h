/* A whole cluster of whole members in one thread: node/ over real lines, real storage over disks
 * in memory, real JSON-RPC from clients; virtual time, and everything goes wrong.
 *
 *   world.c    time, the event queue, the seed's life: chaos, then peace
 *   vdisk.c    a directory in memory that loses what was not synced (storage/file.h's calls)
 *   host.c     what server/ does around a node: opening, turns, jobs, batches, the end
 *   streams.c  connections as byte streams: delayed, split, cut, reset, half open
 *   machine.c  the replicated state machine, on the input's text
 *   clients.c  who asks for what, and what they make of the answers
 *   faults.c   what goes wrong, at rates drawn from the seed; and peace
 *   checker.c, history.c
 *              what must always hold; know nothing of why anything happens
 *   main.c     which seeds, the verdict, the shortest failing prefix
 *
 * Everything that happens follows from the seed: the same seed gives the same trace. */
#ifndef RAFTPICO_TESTS_NODESIM_H
#define RAFTPICO_TESTS_NODESIM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/assert.h"
#include "base/buffer.h"
#include "base/random.h"
#include "node/node.h"
#include "server/disk_jobs.h"
#include "server/writing.h"
#include "storage/file.h"

#define SERVERS_MAX 8u
#define CLIENTS_MAX 6u
#define PIPES_MAX 256u
#define KEYS_MAX 24u
#define BURST_MAX 40u    /* requests of one client at once */
#define IDS_MAX 512u     /* member ids of one run */
#define NEVER UINT64_MAX /* of a time */
#define ROUND_US 10000u  /* between two rounds of faults and requests */

/* --- a directory in memory (vdisk.c) ----------------------------------------------------- */
struct vdisk;

enum vdisk_crash {
    VDISK_KILL,       /* the process only: the page cache lives on */
    VDISK_POWER_NONE, /* nothing that was not synced survives */
    VDISK_POWER_SOME, /* a random part of it does, sector by sector and name by name */
};

extern const struct file_calls VDISK_CALLS;

struct vdisk *vdisk_new(void);
void vdisk_free(struct vdisk *disk);
void vdisk_use(struct vdisk *disk); /* the one that the calls mean from now on */
void vdisk_set_full(struct vdisk *disk, bool full);
void vdisk_die_at(struct vdisk *disk, uint32_t calls);  /* no effect from that call on */
void vdisk_fail_at(struct vdisk *disk, uint32_t calls); /* that call: EIO, once; 0: none */
void vdisk_crash(struct vdisk *disk, enum vdisk_crash crash, struct random *random);
void vdisk_wipe(struct vdisk *disk);

/* --- the machine (machine.c) ------------------------------------------------------------- */
struct cell {
    uint64_t value; /* the command that wrote it last; 0: nobody */
    uint64_t count; /* of writes */
    uint32_t pad;   /* bytes of ballast */
};

struct machine {
    uint64_t index; /* of the last command */
    uint64_t hash;  /* of all commands so far, with their places */
    struct cell cells[KEYS_MAX];
};

/* What a command did; the checker's and the answer's. */
struct effect {
    uint64_t value; /* the command's own number; 0: not one of our commands */
    uint32_t key;
    bool writes;
    bool raises;
};

struct world;
struct server;

uint64_t machine_value(struct span input); /* the number of a command; 0: not one of ours */
void machine_run(struct world *world, struct server *server, struct apply_batch *batch);

/* --- connections (streams.c) ------------------------------------------------------------- */
struct client;

struct end {
    struct pipe *pipe;
    uint32_t side;
    struct server *server; /* NULL: a client's */
    struct client *client;
    struct node_conn *conn; /* server: the node's */
    bool attached;          /* somebody is there */
    bool ended;             /* it has heard that the other end sends no more */
    bool closed;            /* it sends no more once `out` is delivered */
    bool planned;           /* a delivery of `out` is planned */
    uint64_t held_until_us; /* a lost segment: nothing of `out` arrives before */
    struct buffer out;      /* on its way to the other end */
};

struct pipe {
    uint64_t id;
    uint32_t slot;
    bool open;   /* the dialled one has accepted */
    bool silent; /* one end is gone and nobody was told */
    uint64_t since_us;
    uint64_t sent_bytes;  /* by the dialler, when it is a client */
    uint64_t given_bytes; /* of them, to the node */
    struct end ends[2];   /* the dialler, the dialled */
};

/* --- servers (host.c) -------------------------------------------------------------------- */
struct server {
    uint32_t number; /* from 0; shown from 1 */
    char address[32];
    bool up;
    bool stopping;
    bool wiped; /* its directory is gone; until its place is taken by a new id */
    uint64_t life;
    uint64_t paused_until_us;
    uint64_t stalled_until_us; /* its disk does nothing */
    uint32_t rate_ppm;         /* its clock against true time */
    int64_t wall_offset_ms;
    uint64_t turn_us; /* planned; NEVER: none */
    uint64_t member;  /* the checker's: its id when it was last looked at */

    struct node *node;
    struct vdisk *disk;
    bool full;
    struct disk_jobs jobs;
    struct writing writing;
    uint64_t written_us; /* when its end shows */
    struct job *todo;    /* first: the one under way */
    struct job *todo_last;
    struct apply_batch *batches; /* first: the one under way */
    struct apply_batch *batches_last;
    struct machine machine;
};

/* --- requests (clients.c) ---------------------------------------------------------------- */
enum request_kind {
    REQUEST_COMMAND,
    REQUEST_QUERY,
    REQUEST_LOCAL_QUERY,
    REQUEST_ADMIN,
    REQUEST_SNAPSHOT,
    REQUEST_STATE,
    REQUEST_GARBAGE, /* a line that is answered with an error and a null id */
};

enum request_stage {
    STAGE_SENT,     /* on its way */
    STAGE_GIVEN,    /* a member has it */
    STAGE_ANSWERED, /* the member has answered */
    STAGE_HEARD,    /* the client has the answer */
    STAGE_CLOSED,   /* its connection is gone */
};

struct request {
    uint64_t id; /* of JSON-RPC; a command's number as well */
    enum request_kind kind;
    enum request_stage stage;
    uint32_t key;
    uint64_t pipe;
    uint64_t end_bytes; /* of the pipe's stream, where its line ends */
    uint32_t server;
    uint64_t life;        /* of the server, when given */
    uint64_t given_ms;    /* on the server's clock */
    uint64_t floor;       /* index that was known to be complete when it was sent */
    uint64_t local_floor; /* the same of answers by this member, when given */
    uint64_t applied;     /* index it took effect at; 0: not (yet) */
    uint64_t logged_term; /* in whose leader's log it stands, at last */
    bool quiet;           /* a notification: no answer */
    bool succeeded;
    bool wants_index;
    uint64_t min_index;   /* of a query; 0: none */
    uint64_t age_ms_max;  /* of what a query may see; NEVER: no bound */
    uint64_t fresh_floor; /* index that was complete that long before it was given */

    /* A command that a client sends again is a request each time; the first stands for all. */
    uint64_t origin;   /* the first one's id; its own where nothing is sent again */
    uint64_t session;  /* id of the command that opened its session; 0: none */
    uint64_t seq;      /* in the session */
    uint32_t client;   /* who asks */
    uint32_t tries;    /* of the first: how often it was sent */
    uint32_t refusals; /* of the first: how many were answered as certainly not applied */
    int outcome;       /* of the first: the code that its effect is answered with */
    bool given;        /* of the first: some member has it */
    uint64_t sent_seq; /* of the one that opened a session: the last number sent */
    uint64_t done_seq; /* of the same: the last number that took effect */
};

struct client {
    uint32_t number;
    struct pipe *pipe; /* NULL: not connected */
    bool deaf;         /* never reads */
    struct buffer in;
    /* its session */
    uint64_t session;    /* id of the command that opened it; 0: none */
    uint64_t seq;        /* of its last command */
    uint64_t unanswered; /* id of that command, until its answer is known; 0: it is */
    bool opened;         /* an answer says that the session exists */
    struct buffer input; /* of the last command, for sending it again */
};

/* --- the world --------------------------------------------------------------------------- */
enum happening_kind {
    HAPPEN_TURN,
    HAPPEN_CONNECT,
    HAPPEN_DELIVER,
    HAPPEN_RESET,
    HAPPEN_DISK,
    HAPPEN_MACHINE,
    HAPPEN_START,
    HAPPEN_ROUND,
};

struct happening {
    uint64_t at_us;
    uint64_t number; /* ties are broken by order of planning */
    enum happening_kind kind;
    uint32_t a; /* server, or pipe's slot */
    uint32_t side;
    uint64_t life; /* of the server; or the pipe's id */
};

/* Per million and round, unless said otherwise; 0: never in this run. */
struct rates {
    uint32_t delay_us_max;
    uint32_t split; /* per million deliveries: at any place */
    uint32_t slow;  /* per million deliveries: twenty times later */
    uint32_t cut;
    uint32_t heal;
    uint32_t reset;     /* of a connection */
    uint32_t hold;      /* of one direction of a connection */
    uint32_t half_open; /* per million crashes and resets: nobody is told */
    uint32_t crash;
    uint32_t stop; /* gracefully */
    uint32_t restart_ms_max;
    uint32_t power;   /* per million crashes: the power goes, not only the process */
    uint32_t mid_job; /* per million crashes: in the middle of a disk job */
    uint32_t io_error;
    uint32_t pause;
    uint32_t wipe;
    uint32_t full;
    uint32_t stall;
    uint32_t disk_us_max;
    uint32_t disk_slow; /* per million jobs */
    uint32_t machine_us_max;
    uint32_t machine_slow; /* per million batches */
    uint32_t writing_dies; /* per million snapshots */
    uint32_t clock;        /* steps of a wall clock */
    uint32_t request;      /* per million clients */
    uint32_t burst;        /* per million requests: many at once */
    uint32_t batch;        /* per million requests: a JSON-RPC batch */
    uint32_t quiet;        /* per million commands: notifications */
    uint32_t query;        /* per million requests */
    uint32_t local_query;  /* per million requests */
    uint32_t garbage;      /* per million requests */
    uint32_t stranger;     /* who pretends to be a server */
    uint32_t deaf;         /* per million connections of clients */
    uint32_t leave;        /* clients that go without a word */
    uint32_t change;       /* members */
    uint32_t snapshot;
    uint32_t look;      /* GetServerState */
    uint32_t session;   /* per million commands: in the client's session */
    uint32_t again;     /* per million clients without an answer in their session */
    uint32_t index;     /* per million requests: with the index in the answer */
    uint32_t min_index; /* per million queries */
    uint32_t staleness; /* per million queries */
    uint32_t turn_delay_us_max;
    uint32_t input_bytes_max;
    bool drift;
};

struct world {
    uint64_t seed;
    struct random random;
    uint64_t now_us;
    uint64_t quiet_us; /* all faults and requests end here at the latest; NEVER: as drawn */
    bool trace;
    bool calm;
    bool failed;
    bool stuck; /* more voters lost their directories than Raft bears: no convergence */
    uint64_t events;
    uint64_t fingerprint;
    struct rates rates;
    uint32_t min_timeout_ms;
    uint32_t max_timeout_ms;
    uint32_t request_timeout_ms;
    uint64_t snapshot_log_bytes;
    uint64_t segment_bytes;

    struct happening *queue; /* a heap */
    uint64_t queue_count;
    uint64_t queue_capacity;
    uint64_t planned;

    struct server servers[SERVERS_MAX];
    uint32_t server_count;
    struct client clients[CLIENTS_MAX];
    uint32_t client_count;
    struct pipe *pipes[PIPES_MAX];
    uint64_t next_pipe;
    bool cut[SERVERS_MAX + 1][SERVERS_MAX + 1]; /* from, to; the last: all clients */

    struct request *requests; /* by id - 1 */
    uint64_t request_count;
    uint64_t request_capacity;
    uint64_t floor;        /* the latest index that some client knows to be complete */
    uint64_t seen_index;   /* the latest index that came with an answer */
    uint64_t first_marker; /* peace: ids of the requests that must succeed; 0: none yet */
    uint64_t last_marker;
    uint64_t answers;

    struct checker *checker;
};

/* world.c */
void world_init(struct world *world, uint64_t seed, bool trace, uint64_t quiet_us);
void world_clear(struct world *world);
void world_run(struct world *world);
void world_plan(struct world *world, const struct happening *happening);
bool world_chance(struct world *world, uint32_t per_million);
uint64_t world_between(struct world *world, uint64_t low, uint64_t high);
void world_trace(struct world *world, const char *format, ...) PRINTF_LIKE(2, 3);
void world_fail(struct world *world, const char *format, ...) PRINTF_LIKE(2, 3);
void world_mix(struct world *world, uint64_t number);

/* host.c */
void host_new(struct world *world, uint32_t number);
void host_start(struct world *world, struct server *server);
void host_crash(struct world *world, struct server *server, enum vdisk_crash crash);
void host_stop(struct world *world, struct server *server); /* gracefully */
void host_turn(struct world *world, struct server *server);
void host_wake(struct world *world, struct server *server);
void host_input(struct world *world, struct server *server); /* before every input */
void host_disk(struct world *world, struct server *server);
void host_machine(struct world *world, struct server *server);
void host_write_snapshot(struct world *world, struct server *server, struct span head,
                         struct span states);
void host_free(struct world *world, struct server *server);
uint64_t host_now_ms(const struct world *world, const struct server *server);
static inline bool host_runs(const struct world *world, const struct server *server) {
    return server->up && server->paused_until_us <= world->now_us;
}

/* streams.c */
struct pipe *streams_dial(struct world *world, struct server *from, struct client *client,
                          struct node_conn *conn, uint32_t to);
void streams_connect(struct world *world, uint32_t slot, uint64_t id);
void streams_deliver(struct world *world, uint32_t slot, uint64_t id, uint32_t side);
void streams_reset(struct world *world, uint32_t slot, uint64_t id);
void streams_flush(struct world *world, struct end *end); /* what the node left for it */
void streams_review(struct world *world, struct server *server);
void streams_write(struct world *world, struct end *end, struct span bytes);
void streams_close(struct world *world, struct end *end); /* our side; the rest still goes */
void streams_drop_server(struct world *world, struct server *server, bool told);
void streams_reset_soon(struct world *world, struct pipe *pipe, uint64_t delay_us);
struct pipe *streams_find(struct world *world, uint64_t id);
void streams_free(struct world *world);

/* clients.c */
void clients_round(struct world *world);
void clients_change(struct world *world); /* somebody asks for another member, or one fewer */
void clients_bytes(struct world *world, struct client *client, struct span bytes);
void clients_gone(struct world *world, struct client *client);
/* An answer to a command of a session: that it took effect, or never will. */
void clients_settled(struct world *world, const struct request *request, bool applied);
/* Peace: whether each of these members has served a command and a query since the last start of
 * this; asks for them again where they failed. */
bool clients_served(struct world *world, const uint32_t *servers, uint32_t count);
struct request *clients_find(struct world *world, uint64_t id); /* NULL: there is none */

/* faults.c */
void faults_draw(struct world *world);
void faults_round(struct world *world);
void faults_calm(struct world *world);
bool faults_converged(struct world *world);

/* checker.c: members, disks, the log. */
struct checker *checker_new(void);
void checker_free(struct checker *checker);
void checker_started(struct world *world, struct server *server, bool quarantined);
void checker_turned(struct world *world, struct server *server);
void checker_sends(struct world *world, struct server *server, struct span bytes);
void checker_backlog(struct world *world, struct server *server, struct node_conn *conn);
struct stored { /* what a job is about to make durable */
    uint64_t id;
    bool save_meta;
    uint64_t truncate_from;
};
struct stored checker_storing(struct server *server, const struct job *job);
void checker_stored(struct world *world, struct server *server, const struct stored *before,
                    const struct job *job, bool torn);
bool checker_founded(const struct world *world); /* there is a member, or was */
void checker_wiped(struct world *world, uint64_t id);
/* Whether every configuration in force keeps a majority with its directories when `also` (0:
 * nobody) loses its own. */
bool checker_survives(struct world *world, uint64_t also);
void checker_summary(struct world *world);

/* history.c: commands, queries, answers. */
struct history *history_new(void);
void history_free(struct history *history);
void history_applied(struct world *world, struct server *server, const struct apply_item *item,
                     const struct effect *effect, struct span input);
void history_restored(struct world *world, struct server *server);
void history_given(struct world *world, struct server *server, const struct pipe *pipe,
                   size_t held_bytes);
void history_answered(struct world *world, struct server *server, uint64_t pipe,
                      struct span bytes);
void history_heard(struct world *world, struct span line);
void history_conn_closed(struct world *world, uint64_t pipe);
void history_deadlines(struct world *world);
bool history_all_resolved(struct world *world);
struct history *checker_history(struct world *world);

#endif
