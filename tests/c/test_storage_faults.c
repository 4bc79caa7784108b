/* A scripted life of a store - elections (term and vote), appends, roll-over of
 * segments, the truncation of a conflicting tail, own and received snapshots,
 * membership (an identity given, given anew under another id, removed),
 * restarts - in which every system call in turn fails, is interrupted, cut
 * short, or is where the process dies; and after that everything that was not
 * synced is lost, in whole or in part. The same for the opening of a damaged
 * directory, up to the end of its quarantine.
 *
 * After each: the store opens again (a plain crash never looks like damage),
 * with term and vote as they were last reported durable, every entry that was
 * reported durable, no entry that was reported cut, and nothing that was never
 * written. And what it showed when it opened survives losing the power at once.
 *
 * Usage: test_storage_faults [stride [seed]]: only every stride-th call
 * (default 1: all), another choice of what survives. */
#include <inttypes.h>

#include "base/memory.h"
#include "base/random.h"
#include "check.h"
#include "memfs.h"
#include "storerig.h"
#include "wire/snapshot.h"

#define SEGMENT_BYTES 3000u

/* What the disk may hold. */
struct world {
  uint64_t node_id;
  bool removed;
  uint64_t term;
  uint64_t voted_for;
  uint64_t must;       /* entries up to here were reported durable */
  struct logmaker log; /* entries up to log.last may be there */
  uint64_t snapshot_index;
};

/* Two of them: as it was before the call under way, and as it will be after it.
 */
static struct world sure;
static struct world maybe;
static bool in_flight;
static uint64_t incarnation; /* the highest that was ever shown */
static struct storerig rig;
static const char *scene = "";
static uint64_t base_seed;

static void world_copy(struct world *into, const struct world *from) {
  struct logmaker kept = into->log;
  *into = *from;
  into->log = kept;
  logmaker_copy(&into->log, &from->log);
}

/* `maybe` is now something else than `sure`. */
static void step_begin(const char *what) {
  scene = what;
  world_copy(&maybe, &sure);
  in_flight = true;
}

static void step_end(void) {
  world_copy(&sure, &maybe);
  in_flight = false;
}

/* --- is what was found one of the worlds?
 * --------------------------------------------- */

#define FIT(condition)                                                         \
  do {                                                                         \
    if (!(condition)) {                                                        \
      return #condition;                                                       \
    }                                                                          \
  } while (0)

/* NULL: it fits; otherwise why not. */
static const char *misfit(const struct world *world) {
  const struct store_recovery *found = &rig.recovery;
  FIT(found->meta.node_id == world->node_id &&
      found->meta.removed == world->removed);
  FIT(found->meta.term == world->term &&
      found->meta.voted_for == world->voted_for);
  FIT(found->snapshot_index == world->snapshot_index);
  FIT(found->last_index >= world->must ||
      found->last_index == found->snapshot_index);
  FIT(found->last_index >= world->must);
  FIT(found->last_index <= world->log.last);
  FIT(rig.entry_count == found->last_index - found->snapshot_index);
  struct span rest = buffer_span(&rig.lines);
  for (uint64_t index = found->first_index; index <= found->last_index;
       index++) {
    struct span line = logmaker_line(&world->log, index);
    FIT(rest.size >= line.size && memcmp(rest.data, line.data, line.size) == 0);
    rest = (struct span){rest.data + line.size, rest.size - line.size};
  }
  FIT(rest.size == 0);
  return NULL;
}

static void check_fits(const char *how) {
  const char *why = misfit(&sure);
  const char *why_maybe = in_flight ? misfit(&maybe) : "no call was under way";
  if (why != NULL && why_maybe != NULL) {
    fprintf(stderr, "%s, in \"%s\": neither %s nor %s\n", how, scene, why,
            why_maybe);
    fprintf(stderr,
            "found term %" PRIu64 ", snapshot %" PRIu64 ", last %" PRIu64
            "; %s\n",
            rig.recovery.meta.term, rig.recovery.snapshot_index,
            rig.recovery.last_index, rig.recovery.note);
    exit(1);
  }
}

/* --- the life
 * ------------------------------------------------------------------------- */

/* A step: calls the store until it goes through or fails for good. A full disk
 * has room again.
 */
#define UNTIL_DONE(status, call)                                               \
  do {                                                                         \
    (status) = (call);                                                         \
  } while ((status) == STATUS_NO_SPACE)

static enum status live_open(void) {
  scene = "open";
  enum status status;
  UNTIL_DONE(status, storerig_open(&rig));
  if (status == STATUS_OK) {
    check_fits("opened in its life");
    CHECK(!rig.recovery.quarantined && !rig.recovery.tail_cut);
    CHECK(rig.recovery.meta.incarnation > incarnation);
    incarnation = rig.recovery.meta.incarnation;
  }
  return status;
}

static enum status live_vote(uint64_t term, uint64_t voted_for) {
  step_begin("vote");
  maybe.node_id = sure.node_id == 0 ? 1 : sure.node_id;
  maybe.term = term;
  maybe.voted_for = voted_for;
  enum status status;
  UNTIL_DONE(status, storerig_save_term(&rig, term, voted_for));
  if (status == STATUS_OK) {
    step_end();
  }
  return status;
}

/* A place in a cluster: given with a new id after the disk was emptied, or
 * taken away. */
static enum status live_membership(uint64_t node_id, bool removed) {
  step_begin("membership");
  maybe.node_id = node_id;
  maybe.removed = removed;
  struct meta meta = rig.recovery.meta;
  meta.node_id = node_id;
  meta.removed = removed;
  meta.term = sure.term;
  meta.voted_for = sure.voted_for;
  enum status status;
  UNTIL_DONE(status, store_save_meta(rig.store, &meta, &rig.error));
  if (status == STATUS_OK) {
    rig.recovery.meta = meta;
    step_end();
  }
  return status;
}

/* Append, without a sync: it may be there, and need not. */
static enum status live_append(uint64_t count, size_t bytes) {
  scene = "append";
  uint64_t first = sure.log.last + 1;
  for (uint64_t i = 0; i < count; i++) {
    logmaker_add(&sure.log, sure.term, bytes);
  }
  enum status status;
  UNTIL_DONE(status, logmaker_append(&sure.log, rig.store, first, sure.log.last,
                                     &rig.error));
  return status;
}

static enum status live_sync(void) {
  scene = "sync";
  enum status status = store_sync(rig.store, &rig.error);
  if (status == STATUS_OK) {
    sure.must = sure.log.last;
  }
  return status;
}

static enum status live_truncate(uint64_t index) {
  scene = "truncate";
  sure.must = index - 1 < sure.must ? index - 1 : sure.must;
  enum status status = store_truncate(rig.store, index, &rig.error);
  if (status == STATUS_OK) {
    logmaker_cut(&sure.log, index);
  }
  return status;
}

static enum status live_own_snapshot(uint64_t index, uint64_t keep) {
  step_begin("own snapshot");
  maybe.snapshot_index = index;
  enum status status;
  UNTIL_DONE(status, storerig_snapshot(&rig, STORE_SLOT_OWN, &sure.log, index,
                                       false, keep));
  if (status == STATUS_OK) {
    step_end();
  }
  return status;
}

/* From a leader whose log is another one: ours is dropped. */
static enum status live_received_snapshot(uint64_t index) {
  static struct logmaker leader;
  logmaker_init(&leader, index, sure.term, 0x5eed0000u + (uint32_t)index);
  step_begin("received snapshot");
  logmaker_copy(&maybe.log, &leader);
  maybe.snapshot_index = index;
  maybe.must = index;
  enum status status;
  UNTIL_DONE(status, storerig_snapshot(&rig, STORE_SLOT_RECEIVED, &leader,
                                       index, true, 0));
  if (status == STATUS_OK) {
    step_end();
  }
  return status;
}

static enum status live_restart(void) {
  storerig_close(&rig);
  return live_open();
}

#define LIVE(step)                                                             \
  do {                                                                         \
    enum status live_status = (step);                                          \
    if (live_status != STATUS_OK) {                                            \
      return live_status;                                                      \
    }                                                                          \
  } while (0)

static enum status first_half(void) {
  LIVE(live_open());
  LIVE(live_vote(1, 1));
  LIVE(live_append(5, 60));
  LIVE(live_sync());
  LIVE(live_membership(7, false));
  LIVE(live_append(6, 700)); /* several sectors, and the next segment */
  LIVE(live_sync());
  LIVE(live_vote(2, 3));
  LIVE(live_truncate(8)); /* within the last segment but one */
  LIVE(live_append(3, 200));
  LIVE(live_append(4, 1200));
  LIVE(live_sync());
  LIVE(live_vote(3, 0));
  LIVE(live_vote(3, 2));
  LIVE(live_truncate(12));
  LIVE(live_append(1, 100));
  LIVE(live_sync());
  LIVE(live_restart());
  LIVE(live_append(2, 100));
  LIVE(live_own_snapshot(10, 2));
  LIVE(live_append(14, 300));
  LIVE(live_sync());
  LIVE(live_truncate(13)); /* over several segments */
  return live_append(2, 300);
}

static enum status second_half(void) {
  LIVE(live_sync());
  for (uint64_t term = 4; term < 20; term++) {
    LIVE(live_vote(term, term % 3));
  }
  LIVE(live_append(12, 500));
  LIVE(live_sync());
  LIVE(live_received_snapshot(20)); /* conflicts with the log */
  LIVE(live_append(9, 600));
  LIVE(live_sync());
  LIVE(live_own_snapshot(24, 0));
  LIVE(live_own_snapshot(29, 0));
  LIVE(live_restart());
  LIVE(live_append(3, 10));
  LIVE(live_sync());
  LIVE(live_received_snapshot(40)); /* the log ends before it */
  LIVE(live_append(8, 900));
  LIVE(live_sync());
  LIVE(live_truncate(42));
  LIVE(live_restart());
  LIVE(live_append(1, 1));
  LIVE(live_sync());
  LIVE(live_membership(7, true));
  return live_restart();
}

static enum status live(void) {
  LIVE(first_half());
  return second_half();
}

/* --- around the life
 * ------------------------------------------------------------------ */

static void life_begin(void) {
  storerig_clear(&rig);
  memfs_reset();
  storerig_init(&rig, MEMFS_PATH, SEGMENT_BYTES);
  logmaker_clear(&sure.log);
  logmaker_clear(&maybe.log);
  sure = (struct world){.term = 0};
  maybe = (struct world){.term = 0};
  in_flight = false;
  incarnation = 0;
}

/* Open what a crash has left, and lose the power right after: what was shown
 * must be there again. */
static void check_reopens(const char *how) {
  enum status status = storerig_open(&rig);
  if (status != STATUS_OK) {
    fprintf(stderr, "%s, in \"%s\": refused: %s\n", how, scene, rig.error.text);
    exit(1);
  }
  if (rig.recovery.quarantined) {
    fprintf(stderr, "%s, in \"%s\": taken for damage: %s\n", how, scene,
            rig.recovery.note);
    exit(1);
  }
  check_fits(how);
  CHECK(rig.recovery.meta.incarnation > incarnation);
  struct store_recovery shown = rig.recovery;
  memfs_die();
  storerig_close(&rig);
  memfs_crash(MEMFS_POWER_NONE, 0);
  CHECK(storerig_open(&rig) == STATUS_OK);
  CHECK(rig.recovery.last_index == shown.last_index);
  CHECK(rig.recovery.snapshot_index == shown.snapshot_index);
  CHECK(rig.recovery.meta.incarnation == shown.meta.incarnation + 1);
  CHECK(!rig.recovery.tail_cut && !rig.recovery.quarantined);
  check_fits(how);
  storerig_close(&rig);
}

/* The store that failed must not do anything any more, but say why. */
static void check_broken(enum status status) {
  bool only_read = strcmp(memfs_hit_call(), "pread") == 0 ||
                   strcmp(memfs_hit_call(), "open") == 0;
  if (rig.store == NULL || only_read) {
    return; /* it could not be opened; a failed read leaves nothing in doubt */
  }
  CHECK(status == STATUS_IO);
  struct error again = {.status = STATUS_OK};
  CHECK(store_sync(rig.store, &again) == STATUS_IO);
  CHECK(again.status == STATUS_IO && again.text[0] != 0);
  struct meta meta = rig.recovery.meta;
  meta.term += 100;
  unsigned long before = memfs_calls();
  CHECK(store_save_meta(rig.store, &meta, &again) == STATUS_IO);
  CHECK(memfs_calls() == before);
}

struct crash_plan {
  enum memfs_crash crash;
  uint64_t seed;
};

static const struct crash_plan crashes[] = {
    {MEMFS_KILL, 0},       {MEMFS_POWER_NONE, 0}, {MEMFS_POWER_SOME, 1},
    {MEMFS_POWER_SOME, 2}, {MEMFS_POWER_SOME, 3},
};
#define CRASHES (sizeof(crashes) / sizeof(crashes[0]))

/* The process dies at call n; then, while what is left is opened, it dies again
 * at a random call. */
static unsigned long die_at(unsigned long n, enum memfs_fault how,
                            const struct crash_plan *plan) {
  char text[100];
  CHECK(snprintf(text, sizeof(text),
                 "died (%d) at call %lu, crash %d seed %" PRIu64, how, n,
                 plan->crash, plan->seed) > 0);
  life_begin();
  memfs_fail_at(n, how, false);
  enum status status = live();
  if (!memfs_hit()) {
    CHECK(status == STATUS_OK);
    return 0;
  }
  storerig_close(&rig);
  struct random random;
  random_seed(&random, n * 31 + plan->seed + base_seed * 1000003);
  memfs_crash(plan->crash, random_next(&random));
  memfs_fail_at(random_between(&random, 1, 60), how, false);
  if (storerig_open(&rig) == STATUS_OK &&
      rig.recovery.meta.incarnation > incarnation) {
    incarnation = rig.recovery.meta.incarnation;
  }
  memfs_die();
  storerig_close(&rig);
  memfs_crash(plan->crash, random_next(&random));
  check_reopens(text);
  return 1;
}

/* Call n fails, once or for ever. */
static unsigned long fail_at(unsigned long n, enum memfs_fault how,
                             bool for_ever, const struct crash_plan *plan) {
  char text[100];
  CHECK(snprintf(text, sizeof(text),
                 "failed (%d%s) at call %lu, crash %d seed %" PRIu64, how,
                 for_ever ? " for ever" : "", n, plan->crash, plan->seed) > 0);
  life_begin();
  memfs_fail_at(n, how, for_ever);
  enum status status = live();
  if (!memfs_hit()) {
    CHECK(status == STATUS_OK);
    return 0;
  }
  bool harmless = how == MEMFS_SHORT || how == MEMFS_EINTR;
  if (harmless) {
    CHECK(status == STATUS_OK);
  }
  if (status != STATUS_OK) {
    check_broken(status);
  }
  memfs_die();
  storerig_close(&rig);
  memfs_crash(plan->crash, n * 17 + plan->seed + base_seed * 1000003);
  check_reopens(text);
  return 1;
}

static unsigned long run_deaths(unsigned long stride) {
  unsigned long points = 0;
  for (size_t c = 0; c < CRASHES; c++) {
    for (int mid = 0; mid < 2; mid++) {
      unsigned long n = 1;
      while (die_at(n, mid ? MEMFS_DIE_MID : MEMFS_DIE, &crashes[c]) > 0) {
        n += stride;
        points++;
      }
    }
  }
  return points;
}

static unsigned long run_failures(unsigned long stride) {
  static const struct {
    enum memfs_fault how;
    bool for_ever;
  } kinds[] = {
      {MEMFS_EIO, false},   {MEMFS_EIO, true},    {MEMFS_ENOSPC, false},
      {MEMFS_EINTR, false}, {MEMFS_SHORT, false},
  };
  unsigned long points = 0;
  for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
    for (size_t c = 0; c < 3; c++) {
      unsigned long n = 1;
      while (fail_at(n, kinds[k].how, kinds[k].for_ever, &crashes[c]) > 0) {
        n += stride;
        points++;
      }
    }
  }
  return points;
}

/* --- a damaged directory
 * -------------------------------------------------------------- */

#define DAMAGED_ENTRY 9u
#define DAMAGED_LAST 24u

/* Several segments, and a bit that is wrong in one that is closed. */
static struct memfs_image *make_damaged(void) {
  life_begin();
  CHECK(live_open() == STATUS_OK && live_vote(2, 1) == STATUS_OK);
  CHECK(live_append(DAMAGED_LAST, 400) == STATUS_OK &&
        live_sync() == STATUS_OK);
  storerig_close(&rig);
  struct span line = logmaker_line(&sure.log, DAMAGED_ENTRY);
  for (int i = 0; i < memfs_count(); i++) {
    const char *name = memfs_name(i);
    const struct buffer *content = name != NULL ? memfs_peek(name) : NULL;
    char *at = content != NULL && content->size > 0
                   ? memmem(content->bytes, content->size, line.data, line.size)
                   : NULL;
    if (at != NULL) {
      struct buffer changed = {0};
      buffer_append_span(&changed, buffer_span(content));
      changed.bytes[at - content->bytes + 40] ^= 1;
      memfs_put(name, buffer_span(&changed));
      buffer_free(&changed);
      return memfs_save();
    }
  }
  CHECK(false); /* the entry is in one of the files */
  return NULL;
}

/* Whatever happened on the way: cut before the damage, all before it there, and
 * marked. */
static void check_quarantined(const char *how) {
  if (storerig_open(&rig) != STATUS_OK || !rig.recovery.quarantined ||
      rig.recovery.tail_cut || rig.recovery.last_index != DAMAGED_ENTRY - 1) {
    fprintf(stderr, "%s: quarantined %d, cut %d, last %" PRIu64 ": %s%s\n", how,
            rig.recovery.quarantined, rig.recovery.tail_cut,
            rig.recovery.last_index, rig.recovery.note, rig.error.text);
    exit(1);
  }
  CHECK(rig.recovery.meta.term == 2 && rig.recovery.meta.voted_for == 1);
  struct span rest = buffer_span(&rig.lines);
  for (uint64_t index = 1; index < DAMAGED_ENTRY; index++) {
    struct span line = logmaker_line(&sure.log, index);
    CHECK(rest.size >= line.size &&
          memcmp(rest.data, line.data, line.size) == 0);
    rest = (struct span){rest.data + line.size, rest.size - line.size};
  }
}

/* Opened, with a fault at call n; then caught up as from a leader, and let out
 * of quarantine, with a fault at the same call of that. */
static unsigned long fault_in_quarantine(const struct memfs_image *image,
                                         unsigned long n, enum memfs_fault how,
                                         const struct crash_plan *plan) {
  char text[100];
  CHECK(snprintf(text, sizeof(text),
                 "quarantine (%d) at call %lu, crash %d seed %" PRIu64, how, n,
                 plan->crash, plan->seed) > 0);
  memfs_load(image);
  memfs_fail_at(n, how, false);
  enum status status = storerig_open(&rig);
  bool hit = memfs_hit();
  CHECK(hit || status == STATUS_OK);
  memfs_die();
  storerig_close(&rig);
  memfs_crash(plan->crash, n * 17 + plan->seed + base_seed * 1000003);
  check_quarantined(text);
  CHECK(logmaker_append(&sure.log, rig.store, DAMAGED_ENTRY, DAMAGED_LAST,
                        &rig.error) == STATUS_OK);
  CHECK(store_sync(rig.store, &rig.error) == STATUS_OK);
  memfs_fail_at(n, how, false);
  status = store_clear_quarantine(rig.store, &rig.error);
  hit = hit || memfs_hit();
  memfs_die();
  storerig_close(&rig);
  memfs_crash(plan->crash, n * 19 + plan->seed);
  CHECK(storerig_open(&rig) == STATUS_OK);
  CHECK(rig.recovery.last_index == DAMAGED_LAST);
  CHECK(status != STATUS_OK || !rig.recovery.quarantined);
  storerig_close(&rig);
  return hit ? 1 : 0;
}

static unsigned long run_quarantine(unsigned long stride) {
  static const enum memfs_fault kinds[] = {MEMFS_DIE,   MEMFS_DIE_MID,
                                           MEMFS_EIO,   MEMFS_ENOSPC,
                                           MEMFS_EINTR, MEMFS_SHORT};
  struct memfs_image *image = make_damaged();
  unsigned long points = 0;
  for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
    for (size_t c = 0; c < CRASHES; c++) {
      unsigned long n = 1;
      while (fault_in_quarantine(image, n, kinds[k], &crashes[c]) > 0) {
        n += stride;
        points++;
      }
    }
  }
  memfs_image_free(image);
  return points;
}

int main(int argc, char **argv) {
  unsigned long stride = argc > 1 ? strtoul(argv[1], NULL, 10) : 1;
  base_seed = argc > 2 ? strtoul(argv[2], NULL, 10) : 0;
  file_use_calls(&MEMFS_CALLS);
  life_begin();
  CHECK(live() == STATUS_OK);
  unsigned long calls = memfs_calls();
  CHECK(calls > 200);
  unsigned long deaths = run_deaths(stride);
  unsigned long failures = run_failures(stride);
  unsigned long quarantine = run_quarantine(stride);
  life_begin();
  storerig_clear(&rig);
  memfs_free();
  CHECK(memory_live_count() == 0);
  printf("storage faults: a life of %lu calls; %lu deaths, %lu failures, %lu "
         "in quarantine: "
         "%lu points: ok\n",
         calls, deaths, failures, quarantine, deaths + failures + quarantine);
  return 0;
}
