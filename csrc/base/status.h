/* How a function says that it failed because of its surroundings, and how it explains itself.
 *
 * A `status` is for the caller to branch on; a `struct error` is for a person to read: what was
 * attempted, where, and why it failed. Refusals of the protocol (no leader, bad params) are not
 * errors in this sense; they have codes of their own in wire/rpc.h. */
#ifndef RAFTPICO_BASE_STATUS_H
#define RAFTPICO_BASE_STATUS_H

enum status {
    STATUS_OK = 0,
    STATUS_NO_MEMORY, /* an allocation failed; arguments are as they were */
    STATUS_IO,        /* the operating system refused a read, write, sync, rename ... */
    STATUS_NO_SPACE,  /* ENOSPC or EDQUOT: may pass by itself */
    STATUS_CORRUPT,   /* a file holds what cannot have been written by us, or has changed */
    STATUS_LOCKED,    /* the data directory or the port is used by another process */
    STATUS_MISMATCH,  /* the data directory belongs to another address, node or cluster */
    STATUS_INVALID,   /* an argument from outside is out of its range */
    STATUS_NOT_FOUND, /* what was asked for does not exist (any more) */
    STATUS_CLOSED,    /* the object is stopping or stopped */
    STATUS_TIMEOUT,
    STATUS_PYTHON, /* a Python exception is set already: keep it */
};

#define ERROR_TEXT_BYTES_MAX 512

struct error {
    enum status status;
    char text[ERROR_TEXT_BYTES_MAX]; /* NUL-terminated, no newline at the end */
};

#if defined(__GNUC__)
#define MUST_USE __attribute__((warn_unused_result))
#define PRINTF_LIKE(format_at, args_at) __attribute__((format(printf, format_at, args_at)))
#else
#define MUST_USE
#define PRINTF_LIKE(format_at, args_at)
#endif

/* Fill `error` (which may be NULL) with a text cut to ERROR_TEXT_BYTES_MAX; returns `status`.
 */
enum status error_set(struct error *error, enum status status, const char *format, ...)
    PRINTF_LIKE(3, 4);

/* A short, constant name for a status: "no space", "corrupt" ... */
const char *status_name(enum status status);

#endif
