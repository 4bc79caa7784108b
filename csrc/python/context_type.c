/* The heap type raftpico.ApplyContext; see context_type.h.
 *
 * Invariant: `kind` is always set; `random` is made at its first use and dropped when the
 * object is used again. The object refers to nothing that can refer back to it, so it needs no
 * cyclic GC. */
#include "python/context_type.h"

#include <stddef.h>
#include <structmember.h>

#include "base/assert.h"
#include "base/limits.h"

struct context_object {
    PyObject ob_base; /* PyObject_HEAD */
    PyObject *kind;
    PyObject *random; /* NULL until asked for */
    unsigned long long index;
    unsigned long long term;
    unsigned long long time_ms; /* since 1970 */
};

STATIC_ASSERT(APPLY_COMMAND == 0 && APPLY_LOCAL_QUERY == APPLY_KINDS - 1, "kinds[] by kind");

static void fill(struct context_object *context, PyObject *kind,
                 const struct apply_item *item) {
    PyObject *old_kind = context->kind;
    context->kind = Py_NewRef(kind);
    context->index = item->index;
    context->term = item->term;
    context->time_ms = item->time_ms;
    Py_XDECREF(old_kind);
    Py_CLEAR(context->random);
}

int context_prepare(struct module_state *state, PyObject **context,
                    const struct apply_item *item) {
    ASSERT(item->kind < APPLY_KINDS);
    if (*context == NULL || Py_REFCNT(*context) != 1) {
        PyObject *fresh = state->context_type->tp_alloc(state->context_type, 0);
        if (fresh == NULL) {
            return -1;
        }
        Py_XSETREF(*context, fresh);
    }
    fill((struct context_object *)*context, state->kinds[item->kind], item);
    return 0;
}

/* For tests of machines: ApplyContext(kind=ApplyKind.COMMAND, index=0, term=0, time_ms=0). */
static PyObject *context_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static const char *const names[] = {"kind", "index", "term", "time_ms", NULL};
    struct module_state *state = module_state_of(type);
    PyObject *kind = state->kinds[APPLY_COMMAND];
    unsigned long long index = 0, term = 0, time_ms = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|OKKK:ApplyContext",
                                     (char **)(uintptr_t)names, &kind, &index, &term,
                                     &time_ms)) {
        return NULL;
    }
    if (!PyObject_TypeCheck(kind, Py_TYPE(state->kinds[APPLY_COMMAND]))) {
        PyErr_Format(PyExc_TypeError, "kind must be an ApplyKind, not %R", kind);
        return NULL;
    }
    PyObject *self = type->tp_alloc(type, 0);
    if (self != NULL) {
        struct apply_item item = {.index = index, .term = term, .time_ms = time_ms};
        fill((struct context_object *)self, kind, &item);
    }
    return self;
}

static void context_dealloc(PyObject *self) {
    struct context_object *context = (struct context_object *)self;
    PyTypeObject *type = Py_TYPE(self);
    Py_CLEAR(context->kind);
    Py_CLEAR(context->random);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *context_repr(PyObject *self) {
    struct context_object *context = (struct context_object *)self;
    return PyUnicode_FromFormat("ApplyContext(kind=%R, index=%llu, term=%llu, time_ms=%llu)",
                                context->kind, context->index, context->term, context->time_ms);
}

static PyObject *context_get_time(PyObject *self, void *closure) {
    (void)closure;
    return PyFloat_FromDouble((double)((struct context_object *)self)->time_ms / 1000.0);
}

/* random.Random(term * 2^64 + index): the same on every member, another one for each entry. */
static PyObject *context_get_random(PyObject *self, void *closure) {
    (void)closure;
    struct context_object *context = (struct context_object *)self;
    if (context->random == NULL) {
        char digits[33];
        PyOS_snprintf(digits, sizeof(digits), "%016llx%016llx", context->term, context->index);
        PyObject *seed = PyLong_FromString(digits, NULL, 16);
        if (seed == NULL) {
            return NULL;
        }
        PyObject *type = module_state_of(Py_TYPE(self))->random_type;
        context->random = PyObject_CallOneArg(type, seed);
        Py_DECREF(seed);
    }
    return Py_XNewRef(context->random);
}

static PyMemberDef context_members[] = {
    {"kind", T_OBJECT_EX, offsetof(struct context_object, kind), READONLY,
     "ApplyKind: COMMAND, QUERY or LOCAL_QUERY."},
    {"index", T_ULONGLONG, offsetof(struct context_object, index), READONLY,
     "int: the log index of the entry; in a query, of the last entry applied."},
    {"term", T_ULONGLONG, offsetof(struct context_object, term), READONLY,
     "int: the term of that entry."},
    {"time_ms", T_ULONGLONG, offsetof(struct context_object, time_ms), READONLY,
     "int: the leader's clock when it took the entry, milliseconds since 1970; never goes "
     "back."},
    {0},
};

static PyGetSetDef context_getset[] = {
    {"time", context_get_time, NULL,
     "float: time_ms in seconds. The only clock that a machine may use.", NULL},
    {"random", context_get_random, NULL,
     "random.Random: seeded by term and index, so the same on every member.", NULL},
    {0},
};

PyDoc_STRVAR(
    context_doc,
    "ApplyContext(kind=ApplyKind.COMMAND, index=0, term=0, time_ms=0)\n--\n\n"
    "What a machine may know beside its input; the same on every member.\n\n"
    "The object is valid during the call of apply() that it was given to. A machine makes\n"
    "one itself only in its tests.");

PyTypeObject *context_type_new(PyObject *module) {
    PyType_Slot slots[] = {
        {Py_tp_doc, (void *)(uintptr_t)context_doc},
        {Py_tp_new, context_new},
        {Py_tp_dealloc, context_dealloc},
        {Py_tp_repr, context_repr},
        {Py_tp_members, context_members},
        {Py_tp_getset, context_getset},
        {0},
    };
    PyType_Spec spec = {
        .name = "raftpico._core.ApplyContext",
        .basicsize = sizeof(struct context_object),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
        .slots = slots,
    };
    return (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, NULL);
}
