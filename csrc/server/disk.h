/* The disk thread: does the node's jobs strictly in order, away from the loop.
 *
 * A job is owned by whoever is to act on it next: the loop until disk_push(), the disk thread
 * until the job stands in `done`, the loop again from disk_take_done() on. */
#ifndef RAFTPICO_SERVER_DISK_H
#define RAFTPICO_SERVER_DISK_H

#include <stdbool.h>
#include <uv.h>

#include "server/crew.h"
#include "server/disk_jobs.h"

struct job_list {
    struct job *first;
    struct job *last;
};

struct disk {
    struct disk_jobs jobs; /* the disk thread's, while it runs */
    uv_thread_t thread;
    bool started;

    struct crew *crew; /* its mutex is that of all below */
    struct job_list todo;
    struct job_list done;
    bool ending;
};

void disk_init(struct disk *disk, struct backend backend, struct writing *writing,
               struct crew *crew); /* takes the backend */
/* Start the thread: it runs `work(argument)`, which is to return when disk_wait() is NULL. */
enum status disk_start(struct disk *disk, void (*work)(void *argument), void *argument,
                       struct error *error) MUST_USE;
void disk_clear(struct disk *disk); /* does what was pushed, joins, closes the backend */

/* The loop. */
void disk_push(struct disk *disk, struct job *job);  /* takes it */
void disk_place(struct disk *disk, struct job *job); /* and wakes nobody */
struct job *disk_take_done(struct disk *disk); /* a list through `next`, in order; NULL: none */

/* The disk thread. */
struct job *disk_wait(struct disk *disk); /* the next job; NULL: all is done, no more comes */
/* The only one that waits, if it is of that kind, else NULL. */
struct job *disk_take_only(struct disk *disk, bool (*is_wanted)(const struct job *job));
bool disk_has_work(struct disk *disk);
/* Done: takes it. The loop is to be woken. */
void disk_give_back(struct disk *disk, struct job *job);

#endif
