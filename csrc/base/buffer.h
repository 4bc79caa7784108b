/* A growable run of bytes with a consumed front, and a borrowed span of bytes.
 *
 *     bytes ->  [ consumed | size - start bytes of content | room ]
 *                          ^start                  ^size    ^capacity
 *
 * Invariant: start <= size <= capacity. Content moves when the buffer grows or is compacted, so
 * nobody keeps a pointer into it across an append; keep offsets.
 *
 * Appends never fail visibly: growth is bounded by the callers' named limits, and when the heap
 * is empty all the same the process ends with a clear text (memory.h). */
#ifndef RAFTPICO_BASE_BUFFER_H
#define RAFTPICO_BASE_BUFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/assert.h"
#include "base/status.h"

struct span {
    const char *data; /* borrowed; not NUL-terminated */
    size_t size;      /* bytes */
};

struct buffer {
    char *bytes;
    size_t start;    /* first byte not consumed yet */
    size_t size;     /* end of the content, counted from `bytes` */
    size_t capacity; /* bytes allocated */
};

#define SPAN(literal) ((struct span){(literal), sizeof(literal) - 1})

static inline bool span_equal(struct span a, struct span b) {
    if (a.size != b.size || a.size == 0) {
        return a.size == b.size;
    }
    ASSERT(a.data != NULL && b.data != NULL);
    return memcmp(a.data, b.data, a.size) == 0;
}

void buffer_init(struct buffer *buffer);
void buffer_free(struct buffer *buffer); /* and init again */
void buffer_clear(struct buffer *buffer);

/* Make room for `bytes` more at the end; returns where they go. buffer_extend then counts them.
 */
char *buffer_reserve(struct buffer *buffer, size_t bytes);
static inline void buffer_extend(struct buffer *buffer, size_t bytes) {
    buffer->size += bytes;
}

void buffer_append(struct buffer *buffer, const void *data, size_t bytes);
void buffer_append_span(struct buffer *buffer, struct span span);
void buffer_append_text(struct buffer *buffer, const char *text);
void buffer_append_char(struct buffer *buffer, char c);
void buffer_append_u64(struct buffer *buffer, uint64_t number);
void buffer_append_format(struct buffer *buffer, const char *format, ...) PRINTF_LIKE(2, 3);

/* Drop `bytes` from the front; storage is reclaimed when that is cheap. */
void buffer_consume(struct buffer *buffer, size_t bytes);

/* Give memory back when a burst left more than `keep` bytes of capacity in an empty buffer. */
void buffer_trim(struct buffer *buffer, size_t keep);

/* Give back what is allocated and not used, where that is much: content is kept for long. */
void buffer_fit(struct buffer *buffer);

static inline size_t buffer_count(const struct buffer *buffer) {
    return buffer->size - buffer->start;
}
static inline const char *buffer_peek(const struct buffer *buffer) {
    return buffer->bytes == NULL ? NULL : buffer->bytes + buffer->start;
}
static inline struct span buffer_span(const struct buffer *buffer) {
    struct span span = {buffer_peek(buffer), buffer->size - buffer->start};
    ASSERT(span.data != NULL || span.size == 0);
    return span;
}

#endif
