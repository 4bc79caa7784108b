/* The log and term and vote of a store as its host sees them: what was written is there again,
 * what was torn is cut, what is damaged is kept apart, what cannot be decided is refused.
 * Snapshots, a full disk and real files are in test_storage_more.c, faults of the system in
 * test_storage_faults.c, random damage in test_storage_damage.c. */
#include <unistd.h>

#include "check.h"
#include "memfs.h"
#include "storage/layout.h"
#include "storetest.h"

/* --- the log -------------------------------------------------------------------------- */

static void test_round_trip(void) {
    storetest_begin(0);
    CHECK(storerig_open(&rig) == STATUS_OK);
    CHECK(rig.recovery.fresh && rig.recovery.meta.incarnation == 1);
    CHECK(strcmp(rig.recovery.meta.address, "127.0.0.1:4000") == 0);
    CHECK(rig.recovery.last_index == 0 && rig.recovery.first_index == 1);
    CHECK(storerig_save_term(&rig, 3, 2) == STATUS_OK);
    storetest_append(&log_a, 200, 3, 100);
    storetest_append(&log_a, 1, 3, 300000);
    storetest_append(&log_a, 30, 3, 9000);
    storetest_reopen();
    CHECK(!rig.recovery.fresh && rig.recovery.meta.incarnation == 2);
    CHECK(rig.recovery.meta.term == 3 && rig.recovery.meta.voted_for == 2);
    CHECK(!rig.recovery.tail_cut && !rig.recovery.quarantined && rig.recovery.note[0] == 0);
    storerig_check_log(&rig, &log_a, 1, 231);
    storetest_append(&log_a, 1, 3, 10);
    storetest_reopen();
    storerig_check_log(&rig, &log_a, 1, 232);
    struct buffer lines = {0}; /* stays empty */
    uint64_t read_last;
    CHECK(store_read(rig.store, 233, 240, 100, &lines, &read_last, &rig.error) ==
          STATUS_NOT_FOUND);
    storetest_end();
}

static void test_roll_over(void) {
    storetest_begin_with(1000, 60, 1);
    CHECK(storetest_count_files("log-") > 6);
    storetest_reopen();
    storerig_check_log(&rig, &log_a, 1, 60);
    /* A closed segment holds lines only, and ends with the line that filled it. */
    const struct buffer *first = memfs_peek("log-00000000000000000001.jsonl");
    CHECK(buffer_count(first) >= 1000 && buffer_count(first) < 1300);
    CHECK(memmem(buffer_peek(first), buffer_count(first), "\n\n", 2) == NULL);
    /* The same entries roll over at the same places, however they are batched. */
    struct memfs_image *whole = memfs_save();
    storerig_close(&rig);
    storetest_begin(1000);
    CHECK(storerig_open(&rig) == STATUS_OK);
    CHECK(storerig_save_term(&rig, 1, 1) == STATUS_OK);
    for (int i = 0; i < 60; i++) {
        storetest_append(&log_a, 1, 1, 60);
    }
    storerig_close(&rig);
    struct buffer one_by_one = {0};
    storetest_copy_file("log-00000000000000000001.jsonl", &one_by_one);
    int segments = storetest_count_files("log-");
    memfs_load(whole);
    CHECK(storetest_count_files("log-") == segments);
    CHECK(span_equal(buffer_span(&one_by_one),
                     buffer_span(memfs_peek("log-00000000000000000001.jsonl"))));
    buffer_free(&one_by_one);
    memfs_image_free(whole);
    storetest_end();
}

static void test_truncate_everywhere(void) {
    for (uint64_t cut = 1; cut <= 41; cut++) {
        storetest_begin_with(1000, 40, 1);
        if (cut % 2 == 0) {
            storetest_reopen();
        }
        CHECK(store_truncate(rig.store, cut, &rig.error) == STATUS_OK);
        if (cut <= 40) {
            logmaker_cut(&log_a, cut);
        }
        if (cut % 3 == 0) {
            storetest_reopen();
            storerig_check_log(&rig, &log_a, 1, cut - 1);
        }
        CHECK(storerig_save_term(&rig, 2, 0) == STATUS_OK);
        storetest_append(&log_a, 25, 2, 30);
        storetest_reopen();
        storerig_check_log(&rig, &log_a, 1, cut - 1 + 25);
        storetest_end();
    }
}

/* A torn write at every byte of the last batch: half of it, in a file that is filled ahead and
 * in one that is not; and NULs where it should be. */
static void test_torn_at_every_byte(void) {
    storetest_begin_with(0, 5, 1);
    storerig_close(&rig);
    struct buffer before = {0};
    storetest_copy_file(storetest_last_segment(), &before);
    CHECK(storerig_open(&rig) == STATUS_OK);
    storetest_append(&log_a, 3, 1, 40);
    storerig_close(&rig);
    struct buffer after = {0};
    storetest_copy_file(storetest_last_segment(), &after);
    struct memfs_image *image = memfs_save();
    struct buffer torn = {0};
    size_t whole[4] = {buffer_count(&before)};
    for (int i = 1; i < 4; i++) {
        whole[i] = whole[i - 1] + logmaker_line(&log_a, 5 + (uint64_t)i).size;
    }
    CHECK(whole[3] == buffer_count(&after));
    for (size_t size = whole[0]; size <= whole[3]; size++) {
        for (int way = 0; way < 3; way++) {
            memfs_load(image);
            buffer_clear(&torn);
            buffer_append(&torn, buffer_peek(&after), size);
            size_t filling = way == 0 ? 0 : 8192 - size;
            memset(buffer_reserve(&torn, filling), way == 1 ? '\n' : 0, filling);
            buffer_extend(&torn, filling);
            memfs_put(storetest_last_segment(), buffer_span(&torn));
            CHECK(storerig_open(&rig) == STATUS_OK);
            /* A line of which only the LF is missing is whole where the filling begins with
             * one. */
            size_t reached = way == 1 ? size + 1 : size;
            uint64_t last =
                5u + (reached >= whole[1]) + (reached >= whole[2]) + (reached >= whole[3]);
            storerig_check_log(&rig, &log_a, 1, last);
            CHECK(!rig.recovery.quarantined);
            bool clean = size == whole[last - 5] || (way == 1 && reached == whole[last - 5]);
            CHECK(rig.recovery.tail_cut == !clean);
            CHECK((rig.recovery.note[0] != 0) == !clean);
            storerig_close(&rig);
            CHECK(storerig_open(&rig) == STATUS_OK && !rig.recovery.tail_cut);
            storerig_check_log(&rig, &log_a, 1, last);
            storerig_close(&rig);
        }
    }
    memfs_image_free(image);
    buffer_free(&before);
    buffer_free(&after);
    buffer_free(&torn);
    storetest_end();
}

/* A sector of the last batch that never reached the disk, with what follows it there. */
static void test_torn_sectors(void) {
    storetest_begin_with(0, 3, 1);
    storetest_append(&log_a, 30, 1, 100);
    struct buffer whole = {0};
    storetest_copy_file(storetest_last_segment(), &whole);
    storerig_close(&rig);
    struct memfs_image *image = memfs_save();
    size_t begins = 0;
    for (uint64_t i = 1; i <= 3; i++) {
        begins += logmaker_line(&log_a, i).size;
    }
    size_t ends = 0;
    for (uint64_t i = 1; i <= 33; i++) {
        ends += logmaker_line(&log_a, i).size;
    }
    for (size_t sector = begins / 512; sector <= ends / 512; sector++) {
        memfs_load(image);
        struct buffer torn = {0};
        buffer_append_span(&torn, buffer_span(&whole));
        size_t from = sector * 512 < begins ? begins : sector * 512;
        memset(torn.bytes + from, '\n', (sector + 1) * 512 - from);
        memfs_put(storetest_last_segment(), buffer_span(&torn));
        buffer_free(&torn);
        CHECK(storerig_open(&rig) == STATUS_OK);
        CHECK(!rig.recovery.quarantined && rig.recovery.tail_cut);
        CHECK(rig.recovery.last_index >= 3 && rig.recovery.last_index < 33);
        storerig_check_log(&rig, &log_a, 1, rig.recovery.last_index);
        storerig_close(&rig);
    }
    buffer_free(&whole);
    memfs_image_free(image);
    storetest_end();
}

/* A process that is killed while it fills ahead leaves a file that ends anywhere. What is torn
 * in there later is torn all the same. */
static void test_torn_in_a_broken_filling(void) {
    storetest_begin_with(0, 5, 1);
    storerig_close(&rig);
    struct buffer file = {0};
    storetest_copy_file(storetest_last_segment(), &file);
    memset(buffer_reserve(&file, 1000), '\n', 1000);
    buffer_extend(&file, 1000);
    memfs_put(storetest_last_segment(), buffer_span(&file));
    CHECK(storerig_open(&rig) == STATUS_OK);
    CHECK(!rig.recovery.tail_cut && !rig.recovery.quarantined);
    storetest_append(&log_a, 1, 1, 200);
    storetest_copy_file(storetest_last_segment(), &file);
    storerig_close(&rig);
    char *half = memmem(file.bytes, file.size, "key-6-1", strlen("key-6-1"));
    CHECK(half != NULL);
    memset(half, '\n', (size_t)(file.bytes + file.size - half));
    memfs_put(storetest_last_segment(), buffer_span(&file));
    CHECK(storerig_open(&rig) == STATUS_OK);
    CHECK(rig.recovery.tail_cut && !rig.recovery.quarantined);
    storerig_check_log(&rig, &log_a, 1, 5);
    buffer_free(&file);
    storetest_end();
}

/* --- damage --------------------------------------------------------------------------- */

static void test_quarantine(void) {
    storetest_begin_with(1000, 40, 1);
    storerig_close(&rig);
    storetest_spoil("log-00000000000000000001.jsonl", "key-4-1");
    CHECK(storerig_open(&rig) == STATUS_OK);
    CHECK(rig.recovery.quarantined && !rig.recovery.tail_cut);
    storerig_check_log(&rig, &log_a, 1, 3);
    CHECK(strstr(rig.recovery.note, "log-00000000000000000001.jsonl") != NULL);
    CHECK(strstr(rig.recovery.note, "line 4") != NULL);
    CHECK(strstr(rig.recovery.note, "offset") != NULL);
    CHECK(memfs_peek("quarantine.jsonl") != NULL);
    /* Nothing is thrown away: all other lines are in side files. */
    CHECK(storetest_count_files("log-") > 6);
    const struct buffer *side = memfs_peek("log-00000000000000000001.jsonl.damaged-1");
    CHECK(side != NULL && buffer_count(side) > 500);
    /* It lasts until it is lifted, and the log goes on meanwhile. */
    logmaker_cut(&log_a, 4);
    storetest_append(&log_a, 10, 1, 50);
    storetest_reopen();
    CHECK(rig.recovery.quarantined && rig.recovery.note[0] != 0);
    storerig_check_log(&rig, &log_a, 1, 13);
    CHECK(store_clear_quarantine(rig.store, &rig.error) == STATUS_OK);
    storetest_reopen();
    CHECK(!rig.recovery.quarantined && rig.recovery.note[0] == 0);
    storerig_check_log(&rig, &log_a, 1, 13);
    storetest_end();
}

static void test_damaged_last_line_is_no_torn_one(void) {
    static const char *const places[] = {"{\"index\":5", "\"time\":1732406400005", "key-5-1",
                                         "\"Put\":[\"key-5",
                                         "\"term\":1,\"time\":1732406400005"};
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        for (int trimmed = 0; trimmed < 2; trimmed++) {
            storetest_begin_with(0, 5, 1);
            struct memfs_image *running = memfs_save();
            storerig_close(&rig);
            if (!trimmed) {
                memfs_load(running);
            }
            storetest_spoil(storetest_last_segment(), places[i]);
            CHECK(storerig_open(&rig) == STATUS_OK);
            CHECK(rig.recovery.quarantined && !rig.recovery.tail_cut);
            storerig_check_log(&rig, &log_a, 1, 4);
            memfs_image_free(running);
            storetest_end();
        }
    }
}

/* Lines dropped, doubled and swapped; a segment gone. */
static void test_moved_lines(void) {
    for (int way = 0; way < 3; way++) {
        storetest_begin_with(0, 10, 1);
        storerig_close(&rig);
        struct buffer mixed = {0};
        for (uint64_t i = 1; i <= 10; i++) {
            uint64_t put = way == 2 && (i == 5 || i == 6) ? 11 - i : i;
            if (way != 0 || i != 5) {
                buffer_append_span(&mixed, logmaker_line(&log_a, put));
            }
            if (way == 1 && i == 4) {
                buffer_append_span(&mixed, logmaker_line(&log_a, 4));
            }
        }
        memfs_put(storetest_last_segment(), buffer_span(&mixed));
        buffer_free(&mixed);
        CHECK(storerig_open(&rig) == STATUS_OK);
        CHECK(rig.recovery.quarantined);
        storerig_check_log(&rig, &log_a, 1, 4);
        storetest_end();
    }
    storetest_begin_with(1000, 40, 1);
    storerig_close(&rig);
    memfs_remove("log-00000000000000000001.jsonl");
    CHECK(storerig_open(&rig) == STATUS_OK);
    CHECK(rig.recovery.quarantined && rig.recovery.last_index == 0);
    storetest_append(&log_b, 3, 1, 10);
    storetest_end();
}

/* --- meta
 * -------------------------------------------------------------------------------------------
 */

static void test_meta(void) {
    storetest_begin_with(0, 0, 1);
    for (uint64_t term = 2; term < 60; term++) {
        CHECK(storerig_save_term(&rig, term, term % 3) == STATUS_OK);
        CHECK(buffer_count(memfs_peek("meta.jsonl")) == META_FILE_BYTES);
        if (term % 7 == 0) {
            memfs_die();
            storerig_close(&rig);
            memfs_crash(MEMFS_POWER_NONE, 1);
            CHECK(storerig_open(&rig) == STATUS_OK);
            CHECK(rig.recovery.meta.term == term && rig.recovery.meta.voted_for == term % 3);
        }
    }
    uint64_t incarnation = rig.recovery.meta.incarnation;
    CHECK(storerig_save_term(&rig, 58, 0) == STATUS_INVALID);
    CHECK(storerig_save_term(&rig, 59, 0) == STATUS_INVALID);
    CHECK(storerig_save_term(&rig, 59, 59 % 3) == STATUS_OK);
    struct meta other = rig.recovery.meta;
    other.incarnation = 77;
    other.node_id = 9;
    memset(other.cluster_id, 'a', CLUSTER_ID_BYTES - 1);
    other.term = 1;
    CHECK(store_save_meta(rig.store, &other, &rig.error) == STATUS_OK);
    storetest_reopen();
    CHECK(rig.recovery.meta.incarnation == incarnation + 1);
    CHECK(rig.recovery.meta.node_id == 9 && rig.recovery.meta.term == 1);
    storetest_end();
}

/* Every byte of the last record: a write that stopped there is passed over, a change is
 * refused. */
static void test_meta_torn_or_damaged(void) {
    storetest_begin_with(0, 0, 1);
    size_t first = 0;
    const struct buffer *now = memfs_peek("meta.jsonl");
    while (now->bytes[first] != '\n' || now->bytes[first + 1] != '\n') {
        first++;
    }
    first++;
    CHECK(storerig_save_term(&rig, 2, 1) == STATUS_OK);
    struct buffer whole = {0};
    storetest_copy_file("meta.jsonl", &whole);
    size_t second = first;
    while (whole.bytes[second] != '\n' || whole.bytes[second + 1] != '\n') {
        second++;
    }
    second++;
    storerig_close(&rig);
    struct memfs_image *image = memfs_save();
    for (size_t at = first; at < second; at++) {
        struct buffer changed = {0};
        buffer_append_span(&changed, buffer_span(&whole));
        memset(changed.bytes + at, '\n', second - at);
        memfs_load(image);
        memfs_put("meta.jsonl", buffer_span(&changed));
        CHECK(storerig_open(&rig) == STATUS_OK);
        CHECK(rig.recovery.meta.term == (at >= second - 1 ? 2 : 1));
        storerig_close(&rig);
        for (int bit = 0; bit < 8; bit++) {
            changed.size = 0;
            buffer_append_span(&changed, buffer_span(&whole));
            changed.bytes[at] = (char)(changed.bytes[at] ^ (1 << bit));
            memfs_load(image);
            memfs_put("meta.jsonl", buffer_span(&changed));
            CHECK(storerig_open(&rig) == STATUS_CORRUPT);
            CHECK(strstr(rig.error.text, "meta.jsonl") && strstr(rig.error.text, "offset"));
        }
        memfs_load(image);
        memfs_put("meta.jsonl", (struct span){whole.bytes, at});
        CHECK(storerig_open(&rig) == STATUS_CORRUPT);
        buffer_free(&changed);
    }
    memfs_image_free(image);
    buffer_free(&whole);
    storetest_end();
}

static void test_meta_missing_or_older(void) {
    storetest_begin_with(0, 3, 1);
    struct buffer older = {0};
    storetest_copy_file("meta.jsonl", &older);
    CHECK(storerig_save_term(&rig, 2, 1) == STATUS_OK);
    storetest_append(&log_a, 3, 2, 10);
    storerig_close(&rig);
    struct memfs_image *image = memfs_save();
    memfs_remove("meta.jsonl");
    CHECK(storerig_open(&rig) == STATUS_CORRUPT);
    CHECK(strstr(rig.error.text, "missing") != NULL);
    memfs_load(image);
    memfs_put("meta.jsonl", buffer_span(&older));
    CHECK(storerig_open(&rig) == STATUS_CORRUPT);
    CHECK(strstr(rig.error.text, "older") != NULL);
    memfs_image_free(image);
    buffer_free(&older);
    storetest_end();
}

static void test_mismatch_and_invalid(void) {
    storetest_begin_with(0, 3, 1);
    storerig_close(&rig);
    rig.options.address = "127.0.0.1:4001";
    CHECK(storerig_open(&rig) == STATUS_MISMATCH);
    CHECK(strstr(rig.error.text, "127.0.0.1:4000") != NULL);
    rig.options.address = "a \"bad\" one";
    CHECK(storerig_open(&rig) == STATUS_INVALID);
    rig.options.address = "127.0.0.1:4000";
    CHECK(storerig_open(&rig) == STATUS_OK);
    storerig_check_log(&rig, &log_a, 1, 3);
    storetest_end();
}

/* Leave a directory behind as a process leaves it that is killed: for the looks of it. */
static int make_directory(const char *path) {
    storerig_init(&rig, path, 20000);
    logmaker_init(&log_a, 0, 0, 0);
    CHECK(storerig_open(&rig) == STATUS_OK);
    CHECK(storerig_save_term(&rig, 1, 1) == STATUS_OK);
    for (int i = 0; i < 30; i++) {
        storetest_append(&log_a, 10, 1, 100);
    }
    CHECK(storerig_snapshot(&rig, STORE_SLOT_OWN, &log_a, 200, false, 300) == STATUS_OK);
    _exit(0);
}

int main(int argc, char **argv) {
    if (argc > 1) {
        return make_directory(argv[1]);
    }
    test_round_trip();
    test_roll_over();
    test_truncate_everywhere();
    test_torn_at_every_byte();
    test_torn_sectors();
    test_torn_in_a_broken_filling();
    test_quarantine();
    test_damaged_last_line_is_no_torn_one();
    test_moved_lines();
    test_meta();
    test_meta_torn_or_damaged();
    test_meta_missing_or_older();
    test_mismatch_and_invalid();
    puts("storage: ok");
    return 0;
}
