/* From a status to a Python exception, at one place; and an exception taken out of the thread.
 */
#ifndef RAFTPICO_PYTHON_ERRORS_H
#define RAFTPICO_PYTHON_ERRORS_H

#include "python/module.h"

/* Look the exception types up in raftpico.errors. -1 with an exception set. */
int errors_load(struct module_state *state, PyObject *errors);

/* Raise what `status` stands for, with `text` ("" or NULL: the status's name). STATUS_PYTHON
 * keeps the exception that is set. Always returns NULL. */
PyObject *errors_raise(struct module_state *state, enum status status, const char *text);

/* The exception that is set, with its traceback, and clear it; a new reference. One must be
 * set. */
PyObject *errors_take(void);

/* Set it again; the reference is taken. */
void errors_give_back(PyObject *exception);

#endif
