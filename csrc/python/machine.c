/* Items of a batch, one after the other, into Python and back; see machine.h.
 *
 * Invariant: whatever apply() does with a committed entry is an outcome of that entry - a
 * value, a refusal, an exception - and the same on every member, so the log goes on. The
 * exceptions to this are what other members do not see: an interrupt by a signal, and no memory
 * for the input. */
#include "python/machine.h"

#include "base/assert.h"
#include "base/limits.h"
#include "python/context_type.h"
#include "python/errors.h"
#include "python/snapshot.h"

#define REASON_CHARACTERS_MAX 1000

/* --- what the object offers --- */

/* object.<name> as a frozenset of strings; NULL without an exception where it is None or not
 * there. */
static PyObject *load_names(PyObject *object, const char *name) {
    PyObject *value = PyObject_GetAttrString(object, name);
    if (value == NULL) {
        if (PyErr_ExceptionMatches(PyExc_AttributeError)) {
            PyErr_Clear();
        }
        return NULL;
    }
    PyObject *names = NULL;
    if (PyUnicode_Check(value)) {
        PyErr_Format(PyExc_TypeError, "%s must be a collection of names, not one string", name);
    } else if (value != Py_None) {
        names = PyFrozenSet_New(value);
    }
    Py_DECREF(value);
    return names;
}

/* Whether the class's snapshot() yields pieces; -1 with an exception. */
static int has_pieces(struct module_state *state, PyObject *object) {
    PyObject *snapshot = PyObject_GetAttrString((PyObject *)Py_TYPE(object), "snapshot");
    if (snapshot == NULL) {
        return -1;
    }
    PyObject *answer = PyObject_CallOneArg(state->is_generator_function, snapshot);
    Py_DECREF(snapshot);
    if (answer == NULL) {
        return -1;
    }
    int yes = PyObject_IsTrue(answer);
    Py_DECREF(answer);
    return yes;
}

/* object.<name> as a truth value, false where it is not there; -1 with an exception. */
static int load_flag(PyObject *object, const char *name) {
    PyObject *value = PyObject_GetAttrString(object, name);
    if (value == NULL && PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear();
        return 0;
    }
    int yes = value != NULL ? PyObject_IsTrue(value) : -1;
    Py_XDECREF(value);
    return yes;
}

static int load(struct machine *machine, PyObject *object) {
    machine->apply = PyObject_GetAttrString(object, "apply");
    if (machine->apply == NULL) {
        return -1;
    }
    int pieces = has_pieces(machine->state, object);
    if (pieces < 0) {
        return -1;
    }
    machine->pieces = pieces > 0;
    int in_process = load_flag(object, "snapshot_in_process");
    if (in_process < 0) {
        return -1;
    }
    machine->snapshot_in_process = in_process > 0;
    machine->commands = load_names(object, "commands");
    if (PyErr_Occurred()) {
        return -1;
    }
    machine->queries = load_names(object, "queries");
    return PyErr_Occurred() ? -1 : 0;
}

int machine_init(struct machine *machine, struct module_state *state, PyObject *object,
                 PyObject *notice) {
    machine->state = state;
    machine->object = Py_NewRef(object);
    machine->notice = notice == Py_None ? NULL : Py_NewRef(notice);
    if (load(machine, object) < 0) {
        machine_clear(machine);
        return -1;
    }
    return 0;
}

int machine_traverse(struct machine *machine, visitproc visit, void *arg) {
    Py_VISIT(machine->object);
    Py_VISIT(machine->apply);
    Py_VISIT(machine->notice);
    Py_VISIT(machine->commands);
    Py_VISIT(machine->queries);
    Py_VISIT(machine->usual_query);
    Py_VISIT(machine->context);
    return 0;
}

void machine_clear(struct machine *machine) {
    Py_CLEAR(machine->object);
    Py_CLEAR(machine->apply);
    Py_CLEAR(machine->notice);
    Py_CLEAR(machine->commands);
    Py_CLEAR(machine->queries);
    Py_CLEAR(machine->usual_query);
    Py_CLEAR(machine->context);
}

/* --- outcomes that are not a value --- */

/* Append a string as JSON text. One that cannot be written becomes "". */
static void append_string(struct buffer *out, PyObject *string) {
    char reason[256];
    size_t size = out->size;
    if (string == NULL || value_write(out, string, reason) != STATUS_OK) {
        PyErr_Clear();
        out->size = size;
        buffer_append_text(out, "\"\"");
    }
}

/* The item failed in a way that has only a reason: {"reason":...}. */
static void refuse(struct apply_batch *batch, struct apply_item *item,
                   enum apply_outcome outcome, PyObject *reason) {
    item->outcome = outcome;
    batch->output.size = item->output_offset;
    if (item->wants_output) {
        buffer_append_text(&batch->output, "{\"reason\":");
        append_string(&batch->output, reason);
        buffer_append_char(&batch->output, '}');
    }
}

static void refuse_text(struct apply_batch *batch, struct apply_item *item,
                        enum apply_outcome outcome, const char *text) {
    PyObject *reason = PyUnicode_DecodeUTF8(text, (Py_ssize_t)strlen(text), "replace");
    refuse(batch, item, outcome, reason);
    Py_XDECREF(reason);
    PyErr_Clear();
}

/* str(exception), cut to a bound; NULL without an exception where that fails itself. */
static PyObject *reason_of(PyObject *exception) {
    PyObject *text = PyObject_Str(exception);
    if (text != NULL && PyUnicode_GET_LENGTH(text) > REASON_CHARACTERS_MAX) {
        Py_SETREF(text, PyUnicode_Substring(text, 0, REASON_CHARACTERS_MAX));
    }
    PyErr_Clear();
    return text;
}

/* {"type":...,"reason":...} */
static void write_raised(struct buffer *out, PyObject *exception) {
    PyObject *type = PyType_GetName(Py_TYPE(exception));
    PyObject *reason = reason_of(exception);
    PyErr_Clear();
    buffer_append_text(out, "{\"type\":");
    append_string(out, type);
    buffer_append_text(out, ",\"reason\":");
    append_string(out, reason);
    buffer_append_char(out, '}');
    Py_XDECREF(type);
    Py_XDECREF(reason);
}

static void log_raised(struct machine *machine, const struct apply_item *item,
                       PyObject *exception) {
    PyObject *done = PyObject_CallFunction(machine->state->log_raised, "OKi", exception,
                                           (unsigned long long)item->index, (int)item->kind);
    if (done == NULL) {
        PyErr_WriteUnraisable(machine->state->log_raised);
    }
    Py_XDECREF(done);
}

/* The exception that is set becomes the item's outcome; SystemExit and the like too, else one
 * request could end every member, at each start. An interrupt does not: it came from outside,
 * in the middle of apply(), on this member alone. */
static enum status take_raised(struct machine *machine, struct apply_batch *batch,
                               struct apply_item *item) {
    PyObject *exception = errors_take();
    if (PyErr_GivenExceptionMatches(exception, PyExc_KeyboardInterrupt)) {
        errors_give_back(exception);
        return STATUS_PYTHON;
    }
    if (PyErr_GivenExceptionMatches(exception, machine->state->invalid_input)) {
        PyObject *reason = reason_of(exception);
        refuse(batch, item, APPLY_INVALID_INPUT, reason);
        Py_XDECREF(reason);
    } else {
        item->outcome = APPLY_RAISED;
        batch->output.size = item->output_offset;
        if (item->wants_output) {
            write_raised(&batch->output, exception);
        }
        log_raised(machine, item, exception);
    }
    Py_DECREF(exception);
    return STATUS_OK;
}

/* --- apply() --- */

/* The input is JSON that Python cannot hold (1e400): the same on every member, so an outcome.
 */
static enum status take_unreadable(struct apply_batch *batch, struct apply_item *item) {
    if (!PyErr_ExceptionMatches(PyExc_ValueError)) {
        return STATUS_PYTHON;
    }
    PyObject *exception = errors_take();
    PyObject *reason = reason_of(exception);
    refuse(batch, item, APPLY_INVALID_INPUT, reason);
    Py_XDECREF(reason);
    Py_DECREF(exception);
    return STATUS_OK;
}

/* An input's names are the keys of an object, or a string itself. Returns whether one is in
 * `names`, -1 with an exception. */
static int has_name(PyObject *names, PyObject *input) {
    if (PyUnicode_Check(input)) {
        return PySet_Contains(names, input);
    }
    PyObject *key, *value;
    Py_ssize_t at = 0;
    while (PyDict_Check(input) && PyDict_Next(input, &at, &key, &value)) {
        int found = PySet_Contains(names, key);
        if (found != 0) {
            return found;
        }
    }
    return 0;
}

/* The only key of an object, borrowed; NULL where it has none or several, or is no object. The
 * same key is mostly the same Python object, see key_cache.h. */
static PyObject *only_key(PyObject *input) {
    PyObject *key = NULL, *value;
    Py_ssize_t at = 0;
    bool one =
        PyDict_Check(input) && PyDict_Size(input) == 1 && PyDict_Next(input, &at, &key, &value);
    return one ? key : NULL;
}

/* NULL where the machine's declarations let the input pass as a query, else why not. */
static const char *why_no_query(struct machine *machine, PyObject *input) {
    PyObject *name = only_key(input);
    if (name != NULL && name == machine->usual_query) {
        return NULL;
    }
    if (machine->commands != NULL && has_name(machine->commands, input) != 0) {
        return "this is a command: send it with the kind \"Command\"";
    }
    if (machine->queries != NULL && has_name(machine->queries, input) != 1) {
        return "this is not one of the machine's queries";
    }
    if (name != NULL && (machine->commands != NULL || machine->queries != NULL)) {
        Py_XSETREF(machine->usual_query, Py_NewRef(name));
    }
    return NULL;
}

static void take_output(struct machine *machine, struct apply_batch *batch,
                        struct apply_item *item, PyObject *output) {
    char reason[256] = "";
    item->outcome = APPLY_DONE;
    if (output == machine->state->no_output) {
        item->outcome = APPLY_NO_OUTPUT;
    } else if (item->wants_output) {
        enum status status = value_write(&batch->output, output, reason);
        if (status == STATUS_PYTHON) {
            PyErr_Clear();
            refuse_text(batch, item, APPLY_INVALID_OUTPUT, "the output could not be written");
        } else if (status != STATUS_OK) {
            refuse_text(batch, item, APPLY_INVALID_OUTPUT, reason);
        }
    }
}

static enum status call_apply(struct machine *machine, struct apply_batch *batch,
                              struct apply_item *item, PyObject *input) {
    if (context_prepare(machine->state, &machine->context, item) < 0) {
        return STATUS_PYTHON;
    }
    PyObject *arguments[3] = {NULL, machine->context, input};
    PyObject *output = PyObject_Vectorcall(machine->apply, arguments + 1,
                                           2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    if (output == NULL) {
        return take_raised(machine, batch, item);
    }
    take_output(machine, batch, item, output);
    Py_DECREF(output);
    return STATUS_OK;
}

static enum status run_apply(struct machine *machine, struct apply_batch *batch,
                             struct apply_item *item) {
    PyObject *input = value_read(machine->state, apply_item_input(batch, item));
    if (input == NULL) {
        return take_unreadable(batch, item);
    }
    const char *refusal = item->kind == APPLY_COMMAND ? NULL : why_no_query(machine, input);
    enum status status = STATUS_OK;
    if (refusal != NULL) {
        PyErr_Clear();
        refuse_text(batch, item, APPLY_INVALID_INPUT, refusal);
    } else {
        status = call_apply(machine, batch, item, input);
    }
    Py_DECREF(input);
    return status;
}

/* --- the state, for people to look at; snapshot.c has the one that is kept --- */

/* One piece, one line. -1 with an exception. */
static int write_piece(struct buffer *out, PyObject *piece) {
    char reason[256] = "";
    enum status status = value_write(out, piece, reason);
    if (status == STATUS_INVALID) {
        PyErr_Format(PyExc_TypeError, "snapshot() did not give JSON: %s", reason);
    }
    if (status != STATUS_OK) {
        return -1;
    }
    buffer_append_char(out, '\n');
    return 0;
}

static int write_pieces(struct buffer *out, PyObject *generator) {
    PyObject *piece;
    while ((piece = PyIter_Next(generator)) != NULL) {
        int written = write_piece(out, piece);
        Py_DECREF(piece);
        if (written < 0) {
            return -1;
        }
    }
    return PyErr_Occurred() ? -1 : 0;
}

static enum status run_state(struct machine *machine, struct apply_batch *batch,
                             struct apply_item *item) {
    PyObject *state = PyObject_CallMethod(machine->object, "snapshot", NULL);
    int written = -1;
    if (state != NULL) {
        written = machine->pieces ? write_pieces(&batch->output, state)
                                  : write_piece(&batch->output, state);
        Py_DECREF(state);
    }
    if (written < 0) {
        return take_raised(machine, batch, item);
    }
    item->outcome = APPLY_DONE;
    return STATUS_OK;
}

/* --- notices --- */

static enum status run_notice(struct machine *machine, struct apply_batch *batch,
                              struct apply_item *item) {
    item->outcome = APPLY_DONE;
    if (machine->notice == NULL) {
        return STATUS_OK;
    }
    PyObject *notice = value_read(machine->state, apply_item_input(batch, item));
    PyObject *done = notice != NULL ? PyObject_CallOneArg(machine->notice, notice) : NULL;
    Py_XDECREF(notice);
    Py_XDECREF(done);
    if (done == NULL && !PyErr_ExceptionMatches(PyExc_Exception)) {
        return STATUS_PYTHON;
    }
    if (done == NULL) {
        PyErr_WriteUnraisable(machine->notice);
    }
    return STATUS_OK;
}

static enum status run_item(struct machine *machine, struct apply_batch *batch,
                            struct apply_item *item) {
    switch (item->kind) {
    case APPLY_COMMAND:
    case APPLY_QUERY:
    case APPLY_LOCAL_QUERY:
        return run_apply(machine, batch, item);
    case APPLY_STATE:
        return run_state(machine, batch, item);
    case APPLY_SNAPSHOT:
        return snapshot_take(machine, batch, item);
    case APPLY_RESTORE:
        return snapshot_restore(machine, item);
    case APPLY_NOTICE:
        return run_notice(machine, batch, item);
    }
    ASSERT(false);
    return STATUS_OK;
}

enum status machine_run(struct machine *machine, struct apply_batch *batch) {
    for (uint32_t at = 0; at < batch->count; at++) {
        struct apply_item *item = &batch->items[at];
        ASSERT(batch->output.start == 0);
        item->output_offset = batch->output.size;
        enum status status = run_item(machine, batch, item);
        if (status != STATUS_OK) {
            return status;
        }
        ASSERT(!PyErr_Occurred());
        item->output_size = batch->output.size - item->output_offset;
        if (batch->output.size > APPLY_OUTPUT_BYTES_MAX) {
            batch->left = batch->count - at - 1; /* comes again, when this is on its way */
            break;
        }
    }
    return STATUS_OK;
}
