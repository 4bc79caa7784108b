/* A file system in memory that loses what a real one may lose; see memfs.h. */
#include "memfs.h"

#include <errno.h>
#include <fcntl.h>

#include "base/random.h"
#include "check.h"
#include "memfs_internal.h"

struct node memfs_nodes[NODES_MAX];
static int node_count;
struct name memfs_cached[NAMES_MAX];
struct name memfs_stored[NAMES_MAX];
static struct change changes[CHANGES_MAX];
static int change_count;
static struct fd fds[FDS_MAX];
bool memfs_exists;
bool memfs_exists_stored;

static unsigned long calls_made;
static unsigned long fail_n;
static enum memfs_fault fail_how;
static bool fail_for_ever;
static bool hit;
static bool dead;
static const char *hit_call = "";

/* --- the plan of faults --------------------------------------------------------------- */

void memfs_fail_at(unsigned long n, enum memfs_fault fault, bool for_ever) {
    calls_made = 0;
    fail_n = n;
    fail_how = fault;
    fail_for_ever = for_ever;
    hit = false;
    dead = false;
    hit_call = "";
}

unsigned long memfs_calls(void) {
    return calls_made;
}

bool memfs_hit(void) {
    return hit;
}

void memfs_die(void) {
    dead = true;
}

bool memfs_dead(void) {
    return dead;
}

const char *memfs_hit_call(void) {
    return hit_call;
}

enum turn {
    TURN_GO,
    TURN_FAIL,
    TURN_PART,
};

/* What becomes of the call that is being made; errno is set for TURN_FAIL. */
static enum turn take_turn(const char *call, bool moves_bytes) {
    calls_made++;
    if (dead) {
        errno = EIO;
        return TURN_FAIL;
    }
    if (fail_n == 0 || calls_made < fail_n || (calls_made > fail_n && !fail_for_ever)) {
        return TURN_GO;
    }
    if (!hit) {
        hit_call = call;
    }
    hit = true;
    switch (fail_how) {
    case MEMFS_EIO:
        errno = EIO;
        return TURN_FAIL;
    case MEMFS_ENOSPC:
        errno = ENOSPC;
        return TURN_FAIL;
    case MEMFS_EINTR:
        errno = EINTR;
        return TURN_FAIL;
    case MEMFS_SHORT:
        return moves_bytes ? TURN_PART : TURN_GO;
    case MEMFS_DIE:
        dead = true;
        errno = EIO;
        return TURN_FAIL;
    case MEMFS_DIE_MID:
        dead = true;
        errno = EIO;
        return moves_bytes ? TURN_PART : TURN_FAIL;
    }
    return TURN_GO;
}

/* --- names and nodes ------------------------------------------------------------------ */

struct name *memfs_find(struct name *names, const char *text) {
    for (int i = 0; i < NAMES_MAX; i++) {
        if (strcmp(names[i].text, text) == 0) {
            return &names[i];
        }
    }
    return NULL;
}

void memfs_set(struct name *names, const char *text, int node) {
    struct name *name = memfs_find(names, text);
    if (name == NULL) {
        name = memfs_find(names, "");
    }
    CHECK(name != NULL && strlen(text) < NAME_BYTES_MAX);
    memcpy(name->text, text, strlen(text) + 1);
    name->node = node;
}

void memfs_unset(struct name *names, const char *text) {
    struct name *name = memfs_find(names, text);
    if (name != NULL) {
        name->text[0] = 0;
    }
}

static void apply(struct name *names, const struct change *change) {
    if (change->from[0] != 0) {
        memfs_unset(names, change->from);
    }
    if (change->remove) {
        memfs_unset(names, change->to);
    } else {
        memfs_set(names, change->to, change->node);
    }
}

static void note_change(bool remove, const char *from, const char *to, int node) {
    CHECK(change_count < CHANGES_MAX);
    struct change *change = &changes[change_count++];
    *change = (struct change){.remove = remove, .node = node};
    memcpy(change->from, from, strlen(from) + 1);
    memcpy(change->to, to, strlen(to) + 1);
    apply(memfs_cached, change);
}

int memfs_new_node(void) {
    CHECK(node_count < NODES_MAX);
    memfs_nodes[node_count] = (struct node){.locked = false};
    return node_count++;
}

static struct node *node_of(int fd) {
    int number = fd - FD_FIRST;
    CHECK(number >= 0 && number < FDS_MAX && fds[number].open);
    return &memfs_nodes[fds[number].node];
}

static void resize(struct buffer *buffer, size_t size) {
    if (size > buffer->size) {
        size_t more = size - buffer->size;
        memset(buffer_reserve(buffer, more), 0, more);
    }
    buffer->size = size;
}

static void copy(struct buffer *into, const struct buffer *from) {
    buffer_clear(into);
    buffer_append_span(into, buffer_span(from));
}

static size_t sectors(size_t bytes) {
    return (bytes + SECTOR - 1) / SECTOR;
}

static void touch(struct node *node, size_t from, size_t to) {
    if (sectors(to) > node->written.size) {
        resize(&node->written, sectors(to));
    }
    for (size_t i = from / SECTOR; i < sectors(to); i++) {
        node->written.bytes[i] = 1;
    }
}

/* Copy sector i of the cache to the disk, as far as both reach. */
static void store_sector(struct node *node, size_t i) {
    size_t begin = i * SECTOR;
    size_t size = node->cache.size < node->disk.size ? node->cache.size : node->disk.size;
    if (begin < size) {
        size_t bytes = size - begin < SECTOR ? size - begin : SECTOR;
        memcpy(node->disk.bytes + begin, node->cache.bytes + begin, bytes);
    }
}

static void store_all(struct node *node) {
    resize(&node->disk, node->cache.size);
    for (size_t i = 0; i < node->written.size; i++) {
        if (node->written.bytes[i] != 0) {
            store_sector(node, i);
        }
    }
    memset(node->written.bytes == NULL ? (char[1]){0} : node->written.bytes, 0,
           node->written.size);
}

/* --- the calls ------------------------------------------------------------------------ */

static int give_fd(int node) {
    for (int i = 0; i < FDS_MAX; i++) {
        if (!fds[i].open) {
            fds[i] = (struct fd){.open = true, .node = node};
            return FD_FIRST + i;
        }
    }
    errno = EMFILE;
    return -1;
}

static int mem_open(int directory, const char *text, int flags, mode_t mode) {
    (void)mode;
    (void)directory;
    if (take_turn("open", false) == TURN_FAIL) {
        return -1;
    }
    if ((flags & O_DIRECTORY) != 0) {
        return strcmp(text, "..") == 0 ? FD_PARENT : FD_DIRECTORY;
    }
    struct name *name = memfs_find(memfs_cached, text);
    if (name == NULL && (flags & O_CREAT) == 0) {
        errno = ENOENT;
        return -1;
    }
    int node = name != NULL ? name->node : memfs_new_node();
    if (name == NULL) {
        note_change(false, "", text, node);
    } else if ((flags & O_TRUNC) != 0) {
        resize(&memfs_nodes[node].cache, 0);
    }
    return give_fd(node);
}

static int mem_close(int fd) {
    if (fd >= FD_FIRST) {
        node_of(fd)->locked = false; /* good enough: only the lock file is ever locked */
        fds[fd - FD_FIRST].open = false;
    }
    return 0;
}

static ssize_t mem_pread(int fd, void *bytes, size_t size, off_t offset) {
    enum turn turn = take_turn("pread", true);
    if (turn == TURN_FAIL) {
        return -1;
    }
    const struct buffer *cache = &node_of(fd)->cache;
    size_t at = (size_t)offset;
    size_t count = at < cache->size ? cache->size - at : 0;
    count = count < size ? count : size;
    if (turn == TURN_PART && count > 1) {
        count = count / 2;
    }
    if (count > 0) {
        memcpy(bytes, cache->bytes + at, count);
    }
    return (ssize_t)count;
}

static ssize_t mem_pwrite(int fd, const void *bytes, size_t size, off_t offset) {
    enum turn turn = take_turn("pwrite", true);
    if (turn == TURN_FAIL) {
        return -1;
    }
    struct node *node = node_of(fd);
    size_t at = (size_t)offset;
    if (turn == TURN_PART && size > 1) {
        size = size / 2;
    }
    if (at + size > node->cache.size) {
        resize(&node->cache, at + size);
    }
    memcpy(node->cache.bytes + at, bytes, size);
    touch(node, at, at + size);
    return dead ? -1 : (ssize_t)size;
}

static int mem_ftruncate(int fd, off_t size) {
    if (take_turn("ftruncate", false) == TURN_FAIL) {
        return -1;
    }
    struct node *node = node_of(fd);
    size_t before = node->cache.size;
    resize(&node->cache, (size_t)size);
    if ((size_t)size > before) {
        touch(node, before, (size_t)size);
    }
    return 0;
}

static int sync_directory(bool failed) {
    if (!failed) {
        memcpy(memfs_stored, memfs_cached, sizeof(memfs_stored));
        change_count = 0;
    }
    return failed ? -1 : 0;
}

static int mem_sync(int fd, const char *call) {
    enum turn turn = take_turn(call, false);
    if (turn == TURN_FAIL && (dead || errno == EINTR)) {
        return -1;
    }
    if (fd == FD_PARENT) {
        memfs_exists_stored = turn == TURN_GO ? memfs_exists : memfs_exists_stored;
        return turn == TURN_GO ? 0 : -1;
    }
    if (fd == FD_DIRECTORY) {
        return sync_directory(turn == TURN_FAIL);
    }
    struct node *node = node_of(fd);
    if (turn == TURN_FAIL) {
        /* The kernel reports once and takes the pages for clean: the disk never gets them. */
        if (node->written.size > 0) {
            memset(node->written.bytes, 0, node->written.size);
        }
        return -1;
    }
    store_all(node);
    return 0;
}

static int mem_fsync(int fd) {
    return mem_sync(fd, "fsync");
}

static int mem_fdatasync(int fd) {
    return mem_sync(fd, "fdatasync");
}

static int mem_rename(int directory, const char *from, const char *to) {
    (void)directory;
    if (take_turn("rename", false) == TURN_FAIL) {
        return -1;
    }
    struct name *name = memfs_find(memfs_cached, from);
    if (name == NULL) {
        errno = ENOENT;
        return -1;
    }
    note_change(false, from, to, name->node);
    return 0;
}

static int mem_unlink(int directory, const char *text) {
    (void)directory;
    if (take_turn("unlink", false) == TURN_FAIL) {
        return -1;
    }
    if (memfs_find(memfs_cached, text) == NULL) {
        errno = ENOENT;
        return -1;
    }
    note_change(true, "", text, -1);
    return 0;
}

static int mem_mkdir(const char *path, mode_t mode) {
    (void)mode;
    CHECK(strcmp(path, MEMFS_PATH) == 0);
    if (take_turn("mkdir", false) == TURN_FAIL) {
        return -1;
    }
    if (memfs_exists) {
        errno = EEXIST;
        return -1;
    }
    memfs_exists = true;
    return 0;
}

static int mem_lock(int fd) {
    if (take_turn("lock", false) == TURN_FAIL) {
        return -1;
    }
    struct node *node = node_of(fd);
    if (node->locked) {
        errno = EWOULDBLOCK;
        return -1;
    }
    node->locked = true;
    return 0;
}

static int mem_size(int fd, uint64_t *bytes) {
    if (take_turn("fstat", false) == TURN_FAIL) {
        return -1;
    }
    *bytes = node_of(fd)->cache.size;
    return 0;
}

/* Clean pages are read from the disk again; dirty ones stay. */
static int mem_forget(int fd) {
    struct node *node = node_of(fd);
    for (size_t i = 0; i < sectors(node->cache.size); i++) {
        bool dirty = i < node->written.size && node->written.bytes[i] != 0;
        size_t begin = i * SECTOR;
        size_t both = node->cache.size < node->disk.size ? node->cache.size : node->disk.size;
        if (!dirty && begin < both) {
            size_t bytes = both - begin < SECTOR ? both - begin : SECTOR;
            memcpy(node->cache.bytes + begin, node->disk.bytes + begin, bytes);
        } else if (!dirty) {
            size_t rest = node->cache.size - begin;
            memset(node->cache.bytes + begin, 0, rest < SECTOR ? rest : SECTOR);
        }
    }
    return 0;
}

static int mem_list(int directory, struct buffer *names) {
    (void)directory;
    if (take_turn("list", false) == TURN_FAIL) {
        return -1;
    }
    buffer_append(names, ".", 2);
    buffer_append(names, "..", 3);
    for (int i = 0; i < NAMES_MAX; i++) {
        if (memfs_cached[i].text[0] != 0) {
            buffer_append(names, memfs_cached[i].text, strlen(memfs_cached[i].text) + 1);
        }
    }
    return 0;
}

const struct file_calls MEMFS_CALLS = {
    .open = mem_open,
    .close = mem_close,
    .pread = mem_pread,
    .pwrite = mem_pwrite,
    .ftruncate = mem_ftruncate,
    .fsync = mem_fsync,
    .fdatasync = mem_fdatasync,
    .rename = mem_rename,
    .unlink = mem_unlink,
    .mkdir = mem_mkdir,
    .lock = mem_lock,
    .size = mem_size,
    .forget = mem_forget,
    .list = mem_list,
};

/* --- crashes -------------------------------------------------------------------------- */

static bool toss(struct random *random) {
    return random_between(random, 0, 1) == 1;
}

/* Some of the dirty sectors reached the disk, and perhaps the new size. */
static void survive_some(struct node *node, struct random *random) {
    if (node->cache.size != node->disk.size && toss(random)) {
        resize(&node->disk, node->cache.size);
    }
    unsigned kind = (unsigned)random_between(random, 0, 3); /* most, few, or half of them */
    for (size_t i = 0; i < node->written.size; i++) {
        bool survives = kind == 0   ? random_between(random, 0, 7) > 0
                        : kind == 1 ? random_between(random, 0, 7) == 0
                                    : toss(random);
        if (node->written.bytes[i] != 0 && survives) {
            store_sector(node, i);
        }
    }
}

static void lose_power(enum memfs_crash crash, struct random *random) {
    bool some = crash == MEMFS_POWER_SOME;
    for (int i = 0; i < node_count; i++) {
        if (some) {
            survive_some(&memfs_nodes[i], random);
        }
        copy(&memfs_nodes[i].cache, &memfs_nodes[i].disk);
        buffer_clear(&memfs_nodes[i].written);
    }
    unsigned order = (unsigned)random_between(random, 0, 2); /* a beginning, or any of them */
    for (int i = 0; i < change_count && some; i++) {
        if (toss(random)) {
            apply(memfs_stored, &changes[i]);
        } else if (order == 0) {
            break;
        }
    }
    if (some && toss(random)) {
        memfs_exists_stored = memfs_exists;
    }
    if (!memfs_exists_stored) {
        memset(memfs_stored, 0, sizeof(memfs_stored));
    }
    memcpy(memfs_cached, memfs_stored, sizeof(memfs_cached));
    memfs_exists = memfs_exists_stored;
    change_count = 0;
}

void memfs_crash(enum memfs_crash crash, uint64_t seed) {
    struct random random;
    random_seed(&random, seed);
    if (crash != MEMFS_KILL) {
        lose_power(crash, &random);
    }
    for (int i = 0; i < FDS_MAX; i++) {
        fds[i].open = false;
    }
    for (int i = 0; i < node_count; i++) {
        memfs_nodes[i].locked = false;
    }
    memfs_fail_at(0, MEMFS_EIO, false);
}

void memfs_reset(void) {
    for (int i = 0; i < node_count; i++) {
        buffer_free(&memfs_nodes[i].cache);
        buffer_free(&memfs_nodes[i].disk);
        buffer_free(&memfs_nodes[i].written);
    }
    node_count = 0;
    memset(memfs_cached, 0, sizeof(memfs_cached));
    memset(memfs_stored, 0, sizeof(memfs_stored));
    memset(fds, 0, sizeof(fds));
    change_count = 0;
    memfs_exists = false;
    memfs_exists_stored = false;
    memfs_fail_at(0, MEMFS_EIO, false);
}

void memfs_free(void) {
    memfs_reset();
}
