/* Connections, and who waits for an answer on one: the parts of internal.h that all requests go
 * through.
 *
 * Owners: a conn is the host's from node_conn_open() to node_conn_closed(), after which it
 * lives on (as `gone`) until the last request that came through it is answered. */
#ifndef RAFTPICO_NODE_CALLERS_H
#define RAFTPICO_NODE_CALLERS_H

#include "base/limits.h"
#include "node/node.h"
#include "node/sessions.h"
#include "wire/frame.h"
#include "wire/peer.h"
#include "wire/rpc.h"

struct node;
struct peer;

/* --- connections (conn.c) --- */
enum conn_kind {
    CONN_CLIENT,   /* until it says hello */
    CONN_PEER_IN,  /* a peer's: its messages to us */
    CONN_PEER_OUT, /* ours: our messages to a peer, its answers to our hello */
    CONN_PROBE,    /* ours: who listens at the address that is to be added? */
    CONN_CHECK,    /* ours: which life of a peer listens at its address? */
};

/* Of clients with input in `in` that waits (held.c). */
struct held_list {
    struct node_conn *first;
    struct node_conn *last;
    uint32_t count;
};

/* What all clients' connections come to together. A turn costs no more for those that have to
 * read their answers first, however many they are: they stand apart. */
struct load {
    struct held_list held;       /* a turn looks at them in this order, */
    uint64_t turn;               /* ... and then at none again before the next turn */
    uint64_t turn_bytes;         /* of lines and of answers to them at once, since it began */
    uint64_t turn_bytes_max;     /* no line is taken past so many */
    bool cut_short;              /* the next turn is to come at once: lines wait for that */
    struct held_list full;       /* when their host has less unsent, or the pressure ends */
    bool full_by_pressure;       /* some of them would not be full without it */
    struct held_list unfinished; /* lines of some size, by when they began */
    uint64_t in_bytes;           /* that `in` of all takes */
    uint32_t waiting;            /* requests */
    uint32_t waiting_conns;      /* connections with a request that waits */
    uint64_t shared_ms;          /* until then each has a share of what may be in flight */
    uint64_t now_ms;             /* of the turn */
    uint64_t light_ms;           /* until then somebody is taken to wait for each answer: */
    const struct node_conn *light_conn; /* ... the last to do so; to be compared, no more */
    uint64_t out_bytes;                 /* unread answers that the host holds */
    uint64_t expected;                  /* bytes that the answers under way may come to */
    size_t answer_bytes;                /* of a large answer of late, on any connection */
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
    size_t unsent;             /* bytes the host holds */
    bool took;                 /* some of it, since it was last looked at */
    bool seen_behind;          /* when it was last looked at */
    uint64_t taken_ms;         /* of one that is behind: when it last took, or came to be so */
    struct held_list *held_in; /* of the load's; NULL: nothing waits */
    struct node_conn *next_held;
    struct node_conn *held_before;
    uint64_t looked_turn; /* the load's turn that looked at it last */
    uint64_t began_ms;    /* the unfinished line */
    size_t counted_bytes; /* of `in`, in load->in_bytes */
    uint32_t waiting;     /* requests not answered yet */
    uint64_t released_ms; /* when one was answered last */
    uint32_t singles;     /* how often all was answered, since there was much */
    bool answered;        /* something, so that the next is known: */
    size_t answer_bytes;  /* of a large answer of late */
    uint64_t expected;    /* bytes that the answers to the waiting ones may come to */
    uint32_t bad_lines;   /* in a row */
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
/* One waiting request more; `hears`: it is to be answered. */
void conn_wait(struct node_conn *conn, bool hears);
void conn_go_on(struct node *node); /* with the lines that were held, a share of each in turn */
struct node_conn *conn_new(void *host, enum conn_kind kind);
void conn_release(struct node_conn *conn); /* one waiting request fewer; frees a gone one */

/* --- input that waits (held.c) --- */
void held_add(struct node_conn *conn); /* whole lines: for a turn, or until there is room */
void held_let_go(struct node_conn *conn);
void held_forget(struct node_conn *conn);           /* with its input */
bool held_is_in_turn(const struct node_conn *conn); /* whole lines wait; a client's only */
void held_review(struct node_conn *conn); /* the host has more or less unsent for it */
/* Unread answers of all, here or under way, come to so much that each may add less. */
bool held_is_pressed(const struct load *load);
size_t held_backlog_max(const struct load *load);
void held_heed_pressure(struct load *load); /* some have room when nothing presses any more */
/* `in` has changed, after its lines were taken (`moved`: one at least). */
void held_note_input(struct node *node, struct node_conn *conn, bool moved);
bool held_input_is_pressed(const struct load *load);

/* --- callers (caller.c): who waits for an answer --- */
struct gather; /* the answers of a JSON-RPC batch, collected */

struct caller {
    struct node_conn *conn; /* NULL: nobody, or answered */
    struct gather *gather;  /* NULL: not part of a batch */
    bool wants_index;       /* the result says at which index it was made */
    char *id; /* raw JSON text; points to id_inline or to the heap; NULL: a notification */
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

#endif
