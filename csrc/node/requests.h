/* Commands and queries on their way to the machine and back: the parts of internal.h between a
 * client's request and its answer. Batches are the host's while it carries them. */
#ifndef RAFTPICO_NODE_REQUESTS_H
#define RAFTPICO_NODE_REQUESTS_H

#include "node/batch.h"
#include "node/callers.h"
#include "raft/raft.h"
#include "wire/entry.h"
#include "wire/snapshot.h"

struct node;
struct peer;

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
/* Certainly not applied: it gets a new sequence. */
void pending_again(struct node *node, uint64_t sequence);
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
    bool urgent;                 /* somebody waits for what that one gives, */
    uint64_t gather_until_ms;    /* ... and if not, it waits until then for more */
    struct apply_batch *ready;   /* complete, not taken yet (a list) */
    struct apply_batch *ready_last;
    struct apply_batch *spare;
    uint32_t outstanding;                /* with the apply thread */
    uint64_t through[APPLY_BATCHES_MAX]; /* applied index after each of those, in order */
    uint64_t handed;                     /* last entry put into a batch */
    uint32_t handed_crc;                 /* the chain's checksum there */
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
    struct entry_tag tags[TAGS_MAX];
    uint32_t tag_count;
    struct sessions sessions; /* of clients (sessions.h) */
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
/* Queries that are with the machine; what it says to them later is heard by nobody. */
void apply_fail_all(struct node *node, enum rpc_code code, const char *reason);
void apply_hand_over(struct node *node); /* end of the turn: what was filled may be taken */
uint64_t apply_deadline_ms(const struct node *node);
void apply_load_tags(struct node *node, const struct snapshot_header *header);

#endif
