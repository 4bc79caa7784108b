/* The sparse index of a segment, and the names of numbered files; see segment.h. */
#include "storage/segment.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/assert.h"
#include "base/memory.h"
#include "storage/layout.h"

#define MARK_ENTRIES 64u
#define MARK_BYTES 65536u
#define MARKS_FIRST 16u

void segment_init(struct segment *segment, uint64_t first_index) {
    *segment = (struct segment){.first_index = first_index, .last_index = first_index - 1};
}

void segment_clear(struct segment *segment) {
    memory_free(segment->marks);
    segment_init(segment, segment->first_index);
}

void segment_name(const char *prefix, uint64_t index, char name[NAME_BYTES_MAX]) {
    int size =
        snprintf(name, NAME_BYTES_MAX, "%s%0*" PRIu64 FILE_SUFFIX, prefix, INDEX_DIGITS, index);
    ASSERT(size > 0 && (unsigned)size < NAME_BYTES_MAX);
}

bool segment_parse_name(const char *prefix, const char *name, uint64_t *index) {
    size_t prefix_size = strlen(prefix);
    if (strlen(name) != prefix_size + INDEX_DIGITS + strlen(FILE_SUFFIX) ||
        memcmp(name, prefix, prefix_size) != 0 ||
        strcmp(name + prefix_size + INDEX_DIGITS, FILE_SUFFIX) != 0) {
        return false;
    }
    uint64_t value = 0;
    for (size_t i = 0; i < INDEX_DIGITS; i++) {
        char c = name[prefix_size + i];
        if (c < '0' || c > '9' || value > NUMBER_MAX) {
            return false;
        }
        value = value * 10 + (uint64_t)(c - '0');
    }
    *index = value;
    return value > 0 && value <= NUMBER_MAX;
}

static bool is_due(const struct segment *segment, uint64_t index, uint64_t offset) {
    if (segment->mark_count == 0) {
        return true;
    }
    const struct segment_mark *last = &segment->marks[segment->mark_count - 1];
    ASSERT(index > last->index && offset > last->offset);
    return index - last->index >= MARK_ENTRIES || offset - last->offset >= MARK_BYTES;
}

void segment_mark(struct segment *segment, uint64_t index, uint64_t offset, uint32_t seed) {
    if (!is_due(segment, index, offset)) {
        return;
    }
    if (segment->mark_count == segment->mark_capacity) {
        size_t capacity = segment->mark_capacity > 0 ? segment->mark_capacity * 2 : MARKS_FIRST;
        segment->marks = memory_must_grow(segment->marks, capacity * sizeof(*segment->marks));
        segment->mark_capacity = capacity;
    }
    segment->marks[segment->mark_count++] =
        (struct segment_mark){.index = index, .offset = offset, .seed = seed};
}

const struct segment_mark *segment_find(const struct segment *segment, uint64_t index) {
    ASSERT(segment->mark_count > 0 && segment->marks[0].index <= index);
    size_t low = 0;
    size_t high = segment->mark_count;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (segment->marks[middle].index <= index) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return &segment->marks[low];
}

void segment_truncate(struct segment *segment, uint64_t index, uint64_t offset) {
    ASSERT(index >= segment->first_index && offset <= segment->bytes);
    while (segment->mark_count > 0 && segment->marks[segment->mark_count - 1].index >= index) {
        segment->mark_count--;
    }
    segment->last_index = index - 1;
    segment->bytes = offset;
}
