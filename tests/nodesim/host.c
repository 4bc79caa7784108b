/* What server/ does around a node, in one thread and virtual time: opening a directory, turns,
 * jobs, batches, the end; see nodesim.h.
 *
 * Decides nothing. Invariants as in server/loop.c: the node is told the time before each input,
 * what a turn leaves is carried at once, a job is done as a whole or not at all unless the
 * server dies in it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nodesim.h"

#define WALL_START_MS 1732406400000ull

/* --- clocks ------------------------------------------------------------------------------ */
uint64_t host_now_ms(const struct world *world, const struct server *server) {
    return 1000 + (uint64_t)((double)world->now_us / 1000.0 * server->rate_ppm / 1000000.0);
}

static uint64_t wall_ms(const struct world *world, const struct server *server) {
    return (uint64_t)((int64_t)(WALL_START_MS + world->now_us / 1000) + server->wall_offset_ms);
}

static void plan_turn(struct world *world, struct server *server, uint64_t at_us) {
    at_us = at_us < server->paused_until_us ? server->paused_until_us : at_us;
    if (server->up && at_us < server->turn_us) {
        server->turn_us = at_us;
        world_plan(world, &(struct happening){.at_us = at_us,
                                              .kind = HAPPEN_TURN,
                                              .a = server->number,
                                              .life = server->life});
    }
}

void host_wake(struct world *world, struct server *server) {
    plan_turn(world, server,
              world->now_us + world_between(world, 0, world->rates.turn_delay_us_max));
}

void host_input(struct world *world, struct server *server) {
    vdisk_use(server->disk); /* what it ends up freeing may hold files open */
    node_set_time(server->node, host_now_ms(world, server), wall_ms(world, server));
    host_wake(world, server);
}

/* --- the disk ---------------------------------------------------------------------------- */
static void plan_job(struct world *world, struct server *server) {
    uint64_t us = world_between(world, 10, world->rates.disk_us_max);
    if (world_chance(world, world->rates.disk_slow)) {
        us *= 50;
    }
    world_plan(world, &(struct happening){.at_us = world->now_us + us,
                                          .kind = HAPPEN_DISK,
                                          .a = server->number,
                                          .life = server->life});
}

static void push_job(struct world *world, struct server *server, struct job *job) {
    job->next = NULL;
    if (server->todo == NULL) {
        server->todo = job;
        plan_job(world, server);
    } else {
        server->todo_last->next = job;
    }
    server->todo_last = job;
}

static const char *job_name(enum job_kind kind) {
    static const char *const names[] = {"write",   "read",    "begin", "check", "take", "drop",
                                        "receive", "install", "chunk", "load",  "clear"};
    return names[kind];
}

static void do_job(struct world *world, struct server *server, struct job *job, bool torn) {
    struct stored before = checker_storing(server, job);
    vdisk_use(server->disk);
    disk_jobs_do(&server->jobs, job);
    checker_stored(world, server, &before, job, torn);
    world_trace(world, "s%u disk: %s %llu-%llu%s%s%s", server->number + 1, job_name(job->kind),
                (unsigned long long)job->first, (unsigned long long)job->last,
                torn ? ", dying in it" : "", job->status == STATUS_OK ? "" : ": ",
                job->status == STATUS_OK ? "" : job->error.text);
}

void host_disk(struct world *world, struct server *server) {
    uint64_t held_us = server->paused_until_us > server->stalled_until_us
                           ? server->paused_until_us
                           : server->stalled_until_us;
    if (held_us > world->now_us) {
        world_plan(world, &(struct happening){.at_us = held_us,
                                              .kind = HAPPEN_DISK,
                                              .a = server->number,
                                              .life = server->life});
        return;
    }
    struct job *job = server->todo;
    server->todo = job->next;
    job->next = NULL;
    do_job(world, server, job, false);
    if (server->todo != NULL) {
        plan_job(world, server);
    }
    host_input(world, server);
    node_job_done(server->node, job);
}

/* --- the machine ------------------------------------------------------------------------- */
static void plan_batch(struct world *world, struct server *server) {
    uint64_t us = world_between(world, 10, world->rates.machine_us_max);
    if (world_chance(world, world->rates.machine_slow)) {
        us *= 200;
    }
    world_plan(world, &(struct happening){.at_us = world->now_us + us,
                                          .kind = HAPPEN_MACHINE,
                                          .a = server->number,
                                          .life = server->life});
}

static void push_batch(struct world *world, struct server *server, struct apply_batch *batch) {
    batch->next = NULL;
    if (server->batches == NULL) {
        server->batches = batch;
        plan_batch(world, server);
    } else {
        server->batches_last->next = batch;
    }
    server->batches_last = batch;
}

void host_machine(struct world *world, struct server *server) {
    if (server->paused_until_us > world->now_us) {
        world_plan(world, &(struct happening){.at_us = server->paused_until_us,
                                              .kind = HAPPEN_MACHINE,
                                              .a = server->number,
                                              .life = server->life});
        return;
    }
    struct apply_batch *batch = server->batches;
    server->batches = batch->next;
    batch->next = NULL;
    machine_run(world, server, batch);
    if (server->batches != NULL) {
        plan_batch(world, server);
    }
    host_input(world, server);
    node_batch_done(server->node, batch);
}

/* --- a snapshot of our own
 * --------------------------------------------------------------- */
/* What a child process would write is written at once; that it has ended shows
 * later. */
void host_write_snapshot(struct world *world, struct server *server, struct span head,
                         struct span states) {
    struct writer writer;
    struct error error = {.status = STATUS_OK};
    vdisk_use(server->disk);
    writing_start(&server->writing, head, &writer);
    while (states.size > 0) {
        const char *lf = memchr(states.data, '\n', states.size);
        size_t size = (size_t)(lf - states.data);
        snapshot_stream_open_line(&writer.stream);
        buffer_append_span(&writer.stream.out, (struct span){states.data, size});
        snapshot_stream_close_line(&writer.stream);
        states = (struct span){lf + 1, states.size - size - 1};
    }
    enum status status;
    if (world_chance(world, world->rates.writing_dies)) {
        status = writer_flush(&writer, &error); /* no trailer, nothing synced */
        status = status == STATUS_OK ? STATUS_CLOSED : status;
    } else {
        status = writer_end(&writer, &error);
    }
    writer_clear(&writer);
    writing_finish(&server->writing, status, error.text);
    uint64_t us = world_between(world, 10, 20 * world->rates.machine_us_max);
    server->written_us = world->now_us + us;
    world_trace(world, "s%u machine: a snapshot is being written%s", server->number + 1,
                status == STATUS_OK ? "" : ", in vain");
}

static void take_writing(struct world *world, struct server *server) {
    struct error result = {.status = STATUS_OK};
    if (world->now_us >= server->written_us &&
        writing_poll(&server->writing, host_now_ms(world, server), &result)) {
        node_snapshot_written(server->node, result.status, result.text);
    }
}

/* --- a turn ------------------------------------------------------------------------------ */
static void carry(struct world *world, struct server *server) {
    struct node *node = server->node;
    struct job *job;
    struct apply_batch *batch;
    struct node_conn *conn;
    const char *address = NULL;
    while ((job = node_take_job(node)) != NULL) {
        push_job(world, server, job);
    }
    while ((batch = node_take_batch(node)) != NULL) {
        push_batch(world, server, batch);
    }
    while ((conn = node_take_dirty(node)) != NULL) {
        streams_flush(world, node_conn_host(conn));
    }
    while ((conn = node_take_dial(node, &address)) != NULL) {
        unsigned number = 0;
        int found = sscanf(address, "10.0.0.%u:4000", &number);
        ASSERT(found == 1 && number >= 1 && number <= SERVERS_MAX);
        struct pipe *pipe = streams_dial(world, server, NULL, conn, number - 1);
        node_conn_set_host(conn, &pipe->ends[0]);
    }
    streams_review(world, server);
}

/* The process has ended by itself: after a stop, or because its disk failed. */
static void ended(struct world *world, struct server *server, const struct error *failure) {
    world_trace(world, "s%u has stopped%s%s", server->number + 1,
                failure->status == STATUS_OK ? "" : ": ", failure->text);
    if (failure->status != STATUS_OK && failure->status != STATUS_IO) {
        world_fail(world, "s%u failed: %s", server->number + 1, failure->text);
    }
    host_crash(world, server, VDISK_KILL);
    uint64_t wait_us =
        world->calm ? 100000 : world_between(world, 1, world->rates.restart_ms_max) * 1000;
    world_plan(world, &(struct happening){.at_us = world->now_us + wait_us,
                                          .kind = HAPPEN_START,
                                          .a = server->number,
                                          .life = server->life});
}

void host_turn(struct world *world, struct server *server) {
    if (server->paused_until_us > world->now_us) {
        plan_turn(world, server, server->paused_until_us);
        return;
    }
    struct node *node = server->node;
    vdisk_use(server->disk);
    node_set_time(node, host_now_ms(world, server), wall_ms(world, server));
    take_writing(world, server);
    node_turn(node);
    checker_turned(world, server);
    carry(world, server);
    struct error failure = {.status = STATUS_OK};
    if (node_stopped(node, &failure)) {
        ended(world, server, &failure);
        return;
    }
    uint64_t deadline_ms = node_deadline_ms(node);
    uint64_t now_ms = host_now_ms(world, server);
    uint64_t wait_ms = deadline_ms > now_ms ? deadline_ms - now_ms : 0;
    if (wait_ms < 3600000) {
        /* Rounded up: a timer never fires early, and one of 0 ms still lets time pass. */
        uint64_t wait_us = (wait_ms + 1) * 1000000000 / server->rate_ppm + 1;
        plan_turn(world, server, world->now_us + (wait_ms == 0 ? 200 : wait_us));
    }
}

/* --- life -------------------------------------------------------------------------------- */
void host_new(struct world *world, uint32_t number) {
    struct server *server = &world->servers[number];
    *server = (struct server){.number = number, .turn_us = NEVER};
    snprintf(server->address, sizeof(server->address), "10.0.0.%u:4000", number + 1);
    server->disk = vdisk_new();
    server->rate_ppm =
        world->rates.drift ? (uint32_t)world_between(world, 950000, 1050000) : 1000000;
    server->wall_offset_ms = (int64_t)world_between(world, 0, 2000) - 1000;
}

static enum status recover_snapshot(void *context, struct span line) {
    return node_recover_snapshot(context, line);
}

static enum status recover_entry(void *context, uint64_t index, uint64_t term, uint32_t crc,
                                 struct span line) {
    return node_recover_entry(context, index, term, crc, line);
}

/* As server/opening.c does. */
static enum status open_directory(struct world *world, struct server *server,
                                  struct store_recovery *recovery, struct error *error) {
    struct node_options wanted = {.address = server->address,
                                  .durable = true,
                                  .seed = random_next(&world->random),
                                  .now_ms = host_now_ms(world, server),
                                  .wall_ms = wall_ms(world, server),
                                  .request_timeout_ms = world->request_timeout_ms,
                                  .snapshot_log_bytes = world->snapshot_log_bytes};
    server->node = node_new(&wanted);
    const struct store_options options = {.path = "/data",
                                          .address = server->address,
                                          .segment_bytes = world->segment_bytes,
                                          .sync = true};
    const struct store_visitor visitor = {
        .context = server->node, .snapshot_header = recover_snapshot, .entry = recover_entry};
    struct store *store = NULL;
    vdisk_use(server->disk);
    enum status status = store_open(&options, &visitor, recovery, &store, error);
    if (status == STATUS_OK) {
        node_set_meta(server->node, &recovery->meta, recovery->quarantined);
        status = writing_init(&server->writing, 0, error);
        ASSERT(status == STATUS_OK);
        server->written_us = 0;
        disk_jobs_init(&server->jobs, backend_store(store), &server->writing);
        status = node_start(server->node);
        if (status != STATUS_OK) {
            disk_jobs_clear(&server->jobs);
            writing_clear(&server->writing);
        }
    }
    return status;
}

void host_start(struct world *world, struct server *server) {
    struct store_recovery recovery;
    struct error error = {.status = STATUS_OK};
    enum status status = open_directory(world, server, &recovery, &error);
    if (status == STATUS_NO_SPACE || status == STATUS_IO) {
        world_trace(world, "s%u cannot start yet: %s", server->number + 1, error.text);
        node_free(server->node);
        server->node = NULL;
        vdisk_crash(server->disk, VDISK_KILL, &world->random);
        world_plan(world, &(struct happening){.at_us = world->now_us + 200000,
                                              .kind = HAPPEN_START,
                                              .a = server->number,
                                              .life = server->life});
        return;
    }
    if (status != STATUS_OK) {
        world_fail(world, "s%u does not open: %s: %s", server->number + 1, status_name(status),
                   error.text);
        node_free(server->node);
        server->node = NULL;
        return;
    }
    server->up = true;
    server->life++;
    server->stopping = false;
    server->turn_us = NEVER;
    server->paused_until_us = 0;
    server->machine = (struct machine){.index = 0};
    world_trace(world, "s%u starts: member %llu, life %llu, term %llu, log to %llu%s%s",
                server->number + 1, (unsigned long long)recovery.meta.node_id,
                (unsigned long long)recovery.meta.incarnation,
                (unsigned long long)recovery.meta.term, (unsigned long long)recovery.last_index,
                recovery.note[0] != '\0' ? ": " : "", recovery.note);
    checker_started(world, server, recovery.quarantined);
    host_wake(world, server);
}

static void free_parts(struct server *server) {
    vdisk_use(server->disk); /* a snapshot that was to be restored is an open file */
    while (server->todo != NULL) {
        struct job *next = server->todo->next;
        job_free(server->todo);
        server->todo = next;
    }
    while (server->batches != NULL) {
        struct apply_batch *next = server->batches->next;
        apply_batch_free(server->batches);
        server->batches = next;
    }
    vdisk_die_at(server->disk, 1); /* closing must leave no trace */
    disk_jobs_clear(&server->jobs);
    writing_clear(&server->writing);
    node_free(server->node);
    server->node = NULL;
    server->up = false;
}

void host_crash(struct world *world, struct server *server, enum vdisk_crash crash) {
    if (!server->up) {
        return;
    }
    world_trace(world, "s%u is gone%s", server->number + 1,
                crash == VDISK_KILL         ? ""
                : crash == VDISK_POWER_NONE ? ", with all that was not synced"
                                            : ", with some of what was not synced");
    if (!world->calm && server->todo != NULL && world_chance(world, world->rates.mid_job)) {
        vdisk_die_at(server->disk, (uint32_t)world_between(world, 1, 12));
        do_job(world, server, server->todo, true);
    }
    streams_drop_server(world, server, !world_chance(world, world->rates.half_open));
    free_parts(server);
    vdisk_crash(server->disk, crash, &world->random);
}

void host_stop(struct world *world, struct server *server) {
    world_trace(world, "s%u is asked to stop", server->number + 1);
    host_input(world, server);
    server->stopping = true;
    node_stop(server->node);
}

void host_free(struct world *world, struct server *server) {
    if (server->up) {
        streams_drop_server(world, server, true);
        free_parts(server);
    }
    vdisk_free(server->disk);
}
