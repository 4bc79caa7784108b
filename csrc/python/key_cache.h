/* The names of objects' members as Python strings, made once: machines see the same few names
 * in every input, and a string that is the same object as the one in the machine's code is
 * found in a dict without being compared.
 *
 * A table of slots, one string a slot, the newest wins. Invariant: whatever names come from
 * outside, it holds at most KEY_CACHE_SLOTS strings and has at most KEY_CACHE_INTERNED_MAX
 * interned ones made (some releases of Python never free those). The caller holds the GIL. */
#ifndef RAFTPICO_PYTHON_KEY_CACHE_H
#define RAFTPICO_PYTHON_KEY_CACHE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "base/buffer.h"

#define KEY_CACHE_SLOTS 256u
#define KEY_CACHE_KEY_BYTES_MAX 32u  /* longer names are made anew each time */
#define KEY_CACHE_INTERNED_MAX 1024u /* in the life of the cache */

struct key_cache {
    PyObject *slots[KEY_CACHE_SLOTS]; /* owned ASCII strings, or NULL */
    unsigned interned;                /* how many this cache has had interned */
};

void key_cache_init(struct key_cache *cache);
void key_cache_clear(struct key_cache *cache); /* and init again */

/* The string of `name`, UTF-8 without escapes: a new reference, or NULL with an exception. */
PyObject *key_cache_take(struct key_cache *cache, struct span name);

#endif
