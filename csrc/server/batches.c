/* The two queues of batches; see batches.h. Must not know what a batch means. */
#include "server/batches.h"

#include "base/assert.h"

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

void batches_init(struct batches *batches, struct net *net) {
    *batches = (struct batches){.net = net};
    int result = uv_mutex_init(&batches->mutex);
    ASSERT(result == 0);
    result = uv_cond_init(&batches->more);
    ASSERT(result == 0);
}

void batches_clear(struct batches *batches) {
    list_free(&batches->waiting);
    list_free(&batches->done);
    uv_cond_destroy(&batches->more);
    uv_mutex_destroy(&batches->mutex);
}

void batches_push(struct batches *batches, struct apply_batch *batch) {
    uv_mutex_lock(&batches->mutex);
    list_add(&batches->waiting, batch);
    uv_mutex_unlock(&batches->mutex);
    uv_cond_signal(&batches->more); /* without the lock: who wakes up wants it at once */
}

struct apply_batch *batches_take_done(struct batches *batches) {
    uv_mutex_lock(&batches->mutex);
    struct apply_batch *first = batches->done.first;
    batches->done = (struct batch_list){NULL, NULL};
    uv_mutex_unlock(&batches->mutex);
    return first;
}

void batches_end(struct batches *batches) {
    uv_mutex_lock(&batches->mutex);
    batches->ended = true;
    uv_cond_broadcast(&batches->more);
    uv_mutex_unlock(&batches->mutex);
}

struct apply_batch *batches_wait(struct batches *batches, uint32_t timeout_ms, bool *ended) {
    uint64_t deadline_ns = uv_hrtime() + (uint64_t)timeout_ms * 1000000u;
    struct apply_batch *batch = NULL;
    uv_mutex_lock(&batches->mutex);
    while (batches->waiting.first == NULL && !batches->ended) {
        uint64_t now_ns = uv_hrtime();
        if (now_ns >= deadline_ns ||
            uv_cond_timedwait(&batches->more, &batches->mutex, deadline_ns - now_ns) != 0) {
            break;
        }
    }
    if (!batches->ended) {
        batch = list_take(&batches->waiting);
    }
    *ended = batches->ended;
    uv_mutex_unlock(&batches->mutex);
    return batch;
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
    uv_mutex_lock(&batches->mutex);
    if (rest != NULL) {
        list_add_first(&batches->waiting, rest); /* before whatever came later */
    }
    bool first = batches->done.first == NULL;
    list_add(&batches->done, batch);
    uv_mutex_unlock(&batches->mutex);
    if (first) {
        net_wake(batches->net);
    }
}
