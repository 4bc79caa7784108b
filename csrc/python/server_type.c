/* The heap type raftpico._core.Server: owns a struct server and the machine that it runs.
 *
 * Life: __init__ opens (the address is bound then), start() starts the threads, run() is the
 * apply thread until the server has stopped, close() frees. All members are read and written
 * with the GIL held.
 *
 * Invariant: `server` is freed only when no thread is in run() (`running`) or in call()
 * (`callers`). A process that was forked off owns none of the threads, so it only leaves the
 * server alone. */
#include "python/server_type.h"

#include <stdint.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "python/errors.h"
#include "python/machine.h"
#include "server/server.h"

#define WAIT_MS 100                   /* a signal waits for run() twice so long at most */
#define CLOSE_POLL_NS (1000L * 1000L) /* while callers leave */

struct server_object {
    PyObject ob_base;      /* PyObject_HEAD */
    struct server *server; /* NULL before __init__ and after close() */
    struct machine machine;
    bool started;
    bool running;
    bool closing;
    unsigned callers;           /* threads inside call() */
    unsigned long apply_thread; /* of run(), while running */
    pid_t process;              /* that opened the server */
};

static struct server_object *of(PyObject *self) {
    return (struct server_object *)self;
}

static struct module_state *state_of(PyObject *self) {
    return module_state_of(Py_TYPE(self));
}

/* Whether the server can be used from here; raises ServerClosed otherwise. */
static bool is_open(PyObject *self) {
    if (of(self)->server == NULL || of(self)->closing) {
        errors_raise(state_of(self), STATUS_CLOSED, "the server is closed");
        return false;
    }
    if (of(self)->process != getpid()) {
        errors_raise(state_of(self), STATUS_CLOSED, "the server belongs to the parent process");
        return false;
    }
    return true;
}

static PyObject *raise_error(PyObject *self, const struct error *error, enum status status) {
    return errors_raise(state_of(self), status, error->text);
}

/* --- opening --- */

struct arguments {
    PyObject *machine;
    PyObject *notice;
    struct server_options options;
    unsigned long long segment_bytes;
    unsigned long long snapshot_log_bytes;
    unsigned long long snapshot_timeout_ms;
    unsigned long long seed;
    int insecure;
    int sync;
};

static bool parse(PyObject *args, PyObject *kwargs, struct arguments *parsed) {
    static const char *const names[] = {"machine",
                                        "address",
                                        "data",
                                        "notice",
                                        "insecure",
                                        "sync",
                                        "segment_bytes",
                                        "snapshot_log_bytes",
                                        "snapshot_timeout_ms",
                                        "seed",
                                        "request_timeout_ms",
                                        NULL};
    struct server_options *options = &parsed->options;
    if (!PyArg_ParseTupleAndKeywords(
            args, kwargs, "Osz|$OppKKKKI:Server", (char **)(uintptr_t)names, &parsed->machine,
            &options->address, &options->data_path, &parsed->notice, &parsed->insecure,
            &parsed->sync, &parsed->segment_bytes, &parsed->snapshot_log_bytes,
            &parsed->snapshot_timeout_ms, &parsed->seed, &options->request_timeout_ms)) {
        return false;
    }
    options->insecure = parsed->insecure != 0;
    options->sync = parsed->sync != 0;
    options->segment_bytes = parsed->segment_bytes;
    options->snapshot_log_bytes = parsed->snapshot_log_bytes;
    options->snapshot_timeout_ms = parsed->snapshot_timeout_ms;
    options->seed = parsed->seed;
    return true;
}

static int server_init(PyObject *self, PyObject *args, PyObject *kwargs) {
    struct arguments parsed = {.notice = Py_None, .sync = 1};
    if (!parse(args, kwargs, &parsed)) {
        return -1;
    }
    if (of(self)->machine.object != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the server is open already");
        return -1;
    }
    if (machine_init(&of(self)->machine, state_of(self), parsed.machine, parsed.notice) < 0) {
        return -1;
    }
    struct error error = {0};
    enum status status;
    Py_BEGIN_ALLOW_THREADS status = server_open(&parsed.options, &of(self)->server, &error);
    Py_END_ALLOW_THREADS if (status != STATUS_OK) {
        of(self)->server = NULL;
        machine_clear(&of(self)->machine);
        raise_error(self, &error, status);
        return -1;
    }
    of(self)->machine.server = of(self)->server;
    of(self)->process = getpid();
    return 0;
}

PyDoc_STRVAR(start_doc,
             "start()\n--\n\nStart the server's threads. run() does this by itself.");

static PyObject *server_type_start(PyObject *self, PyObject *unused) {
    (void)unused;
    if (!is_open(self)) {
        return NULL;
    }
    if (!of(self)->started) {
        struct error error = {0};
        enum status status = server_start(of(self)->server, &error);
        if (status != STATUS_OK) {
            return raise_error(self, &error, status);
        }
        of(self)->started = true;
    }
    Py_RETURN_NONE;
}

/* --- the apply thread --- */

/* Give the last batch back (if any) and wait for the next, without the GIL. */
static struct apply_batch *exchange(struct server *server, struct apply_batch *done,
                                    bool *stopped) {
    struct apply_batch *batch;
    Py_BEGIN_ALLOW_THREADS if (done != NULL) {
        server_finish_batch(server, done);
    }
    batch = server_wait_batch(server, WAIT_MS, stopped);
    Py_END_ALLOW_THREADS return batch;
}

/* A signal's handler raised: stop gracefully, and at once when it raises again. The first
 * exception is kept for the end of run(). */
static void take_signal(PyObject *self, PyObject **raised) {
    PyObject *exception = errors_take();
    server_stop(of(self)->server);
    if (*raised == NULL) {
        *raised = exception;
    } else {
        Py_DECREF(exception);
    }
}

static void stop_at_once(struct server *server) {
    server_stop(server);
    server_stop(server);
}

/* Until the server has stopped. An exception that is not an outcome ends it at once; one that a
 * signal handler raised lets it stop gracefully and is raised at the end. */
static enum status run_loop(PyObject *self, PyObject **raised) {
    struct machine *machine = &of(self)->machine;
    struct server *server = of(self)->server;
    struct apply_batch *batch = NULL;
    bool stopped = false;
    while (true) {
        if (!is_open(self)) { /* a process that apply() forked off: it must not run the loop */
            apply_batch_free(batch);
            return STATUS_PYTHON;
        }
        batch = exchange(server, batch, &stopped);
        if (PyErr_CheckSignals() < 0) {
            take_signal(self, raised);
        }
        if (batch == NULL) {
            if (stopped) {
                return STATUS_OK;
            }
            continue;
        }
        if (machine_run(machine, batch) != STATUS_OK) {
            stop_at_once(server);
            apply_batch_free(batch);
            return STATUS_PYTHON;
        }
    }
}

static PyObject *finish_run(PyObject *self, enum status status, PyObject *raised) {
    if (status == STATUS_PYTHON) {
        Py_XDECREF(raised);
        return NULL;
    }
    if (raised != NULL) {
        errors_give_back(raised);
        return NULL;
    }
    struct error error = {0};
    enum status why = server_exit_status(of(self)->server, &error);
    if (why != STATUS_OK) {
        return raise_error(self, &error, why);
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    run_doc,
    "run()\n--\n\n"
    "Be the apply thread until the server has stopped: the only one that calls the machine.\n\n"
    "Raises what made the server stop: raftpico.StorageFailure, an exception of the\n"
    "machine's restore(), one that a signal handler raised.");

static PyObject *server_type_run(PyObject *self, PyObject *unused) {
    if (!is_open(self)) {
        return NULL;
    }
    if (of(self)->running) {
        PyErr_SetString(PyExc_RuntimeError, "the server is running already");
        return NULL;
    }
    PyObject *started = server_type_start(self, unused);
    if (started == NULL) {
        return NULL;
    }
    Py_DECREF(started);
    of(self)->running = true;
    of(self)->apply_thread = PyThread_get_thread_ident();
    PyObject *raised = NULL;
    enum status status = run_loop(self, &raised);
    of(self)->running = false;
    return finish_run(self, status, raised);
}

/* --- from other threads --- */

PyDoc_STRVAR(
    stop_doc,
    "stop()\n--\n\nBegin a graceful stop; a second call stops at once. Does not wait.");

static PyObject *server_type_stop(PyObject *self, PyObject *unused) {
    (void)unused;
    if (of(self)->server != NULL && !of(self)->closing && of(self)->process == getpid()) {
        server_stop(of(self)->server);
    }
    Py_RETURN_NONE;
}

static bool may_call(PyObject *self, const Py_buffer *line) {
    if (!is_open(self)) {
        return false;
    }
    if (!of(self)->started) {
        PyErr_SetString(PyExc_RuntimeError, "the server is not running: start() it first");
        return false;
    }
    if (of(self)->running && of(self)->apply_thread == PyThread_get_thread_ident()) {
        PyErr_SetString(PyExc_RuntimeError,
                        "a request from within apply() would wait for itself for ever");
        return false;
    }
    if (memchr(line->buf, '\n', (size_t)line->len) != NULL) {
        PyErr_SetString(PyExc_ValueError, "a request is one line");
        return false;
    }
    return true;
}

static PyObject *take_response(PyObject *self, enum status status,
                               const struct buffer *response) {
    if (status == STATUS_OK) {
        return PyBytes_FromStringAndSize(buffer_peek(response),
                                         (Py_ssize_t)buffer_count(response));
    }
    const char *text = status == STATUS_TIMEOUT  ? "no answer within the request's time"
                       : status == STATUS_CLOSED ? "the server stopped before it answered"
                                                 : NULL;
    return errors_raise(state_of(self), status, text);
}

PyDoc_STRVAR(
    call_doc,
    "call(line, timeout_ms)\n--\n\n"
    "Send one request line as if from a client and return its response line, both bytes.\n\n"
    "Raises raftpico.RequestTimeout, raftpico.ServerClosed.");

static PyObject *server_type_call(PyObject *self, PyObject *args) {
    Py_buffer line;
    unsigned timeout_ms;
    if (!PyArg_ParseTuple(args, "y*I:call", &line, &timeout_ms)) {
        return NULL;
    }
    if (!may_call(self, &line)) {
        PyBuffer_Release(&line);
        return NULL;
    }
    struct buffer response;
    buffer_init(&response);
    enum status status;
    of(self)->callers++;
    Py_BEGIN_ALLOW_THREADS status = server_call(
        of(self)->server, (struct span){line.buf, (size_t)line.len}, timeout_ms, &response);
    Py_END_ALLOW_THREADS of(self)->callers--;
    PyBuffer_Release(&line);
    PyObject *result = take_response(self, status, &response);
    buffer_free(&response);
    return result;
}

PyDoc_STRVAR(
    peek_state_doc,
    "peek_state()\n--\n\n"
    "A recent copy of role, term, leader, members and so on, as a dict; waits for nobody.");

static PyObject *server_type_peek_state(PyObject *self, PyObject *unused) {
    (void)unused;
    if (!is_open(self)) {
        return NULL;
    }
    struct buffer json;
    buffer_init(&json);
    server_peek_state(of(self)->server, &json);
    PyObject *state = value_read(state_of(self), buffer_span(&json));
    buffer_free(&json);
    return state;
}

static PyObject *server_get_address(PyObject *self, void *closure) {
    (void)closure;
    return is_open(self) ? PyUnicode_FromString(server_address(of(self)->server)) : NULL;
}

static PyObject *server_get_running(PyObject *self, void *closure) {
    (void)closure;
    return PyBool_FromLong(of(self)->running);
}

/* --- closing --- */

/* Free the server once nobody is in call() any more; `running` is excluded by the caller. */
static void close_server(struct server_object *object) {
    struct server *server = object->server;
    object->closing = true;
    Py_BEGIN_ALLOW_THREADS stop_at_once(server);
    Py_END_ALLOW_THREADS while (object->callers > 0) {
        Py_BEGIN_ALLOW_THREADS nanosleep(&(struct timespec){.tv_nsec = CLOSE_POLL_NS}, NULL);
        Py_END_ALLOW_THREADS
    }
    Py_BEGIN_ALLOW_THREADS server_close(server);
    Py_END_ALLOW_THREADS object->server = NULL;
}

PyDoc_STRVAR(
    close_doc,
    "close()\n--\n\n"
    "Free everything; at once where it was not stopped before. run() must have returned.");

static PyObject *server_type_close(PyObject *self, PyObject *unused) {
    (void)unused;
    struct server_object *object = of(self);
    if (object->server == NULL || object->closing || object->process != getpid()) {
        Py_RETURN_NONE;
    }
    if (object->running) {
        PyErr_SetString(PyExc_RuntimeError, "the server is running: stop() it, wait for run()");
        return NULL;
    }
    close_server(object);
    Py_RETURN_NONE;
}

static void server_finalize(PyObject *self) {
    struct server_object *object = of(self);
    if (object->server == NULL || object->closing || object->process != getpid()) {
        return;
    }
    PyObject *exception = PyErr_Occurred() ? errors_take() : NULL;
    if (PyErr_ResourceWarning(self, 1, "unclosed %R", self) < 0) {
        PyErr_WriteUnraisable(self);
    }
    ASSERT(!object->running && object->callers == 0);
    close_server(object);
    if (exception != NULL) {
        errors_give_back(exception);
    }
}

static int server_traverse(PyObject *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    return machine_traverse(&of(self)->machine, visit, arg);
}

static int server_clear(PyObject *self) {
    machine_clear(&of(self)->machine);
    return 0;
}

static void server_dealloc(PyObject *self) {
    if (PyObject_CallFinalizerFromDealloc(self) < 0) {
        return;
    }
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    machine_clear(&of(self)->machine);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef server_methods[] = {
    {"start", server_type_start, METH_NOARGS, start_doc},
    {"run", server_type_run, METH_NOARGS, run_doc},
    {"stop", server_type_stop, METH_NOARGS, stop_doc},
    {"call", server_type_call, METH_VARARGS, call_doc},
    {"peek_state", server_type_peek_state, METH_NOARGS, peek_state_doc},
    {"close", server_type_close, METH_NOARGS, close_doc},
    {0},
};

static PyGetSetDef server_getset[] = {
    {"address", server_get_address, NULL, "str: what is listened on, the port filled in.",
     NULL},
    {"running", server_get_running, NULL, "bool: whether a thread is in run().", NULL},
    {0},
};

PyDoc_STRVAR(
    server_doc,
    "Server(machine, address, data, *, notice=None, insecure=False, sync=True,\n"
    "       segment_bytes=0, snapshot_log_bytes=0, snapshot_timeout_ms=0, seed=0, "
    "request_timeout_ms=0)\n--\n\n"
    "A member, opened: the address bound, the data directory read. See raftpico.Server.");

PyTypeObject *server_type_new(PyObject *module) {
    PyType_Slot slots[] = {
        {Py_tp_doc, (void *)(uintptr_t)server_doc},
        {Py_tp_init, server_init},
        {Py_tp_new, PyType_GenericNew},
        {Py_tp_dealloc, server_dealloc},
        {Py_tp_finalize, server_finalize},
        {Py_tp_traverse, server_traverse},
        {Py_tp_clear, server_clear},
        {Py_tp_methods, server_methods},
        {Py_tp_getset, server_getset},
        {0},
    };
    PyType_Spec spec = {
        .name = "raftpico._core.Server",
        .basicsize = sizeof(struct server_object),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
        .slots = slots,
    };
    return (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, NULL);
}
