/* JSON text to Python's objects; see value.h.
 *
 * The grammar is wire/scanner.c's: this file walks by its steps and makes objects of what they
 * pass over, so it accepts what the scanner accepts and is safe on any bytes. A function that
 * returns NULL without an exception has met text that is no JSON; the scanner knows where and
 * why. Invariant: recursion goes JSON_DEPTH_MAX deep at most. The only Python code that can run
 * meanwhile is a finalizer's, which sees nothing of what is being made but a whole cache. */
#include "python/value.h"

#include <math.h>

#include "base/limits.h"
#include "python/module.h"
#include "wire/scanner.h"

#define NUMBER_STACK_BYTES 64  /* a number's text up to here is copied to the stack */
#define STRING_STACK_BYTES 512 /* so is that of a string with escapes */
#define DIGITS_PLAIN_MAX 18    /* that many always fit 64 bits */

/* Only full CPython lets a string be filled in place: what would change for the limited API
 * stands in these helpers. */
static inline PyObject *str_of_ascii(struct span text) {
    PyObject *str = PyUnicode_New((Py_ssize_t)text.size, 127);
    if (str != NULL) {
        memcpy(PyUnicode_DATA(str), text.data, text.size);
    }
    return str;
}

static inline PyObject *str_of_utf8(struct span text, const char *errors) {
    return PyUnicode_DecodeUTF8(text.data, (Py_ssize_t)text.size, errors);
}

static inline PyObject *singleton(PyObject *object) {
    Py_INCREF(object);
    return object;
}

struct reader {
    struct scanner scanner;
    struct key_cache *keys;
};

static PyObject *read_value(struct reader *reader, unsigned depth);

/* --- strings ---------------------------------------------------------------------------------
 */

static PyObject *str_of_escaped(struct span raw) {
    char stack[STRING_STACK_BYTES];
    char *text = raw.size <= sizeof(stack) ? stack : PyMem_Malloc(raw.size);
    if (text == NULL) {
        return PyErr_NoMemory();
    }
    size_t bytes = scanner_decode(raw, true, text);
    PyObject *str = str_of_utf8((struct span){text, bytes}, "surrogatepass");
    if (text != stack) {
        PyMem_Free(text);
    }
    return str;
}

static PyObject *read_string(struct reader *reader) {
    struct scanner *scanner = &reader->scanner;
    const char *start = scanner->at + 1;
    const char *stop = scanner_plain_run(start, scanner->end);
    if (stop < scanner->end && *stop == '"') {
        scanner->at = stop + 1;
        return str_of_ascii((struct span){start, (size_t)(stop - start)});
    }
    struct scanner_text text;
    if (!scanner_string(scanner, &text)) {
        return NULL;
    }
    return text.escaped ? str_of_escaped(text.raw) : str_of_utf8(text.raw, NULL);
}

/* --- numbers ---------------------------------------------------------------------------------
 */

/* `text` is the number's, with a NUL behind it. */
static PyObject *number_of_text(const char *text, bool integer) {
    if (integer) {
        return PyLong_FromString(text, NULL, 10);
    }
    double number = PyOS_string_to_double(text, NULL, NULL);
    if (number == -1.0 && PyErr_Occurred()) {
        return NULL;
    }
    if (isinf(number)) {
        return PyErr_Format(PyExc_ValueError, "number out of range: %.40s%s", text,
                            strlen(text) > 40 ? "..." : "");
    }
    return PyFloat_FromDouble(number);
}

/* Python's converters want a NUL behind the text: copy it. */
static PyObject *number_of_span(struct span number) {
    char stack[NUMBER_STACK_BYTES];
    char *text = number.size < sizeof(stack) ? stack : PyMem_Malloc(number.size + 1);
    if (text == NULL) {
        return PyErr_NoMemory();
    }
    memcpy(text, number.data, number.size);
    text[number.size] = '\0';
    PyObject *object = number_of_text(text, strpbrk(text, ".eE") == NULL);
    if (text != stack) {
        PyMem_Free(text);
    }
    return object;
}

static inline bool goes_on_number(char c) {
    return (unsigned char)(c - '0') <= 9 || c == '.' || c == 'e' || c == 'E';
}

/* Plain integers of few digits, which most numbers are; all others the long way. */
static PyObject *read_number(struct reader *reader) {
    struct scanner *scanner = &reader->scanner;
    const char *start = scanner->at;
    bool negative = *start == '-';
    const char *digits = start + (negative ? 1 : 0);
    const char *at = digits;
    long long number = 0;
    while (at < scanner->end && at - digits < DIGITS_PLAIN_MAX &&
           (unsigned char)(*at - '0') <= 9) {
        number = number * 10 + (*at++ - '0');
    }
    bool plain = at > digits && (*digits != '0' || at == digits + 1) &&
                 (at == scanner->end || !goes_on_number(*at));
    if (plain) {
        scanner->at = at;
        return PyLong_FromLongLong(negative ? -number : number);
    }
    if (!scanner_value(scanner, 0)) {
        return NULL;
    }
    return number_of_span((struct span){start, (size_t)(scanner->at - start)});
}

/* --- arrays and objects ----------------------------------------------------------------------
 */

static PyObject *read_array(struct reader *reader, unsigned depth) {
    PyObject *list = PyList_New(0);
    enum scanner_step step = scanner_next_element(&reader->scanner, true);
    while (list != NULL && step == SCANNER_ITEM) {
        PyObject *element = read_value(reader, depth);
        if (element == NULL || PyList_Append(list, element) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(element);
        if (list != NULL) {
            step = scanner_next_element(&reader->scanner, false);
        }
    }
    if (step == SCANNER_BAD) {
        Py_CLEAR(list);
    }
    return list;
}

/* Read the value of the member `name` and put it in. */
static bool read_member(struct reader *reader, unsigned depth, struct scanner_text name,
                        PyObject *dict) {
    PyObject *key =
        name.escaped ? str_of_escaped(name.raw) : key_cache_take(reader->keys, name.raw);
    if (key == NULL) {
        return false;
    }
    PyObject *value = read_value(reader, depth);
    bool done = value != NULL && PyDict_SetItem(dict, key, value) == 0;
    Py_XDECREF(value);
    Py_DECREF(key);
    return done;
}

static PyObject *read_object(struct reader *reader, unsigned depth) {
    struct scanner_text name;
    PyObject *dict = PyDict_New();
    enum scanner_step step = scanner_next_member(&reader->scanner, true, &name);
    while (dict != NULL && step == SCANNER_ITEM) {
        if (read_member(reader, depth, name, dict)) {
            step = scanner_next_member(&reader->scanner, false, &name);
        } else {
            Py_CLEAR(dict);
        }
    }
    if (step == SCANNER_BAD) {
        Py_CLEAR(dict);
    }
    return dict;
}

/* --- values ----------------------------------------------------------------------------------
 */

/* What the scanner passes over at one step: a literal, or a fault of which it knows the reason.
 */
static PyObject *read_literal(struct reader *reader, unsigned depth) {
    const char *start = reader->scanner.at;
    if (!scanner_value(&reader->scanner, depth)) {
        return NULL;
    }
    return singleton(*start == 't' ? Py_True : *start == 'f' ? Py_False : Py_None);
}

static PyObject *read_value(struct reader *reader, unsigned depth) {
    const struct scanner *scanner = &reader->scanner;
    char first = scanner->at < scanner->end ? *scanner->at : '\0';
    if (first == '"') {
        return read_string(reader);
    }
    if (first == '-' || (unsigned char)(first - '0') <= 9) {
        return read_number(reader);
    }
    if (first == '{' && depth < JSON_DEPTH_MAX) {
        return read_object(reader, depth + 1);
    }
    if (first == '[' && depth < JSON_DEPTH_MAX) {
        return read_array(reader, depth + 1);
    }
    return read_literal(reader, depth);
}

PyObject *value_read(struct module_state *state, struct span json) {
    struct reader reader = {.scanner = scanner_of(json), .keys = &state->keys};
    struct scanner *scanner = &reader.scanner;
    scanner_space(scanner);
    PyObject *value = read_value(&reader, 0);
    if (value != NULL) {
        scanner_space(scanner);
        if (scanner->at < scanner->end) {
            scanner->reason = "something follows the value";
            Py_CLEAR(value);
        }
    }
    if (value == NULL && !PyErr_Occurred()) {
        PyErr_Format(PyExc_ValueError, "not JSON at byte %zu: %s",
                     (size_t)(scanner->at - json.data), scanner->reason);
    }
    return value;
}
