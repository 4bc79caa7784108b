/* The disk thread and its two queues; see disk.h. What a job means is disk_jobs.c's to know. */
#include "server/disk.h"

#include "base/assert.h"

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
               struct net *net) {
    *disk = (struct disk){.net = net};
    disk_jobs_init(&disk->jobs, backend, writing);
    int result = uv_mutex_init(&disk->mutex);
    ASSERT(result == 0);
    result = uv_cond_init(&disk->more);
    ASSERT(result == 0);
}

/* The next job, or NULL when all is done and no more will come. */
static struct job *wait_job(struct disk *disk) {
    uv_mutex_lock(&disk->mutex);
    while (disk->todo.first == NULL && !disk->ending) {
        uv_cond_wait(&disk->more, &disk->mutex);
    }
    struct job *job = list_take(&disk->todo);
    uv_mutex_unlock(&disk->mutex);
    return job;
}

/* The loop is woken for the first result; what is done until it looks goes with it. */
static void give_back(struct disk *disk, struct job *job) {
    uv_mutex_lock(&disk->mutex);
    bool first = disk->done.first == NULL;
    list_add(&disk->done, job);
    uv_mutex_unlock(&disk->mutex);
    if (first) {
        net_wake(disk->net);
    }
}

static void run(void *argument) {
    struct disk *disk = argument;
    for (struct job *job = wait_job(disk); job != NULL; job = wait_job(disk)) {
        disk_jobs_do(&disk->jobs, job);
        give_back(disk, job);
    }
}

enum status disk_start(struct disk *disk, struct error *error) {
    int result = uv_thread_create(&disk->thread, run, disk);
    if (result != 0) {
        return error_set(error, STATUS_NO_MEMORY, "cannot start the disk thread: %s",
                         uv_strerror(result));
    }
    disk->started = true;
    return STATUS_OK;
}

void disk_clear(struct disk *disk) {
    if (disk->started) {
        uv_mutex_lock(&disk->mutex);
        disk->ending = true;
        uv_cond_signal(&disk->more);
        uv_mutex_unlock(&disk->mutex);
        uv_thread_join(&disk->thread);
    }
    list_free(&disk->todo);
    list_free(&disk->done);
    uv_cond_destroy(&disk->more);
    uv_mutex_destroy(&disk->mutex);
    disk_jobs_clear(&disk->jobs);
}

void disk_push(struct disk *disk, struct job *job) {
    uv_mutex_lock(&disk->mutex);
    list_add(&disk->todo, job);
    uv_mutex_unlock(&disk->mutex);
    uv_cond_signal(&disk->more); /* without the lock: who wakes up wants it at once */
}

struct job *disk_take_done(struct disk *disk) {
    uv_mutex_lock(&disk->mutex);
    struct job *first = disk->done.first;
    disk->done = (struct job_list){NULL, NULL};
    uv_mutex_unlock(&disk->mutex);
    return first;
}
