/* Writing and reading a record of meta.jsonl; the format stands in meta.h. */
#include "wire/meta.h"

#include "base/assert.h"
#include "wire/cursor.h"
#include "wire/line.h"

static bool is_cluster_id(struct span text) {
    if (text.size != 0 && text.size != CLUSTER_ID_BYTES - 1) {
        return false;
    }
    for (size_t i = 0; i < text.size; i++) {
        char c = text.data[i];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) {
            return false;
        }
    }
    return true;
}

/* An address is written without escapes, so it must not need any. */
static bool is_address(struct span text) {
    for (size_t i = 0; i < text.size; i++) {
        char c = text.data[i];
        if (c <= ' ' || c > '~' || c == '"' || c == '\\') {
            return false;
        }
    }
    return text.size < ADDRESS_BYTES_MAX;
}

bool meta_valid(const struct meta *meta) {
    return memchr(meta->cluster_id, 0, CLUSTER_ID_BYTES) != NULL &&
           memchr(meta->address, 0, ADDRESS_BYTES_MAX) != NULL &&
           is_cluster_id((struct span){meta->cluster_id, strlen(meta->cluster_id)}) &&
           is_address((struct span){meta->address, strlen(meta->address)}) &&
           meta->node_id <= NUMBER_MAX && meta->incarnation <= NUMBER_MAX &&
           meta->term <= NUMBER_MAX && meta->voted_for <= NUMBER_MAX;
}

void meta_write(struct buffer *line, const struct meta *meta) {
    ASSERT(meta_valid(meta));
    /* Room for all of it first: an append that grows may move the content to the front. */
    buffer_reserve(line, META_LINE_BYTES_MAX);
    size_t line_start = line->size;
    buffer_append_text(line, "{\"cluster\":\"");
    buffer_append_text(line, meta->cluster_id);
    buffer_append_text(line, "\",\"address\":\"");
    buffer_append_text(line, meta->address);
    buffer_append_text(line, "\",\"node\":");
    buffer_append_u64(line, meta->node_id);
    buffer_append_text(line, ",\"incarnation\":");
    buffer_append_u64(line, meta->incarnation);
    buffer_append_text(line, ",\"term\":");
    buffer_append_u64(line, meta->term);
    buffer_append_text(line, ",\"voted_for\":");
    buffer_append_u64(line, meta->voted_for);
    buffer_append_text(line, meta->removed ? ",\"removed\":true" : ",\"removed\":false");
    line_seal(line, line_start, 0);
    ASSERT(line->size - line_start <= META_LINE_BYTES_MAX);
}

static bool read_texts(struct cursor *cursor, struct meta *meta) {
    struct span cluster;
    struct span address;
    if (!cursor_text(cursor, SPAN("{\"cluster\":\"")) || !cursor_until(cursor, '"', &cluster) ||
        !is_cluster_id(cluster) || !cursor_text(cursor, SPAN(",\"address\":\"")) ||
        !cursor_until(cursor, '"', &address) || !is_address(address)) {
        return false;
    }
    memcpy(meta->cluster_id, cluster.data, cluster.size);
    memcpy(meta->address, address.data, address.size);
    return true;
}

static bool read_removed(struct cursor *cursor, bool *removed) {
    *removed = cursor_text(cursor, SPAN(",\"removed\":true"));
    return (*removed || cursor_text(cursor, SPAN(",\"removed\":false"))) &&
           cursor->at == cursor->end;
}

enum status meta_read(struct span line, struct meta *meta) {
    struct span body;
    uint32_t crc;
    if (line_check(line, 0, &body, &crc) != STATUS_OK) {
        return STATUS_CORRUPT;
    }
    struct cursor cursor = cursor_over(body);
    struct meta read = {0};
    if (!read_texts(&cursor, &read) ||
        !cursor_member(&cursor, SPAN(",\"node\":"), &read.node_id) ||
        !cursor_member(&cursor, SPAN(",\"incarnation\":"), &read.incarnation) ||
        !cursor_member(&cursor, SPAN(",\"term\":"), &read.term) ||
        !cursor_member(&cursor, SPAN(",\"voted_for\":"), &read.voted_for) ||
        !read_removed(&cursor, &read.removed)) {
        return STATUS_CORRUPT;
    }
    *meta = read;
    return STATUS_OK;
}
