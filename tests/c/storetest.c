/* What the tests of the store share; see storetest.h. */
#include "storetest.h"

#include "base/memory.h"
#include "check.h"
#include "memfs.h"
#include "storage/layout.h"
#include "storage/segment.h"

struct logmaker log_a;
struct logmaker log_b;
struct storerig rig;

void storetest_begin(uint64_t segment_bytes) {
    storerig_clear(&rig);
    memfs_reset();
    file_use_calls(&MEMFS_CALLS);
    storerig_init(&rig, MEMFS_PATH, segment_bytes);
    logmaker_clear(&log_a);
    logmaker_clear(&log_b);
}

void storetest_end(void) {
    storerig_clear(&rig);
    logmaker_clear(&log_a);
    logmaker_clear(&log_b);
    memfs_reset();
    file_use_calls(NULL);
    CHECK(memory_live_count() == 0);
}

void storetest_append(struct logmaker *log, uint64_t count, uint64_t term, size_t bytes) {
    uint64_t first = log->last + 1;
    for (uint64_t i = 0; i < count; i++) {
        logmaker_add(log, term, bytes);
    }
    CHECK(logmaker_append(log, rig.store, first, log->last, &rig.error) == STATUS_OK);
    CHECK(store_sync(rig.store, &rig.error) == STATUS_OK);
}

/* A fresh store in term `term` with `count` entries of that term. */
void storetest_begin_with(uint64_t segment_bytes, uint64_t count, uint64_t term) {
    storetest_begin(segment_bytes);
    CHECK(storerig_open(&rig) == STATUS_OK && rig.recovery.fresh);
    CHECK(storerig_save_term(&rig, term, 1) == STATUS_OK);
    if (count > 0) {
        storetest_append(&log_a, count, term, 60);
    }
}

void storetest_reopen(void) {
    storerig_close(&rig);
    CHECK(storerig_open(&rig) == STATUS_OK);
}

int storetest_count_files(const char *prefix) {
    int count = 0;
    for (int i = 0; i < memfs_count(); i++) {
        const char *name = memfs_name(i);
        count += name != NULL && strncmp(name, prefix, strlen(prefix)) == 0;
    }
    return count;
}

const char *storetest_last_segment(void) {
    static char newest[NAME_BYTES_MAX];
    newest[0] = 0;
    for (int i = 0; i < memfs_count(); i++) {
        const char *name = memfs_name(i);
        uint64_t index;
        if (name != NULL && segment_parse_name(LOG_PREFIX, name, &index) &&
            strcmp(name, newest) > 0) {
            memcpy(newest, name, strlen(name) + 1);
        }
    }
    CHECK(newest[0] != 0);
    return newest;
}

void storetest_copy_file(const char *name, struct buffer *content) {
    buffer_clear(content);
    CHECK(memfs_peek(name) != NULL);
    buffer_append_span(content, buffer_span(memfs_peek(name)));
}

/* Change one byte of a file at the first place where `text` stands. */
void storetest_spoil(const char *name, const char *text) {
    struct buffer content = {0};
    storetest_copy_file(name, &content);
    char *at = memmem(content.bytes, content.size, text, strlen(text));
    CHECK(at != NULL);
    *at ^= 1;
    memfs_put(name, buffer_span(&content));
    buffer_free(&content);
}
