/* Queries that wait until the machine has come as far as they ask (`min_index`): a heap, the
 * least index on top, so that a turn looks only at those that it can let go.
 *
 * Must not know why a query waits. Invariant: one whose index is handed out waits for nothing
 * but room in the batch, or for a snapshot that is being restored. */
#include "base/memory.h"
#include "node/internal.h"

struct parked {
    uint64_t min_index;
    uint64_t deadline_ms;
    enum apply_kind kind;
    struct caller caller;
    char *input; /* JSON text, owned */
    size_t input_size;
};

static void swap(struct parked *a, struct parked *b) {
    struct parked kept = *a;
    caller_move(&kept.caller, &a->caller);
    *a = *b;
    caller_move(&a->caller, &b->caller);
    *b = kept;
    caller_move(&b->caller, &kept.caller);
}

static void sift_up(struct parked *heap, uint32_t at) {
    while (at > 0 && heap[at].min_index < heap[(at - 1) / 2].min_index) {
        swap(&heap[at], &heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
}

static void sift_down(struct parked *heap, uint32_t count, uint32_t at) {
    while (2 * at + 1 < count) {
        uint32_t child = 2 * at + 1;
        if (child + 1 < count && heap[child + 1].min_index < heap[child].min_index) {
            child++;
        }
        if (heap[at].min_index <= heap[child].min_index) {
            return;
        }
        swap(&heap[at], &heap[child]);
        at = child;
    }
}

void parked_add(struct node *node, enum apply_kind kind, struct caller *caller,
                struct span input, uint64_t min_index, uint64_t deadline_ms) {
    struct reads *reads = &node->reads;
    if (reads->parked_count == reads->parked_capacity) {
        uint32_t capacity = reads->parked_capacity == 0 ? 64 : reads->parked_capacity * 2;
        struct parked *grown = memory_must_alloc_zero(capacity * sizeof(*grown));
        for (uint32_t i = 0; i < reads->parked_count; i++) {
            swap(&grown[i], &reads->parked[i]);
        }
        memory_free(reads->parked);
        reads->parked = grown;
        reads->parked_capacity = capacity;
    }
    struct parked *place = &reads->parked[reads->parked_count];
    *place = (struct parked){.min_index = min_index,
                             .deadline_ms = deadline_ms,
                             .kind = kind,
                             .input = memory_must_grow(NULL, input.size),
                             .input_size = input.size};
    memcpy(place->input, input.data, input.size);
    caller_move(&place->caller, caller);
    reads->count++;
    reads->bytes += input.size;
    sift_up(reads->parked, reads->parked_count++);
}

/* Takes the one at `at` out; its caller was answered or moved on. */
static void forget(struct node *node, uint32_t at) {
    struct reads *reads = &node->reads;
    struct parked *parked = &reads->parked[at];
    reads->count--;
    reads->bytes -= parked->input_size;
    memory_free(parked->input);
    *parked = (struct parked){0};
    if (at != --reads->parked_count) {
        swap(parked, &reads->parked[reads->parked_count]);
    }
}

void parked_release(struct node *node) {
    struct reads *reads = &node->reads;
    while (reads->parked_count > 0 && reads->parked[0].min_index <= node->applies.handed &&
           !node->applies.restoring && apply_has_room(node)) {
        struct parked *first = &reads->parked[0];
        apply_query(node, first->kind, &first->caller,
                    (struct span){first->input, first->input_size}, first->deadline_ms);
        forget(node, 0);
        sift_down(reads->parked, reads->parked_count, 0);
    }
}

static void restore_heap(struct reads *reads) {
    for (uint32_t at = reads->parked_count / 2; at > 0; at--) {
        sift_down(reads->parked, reads->parked_count, at - 1);
    }
}

static void refuse(struct node *node, struct parked *parked) {
    if (parked->min_index == 0) { /* it asked for none: the machine had no state yet */
        caller_refuse(node, &parked->caller, RPC_OVERLOADED, "not_applied",
                      "the machine was not restored in time");
        return;
    }
    struct buffer data;
    buffer_init(&data);
    buffer_append_text(&data, "{\"outcome\":\"not_applied\",\"min_index\":");
    buffer_append_u64(&data, parked->min_index);
    buffer_append_text(&data, ",\"applied_index\":");
    buffer_append_u64(&data, node->applies.applied);
    buffer_append_char(&data, '}');
    caller_error(node, &parked->caller, RPC_INDEX_NOT_REACHED, buffer_span(&data));
    buffer_free(&data);
}

void parked_expire(struct node *node) {
    struct reads *reads = &node->reads;
    for (uint32_t at = 0; at < reads->parked_count;) {
        if (node->now_ms < reads->parked[at].deadline_ms) {
            at++;
            continue;
        }
        refuse(node, &reads->parked[at]);
        forget(node, at);
    }
    restore_heap(reads);
}

void parked_fail_all(struct node *node, enum rpc_code code, const char *reason) {
    struct reads *reads = &node->reads;
    while (reads->parked_count > 0) {
        uint32_t last = reads->parked_count - 1;
        caller_refuse(node, &reads->parked[last].caller, code, "not_applied", reason);
        forget(node, last);
    }
    memory_free(reads->parked);
    reads->parked = NULL;
    reads->parked_capacity = 0;
}
