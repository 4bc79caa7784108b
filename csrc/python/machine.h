/* The user's machine as the apply thread sees it: the one entry into Python, a batch at a time.
 */
#ifndef RAFTPICO_PYTHON_MACHINE_H
#define RAFTPICO_PYTHON_MACHINE_H

#include <stdbool.h>

#include "node/batch.h"
#include "python/module.h"

struct server; /* server/server.h */

struct machine {
    struct module_state *state; /* borrowed from the module, which our type keeps alive */
    struct server *server;      /* borrowed: whose machine it is */
    PyObject *object;           /* the user's */
    PyObject *apply;            /* object.apply, bound once */
    PyObject *notice;           /* called with a dict for each notice; NULL for none */
    PyObject *commands;    /* frozenset of names that change the machine; NULL: not declared */
    PyObject *queries;     /* frozenset of names that do not; NULL: not declared */
    PyObject *usual_query; /* a name that passed as a query's; NULL: none yet */
    PyObject *context;     /* the ApplyContext of the last item, for the next one */
    bool pieces;           /* snapshot() is a generator function */
    bool snapshot_in_process; /* snapshot() must not run in a child process */
};

/* Read what the object offers. `machine` must be zeroed. -1 with an exception set. */
int machine_init(struct machine *machine, struct module_state *state, PyObject *object,
                 PyObject *notice);
int machine_traverse(struct machine *machine, visitproc visit, void *arg);
void machine_clear(struct machine *machine);

/* Run the items in their order and write outcomes and outputs into the batch. Call with the
 * GIL.
 *
 * STATUS_PYTHON: an exception is set, and the machine's state is not what the log says (it was
 * interrupted, or could not be restored): the batch must not be given back. */
enum status machine_run(struct machine *machine, struct apply_batch *batch) MUST_USE;

#endif
