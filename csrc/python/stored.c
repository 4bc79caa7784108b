/* The readers of wire/ and the recovery of a directory, as functions of the module; see
 * stored.h.
 *
 * Must not know: which lines make a directory. Invariant: a line that a reader refuses is None,
 * never an exception, for broken lines are what a tool looks for. */
#include "python/stored.h"

#include "base/assert.h"
#include "base/memory.h"
#include "python/errors.h"
#include "server/recover.h"
#include "wire/entry.h"
#include "wire/line.h"
#include "wire/meta.h"
#include "wire/snapshot.h"

static struct span span_of(const Py_buffer *view) {
    return (struct span){view->buf, (size_t)view->len};
}

static Py_ssize_t offset_in(const Py_buffer *view, struct span part) {
    return part.data - (const char *)view->buf;
}

/* --- entries --- */

PyDoc_STRVAR(
    read_entry_doc,
    "read_entry(line, seed, /)\n--\n\n"
    "A log entry's line (bytes, with its LF): (index, term, time_ms, kind, tag, start, "
    "end, crc).\n\n"
    "kind: \"command\", \"noop\" or \"configuration\". tag: (node, incarnation, "
    "sequence), or None. The input or configuration is line[start:end]. None: not such "
    "a line. With a seed - the checksum of the entry before, an int - the seal is "
    "checked against it; with None it is not.");

static const char *kind_name(enum entry_kind kind) {
    switch (kind) {
    case ENTRY_COMMAND:
        return "command";
    case ENTRY_NOOP:
        return "noop";
    case ENTRY_CONFIGURATION:
        return "configuration";
    }
    return "";
}

static PyObject *tag_or_none(const struct entry *entry) {
    if (entry->kind != ENTRY_COMMAND) {
        Py_RETURN_NONE;
    }
    return Py_BuildValue("(KKK)", (unsigned long long)entry->tag.node,
                         (unsigned long long)entry->tag.incarnation,
                         (unsigned long long)entry->tag.sequence);
}

static PyObject *entry_tuple(const Py_buffer *view, const struct entry *entry, uint32_t crc) {
    PyObject *tag = tag_or_none(entry);
    if (tag == NULL) {
        return NULL;
    }
    Py_ssize_t start = entry->kind == ENTRY_NOOP ? 0 : offset_in(view, entry->body);
    return Py_BuildValue("(KKKsNnnI)", (unsigned long long)entry->index,
                         (unsigned long long)entry->term, (unsigned long long)entry->time_ms,
                         kind_name(entry->kind), tag, start,
                         start + (Py_ssize_t)entry->body.size, (unsigned)crc);
}

/* The seed of a call: None, or an int of 32 bits. */
static bool read_seed(PyObject *object, bool *given, uint32_t *seed) {
    *given = object != Py_None;
    *seed = 0;
    if (!*given) {
        return true;
    }
    unsigned long value = PyLong_AsUnsignedLong(object);
    if (PyErr_Occurred() != NULL) {
        return false;
    }
    if (value > UINT32_MAX) {
        PyErr_SetString(PyExc_OverflowError, "a seed has 32 bits");
        return false;
    }
    *seed = (uint32_t)value;
    return true;
}

static enum status read_line(struct span line, bool checked, uint32_t seed, struct entry *entry,
                             uint32_t *crc) {
    if (checked) {
        return entry_read(line, seed, entry, crc);
    }
    struct span body;
    enum status status = line_peek_crc(line, &body, crc);
    return status == STATUS_OK ? entry_parse(line, entry) : status;
}

static PyObject *stored_read_entry(PyObject *module, PyObject *arguments) {
    (void)module;
    Py_buffer view;
    PyObject *seed_object;
    uint32_t seed;
    bool checked;
    if (!PyArg_ParseTuple(arguments, "y*O:read_entry", &view, &seed_object)) {
        return NULL;
    }
    PyObject *result = NULL;
    if (read_seed(seed_object, &checked, &seed)) {
        struct entry entry;
        uint32_t crc;
        bool read = read_line(span_of(&view), checked, seed, &entry, &crc) == STATUS_OK;
        result = read ? entry_tuple(&view, &entry, crc) : Py_NewRef(Py_None);
    }
    PyBuffer_Release(&view);
    return result;
}

/* --- other lines --- */

PyDoc_STRVAR(check_line_doc,
             "check_line(line, seed, /)\n--\n\n"
             "The checksum (int) of a sealed line (bytes, with its LF) whose seal is right for "
             "that seed; None: it is not.");

static PyObject *stored_check_line(PyObject *module, PyObject *arguments) {
    (void)module;
    Py_buffer view;
    PyObject *seed_object;
    uint32_t seed;
    bool given;
    if (!PyArg_ParseTuple(arguments, "y*O:check_line", &view, &seed_object)) {
        return NULL;
    }
    PyObject *result = NULL;
    if (read_seed(seed_object, &given, &seed)) {
        struct span body;
        uint32_t crc;
        bool right = line_check(span_of(&view), seed, &body, &crc) == STATUS_OK;
        result = right ? PyLong_FromUnsignedLong(crc) : Py_NewRef(Py_None);
    }
    PyBuffer_Release(&view);
    return result;
}

PyDoc_STRVAR(
    read_meta_doc,
    "read_meta(line, /)\n--\n\n"
    "A record of meta.jsonl (bytes, with its LF) as a dict: \"cluster\", \"address\", "
    "\"node\", \"incarnation\", \"term\", \"voted_for\", \"removed\". None: not such a "
    "record.");

static PyObject *stored_read_meta(PyObject *module, PyObject *line) {
    (void)module;
    Py_buffer view;
    if (PyObject_GetBuffer(line, &view, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    struct meta meta;
    bool read = meta_read(span_of(&view), &meta) == STATUS_OK;
    PyBuffer_Release(&view);
    if (!read) {
        Py_RETURN_NONE;
    }
    return Py_BuildValue(
        "{ss ss sK sK sK sK sO}", "cluster", meta.cluster_id, "address", meta.address, "node",
        (unsigned long long)meta.node_id, "incarnation", (unsigned long long)meta.incarnation,
        "term", (unsigned long long)meta.term, "voted_for", (unsigned long long)meta.voted_for,
        "removed", meta.removed ? Py_True : Py_False);
}

PyDoc_STRVAR(read_snapshot_header_doc,
             "read_snapshot_header(line, /)\n--\n\n"
             "The first line of a snapshot (bytes, with its LF) as a dict: \"cluster\", "
             "\"index\", \"term\", \"chain\" (the log's checksum there), \"time_ms\", "
             "\"configuration_index\", \"crc\" (the seed of the next line). None: not such a "
             "line.");

static PyObject *header_dict(const struct snapshot_header *header, uint32_t crc) {
    return Py_BuildValue("{ss sK sK sI sK sK sI}", "cluster", header->cluster_id, "index",
                         (unsigned long long)header->index, "term",
                         (unsigned long long)header->term, "chain", (unsigned)header->chain_crc,
                         "time_ms", (unsigned long long)header->time_ms, "configuration_index",
                         (unsigned long long)header->configuration_index, "crc", (unsigned)crc);
}

static PyObject *stored_read_snapshot_header(PyObject *module, PyObject *line) {
    (void)module;
    Py_buffer view;
    if (PyObject_GetBuffer(line, &view, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    struct snapshot_header *header = memory_must_alloc_zero(sizeof(*header));
    uint32_t crc;
    bool read = snapshot_read_header(span_of(&view), header, &crc) == STATUS_OK;
    PyObject *result = read ? header_dict(header, crc) : Py_NewRef(Py_None);
    memory_free(header);
    PyBuffer_Release(&view);
    return result;
}

/* --- directories --- */

PyDoc_STRVAR(recover_directory_doc,
             "recover_directory(path, address, sync, /)\n--\n\n"
             "Do to a data directory what the start of its member does, and close it again: a "
             "dict of \"snapshot_index\", \"last_index\", \"tail_cut\", \"quarantined\" and "
             "\"note\".\n\n"
             "Raises InUse, DataCorrupt, DataMismatch, StorageFailure; ValueError for an "
             "address that is none.");

static PyObject *recovered_dict(const struct server_recovered *found) {
    PyObject *note =
        PyUnicode_DecodeUTF8(found->note, (Py_ssize_t)strlen(found->note), "replace");
    if (note == NULL) {
        return NULL;
    }
    return Py_BuildValue("{sK sK sO sO sN}", "snapshot_index",
                         (unsigned long long)found->snapshot_index, "last_index",
                         (unsigned long long)found->last_index, "tail_cut",
                         found->tail_cut ? Py_True : Py_False, "quarantined",
                         found->quarantined ? Py_True : Py_False, "note", note);
}

static PyObject *stored_recover_directory(PyObject *module, PyObject *arguments) {
    PyObject *path;
    const char *address;
    int sync;
    if (!PyArg_ParseTuple(arguments, "O&sp:recover_directory", PyUnicode_FSConverter, &path,
                          &address, &sync)) {
        return NULL;
    }
    struct server_recovered found;
    struct error error = {.status = STATUS_OK};
    enum status status;
    const char *path_bytes = PyBytes_AS_STRING(path);
    Py_BEGIN_ALLOW_THREADS;
    status = server_recover(path_bytes, address, sync != 0, &found, &error);
    Py_END_ALLOW_THREADS;
    Py_DECREF(path);
    return status == STATUS_OK ? recovered_dict(&found)
                               : errors_raise(PyModule_GetState(module), status, error.text);
}

PyMethodDef stored_methods[] = {
    {"read_entry", stored_read_entry, METH_VARARGS, read_entry_doc},
    {"check_line", stored_check_line, METH_VARARGS, check_line_doc},
    {"read_meta", stored_read_meta, METH_O, read_meta_doc},
    {"read_snapshot_header", stored_read_snapshot_header, METH_O, read_snapshot_header_doc},
    {"recover_directory", stored_recover_directory, METH_VARARGS, recover_directory_doc},
    {0},
};
