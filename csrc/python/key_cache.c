/* Finding and making the strings of the key cache; see key_cache.h. */
#include "python/key_cache.h"

#include <stdint.h>

/* Only full CPython shows a string's bytes without a copy: what would change for the limited
 * API stands in these helpers. */
static inline bool str_equals_ascii(PyObject *str, struct span text) {
    return (size_t)PyUnicode_GET_LENGTH(str) == text.size &&
           memcmp(PyUnicode_DATA(str), text.data, text.size) == 0;
}

static inline bool str_is_ascii(PyObject *str) {
    return PyUnicode_IS_ASCII(str);
}

static inline bool str_is_interned(PyObject *str) {
    return PyUnicode_CHECK_INTERNED(str);
}

void key_cache_init(struct key_cache *cache) {
    *cache = (struct key_cache){0};
}

void key_cache_clear(struct key_cache *cache) {
    for (size_t i = 0; i < KEY_CACHE_SLOTS; i++) {
        Py_CLEAR(cache->slots[i]);
    }
    cache->interned = 0;
}

static inline size_t slot_of(struct span name) {
    uint32_t hash = 2166136261u; /* FNV-1a */
    for (size_t i = 0; i < name.size; i++) {
        hash = (hash ^ (unsigned char)name.data[i]) * 16777619u;
    }
    return (hash ^ hash >> 16) % KEY_CACHE_SLOTS;
}

/* A name that comes a second time is worth interning, within the bound. */
static void intern(struct key_cache *cache, PyObject **slot) {
    if (cache->interned < KEY_CACHE_INTERNED_MAX && !str_is_interned(*slot)) {
        cache->interned++;
        PyUnicode_InternInPlace(slot);
    }
}

PyObject *key_cache_take(struct key_cache *cache, struct span name) {
    if (name.size > KEY_CACHE_KEY_BYTES_MAX) {
        return PyUnicode_DecodeUTF8(name.data, (Py_ssize_t)name.size, NULL);
    }
    PyObject **slot = &cache->slots[slot_of(name)];
    if (*slot != NULL && str_equals_ascii(*slot, name)) {
        intern(cache, slot);
        Py_INCREF(*slot);
        return *slot;
    }
    PyObject *key = PyUnicode_DecodeUTF8(name.data, (Py_ssize_t)name.size, NULL);
    if (key != NULL && str_is_ascii(key)) {
        Py_INCREF(key);
        Py_XSETREF(*slot, key);
    }
    return key;
}
