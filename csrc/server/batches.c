/* The two queues of batches; see batches.h. Must not know what a batch means. */
#include "server/batches.h"

static void list_add(struct batch_list *list, struct apply_batch *batch) {
    batch->next = NULL;
    if (list->first == NULL) {
        list->first = batch;
    } else {
        list->last->next = batch;
    }
    list->last = batch;
}

static struct apply_batch *list_take(struct batch_list *list) {
    struct apply_batch *batch = list->first;
    if (batch != NULL) {
        list->first = batch->next;
        batch->next = NULL;
    }
    return batch;
}

static void list_free(struct batch_list *list) {
    for (struct apply_batch *batch = list_take(list); batch != NULL; batch = list_take(list)) {
        apply_batch_free(batch);
    }
}

void batches_init(struct batches *batches, struct crew *crew) {
    *batches = (struct batches){.crew = crew};
}

void batches_clear(struct batches *batches) {
    list_free(&batches->waiting);
    list_free(&batches->done);
}

/* --- the loop --- */

void batches_place(struct batches *batches, struct apply_batch *batch) {
    uv_mutex_lock(&batches->crew->mutex);
    list_add(&batches->waiting, batch);
    uv_mutex_unlock(&batches->crew->mutex);
}

void batches_push(struct batches *batches, struct apply_batch *batch) {
    batches_place(batches, batch);
    /* Without the lock: who wakes up wants it at once. */
    uv_cond_signal(&batches->crew->more[HAND_APPLY]);
}

struct apply_batch *batches_take_done(struct batches *batches) {
    uv_mutex_lock(&batches->crew->mutex);
    struct apply_batch *first = batches->done.first;
    batches->done = (struct batch_list){NULL, NULL};
    uv_mutex_unlock(&batches->crew->mutex);
    return first;
}

/* --- the apply thread --- */

struct apply_batch *batches_take(struct batches *batches) {
    uv_mutex_lock(&batches->crew->mutex);
    struct apply_batch *batch = list_take(&batches->waiting);
    uv_mutex_unlock(&batches->crew->mutex);
    return batch;
}

bool batches_are_waiting(struct batches *batches) {
    uv_mutex_lock(&batches->crew->mutex);
    bool some = batches->waiting.first != NULL;
    uv_mutex_unlock(&batches->crew->mutex);
    return some;
}

/* With the mutex held. */
static void wait_for_batch(struct batches *batches, uint64_t timeout_ns) {
    struct crew *crew = batches->crew;
    uint64_t deadline_ns = uv_hrtime() + timeout_ns;
    crew->idle[HAND_APPLY] = true;
    while (batches->waiting.first == NULL && !crew->over) {
        uint64_t now_ns = uv_hrtime();
        if (now_ns >= deadline_ns || uv_cond_timedwait(&crew->more[HAND_APPLY], &crew->mutex,
                                                       deadline_ns - now_ns) != 0) {
            break;
        }
    }
    crew->idle[HAND_APPLY] = false;
}

struct apply_batch *batches_wait(struct batches *batches, uint32_t timeout_ms, bool *ended) {
    struct crew *crew = batches->crew;
    uv_mutex_lock(&crew->mutex);
    if (batches->waiting.first == NULL) {
        wait_for_batch(batches, (uint64_t)timeout_ms * 1000000u);
    }
    *ended = crew->over;
    uv_mutex_unlock(&crew->mutex);
    return *ended ? NULL : batches_take(batches);
}

static void list_add_first(struct batch_list *list, struct apply_batch *batch) {
    batch->next = list->first;
    list->first = batch;
    if (batch->next == NULL) {
        list->last = batch;
    }
}

void batches_finish(struct batches *batches, struct apply_batch *batch) {
    struct apply_batch *rest = batch->left > 0 ? apply_batch_split(batch) : NULL;
    uv_mutex_lock(&batches->crew->mutex);
    if (rest != NULL) {
        list_add_first(&batches->waiting, rest); /* before whatever came later */
    }
    list_add(&batches->done, batch);
    uv_mutex_unlock(&batches->crew->mutex);
}
