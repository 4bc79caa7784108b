/* What the threads do with the loop (server/shifts.c), over a loop that does as it is told:
 * nothing that waits is left for later, and the loop goes along with small work only. */
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "check.h"
#include "server/internal.h"

#define WAIT_MS 20000u

static struct server server;

/* --- a loop that does as it is told, and a disk that does nothing --- */

static struct {
    int runs;
    int wakes;
    int looks; /* at what is done */
    int jobs;
    bool (*run)(void); /* what the next run is: as net_run() */
} said;

bool net_run(struct net *net, uint64_t timeout_ms) {
    (void)net;
    (void)timeout_ms;
    said.runs++;
    CHECK(said.run != NULL);
    return said.run();
}

void net_wake(struct net *net) {
    (void)net;
    said.wakes++;
}

void loop_take_done(struct server *of) {
    struct apply_batch *next_batch = batches_take_done(&of->batches);
    struct job *next_job = disk_take_done(&of->disk);
    said.looks += next_batch != NULL || next_job != NULL;
    for (struct apply_batch *batch = next_batch; batch != NULL; batch = next_batch) {
        next_batch = batch->next;
        apply_batch_free(batch);
    }
    for (struct job *job = next_job; job != NULL; job = next_job) {
        next_job = job->next;
        job_free(job);
    }
}

void disk_jobs_do(struct disk_jobs *jobs, struct job *job) {
    (void)jobs;
    uv_mutex_lock(&server.crew.mutex);
    CHECK(server.crew.at_work == (server.crew.holder == HAND_DISK)); /* or nobody looks */
    uv_mutex_unlock(&server.crew.mutex);
    job->status = STATUS_OK;
    said.jobs++;
}

void disk_jobs_init(struct disk_jobs *jobs, struct backend backend, struct writing *writing) {
    (void)backend;
    (void)writing;
    *jobs = (struct disk_jobs){.received = 0};
}

void disk_jobs_clear(struct disk_jobs *jobs) {
    (void)jobs;
}

static void init(void) {
    memset(&server, 0, sizeof(server));
    memset(&said, 0, sizeof(said));
    crew_init(&server.crew);
    batches_init(&server.batches, &server.crew);
    disk_init(&server.disk, (struct backend){NULL, NULL}, NULL, &server.crew);
}

static void clear(void) {
    loop_take_done(&server);
    disk_clear(&server.disk);
    batches_clear(&server.batches);
    crew_clear(&server.crew);
}

/* As if that one had waited. */
static void give(enum hand to) {
    uv_mutex_lock(&server.crew.mutex);
    server.crew.idle[to] = true;
    uv_mutex_unlock(&server.crew.mutex);
    CHECK(crew_give(&server.crew, to));
    uv_mutex_lock(&server.crew.mutex);
    server.crew.idle[to] = false;
    uv_mutex_unlock(&server.crew.mutex);
}

static struct apply_batch *place(enum apply_kind kind, uint32_t count) {
    struct apply_batch *batch = apply_batch_new();
    for (uint32_t i = 0; i < count; i++) {
        apply_batch_add(batch, kind, SPAN("1"));
    }
    batches_place(&server.batches, batch);
    return batch;
}

static struct apply_batch *wait_batch(bool *stopped) {
    return server_wait_batch(&server, WAIT_MS, stopped);
}

static bool run_left(void) {
    return true;
}

/* --- the machine's thread --- */

static void all_that_waits_is_taken_before_the_loop_runs(void) {
    init();
    bool stopped;
    struct apply_batch *first = place(APPLY_COMMAND, 1);
    struct apply_batch *second = place(APPLY_QUERY, 1);
    give(HAND_APPLY);
    CHECK(wait_batch(&stopped) == first && server.crew.holder == HAND_APPLY);
    server_finish_batch(&server, first);
    CHECK(said.looks == 1 && said.wakes == 0); /* its own loop need not be woken */
    CHECK(wait_batch(&stopped) == second && server.crew.holder == HAND_APPLY);
    CHECK(server.crew.at_work); /* else its own thread would never take it back */
    CHECK(said.runs == 0 && !stopped);
    server_finish_batch(&server, second);
    clear();
}

static void the_loop_stays_beside_small_batches_only(void) {
    const struct {
        enum apply_kind kind;
        uint32_t count;
        enum hand holder;
    } cases[] = {
        {APPLY_COMMAND, BATCH_ALONG_ITEMS_MAX, HAND_APPLY},
        {APPLY_LOCAL_QUERY, 1, HAND_APPLY},
        {APPLY_COMMAND, BATCH_ALONG_ITEMS_MAX + 1, HAND_LOOP},
        {APPLY_NOTICE, 1, HAND_LOOP},
        {APPLY_STATE, 1, HAND_LOOP},
        {APPLY_SNAPSHOT, 1, HAND_LOOP},
        {APPLY_RESTORE, 1, HAND_LOOP},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        init();
        bool stopped;
        give(HAND_APPLY);
        struct apply_batch *batch = place(cases[i].kind, cases[i].count);
        CHECK(wait_batch(&stopped) == batch && server.crew.holder == cases[i].holder);
        bool own = cases[i].holder == HAND_APPLY;
        CHECK(server.crew.at_work == own);
        server_finish_batch(&server, batch);
        CHECK(said.looks == (own ? 1 : 0) && said.wakes == (own ? 0 : 1));
        clear();
    }
}

static void the_rest_of_a_large_batch_does_not_keep_the_loop(void) {
    init();
    bool stopped;
    give(HAND_APPLY);
    struct apply_batch *batch = place(APPLY_QUERY, 2);
    CHECK(wait_batch(&stopped) == batch && server.crew.holder == HAND_APPLY);
    batch->left = 1;
    server_finish_batch(&server, batch);
    CHECK(server.crew.holder == HAND_LOOP && said.wakes == 1);
    struct apply_batch *rest = wait_batch(&stopped);
    CHECK(rest != NULL && rest != batch && rest->count == 1);
    server_finish_batch(&server, rest);
    clear();
}

static bool run_with_a_job(void) {
    disk_place(&server.disk, job_new(JOB_WRITE));
    server.next = HAND_DISK;
    place(APPLY_QUERY, 1);
    return true;
}

static bool run_to_the_end(void) {
    return false;
}

static void after_a_run_the_loop_goes_on(void) {
    bool stopped;
    init();
    give(HAND_APPLY);
    said.run = run_left; /* the time is over */
    CHECK(wait_batch(&stopped) == NULL && !stopped && said.runs == 1);
    CHECK(server.crew.holder == HAND_LOOP && !server.crew.at_work);

    give(HAND_APPLY);
    said.run = run_with_a_job;
    uv_mutex_lock(&server.crew.mutex);
    server.crew.idle[HAND_DISK] = true;
    uv_mutex_unlock(&server.crew.mutex);
    struct apply_batch *batch = wait_batch(&stopped);
    CHECK(batch != NULL && server.crew.holder == HAND_DISK && server.crew.at_work);
    server_finish_batch(&server, batch);
    CHECK(said.wakes == 1);
    CHECK(crew_end_work(&server.crew, HAND_DISK) && crew_give(&server.crew, HAND_LOOP));

    give(HAND_APPLY);
    said.run = run_to_the_end;
    CHECK(wait_batch(&stopped) == NULL && stopped && server.crew.over);
    clear();
}

/* Writing to a connection that is gone, in a program that lets SIGPIPE end it. */
static bool run_into_a_pipe(void) {
    int ends[2];
    CHECK(pipe(ends) == 0 && close(ends[0]) == 0);
    CHECK(write(ends[1], "1", 1) == -1);
    CHECK(close(ends[1]) == 0);
    return true;
}

static void no_signal_of_a_pipe_is_left(void) {
    init();
    bool stopped;
    CHECK(signal(SIGPIPE, SIG_DFL) != SIG_ERR);
    give(HAND_APPLY);
    said.run = run_into_a_pipe;
    CHECK(wait_batch(&stopped) == NULL && said.runs == 1);
    sigset_t mask;
    CHECK(pthread_sigmask(SIG_SETMASK, NULL, &mask) == 0 && sigismember(&mask, SIGPIPE) == 0);
    clear();
}

/* --- the disk's thread --- */

static struct job *new_write(size_t bytes) {
    struct job *job = job_new(JOB_WRITE);
    for (size_t i = 0; i < bytes; i++) {
        buffer_append_char(&job->data, '\n');
    }
    return job;
}

/* First a small write, then one that is not: the loop is given away before that. */
static bool run_from_the_disk(void) {
    if (said.runs == 1) {
        CHECK(server.crew.holder == HAND_DISK && said.jobs == 1 && said.looks == 1);
        disk_place(&server.disk, new_write(JOB_ALONG_BYTES_MAX));
    } else {
        CHECK(server.crew.holder == HAND_DISK && said.jobs == 2 && said.looks == 2);
        disk_place(&server.disk, new_write(JOB_ALONG_BYTES_MAX + 1));
    }
    server.next = HAND_DISK;
    return true;
}

/* Not by crew_watch(), which would take it from a thread that is slow to begin. */
static void wait_for_loop(void) {
    for (bool own = false; !own;) {
        uv_mutex_lock(&server.crew.mutex);
        own = server.crew.holder == HAND_LOOP;
        uv_mutex_unlock(&server.crew.mutex);
    }
}

static void the_loop_stays_beside_small_writes_only(void) {
    init();
    said.run = run_from_the_disk;
    disk_place(&server.disk, new_write(1));
    give(HAND_DISK);
    struct error error;
    CHECK(disk_start(&server.disk, shifts_disk, &server, &error) == STATUS_OK);
    wait_for_loop();
    disk_clear(&server.disk); /* does what is left */
    CHECK(said.runs == 2 && said.jobs == 3 && said.wakes == 1);
    server.disk.started = false;
    clear();
}

int main(void) {
    all_that_waits_is_taken_before_the_loop_runs();
    the_loop_stays_beside_small_batches_only();
    the_rest_of_a_large_batch_does_not_keep_the_loop();
    after_a_run_the_loop_goes_on();
    no_signal_of_a_pipe_is_left();
    the_loop_stays_beside_small_writes_only();
    puts("ok");
    return 0;
}
