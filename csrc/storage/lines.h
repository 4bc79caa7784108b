/* Reading a file of lines from an offset on, in bounded memory; blank lines are passed over.
 *
 * Invariant: `offset` is where the line returned last begins, `end` right behind it. */
#ifndef RAFTPICO_STORAGE_LINES_H
#define RAFTPICO_STORAGE_LINES_H

#include "storage/file.h"

struct lines {
    const struct file *file; /* borrowed */
    struct buffer bytes;     /* read but not yet handed out */
    uint64_t read_to;        /* offset in the file up to which `bytes` reaches */
    uint64_t limit;          /* never read at or behind this offset */
    size_t line_bytes_max;
    size_t scanned; /* of `bytes`, known to hold no LF */
    uint64_t offset;
    uint64_t end;
    uint64_t number; /* of the line returned last, from 1; blank lines count */
};

enum lines_result {
    LINES_LINE,   /* *line, with its LF, borrowed until the next call */
    LINES_END,    /* nothing but line feeds up to the limit or the end of the file */
    LINES_BROKEN, /* the rest has no LF, or none within line_bytes_max */
    LINES_FAILED, /* the system refused; see the error */
};

void lines_open(struct lines *lines, const struct file *file, uint64_t offset, uint64_t limit,
                size_t line_bytes_max);
void lines_close(struct lines *lines);
enum lines_result lines_next(struct lines *lines, struct span *line, struct error *error);

#endif
