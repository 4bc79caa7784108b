/* Reading the requests of clients that send the same one over and over.
 *
 * Most of what comes is one request many times, with another id and another input: the text
 * around these is the same, byte for byte. A form is such a text, taken from a line that was
 * read in whole, with holes where the values stood that vary. A line that has the same text and
 * in each hole one valid value of the kind that stood there is the same request with other
 * values: JSON's grammar is context free, so the rest of the line needs no second look. The
 * values in the holes are validated like any other.
 *
 * The forms are those of all clients. One that is of use stays: a form makes way for a new one
 * only when others' lines have fitted none, often enough, since lines fitted it. A line that
 * fits none costs little more than without forms.
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
#define RPC_FORM_LINE_BYTES_MAX 4096u /* longer ones gain next to nothing */

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
    unsigned use;                           /* lines that fitted, less chances to replace it */
    bool notification;
    enum rpc_apply_kind kind;
    bool index;
    uint64_t max_staleness_ms;
    size_t bytes;                       /* of text in all */
    char text[RPC_FORM_TEXT_BYTES_MAX]; /* the pieces, one behind the other */
};

/* All zeros: nothing was read yet. */
struct rpc_forms {
    struct rpc_form forms[RPC_FORMS];
    unsigned latest; /* the one that fitted last: tried first */
    unsigned next;   /* the one to make way, if it is of no use any more */
    uint32_t
        dice; /* thrown for a line that fits none: nobody is in step with what is learned */
};

/* rpc_read, faster for a line like one before it. */
enum rpc_shape rpc_forms_read(struct rpc_forms *forms, struct span line,
                              struct rpc_request *request, struct span *batch);

#endif
