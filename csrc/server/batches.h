/* Between the loop and the apply thread: batches that wait for the machine, and batches that
 * are done. A batch is the apply thread's from batches_wait() or batches_take() to
 * batches_finish(). One that was placed needs no waking: the thread is given the loop next, or
 * is not idle and looks here anyway. */
#ifndef RAFTPICO_SERVER_BATCHES_H
#define RAFTPICO_SERVER_BATCHES_H

#include <stdbool.h>
#include <uv.h>

#include "node/batch.h"
#include "server/crew.h"

struct batch_list {
    struct apply_batch *first;
    struct apply_batch *last;
};

struct batches {
    struct crew *crew; /* its mutex is that of all below */
    struct batch_list waiting;
    struct batch_list done;
};

void batches_init(struct batches *batches, struct crew *crew);
void batches_clear(struct batches *batches);

/* The loop. */
void batches_push(struct batches *batches, struct apply_batch *batch);  /* takes it */
void batches_place(struct batches *batches, struct apply_batch *batch); /* and wakes nobody */
struct apply_batch *batches_take_done(struct batches *batches);         /* a list, in order */

/* The apply thread. Waiting ends with a batch, with NULL after the time-out, and with NULL and
 * `ended` when the loop has. */
struct apply_batch *batches_wait(struct batches *batches, uint32_t timeout_ms, bool *ended);
struct apply_batch *batches_take(struct batches *batches); /* NULL: none waits */
bool batches_are_waiting(struct batches *batches);
/* Takes it. The loop is to be woken. */
void batches_finish(struct batches *batches, struct apply_batch *batch);

#endif
