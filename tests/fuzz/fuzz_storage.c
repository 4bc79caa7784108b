/* Fuzzing what a disk can hold: any bytes as a log, a meta file or a snapshot.
 *
 * The first byte says which file the rest is, and whether each of its lines gets a right seal
 * first, so that more than checksums is tried. What must hold: the store opens or refuses, with
 * a reason; what it shows reads back the same; and a second opening shows the same again. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "memfs.h"
#include "storage/store.h"
#include "wire/line.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(condition)                                                                        \
    do {                                                                                       \
        if (!(condition)) {                                                                    \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                    \
            abort();                                                                           \
        }                                                                                      \
    } while (0)

enum target {
    TARGET_LOG,
    TARGET_META,
    TARGET_SNAPSHOT,
    TARGETS,
};

static enum status take_entry(void *context, uint64_t index, uint64_t term, uint32_t crc,
                              struct span line) {
    (void)index, (void)term, (void)crc;
    buffer_append_span(context, line);
    return STATUS_OK;
}

static const struct store_options options = {
    .path = MEMFS_PATH,
    .address = "127.0.0.1:4000",
    .segment_bytes = 2000,
    .sync = true,
};

static enum status open_store(struct store **store, struct store_recovery *recovery,
                              struct buffer *entries) {
    struct error error = {.status = STATUS_OK};
    buffer_clear(entries);
    struct store_visitor visitor = {.context = entries, .entry = take_entry};
    enum status status = store_open(&options, &visitor, recovery, store, &error);
    MUST(status == STATUS_OK || (error.status == status && error.text[0] != 0));
    return status;
}

/* A directory of a member in the highest term, so that no entry's term is too late. */
static void make_directory(void) {
    struct store *store;
    struct store_recovery recovery;
    struct buffer entries = {0};
    memfs_reset();
    MUST(open_store(&store, &recovery, &entries) == STATUS_OK);
    struct meta meta = recovery.meta;
    meta.term = NUMBER_MAX;
    MUST(store_save_meta(store, &meta, NULL) == STATUS_OK);
    store_close(store);
    buffer_free(&entries);
}

/* Each line becomes the body of a sealed and, but for meta, chained one. */
static void seal_lines(struct span text, bool chained, struct buffer *sealed) {
    uint32_t seed = 0;
    while (text.size > 0) {
        const char *lf = memchr(text.data, '\n', text.size);
        size_t size = lf == NULL ? text.size : (size_t)(lf - text.data);
        if (size > 0) {
            buffer_reserve(sealed, size + LINE_SEAL_BYTES);
            size_t start = sealed->size;
            buffer_append(sealed, text.data, size);
            uint32_t crc = line_seal(sealed, start, seed);
            seed = chained ? crc : 0;
        }
        size += lf == NULL ? 0 : 1;
        text = (struct span){text.data + size, text.size - size};
    }
}

static void put_file(enum target target, struct span text, bool seal) {
    static const char *const names[TARGETS] = {
        "log-00000000000000000001.jsonl",
        "meta.jsonl",
        "snapshot-00000000000000000009.jsonl",
    };
    struct buffer content = {0};
    if (seal) {
        seal_lines(text, target != TARGET_META, &content);
    } else {
        buffer_append_span(&content, text);
    }
    if (target == TARGET_META && buffer_count(&content) < 4096) {
        size_t filling = 4096 - buffer_count(&content);
        memset(buffer_reserve(&content, filling), '\n', filling);
        buffer_extend(&content, filling);
    }
    memfs_put(names[target], buffer_span(&content));
    buffer_free(&content);
}

static void check_reads_back(struct store *store, const struct store_recovery *recovery,
                             const struct buffer *entries) {
    struct buffer lines = {0};
    uint64_t next = recovery->first_index;
    while (next <= recovery->last_index) {
        uint64_t last = 0;
        MUST(store_read(store, next, recovery->last_index, 500, &lines, &last, NULL) ==
             STATUS_OK);
        MUST(last >= next);
        next = last + 1;
    }
    MUST(span_equal(buffer_span(&lines), buffer_span(entries)));
    buffer_free(&lines);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) {
        return 0;
    }
    file_use_calls(&MEMFS_CALLS);
    make_directory();
    put_file((enum target)(data[0] / 2 % TARGETS),
             (struct span){(const char *)data + 1, size - 1}, data[0] % 2 == 1);
    struct store *store;
    struct store_recovery recovery;
    struct buffer entries = {0};
    if (open_store(&store, &recovery, &entries) == STATUS_OK) {
        check_reads_back(store, &recovery, &entries);
        store_close(store);
        uint64_t last = recovery.last_index;
        bool quarantined = recovery.quarantined;
        MUST(open_store(&store, &recovery, &entries) == STATUS_OK);
        MUST(recovery.last_index == last && recovery.quarantined == quarantined);
        MUST(!recovery.tail_cut);
        check_reads_back(store, &recovery, &entries);
        store_close(store);
    }
    buffer_free(&entries);
    memfs_reset();
    return 0;
}
