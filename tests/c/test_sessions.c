/* Clients' sessions: each rule alone, and random lives on two members that answer at different
 * moments, one of which starts anew from the other's snapshot. The limits are shrunk. */
#include <inttypes.h>

#include "base/memory.h"
#include "base/random.h"
#include "check.h"
#include "node/sessions.h"

STATIC_ASSERT(CLIENT_SESSIONS_MAX == 4 && SESSION_ANSWERS_BYTES_MAX < 131072, "shrunk");

#define START_MS 1732406400000u

static uint64_t last_seq;

static enum session_verdict offer(struct sessions *sessions, uint64_t index, uint64_t time_ms,
                                  const char *name, uint64_t seq, uint64_t waiter) {
    struct entry entry = {.index = index,
                          .time_ms = time_ms,
                          .session = {name, strlen(name)},
                          .session_seq = seq};
    last_seq = 0;
    return sessions_offer(sessions, &entry, waiter, &last_seq);
}

static void store(struct sessions *sessions, uint64_t index, int32_t code, struct span text) {
    struct session_answer answer;
    CHECK(!sessions_next(sessions, index, &answer));
    sessions_store(sessions, index, code, text);
}

static void apply(struct sessions *sessions, uint64_t index, uint64_t time_ms, const char *name,
                  uint64_t seq, const char *text) {
    CHECK(offer(sessions, index, time_ms, name, seq, 0) == SESSION_APPLY);
    store(sessions, index, 0, (struct span){text, strlen(text)});
}

/* What a repeat of (name, seq) at `index` is told. */
static struct session_answer repeat(struct sessions *sessions, uint64_t index, uint64_t time_ms,
                                    const char *name, uint64_t seq) {
    struct session_answer answer;
    CHECK(offer(sessions, index, time_ms, name, seq, 77) == SESSION_REPEAT);
    CHECK(sessions_next(sessions, index, &answer));
    CHECK(answer.waiter == 77);
    struct session_answer more;
    CHECK(!sessions_next(sessions, index, &more));
    return answer;
}

static void test_numbers(void) {
    struct sessions sessions;
    sessions_init(&sessions, 1);
    CHECK(offer(&sessions, 1, START_MS, "a", 2, 0) == SESSION_EXPIRED);
    apply(&sessions, 2, START_MS, "a", 1, "10");
    CHECK(offer(&sessions, 3, START_MS, "b", 2, 0) == SESSION_EXPIRED);
    struct session_answer answer = repeat(&sessions, 4, START_MS, "a", 1);
    CHECK(answer.kept && answer.code == 0 && answer.index == 2);
    CHECK(span_equal(answer.text, SPAN("10")));
    apply(&sessions, 5, START_MS, "a", 9, "90"); /* numbers may be left out */
    CHECK(offer(&sessions, 6, START_MS, "a", 8, 0) == SESSION_STALE && last_seq == 9);
    CHECK(offer(&sessions, 7, START_MS, "a", 10, 0) == SESSION_APPLY);
    store(&sessions, 7, 109, SPAN("{\"type\":\"E\"}"));
    answer = repeat(&sessions, 8, START_MS, "a", 10);
    CHECK(answer.kept && answer.code == 109 && answer.index == 7);
    CHECK(span_equal(answer.text, SPAN("{\"type\":\"E\"}")));
    sessions_clear(&sessions);
}

/* A repeat that comes while the first is with the machine waits, and sees no later answer. */
static void test_repeat_waits(void) {
    struct sessions sessions;
    struct session_answer answer;
    sessions_init(&sessions, 1);
    CHECK(offer(&sessions, 1, START_MS, "a", 1, 0) == SESSION_APPLY);
    CHECK(offer(&sessions, 2, START_MS, "a", 1, 5) == SESSION_REPEAT);
    CHECK(offer(&sessions, 3, START_MS, "a", 2, 0) == SESSION_APPLY);
    CHECK(offer(&sessions, 4, START_MS, "a", 1, 0) == SESSION_STALE);
    CHECK(!sessions_due(&sessions, 0));
    store(&sessions, 1, 0, SPAN("1"));
    CHECK(sessions_next(&sessions, 3, &answer));
    CHECK(answer.waiter == 5 && span_equal(answer.text, SPAN("1")));
    store(&sessions, 3, 0, SPAN("2"));
    CHECK(!sessions_due(&sessions, UINT64_MAX - 1));
    sessions_clear(&sessions);
}

static void test_expiry(void) {
    struct sessions sessions;
    sessions_init(&sessions, 1);
    apply(&sessions, 1, START_MS, "a", 1, "1");
    apply(&sessions, 2, START_MS + SESSION_IDLE_MS, "a", 2, "2"); /* just in time */
    CHECK(offer(&sessions, 3, START_MS + 2 * SESSION_IDLE_MS + 1, "a", 3, 0) ==
          SESSION_EXPIRED);
    CHECK(sessions.count == 0);
    apply(&sessions, 4, START_MS + 2 * SESSION_IDLE_MS + 1, "a", 1, "4");
    sessions_clear(&sessions);
}

/* The one used longest ago makes way, if it has been idle long enough for its retries. */
static void test_full(void) {
    static const char *const names[] = {"a", "b", "c", "d"};
    struct sessions sessions;
    sessions_init(&sessions, 1);
    for (uint64_t i = 0; i < 4; i++) {
        apply(&sessions, i + 1, START_MS + i, names[i], 1, "1");
    }
    apply(&sessions, 5, START_MS + 4, "a", 2, "2");
    CHECK(offer(&sessions, 6, START_MS + SESSION_KEEP_MS, "e", 1, 0) == SESSION_FULL);
    apply(&sessions, 7, START_MS + 1 + SESSION_KEEP_MS, "e", 1, "1");
    CHECK(sessions.count == 4);
    CHECK(offer(&sessions, 8, START_MS + 1 + SESSION_KEEP_MS, "b", 2, 0) == SESSION_EXPIRED);
    CHECK(repeat(&sessions, 9, START_MS + 1 + SESSION_KEEP_MS, "a", 2).kept);
    sessions_clear(&sessions);
}

/* An answer that is too large, or too old when many are kept, is not there any more; that the
 * command was applied is. */
static void test_bytes(void) {
    struct sessions sessions;
    sessions_init(&sessions, 1);
    char *large = memory_must_alloc_zero(SESSION_ANSWER_BYTES_MAX + 1);
    memset(large, '7', SESSION_ANSWER_BYTES_MAX + 1);
    CHECK(offer(&sessions, 1, START_MS, "a", 1, 0) == SESSION_APPLY);
    store(&sessions, 1, 0, (struct span){large, SESSION_ANSWER_BYTES_MAX + 1});
    struct session_answer answer = repeat(&sessions, 2, START_MS, "a", 1);
    CHECK(!answer.kept && answer.text.size == 0 && answer.index == 1);
    CHECK(offer(&sessions, 3, START_MS, "b", 1, 0) == SESSION_APPLY);
    store(&sessions, 3, 0, (struct span){large, SESSION_ANSWER_BYTES_MAX});
    CHECK(repeat(&sessions, 4, START_MS, "b", 1).kept);
    CHECK(offer(&sessions, 5, START_MS, "c", 1, 0) == SESSION_APPLY);
    store(&sessions, 5, 0, (struct span){large, SESSION_ANSWER_BYTES_MAX});
    CHECK(sessions.answers_bytes <= SESSION_ANSWERS_BYTES_MAX);
    CHECK(!repeat(&sessions, 6, START_MS, "b", 1).kept);
    CHECK(repeat(&sessions, 7, START_MS, "c", 1).kept);
    apply(&sessions, 8, START_MS, "b", 2, "8");
    CHECK(repeat(&sessions, 9, START_MS, "b", 2).kept);
    memory_free(large);
    sessions_clear(&sessions);
}

static void test_read(void) {
    static const char *const refused[] = {
        "[\"a\",1,5,7,0,1]",                    /* no LF */
        "[\"\",1,5,7,0,1]\n",                   /* no name */
        "[\"a\",0,5,7,0,1]\n",                  /* no number */
        "[\"a\",1,5,0,0,1]\n",                  /* no index */
        "[\"a\",1,5,7,0,]\n",                   /* an empty answer */
        "[\"a\",1,5,7,0\n",                     /* cut off */
        "[\"a\",1,5,7,0,1]\n[\"a\",1,5,8,0]\n", /* twice */
        "[\"a\",1,5,7,0,1]\n[\"b\",1,5,7,0]\n", /* two at an index */
    };
    struct sessions sessions;
    sessions_init(&sessions, 1);
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        struct span lines = {refused[i], strlen(refused[i])};
        CHECK(sessions_read(&sessions, lines, 9) == STATUS_CORRUPT);
        CHECK(sessions.count == 0);
    }
    struct span good = SPAN("[\"a\\\"]\",4,5,7,105,{}]\n[\"b\",1,6,9,0]\n");
    CHECK(sessions_read(&sessions, good, 8) == STATUS_CORRUPT); /* later than what it is of */
    CHECK(sessions.count == 0);
    CHECK(sessions_read(&sessions, good, 9) == STATUS_OK);
    struct buffer lines;
    buffer_init(&lines);
    sessions_write(&sessions, &lines);
    CHECK(span_equal(buffer_span(&lines), good));
    CHECK(repeat(&sessions, 10, 6, "a\\\"]", 4).code == 105);
    CHECK(!repeat(&sessions, 11, 6, "b", 1).kept);
    buffer_free(&lines);
    sessions_clear(&sessions);
}

/* --- random lives --- */
#define ENTRIES 4000u
#define NAMES 6u

struct action {
    uint64_t index;
    uint64_t time_ms;
    char name[2];
    uint64_t seq;
    enum session_verdict verdict; /* as the first member found it */
    size_t answer_size;
};

struct member {
    struct sessions sessions;
    uint64_t offered; /* entries */
    uint64_t answered;
};

static void draw(struct random *random, struct action *actions) {
    uint64_t time_ms = START_MS;
    uint64_t seqs[NAMES] = {0};
    for (uint64_t i = 0; i < ENTRIES; i++) {
        uint64_t who = random_between(random, 0, NAMES - 1);
        uint64_t step = random_between(random, 0, 9);
        seqs[who] = step == 0 ? 1 : step < 6 ? seqs[who] + 1 : seqs[who];
        if (step == 9 && seqs[who] > 1) {
            seqs[who]--;
        }
        seqs[who] += seqs[who] == 0;
        time_ms += random_between(random, 0, 50) == 0 ? SESSION_KEEP_MS
                                                      : random_between(random, 0, 100);
        time_ms += random_between(random, 0, 500) == 0 ? SESSION_IDLE_MS : 0;
        actions[i] = (struct action){
            .index = i + 1,
            .time_ms = time_ms,
            .name = {(char)('a' + who), '\0'},
            .seq = seqs[who],
            .answer_size = random_between(random, 0, 20) == 0
                               ? random_between(random, 1, SESSION_ANSWER_BYTES_MAX + 10)
                               : random_between(random, 1, 30),
        };
    }
}

static void offer_next(struct member *member, struct action *actions, bool first) {
    struct action *action = &actions[member->offered++];
    enum session_verdict verdict = offer(&member->sessions, action->index, action->time_ms,
                                         action->name, action->seq, action->index);
    CHECK(first || verdict == action->verdict);
    action->verdict = verdict;
}

static void answer_next(struct member *member, const struct action *actions, const char *text) {
    const struct action *action = &actions[member->answered++];
    struct session_answer answer;
    if (action->verdict == SESSION_APPLY) {
        while (sessions_next(&member->sessions, action->index, &answer)) {
            CHECK(answer.waiter < action->index);
        }
        sessions_store(&member->sessions, action->index, 0,
                       (struct span){text, action->answer_size});
        return;
    }
    bool found = false;
    while (sessions_next(&member->sessions, action->index, &answer)) {
        found = found || answer.waiter == action->index;
    }
    CHECK(found == (action->verdict == SESSION_REPEAT));
}

static void check_equal(const struct member *a, const struct member *b) {
    struct buffer left, right;
    buffer_init(&left);
    buffer_init(&right);
    sessions_write(&a->sessions, &left);
    sessions_write(&b->sessions, &right);
    CHECK(span_equal(buffer_span(&left), buffer_span(&right)));
    CHECK(a->sessions.answers_bytes == b->sessions.answers_bytes);
    buffer_free(&left);
    buffer_free(&right);
}

/* `late` jumps to what `early` has answered. */
static void install(const struct member *early, struct member *late) {
    struct buffer lines;
    buffer_init(&lines);
    sessions_write(&early->sessions, &lines);
    CHECK(sessions_read(&late->sessions, buffer_span(&lines), early->answered) == STATUS_OK);
    late->offered = late->answered = early->answered;
    buffer_free(&lines);
}

static void test_two_members(uint64_t seed, const char *text) {
    static struct action actions[ENTRIES];
    struct random random;
    random_seed(&random, seed);
    draw(&random, actions);
    struct member early = {0}, late = {0};
    sessions_init(&early.sessions, seed);
    sessions_init(&late.sessions, ~seed);
    while (late.answered < ENTRIES) {
        uint64_t step = random_between(&random, 0, 99);
        if (step < 30 && early.offered < ENTRIES) {
            offer_next(&early, actions, true);
        } else if (step < 60 && early.answered < early.offered) {
            answer_next(&early, actions, text);
        } else if (step < 75 && late.offered < early.offered) {
            offer_next(&late, actions, false);
        } else if (step < 90 && late.answered < late.offered) {
            answer_next(&late, actions, text);
        } else if (step == 99 && late.offered < early.answered) {
            install(&early, &late);
        }
        if (early.answered == late.answered) {
            check_equal(&early, &late);
        }
    }
    sessions_clear(&early.sessions);
    sessions_clear(&late.sessions);
}

int main(void) {
    test_numbers();
    test_repeat_waits();
    test_expiry();
    test_full();
    test_bytes();
    test_read();
    char *text = memory_must_alloc_zero(SESSION_ANSWER_BYTES_MAX + 16);
    memset(text, '7', SESSION_ANSWER_BYTES_MAX + 16);
    for (uint64_t seed = 1; seed <= 50; seed++) {
        test_two_members(seed, text);
    }
    memory_free(text);
    CHECK(memory_live_count() == 0);
    printf("ok\n");
    return 0;
}
