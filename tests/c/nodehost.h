/* A host for one node in a test: connections, disk and machine in one thread, in memory.
 *
 * It carries as server/loop.c does, at once: jobs are done, batches run through a machine that
 * gives back what it was given, bytes gathered per connection. Time is what the target says. */
#ifndef RAFTPICO_TESTS_NODEHOST_H
#define RAFTPICO_TESTS_NODEHOST_H

#include <stdio.h>
#include <stdlib.h>

#include "node/node.h"
#include "server/disk_jobs.h"
#include "server/writing.h"

#define MUST(condition)                                                                        \
    do {                                                                                       \
        if (!(condition)) {                                                                    \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                    \
            abort();                                                                           \
        }                                                                                      \
    } while (0)

#ifndef NODEHOST_ENDS_MAX
#define NODEHOST_ENDS_MAX 64
#endif

/* The host's end of one of the node's connections. */
struct nodehost_end {
    struct node_conn *conn; /* NULL: this place is free, or the connection is closed */
    bool dialled;           /* the node's own dial, */
    bool connected;         /* ... which has been answered */
    bool closing;
    char address[ADDRESS_BYTES_MAX]; /* dialled */
    struct buffer sent;              /* by the node */
};

struct nodehost {
    struct node *node;
    struct disk_jobs disk;
    struct writing writing; /* of the node's own snapshot */
    uint64_t now_ms;
    uint64_t wall_start_ms; /* the wall clock's, when `now_ms` was 0 */
    struct nodehost_end ends[NODEHOST_ENDS_MAX];
};

void nodehost_init(struct nodehost *host, bool durable);
void nodehost_clear(struct nodehost *host);
/* A connection from outside; NULL: all places are taken. */
struct nodehost_end *nodehost_open(struct nodehost *host);
void nodehost_close(struct nodehost *host, struct nodehost_end *end);
void nodehost_receive(struct nodehost *host, struct nodehost_end *end, struct span bytes);
void nodehost_connected(struct nodehost *host, struct nodehost_end *end); /* a dial succeeded */
/* Turns, with all that they bring, until there is nothing to carry. */
void nodehost_turn(struct nodehost *host);
void nodehost_wait(struct nodehost *host, uint64_t ms); /* and a turn */

#endif
