/* What the two halves of the file system in memory share: its files and names. */
#ifndef RAFTPICO_TESTS_MEMFS_INTERNAL_H
#define RAFTPICO_TESTS_MEMFS_INTERNAL_H

#include "memfs.h"

#define SECTOR 512u
#define NODES_MAX 512
#ifndef NAMES_MAX
#define NAMES_MAX 128
#endif
#define CHANGES_MAX 512
#define FDS_MAX 64
#define FD_FIRST 1000
#define FD_DIRECTORY 900
#define FD_PARENT 901

struct node {
    struct buffer cache;   /* what a read shows */
    struct buffer disk;    /* what a power cut leaves */
    struct buffer written; /* a byte a sector: 1 when it is dirty */
    bool locked;
};

struct name {
    char text[NAME_BYTES_MAX]; /* "": free */
    int node;
};

/* A change of the directory that is not on the disk yet. */
struct change {
    bool remove;               /* of `to`; otherwise a new meaning for it */
    char from[NAME_BYTES_MAX]; /* "": none */
    char to[NAME_BYTES_MAX];
    int node;
};

struct fd {
    bool open;
    int node;
};

extern struct node memfs_nodes[NODES_MAX];
extern struct name memfs_cached[NAMES_MAX]; /* the directory as it shows */
extern struct name memfs_stored[NAMES_MAX]; /* and as the disk has it */
extern bool memfs_exists;
extern bool memfs_exists_stored;

struct name *memfs_find(struct name *names, const char *text); /* "": a free place; or NULL */
void memfs_set(struct name *names, const char *text, int node);
void memfs_unset(struct name *names, const char *text);
int memfs_new_node(void);

#endif
