/* Between the loop and the apply thread: batches that wait for the machine, and batches that
 * are done. A batch is the apply thread's from batches_wait() to batches_finish(). */
#ifndef RAFTPICO_SERVER_BATCHES_H
#define RAFTPICO_SERVER_BATCHES_H

#include <stdbool.h>
#include <uv.h>

#include "net/net.h"
#include "node/batch.h"

struct batch_list {
    struct apply_batch *first;
    struct apply_batch *last;
};

struct batches {
    struct net *net; /* to be woken when one is done */

    uv_mutex_t mutex; /* of all below */
    uv_cond_t more;
    struct batch_list waiting;
    struct batch_list done;
    bool ended;
};

void batches_init(struct batches *batches, struct net *net);
void batches_clear(struct batches *batches);

/* The loop. */
void batches_push(struct batches *batches, struct apply_batch *batch); /* takes it */
struct apply_batch *batches_take_done(struct batches *batches);        /* a list, in order */
void batches_end(struct batches *batches); /* whoever waits, or will, learns that it is over */

/* The apply thread. */
struct apply_batch *batches_wait(struct batches *batches, uint32_t timeout_ms, bool *ended);
void batches_finish(struct batches *batches, struct apply_batch *batch); /* takes it */

#endif
