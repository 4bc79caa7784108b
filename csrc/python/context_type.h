/* ApplyContext, the first argument of machine.apply(): what a machine may know beside its
 * input.
 *
 * Everything in it is replicated, so that all members see the same. An object is used again for
 * the next item where nobody kept it. */
#ifndef RAFTPICO_PYTHON_CONTEXT_TYPE_H
#define RAFTPICO_PYTHON_CONTEXT_TYPE_H

#include "node/batch.h"
#include "python/module.h"

/* The type, a new reference; NULL with an exception set. */
PyTypeObject *context_type_new(PyObject *module);

/* Make *context that of `item`: changed in place where we hold the only reference, else a new
 * one. -1 with an exception set, and *context as it was. */
int context_prepare(struct module_state *state, PyObject **context,
                    const struct apply_item *item);

#endif
