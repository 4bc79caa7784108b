/* Connections as the node sees them: bytes in, lines and payloads to their rooms, bytes out.
 *
 * Must not know what a line means. Invariant: input is consumed in order; once `closing` is set
 * no more of it is looked at. */
#include "base/assert.h"
#include "base/memory.h"
#include "node/internal.h"

struct node_conn *conn_new(void *host, enum conn_kind kind) {
    struct node_conn *conn = memory_must_alloc_zero(sizeof(*conn));
    conn->host = host;
    conn->kind = kind;
    return conn;
}

static void conn_free(struct node_conn *conn) {
    buffer_free(&conn->in);
    buffer_free(&conn->out);
    memory_free(conn->message);
    memory_free(conn);
}

void conn_wait(struct node_conn *conn, bool hears) {
    struct load *load = conn->load;
    if (load == NULL) {
        conn->waiting++;
        return;
    }
    if (conn->waiting >= LIGHT_IN_FLIGHT) {
        conn->singles = 0;
    }
    /* Of a connection that has had no answer yet, others' say what to expect. */
    uint64_t bytes = conn->answered ? conn->answer_bytes : load->answer_bytes;
    bytes = hears ? bytes : 0;
    conn->expected += bytes;
    load->expected += bytes;
    load->waiting++;
    load->waiting_conns += conn->waiting++ == 0;
}

/* All that it asked is answered, and it was never much: a client that waits for each answer? */
static void note_single(struct load *load, struct node_conn *conn) {
    if (conn->singles < LIGHT_SINGLES) {
        conn->singles++;
    } else {
        load->light_ms = load->now_ms + LIGHT_MS;
        load->light_conn = conn;
    }
}

void conn_release(struct node_conn *conn) {
    ASSERT(conn->waiting > 0);
    if (conn->load != NULL) {
        uint64_t bytes = conn->expected / conn->waiting;
        conn->expected -= bytes;
        conn->load->expected -= bytes;
        conn->load->waiting--;
        conn->released_ms = conn->load->now_ms;
        if (conn->waiting == 1) {
            conn->load->waiting_conns--;
            note_single(conn->load, conn);
        }
    }
    conn->waiting--;
    if (conn->gone && conn->waiting == 0 && !conn->dirty) {
        conn_free(conn);
    }
}

void conn_mark_dirty(struct node *node, struct node_conn *conn) {
    if (!conn->dirty && !conn->gone) {
        struct node_conn **list = conn->kind == CONN_CLIENT ? &node->dirty : &node->dirty_peers;
        conn->dirty = true;
        conn->next_dirty = *list;
        *list = conn;
    }
}

static struct node_conn *take_dirty(struct node_conn **list) {
    while (*list != NULL) {
        struct node_conn *conn = *list;
        *list = conn->next_dirty;
        conn->next_dirty = NULL;
        conn->dirty = false;
        if (!conn->gone) {
            return conn;
        }
        if (conn->waiting == 0) {
            conn_free(conn);
        }
    }
    return NULL;
}

struct node_conn *node_take_dirty_peer(struct node *node) {
    return take_dirty(&node->dirty_peers);
}

struct node_conn *node_take_dirty(struct node *node) {
    struct node_conn *conn = node_take_dirty_peer(node);
    return conn != NULL ? conn : take_dirty(&node->dirty);
}

void conn_close(struct node *node, struct node_conn *conn) {
    conn->closing = true;
    held_let_go(conn);
    conn_mark_dirty(node, conn);
}

void conn_send_message(struct node *node, struct node_conn *conn,
                       const struct peer_message *message) {
    peer_write(&conn->out, message);
    conn_mark_dirty(node, conn);
}

struct node_conn *node_conn_open(struct node *node, void *host) {
    struct node_conn *conn = conn_new(host, CONN_CLIENT);
    conn->load = &node->load;
    return conn;
}

void node_conn_connected(struct node *node, struct node_conn *conn) {
    peers_connected(node, conn);
}

void node_conn_set_unsent(struct node_conn *conn, size_t bytes) {
    struct load *load = conn->load;
    if (load == NULL) {
        conn->unsent = bytes;
        return;
    }
    load->out_bytes += bytes;
    load->out_bytes -= conn->unsent;
    conn->took = conn->took || bytes < conn->unsent;
    conn->unsent = bytes;
    if (!node_conn_is_behind(conn)) {
        conn->seen_behind = false; /* when it is again, its time begins anew */
    }
    held_review(conn);
}

void node_conn_closed(struct node *node, struct node_conn *conn) {
    ASSERT(!conn->gone);
    conn->gone = true;
    conn->host = NULL;
    node_conn_set_unsent(conn, 0);
    held_forget(conn);
    buffer_free(&conn->out);
    if (conn->kind != CONN_CLIENT) {
        peers_closed(node, conn);
    }
    if (conn->waiting == 0 && !conn->dirty) {
        conn_free(conn);
    }
}

/* As much is under way as makes sense: who has something among it waits. */
static bool is_full(const struct load *load) {
    return load->waiting >= IN_FLIGHT_MAX || load->expected >= EXPECTED_BYTES_MAX;
}

/* As much is under way as may be beside a client who waits for each answer: he waits for what
 * was there before him. */
static bool is_enough(const struct load *load) {
    return load->light_ms > 0 && (load->waiting >= BESIDE_LIGHT_IN_FLIGHT_MAX ||
                                  load->expected >= BESIDE_LIGHT_EXPECTED_BYTES_MAX);
}

/* Whether a client makes way for one who waits for each answer. Not where its own answers do
 * not come, for want of a leader, say: then its requests wait side by side, each for its time,
 * and not one behind the other. */
static bool makes_way(const struct node_conn *conn) {
    const struct load *load = conn->load;
    bool light = conn->singles >= LIGHT_SINGLES || conn == load->light_conn;
    return !light && load->now_ms - conn->released_ms <= LIGHT_MS;
}

/* Whether a client's next line has room. Of one connection alone much may be in flight, which
 * makes large batches; where others wait too, each waits for the others' shares only. */
static bool has_room(const struct node_conn *conn) {
    const struct load *load = conn->load;
    ASSERT(load != NULL); /* a client's connection */
    uint32_t in_flight_max =
        load->shared_ms > 0 ? IN_FLIGHT_SHARED_MAX : IN_FLIGHT_PER_CLIENT_MAX;
    uint64_t expected_max =
        held_is_pressed(load) ? CLIENT_OUT_PRESSED_BYTES_MAX : ANSWERS_IN_FLIGHT_BYTES_MAX;
    bool crowded = conn->waiting > 0 && (is_full(load) || (is_enough(load) && makes_way(conn)));
    return !conn->closing && !crowded && conn->waiting < in_flight_max &&
           conn_backlog(conn) < held_backlog_max(load) && conn->expected < expected_max;
}

/* What is answered at once is never in flight, but it takes its time: between two turns, with
 * the heartbeats that they send, there is an end to it however many clients ask. */
static bool is_cut_short(const struct load *load) {
    return load->turn_bytes >= load->turn_bytes_max;
}

/* Whether a client's next line may be taken now. */
static bool takes_more(const struct node_conn *conn) {
    return has_room(conn) && !is_cut_short(conn->load);
}

bool node_conn_wants_input(const struct node_conn *conn) {
    if (conn->kind != CONN_CLIENT) {
        return !conn->closing;
    }
    return !held_is_in_turn(conn) && has_room(conn);
}

bool node_conn_is_stuck(struct node *node, struct node_conn *conn) {
    if (!node_conn_is_behind(conn)) {
        return false;
    }
    if (conn->took || !conn->seen_behind) {
        conn->taken_ms = node->now_ms;
    }
    conn->took = false;
    conn->seen_behind = true;
    return conn_backlog(conn) >= held_backlog_max(conn->load) &&
           node->now_ms - conn->taken_ms >=
               (held_is_pressed(conn->load) ? CLIENT_STALL_PRESSED_MS : CLIENT_STALL_MS);
}

bool node_conn_is_behind(const struct node_conn *conn) {
    return conn->kind == CONN_CLIENT && conn_backlog(conn) >= CLIENT_OUT_PRESSED_BYTES_MAX;
}

bool node_conn_waiting(const struct node_conn *conn) {
    return conn->waiting > 0 || held_is_in_turn(conn);
}

void node_conn_set_peers_only(struct node_conn *conn) {
    conn->peers_only = true;
}

bool node_conn_is_peer(const struct node_conn *conn) {
    return conn->kind == CONN_PEER_IN && conn->peer != NULL;
}

void *node_conn_host(const struct node_conn *conn) {
    return conn->host;
}

void node_conn_set_host(struct node_conn *conn, void *host) {
    conn->host = host;
}

struct buffer *node_conn_out(struct node_conn *conn) {
    return &conn->out;
}

bool node_conn_closing(const struct node_conn *conn) {
    return conn->closing;
}

/* --- input --- */
#define NUMBER_TEXT(number) #number
#define TOO_LONG(number)                                                                       \
    "{\"reason\":\"line too long\",\"limit_bytes\":" NUMBER_TEXT(number) "}"
#define TOO_LONG_DATA TOO_LONG(1048576)
STATIC_ASSERT(LINE_BYTES_MAX == 1048576, "the text names the limit");

#define CROWDED_DATA                                                                           \
    "{\"outcome\":\"not_applied\",\"retry_after_ms\":1000,\"reason\":\"too many "              \
    "connections\"}"

static void too_long(struct node *node, struct node_conn *conn) {
    if (conn->kind == CONN_CLIENT) {
        rpc_write_error(&conn->out, SPAN("null"), RPC_PARSE_ERROR, SPAN(TOO_LONG_DATA), false);
    }
    conn_close(node, conn);
}

/* A line for servers is looked at here only as far as is needed to know what follows it. */
static void peer_line(struct node *node, struct node_conn *conn, struct span line) {
    if (node->stopped) {
        conn_close(node, conn);
        return;
    }
    if (conn->message == NULL) {
        conn->message = memory_must_alloc_zero(sizeof(*conn->message));
    }
    if (peer_read(line, conn->message) != STATUS_OK ||
        conn->message->bytes > PEER_PAYLOAD_BYTES_MAX) {
        apply_notice(node, "warning", "peer",
                     "a malformed message between servers was refused");
        conn_close(node, conn);
        return;
    }
    bool carries = conn->message->bytes > 0 && conn->kind == CONN_PEER_IN;
    if (carries && conn->peer == NULL) {
        conn_close(node, conn); /* a stranger has nothing to give us */
    } else if (carries) {
        conn->payload_bytes = conn->message->bytes;
    } else {
        peers_receive(node, conn, conn->message, (struct span){NULL, 0});
    }
}

static bool is_peer_line(const struct node_conn *conn, struct span line) {
    return conn->kind != CONN_CLIENT || peer_is_message(line);
}

/* Consume what is whole at the start of `input`; returns how much of it is done with. */
static size_t take_one(struct node *node, struct node_conn *conn, struct span input) {
    if (conn->payload_bytes > 0) {
        if (input.size < conn->payload_bytes) {
            return 0;
        }
        size_t bytes = conn->payload_bytes;
        conn->payload_bytes = 0;
        peers_receive(node, conn, conn->message, (struct span){input.data, bytes});
        return bytes;
    }
    struct span line;
    size_t consumed = 0;
    size_t bytes_max = conn->kind == CONN_CLIENT ? LINE_BYTES_MAX : PEER_LINE_BYTES_MAX;
    switch (frame_next(&conn->frame, input, bytes_max, &line, &consumed)) {
    case FRAME_MORE:
        return 0;
    case FRAME_TOO_LONG:
        too_long(node, conn);
        return 0;
    case FRAME_LINE:
        break;
    }
    if (is_peer_line(conn, line)) {
        peer_line(node, conn, line);
    } else if (conn->peers_only) {
        rpc_write_error(&conn->out, SPAN("null"), RPC_OVERLOADED, SPAN(CROWDED_DATA), false);
        conn_close(node, conn);
    } else {
        request_line(node, conn, line);
    }
    return consumed;
}

static size_t take_all(struct node *node, struct node_conn *conn, struct span input) {
    size_t done = 0;
    while (!conn->closing && done < input.size &&
           (conn->kind != CONN_CLIENT || takes_more(conn))) {
        size_t written = buffer_count(&conn->out);
        size_t consumed =
            take_one(node, conn, (struct span){input.data + done, input.size - done});
        if (consumed == 0) {
            break;
        }
        done += consumed;
        if (conn->kind == CONN_CLIENT) {
            conn->load->turn_bytes += consumed + (buffer_count(&conn->out) - written);
        }
    }
    return conn->closing ? input.size : done;
}

/* --- lines that wait for their turn --- */
/* Input is left that may hold a whole line, and would be taken if there were room. */
static void hold_if_full(struct node_conn *conn) {
    if (conn->kind == CONN_CLIENT && !conn->closing && buffer_count(&conn->in) > 0 &&
        !takes_more(conn)) {
        if (conn->waiting > 0) {
            conn->singles = 0; /* for want of room it has no more under way */
        }
        held_add(conn);
        conn->load->cut_short = conn->load->cut_short || has_room(conn);
    }
}

static void heed_shares(struct node *node) {
    node->load.now_ms = node->now_ms;
    if (node->now_ms >= node->load.light_ms) {
        node->load.light_ms = 0;
    }
    if (node->load.waiting_conns > 1) {
        node->load.shared_ms = node->now_ms + SHARED_MS;
    } else if (node->now_ms >= node->load.shared_ms) {
        node->load.shared_ms = 0;
    }
}

static void go_on(struct node *node, struct node_conn *conn, uint64_t share) {
    struct load *load = conn->load;
    conn->looked_turn = load->turn;
    held_let_go(conn);
    load->turn_bytes_max = load->turn_bytes + share;
    size_t done = 0;
    if (takes_more(conn)) {
        done = take_all(node, conn, buffer_span(&conn->in));
        buffer_consume(&conn->in, done);
        conn_mark_dirty(node, conn); /* the host looks whether to read again */
    }
    hold_if_full(conn);
    buffer_trim(&conn->in, CONN_IN_KEEP_BYTES);
    held_note_input(node, conn, done > 0);
}

/* Of a turn, for each of those whose lines wait. */
static uint64_t share_of(const struct load *load) {
    uint64_t share = TURN_BYTES_MAX / (load->held.count + 1);
    return share > TURN_SHARE_BYTES_LEAST ? share : TURN_SHARE_BYTES_LEAST;
}

/* How many of those whose lines wait go on in this turn, as things are now. */
static uint32_t held_looked_at(const struct load *load) {
    if (is_enough(load)) {
        return HELD_LOOKED_AT_BESIDE_LIGHT;
    }
    return is_full(load) ? HELD_LOOKED_AT : UINT32_MAX;
}

void conn_go_on(struct node *node) {
    heed_shares(node);
    held_heed_pressure(&node->load);
    struct load *load = &node->load;
    uint64_t share = share_of(load);
    load->turn++;
    load->turn_bytes = 0;
    load->cut_short = false;
    for (uint32_t looked = 0; looked < held_looked_at(load); looked++) {
        struct node_conn *conn = load->held.first;
        if (conn == NULL || conn->looked_turn == load->turn) {
            break; /* all have had their turn */
        }
        if (load->turn_bytes >= TURN_BYTES_MAX) {
            load->cut_short = true;
            break;
        }
        go_on(node, conn, share);
    }
    load->turn_bytes_max = TURN_BYTES_MAX;
    struct node_conn *next = load->held.first;
    if (next != NULL && next->looked_turn != load->turn && has_room(next)) {
        load->cut_short = true;
    }
}

uint64_t node_clients_bytes(const struct node *node) {
    return node->load.out_bytes + node->load.in_bytes;
}

/* Little, where it would only lie here. */
size_t node_read_bytes_max(const struct node *node) {
    const struct load *load = &node->load;
    bool little = held_input_is_pressed(load) || is_cut_short(load);
    return little ? CLIENT_IN_PRESSED_BYTES_MAX : READ_BYTES_MAX;
}

void node_conn_receive(struct node *node, struct node_conn *conn, struct span bytes) {
    size_t done = 0;
    if (conn->closing) {
        return;
    }
    if (conn->load != NULL && held_is_in_turn(conn)) {
        buffer_append_span(&conn->in, bytes);
    } else if (buffer_count(&conn->in) == 0) {
        done = take_all(node, conn, bytes); /* in place: the usual case copies nothing */
        buffer_append(&conn->in, bytes.data + done, bytes.size - done);
        hold_if_full(conn);
    } else {
        buffer_append_span(&conn->in, bytes);
        done = take_all(node, conn, buffer_span(&conn->in));
        buffer_consume(&conn->in, done);
        hold_if_full(conn);
    }
    buffer_trim(&conn->in, CONN_IN_KEEP_BYTES);
    held_note_input(node, conn, done > 0);
}
