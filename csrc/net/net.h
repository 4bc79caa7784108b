/* The outside world as an event loop: connections, name look-ups, a timer, a wake-up.
 *
 * Whoever hosts it hears of what happened through struct net_events, all on the thread that is
 * in net_run(). Nothing is decided here, and what the bytes mean is not known.
 *
 * Two rules. No event comes from within a call of the host's: calls only record, events come
 * from the loop. And after net_conn_close() no event of that connection comes any more, so the
 * host may free what `user` stands for at once; the same holds within and after `closed`.
 *
 * Threading: the thread in net_run() owns everything; net_wake() is for any thread. Between two
 * calls of net_run() another thread may have become the owner. */
#ifndef RAFTPICO_NET_NET_H
#define RAFTPICO_NET_NET_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/limits.h"
#include "base/status.h"

struct net;
struct net_conn;

#define NET_NEVER_MS UINT64_MAX /* as a time-out: none */

struct net_events {
    void *(*accepted)(void *host, struct net_conn *conn); /* returns the connection's `user` */
    void (*connected)(void *host, void *user);            /* what net_dial() asked for */
    void (*bytes)(void *host, void *user, struct span bytes); /* borrowed for the call */
    void (*ended)(void *host, void *user); /* the other side sends no more; it may still read */
    void (*drained)(void *host, void *user); /* some of what was unsent has been sent */
    void (*closed)(void *host, void *user);  /* broken, or could not be dialled: gone */
    void (*woken)(void *host);               /* after net_wake(); several may have become one */
    /* Once in each iteration in which net_turn_soon() was called or net_turn_at() came due,
     * after all input of the iteration. */
    void (*turn)(void *host);
};

enum status net_open(const struct net_events *events, void *host, struct net **net,
                     struct error *error) MUST_USE;

/* Listen on `address`, "host:port"; `bound` becomes the same with port 0 filled in. With
 * `loopback_only` an address that other machines could reach is refused (STATUS_INVALID). Looks
 * names up and waits for it: before net_run() only. */
enum status net_listen(struct net *net, const char *address, bool loopback_only,
                       char bound[ADDRESS_BYTES_MAX], struct error *error) MUST_USE;

/* Run until net_stop() has come to its end (false), or until net_leave() was called or so much
 * time has passed (true: it is to be run again, by whichever thread). The caller deals with the
 * signals of its thread; SIGPIPE must be blocked or ignored. */
bool net_run(struct net *net, uint64_t timeout_ms);
void net_leave(struct net *net); /* after the iteration that runs, or instead of the next */
void net_stop(struct net *net);  /* close everything; what is unsent gets a short while */
void net_close(struct net *net); /* frees; net_run() has returned or was never called */

/* So much is read at once from an accepted connection that is not exempt, from now on;
 * READ_BYTES_MAX at most. */
void net_set_read_bytes(struct net *net, size_t bytes);
void net_wake(struct net *net); /* any thread, until net_close() */
void net_turn_soon(struct net *net);
void net_turn_at(struct net *net, uint64_t at_ms); /* replaces the last; NET_NEVER_MS: not */

uint64_t net_now_ms(void);  /* monotonic */
uint64_t net_wall_ms(void); /* since 1970 */

/* --- connections --- */

/* Begin to connect; `connected` or `closed` follows. */
struct net_conn *net_dial(struct net *net, const char *address, void *user);

/* Send `bytes`, which are empty afterwards: what the system does not take at once is kept and
 * sent later, without copying. False: broken; the host is to close it and hears nothing more.
 */
bool net_conn_write(struct net_conn *conn, struct buffer *bytes) MUST_USE;
/* Whether it was accepted past the limit, for peers alone: unless net_conn_exempt() comes, it
 * is broken after a short while. */
bool net_conn_is_extra(const struct net_conn *conn);
/* It is a peer's: it does not count among the clients'. */
void net_conn_exempt(struct net_conn *conn);

size_t net_conn_unsent(const struct net_conn *conn);
bool net_conn_is_open(const struct net_conn *conn); /* connected: may be written to */

void net_conn_pause(struct net_conn *conn); /* read no more, until resumed */
void net_conn_resume(struct net_conn *conn);

/* Let go of it. What is unsent is still sent, and then closed so that the other side gets it,
 * unless too much is unsent to such connections already. */
void net_conn_close(struct net_conn *conn);

#endif
