/* The module raftpico._core: its state, its functions, its set-up; see module.h.
 *
 * Multi-phase initialisation, so that each interpreter has a module of its own. The
 * free-threaded build is served with its lock switched on: the key cache and the members of
 * Server count on it. */
#include "python/module.h"

#include "base/limits.h"
#include "python/context_type.h"
#include "python/errors.h"
#include "python/server_type.h"
#include "python/stored.h"

static struct module_state *state_of(PyObject *module) {
    return PyModule_GetState(module);
}

struct module_state *module_state_of(PyTypeObject *type) {
    struct module_state *state = PyType_GetModuleState(type);
    ASSERT(state != NULL);
    return state;
}

/* --- JSON for the package's Python files --- */

PyDoc_STRVAR(dumps_doc, "dumps(value, /)\n--\n\n"
                        "The value as compact JSON text (bytes), exactly: 0.1 stays 0.1, "
                        "integers have any size.\n\n"
                        "Raises ValueError for what JSON cannot hold.");

static PyObject *module_dumps(PyObject *module, PyObject *value) {
    char reason[256] = "";
    struct buffer text;
    buffer_init(&text);
    enum status status = value_write(&text, value, reason);
    PyObject *result =
        status == STATUS_OK
            ? PyBytes_FromStringAndSize(buffer_peek(&text), (Py_ssize_t)buffer_count(&text))
            : errors_raise(state_of(module), status, reason);
    buffer_free(&text);
    return result;
}

PyDoc_STRVAR(loads_doc,
             "loads(text, /)\n--\n\n"
             "The value of JSON text (str or bytes).\n\n"
             "Raises ValueError where it is none, or where Python cannot hold it (1e400).");

static PyObject *module_loads(PyObject *module, PyObject *text) {
    if (PyUnicode_Check(text)) {
        Py_ssize_t size;
        const char *bytes = PyUnicode_AsUTF8AndSize(text, &size);
        return bytes != NULL ? value_read(state_of(module), (struct span){bytes, (size_t)size})
                             : NULL;
    }
    Py_buffer view;
    if (PyObject_GetBuffer(text, &view, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    PyObject *value = value_read(state_of(module), (struct span){view.buf, (size_t)view.len});
    PyBuffer_Release(&view);
    return value;
}

static PyMethodDef module_methods[] = {
    {"dumps", module_dumps, METH_O, dumps_doc},
    {"loads", module_loads, METH_O, loads_doc},
    {0},
};

/* --- set-up --- */

/* <module>.<name>, a new reference. */
static PyObject *import_from(const char *module_name, const char *name) {
    PyObject *module = PyImport_ImportModule(module_name);
    if (module == NULL) {
        return NULL;
    }
    PyObject *value = PyObject_GetAttrString(module, name);
    Py_DECREF(module);
    return value;
}

static int load_kinds(struct module_state *state) {
    static const char *const names[APPLY_KINDS] = {
        [APPLY_COMMAND] = "COMMAND",
        [APPLY_QUERY] = "QUERY",
        [APPLY_LOCAL_QUERY] = "LOCAL_QUERY",
    };
    PyObject *type = import_from("raftpico.types", "ApplyKind");
    for (int kind = 0; type != NULL && kind < APPLY_KINDS; kind++) {
        state->kinds[kind] = PyObject_GetAttrString(type, names[kind]);
        if (state->kinds[kind] == NULL) {
            Py_CLEAR(type);
        }
    }
    Py_XDECREF(type);
    return type != NULL ? 0 : -1;
}

static int load_errors(struct module_state *state) {
    PyObject *errors = PyImport_ImportModule("raftpico.errors");
    if (errors == NULL) {
        return -1;
    }
    int loaded = errors_load(state, errors);
    Py_DECREF(errors);
    return loaded;
}

static int load_imports(struct module_state *state) {
    if (load_kinds(state) < 0 || load_errors(state) < 0) {
        return -1;
    }
    const struct {
        PyObject **place;
        const char *module_name, *name;
    } imports[] = {
        {&state->no_output, "raftpico.types", "NO_OUTPUT"},
        {&state->invalid_input, "raftpico.errors", "InvalidInput"},
        {&state->random_type, "random", "Random"},
        {&state->is_generator_function, "inspect", "isgeneratorfunction"},
        {&state->log_raised, "raftpico._log", "log_raised"},
        {&state->describe_raised, "raftpico._log", "describe_raised"},
    };
    for (size_t at = 0; at < sizeof(imports) / sizeof(imports[0]); at++) {
        *imports[at].place = import_from(imports[at].module_name, imports[at].name);
        if (*imports[at].place == NULL) {
            return -1;
        }
    }
    return 0;
}

static int add_types(PyObject *module, struct module_state *state) {
    state->server_type = server_type_new(module);
    state->context_type = context_type_new(module);
    if (state->server_type == NULL || state->context_type == NULL) {
        return -1;
    }
    if (PyModule_AddType(module, state->server_type) < 0) {
        return -1;
    }
    return PyModule_AddType(module, state->context_type);
}

static int module_exec(PyObject *module) {
    struct module_state *state = state_of(module);
    key_cache_init(&state->keys);
    if (load_imports(state) < 0 || add_types(module, state) < 0) {
        return -1;
    }
    if (PyModule_AddFunctions(module, stored_methods) < 0) {
        return -1;
    }
    return PyModule_AddIntConstant(module, "LINE_BYTES_MAX", LINE_BYTES_MAX);
}

static int module_traverse(PyObject *module, visitproc visit, void *arg) {
    struct module_state *state = state_of(module);
    Py_VISIT(state->server_type);
    Py_VISIT(state->context_type);
    for (int kind = 0; kind < APPLY_KINDS; kind++) {
        Py_VISIT(state->kinds[kind]);
    }
    for (int status = 0; status < STATUS_PYTHON; status++) {
        Py_VISIT(state->exceptions[status]);
    }
    Py_VISIT(state->no_output);
    Py_VISIT(state->invalid_input);
    Py_VISIT(state->random_type);
    Py_VISIT(state->is_generator_function);
    Py_VISIT(state->log_raised);
    Py_VISIT(state->describe_raised);
    return 0;
}

static int module_clear(PyObject *module) {
    struct module_state *state = state_of(module);
    Py_CLEAR(state->server_type);
    Py_CLEAR(state->context_type);
    for (int kind = 0; kind < APPLY_KINDS; kind++) {
        Py_CLEAR(state->kinds[kind]);
    }
    for (int status = 0; status < STATUS_PYTHON; status++) {
        Py_CLEAR(state->exceptions[status]);
    }
    Py_CLEAR(state->no_output);
    Py_CLEAR(state->invalid_input);
    Py_CLEAR(state->random_type);
    Py_CLEAR(state->is_generator_function);
    Py_CLEAR(state->log_raised);
    Py_CLEAR(state->describe_raised);
    key_cache_clear(&state->keys);
    return 0;
}

static void module_free(void *module) {
    module_clear(module);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030D0000
    {Py_mod_gil, Py_MOD_GIL_USED},
#endif
    {0, NULL},
};

PyDoc_STRVAR(module_doc, "The engine of raftpico. Use the package raftpico instead.");

static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT,         .m_name = "raftpico._core",
    .m_doc = module_doc,           .m_size = sizeof(struct module_state),
    .m_methods = module_methods,   .m_slots = module_slots,
    .m_traverse = module_traverse, .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__core(void);

PyMODINIT_FUNC PyInit__core(void) {
    return PyModuleDef_Init(&module_definition);
}
