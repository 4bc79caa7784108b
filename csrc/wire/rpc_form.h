/* Reading the requests of clients that send the same one over and over.
 *
 * Most of what comes is one request many times, with another id and another input: the text
 * around these is the same, byte for byte. A form is such a text, taken from a line that was
 * read in whole, with holes where the values stood that vary. A line that has the same text and
 * in each hole one valid value of the kind that stood there is the same request with other
 * values: JSON's grammar is context free, so the rest of the line needs no second look. The
 * values in the holes are validated like any other.
 *
 * Invariant: what comes out is, in every field, what rpc_read makes of the line (tests/fuzz/
 * fuzz_wire.c holds the two against each other). */
#ifndef RAFTPICO_WIRE_RPC_FORM_H
#define RAFTPICO_WIRE_RPC_FORM_H

#include "wire/rpc.h"

#ifndef RPC_FORMS
#define RPC_FORMS 4 /* kept, for clients that take turns */
#endif
#define RPC_FORM_HOLES_MAX 4        /* id, input, session and seq, or id, input and min_index */
#define RPC_FORM_TEXT_BYTES_MAX 240 /* of the text around the holes */
#define RPC_FORM_LINE_BYTES_MAX 16384u /* longer ones gain nothing, and could be made to cost */

/* What stands in a hole. */
enum rpc_hole {
    RPC_HOLE_ID,
    RPC_HOLE_INPUT,
    RPC_HOLE_SESSION,
    RPC_HOLE_SEQ,
    RPC_HOLE_MIN_INDEX,
};

struct rpc_form {
    unsigned holes;                         /* 0: nothing is kept here */
    enum rpc_hole hole[RPC_FORM_HOLES_MAX]; /* in their order in the line */
    size_t piece[RPC_FORM_HOLES_MAX + 1];   /* bytes of text before each, and behind the last */
    bool notification;
    enum rpc_apply_kind kind;
    bool index;
    uint64_t max_staleness_ms;
    char text[RPC_FORM_TEXT_BYTES_MAX]; /* the pieces, one behind the other */
};

/* All zeros: nothing was read yet. */
struct rpc_forms {
    struct rpc_form forms[RPC_FORMS];
    unsigned latest; /* the one that fitted last: tried first */
    unsigned next;   /* the one to be replaced */
    unsigned misses; /* requests that could have had a form, and fitted none */
};

/* rpc_read, faster for a line like one before it. */
enum rpc_shape rpc_forms_read(struct rpc_forms *forms, struct span line,
                              struct rpc_request *request, struct span *batch);

#endif
