/* The system calls that storage uses, one thin function each, and what differs between systems.
 *
 * Nothing is retried, translated or decided here: that is file.c's work, so that a test's table
 * sees and fails exactly what the kernel would. */
#include "storage/calls.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static int real_open(int directory, const char *name, int flags, mode_t mode) {
    return openat(directory, name, flags, mode);
}

/* macOS's fsync leaves the data in the drive's own cache; F_FULLFSYNC is what others call
 * fsync. */
static int real_fsync(int fd) {
#if defined(F_FULLFSYNC)
    return fcntl(fd, F_FULLFSYNC) == -1 ? -1 : 0;
#else
    return fsync(fd);
#endif
}

static int real_fdatasync(int fd) {
#if defined(__linux__)
    return fdatasync(fd);
#else
    return real_fsync(fd);
#endif
}

static int real_rename(int directory, const char *from, const char *to) {
    return renameat(directory, from, directory, to);
}

static int real_unlink(int directory, const char *name) {
    return unlinkat(directory, name, 0);
}

static int real_lock(int fd) {
    return flock(fd, LOCK_EX | LOCK_NB);
}

static int real_size(int fd, uint64_t *bytes) {
    struct stat stat;
    if (fstat(fd, &stat) != 0) {
        return -1;
    }
    *bytes = (uint64_t)stat.st_size;
    return 0;
}

static int real_forget(int fd) {
#if defined(POSIX_FADV_DONTNEED)
    return posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
#else
    (void)fd;
    return 0;
#endif
}

static int real_list(int directory, struct buffer *names) {
    /* fdopendir owns its descriptor and moves the file position: give it one of its own. */
    int fd = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *entries = fd >= 0 ? fdopendir(fd) : NULL;
    if (entries == NULL) {
        int saved = errno;
        if (fd >= 0) {
            close(fd);
        }
        errno = saved;
        return -1;
    }
    errno = 0;
    for (struct dirent *entry = readdir(entries); entry != NULL; entry = readdir(entries)) {
        buffer_append(names, entry->d_name, strlen(entry->d_name) + 1);
        errno = 0;
    }
    int failed = errno;
    closedir(entries);
    errno = failed;
    return failed != 0 ? -1 : 0;
}

const struct file_calls CALLS_REAL = {
    .open = real_open,
    .close = close,
    .pread = pread,
    .pwrite = pwrite,
    .ftruncate = ftruncate,
    .fsync = real_fsync,
    .fdatasync = real_fdatasync,
    .rename = real_rename,
    .unlink = real_unlink,
    .mkdir = mkdir,
    .lock = real_lock,
    .size = real_size,
    .forget = real_forget,
    .list = real_list,
};
