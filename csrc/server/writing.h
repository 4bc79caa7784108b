/* The writing of our own snapshot's state, away from the disk thread: by the apply thread
 * itself, or by a child process that was forked off it and so sees the machine as it was at
 * exactly that moment, while the apply thread goes on.
 *
 *   disk    writing_offer: an empty file stands ready
 *   apply   writing_start a writer on it; then either write and writing_finish, or fork:
 *           the parent says writing_forked, the child writing_isolate, and it writes and
 *           finishes, and never returns
 *   loop    writing_poll: has it ended, and how? Ends a child that makes no progress
 *
 * What a child has to say stands in memory that it shares with its parent, so there is no
 * connection between them that could block or be inherited further. One that died without a
 * word has said so, too. A child holds no socket, no lock and no other file of its parent's,
 * dies with it, and yields to it (nice; it is also the first to go where memory runs out).
 *
 * Invariant: one writing at a time; between writing_start and the poll that tells its end, the
 * file is the writer's alone. */
#ifndef RAFTPICO_SERVER_WRITING_H
#define RAFTPICO_SERVER_WRITING_H

#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>

#include "storage/file.h"
#include "wire/snapshot_stream.h"

enum writing_stage {
    WRITING_IDLE,
    WRITING_BUSY,     /* the apply thread writes, or is about to fork */
    WRITING_IN_CHILD, /* the process `pid` writes */
    WRITING_ENDED,    /* the apply thread has written */
};

/* Shared with the child. */
struct writing_report {
    _Atomic uint64_t bytes; /* written so far: a sign of life */
    _Atomic bool ended;     /* `result` holds; the last thing that is set */
    struct error result;
};

struct writing {
    struct writing_report *report;
    struct file file; /* written by the disk thread, read by the apply thread one batch later */
    atomic_int stage; /* enum writing_stage; set by the apply thread, reset by the loop. What a
                         child sets is its own copy */
    pid_t pid;        /* IN_CHILD; set before the stage */
    uint64_t timeout_ms; /* a child without progress for this long is ended; 0: default */

    uint64_t seen_bytes; /* the loop's: the progress at... */
    uint64_t seen_ms;    /* ... this time */
    bool killed;
};

struct writer {
    struct writing *writing;
    struct snapshot_stream stream; /* the JSON goes to its `out` */
    uint64_t unsynced;
};

enum status writing_init(struct writing *writing, uint64_t timeout_ms,
                         struct error *error) MUST_USE;
void writing_clear(struct writing *writing); /* ends a child and waits for its end */

/* The disk thread. The file is borrowed; the node drops it only after the writing has ended. */
void writing_offer(struct writing *writing, struct file file);

/* The apply thread, and the child. */
void writing_start(struct writing *writing, struct span head, struct writer *writer);
enum status writer_flush(struct writer *writer, struct error *error) MUST_USE;
static inline bool writer_is_full(const struct writer *writer);
/* The trailer and what is left, durably. */
enum status writer_end(struct writer *writer, struct error *error) MUST_USE;
void writer_clear(struct writer *writer);
void writing_finish(struct writing *writing, enum status status, const char *text);

/* Between fork() and the first line of Python in the child: no system call that could wait, no
 * memory, no lock. `mask` is the mask of signals to go on with. */
void writing_isolate(struct writing *writing, pid_t parent, const sigset_t *mask);
void writing_forked(struct writing *writing, pid_t pid);

/* The loop: true once, when the writing has ended; `result` says how. STATUS_INVALID: the
 * machine's snapshot() raised, or gave what is no JSON. STATUS_CLOSED: the child ended without
 * a word. STATUS_TIMEOUT: it made no progress. Others: the file. */
bool writing_poll(struct writing *writing, uint64_t now_ms, struct error *result);

_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "processes share no lock");

#define WRITER_BUFFER_BYTES (256u * 1024)    /* encoded, then written at once */
#define WRITER_SYNC_BYTES (4u * 1024 * 1024) /* synced at once: no long stall for others */
#define WRITER_CHILD_NICE 10                 /* yields to those who answer requests */
#define WRITING_TIMEOUT_MS_DEFAULT 300000u   /* also for a snapshot() that thinks first */

static inline bool writer_is_full(const struct writer *writer) {
    return buffer_count(&writer->stream.out) >= WRITER_BUFFER_BYTES;
}

#endif
