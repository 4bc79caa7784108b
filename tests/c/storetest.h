/* What the tests of the store share: a store over the file system in memory, and two logs. */
#ifndef RAFTPICO_TESTS_STORETEST_H
#define RAFTPICO_TESTS_STORETEST_H

#include "storerig.h"

extern struct logmaker log_a;
extern struct logmaker log_b;
extern struct storerig rig;

void storetest_begin(uint64_t segment_bytes);
/* The same, and a fresh store in term `term` with `count` entries of that term from log_a. */
void storetest_begin_with(uint64_t segment_bytes, uint64_t count, uint64_t term);
void storetest_end(void); /* everything was given back */
void storetest_reopen(void);
/* Make entries in the log and write them, with a sync. */
void storetest_append(struct logmaker *log, uint64_t count, uint64_t term, size_t bytes);

int storetest_count_files(const char *prefix);
const char *storetest_last_segment(void); /* its name */
void storetest_copy_file(const char *name, struct buffer *content);
/* Change one byte of a file at the first place where `text` stands. */
void storetest_spoil(const char *name, const char *text);

#endif
