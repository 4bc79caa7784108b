/* What one interpreter's import of raftpico._core holds: its types, and what it borrowed from
 * the package's Python files. There is one for each interpreter and nothing static beside it.
 *
 * Invariant: every pointer is a strong reference from the end of the module's execution to its
 * clearing. All of it is used with the GIL held. */
#ifndef RAFTPICO_PYTHON_MODULE_H
#define RAFTPICO_PYTHON_MODULE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "base/status.h"
#include "python/value.h"

#define APPLY_KINDS 3 /* that reach machine.apply(): command and both queries */

struct module_state {
    PyTypeObject *server_type;
    PyTypeObject *context_type;
    PyObject *kinds[APPLY_KINDS]; /* members of raftpico.types.ApplyKind, by enum apply_kind */
    PyObject *no_output;          /* raftpico.types.NO_OUTPUT */
    PyObject *invalid_input;      /* raftpico.errors.InvalidInput */
    PyObject *exceptions[STATUS_PYTHON]; /* the exception type of each status; see errors.c */
    PyObject *random_type;               /* random.Random */
    PyObject *is_generator_function;     /* inspect.isgeneratorfunction */
    PyObject *log_raised;                /* raftpico._log.log_raised */
    PyObject *describe_raised;           /* raftpico._log.describe_raised */
    struct key_cache keys;
};

/* The state of the module that `type` belongs to. Never fails for a type of ours. */
struct module_state *module_state_of(PyTypeObject *type);

#endif
