/* Writing a snapshot's state here or in a child process; see writing.h. */
#include "server/writing.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__linux__)
#include <sys/prctl.h>
#include <sys/syscall.h>
#endif

#include "base/assert.h"

#define KEPT_DESCRIPTORS 3 /* standard input, output and error */
#define OOM_SCORE "500"    /* of at most 1000 */

enum status writing_init(struct writing *writing, uint64_t timeout_ms, struct error *error) {
    *writing = (struct writing){.file = FILE_CLOSED,
                                .timeout_ms =
                                    timeout_ms > 0 ? timeout_ms : WRITING_TIMEOUT_MS_DEFAULT};
    void *shared = mmap(NULL, sizeof(*writing->report), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) {
        return error_set(error, STATUS_NO_MEMORY, "no memory to share with a child: %s",
                         strerror(errno));
    }
    writing->report = shared;
    return STATUS_OK;
}

static void wait_for_end(pid_t pid) {
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
        continue;
    }
}

void writing_clear(struct writing *writing) {
    bool in_child = atomic_load(&writing->stage) == WRITING_IN_CHILD;
    if (in_child && waitpid(writing->pid, NULL, WNOHANG) == 0) { /* else its id is not ours */
        kill(writing->pid, SIGKILL);
        wait_for_end(writing->pid);
    }
    if (writing->report != NULL) {
        munmap(writing->report, sizeof(*writing->report));
    }
    *writing = (struct writing){.file = FILE_CLOSED};
}

void writing_offer(struct writing *writing, struct file file) {
    ASSERT(atomic_load(&writing->stage) == WRITING_IDLE);
    writing->file = file;
}

/* --- the writer --- */

void writing_start(struct writing *writing, struct span head, struct writer *writer) {
    ASSERT(atomic_load(&writing->stage) == WRITING_IDLE && writing->file.fd >= 0);
    atomic_store(&writing->report->bytes, 0);
    atomic_store(&writing->report->ended, false);
    writing->report->result = (struct error){.status = STATUS_OK};
    *writer = (struct writer){.writing = writing};
    enum status status = snapshot_stream_begin(&writer->stream, head);
    ASSERT(status == STATUS_OK); /* the node has just made it */
    atomic_store(&writing->stage, WRITING_BUSY);
}

enum status writer_flush(struct writer *writer, struct error *error) {
    struct snapshot_stream *stream = &writer->stream;
    const struct file *file = &writer->writing->file;
    struct span bytes = snapshot_stream_peek(stream);
    enum status status = file_write(file, stream->bytes, bytes, error);
    if (status == STATUS_OK) {
        snapshot_stream_taken(stream);
        writer->unsynced += bytes.size;
        atomic_fetch_add(&writer->writing->report->bytes, bytes.size);
    }
    if (status == STATUS_OK && writer->unsynced >= WRITER_SYNC_BYTES) {
        status = file_sync_data(file, error);
        writer->unsynced = 0;
    }
    return status;
}

enum status writer_end(struct writer *writer, struct error *error) {
    snapshot_stream_end(&writer->stream);
    enum status status = writer_flush(writer, error);
    return status == STATUS_OK ? file_sync(&writer->writing->file, error) : status;
}

void writer_clear(struct writer *writer) {
    snapshot_stream_clear(&writer->stream);
}

void writing_finish(struct writing *writing, enum status status, const char *text) {
    error_set(&writing->report->result, status, "%s", text);
    atomic_store(&writing->report->ended, true);
    atomic_store(&writing->stage, WRITING_ENDED);
}

/* --- the child --- */

/* All but the standard ones and the snapshot's file, which moves to the first place behind
 * them: what stays open here would keep a dead parent's port, lock and connections alive. */
static void close_inherited(struct writing *writing) {
    if (writing->file.fd != KEPT_DESCRIPTORS) {
        dup2(writing->file.fd, KEPT_DESCRIPTORS);
        writing->file.fd = KEPT_DESCRIPTORS;
    }
#if defined(__linux__) && defined(SYS_close_range)
    if (syscall(SYS_close_range, KEPT_DESCRIPTORS + 1, ~0u, 0) == 0) {
        return;
    }
#endif
    long most = sysconf(_SC_OPEN_MAX);
    for (int fd = KEPT_DESCRIPTORS + 1; fd < most; fd++) {
        close(fd);
    }
}

static bool reports_a_crash(int number) {
    return number == SIGSEGV || number == SIGBUS || number == SIGFPE || number == SIGILL ||
           number == SIGABRT;
}

/* A signal to the process group is the parent's to act on; it ends us when it stops. Handlers
 * were made for the parent, but those that report a crash help here as well. */
static void forget_handlers(void) {
    for (int number = 1; number < NSIG; number++) {
        struct sigaction action;
        bool caught = sigaction(number, NULL, &action) == 0 &&
                      ((action.sa_flags & SA_SIGINFO) != 0 ||
                       (action.sa_handler != SIG_DFL && action.sa_handler != SIG_IGN));
        bool ignore = number == SIGINT || number == SIGHUP;
        if (ignore || (caught && !reports_a_crash(number))) {
            action = (struct sigaction){.sa_flags = 0};
            action.sa_handler = ignore ? SIG_IGN : SIG_DFL;
            sigaction(number, &action, NULL);
        }
    }
}

static void yield_to_others(void) {
    (void)!nice(WRITER_CHILD_NICE);
#if defined(__linux__)
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd >= 0) {
        (void)!write(fd, OOM_SCORE, sizeof(OOM_SCORE) - 1);
        close(fd);
    }
#endif
}

void writing_isolate(struct writing *writing, pid_t parent, const sigset_t *mask) {
#if defined(__linux__)
    prctl(PR_SET_PDEATHSIG, SIGKILL);
#endif
    close_inherited(writing);
    if (getppid() != parent) { /* it died before we asked to be told */
        _exit(1);
    }
    forget_handlers();
    yield_to_others();
    pthread_sigmask(SIG_SETMASK, mask, NULL);
}

void writing_forked(struct writing *writing, pid_t pid) {
    writing->pid = pid;
    atomic_store(&writing->stage, WRITING_IN_CHILD);
}

/* --- the loop --- */

static void describe_end(int wait_status, struct error *result) {
    if (WIFSIGNALED(wait_status)) {
        error_set(result, STATUS_CLOSED, "the process that wrote it was ended by signal %d",
                  WTERMSIG(wait_status));
    } else {
        error_set(result, STATUS_CLOSED, "the process that wrote it ended before it was done");
    }
}

/* Its own pid alone: other children are the program's. Where the program has reaped it, or
 * ignores SIGCHLD, only the report tells. */
static bool child_has_ended(struct writing *writing, struct error *result) {
    int wait_status = 0;
    pid_t ended = waitpid(writing->pid, &wait_status, WNOHANG);
    if (ended == 0 || (ended < 0 && errno == EINTR)) {
        return false;
    }
    if (atomic_load(&writing->report->ended)) {
        *result = writing->report->result;
    } else if (writing->killed) {
        error_set(result, STATUS_TIMEOUT,
                  "the process that wrote it made no progress for %llu s and was ended",
                  (unsigned long long)(writing->timeout_ms / 1000));
    } else {
        describe_end(ended > 0 ? wait_status : 0, result);
    }
    return true;
}

static void watch(struct writing *writing, uint64_t now_ms) {
    uint64_t bytes = atomic_load(&writing->report->bytes);
    if (writing->seen_ms == 0 || bytes != writing->seen_bytes) {
        writing->seen_bytes = bytes;
        writing->seen_ms = now_ms;
    } else if (now_ms - writing->seen_ms >= writing->timeout_ms && !writing->killed) {
        writing->killed = true;
        kill(writing->pid, SIGKILL);
    }
}

bool writing_poll(struct writing *writing, uint64_t now_ms, struct error *result) {
    bool ended = false;
    switch ((enum writing_stage)atomic_load(&writing->stage)) {
    case WRITING_IDLE:
    case WRITING_BUSY:
        return false;
    case WRITING_IN_CHILD:
        ended = child_has_ended(writing, result);
        if (!ended) {
            watch(writing, now_ms);
        }
        break;
    case WRITING_ENDED:
        *result = writing->report->result;
        ended = true;
        break;
    }
    if (ended) {
        writing->seen_ms = 0;
        writing->killed = false;
        writing->file = FILE_CLOSED;
        atomic_store(&writing->stage, WRITING_IDLE);
    }
    return ended;
}
