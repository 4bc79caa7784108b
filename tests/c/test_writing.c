/* Writing a snapshot in a child process, without Python: however the child ends, the loop
 * learns it once, nothing is left behind, and the file holds what the lines say. */
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/memory.h"
#include "check.h"
#include "server/writing.h"
#include "wire/snapshot.h"

#define TIMEOUT_MS 50u
#define POLLS_MAX 20000

static const struct directory HERE = {.fd = -1, .lock_fd = -1, .sync = true, .path = "."};

struct rig {
    struct writing writing;
    struct file file;
    struct buffer header_line;
    uint32_t crc;
    uint64_t now_ms; /* as the loop sees it */
};

static void rig_init(struct rig *rig, const char *path) {
    *rig = (struct rig){.now_ms = 1000};
    struct error error = {0};
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    rig->file = (struct file){.directory = &HERE, .fd = fd, .name = "snapshot"};
    CHECK(writing_init(&rig->writing, TIMEOUT_MS, &error) == STATUS_OK);
    struct snapshot_header header = {
        .index = 5, .term = 2, .configuration = SPAN("{\"members\":[]}")};
    rig->crc = snapshot_write_header(&rig->header_line, &header);
}

static void rig_clear(struct rig *rig) {
    writing_clear(&rig->writing);
    close(rig->file.fd);
    buffer_free(&rig->header_line);
}

enum way { WELL, REPORTS, SILENT, DIES, HANGS };

static void write_lines(struct writer *writer) {
    struct error error = {0};
    for (int line = 0; line < 3; line++) {
        snapshot_stream_open_line(&writer->stream);
        buffer_append_text(&writer->stream.out, "[1,");
        CHECK(writer_flush(writer, &error) == STATUS_OK); /* in the middle of a line */
        buffer_append_text(&writer->stream.out, "2]");
        snapshot_stream_close_line(&writer->stream);
    }
    CHECK(writer_end(writer, &error) == STATUS_OK);
}

static void child(struct rig *rig, struct writer *writer, enum way way) {
    switch (way) {
    case WELL:
        write_lines(writer);
        writing_finish(&rig->writing, STATUS_OK, "");
        _exit(0);
    case REPORTS:
        writing_finish(&rig->writing, STATUS_INVALID, "for a reason");
        _exit(0);
    case SILENT:
        _exit(0);
    case DIES:
        raise(SIGKILL);
        _exit(0);
    case HANGS:
        while (true) {
            pause();
        }
    }
}

static pid_t begin(struct rig *rig, enum way way) {
    struct writer writer;
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    writing_offer(&rig->writing, rig->file);
    writing_start(&rig->writing, buffer_span(&rig->header_line), &writer);
    pid_t parent = getpid();
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        writing_isolate(&rig->writing, parent, &mask);
        child(rig, &writer, way);
    }
    writing_forked(&rig->writing, pid);
    writer_clear(&writer);
    return pid;
}

/* The loop's own clock goes on by a millisecond a look. */
static struct error wait_end(struct rig *rig) {
    struct error result = {.status = STATUS_OK};
    for (int i = 0; i < POLLS_MAX; i++) {
        if (writing_poll(&rig->writing, rig->now_ms++, &result)) {
            CHECK(!writing_poll(&rig->writing, rig->now_ms, &result)); /* once */
            return result;
        }
        poll(NULL, 0, 1);
    }
    CHECK(false && "it never ended");
    return result;
}

static void check_file(struct rig *rig) {
    struct buffer expected;
    buffer_init(&expected);
    buffer_append_span(&expected, buffer_span(&rig->header_line));
    uint32_t seed = rig->crc;
    for (int line = 0; line < 3; line++) {
        seed = snapshot_write_state(&expected, SPAN("[1,2]"), seed);
    }
    snapshot_write_end(&expected, 3, buffer_count(&expected), seed);
    char found[4096];
    ssize_t size = pread(rig->file.fd, found, sizeof(found), 0);
    CHECK(size > 0);
    CHECK(span_equal(buffer_span(&expected), (struct span){found, (size_t)size}));
    buffer_free(&expected);
}

static void test_ways(const char *path) {
    struct rig rig;
    rig_init(&rig, path);
    pid_t pid = begin(&rig, WELL);
    CHECK(wait_end(&rig).status == STATUS_OK);
    CHECK(waitpid(pid, NULL, WNOHANG) == -1); /* reaped */
    check_file(&rig);
    begin(&rig, REPORTS);
    struct error result = wait_end(&rig);
    CHECK(result.status == STATUS_INVALID && strcmp(result.text, "for a reason") == 0);
    begin(&rig, SILENT);
    CHECK(wait_end(&rig).status == STATUS_CLOSED);
    begin(&rig, DIES);
    result = wait_end(&rig);
    CHECK(result.status == STATUS_CLOSED && strstr(result.text, "signal 9") != NULL);
    pid = begin(&rig, HANGS);
    CHECK(wait_end(&rig).status == STATUS_TIMEOUT);
    CHECK(waitpid(pid, NULL, WNOHANG) == -1);
    begin(&rig, WELL); /* after all of that */
    CHECK(wait_end(&rig).status == STATUS_OK);
    rig_clear(&rig);
}

/* The program around us reaps every child itself, or has none that can be waited for. */
static void test_reaped_by_others(const char *path) {
    struct rig rig;
    rig_init(&rig, path);
    pid_t pid = begin(&rig, REPORTS);
    CHECK(waitpid(pid, NULL, 0) == pid);
    CHECK(wait_end(&rig).status == STATUS_INVALID);
    pid = begin(&rig, DIES);
    CHECK(waitpid(-1, NULL, 0) == pid);
    CHECK(wait_end(&rig).status == STATUS_CLOSED);
    signal(SIGCHLD, SIG_IGN);
    begin(&rig, WELL);
    CHECK(wait_end(&rig).status == STATUS_OK);
    signal(SIGCHLD, SIG_DFL);
    rig_clear(&rig);
}

/* What is closed here is closed, although a child is at work: it holds no copy. */
static void test_holds_nothing(const char *path) {
    struct rig rig;
    int ends[2];
    rig_init(&rig, path);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    begin(&rig, HANGS);
    close(ends[0]);
    char byte;
    CHECK(read(ends[1], &byte, 1) == 0); /* the end, at once or as soon as the child has run */
    close(ends[1]);
    rig_clear(&rig); /* ends the child */
    CHECK(waitpid(-1, NULL, WNOHANG) == -1);
}

static void test_here(const char *path) {
    struct rig rig;
    struct writer writer;
    struct error result = {0};
    rig_init(&rig, path);
    writing_offer(&rig.writing, rig.file);
    writing_start(&rig.writing, buffer_span(&rig.header_line), &writer);
    CHECK(!writing_poll(&rig.writing, 1, &result));
    write_lines(&writer);
    CHECK(!writing_poll(&rig.writing, 2, &result));
    writing_finish(&rig.writing, STATUS_OK, "");
    CHECK(writing_poll(&rig.writing, 3, &result) && result.status == STATUS_OK);
    writer_clear(&writer);
    check_file(&rig);
    rig_clear(&rig);
}

int main(int count, char **arguments) {
    CHECK(count > 1);
    test_here(arguments[1]);
    test_ways(arguments[1]);
    test_reaped_by_others(arguments[1]);
    test_holds_nothing(arguments[1]);
    CHECK(memory_live_count() == 0);
    printf("ok\n");
    return 0;
}
