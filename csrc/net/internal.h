/* What the files of net/ share: the loop's parts and a connection's life.
 *
 *     net_dial -> RESOLVING -> CONNECTING -+
 *                    ^__ next address __|  |
 *     accepted ----------------------------+-> OPEN -> FINISHING -> CLOSING -> freed
 *
 * Handles are embedded in their owner; the owner is freed only after libuv's close callback,
 * and a connection only after its look-up has come back as well. */
#ifndef RAFTPICO_NET_INTERNAL_H
#define RAFTPICO_NET_INTERNAL_H

#include <stdatomic.h>
#include <sys/socket.h>
#include <uv.h>

#include "net/net.h"

enum net_stage {
    NET_RESOLVING,
    NET_CONNECTING,
    NET_OPEN,
    NET_FINISHING, /* the host has let go: sending the rest, dropping what comes */
    NET_CLOSING,
};

/* The addresses that a dialled connection may still try. */
struct net_dial {
    uv_getaddrinfo_t lookup;
    uv_connect_t connect;
    bool looking_up;
    struct sockaddr_storage literal; /* of an address that needs no look-up */
    struct addrinfo *found;          /* owned; NULL for a literal one */
    struct addrinfo *next;           /* to try after this one */
};

struct net_conn {
    uv_tcp_t tcp;
    uv_shutdown_t shutdown;
    struct net *net;
    void *user; /* the host's; NULL once it has let go */
    enum net_stage stage;
    bool accepted; /* counts among the clients' connections */
    bool extra;    /* accepted, among those past the limit */
    bool ended;    /* the other side sends no more */
    bool paused;
    bool tcp_closed;       /* the close callback has come */
    uint64_t deadline_ms;  /* CONNECTING, FINISHING */
    uint64_t dropped;      /* bytes read and thrown away while FINISHING */
    size_t finishing;      /* bytes unsent when that began */
    struct net_dial *dial; /* RESOLVING, CONNECTING; NULL afterwards */
    struct net_conn *next; /* in net->conns */
    struct net_conn **link;
};

/* What other threads write to, and the loop polls. */
struct wake {
    uv_poll_t poll;
    int ends[2];         /* to read from, to write to; may be the same descriptor */
    atomic_bool pending; /* something was written that the loop has not read yet */
};

struct net {
    uv_loop_t loop;
    uv_tcp_t listener;
    struct wake wake;
    uv_timer_t timer;   /* the turn that is due */
    uv_timer_t sweeper; /* connections' deadlines */
    uv_timer_t leaver;  /* net_run() has a time-out */
    uv_check_t check;   /* after the poll: the turn's place */
    uv_idle_t idle;     /* active while a turn is due: the poll must not wait */
    const struct net_events *events;
    void *host;
    bool turn_due;
    bool stopping;
    uint64_t turn_at_ms; /* what the timer stands for */
    struct net_conn *conns;
    uint32_t accepted_count;
    uint32_t extra_count;
    int32_t timed_count; /* connections with a deadline: the sweeper runs while there are any */
    size_t finishing;    /* bytes: of all connections that are FINISHING */
    char *read_bytes;    /* READ_BYTES_MAX, for whichever connection is being read */
    size_t client_bytes; /* of these, for a client's */
};

/* net.c */
void net_count_deadline(struct net *net, int change);

/* wake.c */
int wake_open(struct net *net); /* 0, or an error of libuv's */
void wake_stop(struct net *net);
void wake_close(struct net *net); /* after the loop has closed the handle */

/* conn.c */
struct net_conn *net_conn_open(struct net *net, enum net_stage stage);
void net_conn_opened(struct net_conn *conn); /* connected: options, reading */
void net_conn_fail(struct net_conn *conn);   /* broken: tell the host, close */
void net_conn_close_now(struct net_conn *conn);
void net_conn_set_deadline(struct net_conn *conn, uint64_t deadline_ms); /* 0: none */
void net_conn_expire(struct net_conn *conn); /* its deadline has passed */
void net_conn_free_if_done(struct net_conn *conn);
void net_conn_stop(struct net_conn *conn); /* the loop is ending */

/* dial.c */
void dial_try_next(struct net_conn *conn);
void dial_free(struct net_conn *conn);

/* resolve.c */
struct resolve_parts {
    char host[ADDRESS_BYTES_MAX];
    char port[8];
};
/* "host:port" or "[host]:port"; false: it is neither. Port 0 is allowed. */
bool resolve_split(const char *address, struct resolve_parts *parts);
bool resolve_literal(const struct resolve_parts *parts, struct sockaddr_storage *found);
bool resolve_is_loopback(const struct sockaddr *address);
unsigned resolve_port(const struct sockaddr *address);

#endif
