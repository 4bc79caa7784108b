/* How a leader sends to one peer; see progress.h. */
#include "raft/progress.h"

#include "base/assert.h"

static uint64_t larger(uint64_t a, uint64_t b) {
    return a > b ? a : b;
}

static void forget_offer(struct progress *progress) {
    progress->offer_first = 0;
    progress->offer_end = 0;
    progress->offer_ms = 0;
    progress->offer_due = false;
    progress->offer_refused = false;
}

void progress_init(struct progress *progress, uint64_t id, uint64_t probe, uint64_t now_ms) {
    *progress = (struct progress){.id = id, .heard_ms = now_ms, .moved_ms = now_ms};
    progress_probe(progress, probe, false);
}

void progress_probe(struct progress *progress, uint64_t probe, bool eager) {
    ASSERT(probe >= progress->match);
    progress->state = PROGRESS_PROBE;
    progress->probe = probe;
    progress->probe_eager = eager;
    progress->probe_asked = false;
    progress->probe_ms = 0;
    progress->next = probe + 1;
    progress->snapshot_due = false;
    progress->due = true;
    forget_offer(progress);
}

void progress_send_snapshot(struct progress *progress, uint64_t snapshot_index) {
    progress->state = PROGRESS_SNAPSHOT;
    progress->snapshot_due = true;
    progress->snapshot_index = snapshot_index;
    forget_offer(progress);
}

uint64_t progress_known(const struct progress *progress, uint64_t snapshot_index) {
    return larger(progress->verified, snapshot_index);
}

void progress_connect(struct progress *progress, uint64_t incarnation,
                      uint64_t snapshot_index) {
    uint64_t probe = progress_known(progress, snapshot_index);
    if (progress->incarnation != incarnation) {
        progress->incarnation = incarnation;
        progress->match = 0;
        progress->verified = 0;
    }
    progress_probe(progress, probe, false);
}

static void begin_pipeline(struct progress *progress, uint64_t now_ms) {
    progress->state = PROGRESS_PIPELINE;
    progress->moved_ms = now_ms;
    forget_offer(progress);
}

void progress_acknowledge(struct progress *progress, uint64_t match, uint64_t verified,
                          uint64_t now_ms) {
    if (verified > progress->verified || match > progress->match) {
        progress->moved_ms = now_ms;
    }
    progress->match = larger(progress->match, match);
    progress->verified = larger(progress->verified, larger(verified, match));
    if (progress->state == PROGRESS_PROBE && progress->verified >= progress->probe) {
        begin_pipeline(progress, now_ms);
    }
    if (progress->state == PROGRESS_PIPELINE && progress->next <= progress->verified) {
        progress->next = progress->verified + 1;
        forget_offer(progress);
    }
    if (progress->next <= progress->match) {
        progress->next = progress->match + 1;
    }
}

bool progress_refuses(const struct progress *progress, uint64_t previous) {
    switch (progress->state) {
    case PROGRESS_PROBE:
        return previous == progress->probe && previous > progress->verified;
    case PROGRESS_PIPELINE:
        return previous > progress->verified && previous < progress->next;
    case PROGRESS_SNAPSHOT:
        return false;
    }
    return false;
}

uint64_t progress_limit(const struct progress *progress, uint64_t last_index) {
    uint64_t limit = progress->match + RAFT_IN_FLIGHT_ENTRIES_MAX;
    if (progress->departing && limit > progress->departing_index) {
        limit = progress->departing_index;
    }
    return limit < last_index ? limit : last_index;
}

/* What the offer would have told besides its entries goes alone, then (D11). */
static void refuse_offer(struct progress *progress) {
    progress->offer_refused = true;
    progress->due = progress->due || progress->offer_due;
    progress->offer_due = false;
}

bool progress_sent(struct progress *progress, uint64_t index, uint64_t now_ms) {
    if (progress->offer_first == 0 || progress->offer_first != progress->next ||
        index + 1 < progress->offer_first || index > progress->offer_end) {
        return false;
    }
    if (index + 1 == progress->offer_first) {
        refuse_offer(progress);
        return true;
    }
    if (progress->verified + 1 == progress->next) {
        progress->moved_ms = now_ms;
    }
    progress->next = index + 1;
    forget_offer(progress);
    return true;
}

void progress_withdraw_offer(struct progress *progress) {
    refuse_offer(progress);
    progress->offer_first = 0;
}

bool progress_stalled(const struct progress *progress, uint64_t now_ms, uint64_t patience_ms) {
    return progress->state == PROGRESS_PIPELINE && progress->verified + 1 < progress->next &&
           now_ms - progress->moved_ms >= patience_ms;
}
