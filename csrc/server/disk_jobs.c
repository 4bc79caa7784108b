/* Doing the node's jobs against whatever keeps its log and snapshots; see disk_jobs.h.
 *
 * Must not know threads. Invariant: a job that fails leaves nothing half-done that a later one
 * would take for whole. */
#include "server/disk_jobs.h"

#include <inttypes.h>

#include "base/assert.h"

void disk_jobs_init(struct disk_jobs *jobs, struct backend backend) {
    *jobs = (struct disk_jobs){.backend = backend};
}

void disk_jobs_clear(struct disk_jobs *jobs) {
    jobs->backend.calls->close(jobs->backend.self);
    buffer_free(&jobs->first_line);
}

/* --- taking a snapshot --- */

struct taking {
    const struct backend *backend;
    struct buffer out; /* lines that are not written yet */
    uint64_t bytes;    /* written before them */
    uint64_t lines;    /* of the kind that is being written */
    uint32_t seed;
    struct error *error;
};

static enum status flush(struct taking *taking) {
    const struct backend *backend = taking->backend;
    enum status status = backend->calls->snapshot_write(
        backend->self, STORE_SLOT_OWN, buffer_span(&taking->out), taking->error);
    taking->bytes += buffer_count(&taking->out);
    buffer_clear(&taking->out);
    return status;
}

/* Lines of JSON become sealed lines of the file. */
static enum status take_lines(struct taking *taking, struct span pieces,
                              uint32_t (*write)(struct buffer *, struct span, uint32_t)) {
    enum status status = STATUS_OK;
    while (pieces.size > 0 && status == STATUS_OK) {
        const char *lf = memchr(pieces.data, '\n', pieces.size);
        ASSERT(lf != NULL);
        struct span json = {pieces.data, (size_t)(lf - pieces.data)};
        pieces = (struct span){lf + 1, pieces.size - json.size - 1};
        taking->seed = write(&taking->out, json, taking->seed);
        taking->lines++;
        if (buffer_count(&taking->out) >= SNAPSHOT_IO_BYTES) {
            status = flush(taking);
        }
    }
    return status;
}

static enum status take_snapshot(struct disk_jobs *jobs, struct job *job) {
    const struct backend_calls *calls = jobs->backend.calls;
    void *self = jobs->backend.self;
    enum status status = calls->snapshot_begin(self, STORE_SLOT_OWN, &job->error);
    if (status != STATUS_OK) {
        return status;
    }
    struct taking taking = {.backend = &jobs->backend, .error = &job->error};
    job->header.configuration = buffer_span(&job->configuration);
    taking.seed = snapshot_write_header(&taking.out, &job->header);
    status = take_lines(&taking, buffer_span(&job->sessions), snapshot_write_session);
    if (status == STATUS_OK) {
        taking.lines = 0; /* the trailer counts the state's alone */
        status = take_lines(&taking, buffer_span(&job->data), snapshot_write_state);
    }
    if (status == STATUS_OK) {
        uint64_t bytes_before = taking.bytes + buffer_count(&taking.out);
        snapshot_write_end(&taking.out, taking.lines, bytes_before, taking.seed);
        status = flush(&taking);
    }
    buffer_free(&taking.out);
    job->total = taking.bytes;
    if (status != STATUS_OK) {
        calls->snapshot_abort(self, STORE_SLOT_OWN);
        return status;
    }
    return calls->snapshot_commit(self, STORE_SLOT_OWN, &job->header, false, &job->error);
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

/* Hand the header over with a copy of the text that it borrows. */
static enum status read_header(struct disk_jobs *jobs, struct job *job) {
    uint32_t crc;
    struct span line = buffer_span(&jobs->first_line);
    if (!jobs->receiving || snapshot_read_header(line, &job->header, &crc) != STATUS_OK) {
        return error_set(&job->error, STATUS_CORRUPT, "no snapshot has come in whole");
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

static void keep_line(struct buffer *lines, struct span json) {
    buffer_append_span(lines, json);
    buffer_append_char(lines, '\n');
}

static enum status keep_session(void *context, struct span json) {
    keep_line(&((struct job *)context)->sessions, json);
    return STATUS_OK;
}

static enum status keep_state(void *context, struct span json) {
    keep_line(&((struct job *)context)->data, json);
    return STATUS_OK;
}

static enum status load_snapshot(struct disk_jobs *jobs, struct job *job) {
    struct snapshot_check check;
    struct buffer bytes;
    uint64_t offset = 0;
    enum status status;
    snapshot_check_init(&check);
    check.context = job;
    check.session = keep_session;
    check.state = keep_state;
    buffer_init(&bytes);
    do {
        buffer_clear(&bytes);
        status = jobs->backend.calls->snapshot_read(jobs->backend.self, job->snapshot.index,
                                                    offset, SNAPSHOT_IO_BYTES, &bytes,
                                                    &job->total, &job->error);
        if (status == STATUS_OK) {
            status = snapshot_check_feed(&check, buffer_span(&bytes));
        }
        offset += buffer_count(&bytes);
    } while (status == STATUS_OK && offset < job->total && buffer_count(&bytes) > 0);
    if (status == STATUS_OK) {
        status = snapshot_check_finish(&check);
    }
    if (status == STATUS_CORRUPT) {
        error_set(&job->error, status,
                  "the snapshot of entry %" PRIu64 " is damaged at line %" PRIu64,
                  job->snapshot.index, snapshot_check_line(&check));
    }
    buffer_free(&bytes);
    snapshot_check_clear(&check);
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
    case JOB_SNAPSHOT_TAKE:
        return take_snapshot(jobs, job);
    case JOB_SNAPSHOT_RECEIVE:
        return receive_snapshot(jobs, job);
    case JOB_SNAPSHOT_INSTALL:
        return install_snapshot(jobs, job);
    case JOB_SNAPSHOT_READ:
        return read_piece(jobs, job);
    case JOB_SNAPSHOT_LOAD:
        return load_snapshot(jobs, job);
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
