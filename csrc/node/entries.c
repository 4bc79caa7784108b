/* Blocks of entry lines; see entries.h. */
#include "node/entries.h"

#include "base/assert.h"
#include "base/limits.h"
#include "base/memory.h"

struct entries_block {
    uint64_t first;     /* index of its first line */
    uint32_t count;     /* lines */
    uint32_t capacity;  /* of starts */
    uint32_t *starts;   /* where each line begins in text.bytes */
    struct buffer text; /* never grows past its first reservation: lines do not move */
};

void entries_init(struct entries *entries, uint64_t last, uint32_t crc, uint64_t time_ms) {
    *entries = (struct entries){
        .first = last + 1, .last = last, .tail_crc = crc, .tail_time_ms = time_ms};
}

static void free_block(struct entries *entries, struct entries_block *block) {
    entries->bytes -= block->text.capacity;
    buffer_free(&block->text);
    memory_free(block->starts);
    memory_free(block);
}

void entries_clear(struct entries *entries) {
    for (uint32_t i = 0; i < entries->count; i++) {
        free_block(entries, entries->blocks[entries->start + i]);
    }
    memory_free(entries->blocks);
    entries_init(entries, 0, 0, 0);
}

static struct entries_block *tail_block(const struct entries *entries) {
    return entries->count == 0 ? NULL : entries->blocks[entries->start + entries->count - 1];
}

static struct entries_block *add_block(struct entries *entries, size_t bytes) {
    if (entries->start + entries->count == entries->capacity) {
        if (entries->start > entries->capacity / 2) {
            memmove(entries->blocks, entries->blocks + entries->start,
                    entries->count * sizeof(struct entries_block *));
            entries->start = 0;
        } else {
            entries->capacity = entries->capacity == 0 ? 16 : entries->capacity * 2;
            entries->blocks = memory_must_grow(
                entries->blocks, entries->capacity * sizeof(struct entries_block *));
        }
    }
    struct entries_block *block = memory_must_alloc_zero(sizeof(*block));
    block->first = entries->last + 1;
    buffer_reserve(&block->text, bytes > ENTRY_BLOCK_BYTES ? bytes : ENTRY_BLOCK_BYTES);
    entries->bytes += block->text.capacity;
    entries->blocks[entries->start + entries->count++] = block;
    return block;
}

struct buffer *entries_begin(struct entries *entries, size_t bytes_max) {
    struct entries_block *block = tail_block(entries);
    if (block == NULL || block->text.capacity - block->text.size < bytes_max) {
        block = add_block(entries, bytes_max);
    }
    return &block->text;
}

void entries_commit(struct entries *entries, size_t line_start, uint32_t crc,
                    uint64_t time_ms) {
    struct entries_block *block = tail_block(entries);
    ASSERT(block != NULL && line_start < block->text.size);
    ASSERT(block->first + block->count == entries->last + 1);
    if (block->count == block->capacity) {
        block->capacity = block->capacity == 0 ? 256 : block->capacity * 2;
        block->starts = memory_must_grow(block->starts, block->capacity * sizeof(uint32_t));
    }
    block->starts[block->count++] = (uint32_t)line_start;
    entries->last++;
    entries->tail_crc = crc;
    entries->tail_time_ms = time_ms;
}

/* The position in `blocks` of the one that holds `index`, which must be held. */
static uint32_t find_block(const struct entries *entries, uint64_t index) {
    uint32_t low = entries->start;
    uint32_t high = entries->start + entries->count - 1;
    while (low < high) {
        uint32_t middle = low + (high - low + 1) / 2;
        if (entries->blocks[middle]->first <= index) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    return low;
}

static struct span line_at(const struct entries_block *block, uint64_t index) {
    uint32_t i = (uint32_t)(index - block->first);
    uint32_t start = block->starts[i];
    size_t end = i + 1 < block->count ? block->starts[i + 1] : block->text.size;
    return (struct span){block->text.bytes + start, end - start};
}

struct span entries_peek(const struct entries *entries, uint64_t index) {
    if (index < entries->first || index > entries->last) {
        return (struct span){NULL, 0};
    }
    return line_at(entries->blocks[find_block(entries, index)], index);
}

uint64_t entries_bytes_after(const struct entries *entries, uint64_t index) {
    uint64_t bytes = 0;
    for (uint32_t i = entries->count; i > 0; i--) {
        const struct entries_block *block = entries->blocks[entries->start + i - 1];
        if (block->first > index) {
            bytes += block->text.size;
            continue;
        }
        uint64_t within = index + 1 - block->first;
        return within < block->count ? bytes + block->text.size - block->starts[within] : bytes;
    }
    return bytes;
}

uint64_t entries_copy(const struct entries *entries, uint64_t first, uint64_t last,
                      size_t bytes_max, struct buffer *out, uint32_t *offsets) {
    ASSERT(first >= entries->first && last <= entries->last && first <= last);
    size_t start = out->size;
    uint64_t index = first;
    uint32_t at = find_block(entries, first);
    while (index <= last) {
        const struct entries_block *block = entries->blocks[at];
        if (index - block->first >= block->count) {
            at++;
            continue;
        }
        struct span line = line_at(block, index);
        if (index > first && out->size - start + line.size > bytes_max) {
            break;
        }
        if (offsets != NULL) {
            offsets[index - first] = (uint32_t)(out->size - start);
        }
        buffer_append_span(out, line);
        index++;
    }
    return index;
}

void entries_truncate(struct entries *entries, uint64_t index, uint32_t crc, uint64_t time_ms) {
    ASSERT(index > 0 && index <= entries->last + 1);
    while (entries->count > 0) {
        struct entries_block *block = tail_block(entries);
        if (block->first < index) {
            uint32_t keep = (uint32_t)(index - block->first);
            if (keep < block->count) {
                block->text.size = block->starts[keep];
                block->count = keep;
            }
            break;
        }
        free_block(entries, block);
        entries->count--;
    }
    entries->last = index - 1;
    if (entries->first > index) {
        entries->first = index;
    }
    entries->tail_crc = crc;
    entries->tail_time_ms = time_ms;
}

void entries_evict(struct entries *entries, uint64_t index, uint64_t bytes_keep) {
    while (entries->count > 1 && entries->bytes > bytes_keep) {
        struct entries_block *block = entries->blocks[entries->start];
        if (block->first + block->count > index) {
            break;
        }
        free_block(entries, block);
        entries->start++;
        entries->count--;
        entries->first = entries->blocks[entries->start]->first;
    }
}
