/* Fuzzing what a disk can hold: any bytes as logs, a meta file and snapshots.
 *
 * The input is a byte that says what happens in between, and some files, each ended by
 * FILE_END: a byte for what it is and whether each of its lines gets a right seal first, so
 * that more than checksums is tried, a byte for its number, its bytes. What must hold: the
 * store opens or refuses, with a reason; what it shows reads back the same; and a second
 * opening shows the same again, or what was added or cut in between. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "memfs.h"
#include "storage/layout.h"
#include "storage/store.h"
#include "wire/entry.h"
#include "wire/line.h"
#include "wire/snapshot.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(condition)                                                                        \
    do {                                                                                       \
        if (!(condition)) {                                                                    \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                    \
            abort();                                                                           \
        }                                                                                      \
    } while (0)

#define FILE_END 0xff /* in no text */
#define FILES_MAX 6   /* with what the store makes, as many as memfs has room for */

enum target {
    TARGET_LOG,
    TARGET_META,
    TARGET_SNAPSHOT,
    TARGETS,
};

/* What happens between the two openings. */
enum change {
    CHANGE_NOTHING,
    CHANGE_APPEND,
    CHANGE_TRUNCATE,
    CHANGES,
};

/* The entries that an opening shows. */
struct seen {
    struct buffer lines;
    size_t last_line; /* where it begins */
    uint32_t crc;     /* of the last one */
};

static enum status take_entry(void *context, uint64_t index, uint64_t term, uint32_t crc,
                              struct span line) {
    struct seen *seen = context;
    (void)index, (void)term;
    seen->crc = crc;
    seen->last_line = buffer_count(&seen->lines);
    buffer_append_span(&seen->lines, line);
    return STATUS_OK;
}

static const struct store_options options = {
    .path = MEMFS_PATH,
    .address = "127.0.0.1:4000",
    .segment_bytes = 500,
    .sync = true,
};

static enum status open_store(struct store **store, struct store_recovery *recovery,
                              struct seen *seen) {
    struct error error = {.status = STATUS_OK};
    buffer_clear(&seen->lines);
    struct store_visitor visitor = {.context = seen, .entry = take_entry};
    enum status status = store_open(&options, &visitor, recovery, store, &error);
    MUST(status == STATUS_OK || (error.status == status && error.text[0] != 0));
    return status;
}

/* A directory of a member in the highest term, so that no entry's term is too late. */
static void make_directory(void) {
    struct store *store;
    struct store_recovery recovery;
    struct seen seen = {0};
    memfs_reset();
    MUST(open_store(&store, &recovery, &seen) == STATUS_OK);
    struct meta meta = recovery.meta;
    meta.term = NUMBER_MAX;
    MUST(store_save_meta(store, &meta, NULL) == STATUS_OK);
    store_close(store);
    buffer_free(&seen.lines);
}

static bool begins(struct span text, struct span with) {
    return text.size >= with.size && memcmp(text.data, with.data, with.size) == 0;
}

/* Eight question marks stand for the checksum of the log's last entry. */
static void append_body(struct buffer *sealed, struct span line, uint32_t log_crc) {
    char *body = buffer_reserve(sealed, line.size + LINE_SEAL_BYTES);
    char digits[9];
    memcpy(body, line.data, line.size);
    buffer_extend(sealed, line.size);
    char *marks = memmem(body, line.size, "????????", 8);
    if (marks != NULL) {
        snprintf(digits, sizeof(digits), "%08x", log_crc);
        memcpy(marks, digits, 8);
    }
}

static void take_chain(struct span snapshot, uint32_t *log_crc) {
    static struct snapshot_header header;
    uint32_t crc;
    const char *lf = snapshot.size == 0 ? NULL : memchr(snapshot.data, '\n', snapshot.size);
    if (lf != NULL) {
        struct span line = {snapshot.data, (size_t)(lf - snapshot.data) + 1};
        if (snapshot_read_header(line, &header, &crc) == STATUS_OK) {
            *log_crc = header.chain_crc;
        }
    }
}

/* Each line becomes the body of a sealed and, but for meta, chained one. A log goes on behind
 * the one before it, or behind the snapshot. */
static void seal_lines(enum target target, struct span text, struct buffer *sealed,
                       uint32_t *log_crc) {
    uint32_t seed = target == TARGET_LOG ? *log_crc : 0;
    uint64_t states = 0;
    while (text.size > 0) {
        const char *lf = memchr(text.data, '\n', text.size);
        size_t size = lf == NULL ? text.size : (size_t)(lf - text.data);
        if (begins(text, SPAN("{\"end\":!"))) { /* with the counts that no chance would find */
            snapshot_write_end(sealed, states, buffer_count(sealed), seed);
        } else if (size > 0) {
            append_body(sealed, (struct span){text.data, size}, *log_crc);
            uint32_t crc = line_seal(sealed, sealed->size - size, seed);
            seed = target == TARGET_META ? 0 : crc;
            states += begins(text, SPAN("{\"state\":")) ? 1 : 0;
        }
        size += lf == NULL ? 0 : 1;
        text = (struct span){text.data + size, text.size - size};
    }
    if (target == TARGET_LOG) {
        *log_crc = seed;
    } else if (target == TARGET_SNAPSHOT) {
        take_chain(buffer_span(sealed), log_crc);
    }
}

static void fill_meta(struct buffer *content) {
    if (buffer_count(content) < META_FILE_BYTES) {
        size_t filling = META_FILE_BYTES - buffer_count(content);
        memset(buffer_reserve(content, filling), '\n', filling);
        buffer_extend(content, filling);
    }
}

/* One file: a byte says which and whether its lines are sealed here, one its number. */
static void put_file(struct span text, uint32_t *log_crc) {
    struct buffer content = {0};
    char name[NAME_BYTES_MAX] = "meta.jsonl";
    if (text.size < 2) {
        return;
    }
    uint8_t kind = (uint8_t)text.data[0];
    enum target target = (enum target)(kind / 2 % TARGETS);
    if (target != TARGET_META) {
        snprintf(name, sizeof(name), "%s-%020u.jsonl",
                 target == TARGET_LOG ? "log" : "snapshot", 1 + (uint8_t)text.data[1] % 16u);
    }
    text = (struct span){text.data + 2, text.size - 2};
    if (kind % 2 == 1) {
        seal_lines(target, text, &content, log_crc);
    } else {
        buffer_append_span(&content, text);
    }
    if (target == TARGET_META) {
        fill_meta(&content);
    }
    memfs_put(name, buffer_span(&content));
    buffer_free(&content);
}

static void put_files(struct span text) {
    uint32_t log_crc = 0;
    for (int i = 0; i < FILES_MAX && text.size > 0; i++) {
        const char *end = memchr(text.data, FILE_END, text.size);
        size_t size = end == NULL ? text.size : (size_t)(end - text.data);
        put_file((struct span){text.data, size}, &log_crc);
        size += end == NULL ? 0 : 1;
        text = (struct span){text.data + size, text.size - size};
    }
}

static void check_reads_back(struct store *store, const struct store_recovery *recovery,
                             const struct seen *seen) {
    struct buffer lines = {0};
    uint64_t next = recovery->first_index;
    while (next <= recovery->last_index) {
        uint64_t last = 0;
        MUST(store_read(store, next, recovery->last_index, 200, &lines, &last, NULL) ==
             STATUS_OK);
        MUST(last >= next);
        next = last + 1;
    }
    MUST(span_equal(buffer_span(&lines), buffer_span(&seen->lines)));
    buffer_free(&lines);
}

/* The log goes on behind what was recovered. */
static void append_one(struct store *store, const struct store_recovery *recovery,
                       struct seen *seen) {
    uint32_t offset = 0;
    struct buffer line = {0};
    bool empty = recovery->last_index == recovery->snapshot_index;
    struct entry entry = {.index = recovery->last_index + 1,
                          .term = recovery->meta.term,
                          .time_ms = NUMBER_MAX,
                          .kind = ENTRY_NOOP};
    entry_write(&line, &entry, empty ? recovery->snapshot_crc : seen->crc);
    MUST(store_append(store, entry.index, entry.index, buffer_span(&line), &offset, NULL) ==
         STATUS_OK);
    MUST(store_sync(store, NULL) == STATUS_OK);
    buffer_append_span(&seen->lines, buffer_span(&line));
    buffer_free(&line);
}

static void truncate_one(struct store *store, const struct store_recovery *recovery,
                         struct seen *seen) {
    MUST(store_truncate(store, recovery->last_index, NULL) == STATUS_OK);
    seen->lines.size = seen->last_line;
}

/* Returns the last index after the change. */
static uint64_t make_change(enum change change, struct store *store,
                            const struct store_recovery *recovery, struct seen *seen) {
    switch (change) {
    case CHANGE_APPEND:
        if (recovery->meta.term > 0) {
            append_one(store, recovery, seen);
            return recovery->last_index + 1;
        }
        break;
    case CHANGE_TRUNCATE:
        if (recovery->last_index >= recovery->first_index) {
            truncate_one(store, recovery, seen);
            return recovery->last_index - 1;
        }
        break;
    case CHANGE_NOTHING:
    case CHANGES:
        break;
    }
    return recovery->last_index;
}

static void check_store(enum change change) {
    struct store *store;
    struct store_recovery recovery;
    struct seen seen = {0};
    struct seen again = {0};
    if (open_store(&store, &recovery, &seen) == STATUS_OK) {
        check_reads_back(store, &recovery, &seen);
        uint64_t last = make_change(change, store, &recovery, &seen);
        bool quarantined = recovery.quarantined;
        store_close(store);
        MUST(open_store(&store, &recovery, &again) == STATUS_OK);
        MUST(recovery.last_index == last && recovery.quarantined == quarantined);
        MUST(!recovery.tail_cut);
        MUST(span_equal(buffer_span(&again.lines), buffer_span(&seen.lines)));
        check_reads_back(store, &recovery, &again);
        store_close(store);
    }
    buffer_free(&seen.lines);
    buffer_free(&again.lines);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct memfs_image *directory;
    if (size == 0) {
        return 0;
    }
    if (directory == NULL) {
        file_use_calls(&MEMFS_CALLS);
        make_directory();
        directory = memfs_save();
    }
    memfs_load(directory);
    put_files((struct span){(const char *)data + 1, size - 1});
    check_store((enum change)(data[0] % CHANGES));
    memfs_reset();
    return 0;
}
