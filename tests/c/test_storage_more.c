/* Snapshots of a store, own and received; a full disk; and the real file system. */
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "memfs.h"
#include "storetest.h"

/* --- snapshots ------------------------------------------------------------------------ */

static void check_snapshot_bytes(uint64_t index, const struct logmaker *log) {
    struct buffer expected = {0};
    struct buffer read = {0};
    logmaker_snapshot(&expected, log, index, 5);
    uint64_t total = 0;
    do {
        CHECK(store_snapshot_read(rig.store, index, buffer_count(&read), 100, &read, &total,
                                  &rig.error) == STATUS_OK);
        CHECK(total == buffer_count(&expected));
    } while (buffer_count(&read) < total);
    CHECK(span_equal(buffer_span(&expected), buffer_span(&read)));
    CHECK(store_snapshot_read(rig.store, index + 1, 0, 10, &read, &total, &rig.error) ==
          STATUS_NOT_FOUND);
    buffer_free(&expected);
    buffer_free(&read);
}

static void test_own_snapshot(void) {
    storetest_begin_with(1000, 40, 1);
    int segments = storetest_count_files("log-");
    CHECK(storerig_snapshot(&rig, STORE_SLOT_OWN, &log_a, 30, false, 12) == STATUS_OK);
    CHECK(storetest_count_files("log-") < segments && storetest_count_files("snapshot-") == 1);
    check_snapshot_bytes(30, &log_a);
    struct buffer lines = {0};
    uint64_t last;
    CHECK(store_read(rig.store, 19, 40, 1u << 20, &lines, &last, &rig.error) == STATUS_OK);
    CHECK(last == 40);
    buffer_clear(&lines);
    CHECK(store_read(rig.store, 1, 40, 100, &lines, &last, &rig.error) == STATUS_NOT_FOUND);
    buffer_free(&lines);
    storetest_append(&log_a, 5, 1, 60);
    storetest_reopen();
    CHECK(rig.recovery.snapshot_index == 30 && rig.recovery.snapshot_term == 1);
    CHECK(rig.recovery.snapshot_crc == logmaker_crc(&log_a, 30));
    storerig_check_log(&rig, &log_a, 31, 45);
    check_snapshot_bytes(30, &log_a);
    CHECK(storerig_snapshot(&rig, STORE_SLOT_OWN, &log_a, 45, false, 0) == STATUS_OK);
    CHECK(storetest_count_files("snapshot-") == 1);
    storetest_append(&log_a, 1, 1, 60);
    storetest_reopen();
    storerig_check_log(&rig, &log_a, 46, 46);
    check_snapshot_bytes(45, &log_a);
    storetest_end();
}

static void test_snapshot_refused(void) {
    storetest_begin_with(0, 20, 1);
    for (int i = 0; i < 20; i++) {
        logmaker_add(&log_b, 1, 33);
    }
    /* Of another history; of the future; whole but of another entry than was said. */
    CHECK(storerig_snapshot(&rig, STORE_SLOT_OWN, &log_b, 10, false, 0) == STATUS_INVALID);
    logmaker_add(&log_a, 1, 10);
    CHECK(storerig_snapshot(&rig, STORE_SLOT_OWN, &log_a, 21, false, 0) == STATUS_INVALID);
    struct buffer file = {0};
    logmaker_snapshot(&file, &log_a, 10, 3);
    CHECK(store_snapshot_begin(rig.store, STORE_SLOT_RECEIVED, &rig.error) == STATUS_OK);
    CHECK(store_snapshot_write(rig.store, STORE_SLOT_RECEIVED, buffer_span(&file),
                               &rig.error) == STATUS_OK);
    CHECK(store_snapshot_commit(rig.store, STORE_SLOT_RECEIVED, 11, 1, logmaker_crc(&log_a, 11),
                                false, 0, &rig.error) == STATUS_CORRUPT);
    /* Cut short. */
    CHECK(store_snapshot_begin(rig.store, STORE_SLOT_RECEIVED, &rig.error) == STATUS_OK);
    CHECK(store_snapshot_write(rig.store, STORE_SLOT_RECEIVED,
                               (struct span){file.bytes, file.size - 10},
                               &rig.error) == STATUS_OK);
    CHECK(store_snapshot_commit(rig.store, STORE_SLOT_RECEIVED, 10, 1, logmaker_crc(&log_a, 10),
                                false, 0, &rig.error) == STATUS_CORRUPT);
    /* Changed on the way. */
    file.bytes[file.size / 2] ^= 1;
    CHECK(store_snapshot_begin(rig.store, STORE_SLOT_RECEIVED, &rig.error) == STATUS_OK);
    CHECK(store_snapshot_write(rig.store, STORE_SLOT_RECEIVED, buffer_span(&file),
                               &rig.error) == STATUS_CORRUPT);
    store_snapshot_abort(rig.store, STORE_SLOT_RECEIVED);
    buffer_free(&file);
    CHECK(storetest_count_files("snapshot-") == 0);
    logmaker_cut(&log_a, 21);
    storetest_append(&log_a, 1, 1, 10);
    storetest_reopen();
    CHECK(rig.recovery.snapshot_index == 0);
    storerig_check_log(&rig, &log_a, 1, 21);
    storetest_end();
}

static void test_received_snapshot(void) {
    /* The log ends before it, conflicts with it, or holds it. */
    for (int way = 0; way < 3; way++) {
        storetest_begin_with(1000, way == 0 ? 20 : 60, 1);
        struct logmaker *leader = way == 2 ? &log_a : &log_b;
        if (way != 2) {
            for (int i = 0; i < 50; i++) {
                logmaker_add(leader, 2, 20);
            }
        }
        CHECK(storerig_save_term(&rig, 2, 0) == STATUS_OK);
        CHECK(storerig_snapshot(&rig, STORE_SLOT_RECEIVED, leader, 40, way != 2, 0) ==
              STATUS_OK);
        check_snapshot_bytes(40, leader);
        if (way != 2) {
            CHECK(storetest_count_files("log-") == 0);
            CHECK(logmaker_append(leader, rig.store, 41, 50, &rig.error) == STATUS_OK);
        }
        storetest_reopen();
        CHECK(rig.recovery.snapshot_index == 40 && !rig.recovery.quarantined);
        CHECK(rig.recovery.note[0] == 0);
        storerig_check_log(&rig, leader, 41, way == 2 ? 60 : 50);
        storetest_end();
    }
}

/* S3: the snapshot has its name, the old log is still there, in whole or in part. */
static void test_crash_between_snapshot_and_log(void) {
    for (int way = 0; way < 4; way++) {
        static const uint64_t lengths[] = {20, 60, 40, 39};
        storetest_begin_with(1000, lengths[way], 1);
        struct memfs_image *old_log = memfs_save();
        for (int i = 0; i < 50; i++) {
            logmaker_add(&log_b, 2, 20);
        }
        CHECK(storerig_save_term(&rig, 2, 0) == STATUS_OK);
        struct buffer meta = {0};
        storetest_copy_file("meta.jsonl", &meta);
        CHECK(storerig_snapshot(&rig, STORE_SLOT_RECEIVED, &log_b, 40, true, 0) == STATUS_OK);
        struct buffer snapshot = {0};
        storetest_copy_file("snapshot-00000000000000000040.jsonl", &snapshot);
        storerig_close(&rig);
        memfs_load(old_log);
        memfs_put("meta.jsonl", buffer_span(&meta));
        memfs_put("snapshot-00000000000000000040.jsonl", buffer_span(&snapshot));
        CHECK(storerig_open(&rig) == STATUS_OK);
        CHECK(!rig.recovery.quarantined && rig.recovery.note[0] == 0);
        storerig_check_log(&rig, &log_b, 41, 40);
        CHECK(storetest_count_files("log-") == 0);
        CHECK(logmaker_append(&log_b, rig.store, 41, 50, &rig.error) == STATUS_OK);
        storetest_reopen();
        storerig_check_log(&rig, &log_b, 41, 50);
        buffer_free(&meta);
        buffer_free(&snapshot);
        memfs_image_free(old_log);
        storetest_end();
    }
}

static void test_damaged_snapshot(void) {
    storetest_begin_with(1000, 40, 1);
    CHECK(storerig_snapshot(&rig, STORE_SLOT_OWN, &log_a, 20, false, 0) == STATUS_OK);
    struct buffer older = {0};
    storetest_copy_file("snapshot-00000000000000000020.jsonl", &older);
    storerig_close(&rig);
    struct memfs_image *image = memfs_save();
    storetest_spoil("snapshot-00000000000000000020.jsonl", "key-3");
    CHECK(storerig_open(&rig) == STATUS_CORRUPT);
    CHECK(strstr(rig.error.text, "snapshot-00000000000000000020.jsonl: damaged at line 7") !=
          NULL);
    /* With an older one at hand that one is used, and the log still connects. */
    memfs_load(image);
    CHECK(storerig_open(&rig) == STATUS_OK);
    CHECK(storerig_snapshot(&rig, STORE_SLOT_OWN, &log_a, 30, false, 100) == STATUS_OK);
    storerig_close(&rig);
    memfs_put("snapshot-00000000000000000020.jsonl", buffer_span(&older));
    storetest_spoil("snapshot-00000000000000000030.jsonl", "key-3");
    CHECK(storerig_open(&rig) == STATUS_OK);
    CHECK(rig.recovery.quarantined && rig.recovery.snapshot_index == 20);
    storerig_check_log(&rig, &log_a, 21, 40);
    buffer_free(&older);
    memfs_image_free(image);
    storetest_end();
}

/* A file that begins with an entry that the one before it holds is none of ours, whatever is in
 * it: what is written next must not go there. */
static void test_overlapping_segment(void) {
    static const char *const CONTENTS[] = {"", "\n\n\n", "{\"index\":6,\"term\":1,\"ti", "x\n"};
    storetest_begin_with(0, 5, 1);
    storerig_close(&rig);
    struct memfs_image *image = memfs_save();
    for (size_t i = 0; i < sizeof(CONTENTS) / sizeof(CONTENTS[0]); i++) {
        memfs_load(image);
        memfs_put("log-00000000000000000003.jsonl",
                  (struct span){CONTENTS[i], strlen(CONTENTS[i])});
        CHECK(storerig_open(&rig) == STATUS_OK && rig.recovery.quarantined);
        CHECK(storetest_count_files("log-00000000000000000003.jsonl.damaged-1") == 1);
        storerig_check_log(&rig, &log_a, 1, 5);
        storetest_reopen();
        CHECK(rig.recovery.quarantined);
        storerig_check_log(&rig, &log_a, 1, 5);
        storerig_close(&rig);
    }
    memfs_image_free(image);
    storetest_end();
}

/* The log's files after a segment of entries that end before the snapshot's, 20, comes one that
 * says it begins behind it, and holds `text`. */
static void open_with_next_segment(struct span log, struct span text) {
    const char *middle = memmem(log.data, log.size, "{\"index\":11,", 12);
    CHECK(middle != NULL);
    memfs_put("log-00000000000000000001.jsonl",
              (struct span){log.data, (size_t)(middle - log.data)});
    memfs_put("log-00000000000000000021.jsonl", text);
    CHECK(storerig_open(&rig) == STATUS_OK);
    CHECK(rig.recovery.last_index == 20);
}

/* Whatever such a segment holds, entries from before the snapshot too: what is found at the
 * first opening is found at the next, and the log goes on in a segment of its own. */
static void test_segment_behind_a_gap(void) {
    for (int way = 0; way < 8; way++) {
        static const char *const CONTENTS[] = {"xyz\nabc\n", "", "\n\n\n"};
        storetest_begin_with(0, 20, 1);
        CHECK(storerig_snapshot(&rig, STORE_SLOT_OWN, &log_a, 20, false, 0) == STATUS_OK);
        storerig_close(&rig);
        struct buffer log = {0};
        storetest_copy_file("log-00000000000000000001.jsonl", &log);
        struct span text = buffer_span(&log);
        const char *middle = memmem(text.data, text.size, "{\"index\":11,", 12);
        CHECK(middle != NULL);
        struct span older = {middle, text.size - (size_t)(middle - text.data)};
        const char *content = way / 2 < 3 ? CONTENTS[way / 2] : NULL;
        open_with_next_segment(text, content == NULL ? older
                                                     : (struct span){content, strlen(content)});
        bool damaged = content == NULL || content[0] == 'x';
        CHECK(rig.recovery.quarantined == damaged);
        CHECK(storetest_count_files("log-00000000000000000021.jsonl.damaged-1") == damaged);
        CHECK(storetest_count_files("log-00000000000000000001") == 0);
        if (way % 2 == 1) {
            storetest_append(&log_a, 10, 1, 30);
        }
        for (int again = 0; again < 2; again++) {
            storetest_reopen();
            CHECK(rig.recovery.quarantined == damaged);
            CHECK(storetest_count_files("log-00000000000000000021.jsonl.damaged-") == damaged);
            storerig_check_log(&rig, &log_a, 21, way % 2 == 1 ? 30 : 20);
        }
        buffer_free(&log);
        storetest_end();
    }
}

/* --- a full disk ---------------------------------------------------------------------- */

/* A log that is no longer what was written is the disk's fault, not the snapshot's: whoever goes
 * on would acknowledge entries to such a disk. */
static void test_damaged_log_under_a_snapshot(void) {
    storetest_begin_with(1000, 40, 1);
    storetest_spoil("log-00000000000000000001.jsonl", "key-4-1");
    CHECK(storerig_snapshot(&rig, STORE_SLOT_OWN, &log_a, 5, false, 0) == STATUS_IO);
    CHECK(strstr(rig.error.text, "cannot be trusted") != NULL);
    CHECK(storetest_count_files("snapshot-") == 0);
    CHECK(store_sync(rig.store, &rig.error) == STATUS_IO);
    CHECK(storerig_save_term(&rig, 9, 0) == STATUS_IO);
    storetest_end();
}

/* Every call of an append finds the disk full: refused, unchanged, and it goes on when there is
 * room. */
static void test_full_disk(void) {
    for (unsigned long n = 1; n < 60; n++) {
        storetest_begin_with(1000, 7, 1);
        memfs_fail_at(n, MEMFS_ENOSPC, false);
        for (int i = 0; i < 12; i++) {
            logmaker_add(&log_a, 1, 200);
        }
        enum status status = logmaker_append(&log_a, rig.store, 8, 19, &rig.error);
        bool sync_failed = strstr(memfs_hit_call(), "sync") != NULL;
        if (!memfs_hit()) {
            CHECK(status == STATUS_OK && n > 10);
            storetest_end();
            return;
        }
        memfs_fail_at(0, MEMFS_EIO, false);
        if (sync_failed) {
            CHECK(status == STATUS_IO);
            CHECK(store_sync(rig.store, &rig.error) == STATUS_IO);
            CHECK(logmaker_append(&log_a, rig.store, 8, 19, &rig.error) == STATUS_IO);
        } else if (status != STATUS_OK) {
            CHECK(status == STATUS_NO_SPACE);
            CHECK(logmaker_append(&log_a, rig.store, 8, 19, &rig.error) == STATUS_OK);
            CHECK(store_sync(rig.store, &rig.error) == STATUS_OK);
            storetest_reopen();
            CHECK(!rig.recovery.tail_cut && !rig.recovery.quarantined);
            storerig_check_log(&rig, &log_a, 1, 19);
        }
        storetest_end();
    }
    fprintf(stderr, "an append makes more calls than that\n");
    exit(1);
}

/* The same for a snapshot: whoever hears of a full disk finds the older one in its place. */
static void test_full_disk_under_a_snapshot(void) {
    for (unsigned long n = 1; n < 60; n++) {
        storetest_begin_with(1000, 40, 1);
        CHECK(storerig_snapshot(&rig, STORE_SLOT_OWN, &log_a, 20, false, 0) == STATUS_OK);
        memfs_fail_at(n, MEMFS_ENOSPC, false);
        enum status status = storerig_snapshot(&rig, STORE_SLOT_OWN, &log_a, 30, false, 0);
        bool hit = memfs_hit();
        memfs_fail_at(0, MEMFS_EIO, false);
        if (status == STATUS_NO_SPACE) {
            check_snapshot_bytes(20, &log_a);
        } else if (status == STATUS_OK) {
            check_snapshot_bytes(30, &log_a);
        } else {
            CHECK(status == STATUS_IO);
        }
        storetest_end();
        if (!hit) {
            CHECK(status == STATUS_OK && n > 10);
            return;
        }
    }
    fprintf(stderr, "a snapshot makes more calls than that\n");
    exit(1);
}

/* --- the real file system ------------------------------------------------------------- */

static char real_path[128];

static void begin_real(uint64_t segment_bytes) {
    storetest_begin(segment_bytes);
    file_use_calls(NULL);
    rig.options.path = real_path;
    CHECK(snprintf(real_path, sizeof(real_path), P_tmpdir "/raftpico-store-XXXXXX") > 0);
    CHECK(mkdtemp(real_path) != NULL);
    size_t size = strlen(real_path);
    CHECK(snprintf(real_path + size, sizeof(real_path) - size, "/data") == 5);
}

static void end_real(void) {
    storerig_close(&rig);
    char command[200];
    real_path[strlen(real_path) - strlen("/data")] = 0;
    CHECK(snprintf(command, sizeof(command), "rm -rf %s", real_path) > 0);
    CHECK(system(command) == 0);
    storetest_end();
}

static void test_real_files(void) {
    begin_real(20000);
    CHECK(storerig_open(&rig) == STATUS_OK && rig.recovery.fresh);
    struct stat stat_of;
    CHECK(stat(real_path, &stat_of) == 0 && (stat_of.st_mode & 0777) == 0700);
    CHECK(storerig_save_term(&rig, 1, 1) == STATUS_OK);
    for (int i = 0; i < 20; i++) {
        storetest_append(&log_a, 10, 1, 100);
    }
    CHECK(storerig_snapshot(&rig, STORE_SLOT_OWN, &log_a, 100, false, 10) == STATUS_OK);
    CHECK(store_truncate(rig.store, 180, &rig.error) == STATUS_OK);
    logmaker_cut(&log_a, 180);
    storetest_append(&log_a, 10, 1, 500);
    storetest_reopen();
    storerig_check_log(&rig, &log_a, 101, 189);
    check_snapshot_bytes(100, &log_a);
    end_real();
}

static void test_lock(void) {
    begin_real(0);
    CHECK(storerig_open(&rig) == STATUS_OK);
    struct store *held = rig.store;
    rig.store = NULL;
    CHECK(storerig_open(&rig) == STATUS_LOCKED);
    char pid[32];
    CHECK(snprintf(pid, sizeof(pid), "process %ld", (long)getpid()) > 0);
    CHECK(strstr(rig.error.text, pid) != NULL);
    pid_t child = fork();
    if (child == 0) {
        _exit(storerig_open(&rig) == STATUS_LOCKED ? 0 : 1);
    }
    int result;
    CHECK(waitpid(child, &result, 0) == child && result == 0);
    store_close(held);
    CHECK(storerig_open(&rig) == STATUS_OK);
    end_real();
}

int main(void) {
    test_own_snapshot();
    test_snapshot_refused();
    test_received_snapshot();
    test_crash_between_snapshot_and_log();
    test_damaged_snapshot();
    test_overlapping_segment();
    test_segment_behind_a_gap();
    test_damaged_log_under_a_snapshot();
    test_full_disk();
    test_full_disk_under_a_snapshot();
    test_real_files();
    test_lock();
    puts("storage, more: ok");
    return 0;
}
