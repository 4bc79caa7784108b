/* The core's small parts against obvious versions of themselves, hostile messages, and no
 * memory. */
#include <string.h>

#include "base/memory.h"
#include "base/random.h"
#include "check.h"
#include "raft/log.h"
#include "raft/outbox.h"
#include "raft/quorum.h"
#include "raftrig.h"

/* --- quorum against counting ------------------------------------------------------------- */
static bool naive_reached(const struct raft_configuration *configuration,
                          const uint64_t values[MEMBERS_MAX], bool old_set, uint64_t value) {
    uint32_t voters = 0;
    uint32_t reached = 0;
    for (uint32_t i = 0; i < configuration->count; i++) {
        const struct raft_member *member = &configuration->members[i];
        if (old_set ? member->voter_before : member->voter) {
            voters += 1;
            reached += values[i] >= value ? 1 : 0;
        }
    }
    return voters > 0 && 2 * reached > voters;
}

static uint64_t naive_quorum(const struct raft_configuration *configuration,
                             const uint64_t values[MEMBERS_MAX]) {
    uint64_t best = 0;
    for (uint64_t value = 1; value <= 20; value++) {
        bool all = naive_reached(configuration, values, false, value) &&
                   (!configuration->joint || naive_reached(configuration, values, true, value));
        best = all ? value : best;
    }
    return best;
}

static void quorum_is_what_counting_says(void) {
    struct random random;
    random_seed(&random, 1);
    for (int round = 0; round < 200000; round++) {
        struct raft_configuration configuration = {
            .count = (uint32_t)random_between(&random, 0, MEMBERS_MAX),
            .joint = random_between(&random, 0, 1) == 1};
        uint64_t values[MEMBERS_MAX] = {0};
        for (uint32_t i = 0; i < configuration.count; i++) {
            configuration.members[i] =
                (struct raft_member){i + 1, random_between(&random, 0, 2) > 0,
                                     configuration.joint && random_between(&random, 0, 2) > 0};
            values[i] = random_between(&random, 0, 20);
        }
        CHECK(quorum_reached(&configuration, values) == naive_quorum(&configuration, values));
    }
}

/* --- the log against a list -------------------------------------------------------------- */
#define LIST_MAX 400u

struct list {
    uint64_t begin; /* index of the snapshot */
    uint64_t last;
    uint64_t terms[LIST_MAX];
    enum raft_entry_kind kinds[LIST_MAX];
    uint64_t marks[LIST_MAX]; /* id in the configuration */
    uint64_t base_mark;
    uint64_t base_index;
};

static struct raft_configuration marked(uint64_t mark) {
    return (struct raft_configuration){.count = 1, .members = {{mark, true, false}}};
}

static void check_log(const struct log *log, const struct list *list) {
    uint64_t mark = list->base_mark;
    uint64_t at = list->base_index;
    CHECK(log->last_index == list->last);
    for (uint64_t i = list->begin; i <= list->last + 1; i++) {
        const struct raft_configuration *found = NULL;
        bool has = i <= list->last;
        CHECK(log_term_at(log, i) == (has ? list->terms[i] : 0));
        if (!has) {
            break;
        }
        if (i > list->begin) {
            CHECK(log_kind_at(log, i, &found) == list->kinds[i]);
            CHECK((found != NULL) == (list->kinds[i] == RAFT_ENTRY_CONFIGURATION));
            if (found != NULL) {
                mark = list->marks[i];
                at = i;
                CHECK(found->members[0].id == mark);
            }
        }
        const struct log_configuration *in_force = log_configuration_at(log, i);
        CHECK(in_force->index == at && in_force->configuration.members[0].id == mark);
    }
    if (list->begin > 0) {
        CHECK(log_term_at(log, list->begin - 1) == 0);
    }
}

static void check_find(const struct log *log, const struct list *list, uint64_t index,
                       uint64_t term) {
    uint64_t at = index < list->last ? index : list->last;
    while (at > list->begin && list->terms[at] > term) {
        at -= 1;
    }
    at = at < list->begin ? list->begin : at;
    struct raft_position found = log_find(log, index, term);
    CHECK(found.index == at && found.term == list->terms[at]);
}

static void append_random(struct log *log, struct list *list, struct random *random) {
    uint64_t before = list->terms[list->last];
    uint64_t term = before + (random_between(random, 0, 3) == 0 ? 1 : 0);
    term = term == 0 ? 1 : term;
    enum raft_entry_kind kind = RAFT_ENTRY_COMMAND;
    if (term > before && random_between(random, 0, 1) == 0) {
        kind = RAFT_ENTRY_NOOP;
    } else if (random_between(random, 0, 4) == 0) {
        kind = RAFT_ENTRY_CONFIGURATION;
    }
    uint64_t index = ++list->last;
    struct raft_configuration configuration = marked(index + 1000);
    list->terms[index] = term;
    list->kinds[index] = kind;
    list->marks[index] = index + 1000;
    CHECK(log_reserve(log, 1, 1));
    log_append(log, &(struct raft_entry){term, kind, &configuration});
}

static void compact_list(struct list *list, uint64_t index) {
    for (uint64_t i = list->begin + 1; i <= index; i++) {
        if (list->kinds[i] == RAFT_ENTRY_CONFIGURATION) {
            list->base_mark = list->marks[i];
            list->base_index = i;
        }
    }
    list->begin = index;
}

static void log_is_what_a_list_says(void) {
    struct random random;
    random_seed(&random, 2);
    for (int life = 0; life < 300; life++) {
        struct log log;
        struct list list = {.base_mark = 77};
        struct raft_configuration configuration = marked(77);
        log_init(&log, (struct raft_position){0, 0}, &configuration, 0);
        for (int step = 0; step < 250; step++) {
            uint64_t dice = random_between(&random, 0, 9);
            if (dice < 7) {
                append_random(&log, &list, &random);
            } else if (dice == 7 && list.last > list.begin) {
                uint64_t from = random_between(&random, list.begin + 1, list.last);
                log_truncate(&log, from);
                list.last = from - 1;
            } else if (dice == 8 && list.last > list.begin) {
                uint64_t index = random_between(&random, list.begin + 1, list.last);
                log_compact(&log, index);
                compact_list(&list, index);
            }
            check_find(&log, &list, random_between(&random, list.begin, list.last + 3),
                       random_between(&random, 0, list.terms[list.last] + 1));
            check_log(&log, &list);
        }
        log_clear(&log);
    }
}

static void outbox_merges_and_is_bounded(void) {
    static struct outbox outbox;
    struct raft_message message = {.kind = RAFT_VOTE_REPLY, .to = 1, .granted = true};
    outbox_add(&outbox, &message);
    message.pre = true;
    outbox_add(&outbox, &message); /* does not hide the vote */
    CHECK(outbox.count == 1 && !outbox.messages[0].pre);
    for (uint64_t to = 1; to <= 2 * RAFT_MESSAGES_MAX; to++) {
        message.to = to;
        outbox_add(&outbox, &message);
        outbox_add(&outbox, &message);
    }
    CHECK(outbox.count == RAFT_MESSAGES_MAX);
}

/* --- hostile messages (D10) -------------------------------------------------------------- */
static uint64_t hostile_number(struct random *random, uint64_t near) {
    switch (random_between(random, 0, 19)) {
    case 0:
        return UINT64_MAX;
    case 1:
        return NUMBER_MAX - random_between(random, 0, 2000);
    case 2:
        return NUMBER_MAX + 1;
    case 3:
        return 0;
    default:
        return near + random_between(random, 0, 8) > 4 ? near + random_between(random, 0, 8) - 4
                                                       : near;
    }
}

static struct raft_position hostile_position(struct random *random,
                                             const struct raft_state *state) {
    return (struct raft_position){
        hostile_number(random, random_between(random, 0, state->term)),
        hostile_number(random, random_between(random, 0, state->last.index))};
}

/* Half of the positions are true ones, so that more than the first check is reached. */
static struct raft_position near_position(struct random *random, const struct rig *rig,
                                          const struct raft_state *state) {
    if (random_between(random, 0, 1) == 0) {
        return hostile_position(random, state);
    }
    uint64_t index = random_between(random, 0, state->last.index);
    return (struct raft_position){raft_term_at(rig->raft, index), index};
}

static struct raft_configuration hostile_configuration(struct random *random) {
    struct raft_configuration configuration = {.count = (uint32_t)random_between(random, 0, 5),
                                               .joint = random_between(random, 0, 3) == 0};
    for (uint32_t i = 0; i < configuration.count; i++) {
        configuration.members[i] = (struct raft_member){
            random_between(random, 0, 20) == 0 ? 0 : i + random_between(random, 0, 1) + 1,
            random_between(random, 0, 3) > 0,
            configuration.joint && random_between(random, 0, 3) > 0};
    }
    return configuration;
}

#define HOSTILE_ENTRIES_MAX 6u
static struct raft_configuration configurations[HOSTILE_ENTRIES_MAX];
static struct raft_entry entries[HOSTILE_ENTRIES_MAX];

static struct raft_message hostile_message(struct random *random, const struct rig *rig) {
    struct raft_state state = rig_state(rig);
    struct raft_message message = {
        .kind = (enum raft_message_kind)random_between(random, 0, 6),
        .from = random_between(random, 0, 30) == 0 ? hostile_number(random, 3)
                                                   : random_between(random, 1, 6),
        .to = state.id,
        .term =
            random_between(random, 0, 2) > 0 ? state.term : hostile_number(random, state.term),
        .pre = random_between(random, 0, 1) == 0,
        .granted = random_between(random, 0, 1) == 0,
        .transfer = random_between(random, 0, 3) == 0,
        .last = near_position(random, rig, &state),
        .previous = near_position(random, rig, &state),
        .hint = near_position(random, rig, &state),
        .commit = hostile_number(random, state.commit_index),
        .round = hostile_number(random, 2),
        .match = hostile_number(random, random_between(random, 0, state.last.index)),
        .rejected = random_between(random, 0, 1) == 0,
        .count = (uint32_t)random_between(random, 0, HOSTILE_ENTRIES_MAX),
        .entries = entries};
    uint64_t term = message.previous.term;
    for (uint32_t i = 0; i < HOSTILE_ENTRIES_MAX; i++) {
        term += random_between(random, 0, 4) == 0 ? 1 : 0;
        configurations[i] = hostile_configuration(random);
        entries[i] = (struct raft_entry){
            random_between(random, 0, 30) == 0 ? hostile_number(random, term) : term,
            (enum raft_entry_kind)random_between(random, 0, 2),
            random_between(random, 0, 20) == 0 ? NULL : &configurations[i]};
    }
    return message;
}

static void hostile_life(struct random *random, uint64_t results[16]) {
    struct rig rig;
    const uint64_t terms[] = {1, 1, 2};
    rig_start(&rig, 1, (uint32_t)random_between(random, 1, 5), 2, terms, 3);
    for (int step = 0; step < 400; step++) {
        struct raft_message message = hostile_message(random, &rig);
        struct raft_state before = rig_state(&rig);
        enum raft_result result = rig_receive(&rig, &message);
        struct raft_state after = rig_state(&rig);
        results[result] += 1;
        CHECK(after.commit_index >= before.commit_index && after.term >= before.term);
        if (result == RAFT_BAD_MESSAGE) {
            CHECK(after.term == before.term && after.last.index == before.last.index &&
                  after.role == before.role && after.commit_index == before.commit_index);
        }
        if (rig.outcome.wanted && random_between(random, 0, 1) == 0) {
            struct raft_configuration configuration = hostile_configuration(random);
            (void)!rig_step(&rig, &(struct raft_event){.kind = RAFT_EVENT_INSTALLED,
                                                       .position = message.last,
                                                       .configuration = &configuration,
                                                       .configuration_index = 1});
        }
        if (random_between(random, 0, 3) == 0) {
            rig_wait(&rig, random_between(random, 0, RIG_MAX_MS / 2));
            (void)!rig_do(&rig, (enum raft_event_kind)random_between(random, 5, 12),
                          random_between(random, 0, 7));
        }
        if (random_between(random, 0, 1) == 0) {
            rig_take(&rig);
            if (random_between(random, 0, 1) == 0) {
                rig_persist(&rig);
                rig_sent_all(&rig);
            }
        }
    }
    rig_stop(&rig);
}

static void d10_hostile_messages_trip_nothing(void) {
    struct random random;
    uint64_t results[16] = {0};
    random_seed(&random, 3);
    for (int life = 0; life < 1500; life++) {
        hostile_life(&random, results);
    }
    CHECK(results[RAFT_OK] > 1000 && results[RAFT_STALE] > 1000 &&
          results[RAFT_BAD_MESSAGE] > 1000);
}

/* --- no memory --------------------------------------------------------------------------- */
static uint32_t refusals;

static bool same(const struct raft_state *a, const struct raft_state *b) {
    return a->snapshot.index == b->snapshot.index && a->transferee == b->transferee &&
           a->change_pending == b->change_pending && a->role == b->role && a->term == b->term &&
           a->voted_for == b->voted_for && a->leader == b->leader &&
           a->commit_index == b->commit_index && a->durable_index == b->durable_index &&
           a->last.index == b->last.index && a->last.term == b->last.term &&
           a->configuration_index == b->configuration_index;
}

/* A step that finds no memory changed nothing, and succeeds when there is memory again. */
static enum raft_result insist(struct rig *rig, const struct raft_event *event) {
    struct raft_state before = rig_state(rig);
    bool actions = raft_has_actions(rig->raft);
    enum raft_result result = rig_step(rig, event);
    if (result == RAFT_NO_MEMORY) {
        struct raft_state after = rig_state(rig);
        CHECK(same(&before, &after) && actions == raft_has_actions(rig->raft));
        refusals += 1;
        result = rig_step(rig, event);
        CHECK(result != RAFT_NO_MEMORY);
    }
    return result;
}

static void persist_insisting(struct rig *rig) {
    while (raft_has_actions(rig->raft)) {
        rig_take(rig);
        struct raft_actions actions = rig->actions;
        if (actions.save_vote) {
            (void)insist(rig, &(struct raft_event){.kind = RAFT_EVENT_VOTE_PERSISTED,
                                                   .term = actions.term,
                                                   .voted_for = actions.voted_for});
        }
        if (actions.append_first <= actions.append_last) {
            uint64_t last = actions.append_last;
            (void)insist(
                rig, &(struct raft_event){.kind = RAFT_EVENT_LOG_PERSISTED,
                                          .generation = actions.generation,
                                          .position = {raft_term_at(rig->raft, last), last}});
        }
    }
}

static void tick_insisting(struct rig *rig) {
    rig->now_ms += RIG_MAX_MS + 1;
    (void)insist(rig, &(struct raft_event){.kind = RAFT_EVENT_TICK});
    persist_insisting(rig);
}

/* Alone: found, be led by oneself, add and remove members. */
static void live_alone(struct rig *rig) {
    (void)insist(rig, &(struct raft_event){.kind = RAFT_EVENT_BOOTSTRAP, .id = 1});
    tick_insisting(rig);
    for (uint64_t id = 2; id < 14; id++) {
        CHECK(insist(rig, &(struct raft_event){.kind = RAFT_EVENT_ADD, .id = id}) == RAFT_OK);
        persist_insisting(rig);
        (void)insist(rig, &(struct raft_event){.kind = RAFT_EVENT_PROPOSE, .count = 3});
        persist_insisting(rig);
    }
    for (int i = 0; i < 14; i++) { /* a term each */
        (void)insist(rig, &(struct raft_event){.kind = RAFT_EVENT_STEP_DOWN});
        tick_insisting(rig);
        tick_insisting(rig);
    }
    CHECK(rig_state(rig).role == RAFT_LEADER);
}

/* The next leader's log differs after the first of `many`: it votes for it, and is cut. */
static void take_over(struct rig *rig, const struct raft_entry many[40], uint64_t term) {
    struct raft_state state = rig_state(rig);
    struct raft_message vote = {
        .kind = RAFT_VOTE, .from = 8, .term = term + 1, .transfer = true, .last = state.last};
    struct raft_event event = {.kind = RAFT_EVENT_RECEIVE, .message = &vote};
    CHECK(insist(rig, &event) == RAFT_OK);
    persist_insisting(rig);
    struct raft_entry others[40];
    for (uint32_t i = 0; i < 40; i++) {
        others[i] = many[i];
        others[i].term = term + 1;
        others[i].kind = i == 0 ? RAFT_ENTRY_NOOP : RAFT_ENTRY_CONFIGURATION;
        others[i].configuration = many[1].configuration;
    }
    struct raft_message append = {.kind = RAFT_APPEND,
                                  .from = 8,
                                  .term = term + 1,
                                  .previous = {many[0].term, state.last.index - 39},
                                  .count = 40,
                                  .entries = others};
    event.message = &append;
    CHECK(insist(rig, &event) == RAFT_OK);
    CHECK(rig->outcome.truncated_from == state.last.index - 38);
    persist_insisting(rig);
}

/* Led by another: many terms and configurations in one message, then a conflict, then a
 * snapshot. */
static void live_led(struct rig *rig) {
    uint64_t term = rig_state(rig).term + 40;
    struct raft_state state = rig_state(rig);
    struct raft_configuration configuration = marked(9);
    struct raft_entry many[40];
    for (uint32_t i = 0; i < 40; i++) {
        many[i] = (struct raft_entry){term - 39 + i,
                                      i % 2 == 0 ? RAFT_ENTRY_NOOP : RAFT_ENTRY_CONFIGURATION,
                                      &configuration};
    }
    struct raft_message message = {.kind = RAFT_APPEND,
                                   .from = 9,
                                   .term = term,
                                   .previous = state.last,
                                   .count = 40,
                                   .entries = many};
    struct raft_event event = {.kind = RAFT_EVENT_RECEIVE, .message = &message};
    CHECK(insist(rig, &event) == RAFT_OK);
    persist_insisting(rig);
    take_over(rig, many, term);
    term += 1;
    struct raft_event compact = {.kind = RAFT_EVENT_COMPACTED,
                                 .position = {raft_term_at(rig->raft, 5), 5}};
    CHECK(insist(rig, &compact) == RAFT_OK);
    CHECK(insist(rig, &(struct raft_event){.kind = RAFT_EVENT_INSTALLED,
                                           .position = {term, 500},
                                           .configuration = &configuration,
                                           .configuration_index = 400}) == RAFT_OK);
    persist_insisting(rig);
}

static struct raft_state scripted_life(unsigned long fail_at, bool *failed) {
    struct raft_options options = {.seed = 5,
                                   .now_ms = 1000,
                                   .min_election_timeout_ms = RIG_MIN_MS,
                                   .max_election_timeout_ms = RIG_MAX_MS};
    struct rig rig = {.now_ms = 1000};
    refusals = 0;
    memory_fail_at(fail_at);
    rig.raft = raft_new(&options);
    if (rig.raft == NULL) {
        refusals += 1;
        rig.raft = raft_new(&options);
    }
    CHECK(rig.raft != NULL);
    live_alone(&rig);
    live_led(&rig);
    struct raft_state state = rig_state(&rig);
    rig_stop(&rig);
    memory_fail_at(0);
    *failed = refusals > 0;
    return state;
}

static void no_memory_changes_nothing(void) {
    bool failed;
    long before = memory_live_count();
    struct raft_state plain = scripted_life(0, &failed);
    CHECK(!failed);
    unsigned long n = 1;
    for (;; n++) {
        struct raft_state state = scripted_life(n, &failed);
        CHECK(same(&plain, &state));
        CHECK(memory_live_count() == before);
        if (!failed) {
            break;
        }
    }
    CHECK(n > 8); /* that many allocations has this life */
}

int main(void) {
    static const struct {
        const char *name;
        void (*run)(void);
    } tests[] = {
#define TEST(function) {#function, function}
        TEST(quorum_is_what_counting_says), TEST(log_is_what_a_list_says),
        TEST(outbox_merges_and_is_bounded), TEST(d10_hostile_messages_trip_nothing),
        TEST(no_memory_changes_nothing),
    };
    for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        printf("test %s\n", tests[i].name);
        fflush(stdout);
        tests[i].run();
    }
    printf("ok\n");
    return 0;
}
