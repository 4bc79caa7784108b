/* Values across the border: JSON text to Python's objects and back, straight, without the json
 * module. Python's json is the model for what maps to what; where it would let through what is
 * no JSON (NaN, Infinity) or loses a value (1e400), this refuses.
 *
 *   null, true, false   None, True, False
 *   integer             int, of any size that Python converts (sys.set_int_max_str_digits)
 *   other number        float, the nearest; written as repr does: 0.1 stays 0.1
 *   string              str; a lone surrogate stays one (written as an escape)
 *   array               list; written from list and tuple and what is derived from them
 *   object              dict in the text's order, of equal names the last wins; written from
 *                       dict and what is derived from it; keys as json.dumps takes them
 *
 * Invariant: what value_write writes, value_read reads as an equal value, tuples as lists and
 * keys as strings. (Two halves of a pair that stand side by side in a str as two characters
 * come back as the one character: JSON cannot tell.) The caller holds the GIL. */
#ifndef RAFTPICO_PYTHON_VALUE_H
#define RAFTPICO_PYTHON_VALUE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "base/buffer.h"
#include "base/status.h"
#include "python/key_cache.h"

#define VALUE_REASON_BYTES 256

struct module_state;

/* The value of a whole JSON text, a new reference. NULL with an exception: ValueError where the
 * text is no JSON (any bytes may be given) or has a number that Python cannot hold. */
PyObject *value_read(struct module_state *state, struct span json);

/* Append `value` as compact JSON text on one line. On failure `out` holds what it held before.
 * STATUS_INVALID: no JSON, `reason` says why (UTF-8, not escaped) and no exception is set.
 * STATUS_PYTHON: an exception is set. */
enum status value_write(struct buffer *out, PyObject *value,
                        char reason[VALUE_REASON_BYTES]) MUST_USE;

/* The same for a value of any size: whenever `out` holds `bytes` or more and no part of the
 * value is half-written, `carry` takes it away (it empties the buffer, or fails and ends the
 * writing). It may let other threads run. On failure `out` and what was carried are of no use.
 * A status of `carry` is passed on. */
struct value_drain {
    size_t bytes;
    enum status (*carry)(struct value_drain *drain);
};
enum status value_write_draining(struct buffer *out, PyObject *value, struct value_drain *drain,
                                 char reason[VALUE_REASON_BYTES]) MUST_USE;

#endif
