/* Who runs the loop (server/crew.h): given only to one that waits, taken from one that is at
 * work for long, and whatever was put into a queue is taken without another call. */
#include <pthread.h>
#include <unistd.h>

#include "base/limits.h"
#include "check.h"
#include "server/batches.h"
#include "server/crew.h"

#define WAIT_MS 20000u

static struct crew crew;
static struct batches batches;

static void init(void) {
    crew_init(&crew);
    batches_init(&batches, &crew);
}

static void clear(void) {
    batches_clear(&batches);
    crew_clear(&crew);
}

static void pass_time(uint64_t ms) {
    uint64_t until_ns = uv_hrtime() + ms * 1000000u;
    while (uv_hrtime() < until_ns) {
        usleep(200);
    }
}

static void wait_until_idle(enum hand hand) {
    for (bool idle = false; !idle;) {
        uv_mutex_lock(&crew.mutex);
        idle = crew.idle[hand];
        uv_mutex_unlock(&crew.mutex);
    }
}

/* --- the apply thread: waits for one batch, says whether the loop came along --- */

struct got {
    struct apply_batch *batch;
    bool ended;
    bool own;
};

static void *wait_for_one(void *argument) {
    struct got *got = argument;
    got->batch = batches_wait(&batches, WAIT_MS, &got->ended);
    got->own = crew_end_work(&crew, HAND_APPLY);
    return NULL;
}

/* --- the loop's own thread: waits for the loop, notes when it had it --- */

struct watch {
    bool own;
    uint64_t at_ns;
};

static void *wait_for_loop(void *argument) {
    struct watch *watch = argument;
    watch->own = crew_watch(&crew);
    watch->at_ns = uv_hrtime();
    return NULL;
}

/* --- giving --- */

static void given_to_one_that_waits_only(void) {
    init();
    CHECK(crew_watch(&crew)); /* it is the loop's own thread's at first */
    CHECK(!crew_give(&crew, HAND_APPLY));
    CHECK(!crew_end_work(&crew, HAND_APPLY));
    struct got got = {0};
    pthread_t apply;
    CHECK(pthread_create(&apply, NULL, wait_for_one, &got) == 0);
    wait_until_idle(HAND_APPLY);
    struct apply_batch *batch = apply_batch_new();
    batches_place(&batches, batch);
    CHECK(crew_give(&crew, HAND_APPLY));
    CHECK(pthread_join(apply, NULL) == 0);
    CHECK(got.batch == batch && got.own && !got.ended);
    CHECK(crew_give(&crew, HAND_LOOP)); /* its own thread may always have it */
    CHECK(crew_watch(&crew));
    apply_batch_free(batch);
    clear();
}

/* Two batches before the thread has woken up: the second one must not wait for a third. */
static void nothing_is_forgotten_in_the_queue(void) {
    init();
    struct got got = {0};
    pthread_t apply;
    CHECK(pthread_create(&apply, NULL, wait_for_one, &got) == 0);
    wait_until_idle(HAND_APPLY);
    struct apply_batch *first = apply_batch_new();
    struct apply_batch *second = apply_batch_new();
    batches_place(&batches, first);
    batches_place(&batches, second);
    CHECK(crew_give(&crew, HAND_APPLY));
    CHECK(pthread_join(apply, NULL) == 0);
    CHECK(got.batch == first && got.own);
    CHECK(batches_are_waiting(&batches));
    CHECK(batches_take(&batches) == second);
    CHECK(!batches_are_waiting(&batches));
    apply_batch_free(first);
    apply_batch_free(second);
    clear();
}

/* --- taking --- */

static void give_to_apply(void) {
    uv_mutex_lock(&crew.mutex);
    crew.idle[HAND_APPLY] = true;
    uv_mutex_unlock(&crew.mutex);
    CHECK(crew_give(&crew, HAND_APPLY));
    uv_mutex_lock(&crew.mutex);
    crew.idle[HAND_APPLY] = false;
    uv_mutex_unlock(&crew.mutex);
}

static void taken_from_one_at_work_for_long(void) {
    init();
    CHECK(crew_lends(&crew, HAND_DISK, 1));
    give_to_apply();
    uint64_t since_ns = uv_hrtime();
    struct watch watch = {0};
    wait_for_loop(&watch);
    CHECK(watch.own);
    CHECK(watch.at_ns - since_ns >= (LOOP_LENT_MS_MAX - 1) * 1000000ull);
    CHECK(!crew.at_work && !crew_end_work(&crew, HAND_APPLY)); /* comes back too late */
    CHECK(!crew_lends(&crew, HAND_DISK, 1));                   /* not again at once */
    pass_time(LOOP_LEND_AGAIN_MS + 1);
    CHECK(crew_lends(&crew, HAND_DISK, 1));
    clear();
}

/* Also where its own thread slept when the work began. */
static void taken_after_many_that_were_short(void) {
    init();
    give_to_apply();
    struct watch watch = {0};
    pthread_t loop;
    CHECK(pthread_create(&loop, NULL, wait_for_loop, &watch) == 0);
    bool own = crew_end_work(&crew, HAND_APPLY);
    for (int round = 0; own && round < 3; round++) {
        for (int i = 0; own && i < 1000; i++) {
            crew_begin_work(&crew);
            own = crew_end_work(&crew, HAND_APPLY);
        }
        pass_time(own ? 3 * LOOP_LENT_MS_MAX : 0); /* nobody is at work: nobody looks */
    }
    if (own) { /* else this machine was slow, and it is taken already */
        crew_begin_work(&crew);
    }
    CHECK(pthread_join(loop, NULL) == 0);
    CHECK(watch.own);
    CHECK(!crew_end_work(&crew, HAND_APPLY));
    clear();
}

/* --- what is too long to go along with --- */

static void lent_by_what_it_took_of_late(void) {
    const uint64_t us = 1000;
    init();
    CHECK(crew_lends(&crew, HAND_APPLY, BATCH_ALONG_ITEMS_MAX));
    for (int i = 0; i < 100; i++) {
        crew_note(&crew, HAND_APPLY, 10, 10 * 400 * us);
    }
    CHECK(crew_lends(&crew, HAND_APPLY, 2));
    CHECK(!crew_lends(&crew, HAND_APPLY, 3));
    CHECK(crew_lends(&crew, HAND_DISK, 3)); /* each has its own pace */
    crew_note(&crew, HAND_DISK, 1, 3600000000u * us);
    CHECK(crew_lends(&crew, HAND_DISK, 1)); /* one that hung is no rule */
    for (int i = 0; i < 100; i++) {
        crew_note(&crew, HAND_APPLY, 10, 10 * us);
    }
    CHECK(crew_lends(&crew, HAND_APPLY, BATCH_ALONG_ITEMS_MAX));
    clear();
}

/* --- the end --- */

static void all_learn_of_the_end(void) {
    init();
    give_to_apply();
    CHECK(crew_end_work(&crew, HAND_APPLY));
    struct watch watch = {.own = true};
    struct got got = {0};
    pthread_t loop, apply;
    CHECK(pthread_create(&loop, NULL, wait_for_loop, &watch) == 0);
    CHECK(pthread_create(&apply, NULL, wait_for_one, &got) == 0);
    wait_until_idle(HAND_APPLY);
    crew_end(&crew);
    CHECK(pthread_join(loop, NULL) == 0);
    CHECK(pthread_join(apply, NULL) == 0);
    CHECK(!watch.own && got.batch == NULL && got.ended);
    clear();
}

int main(void) {
    given_to_one_that_waits_only();
    nothing_is_forgotten_in_the_queue();
    taken_from_one_at_work_for_long();
    taken_after_many_that_were_short();
    lent_by_what_it_took_of_late();
    all_learn_of_the_end();
    puts("ok");
    return 0;
}
