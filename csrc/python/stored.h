/* The stored lines for Python: what `python -m raftpico.log` reads a directory with, so that it
 * takes for right what the engine takes for right. */
#ifndef RAFTPICO_PYTHON_STORED_H
#define RAFTPICO_PYTHON_STORED_H

#include "python/module.h"

/* Functions of the module: read_entry, read_meta, read_snapshot_header, check_line,
 * recover_directory. Ends with a zero. */
extern PyMethodDef stored_methods[];

#endif
