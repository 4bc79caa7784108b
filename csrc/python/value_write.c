/* Python's objects to JSON text; see value.h.
 *
 * Python code can run only in the items() of a class derived from dict; whatever it does to the
 * containers around it, each object is held while it is written and each list's size is looked
 * up anew. Invariant: recursion goes JSON_DEPTH_MAX deep at most, which also ends cycles. */
#include "python/value.h"

#include <math.h>
#include <stdio.h>

#include "base/limits.h"
#include "wire/scan.h"
#include "wire/scanner.h"

#define CHUNK_CHARS 256 /* of a string that is not ASCII, for which room is made at once */
#define CHAR_JSON_BYTES_MAX 6 /* \uXXXX */

struct writer {
    struct buffer *out;
    char *reason;
    struct value_drain *drain; /* NULL: all of it stays in `out` */
};

static enum status write_value(struct writer *writer, PyObject *value, unsigned depth);

/* --- what would change for the limited API --- */

static inline bool str_ascii(PyObject *str, struct span *text) {
    *text = (struct span){NULL, 0};
    if (!PyUnicode_IS_ASCII(str)) {
        return false;
    }
    *text = (struct span){PyUnicode_DATA(str), (size_t)PyUnicode_GET_LENGTH(str)};
    return true;
}

static inline Py_ssize_t str_length(PyObject *str) {
    return PyUnicode_GET_LENGTH(str);
}

static inline Py_UCS4 str_char(PyObject *str, Py_ssize_t at) {
    return PyUnicode_READ_CHAR(str, at);
}

/* The element at `at`, borrowed, of a list or tuple (or of what is derived from one). */
static inline PyObject *sequence_peek(PyObject *sequence, Py_ssize_t at) {
    return PyList_Check(sequence) ? PyList_GET_ITEM(sequence, at)
                                  : PyTuple_GET_ITEM(sequence, at);
}

static inline PyObject *sequence_take(PyObject *sequence, Py_ssize_t at) {
    PyObject *item = sequence_peek(sequence, at);
    Py_INCREF(item);
    return item;
}

static inline Py_ssize_t sequence_count(PyObject *sequence) {
    return PyList_Check(sequence) ? PyList_GET_SIZE(sequence) : PyTuple_GET_SIZE(sequence);
}

static const char *type_name(PyObject *value) {
    return Py_TYPE(value)->tp_name;
}

/* Whether writing the value runs no code but ours, so that nobody can free it meanwhile and it
 * need not be held. In a child process that matters twice: a reference count that changes is a
 * page that is copied. */
static inline bool is_leaf(PyObject *value) {
    return PyUnicode_CheckExact(value) || PyLong_CheckExact(value) ||
           PyFloat_CheckExact(value) || PyBool_Check(value) || value == Py_None;
}

/* --- refusals --------------------------------------------------------------------------------
 */

static enum status refuse(struct writer *writer, const char *format, ...) PRINTF_LIKE(2, 3);

static enum status refuse(struct writer *writer, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(writer->reason, VALUE_REASON_BYTES, format, args);
    va_end(args);
    return STATUS_INVALID;
}

/* --- strings ---------------------------------------------------------------------------------
 */

static char *put_escape(char *to, Py_UCS4 c) {
    static const char HEX[] = "0123456789abcdef";
    *to++ = '\\';
    *to++ = 'u';
    for (int shift = 12; shift >= 0; shift -= 4) {
        *to++ = HEX[(c >> shift) & 15u];
    }
    return to;
}

/* A character of 0x80 or more; a surrogate, which UTF-8 cannot hold, as an escape. */
static char *put_wide(char *to, Py_UCS4 c) {
    if (c < 0x800) {
        *to++ = (char)(0xc0u | c >> 6);
    } else if (c >= 0xd800 && c <= 0xdfff) {
        return put_escape(to, c);
    } else {
        if (c < 0x10000) {
            *to++ = (char)(0xe0u | c >> 12);
        } else {
            *to++ = (char)(0xf0u | c >> 18);
            *to++ = (char)(0x80u | (c >> 12 & 0x3fu));
        }
        *to++ = (char)(0x80u | (c >> 6 & 0x3fu));
    }
    *to++ = (char)(0x80u | (c & 0x3fu));
    return to;
}

static char *put_ascii(char *to, Py_UCS4 c) {
    static const char SHORT[] = "\"\"\\\\\bb\ff\nn\rr\tt";
    if (c >= ' ' && c != '"' && c != '\\') {
        *to++ = (char)c;
        return to;
    }
    for (size_t i = 0; i < sizeof(SHORT) - 1; i += 2) {
        if ((Py_UCS4)SHORT[i] == c) {
            *to++ = '\\';
            *to++ = SHORT[i + 1];
            return to;
        }
    }
    return put_escape(to, c);
}

/* Room is made chunk by chunk: a string of a million characters need not have six million
 * bytes. */
static void write_wide(struct buffer *out, PyObject *str) {
    Py_ssize_t length = str_length(str);
    buffer_append_char(out, '"');
    for (Py_ssize_t at = 0; at < length;) {
        Py_ssize_t stop = length - at < CHUNK_CHARS ? length : at + CHUNK_CHARS;
        char *start = buffer_reserve(out, (size_t)(stop - at) * CHAR_JSON_BYTES_MAX);
        char *to = start;
        for (; at < stop; at++) {
            Py_UCS4 c = str_char(str, at);
            to = c < 0x80 ? put_ascii(to, c) : put_wide(to, c);
        }
        buffer_extend(out, (size_t)(to - start));
    }
    buffer_append_char(out, '"');
}

static void write_string(struct buffer *out, PyObject *str) {
    struct span text;
    if (!str_ascii(str, &text)) {
        write_wide(out, str);
        return;
    }
    if (scanner_plain_run(text.data, text.data + text.size) < text.data + text.size) {
        scan_append_string(out, text);
        return;
    }
    char *to = buffer_reserve(out, text.size + 2);
    to[0] = '"';
    memcpy(to + 1, text.data, text.size);
    to[text.size + 1] = '"';
    buffer_extend(out, text.size + 2);
}

/* --- numbers ---------------------------------------------------------------------------------
 */

/* Beyond 64 bits. Python refuses, by a ValueError, to write more digits than its limit. */
static enum status write_long(struct writer *writer, PyObject *number) {
    Py_INCREF(number); /* an exception may run the collector, and that anything */
    PyObject *digits = PyNumber_ToBase(number, 10);
    Py_DECREF(number);
    struct span text;
    if (digits == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_ValueError)) {
            return STATUS_PYTHON;
        }
        PyErr_Clear();
        return refuse(writer, "an integer of more digits than Python converts");
    }
    if (str_ascii(digits, &text)) {
        buffer_append_span(writer->out, text);
    }
    Py_DECREF(digits);
    return STATUS_OK;
}

static enum status write_int(struct writer *writer, PyObject *number) {
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(number, &overflow);
    if (overflow != 0) {
        return write_long(writer, number);
    }
    if (value == -1 && PyErr_Occurred()) {
        return STATUS_PYTHON;
    }
    if (value < 0) {
        buffer_append_char(writer->out, '-');
    }
    buffer_append_u64(writer->out, value < 0 ? 0 - (uint64_t)value : (uint64_t)value);
    return STATUS_OK;
}

static enum status write_float(struct writer *writer, PyObject *number) {
    double value = PyFloat_AsDouble(number);
    if (!isfinite(value)) {
        return refuse(writer, "%s is no JSON number",
                      isnan(value) ? "NaN"
                      : value > 0  ? "Infinity"
                                   : "-Infinity");
    }
    char *text = PyOS_double_to_string(value, 'r', 0, Py_DTSF_ADD_DOT_0, NULL);
    if (text == NULL) {
        return STATUS_PYTHON;
    }
    buffer_append_text(writer->out, text);
    PyMem_Free(text);
    return STATUS_OK;
}

/* --- scalars and keys ------------------------------------------------------------------------
 */

/* None, a bool, an int or a float: true, and `*status` is how that went. */
static bool write_scalar(struct writer *writer, PyObject *value, enum status *status) {
    *status = STATUS_OK;
    if (value == Py_None) {
        buffer_append_text(writer->out, "null");
    } else if (value == Py_True) {
        buffer_append_text(writer->out, "true");
    } else if (value == Py_False) {
        buffer_append_text(writer->out, "false");
    } else if (PyLong_Check(value)) {
        *status = write_int(writer, value);
    } else if (PyFloat_Check(value)) {
        *status = write_float(writer, value);
    } else {
        return false;
    }
    return true;
}

/* A member's name: a str, or a scalar's text in quotes, as json.dumps has it. */
static enum status write_key(struct writer *writer, PyObject *key) {
    enum status status;
    if (PyUnicode_Check(key)) {
        write_string(writer->out, key);
        return STATUS_OK;
    }
    buffer_append_char(writer->out, '"');
    if (!write_scalar(writer, key, &status)) {
        return refuse(writer, "keys must be str, int, float, bool or None, not %.100s",
                      type_name(key));
    }
    buffer_append_char(writer->out, '"');
    return status;
}

/* --- containers ------------------------------------------------------------------------------
 */

/* Between two parts of a value. */
static inline enum status drain(const struct writer *writer) {
    return writer->drain != NULL && buffer_count(writer->out) >= writer->drain->bytes
               ? writer->drain->carry(writer->drain)
               : STATUS_OK;
}

/* A value whose owner may let go of it meanwhile. */
static enum status write_held(struct writer *writer, PyObject *value, unsigned depth) {
    if (is_leaf(value)) {
        return write_value(writer, value, depth);
    }
    Py_INCREF(value);
    enum status status = write_value(writer, value, depth);
    Py_DECREF(value);
    return status;
}

static enum status write_sequence(struct writer *writer, PyObject *sequence, unsigned depth) {
    enum status status = STATUS_OK;
    buffer_append_char(writer->out, '[');
    for (Py_ssize_t at = 0; status == STATUS_OK && at < sequence_count(sequence); at++) {
        if (at > 0) {
            buffer_append_char(writer->out, ',');
        }
        status = write_held(writer, sequence_peek(sequence, at), depth);
        if (status == STATUS_OK) {
            status = drain(writer);
        }
    }
    buffer_append_char(writer->out, ']');
    return status;
}

static enum status write_member(struct writer *writer, PyObject *key, PyObject *value,
                                bool first, unsigned depth) {
    if (!first) {
        buffer_append_char(writer->out, ',');
    }
    enum status status = write_key(writer, key);
    if (status != STATUS_OK) {
        return status;
    }
    buffer_append_char(writer->out, ':');
    return write_held(writer, value, depth);
}

static enum status write_dict(struct writer *writer, PyObject *dict, unsigned depth) {
    PyObject *key;
    PyObject *value;
    Py_ssize_t at = 0;
    Py_ssize_t count = PyDict_Size(dict);
    enum status status = STATUS_OK;
    bool first = true;
    buffer_append_char(writer->out, '{');
    while (status == STATUS_OK && PyDict_Next(dict, &at, &key, &value)) {
        PyObject *held = is_leaf(key) && is_leaf(value) ? NULL : Py_NewRef(value);
        PyObject *held_key = held != NULL ? Py_NewRef(key) : NULL;
        status = write_member(writer, key, value, first, depth);
        Py_XDECREF(held_key);
        Py_XDECREF(held);
        first = false;
        if (status == STATUS_OK) {
            status = drain(writer);
        }
        if (status == STATUS_OK && PyDict_Size(dict) != count) {
            status = refuse(writer, "a dict changed while it was written");
        }
    }
    buffer_append_char(writer->out, '}');
    return status;
}

/* One of the pairs that items() of a derived class has given. */
static enum status write_item(struct writer *writer, PyObject *item, bool first,
                              unsigned depth) {
    if (!PyTuple_Check(item) || sequence_count(item) != 2) {
        return refuse(writer, "items() of a dict must give pairs, not %.100s", type_name(item));
    }
    PyObject *key = sequence_take(item, 0);
    PyObject *value = sequence_take(item, 1);
    enum status status = write_member(writer, key, value, first, depth);
    Py_DECREF(key);
    Py_DECREF(value);
    return status;
}

/* A class derived from dict may keep another order (OrderedDict) or other contents: ask it. */
static enum status write_mapping(struct writer *writer, PyObject *mapping, unsigned depth) {
    PyObject *items = PyMapping_Items(mapping);
    if (items == NULL) {
        return STATUS_PYTHON;
    }
    enum status status = STATUS_OK;
    buffer_append_char(writer->out, '{');
    for (Py_ssize_t at = 0; status == STATUS_OK && at < sequence_count(items); at++) {
        PyObject *item = sequence_take(items, at);
        status = write_item(writer, item, at == 0, depth);
        Py_DECREF(item);
        if (status == STATUS_OK) {
            status = drain(writer);
        }
    }
    buffer_append_char(writer->out, '}');
    Py_DECREF(items);
    return status;
}

static enum status write_container(struct writer *writer, PyObject *value, unsigned depth) {
    bool sequence = PyList_Check(value) || PyTuple_Check(value);
    if (!sequence && !PyDict_Check(value)) {
        return refuse(writer, "a value of type %.100s is no JSON", type_name(value));
    }
    if (depth >= JSON_DEPTH_MAX) {
        return refuse(writer, "nested deeper than the limit of %u levels", JSON_DEPTH_MAX);
    }
    if (sequence) {
        return write_sequence(writer, value, depth + 1);
    }
    return PyDict_CheckExact(value) ? write_dict(writer, value, depth + 1)
                                    : write_mapping(writer, value, depth + 1);
}

static enum status write_value(struct writer *writer, PyObject *value, unsigned depth) {
    enum status status;
    if (PyUnicode_Check(value)) {
        write_string(writer->out, value);
        return STATUS_OK;
    }
    if (write_scalar(writer, value, &status)) {
        return status;
    }
    return write_container(writer, value, depth);
}

enum status value_write(struct buffer *out, PyObject *value, char reason[VALUE_REASON_BYTES]) {
    struct writer writer = {.out = out, .reason = reason};
    size_t count = buffer_count(out); /* the content may move, its size is what stays */
    enum status status = write_value(&writer, value, 0);
    if (status != STATUS_OK) {
        out->size = out->start + count;
    }
    return status;
}

enum status value_write_draining(struct buffer *out, PyObject *value, struct value_drain *drain,
                                 char reason[VALUE_REASON_BYTES]) {
    struct writer writer = {.out = out, .reason = reason, .drain = drain};
    return write_value(&writer, value, 0);
}
