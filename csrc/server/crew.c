/* Who runs the loop; see crew.h. Must not know what the work is. */
#include "server/crew.h"

#include "base/assert.h"
#include "base/limits.h"

#define LENT_NS_MAX (LOOP_LENT_MS_MAX * 1000000ull)
#define LEND_AGAIN_NS (LOOP_LEND_AGAIN_MS * 1000000ull)

void crew_init(struct crew *crew) {
    *crew = (struct crew){.holder = HAND_LOOP};
    int result = uv_mutex_init(&crew->mutex);
    ASSERT(result == 0);
    for (int hand = 0; hand < HAND_COUNT; hand++) {
        result = uv_cond_init(&crew->more[hand]);
        ASSERT(result == 0);
    }
}

void crew_clear(struct crew *crew) {
    for (int hand = 0; hand < HAND_COUNT; hand++) {
        uv_cond_destroy(&crew->more[hand]);
    }
    uv_mutex_destroy(&crew->mutex);
}

/* --- the holder --- */

/* With the mutex held. True: the loop's own thread must be woken to look at the time. It goes
 * on to look for a while, since to be woken for each work would cost more. */
static bool begin_work(struct crew *crew) {
    bool unwatched = !crew->watching;
    crew->at_work = true;
    crew->since_ns = uv_hrtime();
    crew->works++;
    crew->watching = true;
    return unwatched;
}

void crew_begin_work(struct crew *crew) {
    uv_mutex_lock(&crew->mutex);
    ASSERT(!crew->at_work && crew->holder != HAND_LOOP);
    bool unwatched = begin_work(crew);
    uv_mutex_unlock(&crew->mutex);
    if (unwatched) {
        uv_cond_signal(&crew->more[HAND_LOOP]);
    }
}

bool crew_end_work(struct crew *crew, enum hand self) {
    uv_mutex_lock(&crew->mutex);
    bool own = crew->holder == self;
    if (own) {
        crew->at_work = false;
    }
    uv_mutex_unlock(&crew->mutex);
    return own;
}

bool crew_lends(struct crew *crew, enum hand to, uint32_t pieces) {
    uint64_t now_ns = uv_hrtime();
    uv_mutex_lock(&crew->mutex);
    bool lends = pieces * crew->pace_ns[to] <= LENT_NS_MAX / 2 && now_ns >= crew->not_before_ns;
    uv_mutex_unlock(&crew->mutex);
    return lends;
}

/* One piece that was held up for long says little of the next ones. */
void crew_note(struct crew *crew, enum hand self, uint32_t pieces, uint64_t ns) {
    uint64_t piece_ns = pieces > 0 ? ns / pieces : ns;
    uint64_t noted_ns = piece_ns < 2 * LENT_NS_MAX ? piece_ns : 2 * LENT_NS_MAX;
    uv_mutex_lock(&crew->mutex);
    crew->pace_ns[self] = (7 * crew->pace_ns[self] + noted_ns) / 8;
    uv_mutex_unlock(&crew->mutex);
}

bool crew_give(struct crew *crew, enum hand to) {
    bool unwatched = false;
    uv_mutex_lock(&crew->mutex);
    ASSERT(crew->holder != to && !crew->at_work);
    bool given = to == HAND_LOOP || crew->idle[to];
    if (given) {
        crew->holder = to;
        unwatched = to != HAND_LOOP && begin_work(crew);
    }
    uv_mutex_unlock(&crew->mutex);
    if (given) {
        uv_cond_signal(&crew->more[to]);
    }
    if (unwatched) {
        uv_cond_signal(&crew->more[HAND_LOOP]);
    }
    return given;
}

void crew_end(struct crew *crew) {
    uv_mutex_lock(&crew->mutex);
    crew->over = true;
    for (int hand = 0; hand < HAND_COUNT; hand++) {
        uv_cond_broadcast(&crew->more[hand]);
    }
    uv_mutex_unlock(&crew->mutex);
}

/* --- the loop's own thread --- */

/* With the mutex held. 0: whoever begins to work will wake us. */
static uint64_t look_again_ns(const struct crew *crew, uint64_t *seen_works, uint64_t now_ns) {
    if (crew->at_work) {
        return crew->since_ns + LENT_NS_MAX - now_ns;
    }
    bool worked = crew->works != *seen_works;
    *seen_works = crew->works;
    return worked ? LENT_NS_MAX : 0;
}

/* With the mutex held: wait for the loop, or for the time at which the work has lasted long. */
static void wait_watching(struct crew *crew, uint64_t *seen_works, uint64_t now_ns) {
    uint64_t again_ns = look_again_ns(crew, seen_works, now_ns);
    crew->watching = again_ns > 0;
    if (again_ns > 0) {
        (void)uv_cond_timedwait(&crew->more[HAND_LOOP], &crew->mutex, again_ns);
    } else {
        uv_cond_wait(&crew->more[HAND_LOOP], &crew->mutex);
    }
}

bool crew_watch(struct crew *crew) {
    uint64_t seen_works = 0;
    uv_mutex_lock(&crew->mutex);
    while (crew->holder != HAND_LOOP && !crew->over) {
        uint64_t now_ns = uv_hrtime();
        if (crew->at_work && now_ns - crew->since_ns >= LENT_NS_MAX) {
            crew->holder = HAND_LOOP;
            crew->at_work = false;
            crew->not_before_ns = now_ns + LEND_AGAIN_NS;
        } else {
            wait_watching(crew, &seen_works, now_ns);
        }
    }
    bool own = !crew->over;
    uv_mutex_unlock(&crew->mutex);
    return own;
}
