/* A whole cluster in one thread, over raft/raft.h alone: virtual time, a bad network, disks
 * that lose what was not synced, processes that crash, pause and come back.
 *
 *   world.c    time, the event queue, the members' slots
 *   host.c     what a server does around the core: a turn, its lines, its disk, its state
 *   snapshot.c snapshots: taken, streamed in pieces, installed
 *   network.c  connections and messages
 *   faults.c   what goes wrong and what clients ask for, at rates drawn from the seed
 *   checker.c  what must always hold; knows nothing of how faults and requests are made
 *   shrink.c   the shortest chaos that still fails
 *   main.c     which seeds, and the verdict
 *
 * Everything that happens follows from the seed: the same seed gives the same trace. */
#ifndef RAFTPICO_TESTS_SIM_H
#define RAFTPICO_TESTS_SIM_H

#include "base/random.h"
#include "raft/raft.h"

#define NODES_MAX 16u /* ids 1..NODES_MAX, each used once */
#define READS_MAX 64u

/* --- log lines and disks ----------------------------------------------------------------- */
struct line {
    uint64_t term;
    uint64_t value; /* of a command; unique in a run */
    enum raft_entry_kind kind;
    uint32_t configuration; /* CONFIGURATION: number in world.configurations */
};

struct lines {
    uint64_t first; /* index of lines[0] */
    uint64_t count;
    uint64_t capacity;
    struct line *lines;
};

struct snapshot {
    struct raft_position position;
    uint32_t configuration;
    uint64_t configuration_index;
    uint64_t state;
};

struct disk {
    uint64_t term;
    uint64_t voted_for;
    struct snapshot snapshot;
    struct lines lines; /* may begin before the snapshot's end */
};

enum write_kind {
    WRITE_TURN,     /* vote, truncation, lines of a turn */
    WRITE_OWN,      /* a snapshot taken here */
    WRITE_RECEIVED, /* a snapshot from a leader */
    WRITE_RESET,    /* drop the log: it begins after the received snapshot */
};

struct write {
    struct write *next;
    enum write_kind kind;
    uint64_t done_us;
    bool save_vote;
    uint64_t term;
    uint64_t voted_for;
    uint64_t truncate_from;
    struct lines lines;
    uint64_t generation;
    struct snapshot snapshot;
};

/* --- messages and inputs ----------------------------------------------------------------- */
/* A host's word to a host, which the core does not see. */
enum word {
    WORD_NONE,
    WORD_WANTED, /* `piece` of the snapshot is wanted next */
    WORD_READ,   /* a member of message.term asks for its clients' reads */
};

struct parcel {
    struct raft_message message; /* entries point to `entries` */
    uint64_t session;
    uint32_t count;
    struct raft_entry *entries;
    struct line *lines;
    enum word word;
    uint64_t floor; /* READ: the latest index committed anywhere when it was asked */
    uint32_t piece; /* SNAPSHOT */
    uint32_t pieces;
    struct snapshot snapshot;
};

struct input { /* waits for the node's turn */
    struct input *next;
    struct raft_event event;
    struct parcel *parcel;    /* RECEIVE: owned */
    struct snapshot snapshot; /* INSTALLED, COMPACTED */
};

struct read {
    uint64_t term;
    uint64_t round;
    uint64_t index;
    uint64_t floor; /* the latest index committed anywhere when it was asked */
};

struct sending { /* of a snapshot to one peer */
    bool active;
    struct snapshot snapshot;
    uint32_t piece;
    uint32_t pieces;
    uint64_t again_us;
    uint32_t tries;
};

struct node {
    uint64_t id;
    bool used; /* the slot was given out */
    bool up;
    bool wiped;   /* lost its disk: never comes back under this id */
    bool retired; /* removed for good and switched off */
    bool damaged; /* its disk lost lines that it had synced; until it has caught up */
    uint64_t incarnation;
    uint64_t paused_until_us;
    uint32_t rate_ppm; /* its clock against true time */
    uint64_t turn_us;  /* next turn; UINT64_MAX: none planned */
    bool knows_id;
    bool leaving; /* its removal was asked for */

    struct raft *raft;
    struct raft_state state; /* after the last step */
    struct lines lines;
    uint64_t applied;
    uint64_t applied_state;

    struct disk disk;
    struct write *writes;
    struct write *writes_last;
    struct input *inputs;
    struct input *inputs_last;
    struct read reads[READS_MAX];
    uint32_t read_count;

    struct sending sending[NODES_MAX];
    uint64_t incoming_from; /* the snapshot that is being received */
    struct raft_position incoming;
    uint32_t incoming_piece;
    bool incoming_stored; /* all of it is with the disk */

    uint64_t term_seen; /* checker */
    uint64_t vote_seen;
    uint64_t commit_seen;
    uint64_t durable_seen;
};

/* --- the world --------------------------------------------------------------------------- */
enum happening_kind {
    HAPPEN_TURN,
    HAPPEN_DELIVER,
    HAPPEN_DISK,
    HAPPEN_NOTIFY,
    HAPPEN_CONNECT,
    HAPPEN_RESUME,
    HAPPEN_START,
    HAPPEN_FAULTS,
};

struct happening {
    uint64_t at_us;
    uint64_t number; /* ties are broken by order of planning */
    enum happening_kind kind;
    uint32_t a;
    uint32_t b;
    uint64_t incarnation; /* of a; or the session */
    struct parcel *parcel;
    struct input *input;
};

/* Per million and fault round, unless said otherwise; 0: never in this run. */
struct rates {
    uint32_t drop;  /* per million messages */
    uint32_t twice; /* per million messages */
    uint32_t delay_us_max;
    uint32_t slow; /* per million messages: ten times later */
    bool reorder;
    uint32_t cut;
    uint32_t heal;
    uint32_t flap;  /* connections break and come back */
    uint32_t waver; /* of the rounds after a cut: it heals, or comes back */
    uint32_t crash;
    uint32_t restart;
    uint32_t pause;
    uint32_t damage; /* per million crashes */
    uint32_t wipe;
    uint32_t disk_us_max;
    uint32_t disk_slow;   /* per million writes */
    uint32_t late_notice; /* per million writes: PERSISTED arrives late, perhaps out of order */
    uint32_t propose;
    uint32_t read;
    uint32_t add;
    uint32_t remove;
    uint32_t transfer;
    uint32_t step_down;
    uint32_t snapshot;
    uint32_t full;        /* per million offers: the queue is full */
    uint32_t silent;      /* per million offers: not even SENT */
    uint32_t entries_max; /* in one message */
    uint32_t turn_delay_us_max;
    bool drift;
};

struct world {
    uint64_t seed;
    struct random random;
    uint64_t now_us;
    bool trace;
    uint64_t chaos_us_max; /* peace begins then at the latest */
    bool calm;             /* no faults any more */
    bool failed;
    uint64_t events;
    uint64_t fingerprint;
    uint32_t min_timeout_ms;
    uint32_t commit_notice_ms;
    uint32_t max_timeout_ms;
    struct rates rates;
    uint64_t next_value;
    uint64_t founder; /* bootstraps the cluster; 0: it was there before */
    uint64_t reads_answered;
    uint64_t reads_proven; /* by their askers */
    uint64_t marker_term; /* peace: an entry that must be committed */
    uint64_t marker_index;
    uint64_t stable_us; /* peace: converged, and it must stay so until then */

    struct happening *queue; /* a heap */
    uint64_t queue_count;
    uint64_t queue_capacity;
    uint64_t planned;

    struct node nodes[NODES_MAX];
    uint32_t node_count;
    struct raft_configuration *configurations; /* interned; [0] is empty */
    uint32_t configuration_count;
    uint32_t configuration_capacity;

    uint64_t session[NODES_MAX][NODES_MAX]; /* [small][large]; 0: not connected */
    uint64_t next_session;
    bool cut[NODES_MAX][NODES_MAX];      /* from, to */
    bool wavering[NODES_MAX][NODES_MAX]; /* what a cut that wavers comes back as */
    uint64_t last_arrival_us[NODES_MAX][NODES_MAX];

    struct checker *checker;
};

/* world.c */
void world_init(struct world *world, uint64_t seed, bool trace);
void world_clear(struct world *world);
void world_plan(struct world *world, const struct happening *happening);
bool world_next(struct world *world, struct happening *happening);
bool world_chance(struct world *world, uint32_t per_million);
uint64_t world_between(struct world *world, uint64_t low, uint64_t high);
uint32_t world_intern(struct world *world, const struct raft_configuration *configuration);
struct node *world_find_leader(struct world *world); /* of the highest term; NULL: none */
struct node *world_new_node(struct world *world);    /* NULL: no slot is left */
void world_trace(struct world *world, const char *format, ...) PRINTF_LIKE(2, 3);
void world_fail(struct world *world, const char *format, ...) PRINTF_LIKE(2, 3);
void world_mix(struct world *world, uint64_t number);
void world_run(struct world *world);

/* lines (world.c) */
struct line *lines_at(const struct lines *lines, uint64_t index); /* NULL: not there */
uint64_t lines_last(const struct lines *lines);
void lines_append(struct lines *lines, const struct line *line);
void lines_truncate(struct lines *lines, uint64_t index);
void lines_drop_before(struct lines *lines, uint64_t index);
void lines_reset(struct lines *lines, uint64_t first);
void lines_free(struct lines *lines);

/* host.c */
uint64_t host_now_ms(const struct world *world, const struct node *node);
void host_start(struct world *world, struct node *node);
void host_crash(struct world *world, struct node *node);
void host_turn(struct world *world, struct node *node);
void host_wake(struct world *world, struct node *node, uint64_t at_us);
void host_input(struct world *world, struct node *node, struct input *input);
enum raft_result host_step(struct world *world, struct node *node,
                           const struct raft_event *event, const struct input *input,
                           struct raft_outcome *outcome);
void host_disk_done(struct world *world, struct node *node);
void host_write(struct world *world, struct node *node, const struct write *write);
void host_read(struct world *world, struct node *node);
void host_ask_read(struct world *world, struct node *node);
uint64_t host_mix(uint64_t state, const struct line *line);

/* snapshot.c */
void snapshot_take(struct world *world, struct node *node);
void snapshot_begin_sending(struct world *world, struct node *node, uint64_t to);
void snapshot_tick(struct world *world, struct node *node);
void snapshot_piece(struct world *world, struct node *node, const struct parcel *parcel,
                    bool wanted);
void snapshot_wanted(struct world *world, struct node *node, const struct parcel *parcel);
void snapshot_outcome(struct world *world, struct node *node, const struct input *input,
                      const struct raft_outcome *outcome, enum raft_result result);

/* network.c */
void network_send(struct world *world, struct node *node, struct parcel *parcel);
void network_deliver(struct world *world, struct parcel *parcel);
void network_break(struct world *world, struct node *a, struct node *b, bool told);
void network_break_all(struct world *world, struct node *node);
void network_connect(struct world *world, struct node *a, struct node *b);
void network_connect_later(struct world *world, struct node *a, struct node *b);
void parcel_free(struct parcel *parcel);

/* faults.c */
void faults_draw(struct world *world);
void faults_round(struct world *world);
void faults_calm(struct world *world);
bool faults_converged(struct world *world);

/* shrink.c */
uint64_t shrink_seed(uint64_t seed, uint64_t *trials); /* ms of chaos; UINT64_MAX: no failure */

/* checker.c */
struct checker *checker_new(void);
void checker_free(struct checker *checker);
void checker_line(struct world *world, struct node *node, uint64_t index);
void checker_stepped(struct world *world, struct node *node, enum raft_result result,
                     const struct raft_outcome *outcome);
void checker_sending(struct world *world, struct node *node,
                     const struct raft_message *message);
void checker_applied(struct world *world, struct node *node);
void checker_started(struct world *world, struct node *node);
void checker_read(struct world *world, struct node *node, const struct read *read);
void checker_proven(struct world *world, const struct node *node, const struct read *read);
uint64_t checker_committed(const struct world *world);

#endif
