/* The node's connections and what carries them: a socket, or a call from within the process.
 *
 * Must not know what the bytes mean. Invariants: a link and its node_conn live and die
 * together; what the node writes in a turn goes to the system in one call.
 *
 * A client that has sent all it had and closed its sending side (`jlot call`, `nc -N`) still
 * waits for its answers: such a link is kept until the last of them is sent. */
#include "base/assert.h"
#include "base/memory.h"
#include "server/internal.h"

#define REVIEW_MS 100u /* links that are watched are looked at this often at least */

/* --- life --- */

static struct link *link_new(struct server *server, enum link_kind kind) {
    struct link *link = memory_must_alloc_zero(sizeof(*link));
    link->kind = kind;
    link->server = server;
    link->next = server->links;
    link->link = &server->links;
    if (link->next != NULL) {
        link->next->link = &link->next;
    }
    server->links = link;
    return link;
}

static void watch(struct link *link) {
    struct server *server = link->server;
    if (link->watched_link == NULL) {
        link->next_watched = server->watched;
        link->watched_link = &server->watched;
        if (link->next_watched != NULL) {
            link->next_watched->watched_link = &link->next_watched;
        }
        server->watched = link;
    }
}

static void unwatch(struct link *link) {
    if (link->watched_link != NULL) {
        *link->watched_link = link->next_watched;
        if (link->next_watched != NULL) {
            link->next_watched->watched_link = link->watched_link;
        }
        link->watched_link = NULL;
    }
}

/* The node learns of it, and the link is no more. */
static void forget(struct link *link) {
    unwatch(link);
    *link->link = link->next;
    if (link->next != NULL) {
        link->next->link = link->link;
    }
    loop_input(link->server);
    node_conn_closed(link->server->node, link->node_conn);
    memory_free(link);
}

void links_close(struct link *link, enum status status) {
    switch (link->kind) {
    case LINK_SOCKET:
        net_conn_close(link->net_conn);
        break;
    case LINK_CALL:
        calls_answer(&link->server->calls, link->call, status, (struct span){NULL, 0});
        break;
    }
    forget(link);
}

void links_close_all(struct server *server) {
    while (server->links != NULL) {
        links_close(server->links, STATUS_CLOSED);
    }
}

/* --- reading --- */

/* Nothing more comes in on it, and everything that had to go out has. A client that is slow to
 * read gets its time; one that is being closed, only what net/ allows it. */
static bool is_done(const struct link *link) {
    bool closing = node_conn_closing(link->node_conn);
    if (!net_conn_is_open(link->net_conn)) {
        return closing;
    }
    return (closing || (link->ended && net_conn_unsent(link->net_conn) == 0)) &&
           !node_conn_waiting(link->node_conn) &&
           buffer_count(node_conn_out(link->node_conn)) == 0;
}

/* Read on, wait, or close: whatever the link's state asks for. */
static void review(struct link *link) {
    if (is_done(link)) {
        links_close(link, STATUS_CLOSED);
        return;
    }
    node_conn_set_unsent(link->node_conn, net_conn_unsent(link->net_conn));
    bool paused = !node_conn_wants_input(link->node_conn);
    if (node_conn_is_stuck(link->server->node, link->node_conn)) {
        links_close(link, STATUS_CLOSED);
        return;
    }
    if (paused != link->paused) {
        link->paused = paused;
        if (paused) {
            net_conn_pause(link->net_conn);
        } else {
            net_conn_resume(link->net_conn);
        }
    }
    if (link->paused || link->ended || node_conn_is_behind(link->node_conn)) {
        watch(link);
    } else {
        unwatch(link);
    }
}

/* What many clients have us hold for a while would stay the process's for good. */
static void give_memory_back(struct server *server) {
    uint64_t bytes = node_clients_bytes(server->node);
    if (bytes >= server->peak_bytes) {
        server->peak_bytes = bytes;
    } else if (server->peak_bytes >= GIVE_BACK_BYTES_LEAST && bytes < server->peak_bytes / 4) {
        server->peak_bytes = bytes;
        memory_trim();
    }
}

/* Each is looked at when something happens to it. This is for what happens to none of them:
 * time passes, and what all have unread grows less. */
void links_review(struct server *server) {
    if (net_now_ms() < server->review_ms) {
        return;
    }
    server->review_ms = net_now_ms() + REVIEW_MS;
    struct link *next = NULL;
    for (struct link *link = server->watched; link != NULL; link = next) {
        next = link->next_watched;
        review(link);
    }
    give_memory_back(server);
}

/* --- what comes from the sockets --- */

static void notice_crowd(struct server *server) {
    uint64_t now_ms = net_now_ms();
    if (now_ms >= server->crowded_ms) {
        server->crowded_ms = now_ms + CROWDED_NOTICE_MS;
        node_notice(server->node, "warning", "overload",
                    "as many clients are connected as the limits allow: more are turned away");
    }
}

void *links_accepted(void *host, struct net_conn *conn) {
    struct server *server = host;
    loop_input(server);
    struct link *link = link_new(server, LINK_SOCKET);
    link->net_conn = conn;
    link->node_conn = node_conn_open(server->node, link);
    if (net_conn_is_extra(conn)) {
        node_conn_set_peers_only(link->node_conn);
        notice_crowd(server);
    }
    return link;
}

void links_connected(void *host, void *user) {
    struct link *link = user;
    loop_input(host);
    node_conn_connected(link->server->node, link->node_conn);
}

void links_bytes(void *host, void *user, struct span bytes) {
    struct link *link = user;
    loop_input(host);
    node_conn_receive(link->server->node, link->node_conn, bytes);
    net_set_read_bytes(link->server->net, node_read_bytes_max(link->server->node));
    if (node_conn_is_peer(link->node_conn)) {
        net_conn_exempt(link->net_conn);
    }
    if (!node_conn_wants_input(link->node_conn)) {
        review(link);
    }
}

void links_ended(void *host, void *user) {
    struct link *link = user;
    loop_input(host);
    link->ended = true;
    watch(link);
    review(link); /* if it waits for nothing; else when the last answer goes out */
}

void links_drained(void *host, void *user) {
    struct link *link = user;
    loop_input(host); /* the node may have held back what there is room for now */
    node_conn_set_unsent(link->node_conn, net_conn_unsent(link->net_conn));
    if (link->watched_link != NULL) {
        review(link);
    }
}

void links_closed(void *host, void *user) {
    (void)host;
    forget(user);
}

/* --- what the node leaves --- */

static void flush_socket(struct link *link) {
    struct buffer *out = node_conn_out(link->node_conn);
    if (net_conn_is_open(link->net_conn) && buffer_count(out) > 0) {
        if (!net_conn_write(link->net_conn, out)) {
            links_close(link, STATUS_CLOSED);
            return;
        }
        buffer_trim(out, CONN_OUT_KEEP_BYTES);
        node_conn_set_unsent(link->node_conn, net_conn_unsent(link->net_conn));
    }
    if (link->watched_link != NULL || !node_conn_wants_input(link->node_conn) ||
        node_conn_is_behind(link->node_conn)) {
        review(link);
    }
}

/* The first line that the node writes is the answer; there is no second. */
static void flush_call(struct link *link) {
    struct span out = buffer_span(node_conn_out(link->node_conn));
    const char *lf = out.size > 0 ? memchr(out.data, '\n', out.size) : NULL;
    if (lf != NULL) {
        struct span line = {out.data, (size_t)(lf - out.data)};
        calls_answer(&link->server->calls, link->call, STATUS_OK, line);
        forget(link);
    } else if (node_conn_closing(link->node_conn)) {
        links_close(link, STATUS_CLOSED);
    }
}

void links_flush(struct link *link) {
    switch (link->kind) {
    case LINK_SOCKET:
        flush_socket(link);
        break;
    case LINK_CALL:
        flush_call(link);
        break;
    }
}

void links_dial(struct server *server, struct node_conn *node_conn, const char *address) {
    struct link *link = link_new(server, LINK_SOCKET);
    link->node_conn = node_conn;
    node_conn_set_host(node_conn, link);
    link->net_conn = net_dial(server->net, address, link);
}

void links_call(struct server *server, struct call *call) {
    loop_input(server);
    struct link *link = link_new(server, LINK_CALL);
    link->call = call;
    call->owner = link;
    link->node_conn = node_conn_open(server->node, link);
    node_conn_receive(server->node, link->node_conn, buffer_span(&call->line));
}
