/* Reading a snapshot's state back, line by line, on the thread that restores the machine.
 *
 * The disk thread opens it, the node carries it as a cargo, the apply thread reads. The file is
 * open by a descriptor of its own, so a newer snapshot may replace it meanwhile.
 *
 * Invariant: a line that is given out has its seal checked, and the end is only told when the
 * trailer fits all that came before. */
#ifndef RAFTPICO_SERVER_READER_H
#define RAFTPICO_SERVER_READER_H

#include "node/batch.h"
#include "storage/file.h"
#include "wire/snapshot.h"

struct reader {
    struct cargo cargo; /* first: a cargo of ours is a reader */
    struct file file;
    uint64_t offset; /* of what is read next */
    struct snapshot_check check;
    struct buffer sessions; /* of clients, in front of the states; each with an LF */
    struct buffer lines;    /* states that were checked and not given out, each with an LF */
    bool ended;             /* the whole file was read */
};

struct reader *reader_new(struct file file); /* takes the file */
struct reader *reader_of(struct cargo *cargo);

/* The clients' sessions, each with an LF, for the loop's node; before the first reader_next().
 * Errors as there. */
enum status reader_take_sessions(struct reader *reader, struct buffer *lines,
                                 struct error *error) MUST_USE;

/* The next state's JSON text, borrowed until the next call; `*ended` when there is none.
 * STATUS_CORRUPT: the file has changed since it was verified. STATUS_IO: it cannot be read. */
enum status reader_next(struct reader *reader, struct span *json, bool *ended,
                        struct error *error) MUST_USE;

#endif
