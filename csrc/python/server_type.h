/* raftpico._core.Server: a running member for Python; raftpico.Server wraps it. */
#ifndef RAFTPICO_PYTHON_SERVER_TYPE_H
#define RAFTPICO_PYTHON_SERVER_TYPE_H

#include "python/module.h"

/* The type, a new reference; NULL with an exception set. */
PyTypeObject *server_type_new(PyObject *module);

#endif
