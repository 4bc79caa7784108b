/* The real system calls behind storage/file.h, as a table. */
#ifndef RAFTPICO_STORAGE_CALLS_H
#define RAFTPICO_STORAGE_CALLS_H

#include "storage/file.h"

extern const struct file_calls CALLS_REAL;

#endif
