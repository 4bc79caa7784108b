/* machine.snapshot() into a file and machine.restore() out of one, both piece by piece. */
#ifndef RAFTPICO_PYTHON_SNAPSHOT_H
#define RAFTPICO_PYTHON_SNAPSHOT_H

#include "python/machine.h"

/* Begin to write the machine's state as it is now; the host learns elsewhere how that ends
 * (server/writing.h). Where it can be, that is the work of a child process, and this returns
 * at once; else all is written when it returns. STATUS_PYTHON: interrupted, as in machine_run.
 */
enum status snapshot_take(struct machine *machine, const struct apply_batch *batch,
                          struct apply_item *item) MUST_USE;

/* STATUS_PYTHON: an exception is set, and the machine has no state to go on from. */
enum status snapshot_restore(struct machine *machine, struct apply_item *item) MUST_USE;

#endif
