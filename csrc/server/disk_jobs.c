/* Doing the node's jobs against whatever keeps its log and snapshots; see disk_jobs.h.
 *
 * Must not know threads. Invariant: a job that fails leaves nothing half-done that a later one
 * would take for whole. */
#include "server/disk_jobs.h"

#include <inttypes.h>

#include "base/memory.h"
#include "node/sessions.h"
#include "server/reader.h"
#include "wire/configuration.h"

void disk_jobs_init(struct disk_jobs *jobs, struct backend backend, struct writing *writing) {
    *jobs = (struct disk_jobs){.backend = backend, .writing = writing};
}

void disk_jobs_clear(struct disk_jobs *jobs) {
    jobs->backend.calls->close(jobs->backend.self);
    buffer_free(&jobs->first_line);
}

/* --- our own snapshot --- */

static enum status begin_own(struct disk_jobs *jobs, struct job *job) {
    const struct backend *backend = &jobs->backend;
    enum status status =
        backend->calls->snapshot_begin(backend->self, STORE_SLOT_OWN, &job->error);
    if (status == STATUS_OK) {
        writing_offer(jobs->writing,
                      backend->calls->snapshot_file(backend->self, STORE_SLOT_OWN));
    }
    return status;
}

static enum status check_own(struct disk_jobs *jobs, struct job *job) {
    return jobs->backend.calls->snapshot_check(jobs->backend.self, STORE_SLOT_OWN,
                                               SNAPSHOT_CHECK_BYTES, &job->whole, &job->total,
                                               &job->error);
}

static enum status commit_own(struct disk_jobs *jobs, struct job *job) {
    return jobs->backend.calls->snapshot_commit(jobs->backend.self, STORE_SLOT_OWN,
                                                &job->header, false, &job->error);
}

/* --- a snapshot from the leader --- */

static void forget_receiving(struct disk_jobs *jobs) {
    jobs->receiving = false;
    jobs->received = 0;
    buffer_free(&jobs->first_line);
}

/* The header says what is coming in; it is kept aside, because it is wanted before the file is
 * anybody's snapshot. */
static void keep_first_line(struct disk_jobs *jobs, struct span bytes) {
    struct span kept = buffer_span(&jobs->first_line);
    if (bytes.size == 0 || (kept.size > 0 && kept.data[kept.size - 1] == '\n')) {
        return;
    }
    const char *lf = memchr(bytes.data, '\n', bytes.size);
    buffer_append(&jobs->first_line, bytes.data,
                  lf == NULL ? bytes.size : (size_t)(lf - bytes.data) + 1);
}

static enum status begin_receiving(struct disk_jobs *jobs, struct job *job) {
    forget_receiving(jobs);
    enum status status = jobs->backend.calls->snapshot_begin(jobs->backend.self,
                                                             STORE_SLOT_RECEIVED, &job->error);
    jobs->receiving = status == STATUS_OK;
    return status;
}

static enum status receive_snapshot(struct disk_jobs *jobs, struct job *job) {
    if (job->offset == 0) {
        enum status status = begin_receiving(jobs, job);
        if (status != STATUS_OK) {
            return status;
        }
    }
    if (!jobs->receiving || job->offset != jobs->received) {
        return error_set(&job->error, STATUS_INVALID,
                         "a snapshot's piece at offset %" PRIu64 ", but %" PRIu64
                         " bytes are there",
                         job->offset, jobs->received);
    }
    struct span bytes = buffer_span(&job->data);
    enum status status = jobs->backend.calls->snapshot_write(
        jobs->backend.self, STORE_SLOT_RECEIVED, bytes, &job->error);
    if (status != STATUS_OK) {
        jobs->backend.calls->snapshot_abort(jobs->backend.self, STORE_SLOT_RECEIVED);
        forget_receiving(jobs);
        return status;
    }
    keep_first_line(jobs, bytes);
    jobs->received += bytes.size;
    return STATUS_OK;
}

/* One that names no configuration must not replace anything: the node could not start from it,
 * here or after a restart. */
static bool has_configuration(const struct snapshot_header *header) {
    struct cluster *cluster = memory_must_alloc_zero(sizeof(*cluster));
    bool sound = configuration_read(header->configuration, cluster) == STATUS_OK &&
                 header->configuration_index <= header->index;
    memory_free(cluster);
    return sound;
}

/* The same holds for clients' sessions that no node could take over. The file is whole, but
 * nobody's snapshot yet. */
static enum status check_sessions(struct disk_jobs *jobs, struct job *job) {
    const struct backend *backend = &jobs->backend;
    struct reader *reader =
        reader_new(backend->calls->snapshot_file(backend->self, STORE_SLOT_RECEIVED));
    struct buffer lines;
    struct sessions sessions;
    buffer_init(&lines);
    sessions_init(&sessions, 0);
    enum status status = reader_take_sessions(reader, &lines, &job->error);
    if (status == STATUS_OK &&
        sessions_read(&sessions, buffer_span(&lines), job->header.index) != STATUS_OK) {
        status = error_set(&job->error, STATUS_CORRUPT,
                           "the snapshot that came in has sessions that nobody writes");
    }
    reader->file = FILE_CLOSED; /* it stays the slot's */
    reader->cargo.drop(&reader->cargo);
    sessions_clear(&sessions);
    buffer_free(&lines);
    return status;
}

/* Hand the header over with a copy of the text that it borrows. */
static enum status read_header(struct disk_jobs *jobs, struct job *job) {
    uint32_t crc;
    struct span line = buffer_span(&jobs->first_line);
    if (!jobs->receiving || snapshot_read_header(line, &job->header, &crc) != STATUS_OK) {
        return error_set(&job->error, STATUS_CORRUPT, "no snapshot has come in whole");
    }
    if (!has_configuration(&job->header)) {
        return error_set(&job->error, STATUS_CORRUPT,
                         "the snapshot that came in names no configuration");
    }
    buffer_clear(&job->configuration);
    buffer_append_span(&job->configuration, job->header.configuration);
    job->header.configuration = buffer_span(&job->configuration);
    if (job->snapshot.index != 0 &&
        (job->snapshot.index != job->header.index || job->snapshot.term != job->header.term)) {
        return error_set(&job->error, STATUS_CORRUPT,
                         "the snapshot that came in is of entry %" PRIu64
                         ", not of entry %" PRIu64,
                         job->header.index, job->snapshot.index);
    }
    return STATUS_OK;
}

static enum status install_snapshot(struct disk_jobs *jobs, struct job *job) {
    const struct backend_calls *calls = jobs->backend.calls;
    enum status status = read_header(jobs, job);
    if (status == STATUS_OK) {
        status = check_sessions(jobs, job);
    }
    if (status == STATUS_OK) {
        status = calls->snapshot_commit(jobs->backend.self, STORE_SLOT_RECEIVED, &job->header,
                                        job->reset_log, &job->error);
    } else {
        calls->snapshot_abort(jobs->backend.self, STORE_SLOT_RECEIVED);
    }
    if (status == STATUS_OK) {
        job->snapshot =
            (struct raft_position){.term = job->header.term, .index = job->header.index};
        job->chain_crc = job->header.chain_crc;
        job->total = jobs->received;
    }
    forget_receiving(jobs);
    return status;
}

/* --- reading a snapshot --- */

static enum status read_piece(struct disk_jobs *jobs, struct job *job) {
    return jobs->backend.calls->snapshot_read(jobs->backend.self, job->snapshot.index,
                                              job->offset, SNAPSHOT_CHUNK_BYTES, &job->data,
                                              &job->total, &job->error);
}

/* The sessions are the node's. The machine is restored on the apply thread, which reads the
 * states piece by piece. */
static enum status open_snapshot(struct disk_jobs *jobs, struct job *job) {
    struct file file = FILE_CLOSED;
    enum status status = jobs->backend.calls->snapshot_open(
        jobs->backend.self, job->snapshot.index, &file, &job->total, &job->error);
    if (status == STATUS_OK) {
        struct reader *reader = reader_new(file);
        job->cargo = &reader->cargo;
        status = reader_take_sessions(reader, &job->sessions, &job->error);
    }
    return status;
}

/* --- all of them --- */

static enum status do_one(struct disk_jobs *jobs, struct job *job) {
    const struct backend *backend = &jobs->backend;
    switch (job->kind) {
    case JOB_WRITE:
        return backend->calls->write(backend->self, job);
    case JOB_READ:
        return backend->calls->read(backend->self, job);
    case JOB_SNAPSHOT_BEGIN:
        return begin_own(jobs, job);
    case JOB_SNAPSHOT_CHECK:
        return check_own(jobs, job);
    case JOB_SNAPSHOT_TAKE:
        return commit_own(jobs, job);
    case JOB_SNAPSHOT_DROP:
        backend->calls->snapshot_abort(backend->self, STORE_SLOT_OWN);
        return STATUS_OK;
    case JOB_SNAPSHOT_RECEIVE:
        return receive_snapshot(jobs, job);
    case JOB_SNAPSHOT_INSTALL:
        return install_snapshot(jobs, job);
    case JOB_SNAPSHOT_READ:
        return read_piece(jobs, job);
    case JOB_SNAPSHOT_LOAD:
        return open_snapshot(jobs, job);
    case JOB_CLEAR_QUARANTINE:
        return backend->calls->clear_quarantine(backend->self, &job->error);
    }
    return STATUS_INVALID;
}

void disk_jobs_do(struct disk_jobs *jobs, struct job *job) {
    job->error = (struct error){.status = STATUS_OK};
    job->status = do_one(jobs, job);
    job->error.status = job->status;
}
