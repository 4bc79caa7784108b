/* Texts for errors; see status.h. */
#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>

enum status error_set(struct error *error, enum status status, const char *format, ...) {
    if (error != NULL) {
        va_list args;
        va_start(args, format);
        vsnprintf(error->text, sizeof(error->text), format, args);
        va_end(args);
        error->status = status;
    }
    return status;
}

const char *status_name(enum status status) {
    switch (status) {
    case STATUS_OK:
        return "ok";
    case STATUS_NO_MEMORY:
        return "no memory";
    case STATUS_IO:
        return "input/output error";
    case STATUS_NO_SPACE:
        return "no space left";
    case STATUS_CORRUPT:
        return "corrupt";
    case STATUS_LOCKED:
        return "in use by another process";
    case STATUS_MISMATCH:
        return "belongs to another member";
    case STATUS_INVALID:
        return "invalid";
    case STATUS_NOT_FOUND:
        return "not found";
    case STATUS_CLOSED:
        return "closed";
    case STATUS_TIMEOUT:
        return "timed out";
    case STATUS_PYTHON:
        return "Python exception";
    }
    return "unknown";
}
