/* What crosses between the loop and the disk thread: a job that changes hands whole.
 *
 * The node makes jobs, the server's disk thread does them strictly in order and writes the
 * result into the same job, and it comes back to node_job_done(). In memory only, the same jobs
 * are done on the same thread, without a directory. */
#ifndef RAFTPICO_NODE_JOB_H
#define RAFTPICO_NODE_JOB_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "node/batch.h"
#include "raft/raft.h"
#include "wire/meta.h"
#include "wire/snapshot.h"

enum job_kind {
    JOB_WRITE,            /* save_meta, then truncate, then append, then sync */
    JOB_READ,             /* stored lines first..last (as many as fit) -> data */
    JOB_SNAPSHOT_BEGIN,   /* an empty file for our own snapshot; the host keeps it ready */
    JOB_SNAPSHOT_CHECK,   /* the next piece of what was written there: sound? -> whole */
    JOB_SNAPSHOT_TAKE,    /* it is whole: make it the snapshot of `header`, durably */
    JOB_SNAPSHOT_DROP,    /* it came to nothing */
    JOB_SNAPSHOT_RECEIVE, /* append `data` to the incoming file (offset 0: begin anew) */
    JOB_SNAPSHOT_INSTALL, /* verify the incoming file and make it the snapshot */
    JOB_SNAPSHOT_READ,    /* a chunk of the current file at `offset` -> data, total */
    JOB_SNAPSHOT_LOAD,    /* the current file, opened for restore() -> cargo */
    JOB_CLEAR_QUARANTINE,
};

struct job {
    enum job_kind kind;
    struct job *next; /* of whoever owns the job */

    /* WRITE */
    bool save_meta;
    struct meta meta;
    uint64_t truncate_from; /* 0: nothing to drop */
    uint64_t first,
        last;          /* entries in `data`; none when first > last. READ: wanted, then read */
    uint32_t *offsets; /* where each line begins in `data` */
    uint32_t offset_count;
    uint64_t generation; /* for LOG_PERSISTED */
    struct raft_position position;
    uint64_t reader; /* READ, SNAPSHOT_READ: the peer, or 0 for the apply side */

    /* SNAPSHOT_* */
    struct raft_position snapshot;
    uint32_t chain_crc;
    bool reset_log;
    bool whole;                    /* CHECK: that was the last piece */
    struct cargo *cargo;           /* LOAD: the host's; owned */
    struct snapshot_header header; /* TAKE; INSTALL: as read from the file */
    struct buffer configuration;   /* the text that header.configuration borrows */
    uint64_t offset;
    uint64_t total;

    struct buffer sessions; /* LOAD: the clients' sessions, a line of JSON each */
    struct buffer data;

    enum status status; /* result */
    struct error error;
};

struct job *job_new(enum job_kind kind);
void job_free(struct job *job);

#endif
