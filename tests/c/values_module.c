/* A module that offers only the values' way in and out, for tests/test_values.py: loads(bytes)
 * and dumps(value) -> bytes, as value_read and value_write have them. */
#include "python/module.h"

#include "base/buffer.h"
#include "python/value.h"

PyMODINIT_FUNC PyInit_values_module(void);

static PyObject *loads(PyObject *module, PyObject *text) {
    char *bytes;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(text, &bytes, &size) < 0) {
        return NULL;
    }
    /* A block of exactly its size: a bytes object has a NUL behind its content. */
    char *copy = PyMem_RawMalloc(size > 0 ? (size_t)size : 1);
    if (copy == NULL) {
        return PyErr_NoMemory();
    }
    memcpy(copy, bytes, (size_t)size);
    PyObject *value = value_read(PyModule_GetState(module), (struct span){copy, (size_t)size});
    PyMem_RawFree(copy);
    return value;
}

static PyObject *dumps(PyObject *module, PyObject *value) {
    (void)module;
    char reason[VALUE_REASON_BYTES] = "";
    struct buffer out = {0};
    PyObject *bytes = NULL;
    buffer_append_text(&out, "before");
    enum status status = value_write(&out, value, reason);
    if (status == STATUS_OK) {
        buffer_consume(&out, strlen("before"));
        bytes = PyBytes_FromStringAndSize(buffer_peek(&out), (Py_ssize_t)buffer_count(&out));
    } else if (!span_equal(buffer_span(&out), SPAN("before"))) {
        PyErr_SetString(PyExc_AssertionError, "a failure left something behind");
    } else if (status == STATUS_INVALID) {
        PyErr_SetString(PyErr_Occurred() ? PyExc_AssertionError : PyExc_ValueError, reason);
    }
    buffer_free(&out);
    return bytes;
}

/* How long one call takes without the way into the module: turns(bytes or value, count). */
static PyObject *loads_turns(PyObject *module, PyObject *args) {
    const char *bytes;
    Py_ssize_t size;
    long count;
    if (!PyArg_ParseTuple(args, "y#l", &bytes, &size, &count)) {
        return NULL;
    }
    for (long i = 0; i < count; i++) {
        PyObject *value =
            value_read(PyModule_GetState(module), (struct span){bytes, (size_t)size});
        if (value == NULL) {
            return NULL;
        }
        Py_DECREF(value);
    }
    Py_RETURN_NONE;
}

static PyObject *dumps_turns(PyObject *module, PyObject *args) {
    (void)module;
    char reason[VALUE_REASON_BYTES];
    struct buffer out = {0};
    PyObject *value;
    long count;
    if (!PyArg_ParseTuple(args, "Ol", &value, &count)) {
        return NULL;
    }
    for (long i = 0; i < count; i++) {
        buffer_clear(&out);
        if (value_write(&out, value, reason) != STATUS_OK) {
            buffer_free(&out);
            PyErr_SetString(PyExc_ValueError, reason);
            return NULL;
        }
    }
    buffer_free(&out);
    Py_RETURN_NONE;
}

static PyMethodDef METHODS[] = {
    {"loads", loads, METH_O, NULL},
    {"dumps", dumps, METH_O, NULL},
    {"loads_turns", loads_turns, METH_VARARGS, NULL},
    {"dumps_turns", dumps_turns, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static int module_clear(PyObject *module) {
    struct module_state *state = PyModule_GetState(module);
    key_cache_clear(&state->keys);
    return 0;
}

static void module_free(void *module) {
    module_clear(module);
}

static struct PyModuleDef DEFINITION = {
    PyModuleDef_HEAD_INIT,
    .m_name = "values_module",
    .m_size = sizeof(struct module_state), /* zeroed: an empty key cache */
    .m_methods = METHODS,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit_values_module(void) {
    return PyModuleDef_Init(&DEFINITION);
}
