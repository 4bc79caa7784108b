/* What the disk thread does with each kind of job; see node/job.h. */
#ifndef RAFTPICO_SERVER_DISK_JOBS_H
#define RAFTPICO_SERVER_DISK_JOBS_H

#include "server/backend.h"
#include "server/writing.h"

struct disk_jobs {
    struct backend backend;
    struct writing *writing;  /* borrowed: who gets the file of our own snapshot */
    bool receiving;           /* a snapshot is coming in */
    uint64_t received;        /* bytes of it */
    struct buffer first_line; /* its header, as far as it has come */
};

void disk_jobs_init(struct disk_jobs *jobs, struct backend backend,
                    struct writing *writing); /* takes the backend */
void disk_jobs_clear(struct disk_jobs *jobs);

/* Do it: the result stands in the job. */
void disk_jobs_do(struct disk_jobs *jobs, struct job *job);

#endif
