/* Growth and consumption of struct buffer; see buffer.h. */
#include "base/buffer.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/assert.h"
#include "base/memory.h"

#define BUFFER_CAPACITY_MIN 256u

void buffer_init(struct buffer *buffer) {
    *buffer = (struct buffer){0};
}

void buffer_free(struct buffer *buffer) {
    memory_free(buffer->bytes);
    buffer_init(buffer);
}

void buffer_clear(struct buffer *buffer) {
    buffer->start = 0;
    buffer->size = 0;
}

static void compact(struct buffer *buffer) {
    size_t count = buffer_count(buffer);
    if (count > 0) {
        memmove(buffer->bytes, buffer->bytes + buffer->start, count);
    }
    buffer->start = 0;
    buffer->size = count;
}

char *buffer_reserve(struct buffer *buffer, size_t bytes) {
    ASSERT(buffer->start <= buffer->size && buffer->size <= buffer->capacity);
    ASSERT(bytes <= SIZE_MAX / 4);
    if (buffer->capacity - buffer->size >= bytes) {
        return buffer->bytes + buffer->size;
    }
    if (buffer->start >= buffer_count(buffer)) {
        compact(buffer);
    }
    if (buffer->capacity - buffer->size < bytes) {
        size_t capacity = buffer->capacity * 2;
        if (capacity < buffer->size + bytes) {
            capacity = buffer->size + bytes;
        }
        if (capacity < BUFFER_CAPACITY_MIN) {
            capacity = BUFFER_CAPACITY_MIN;
        }
        buffer->bytes = memory_must_grow(buffer->bytes, capacity);
        buffer->capacity = capacity;
    }
    return buffer->bytes + buffer->size;
}

void buffer_append(struct buffer *buffer, const void *data, size_t bytes) {
    if (bytes > 0) {
        memcpy(buffer_reserve(buffer, bytes), data, bytes);
        buffer->size += bytes;
    }
}

void buffer_append_span(struct buffer *buffer, struct span span) {
    buffer_append(buffer, span.data, span.size);
}

void buffer_append_text(struct buffer *buffer, const char *text) {
    buffer_append(buffer, text, strlen(text));
}

void buffer_append_char(struct buffer *buffer, char c) {
    *buffer_reserve(buffer, 1) = c;
    buffer->size += 1;
}

void buffer_append_u64(struct buffer *buffer, uint64_t number) {
    char digits[20];
    size_t at = sizeof(digits);
    do {
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    buffer_append(buffer, digits + at, sizeof(digits) - at);
}

void buffer_append_format(struct buffer *buffer, const char *format, ...) {
    va_list args;
    va_start(args, format);
    va_list again;
    va_copy(again, args);
    int bytes = vsnprintf(NULL, 0, format, args);
    va_end(args);
    ASSERT(bytes >= 0);
    vsnprintf(buffer_reserve(buffer, (size_t)bytes + 1), (size_t)bytes + 1, format, again);
    va_end(again);
    buffer->size += (size_t)bytes;
}

void buffer_consume(struct buffer *buffer, size_t bytes) {
    ASSERT(bytes <= buffer_count(buffer));
    buffer->start += bytes;
    if (buffer->start == buffer->size) {
        buffer_clear(buffer);
    }
}

void buffer_trim(struct buffer *buffer, size_t keep) {
    if (buffer_count(buffer) == 0 && buffer->capacity > keep) {
        buffer_free(buffer);
    }
}

void buffer_fit(struct buffer *buffer) {
    size_t count = buffer_count(buffer);
    if (count == 0) {
        buffer_free(buffer);
    } else if (buffer->capacity - count > count / 4) {
        compact(buffer);
        buffer->bytes = memory_must_grow(buffer->bytes, count);
        buffer->capacity = count;
    }
}
