/* The disk thread and its two queues; see disk.h. What a job means is disk_jobs.c's to know. */
#include "server/disk.h"

static void list_add(struct job_list *list, struct job *job) {
    job->next = NULL;
    if (list->first == NULL) {
        list->first = job;
    } else {
        list->last->next = job;
    }
    list->last = job;
}

static struct job *list_take(struct job_list *list) {
    struct job *job = list->first;
    if (job != NULL) {
        list->first = job->next;
        job->next = NULL;
    }
    return job;
}

static void list_free(struct job_list *list) {
    for (struct job *job = list_take(list); job != NULL; job = list_take(list)) {
        job_free(job);
    }
}

void disk_init(struct disk *disk, struct backend backend, struct writing *writing,
               struct crew *crew) {
    *disk = (struct disk){.crew = crew};
    disk_jobs_init(&disk->jobs, backend, writing);
}

/* --- the disk thread --- */

struct job *disk_wait(struct disk *disk) {
    struct crew *crew = disk->crew;
    uv_mutex_lock(&crew->mutex);
    crew->idle[HAND_DISK] = disk->todo.first == NULL;
    while (disk->todo.first == NULL && !disk->ending) {
        uv_cond_wait(&crew->more[HAND_DISK], &crew->mutex);
    }
    crew->idle[HAND_DISK] = false;
    struct job *job = list_take(&disk->todo);
    uv_mutex_unlock(&crew->mutex);
    return job;
}

struct job *disk_take_only(struct disk *disk, bool (*is_wanted)(const struct job *job)) {
    uv_mutex_lock(&disk->crew->mutex);
    const struct job *first = disk->todo.first;
    bool wanted = first != NULL && first == disk->todo.last && is_wanted(first);
    struct job *job = wanted ? list_take(&disk->todo) : NULL;
    uv_mutex_unlock(&disk->crew->mutex);
    return job;
}

bool disk_has_work(struct disk *disk) {
    uv_mutex_lock(&disk->crew->mutex);
    bool some = disk->todo.first != NULL;
    uv_mutex_unlock(&disk->crew->mutex);
    return some;
}

void disk_give_back(struct disk *disk, struct job *job) {
    uv_mutex_lock(&disk->crew->mutex);
    list_add(&disk->done, job);
    uv_mutex_unlock(&disk->crew->mutex);
}

/* --- life --- */

enum status disk_start(struct disk *disk, void (*work)(void *argument), void *argument,
                       struct error *error) {
    int result = uv_thread_create(&disk->thread, work, argument);
    if (result != 0) {
        return error_set(error, STATUS_NO_MEMORY, "cannot start the disk thread: %s",
                         uv_strerror(result));
    }
    disk->started = true;
    return STATUS_OK;
}

void disk_clear(struct disk *disk) {
    if (disk->started) {
        uv_mutex_lock(&disk->crew->mutex);
        disk->ending = true;
        uv_mutex_unlock(&disk->crew->mutex);
        uv_cond_signal(&disk->crew->more[HAND_DISK]);
        uv_thread_join(&disk->thread);
    }
    list_free(&disk->todo);
    list_free(&disk->done);
    disk_jobs_clear(&disk->jobs);
}

/* --- the loop --- */

void disk_place(struct disk *disk, struct job *job) {
    uv_mutex_lock(&disk->crew->mutex);
    list_add(&disk->todo, job);
    uv_mutex_unlock(&disk->crew->mutex);
}

void disk_push(struct disk *disk, struct job *job) {
    disk_place(disk, job);
    /* Without the lock: who wakes up wants it at once. */
    uv_cond_signal(&disk->crew->more[HAND_DISK]);
}

struct job *disk_take_done(struct disk *disk) {
    uv_mutex_lock(&disk->crew->mutex);
    struct job *first = disk->done.first;
    disk->done = (struct job_list){NULL, NULL};
    uv_mutex_unlock(&disk->crew->mutex);
    return first;
}
