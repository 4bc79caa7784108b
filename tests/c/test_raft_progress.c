/* A leader's view of one peer against an obvious one: three rows of marks, one for each index,
 * for what is on the peer's disk, in its log, and sent or there already. */
#include <string.h>

#include "base/random.h"
#include "check.h"
#include "raft/progress.h"

#define INDEXES 40u
#define LIVES 3000
#define STEPS 200

struct marks {
    bool durable[INDEXES + 1];
    bool held[INDEXES + 1];
    bool there[INDEXES + 1]; /* needs no sending: on its way, or held */
    enum progress_state state;
    uint64_t probe;
    uint64_t snapshot; /* what it is brought to */
    uint64_t incarnation;
    uint64_t offer_first; /* 0: nothing is offered */
    uint64_t offer_end;
};

static uint64_t prefix(const bool marks[INDEXES + 1]) {
    uint64_t index = 0;
    while (index < INDEXES && marks[index + 1]) {
        index += 1;
    }
    return index;
}

static void mark(bool marks[INDEXES + 1], uint64_t index) {
    for (uint64_t i = 1; i <= index; i++) {
        marks[i] = true;
    }
}

static void ask(struct marks *marks, uint64_t probe) {
    memset(marks->there, 0, sizeof(marks->there));
    mark(marks->there, probe);
    marks->state = PROGRESS_PROBE;
    marks->probe = probe;
    marks->offer_first = 0;
}

static void acknowledge(struct marks *marks, uint64_t match, uint64_t verified) {
    mark(marks->durable, match);
    mark(marks->held, match);
    mark(marks->held, verified);
    if (marks->state == PROGRESS_PROBE && prefix(marks->held) >= marks->probe) {
        marks->state = PROGRESS_PIPELINE;
        marks->offer_first = 0;
    }
    if (marks->state == PROGRESS_PIPELINE && !marks->there[prefix(marks->held)] &&
        prefix(marks->held) > 0) {
        marks->offer_first = 0; /* it was overtaken */
    }
    mark(marks->there,
         marks->state == PROGRESS_PIPELINE ? prefix(marks->held) : prefix(marks->durable));
}

static void compare(const struct progress *progress, const struct marks *marks) {
    CHECK(progress->state == marks->state);
    CHECK(progress->match == prefix(marks->durable));
    CHECK(progress->verified == prefix(marks->held));
    CHECK(progress->next == prefix(marks->there) + 1);
    CHECK(progress->offer_first == marks->offer_first);
    CHECK(progress->match < progress->next && progress->match <= progress->verified);
}

/* --- what happens ------------------------------------------------------------------------ */
static void answer(struct progress *progress, struct marks *marks, struct random *random) {
    uint64_t verified = random_between(random, 0, prefix(marks->there));
    uint64_t match = random_between(random, 0, verified);
    progress_acknowledge(progress, match, verified, 0);
    acknowledge(marks, match, verified);
}

static void offer(struct progress *progress, struct marks *marks, struct random *random) {
    if (progress->offer_first != 0 || progress->next > INDEXES ||
        progress->state == PROGRESS_SNAPSHOT) {
        return;
    }
    uint64_t end = random_between(random, progress->next, INDEXES);
    progress->offer_first = marks->offer_first = progress->next;
    progress->offer_end = marks->offer_end = end;
}

static void send(struct progress *progress, struct marks *marks, struct random *random) {
    uint64_t index = random_between(random, 0, INDEXES);
    bool fits = marks->offer_first != 0 && marks->offer_first == prefix(marks->there) + 1 &&
                index + 1 >= marks->offer_first && index <= marks->offer_end;
    CHECK(progress_sent(progress, index, 0) == fits);
    if (fits && index >= marks->offer_first) {
        mark(marks->there, index);
        marks->offer_first = 0;
    }
}

static void refuse(struct progress *progress, struct marks *marks, struct random *random) {
    uint64_t previous = random_between(random, 0, INDEXES);
    bool unknown = !marks->held[previous] && previous > 0;
    bool refuses = false;
    if (marks->state == PROGRESS_PROBE) {
        refuses = unknown && previous == marks->probe;
    } else if (marks->state == PROGRESS_PIPELINE) {
        refuses = unknown && marks->there[previous];
    }
    CHECK(progress_refuses(progress, previous) == refuses);
    if (refuses) {
        uint64_t probe = random_between(random, prefix(marks->held), previous - 1);
        progress_probe(progress, probe, false);
        ask(marks, probe);
    }
}

static void connect(struct progress *progress, struct marks *marks, struct random *random) {
    uint64_t incarnation = random_between(random, 1, 3);
    uint64_t snapshot = random_between(random, 0, 5);
    uint64_t known = prefix(marks->held) > snapshot ? prefix(marks->held) : snapshot;
    CHECK(progress_known(progress, snapshot) == known);
    if (incarnation != marks->incarnation) {
        memset(marks->durable, 0, sizeof(marks->durable));
        memset(marks->held, 0, sizeof(marks->held));
        marks->incarnation = incarnation;
    }
    progress_connect(progress, incarnation, snapshot);
    ask(marks, known);
}

static void step(struct progress *progress, struct marks *marks, struct random *random) {
    switch (random_between(random, 0, 7)) {
    case 0:
    case 1:
        answer(progress, marks, random);
        break;
    case 2:
    case 3:
        offer(progress, marks, random);
        break;
    case 4:
        send(progress, marks, random);
        break;
    case 5:
        refuse(progress, marks, random);
        break;
    case 6:
        if (random_between(random, 0, 3) == 0) {
            connect(progress, marks, random);
        }
        break;
    case 7:
        if (random_between(random, 0, 5) == 0) {
            marks->state = PROGRESS_SNAPSHOT;
            marks->offer_first = 0;
            progress_send_snapshot(progress, random_between(random, 1, INDEXES));
        }
        break;
    }
}

static void progress_is_what_marks_say(void) {
    struct random random;
    random_seed(&random, 6);
    uint64_t seen[3] = {0};
    for (int life = 0; life < LIVES; life++) {
        struct progress progress;
        struct marks marks = {.state = PROGRESS_PROBE};
        uint64_t probe = random_between(&random, 0, INDEXES);
        progress_init(&progress, 2, probe, 0);
        ask(&marks, probe);
        for (int i = 0; i < STEPS; i++) {
            step(&progress, &marks, &random);
            compare(&progress, &marks);
            seen[progress.state] += 1;
        }
    }
    CHECK(seen[PROGRESS_PROBE] > 1000 && seen[PROGRESS_PIPELINE] > 1000 &&
          seen[PROGRESS_SNAPSHOT] > 1000);
}

/* --- patience ---------------------------------------------------------------------------- */
/* What is in flight is given up `patience` after something last moved, and not before. */
static void stalled_is_what_a_watch_says(void) {
    struct random random;
    random_seed(&random, 7);
    for (int life = 0; life < LIVES; life++) {
        struct progress progress;
        uint64_t now_ms = 1000;
        uint64_t moved_ms = now_ms;
        uint64_t patience_ms = random_between(&random, 1, 50);
        progress_init(&progress, 2, 0, now_ms);
        progress_acknowledge(&progress, 0, 0, now_ms);
        for (int i = 0; i < 50; i++) {
            now_ms += random_between(&random, 0, 20);
            bool waits = progress.next > progress.verified + 1;
            CHECK(progress_stalled(&progress, now_ms, patience_ms) ==
                  (waits && now_ms >= moved_ms + patience_ms));
            if (random_between(&random, 0, 1) == 0) {
                progress.offer_first = progress.next;
                progress.offer_end = progress.next;
                CHECK(progress_sent(&progress, progress.next, now_ms));
                moved_ms = waits ? moved_ms : now_ms;
            } else if (waits && random_between(&random, 0, 2) == 0) {
                uint64_t verified =
                    random_between(&random, progress.verified, progress.next - 1);
                moved_ms = verified > progress.verified ? now_ms : moved_ms;
                progress_acknowledge(&progress, progress.match, verified, now_ms);
            }
        }
    }
}

int main(void) {
    static const struct {
        const char *name;
        void (*run)(void);
    } tests[] = {
#define TEST(function) {#function, function}
        TEST(progress_is_what_marks_say),
        TEST(stalled_is_what_a_watch_says),
    };
    for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        printf("test %s\n", tests[i].name);
        fflush(stdout);
        tests[i].run();
    }
    printf("ok\n");
    return 0;
}
