/* Making of disk jobs; see job.h. */
#include "node/job.h"

#include "base/memory.h"

struct job *job_new(enum job_kind kind) {
    struct job *job = memory_must_alloc_zero(sizeof(struct job));
    job->kind = kind;
    job->first = 1; /* an empty range */
    return job;
}

void job_free(struct job *job) {
    if (job != NULL) {
        cargo_drop(job->cargo);
        memory_free(job->offsets);
        buffer_free(&job->data);
        buffer_free(&job->sessions);
        buffer_free(&job->configuration);
        memory_free(job);
    }
}
