/* The table of exceptions; see errors.h. */
#include "python/errors.h"

#include "base/assert.h"

/* Where the exception of a status is found: in raftpico.errors, or among Python's own. */
struct error_source {
    const char *name;
    bool builtin;
};

static struct error_source source_of(enum status status) {
    switch (status) {
    case STATUS_NO_MEMORY:
        return (struct error_source){"MemoryError", true};
    case STATUS_IO:
    case STATUS_NO_SPACE:
        return (struct error_source){"StorageFailure", false};
    case STATUS_CORRUPT:
        return (struct error_source){"DataCorrupt", false};
    case STATUS_LOCKED:
        return (struct error_source){"InUse", false};
    case STATUS_MISMATCH:
        return (struct error_source){"DataMismatch", false};
    case STATUS_INVALID:
        return (struct error_source){"ValueError", true};
    case STATUS_CLOSED:
        return (struct error_source){"ServerClosed", false};
    case STATUS_TIMEOUT:
        return (struct error_source){"RequestTimeout", false};
    case STATUS_OK:
    case STATUS_NOT_FOUND:
    case STATUS_PYTHON:
        break;
    }
    return (struct error_source){"ServerError", false};
}

int errors_load(struct module_state *state, PyObject *errors) {
    PyObject *builtins = PyEval_GetBuiltins(); /* borrowed */
    for (int status = 0; status < STATUS_PYTHON; status++) {
        struct error_source source = source_of((enum status)status);
        PyObject *type = source.builtin ? PyMapping_GetItemString(builtins, source.name)
                                        : PyObject_GetAttrString(errors, source.name);
        if (type == NULL) {
            return -1;
        }
        state->exceptions[status] = type;
    }
    return 0;
}

PyObject *errors_raise(struct module_state *state, enum status status, const char *text) {
    if (status == STATUS_PYTHON) {
        ASSERT(PyErr_Occurred() != NULL);
        return NULL;
    }
    const char *shown = text != NULL && text[0] != '\0' ? text : status_name(status);
    PyObject *message = PyUnicode_DecodeUTF8(shown, (Py_ssize_t)strlen(shown), "replace");
    if (message != NULL) {
        PyErr_SetObject(state->exceptions[status], message);
        Py_DECREF(message);
    }
    return NULL;
}

PyObject *errors_take(void) {
    ASSERT(PyErr_Occurred() != NULL);
#if PY_VERSION_HEX >= 0x030C0000
    return PyErr_GetRaisedException();
#else
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL) {
        PyException_SetTraceback(value, traceback);
    }
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return value;
#endif
}

void errors_give_back(PyObject *exception) {
#if PY_VERSION_HEX >= 0x030C0000
    PyErr_SetRaisedException(exception);
#else
    PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
    Py_DECREF(exception);
#endif
}
