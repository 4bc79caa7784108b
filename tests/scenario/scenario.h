/* Plays scenarios: a conversation with a handful of cores, one step at a time.
 *
 *   main.c      files, the re-printed conversation, --check and --rewrite
 *   command.c   a line of text: which command it is, and what it asks for
 *   cluster.c   servers: steps, turns, crashes, what is committed
 *   disk.c      lines and disks: what is written, synced, told, lost
 *   network.c   messages in flight, which wait until they are delivered by name
 *   print.c     messages, states and logs in words
 *
 * Nothing happens by itself: a message is delivered, a write is persisted and a clock goes on
 * only by command. The one safety net is apart from the expected text: two members that commit
 * different entries at one index, two leaders of a term and a read that misses a commit are
 * printed as VIOLATION whatever is expected. tests/README.md describes the language. */
#ifndef RAFTPICO_TESTS_SCENARIO_H
#define RAFTPICO_TESTS_SCENARIO_H

#include <stdio.h>

#include "raft/raft.h"

#define SERVERS_MAX 9u /* ids 1..SERVERS_MAX */
#define TEXT_BYTES_MAX 24u
#define FLIGHTS_MAX 256u
#define READS_MAX 8u
#define COMMITTED_MAX 256u
#define TERMS_MAX 64u
#define WORDS_MAX 32u

/* Time-outs of every server; a heartbeat is then due every 33 ms. */
#define MIN_TIMEOUT_MS 100u
#define MAX_TIMEOUT_MS 200u

/* --- log lines and disks (disk.c) -------------------------------------------------------- */
struct line {
    uint64_t term;
    enum raft_entry_kind kind;
    char text[TEXT_BYTES_MAX];               /* of a command */
    struct raft_configuration configuration; /* of a CONFIGURATION */
};

struct lines {
    uint64_t first; /* index of lines[0] */
    uint64_t count;
    uint64_t capacity;
    struct line *lines;
};

struct snapshot {
    struct raft_position position;
    struct raft_configuration configuration;
    uint64_t configuration_index;
};

struct disk {
    uint64_t term;
    uint64_t voted_for;
    struct snapshot snapshot;
    struct lines lines;
};

enum write_kind {
    WRITE_TURN,     /* vote, truncation, lines of a turn */
    WRITE_OWN,      /* a snapshot taken here */
    WRITE_RECEIVED, /* a leader's snapshot */
    WRITE_RESET,    /* the log begins anew after the received snapshot */
};

struct write {
    struct write *next;
    enum write_kind kind;
    bool stored; /* on the disk; the core was not told yet */
    bool save_vote;
    uint64_t term;
    uint64_t voted_for;
    uint64_t truncate_from;
    struct lines lines;
    uint64_t generation;
    struct snapshot snapshot;
};

/* --- servers (cluster.c) ----------------------------------------------------------------- */
struct read {
    uint64_t number;
    uint64_t term;
    uint64_t round;
    uint64_t index;
    uint64_t floor; /* what was committed anywhere when it was asked */
};

struct server {
    uint64_t id;
    bool used;
    bool up;
    bool damaged; /* its disk lost lines that it had synced */
    uint64_t now_ms;
    uint64_t incarnation;
    struct raft *raft;
    struct raft_state state; /* after the last step */
    struct lines lines;
    struct disk disk;
    struct write *writes; /* not told to the core yet, oldest first */
    struct read reads[READS_MAX];
    uint32_t read_count;
};

/* --- messages in flight (network.c) ------------------------------------------------------ */
struct flight {
    struct raft_message message; /* `entries` point to `entries` */
    bool kept;                   /* set aside until it is released */
    uint32_t count;
    struct line *lines;
    struct raft_entry *entries;
    struct snapshot snapshot;
};

struct selector { /* 1>2, 1>, >2, and perhaps a kind of message; 0 and NULL: any */
    uint64_t from;
    uint64_t to;
    const char *kind;
    bool first; /* only the oldest of them */
};

struct cluster {
    FILE *out;
    bool quiet;         /* tell changes of state only */
    bool disks_instant; /* what is written is persisted at once */
    const char *text;   /* of the commands that are proposed */
    uint64_t batch;     /* entries in one message at most; 0: all that are offered */
    struct server servers[SERVERS_MAX];
    struct flight flights[FLIGHTS_MAX];
    uint32_t flight_count;
    bool cut[SERVERS_MAX + 1][SERVERS_MAX + 1];
    uint64_t reads;
    struct line committed[COMMITTED_MAX]; /* [index]; term 0: nothing */
    uint64_t committed_last;
    uint64_t leaders[TERMS_MAX]; /* [term]: who led it */
};

/* disk.c */
uint64_t lines_last(const struct lines *lines);
struct line *lines_at(const struct lines *lines, uint64_t index); /* NULL: not there */
void lines_append(struct lines *lines, const struct line *line);
void lines_truncate(struct lines *lines, uint64_t index);
void lines_drop_before(struct lines *lines, uint64_t index);
void lines_free(struct lines *lines);
void disk_write(struct server *server, const struct write *write);
void disk_sync(struct server *server);
bool disk_tell(struct cluster *cluster, struct server *server); /* the oldest; false: none */
void disk_forget_writes(struct server *server);                 /* a crash */
struct raft *disk_open(struct server *server);

/* cluster.c */
struct server *cluster_find(struct cluster *cluster, uint64_t id); /* NULL: not started */
struct server *cluster_add(struct cluster *cluster, uint64_t id);
void cluster_open(struct server *server);
void cluster_clear(struct cluster *cluster);
enum raft_result cluster_step(struct cluster *cluster, struct server *server,
                              const struct raft_event *event, const struct flight *flight,
                              struct raft_outcome *outcome);
enum raft_result cluster_do(struct cluster *cluster, struct server *server,
                            const struct raft_event *event); /* a step, and the turn */
void cluster_turn(struct cluster *cluster, struct server *server);
void cluster_crash(struct cluster *cluster, struct server *server);
void cluster_connect(struct cluster *cluster, struct server *a, struct server *b);
void cluster_read(struct cluster *cluster, struct server *server, uint64_t asker);
void cluster_snapshot(struct cluster *cluster, struct server *server, uint64_t index);
void cluster_settle(struct cluster *cluster);

/* network.c */
void network_send(struct cluster *cluster, struct server *server,
                  const struct raft_message *message);
void network_put(struct cluster *cluster, const struct flight *flight);
bool network_selected(const struct flight *flight, const struct selector *selector);
uint32_t network_deliver(struct cluster *cluster, const struct selector *selector);
uint32_t network_drop(struct cluster *cluster, const struct selector *selector);
uint32_t network_duplicate(struct cluster *cluster, const struct selector *selector);
uint32_t network_keep(struct cluster *cluster, const struct selector *selector, bool kept);
void flight_free(struct flight *flight);

/* print.c */
void say(struct cluster *cluster, const char *format, ...) PRINTF_LIKE(2, 3);
const char *kind_name(const struct raft_message *message);
void print_message(struct cluster *cluster, const struct flight *flight, const char *end);
void print_changes(struct cluster *cluster, const struct server *server,
                   const struct raft_state *before);
void print_write(struct cluster *cluster, const struct server *server,
                 const struct write *write);
void print_result(struct cluster *cluster, const struct server *server,
                  const struct raft_event *event, enum raft_result result);
void print_state(struct cluster *cluster, const struct server *server);
void print_log(struct cluster *cluster, const struct server *server);
void print_disk(struct cluster *cluster, const struct server *server);
void print_peers(struct cluster *cluster, const struct server *server);

/* command.c */
bool command_run(struct cluster *cluster, const char *line); /* false: not understood */

#endif
