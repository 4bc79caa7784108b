/* Who runs the loop: one of three threads, at each moment.
 *
 * To hand work to another thread and to have it back takes two wake-ups, each of which lasts
 * longer than most work does. So where there is little to do the loop goes along with the work:
 * the thread that runs a small batch, or does a small write, runs the loop before and after it.
 *
 *                given, with a small batch            given, with a small write
 *         LOOP ---------------------------> APPLY <--------------------------> DISK
 *          ^  \____________________________ or ________________________________^
 *          |                                  |                                |
 *          +---- given, when there is much to do; taken from who is at work for too long
 *
 * What they do besides may last: Python's code, a disk that hangs. So the loop's own thread
 * looks at the time while another one has the loop, and takes it after LOOP_LENT_MS_MAX. Then
 * it keeps it for a while, and the others get their work through queues alone.
 *
 * Invariant: only the holder touches what is the loop's, and nobody while it is at work. */
#ifndef RAFTPICO_SERVER_CREW_H
#define RAFTPICO_SERVER_CREW_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

enum hand {
    HAND_LOOP,  /* the loop's own thread, which does nothing else */
    HAND_APPLY, /* the caller of server_wait_batch() */
    HAND_DISK,
    HAND_COUNT,
};

struct crew {
    uv_mutex_t mutex;           /* of all below, and of the queues of batches and of jobs */
    uv_cond_t more[HAND_COUNT]; /* there is something for this one */
    bool idle[HAND_COUNT];      /* it waits for that: it may be given the loop as well */
    enum hand holder;
    bool at_work;                 /* the holder, at something else */
    uint64_t since_ns;            /* ... from then on */
    uint64_t works;               /* how often that was so */
    bool watching;                /* HAND_LOOP will look at the time before long */
    uint64_t not_before_ns;       /* the holder's: nobody is given it to go along before */
    uint64_t pace_ns[HAND_COUNT]; /* what one piece of its work takes, of late */
    bool over;                    /* the loop has ended */
};

void crew_init(struct crew *crew);
void crew_clear(struct crew *crew);

/* The loop's own thread: wait until it has the loop; false: that has ended. */
bool crew_watch(struct crew *crew);

/* The holder: whether the loop may go along with so many pieces of that one's work: they are
 * expected to be done in half the time after which it would be taken back. */
bool crew_lends(struct crew *crew, enum hand to, uint32_t pieces);
/* The holder: give the loop to one that was waiting when something was put into its queue.
 * False: it was not, or has begun with that already, and the loop is still the caller's. */
bool crew_give(struct crew *crew, enum hand to);
/* The holder, before it turns to something else. */
void crew_begin_work(struct crew *crew);
/* One that was given the loop, or was at work with it, is back: does it have the loop still? */
bool crew_end_work(struct crew *crew, enum hand self);

/* So many pieces of its work have taken so long. */
void crew_note(struct crew *crew, enum hand self, uint32_t pieces, uint64_t ns);

/* The holder: the loop has ended. Whoever waits, or will, learns of it. */
void crew_end(struct crew *crew);

#endif
