/* Making of apply batches; see batch.h. */
#include "node/batch.h"

#include "base/memory.h"

struct apply_batch *apply_batch_new(void) {
    return memory_must_alloc_zero(sizeof(struct apply_batch));
}

void cargo_drop(struct cargo *cargo) {
    if (cargo != NULL) {
        cargo->drop(cargo);
    }
}

void apply_batch_clear(struct apply_batch *batch) {
    for (uint32_t i = 0; i < batch->count; i++) {
        cargo_drop(batch->items[i].cargo);
    }
    batch->count = 0;
    buffer_clear(&batch->input);
    buffer_clear(&batch->output);
}

void apply_batch_free(struct apply_batch *batch) {
    if (batch != NULL) {
        apply_batch_clear(batch);
        buffer_free(&batch->input);
        buffer_free(&batch->output);
        memory_free(batch->items);
        memory_free(batch);
    }
}

struct apply_batch *apply_batch_split(struct apply_batch *batch) {
    struct apply_batch *rest = apply_batch_new();
    for (uint32_t i = batch->count - batch->left; i < batch->count; i++) {
        const struct apply_item *from = &batch->items[i];
        struct apply_item *item =
            apply_batch_add(rest, from->kind, apply_item_input(batch, from));
        size_t input_offset = item->input_offset;
        *item = *from;
        item->input_offset = input_offset;
    }
    batch->count -= batch->left;
    batch->left = 0;
    rest->more = batch->more;
    batch->more = true;
    return rest;
}

struct apply_item *apply_batch_add(struct apply_batch *batch, enum apply_kind kind,
                                   struct span input) {
    if (batch->count == batch->capacity) {
        batch->capacity = batch->capacity == 0 ? 64 : batch->capacity * 2;
        batch->items = memory_must_grow(batch->items, batch->capacity * sizeof(*batch->items));
    }
    struct apply_item *item = &batch->items[batch->count++];
    *item = (struct apply_item){
        .kind = kind, .input_offset = batch->input.size, .input_size = input.size};
    buffer_append_span(&batch->input, input);
    return item;
}
