/* A directory in memory behind the table of storage/file.h, one for each server.
 *
 * It keeps what the disk holds apart from what the page cache shows. A power cut loses what was
 * not synced, in whole or in part, by sectors and by names; a sync that fails leaves pages that
 * look written and never are. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "nodesim.h"

#define SECTOR 512u
#define NAMES_MAX 256u
#define CHANGES_MAX 1024u
#define FDS_MAX 64u
#define FD_FIRST 1000
#define FD_DIRECTORY 900
#define FD_PARENT 901

struct vfile {
    struct buffer cache; /* what a read shows */
    struct buffer disk;  /* what a power cut leaves */
    struct buffer dirty; /* a byte a sector */
    bool locked;
    bool marked;
    struct vfile *next;
};

struct vname {
    char text[NAME_BYTES_MAX]; /* "": free */
    struct vfile *file;
};

/* A change of the directory that is not on the disk yet. */
struct change {
    char from[NAME_BYTES_MAX]; /* this name goes; "": none */
    char to[NAME_BYTES_MAX];   /* this one means `file`; "": none */
    struct vfile *file;
};

struct vdisk {
    struct vfile *files;
    struct vname cached[NAMES_MAX];
    struct vname stored[NAMES_MAX];
    struct change changes[CHANGES_MAX];
    uint32_t change_count;
    struct vfile *fds[FDS_MAX];
    bool exists;
    bool full;
    bool dead;
    uint32_t calls;
    uint32_t die_at;
    uint32_t fail_at;
};

static struct vdisk *current;

/* --- files and names --------------------------------------------------------------------- */
static void *must(void *block) {
    ASSERT(block != NULL);
    return block;
}

static void free_file(struct vfile *file) {
    buffer_free(&file->cache);
    buffer_free(&file->disk);
    buffer_free(&file->dirty);
    free(file);
}

static void mark(struct vfile *file) {
    if (file != NULL) {
        file->marked = true;
    }
}

/* Files that no name, change or descriptor means any more go. */
static void sweep(struct vdisk *disk) {
    for (uint32_t i = 0; i < NAMES_MAX; i++) {
        mark(disk->cached[i].text[0] != 0 ? disk->cached[i].file : NULL);
        mark(disk->stored[i].text[0] != 0 ? disk->stored[i].file : NULL);
    }
    for (uint32_t i = 0; i < disk->change_count; i++) {
        mark(disk->changes[i].file);
    }
    for (uint32_t i = 0; i < FDS_MAX; i++) {
        mark(disk->fds[i]);
    }
    for (struct vfile **at = &disk->files; *at != NULL;) {
        struct vfile *file = *at;
        if (file->marked) {
            file->marked = false;
            at = &file->next;
        } else {
            *at = file->next;
            free_file(file);
        }
    }
}

static struct vname *find(struct vname *names, const char *text) {
    for (uint32_t i = 0; i < NAMES_MAX; i++) {
        if (strcmp(names[i].text, text) == 0) {
            return &names[i];
        }
    }
    return NULL;
}

static void apply(struct vname *names, const struct change *change) {
    struct vname *gone = change->from[0] != 0 ? find(names, change->from) : NULL;
    if (gone != NULL) {
        gone->text[0] = 0;
    }
    if (change->to[0] != 0) {
        struct vname *name = find(names, change->to);
        name = name != NULL ? name : find(names, "");
        ASSERT(name != NULL);
        memcpy(name->text, change->to, sizeof(name->text));
        name->file = change->file;
    }
}

static void note(const char *from, const char *to, struct vfile *file) {
    ASSERT(current->change_count < CHANGES_MAX);
    ASSERT(strlen(from) < NAME_BYTES_MAX && strlen(to) < NAME_BYTES_MAX);
    struct change *change = &current->changes[current->change_count++];
    *change = (struct change){.file = file};
    memcpy(change->from, from, strlen(from) + 1);
    memcpy(change->to, to, strlen(to) + 1);
    apply(current->cached, change);
}

static void resize(struct buffer *buffer, size_t size) {
    if (size > buffer->size) {
        size_t more = size - buffer->size;
        memset(buffer_reserve(buffer, more), 0, more);
    }
    buffer->size = size;
}

static size_t sectors(size_t bytes) {
    return (bytes + SECTOR - 1) / SECTOR;
}

static bool is_dirty(const struct vfile *file, size_t sector) {
    return sector < file->dirty.size && file->dirty.bytes[sector] != 0;
}

static void touch(struct vfile *file, size_t from, size_t to) {
    if (sectors(to) > file->dirty.size) {
        resize(&file->dirty, sectors(to));
    }
    for (size_t i = from / SECTOR; i < sectors(to); i++) {
        file->dirty.bytes[i] = 1;
    }
}

/* Copy one sector, as far as both reach. */
static void copy_sector(struct buffer *to, const struct buffer *from, size_t sector) {
    size_t begin = sector * SECTOR;
    size_t both = to->size < from->size ? to->size : from->size;
    if (begin < both) {
        size_t bytes = both - begin < SECTOR ? both - begin : SECTOR;
        memcpy(to->bytes + begin, from->bytes + begin, bytes);
    }
}

static void store_all(struct vfile *file) {
    resize(&file->disk, file->cache.size);
    for (size_t i = 0; i < file->dirty.size; i++) {
        if (file->dirty.bytes[i] != 0) {
            copy_sector(&file->disk, &file->cache, i);
        }
    }
    buffer_clear(&file->dirty);
}

/* --- the calls --------------------------------------------------------------------------- */
/* Counts the call; false: it has no effect and errno says why. */
static bool may_go(void) {
    current->calls++;
    if (current->die_at > 0 && current->calls >= current->die_at) {
        current->dead = true;
    }
    bool fails = current->dead || (current->fail_at > 0 && current->calls == current->fail_at);
    errno = fails ? EIO : 0;
    return !fails;
}

static struct vfile *file_of(int fd) {
    ASSERT(fd >= FD_FIRST && fd < FD_FIRST + (int)FDS_MAX);
    struct vfile *file = current->fds[fd - FD_FIRST];
    ASSERT(file != NULL);
    return file;
}

static int give_fd(struct vfile *file) {
    for (uint32_t i = 0; i < FDS_MAX; i++) {
        if (current->fds[i] == NULL) {
            current->fds[i] = file;
            return FD_FIRST + (int)i;
        }
    }
    errno = EMFILE;
    return -1;
}

static int call_open(int directory, const char *text, int flags, mode_t mode) {
    (void)directory;
    (void)mode;
    if (!may_go()) {
        return -1;
    }
    if ((flags & O_DIRECTORY) != 0) {
        return strcmp(text, "..") == 0 ? FD_PARENT : FD_DIRECTORY;
    }
    struct vname *name = find(current->cached, text);
    if (name == NULL && (flags & O_CREAT) == 0) {
        errno = ENOENT;
        return -1;
    }
    if (name == NULL && current->full) {
        errno = ENOSPC;
        return -1;
    }
    struct vfile *file = name != NULL ? name->file : NULL;
    if (file == NULL) {
        file = must(calloc(1, sizeof(*file)));
        file->next = current->files;
        current->files = file;
        note("", text, file);
    } else if ((flags & O_TRUNC) != 0) {
        resize(&file->cache, 0);
    }
    return give_fd(file);
}

static int call_close(int fd) {
    if (fd >= FD_FIRST) {
        file_of(fd)->locked = false; /* only the lock file is ever locked */
        current->fds[fd - FD_FIRST] = NULL;
    }
    return 0;
}

static ssize_t call_pread(int fd, void *bytes, size_t size, off_t offset) {
    if (!may_go()) {
        return -1;
    }
    const struct buffer *cache = &file_of(fd)->cache;
    size_t at = (size_t)offset;
    size_t count = at < cache->size ? cache->size - at : 0;
    count = count < size ? count : size;
    if (count > 0) {
        memcpy(bytes, cache->bytes + at, count);
    }
    return (ssize_t)count;
}

static ssize_t call_pwrite(int fd, const void *bytes, size_t size, off_t offset) {
    bool was_dead = current->dead;
    bool goes = may_go();
    if (!goes && (was_dead || !current->dead)) {
        return -1;
    }
    struct vfile *file = file_of(fd);
    size_t at = (size_t)offset;
    if (current->full && at + size > file->cache.size) {
        if (at >= file->cache.size) {
            errno = ENOSPC;
            return -1;
        }
        size = file->cache.size - at; /* what there is room for */
    }
    size = goes ? size : size / 2; /* died in the middle of it */
    if (at + size > file->cache.size) {
        resize(&file->cache, at + size);
    }
    memcpy(file->cache.bytes + at, bytes, size);
    touch(file, at, at + size);
    return goes ? (ssize_t)size : -1;
}

static int call_ftruncate(int fd, off_t size) {
    if (!may_go()) {
        return -1;
    }
    struct vfile *file = file_of(fd);
    size_t before = file->cache.size;
    resize(&file->cache, (size_t)size);
    if ((size_t)size > before) {
        touch(file, before, (size_t)size);
    }
    return 0;
}

static int call_sync(int fd) {
    bool goes = may_go();
    if (current->dead || fd == FD_PARENT) {
        return goes ? 0 : -1;
    }
    if (fd == FD_DIRECTORY) {
        if (goes) {
            memcpy(current->stored, current->cached, sizeof(current->stored));
            current->change_count = 0;
            sweep(current);
        }
        return goes ? 0 : -1;
    }
    struct vfile *file = file_of(fd);
    if (goes) {
        store_all(file);
    } else {
        buffer_clear(&file->dirty); /* reported once, then clean: the disk never gets them */
    }
    return goes ? 0 : -1;
}

static int call_rename(int directory, const char *from, const char *to) {
    (void)directory;
    struct vname *name = may_go() ? find(current->cached, from) : NULL;
    if (name == NULL) {
        errno = errno == 0 ? ENOENT : errno;
        return -1;
    }
    note(from, to, name->file);
    return 0;
}

static int call_unlink(int directory, const char *text) {
    (void)directory;
    struct vname *name = may_go() ? find(current->cached, text) : NULL;
    if (name == NULL) {
        errno = errno == 0 ? ENOENT : errno;
        return -1;
    }
    note(text, "", name->file);
    return 0;
}

static int call_mkdir(const char *path, mode_t mode) {
    (void)path;
    (void)mode;
    if (!may_go()) {
        return -1;
    }
    errno = current->exists ? EEXIST : 0;
    bool made = !current->exists;
    current->exists = true;
    return made ? 0 : -1;
}

static int call_lock(int fd) {
    if (!may_go()) {
        return -1;
    }
    struct vfile *file = file_of(fd);
    errno = file->locked ? EWOULDBLOCK : 0;
    bool taken = !file->locked;
    file->locked = true;
    return taken ? 0 : -1;
}

static int call_size(int fd, uint64_t *bytes) {
    if (!may_go()) {
        return -1;
    }
    *bytes = file_of(fd)->cache.size;
    return 0;
}

/* Clean pages are read from the disk again; dirty ones stay. */
static int call_forget(int fd) {
    struct vfile *file = file_of(fd);
    for (size_t i = 0; i < sectors(file->cache.size); i++) {
        if (!is_dirty(file, i)) {
            size_t begin = i * SECTOR;
            size_t rest = file->cache.size - begin;
            memset(file->cache.bytes + begin, 0, rest < SECTOR ? rest : SECTOR);
            copy_sector(&file->cache, &file->disk, i);
        }
    }
    return 0;
}

static int call_list(int directory, struct buffer *names) {
    (void)directory;
    if (!may_go()) {
        return -1;
    }
    for (uint32_t i = 0; i < NAMES_MAX; i++) {
        const char *text = current->cached[i].text;
        if (text[0] != 0) {
            buffer_append(names, text, strlen(text) + 1);
        }
    }
    return 0;
}

const struct file_calls VDISK_CALLS = {
    .open = call_open,
    .close = call_close,
    .pread = call_pread,
    .pwrite = call_pwrite,
    .ftruncate = call_ftruncate,
    .fsync = call_sync,
    .fdatasync = call_sync,
    .rename = call_rename,
    .unlink = call_unlink,
    .mkdir = call_mkdir,
    .lock = call_lock,
    .size = call_size,
    .forget = call_forget,
    .list = call_list,
};

/* --- life and crashes -------------------------------------------------------------------- */
struct vdisk *vdisk_new(void) {
    return must(calloc(1, sizeof(struct vdisk)));
}

void vdisk_wipe(struct vdisk *disk) {
    bool full = disk->full;
    while (disk->files != NULL) {
        struct vfile *next = disk->files->next;
        free_file(disk->files);
        disk->files = next;
    }
    *disk = (struct vdisk){.full = full};
}

void vdisk_free(struct vdisk *disk) {
    if (disk != NULL) {
        vdisk_wipe(disk);
        free(disk);
    }
}

void vdisk_use(struct vdisk *disk) {
    current = disk;
}

void vdisk_set_full(struct vdisk *disk, bool full) {
    disk->full = full;
}

void vdisk_die_at(struct vdisk *disk, uint32_t calls) {
    disk->calls = 0;
    disk->die_at = calls;
}

void vdisk_fail_at(struct vdisk *disk, uint32_t calls) {
    disk->calls = 0;
    disk->fail_at = calls;
}

static bool toss(struct random *random) {
    return random_between(random, 0, 1) == 1;
}

/* Some of the dirty sectors reached the disk, and perhaps the new size. */
static void survive_some(struct vfile *file, struct random *random) {
    if (file->cache.size != file->disk.size && toss(random)) {
        resize(&file->disk, file->cache.size);
    }
    uint64_t of_eight = random_between(random, 0, 8);
    for (size_t i = 0; i < file->dirty.size; i++) {
        if (file->dirty.bytes[i] != 0 && random_between(random, 0, 7) < of_eight) {
            copy_sector(&file->disk, &file->cache, i);
        }
    }
}

static void lose_power(struct vdisk *disk, bool some, struct random *random) {
    for (struct vfile *file = disk->files; file != NULL; file = file->next) {
        if (some) {
            survive_some(file, random);
        }
        buffer_clear(&file->cache);
        buffer_append_span(&file->cache, buffer_span(&file->disk));
        buffer_clear(&file->dirty);
    }
    bool in_order = toss(random); /* a beginning of the changes, or any of them */
    for (uint32_t i = 0; i < disk->change_count && some; i++) {
        if (toss(random)) {
            apply(disk->stored, &disk->changes[i]);
        } else if (in_order) {
            break;
        }
    }
    memcpy(disk->cached, disk->stored, sizeof(disk->cached));
    disk->change_count = 0;
}

void vdisk_crash(struct vdisk *disk, enum vdisk_crash crash, struct random *random) {
    if (crash != VDISK_KILL) {
        lose_power(disk, crash == VDISK_POWER_SOME, random);
    }
    memset(disk->fds, 0, sizeof(disk->fds));
    for (struct vfile *file = disk->files; file != NULL; file = file->next) {
        file->locked = false;
    }
    disk->dead = false;
    disk->calls = disk->die_at = disk->fail_at = 0;
    sweep(disk);
}
