/* What crosses between the loop and the apply thread: a batch that changes hands whole.
 *
 * The node fills a batch, the server hands it over, the apply thread runs it and writes the
 * results into the same batch, and it comes back. At each moment one thread owns it. */
#ifndef RAFTPICO_NODE_BATCH_H
#define RAFTPICO_NODE_BATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"

/* What the host sends along with a job and with the item that follows from it; the node only
 * carries it. Whoever owns the job or the batch owns the cargo. */
struct cargo {
    void (*drop)(struct cargo *cargo);
};
void cargo_drop(struct cargo *cargo); /* NULL: nothing to drop */

enum apply_kind {
    APPLY_COMMAND, /* a committed entry: machine.apply() */
    APPLY_QUERY,   /* linearizable, at this place in the order: machine.apply() */
    APPLY_LOCAL_QUERY,
    APPLY_STATE,    /* machine.snapshot(), to be looked at: output is one line of JSON text, LF,
                    for each piece */
    APPLY_SNAPSHOT, /* machine.snapshot() as of here, to be kept: begin to write it behind the
                       head that is the input; node_snapshot_written() says how it ended */
    APPLY_RESTORE,  /* machine.restore() from what `cargo` reads */
    APPLY_NOTICE,   /* input is a JSON object for the log: {"level":..,"event":..,"text":..} */
};

enum apply_outcome {
    APPLY_DONE,           /* output is JSON text (empty where no output was wanted) */
    APPLY_NO_OUTPUT,      /* 105 */
    APPLY_INVALID_INPUT,  /* 103: output is the JSON object for `data`: {"reason":...} */
    APPLY_INVALID_OUTPUT, /* 104: the same */
    APPLY_RAISED,         /* 109: {"type":"KeyError","reason":"..."} */
};

struct apply_item {
    enum apply_kind kind;
    bool wants_output; /* false: nobody here waits for what it returns; skip encoding */
    bool in_process;   /* SNAPSHOT: not by a child process, those did not end well lately */
    uint64_t index;    /* COMMAND: of its entry. Queries, SNAPSHOT: the last applied one */
    uint64_t term;
    uint64_t time_ms; /* replicated time, ms since 1970; queries: of the last applied entry */
    uint64_t token;   /* the node's own, to find the caller again */
    size_t input_offset; /* in batch->input */
    size_t input_size;
    struct cargo *cargo; /* RESTORE: the host's; owned */

    enum apply_outcome outcome;
    size_t output_offset; /* in batch->output */
    size_t output_size;
};

struct apply_batch {
    struct apply_item *items;
    uint32_t count;
    uint32_t capacity;
    struct buffer input;
    struct buffer output;
    uint32_t left; /* items at the end that were not run, for there is much output already */
    bool more;     /* another batch follows, with what was left of this one */
    struct apply_batch *next; /* of whoever owns the batch */
};

struct apply_batch *apply_batch_new(void);
void apply_batch_free(struct apply_batch *batch);
void apply_batch_clear(struct apply_batch *batch); /* empty, to be filled again */

/* A new item at the end, its input copied; the rest zeroed. Borrowed until the next add. */
struct apply_item *apply_batch_add(struct apply_batch *batch, enum apply_kind kind,
                                   struct span input);
/* Take what is left of a batch out of it, as a batch of its own. */
struct apply_batch *apply_batch_split(struct apply_batch *batch);
static inline struct span apply_item_input(const struct apply_batch *batch,
                                           const struct apply_item *item) {
    return (struct span){batch->input.bytes + item->input_offset, item->input_size};
}
static inline struct span apply_item_output(const struct apply_batch *batch,
                                            const struct apply_item *item) {
    return (struct span){batch->output.bytes + item->output_offset, item->output_size};
}

#endif
