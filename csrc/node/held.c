/* Clients whose input waits: whole lines for their turn, unfinished lines for their rest.
 *
 * Each stands in one list at most. A turn looks at `held` alone: those that are `full` must
 * read their answers first, and those in `unfinished` must send. What the input of all comes to
 * is bounded: past CLIENTS_IN_BYTES_MAX an unfinished line of some size is given up, first one
 * that has been coming in for long. */
#include "base/memory.h"
#include "node/internal.h"

#define CROWDED_INPUT_DATA                                                                     \
    "{\"outcome\":\"not_applied\",\"retry_after_ms\":1000,\"reason\":\"too much input of all " \
    "clients is unfinished or waits\"}"

/* --- the lists --- */

static void enlist(struct node_conn *conn, struct held_list *list) {
    conn->held_in = list;
    list->count++;
    conn->next_held = NULL;
    conn->held_before = list->last;
    if (list->last == NULL) {
        list->first = conn;
    } else {
        list->last->next_held = conn;
    }
    list->last = conn;
}

void held_let_go(struct node_conn *conn) {
    struct held_list *list = conn->held_in;
    if (list == NULL) {
        return;
    }
    if (conn->held_before == NULL) {
        list->first = conn->next_held;
    } else {
        conn->held_before->next_held = conn->next_held;
    }
    if (conn->next_held == NULL) {
        list->last = conn->held_before;
    } else {
        conn->next_held->held_before = conn->held_before;
    }
    list->count--;
    conn->held_in = NULL;
    conn->next_held = conn->held_before = NULL;
}

bool held_is_in_turn(const struct node_conn *conn) {
    return conn->held_in != NULL && conn->held_in != &conn->load->unfinished;
}

/* --- whole lines --- */

bool held_is_pressed(const struct load *load) {
    return load->out_bytes + load->expected >= CLIENTS_OUT_BYTES_MAX;
}

size_t held_backlog_max(const struct load *load) {
    return held_is_pressed(load) ? CLIENT_OUT_PRESSED_BYTES_MAX : CLIENT_OUT_BYTES_MAX;
}

void held_add(struct node_conn *conn) {
    struct load *load = conn->load;
    held_let_go(conn);
    bool full = conn->unsent >= held_backlog_max(load);
    load->full_by_pressure = load->full_by_pressure || (full && held_is_pressed(load));
    enlist(conn, full ? &load->full : &load->held);
}

void held_review(struct node_conn *conn) {
    if (conn->held_in == &conn->load->full && conn->unsent < held_backlog_max(conn->load)) {
        held_add(conn);
    }
}

void held_heed_pressure(struct load *load) {
    if (!load->full_by_pressure || held_is_pressed(load)) {
        return;
    }
    load->full_by_pressure = false;
    struct node_conn *last = load->full.last;
    while (load->full.first != NULL) {
        struct node_conn *conn = load->full.first;
        held_add(conn); /* at the end of one of the two lists */
        if (conn == last) {
            return;
        }
    }
}

/* --- unfinished lines --- */

/* What a peer sends is bounded by itself, and presses no client. */
static void count_input(struct node_conn *conn) {
    size_t bytes = conn->peer == NULL ? conn->in.capacity : 0;
    conn->load->in_bytes += bytes;
    conn->load->in_bytes -= conn->counted_bytes;
    conn->counted_bytes = bytes;
}

static void give_up(struct node *node, struct node_conn *conn) {
    if (conn->kind == CONN_CLIENT) {
        rpc_write_error(&conn->out, SPAN("null"), RPC_OVERLOADED, SPAN(CROWDED_INPUT_DATA),
                        false);
    }
    conn_close(node, conn);
    buffer_free(&conn->in);
    count_input(conn);
}

bool held_input_is_pressed(const struct load *load) {
    return load->in_bytes >= CLIENTS_IN_BYTES_MAX;
}

/* What has begun long ago makes room; else the newest one goes, so that nobody who sends a line
 * at a usual pace loses to one who begins many. */
static void relieve(struct node *node, struct node_conn *newest) {
    struct load *load = &node->load;
    while (held_input_is_pressed(load)) {
        struct node_conn *oldest = load->unfinished.first;
        bool late = oldest != NULL && node->now_ms - oldest->began_ms >= UNFINISHED_PRESSED_MS;
        if (!late) {
            if (newest->held_in == &load->unfinished) {
                give_up(node, newest);
            }
            return;
        }
        give_up(node, oldest);
    }
}

void held_note_input(struct node *node, struct node_conn *conn, bool moved) {
    if (conn->load == NULL) {
        return;
    }
    count_input(conn);
    bool unfinished = conn->peer == NULL && !conn->closing && !held_is_in_turn(conn) &&
                      buffer_count(&conn->in) > CLIENT_IN_PRESSED_BYTES_MAX;
    if (conn->held_in == &conn->load->unfinished && (!unfinished || moved)) {
        held_let_go(conn);
    }
    if (unfinished && conn->held_in == NULL) {
        conn->began_ms = node->now_ms;
        enlist(conn, &conn->load->unfinished);
    }
    relieve(node, conn);
}

void held_forget(struct node_conn *conn) {
    held_let_go(conn);
    buffer_free(&conn->in);
    if (conn->load != NULL) {
        count_input(conn);
    }
}
