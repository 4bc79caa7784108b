/* The disk thread: does the node's jobs strictly in order, away from the loop.
 *
 * A job is owned by whoever is to act on it next: the loop until disk_push(), the disk thread
 * until the job stands in `done`, the loop again from disk_take_done() on. */
#ifndef RAFTPICO_SERVER_DISK_H
#define RAFTPICO_SERVER_DISK_H

#include <stdbool.h>
#include <uv.h>

#include "net/net.h"
#include "server/disk_jobs.h"

struct job_list {
    struct job *first;
    struct job *last;
};

struct disk {
    struct disk_jobs jobs; /* the disk thread's, while it runs */
    struct net *net;       /* to be woken when something is done */
    uv_thread_t thread;
    bool started;

    uv_mutex_t mutex; /* of all below */
    uv_cond_t more;
    struct job_list todo;
    struct job_list done;
    bool ending;
};

void disk_init(struct disk *disk, struct backend backend, struct writing *writing,
               struct net *net); /* takes the backend */
enum status disk_start(struct disk *disk, struct error *error) MUST_USE;
void disk_clear(struct disk *disk); /* does what was pushed, joins, closes the backend */

/* The loop. */
void disk_push(struct disk *disk, struct job *job); /* takes it */
struct job *disk_take_done(struct disk *disk); /* a list through `next`, in order; NULL: none */

#endif
