/* A running member: a node, hosted on three threads.
 *
 *   loop   libuv: sockets, timers, the node. Never takes the GIL, never waits for the disk.
 *   disk   writes and syncs batches, reads old lines, carries snapshots.
 *   apply  the caller's own thread: it takes batches with server_wait_batch(), runs them and
 *          gives them back with server_finish_batch(). The only one that knows about Python.
 *
 * Where there is little to do, the apply thread runs the loop while it waits, and so does the
 * disk thread (server/crew.h).
 *
 * Life: server_open (binds, opens the directory) -> server_start (threads) -> wait/finish ...
 * until wait returns NULL with *stopped -> server_close (joins, frees). */
#ifndef RAFTPICO_SERVER_SERVER_H
#define RAFTPICO_SERVER_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/limits.h"
#include "base/status.h"
#include "node/batch.h"

struct server;
struct writing; /* server/writing.h */

struct server_options {
    const char *address;    /* "host:port" to listen on and to be known by; port 0: the system
                            chooses */
    const char *data_path;  /* data directory; NULL: in memory only */
    bool insecure;          /* allow an address that is not loopback */
    bool sync;              /* false: never sync (benchmarks only) */
    uint64_t segment_bytes; /* 0: default */
    uint64_t snapshot_log_bytes; /* take a snapshot by itself when the log since the last one is
                                    larger than this and than the last snapshot; 0: default (64
                                    MiB) */
    uint64_t seed;               /* of the randomised time-outs; 0: from the system */
    uint64_t snapshot_timeout_ms; /* a child process that writes a snapshot without progress
                                     for this long is ended; 0: default (300,000) */
    uint32_t request_timeout_ms; /* each request is answered within this; 0: default (60,000) */
};

/* Bind, open and read back. On failure `error` says what, where and why, and what to do. */
enum status server_open(const struct server_options *options, struct server **server,
                        struct error *error) MUST_USE;
enum status server_start(struct server *server, struct error *error) MUST_USE;

/* Any thread: begin a graceful stop (hand over leadership, answer what is pending, sync). A
 * second call stops at once. Async-signal-unsafe. */
void server_stop(struct server *server);

/* Joins the threads and frees. The apply thread must have left wait/finish. */
void server_close(struct server *server);

/* Apply thread: the next batch, or NULL after `timeout_ms` (at most once more as long, where it
 * ran the loop first) or when the server stopped (*stopped). Blocks, and may run the loop
 * meanwhile: call it without the GIL, and never in a process that was forked off. */
struct apply_batch *server_wait_batch(struct server *server, uint32_t timeout_ms,
                                      bool *stopped);
void server_finish_batch(struct server *server, struct apply_batch *batch);

/* Apply thread: where a snapshot is written (an APPLY_SNAPSHOT item); as long as the server. */
struct writing *server_writing(struct server *server);

/* Why it stopped: STATUS_OK after server_stop(), else what failed (disk ...). */
enum status server_exit_status(struct server *server, struct error *error);

/* Any thread but the apply thread: send one request line (JSON text without LF) as if from a
 * client, wait for its response line. STATUS_TIMEOUT, STATUS_CLOSED. Blocks; call it without
 * the GIL. */
enum status server_call(struct server *server, struct span line, uint32_t timeout_ms,
                        struct buffer *response) MUST_USE;

/* Any thread, any time: the essentials, of a recent copy, as a JSON object (its members:
 * raftpico.Server.state()). Never blocks on the loop. */
void server_peek_state(struct server *server, struct buffer *json);

/* The address that is listened on (the port filled in). Valid as long as the server. */
const char *server_address(const struct server *server);

#endif
