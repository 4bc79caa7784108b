/* A disk that fails when it is told to, under a real server: preloaded
 * (LD_PRELOAD), it stands before the system calls that write.
 *
 * The environment names the directory that it is for (BAD_DISK_DATA) and a file
 * (BAD_DISK_RULES) that is read at each call, so that a test changes the rules
 * while the server runs. A rule a line: `CALL WHAT`, where CALL is write,
 * fsync, fdatasync, truncate or any, and WHAT is
 *
 *   EIO      the call fails, and does nothing
 *   ENOSPC   the same, with that error
 *   HALF     a write does half of its work and fails with EIO
 *   STALL    the call waits for as long as the rule stands
 *
 * No file, an empty one: everything works. Each call that fails is noted in the
 * file BAD_DISK_SAID, a line `CALL WHAT` each: so a test sees whether a call
 * was tried again. */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#define RULES_BYTES_MAX 1024
#define PATH_BYTES_MAX 4096
#define STALL_LOOK_MS 10

enum fault { NONE, FAIL_EIO, FAIL_ENOSPC, HALF, STALL };

ssize_t pwrite(int fd, const void *bytes, size_t size, off_t offset);
ssize_t pwrite64(int fd, const void *bytes, size_t size, off_t offset);
int ftruncate(int fd, off_t size);
int ftruncate64(int fd, off_t size);

static bool is_ours(int fd) {
  const char *data = getenv("BAD_DISK_DATA");
  char link[64];
  char path[PATH_BYTES_MAX];
  snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
  ssize_t size = data != NULL ? readlink(link, path, sizeof(path) - 1) : -1;
  if (size < 0) {
    return false;
  }
  path[size] = 0;
  size_t prefix = strlen(data);
  return strncmp(path, data, prefix) == 0 &&
         (path[prefix] == 0 || path[prefix] == '/');
}

static enum fault fault_named(const char *name) {
  static const char *const names[] = {
      [NONE] = "",     [FAIL_EIO] = "EIO", [FAIL_ENOSPC] = "ENOSPC",
      [HALF] = "HALF", [STALL] = "STALL",
  };
  for (int fault = NONE; fault <= STALL; fault++) {
    if (strcmp(names[fault], name) == 0) {
      return (enum fault)fault;
    }
  }
  fprintf(stderr, "bad_disk: no such fault: %s\n", name);
  abort();
}

/* What the rules say about a call on that descriptor now. */
static enum fault rule_for(const char *call, int fd) {
  const char *path = getenv("BAD_DISK_RULES");
  int rules =
      path != NULL && is_ours(fd) ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  if (rules < 0) {
    return NONE;
  }
  char text[RULES_BYTES_MAX];
  ssize_t size = read(rules, text, sizeof(text) - 1);
  close(rules);
  text[size > 0 ? size : 0] = 0;
  char *rest = NULL;
  for (char *line = strtok_r(text, "\n", &rest); line != NULL;
       line = strtok_r(NULL, "\n", &rest)) {
    char *space = strchr(line, ' ');
    if (space == NULL) {
      continue;
    }
    *space = 0;
    if (strcmp(line, call) == 0 || strcmp(line, "any") == 0) {
      return fault_named(space + 1);
    }
  }
  return NONE;
}

static void note(const char *call, const char *what) {
  const char *path = getenv("BAD_DISK_SAID");
  char line[64];
  int size = snprintf(line, sizeof(line), "%s %s\n", call, what);
  int said = path != NULL
                 ? open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600)
                 : -1;
  if (said >= 0) {
    (void)!write(said, line, (size_t)size);
    close(said);
  }
}

/* Whether the call fails; sets errno. Waits first while it is to stall. */
static bool fails(const char *call, int fd, enum fault *fault) {
  bool stalled = false;
  while ((*fault = rule_for(call, fd)) == STALL) {
    if (!stalled) {
      note(call, "STALL");
    }
    stalled = true;
    nanosleep(&(struct timespec){.tv_nsec = STALL_LOOK_MS * 1000000L}, NULL);
  }
  if (*fault != NONE) {
    note(call, *fault == FAIL_ENOSPC ? "ENOSPC"
               : *fault == HALF      ? "HALF"
                                     : "EIO");
  }
  errno = *fault == FAIL_ENOSPC ? ENOSPC : EIO;
  return *fault == FAIL_EIO || *fault == FAIL_ENOSPC;
}

ssize_t pwrite(int fd, const void *bytes, size_t size, off_t offset) {
  enum fault fault;
  if (fails("write", fd, &fault)) {
    return -1;
  }
  if (fault == HALF && size > 1) {
    (void)!syscall(SYS_pwrite64, fd, bytes, size / 2, offset);
    errno = EIO;
    return -1;
  }
  return syscall(SYS_pwrite64, fd, bytes, size, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t size, off_t offset) {
  return pwrite(fd, bytes, size, offset);
}

int ftruncate(int fd, off_t size) {
  enum fault fault;
  return fails("truncate", fd, &fault) ? -1
                                       : (int)syscall(SYS_ftruncate, fd, size);
}

int ftruncate64(int fd, off_t size) { return ftruncate(fd, size); }

int fsync(int fd) {
  enum fault fault;
  return fails("fsync", fd, &fault) ? -1 : (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd) {
  enum fault fault;
  return fails("fdatasync", fd, &fault) ? -1 : (int)syscall(SYS_fdatasync, fd);
}
