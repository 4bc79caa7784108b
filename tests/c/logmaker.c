/* Making logs and snapshots for tests; see logmaker.h. */
#include "logmaker.h"

#include <inttypes.h>

#include "check.h"
#include "wire/snapshot.h"

void logmaker_init(struct logmaker *log, uint64_t base, uint64_t base_term, uint32_t base_crc) {
    memset(log, 0, sizeof(*log));
    log->base = base;
    log->base_term = base_term;
    log->base_crc = base_crc;
    log->last = base;
}

void logmaker_clear(struct logmaker *log) {
    for (unsigned i = 0; i < LOGMAKER_ENTRIES_MAX; i++) {
        buffer_free(&log->lines[i]);
    }
    logmaker_init(log, 0, 0, 0);
}

void logmaker_copy(struct logmaker *into, const struct logmaker *from) {
    logmaker_clear(into);
    *into = *from;
    for (unsigned i = 0; i < LOGMAKER_ENTRIES_MAX; i++) {
        buffer_init(&into->lines[i]);
        buffer_append_span(&into->lines[i], buffer_span(&from->lines[i]));
    }
}

void logmaker_add(struct logmaker *log, uint64_t term, size_t bytes) {
    CHECK(log->last - log->base < LOGMAKER_ENTRIES_MAX);
    uint64_t index = log->last + 1;
    struct buffer input;
    buffer_init(&input);
    buffer_append_format(&input, "{\"Put\":[\"key-%" PRIu64 "-%" PRIu64 "\",\"", index, term);
    for (size_t i = 0; i < bytes; i++) {
        buffer_append_char(&input, (char)('a' + (index * 7 + term * 3 + i) % 26));
    }
    buffer_append_text(&input, "\"]}");
    struct entry entry = {
        .index = index,
        .term = term,
        .time_ms = 1732406400000 + index,
        .kind = index % 9 == 0 ? ENTRY_NOOP : ENTRY_COMMAND,
        .tag = {.node = 1, .incarnation = term, .sequence = index},
    };
    if (entry.kind == ENTRY_COMMAND && index % 4 == 0) {
        entry.session = SPAN("client \\\"4\\\"");
        entry.session_seq = index;
    }
    entry.body = entry.kind == ENTRY_NOOP ? (struct span){NULL, 0} : buffer_span(&input);
    size_t i = (size_t)(index - log->base - 1);
    buffer_clear(&log->lines[i]);
    log->crcs[i] = entry_write(&log->lines[i], &entry, logmaker_crc(log, log->last));
    log->terms[i] = term;
    log->last = index;
    buffer_free(&input);
}

void logmaker_cut(struct logmaker *log, uint64_t index) {
    CHECK(index > log->base);
    while (log->last >= index) {
        buffer_free(&log->lines[log->last - log->base - 1]);
        log->last--;
    }
}

uint32_t logmaker_crc(const struct logmaker *log, uint64_t index) {
    CHECK(index >= log->base && index <= log->last);
    return index == log->base ? log->base_crc : log->crcs[index - log->base - 1];
}

uint64_t logmaker_term(const struct logmaker *log, uint64_t index) {
    CHECK(index >= log->base && index <= log->last);
    return index == log->base ? log->base_term : log->terms[index - log->base - 1];
}

struct span logmaker_line(const struct logmaker *log, uint64_t index) {
    CHECK(index > log->base && index <= log->last);
    return buffer_span(&log->lines[index - log->base - 1]);
}

enum status logmaker_append(const struct logmaker *log, struct store *store, uint64_t first,
                            uint64_t last, struct error *error) {
    struct buffer lines;
    buffer_init(&lines);
    static uint32_t offsets[LOGMAKER_ENTRIES_MAX];
    for (uint64_t index = first; index <= last; index++) {
        offsets[index - first] = (uint32_t)buffer_count(&lines);
        buffer_append_span(&lines, logmaker_line(log, index));
    }
    enum status status = store_append(store, first, last, buffer_span(&lines), offsets, error);
    buffer_free(&lines);
    return status;
}

void logmaker_snapshot(struct buffer *out, const struct logmaker *log, uint64_t index,
                       unsigned lines) {
    static struct snapshot_header header;
    header = (struct snapshot_header){
        .index = index,
        .term = logmaker_term(log, index),
        .chain_crc = logmaker_crc(log, index),
        .time_ms = 1732406400000 + index,
        .configuration_index = 1,
        .configuration = SPAN("{\"members\":[{\"id\":1,\"sessions\":[[1,2,3]]}]}"),
        .tag_count = 2,
        .tags = {{1, 2, 3}, {2, 1, index}},
    };
    size_t start = buffer_count(out);
    uint32_t seed = snapshot_write_header(out, &header);
    seed = snapshot_write_session(out, SPAN("[\"a\",3,1732406400001,1,0,{}]"), seed);
    seed = snapshot_write_session(out, SPAN("[\"b\",1,1732406400002,2,109]"), seed);
    struct buffer state;
    buffer_init(&state);
    for (unsigned i = 0; i < lines; i++) {
        buffer_clear(&state);
        buffer_append_format(&state, "{\"key-%u\":%" PRIu64 "}", i, index);
        seed = snapshot_write_state(out, buffer_span(&state), seed);
    }
    snapshot_write_end(out, lines, buffer_count(out) - start, seed);
    buffer_free(&state);
}
