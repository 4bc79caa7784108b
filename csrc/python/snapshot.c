/* The machine's state to a snapshot's file and back; see snapshot.h.
 *
 * Why fork(): the state has to be that of exactly one index (S6) while applying goes on, and
 * only the kernel can hold two versions of arbitrary Python objects without the machine's help,
 * for the price of the pages that either side touches meanwhile. The child is alone with the
 * one thread that forked, which held the GIL, so no object is in the middle of a change; it
 * never returns to the code around it. What it must not do to the outside is writing.c's.
 *
 * Invariant: whatever snapshot() does, the machine and the log go on; only the snapshot fails.
 */
#include "python/snapshot.h"

#include <errno.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "python/errors.h"
#include "server/reader.h"
#include "server/server.h"
#include "server/writing.h"

#if defined(__linux__)
#define CAN_FORK true
#else
#define CAN_FORK false /* elsewhere system libraries do not survive it beside other threads */
#endif

/* --- encoding --- */

struct taking {
    struct value_drain drain; /* first: a drain of ours is a taking */
    struct machine *machine;
    struct writer writer;
    bool in_child;
    bool interrupted;   /* an exception is set that is not the snapshot's */
    struct error error; /* why it failed, for the node */
};

/* In the child nobody waits for the GIL. */
static enum status flush(struct value_drain *drain) {
    struct taking *taking = (struct taking *)(void *)drain;
    enum status status;
    if (taking->in_child) {
        return writer_flush(&taking->writer, &taking->error);
    }
    Py_BEGIN_ALLOW_THREADS status = writer_flush(&taking->writer, &taking->error);
    Py_END_ALLOW_THREADS return status;
}

/* The exception that is set, as the reason. */
static enum status take_raised(struct taking *taking) {
    const struct module_state *state = taking->machine->state;
    PyObject *exception = errors_take();
    if (!taking->in_child && PyErr_GivenExceptionMatches(exception, PyExc_KeyboardInterrupt)) {
        errors_give_back(exception);
        taking->interrupted = true;
        return STATUS_PYTHON;
    }
    PyObject *text = PyObject_CallOneArg(state->describe_raised, exception);
    const char *reason = text != NULL ? PyUnicode_AsUTF8(text) : NULL;
    enum status status = error_set(&taking->error, STATUS_INVALID, "snapshot() raised %s",
                                   reason != NULL ? reason : "an exception");
    PyErr_Clear();
    Py_XDECREF(text);
    Py_DECREF(exception);
    return status;
}

static enum status write_piece(struct taking *taking, PyObject *piece) {
    char reason[VALUE_REASON_BYTES] = "";
    struct snapshot_stream *stream = &taking->writer.stream;
    snapshot_stream_open_line(stream);
    enum status status = value_write_draining(&stream->out, piece, &taking->drain, reason);
    if (taking->error.status != STATUS_OK) {
        return status; /* the file's failure, explained already */
    }
    if (status == STATUS_INVALID) {
        return error_set(&taking->error, STATUS_INVALID, "snapshot() did not give JSON: %s",
                         reason);
    }
    if (status != STATUS_OK) {
        return take_raised(taking);
    }
    snapshot_stream_close_line(stream);
    return writer_is_full(&taking->writer) ? flush(&taking->drain) : STATUS_OK;
}

static enum status write_pieces(struct taking *taking, PyObject *generator) {
    PyObject *piece;
    while ((piece = PyIter_Next(generator)) != NULL) {
        enum status status = write_piece(taking, piece);
        Py_DECREF(piece);
        if (status != STATUS_OK) {
            return status;
        }
    }
    return PyErr_Occurred() ? take_raised(taking) : STATUS_OK;
}

static enum status write_state(struct taking *taking) {
    struct machine *machine = taking->machine;
    PyObject *state = PyObject_CallMethod(machine->object, "snapshot", NULL);
    if (state == NULL) {
        return take_raised(taking);
    }
    enum status status =
        machine->pieces ? write_pieces(taking, state) : write_piece(taking, state);
    Py_DECREF(state);
    if (status != STATUS_OK) {
        return status;
    }
    if (taking->in_child) {
        return writer_end(&taking->writer, &taking->error);
    }
    Py_BEGIN_ALLOW_THREADS status = writer_end(&taking->writer, &taking->error);
    Py_END_ALLOW_THREADS return status;
}

/* --- in a child --- */

static void write_in_child(struct taking *taking) {
    PyGC_Disable(); /* it would touch, and so copy, every object */
    taking->in_child = true;
    enum status status = write_state(taking);
    writing_finish(taking->writer.writing, status, taking->error.text);
    _exit(0); /* no finalizer, no exit handler, no buffer: they are the parent's */
}

/* Like fork(), but the child does not return. Signals wait until the child has let go of its
 * parent's handlers. */
static pid_t fork_to_write(struct taking *taking) {
    struct writing *writing = taking->writer.writing;
    pid_t parent = getpid();
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    PyOS_BeforeFork();
    pid_t pid = fork();
    if (pid == 0) {
        writing_isolate(writing, parent, &before);
        PyOS_AfterFork_Child();
        write_in_child(taking);
    }
    int failure = errno;
    PyOS_AfterFork_Parent();
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = failure;
    return pid;
}

/* Of another interpreter than the main one Python makes no copy. */
static bool may_fork(const struct machine *machine, const struct apply_item *item) {
    return CAN_FORK && !machine->snapshot_in_process && !item->in_process &&
           PyInterpreterState_Get() == PyInterpreterState_Main();
}

/* --- taking --- */

static void notice(const struct machine *machine, const char *level, const char *format,
                   unsigned long long number, const char *text) {
    PyObject *said = PyUnicode_FromFormat(format, number, text);
    PyObject *done = said != NULL && machine->notice != NULL
                         ? PyObject_CallFunction(machine->notice, "{s:s,s:s,s:O}", "level",
                                                 level, "event", "snapshot", "text", said)
                         : NULL;
    Py_XDECREF(said);
    Py_XDECREF(done);
    if (PyErr_Occurred()) {
        PyErr_WriteUnraisable(machine->notice);
    }
}

static uint64_t now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

static enum status write_here(struct taking *taking) {
    struct writing *writing = taking->writer.writing;
    enum status status = write_state(taking);
    if (taking->interrupted) {
        return STATUS_PYTHON;
    }
    writing_finish(writing, status, taking->error.text);
    return STATUS_OK;
}

enum status snapshot_take(struct machine *machine, const struct apply_batch *batch,
                          struct apply_item *item) {
    struct taking taking = {.drain = {.bytes = WRITER_BUFFER_BYTES, .carry = flush},
                            .machine = machine};
    struct writing *writing = server_writing(machine->server);
    uint64_t start_us = now_us();
    pid_t pid = -1;
    writing_start(writing, apply_item_input(batch, item), &taking.writer);
    item->outcome = APPLY_DONE;
    if (may_fork(machine, item)) {
        pid = fork_to_write(&taking);
        if (pid < 0) {
            notice(machine, "warning",
                   "the snapshot at index %llu is written by the machine's thread: cannot "
                   "start a process: %s",
                   item->index, strerror(errno));
        }
    }
    enum status status = STATUS_OK;
    if (pid > 0) {
        writing_forked(writing, pid);
    } else {
        status = write_here(&taking);
    }
    writer_clear(&taking.writer);
    if (status == STATUS_OK) {
        notice(machine, "debug", "the machine stopped for %llu us for a snapshot%s",
               now_us() - start_us, pid > 0 ? "" : ", written by its thread");
    }
    return status;
}

/* --- restoring --- */

#define SOURCE_NAME "raftpico._core.pieces"

/* What stands behind the iterator that restore() gets. The reader is lent while it runs. */
struct source {
    struct module_state *state;
    struct reader *reader; /* NULL: restore() has returned */
};

/* The next value, NULL with an exception or, at the end, without one. The GIL is kept: threads
 * may share the iterator, and none of them is in here when the reader is taken back. */
static PyObject *read_next(struct module_state *state, struct reader *reader) {
    struct span json;
    struct error error = {.status = STATUS_OK};
    bool ended = false;
    enum status status = reader_next(reader, &json, &ended, &error);
    if (status != STATUS_OK) {
        return errors_raise(state, status, error.text);
    }
    return ended ? NULL : value_read(state, json);
}

static PyObject *next_piece(PyObject *capsule, PyObject *unused) {
    (void)unused;
    struct source *source = PyCapsule_GetPointer(capsule, SOURCE_NAME);
    if (source == NULL) {
        return NULL;
    }
    PyObject *piece = source->reader != NULL ? read_next(source->state, source->reader) : NULL;
    if (piece == NULL && !PyErr_Occurred()) {
        PyErr_SetNone(PyExc_StopIteration);
    }
    return piece;
}

static void free_source(PyObject *capsule) {
    PyMem_Free(PyCapsule_GetPointer(capsule, SOURCE_NAME));
}

/* A new capsule that owns a new source. */
static PyObject *lend(struct module_state *state, struct reader *reader) {
    struct source *source = PyMem_Calloc(1, sizeof(*source));
    if (source == NULL) {
        return PyErr_NoMemory();
    }
    *source = (struct source){state, reader};
    PyObject *capsule = PyCapsule_New(source, SOURCE_NAME, free_source);
    if (capsule == NULL) {
        PyMem_Free(source);
    }
    return capsule;
}

/* An iterator over the pieces. */
static PyObject *iterate(PyObject *capsule) {
    static PyMethodDef method = {"next_piece", next_piece, METH_NOARGS, NULL};
    PyObject *function = PyCFunction_New(&method, capsule);
    PyObject *sentinel = function != NULL ? PyObject_CallNoArgs((PyObject *)&PyBaseObject_Type)
                                          : NULL; /* equal to nothing that can come */
    PyObject *iterator = sentinel != NULL ? PyCallIter_New(function, sentinel) : NULL;
    Py_XDECREF(sentinel);
    Py_XDECREF(function);
    return iterator;
}

/* The one value of a machine without pieces. */
static PyObject *read_whole(struct module_state *state, struct reader *reader) {
    PyObject *value = read_next(state, reader);
    PyObject *more = value != NULL ? read_next(state, reader) : NULL;
    if (PyErr_Occurred()) {
        Py_CLEAR(value);
    } else if (value == NULL || more != NULL) {
        PyErr_SetString(PyExc_ValueError,
                        "the snapshot is in pieces, but this class's snapshot() is no "
                        "generator function: was it written by another version of it?");
        Py_CLEAR(value);
    }
    Py_XDECREF(more);
    return value;
}

static enum status call_restore(struct machine *machine, PyObject *state) {
    if (state == NULL) {
        return STATUS_PYTHON;
    }
    PyObject *done = PyObject_CallMethod(machine->object, "restore", "(O)", state);
    Py_XDECREF(done);
    return done != NULL ? STATUS_OK : STATUS_PYTHON;
}

/* Whoever keeps the iterator finds it at its end afterwards. */
static enum status restore_pieces(struct machine *machine, struct reader *reader) {
    PyObject *capsule = lend(machine->state, reader);
    PyObject *iterator = capsule != NULL ? iterate(capsule) : NULL;
    enum status status = call_restore(machine, iterator);
    Py_XDECREF(iterator);
    if (capsule != NULL) {
        ((struct source *)PyCapsule_GetPointer(capsule, SOURCE_NAME))->reader = NULL;
        Py_DECREF(capsule);
    }
    return status;
}

enum status snapshot_restore(struct machine *machine, struct apply_item *item) {
    struct reader *reader = reader_of(item->cargo);
    enum status status;
    if (machine->pieces) {
        status = restore_pieces(machine, reader);
    } else {
        PyObject *state = read_whole(machine->state, reader);
        status = call_restore(machine, state);
        Py_XDECREF(state);
    }
    cargo_drop(item->cargo); /* its buffers are large: now rather than with the batch */
    item->cargo = NULL;
    item->outcome = APPLY_DONE;
    return status;
}
