/* Opening and looking through stores in tests; see storerig.h. */
#include "storerig.h"

#include "check.h"

void storerig_init(struct storerig *rig, const char *path, uint64_t segment_bytes) {
    memset(rig, 0, sizeof(*rig));
    rig->options = (struct store_options){
        .path = path,
        .address = "127.0.0.1:4000",
        .segment_bytes = segment_bytes,
        .sync = true,
    };
}

static enum status take_header(void *context, struct span line) {
    struct storerig *rig = context;
    CHECK(rig->entry_count == 0 && buffer_count(&rig->snapshot_header) == 0);
    buffer_append_span(&rig->snapshot_header, line);
    return STATUS_OK;
}

static enum status take_entry(void *context, uint64_t index, uint64_t term, uint32_t crc,
                              struct span line) {
    struct storerig *rig = context;
    CHECK(rig->entry_count == 0 || index == rig->last_index + 1);
    CHECK(term >= rig->last_term);
    buffer_append_span(&rig->lines, line);
    rig->entry_count++;
    rig->last_index = index;
    rig->last_term = term;
    rig->last_crc = crc;
    return STATUS_OK;
}

enum status storerig_open(struct storerig *rig) {
    CHECK(rig->store == NULL);
    buffer_clear(&rig->snapshot_header);
    buffer_clear(&rig->lines);
    rig->entry_count = 0;
    rig->last_index = 0;
    rig->last_term = 0;
    struct store_visitor visitor = {
        .context = rig,
        .snapshot_header = take_header,
        .entry = take_entry,
    };
    rig->error = (struct error){.status = STATUS_OK};
    enum status status =
        store_open(&rig->options, &visitor, &rig->recovery, &rig->store, &rig->error);
    CHECK(status == STATUS_OK || (rig->error.status == status && rig->error.text[0] != 0));
    return status;
}

void storerig_close(struct storerig *rig) {
    if (rig->store != NULL) {
        store_close(rig->store);
        rig->store = NULL;
    }
}

void storerig_clear(struct storerig *rig) {
    storerig_close(rig);
    buffer_free(&rig->snapshot_header);
    buffer_free(&rig->lines);
}

static void check_read(struct storerig *rig, const struct logmaker *log, uint64_t first,
                       uint64_t last, size_t bytes_max) {
    struct buffer lines;
    buffer_init(&lines);
    uint64_t next = first;
    while (next <= last) {
        buffer_clear(&lines);
        uint64_t read_last = 0;
        CHECK(store_read(rig->store, next, last, bytes_max, &lines, &read_last, &rig->error) ==
              STATUS_OK);
        CHECK(read_last >= next && read_last <= last);
        struct span rest = buffer_span(&lines);
        CHECK(rest.size <= bytes_max || read_last == next);
        for (; next <= read_last; next++) {
            struct span line = logmaker_line(log, next);
            CHECK(rest.size >= line.size && memcmp(rest.data, line.data, line.size) == 0);
            rest = (struct span){rest.data + line.size, rest.size - line.size};
        }
        CHECK(rest.size == 0);
    }
    buffer_free(&lines);
}

void storerig_check_log(struct storerig *rig, const struct logmaker *log, uint64_t first,
                        uint64_t last) {
    CHECK(rig->recovery.first_index == first && rig->recovery.last_index == last);
    CHECK(rig->entry_count == last + 1 - first);
    struct span rest = buffer_span(&rig->lines);
    for (uint64_t index = first; index <= last; index++) {
        struct span line = logmaker_line(log, index);
        CHECK(rest.size >= line.size && memcmp(rest.data, line.data, line.size) == 0);
        rest = (struct span){rest.data + line.size, rest.size - line.size};
    }
    CHECK(rest.size == 0);
    check_read(rig, log, first, last, 1);
    check_read(rig, log, first, last, 1000);
    check_read(rig, log, first, last, 1u << 20);
}

enum status storerig_save_term(struct storerig *rig, uint64_t term, uint64_t voted_for) {
    struct meta meta = rig->recovery.meta;
    meta.node_id = meta.node_id == 0 ? 1 : meta.node_id;
    meta.term = term;
    meta.voted_for = voted_for;
    return store_save_meta(rig->store, &meta, &rig->error);
}

enum status storerig_snapshot(struct storerig *rig, enum store_slot slot,
                              const struct logmaker *log, uint64_t index, bool reset_log,
                              uint64_t keep_entries) {
    struct buffer file;
    buffer_init(&file);
    logmaker_snapshot(&file, log, index, 5);
    struct span rest = buffer_span(&file);
    enum status status = store_snapshot_begin(rig->store, slot, &rig->error);
    while (status == STATUS_OK && rest.size > 0) {
        size_t size = rest.size < 400 ? rest.size : 400;
        status =
            store_snapshot_write(rig->store, slot, (struct span){rest.data, size}, &rig->error);
        rest = (struct span){rest.data + size, rest.size - size};
    }
    buffer_free(&file);
    if (status != STATUS_OK) {
        return status;
    }
    return store_snapshot_commit(rig->store, slot, index, logmaker_term(log, index),
                                 logmaker_crc(log, index), reset_log, keep_entries,
                                 &rig->error);
}
