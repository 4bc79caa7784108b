/* The core at its edges: numbers near their end, events that do not apply, what no well-behaved
 * host or peer sends. */
#include <string.h>

#include "base/memory.h"
#include "check.h"
#include "raft/internal.h"
#include "raftrig.h"

/* A rig whose log begins after `snapshot`, with voters 1..voters. */
static void start_after(struct rig *rig, uint32_t voters, struct raft_position snapshot) {
    struct raft_options options = {.id = 1,
                                   .seed = 3,
                                   .now_ms = 1000,
                                   .min_election_timeout_ms = RIG_MIN_MS,
                                   .max_election_timeout_ms = RIG_MAX_MS,
                                   .term = snapshot.term,
                                   .snapshot = snapshot,
                                   .configuration = {.count = voters},
                                   .configuration_index = 1};
    for (uint32_t i = 0; i < voters; i++) {
        options.configuration.members[i] = (struct raft_member){.id = i + 1, .voter = true};
    }
    *rig = (struct rig){.now_ms = 1000};
    rig->raft = raft_new(&options);
    CHECK(rig->raft != NULL);
}

static enum raft_result propose(struct rig *rig, uint32_t count) {
    return rig_step(rig, &(struct raft_event){.kind = RAFT_EVENT_PROPOSE, .count = count});
}

/* --- numbers ----------------------------------------------------------------------------- */
/* D12: positions past 2^32, in the log, in messages, in a commit and in a compaction. */
static void d12_positions_past_32_bits(void) {
    struct rig rig;
    const uint64_t begin = (1ull << 40) + 7;
    start_after(&rig, 3, (struct raft_position){(1ull << 35) + 1, begin});
    rig_lead(&rig, 3);
    rig_sync(&rig);
    CHECK(rig_state(&rig).term == (1ull << 35) + 2);
    CHECK(rig_state(&rig).last.index == begin + 1);
    CHECK(propose(&rig, 3) == RAFT_OK && rig.outcome.last == begin + 4);
    rig_sync(&rig);
    CHECK(rig_acknowledge(&rig, 2, begin + 4) == RAFT_OK);
    CHECK(rig_state(&rig).commit_index == begin + 4);
    CHECK(rig_step(&rig, &(struct raft_event){.kind = RAFT_EVENT_COMPACTED,
                                              .position = {rig_state(&rig).term, begin + 3}}) ==
          RAFT_OK);
    CHECK(rig_state(&rig).snapshot.index == begin + 3);
    CHECK(raft_term_at(rig.raft, begin + 2) == 0);
    CHECK(raft_term_at(rig.raft, begin + 4) == (1ull << 35) + 2);
    rig_stop(&rig);
}

/* At the end of all indexes nothing is taken any more, and nobody asks for votes. */
static void the_end_of_all_indexes(void) {
    struct rig rig;
    start_after(&rig, 3, (struct raft_position){2, NUMBER_MAX - LOG_INDEXES_KEPT});
    rig_wait(&rig, 3 * RIG_MAX_MS);
    CHECK(rig_state(&rig).role == RAFT_FOLLOWER && !raft_has_actions(rig.raft));
    rig_stop(&rig);

    start_after(&rig, 1, (struct raft_position){2, NUMBER_MAX - LOG_INDEXES_KEPT - 3});
    rig_wait(&rig, RIG_MAX_MS + 1);
    rig_sync(&rig);
    CHECK(rig_state(&rig).role == RAFT_LEADER);
    CHECK(propose(&rig, 3) == RAFT_OVERLOADED);
    CHECK(propose(&rig, 1) == RAFT_OK);
    rig_sync(&rig);
    CHECK(rig_do(&rig, RAFT_EVENT_ADD, 9) == RAFT_OK); /* the last one that fits */
    rig_sync(&rig);
    CHECK(rig_state(&rig).commit_index == NUMBER_MAX - LOG_INDEXES_KEPT);
    CHECK(rig_do(&rig, RAFT_EVENT_ADD, 10) == RAFT_BUSY);
    CHECK(rig_do(&rig, RAFT_EVENT_REMOVE, 9) == RAFT_BUSY);
    CHECK(propose(&rig, 1) == RAFT_OVERLOADED);
    CHECK(propose(&rig, 0) == RAFT_OK && rig.outcome.first > rig.outcome.last);
    rig_stop(&rig);
}

static void the_smallest_time_outs(void) {
    struct rig rig;
    rig_lead_committed(&rig, 3);
    raft_set_election_timeouts(rig.raft, 0, 0);
    CHECK(raft_deadline_ms(rig.raft) <= rig.now_ms + RIG_HEARTBEAT_MS);
    rig_take(&rig);
    rig_wait(&rig, 0);
    for (int i = 0; i < 100; i++) {
        rig_take(&rig);
    }
    CHECK(raft_deadline_ms(rig.raft) <= rig.now_ms + 1);
    rig_stop(&rig);
}

/* --- events that do not apply ------------------------------------------------------------- */
static void unknown_kinds_are_refused(void) {
    struct rig rig;
    rig_lead_committed(&rig, 3);
    CHECK(rig_do(&rig, (enum raft_event_kind)99, 1) == RAFT_BAD_MESSAGE);
    CHECK(rig_receive(&rig, NULL) == RAFT_BAD_MESSAGE);
    CHECK(rig_receive(&rig, &(struct raft_message){.kind = (enum raft_message_kind)99,
                                                   .from = 2}) == RAFT_BAD_MESSAGE);
    struct raft_entry entry = {.term = 2, .kind = (enum raft_entry_kind)7};
    struct raft_message append = {
        .kind = RAFT_APPEND, .from = 2, .term = 3, .count = 1, .entries = &entry};
    CHECK(rig_receive(&rig, &append) == RAFT_BAD_MESSAGE);
    append.entries = NULL;
    CHECK(rig_receive(&rig, &append) == RAFT_BAD_MESSAGE);
    append = (struct raft_message){.kind = RAFT_APPEND,
                                   .from = 2,
                                   .term = 3,
                                   .previous = {2, NUMBER_MAX},
                                   .count = 1,
                                   .entries = &entry};
    CHECK(rig_receive(&rig, &append) == RAFT_BAD_MESSAGE);
    CHECK(strcmp(raft_role_name((enum raft_role)9), "Unknown") == 0);
    CHECK(strcmp(raft_role_name(RAFT_LEADER), "Leader") == 0);
    rig_stop(&rig);
}

/* D10: no number from outside is past what any JSON holds exactly, whatever the message. */
static void d10_numbers_past_the_greatest(void) {
    struct rig rig;
    rig_lead_committed(&rig, 3);
    for (int kind = RAFT_VOTE; kind <= RAFT_TIMEOUT_NOW; kind++) {
        struct raft_message good = {
            .kind = (enum raft_message_kind)kind, .from = 2, .term = 2, .last = {1, 1}};
        uint64_t *const numbers[] = {&good.from, &good.term, &good.commit, &good.round,
                                     &good.match};
        for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
            uint64_t kept = *numbers[i];
            *numbers[i] = NUMBER_MAX + 1;
            CHECK(!message_is_sound(&good));
            CHECK(rig_receive(&rig, &good) == RAFT_BAD_MESSAGE);
            *numbers[i] = kept;
        }
        CHECK(message_is_sound(&good));
    }
    CHECK(rig_state(&rig).term == 2 && rig_state(&rig).role == RAFT_LEADER);
    rig_stop(&rig);
}

/* D10: nobody uses up the terms by a message that says the last one. */
static void d10_a_term_that_is_far_ahead(void) {
    struct rig rig;
    rig_lead_committed(&rig, 3);
    for (int kind = RAFT_VOTE; kind <= RAFT_TIMEOUT_NOW; kind++) {
        struct raft_message far = {.kind = (enum raft_message_kind)kind,
                                   .from = 2,
                                   .term = 2 + RAFT_TERMS_AHEAD_MAX + 1,
                                   .transfer = true,
                                   .last = {2, 9}};
        CHECK(message_is_sound(&far));
        CHECK(rig_receive(&rig, &far) == RAFT_BAD_MESSAGE);
    }
    CHECK(rig_state(&rig).term == 2 && rig_state(&rig).role == RAFT_LEADER);
    struct raft_message ahead = {.kind = RAFT_VOTE,
                                 .from = 2,
                                 .term = 2 + RAFT_TERMS_AHEAD_MAX,
                                 .transfer = true,
                                 .last = {2, 9}};
    CHECK(rig_receive(&rig, &ahead) == RAFT_OK);
    CHECK(rig_state(&rig).term == 2 + RAFT_TERMS_AHEAD_MAX);
    rig_stop(&rig);
}

static void configurations_that_are_none(void) {
    struct raft_configuration configuration = {.count = MEMBERS_MAX + 1};
    CHECK(!message_configuration_is_sound(&configuration));
    configuration =
        (struct raft_configuration){.count = 1, .members = {{NUMBER_MAX + 1, true, false}}};
    CHECK(!message_configuration_is_sound(&configuration));
    configuration.members[0].id = 1;
    CHECK(message_configuration_is_sound(&configuration));
    configuration.joint = true; /* without an old voter */
    CHECK(!message_configuration_is_sound(&configuration));
}

static void a_cluster_is_founded_once(void) {
    struct rig rig;
    rig_start(&rig, 1, 3, 1, NULL, 0); /* a configuration, but no log */
    CHECK(rig_do(&rig, RAFT_EVENT_BOOTSTRAP, 1) == RAFT_ALREADY_MEMBER);
    CHECK(rig_do(&rig, RAFT_EVENT_BOOTSTRAP, NUMBER_MAX + 1) == RAFT_BAD_MESSAGE);
    rig_stop(&rig);
    rig_start(&rig, 1, 0, 4, NULL, 0);
    CHECK(rig_do(&rig, RAFT_EVENT_BOOTSTRAP, 2) == RAFT_ALREADY_MEMBER); /* it is 1 */
    CHECK(rig_append(&rig, 9, 4, (struct raft_position){0, 0}, NULL, 0, 0) == RAFT_OK);
    CHECK(rig_do(&rig, RAFT_EVENT_BOOTSTRAP, 1) == RAFT_ALREADY_MEMBER); /* it has a leader */
    rig_stop(&rig);
    rig_start(&rig, 1, 0, 4, NULL, 0);
    CHECK(rig_do(&rig, RAFT_EVENT_BOOTSTRAP, 1) == RAFT_OK);
    CHECK(rig_state(&rig).term == 4 && rig_state(&rig).last.index == 1);
    rig_stop(&rig);
}

static void what_is_out_of_place(void) {
    struct rig rig;
    rig_lead_committed(&rig, 3);
    CHECK(rig_do(&rig, RAFT_EVENT_ADD, NUMBER_MAX + 1) == RAFT_BAD_MESSAGE);
    CHECK(rig_do(&rig, RAFT_EVENT_SNAPSHOT_FAILED, 9) == RAFT_STALE);
    CHECK(rig_do(&rig, RAFT_EVENT_SNAPSHOT_FAILED, 2) == RAFT_STALE);
    CHECK(rig_do(&rig, RAFT_EVENT_CONNECTED, 9) == RAFT_STALE);
    struct raft_event sent = {.kind = RAFT_EVENT_SENT, .id = 2, .index = 99};
    CHECK(rig_step(&rig, &sent) == RAFT_STALE);
    const struct raft_configuration *configuration = NULL;
    CHECK(raft_kind_at(rig.raft, 0, NULL) == RAFT_ENTRY_COMMAND);
    CHECK(raft_kind_at(rig.raft, 99, &configuration) == RAFT_ENTRY_COMMAND);
    CHECK(configuration == NULL);
    uint64_t at = 0;
    CHECK(raft_configuration_at(rig.raft, 99, &at) == NULL);
    CHECK(rig_do(&rig, RAFT_EVENT_STEP_DOWN, 0) == RAFT_OK);
    CHECK(rig_do(&rig, RAFT_EVENT_SNAPSHOT_FAILED, 2) == RAFT_STALE);
    CHECK(rig_step(&rig, &sent) == RAFT_STALE);
    rig_stop(&rig);
}

/* A log whose last term is past the stored one tells the term; the vote was of an older one. */
static void a_log_that_is_ahead_of_the_term(void) {
    struct raft_entry entry = {.term = 6, .kind = RAFT_ENTRY_COMMAND};
    struct raft *raft = raft_new(&(struct raft_options){.id = 1,
                                                        .min_election_timeout_ms = 10,
                                                        .max_election_timeout_ms = 20,
                                                        .term = 4,
                                                        .voted_for = 2,
                                                        .entry_count = 1,
                                                        .entries = &entry});
    struct raft_state state;
    CHECK(raft != NULL);
    raft_peek_state(raft, &state);
    CHECK(state.term == 6 && state.voted_for == 0);
    raft_free(raft);
}

/* --- the disk ---------------------------------------------------------------------------- */
/* Two conflicts in one turn: the disk is told to cut once, at the earlier place. */
static void two_cuts_in_a_turn(void) {
    struct rig rig;
    const uint64_t terms[] = {1, 1, 1, 1};
    rig_start(&rig, 3, 3, 1, terms, 4);
    CHECK(rig_append(&rig, 1, 2, (struct raft_position){1, 2}, (uint64_t[]){2}, 1, 0) ==
          RAFT_OK);
    CHECK(rig.outcome.truncated_from == 3);
    CHECK(rig_append(&rig, 2, 3, (struct raft_position){1, 1}, (uint64_t[]){3}, 1, 0) ==
          RAFT_OK);
    CHECK(rig.outcome.truncated_from == 2);
    rig_take(&rig);
    CHECK(rig.actions.truncate_from == 2 && rig.actions.append_first == 2 &&
          rig.actions.append_last == 2);
    rig_stop(&rig);
}

static enum raft_result persisted(struct rig *rig, uint64_t term, uint64_t index) {
    return rig_step(rig, &(struct raft_event){.kind = RAFT_EVENT_LOG_PERSISTED,
                                              .generation = rig->actions.generation,
                                              .position = {term, index}});
}

static enum raft_result compacted(struct rig *rig, uint64_t term, uint64_t index) {
    return rig_step(
        rig, &(struct raft_event){.kind = RAFT_EVENT_COMPACTED, .position = {term, index}});
}

static void what_the_disk_cannot_have_done(void) {
    struct rig rig;
    rig_start(&rig, 3, 3, 1, NULL, 0);
    CHECK(rig_append(&rig, 1, 2, (struct raft_position){0, 0}, (uint64_t[]){2, 2, 2}, 3, 3) ==
          RAFT_OK);
    CHECK(rig_state(&rig).commit_index == 3);
    CHECK(persisted(&rig, 2, 3) == RAFT_STALE); /* it was not given to it yet */
    CHECK(compacted(&rig, 2, 2) == RAFT_STALE);
    rig_take(&rig);
    CHECK(persisted(&rig, 1, 3) == RAFT_STALE); /* of another term */
    CHECK(persisted(&rig, 2, 3) == RAFT_OK);
    CHECK(persisted(&rig, 2, 3) == RAFT_STALE); /* said already */
    CHECK(compacted(&rig, 1, 2) == RAFT_STALE);
    CHECK(compacted(&rig, 2, 2) == RAFT_OK);
    CHECK(compacted(&rig, 2, 2) == RAFT_STALE);
    CHECK(rig_step(&rig, &(struct raft_event){.kind = RAFT_EVENT_VOTE_PERSISTED,
                                              .term = 2,
                                              .voted_for = 3}) == RAFT_STALE);
    CHECK(rig_step(&rig, &(struct raft_event){.kind = RAFT_EVENT_VOTE_PERSISTED, .term = 9}) ==
          RAFT_STALE);
    rig_stop(&rig);
}

static enum raft_result installed(struct rig *rig, uint64_t term, uint64_t index,
                                  const struct raft_configuration *configuration,
                                  uint64_t configuration_index) {
    return rig_step(rig, &(struct raft_event){.kind = RAFT_EVENT_INSTALLED,
                                              .position = {term, index},
                                              .configuration = configuration,
                                              .configuration_index = configuration_index});
}

static void snapshots_that_cannot_be(void) {
    struct rig rig;
    const struct raft_configuration one = {.count = 1, .members = {{1, true, false}}};
    rig_start(&rig, 3, 3, 1, NULL, 0);
    CHECK(rig_append(&rig, 1, 2, (struct raft_position){0, 0}, (uint64_t[]){2, 2, 2}, 3, 2) ==
          RAFT_OK);
    CHECK(installed(&rig, 1, 2, &one, 1) == RAFT_BAD_MESSAGE); /* contradicts the commit */
    CHECK(installed(&rig, 0, 9, &one, 1) == RAFT_BAD_MESSAGE);
    CHECK(installed(&rig, 3, 9, &one, 1) == RAFT_BAD_MESSAGE); /* of a term to come */
    CHECK(installed(&rig, 2, NUMBER_MAX, &one, 1) == RAFT_BAD_MESSAGE);
    CHECK(installed(&rig, 2, 9, NULL, 1) == RAFT_BAD_MESSAGE);
    CHECK(installed(&rig, 2, 9, &one, 10) == RAFT_BAD_MESSAGE);
    CHECK(installed(&rig, 2, 2, &one, 1) == RAFT_STALE); /* committed, with the disk no more */
    CHECK(installed(&rig, 2, 3, &one, 1) == RAFT_OK);    /* not given to the disk: dropped */
    CHECK(rig.outcome.log_reset && rig_state(&rig).last.index == 3);
    CHECK(installed(&rig, 2, 3, &one, 1) == RAFT_STALE);
    rig_stop(&rig);

    rig_lead_committed(&rig, 3);
    CHECK(installed(&rig, 2, 9, &one, 1) == RAFT_STALE); /* a leader has it all */
    rig_stop(&rig);
}

/* --- parts ------------------------------------------------------------------------------- */
static void the_log_at_its_edges(void) {
    struct log log;
    const struct raft_configuration one = {.count = 1, .members = {{1, true, false}}};
    log_init(&log, (struct raft_position){0, 0}, &one, 0);
    CHECK(!log_reserve(&log, UINT32_MAX / 2, 0));
    CHECK(!log_reserve(&log, 0, UINT32_MAX / 2));
    CHECK(log_reserve(&log, 1, 1));
    log_append_commands(&log, 3, 5);
    log_truncate(&log, 6); /* past the end: nothing to drop */
    CHECK(log.last_index == 5 && log_last(&log).term == 3);
    CHECK(!log_has(&log, (struct raft_position){0, 3}));
    CHECK(!log_has(&log, (struct raft_position){3, 0}));
    log_clear(&log);
}

static void progress_at_its_edges(void) {
    struct progress progress;
    progress_init(&progress, 2, 5, 0);
    progress_send_snapshot(&progress, 9);
    progress_acknowledge(&progress, 12, 12, 1); /* more than was being sent */
    CHECK(progress.match == 12 && progress.next == 13);
    CHECK(!progress_refuses(&progress, 12));
    progress.state = (enum progress_state)9;
    CHECK(!progress_refuses(&progress, 12));

    progress_init(&progress, 2, 5, 0);
    progress_acknowledge(&progress, 5, 5, 1);
    CHECK(progress.state == PROGRESS_PIPELINE && progress.next == 6);
    CHECK(!progress_sent(&progress, 6, 2)); /* nothing was offered */
    progress.offer_first = 6;
    progress.offer_end = 8;
    CHECK(!progress_sent(&progress, 4, 2));
    CHECK(!progress_sent(&progress, 9, 2));
    CHECK(progress_sent(&progress, 7, 2) && progress.next == 8);
    progress.offer_first = 6; /* of an earlier offer */
    CHECK(!progress_sent(&progress, 7, 2));

    progress.departing = true;
    progress.departing_index = 3;
    CHECK(progress_limit(&progress, 100) == 3);
    progress.departing_index = 200 + RAFT_IN_FLIGHT_ENTRIES_MAX;
    CHECK(progress_limit(&progress, 100) == 100);
}

int main(void) {
    static const struct {
        const char *name;
        void (*run)(void);
    } tests[] = {
#define TEST(function) {#function, function}
        TEST(d12_positions_past_32_bits),
        TEST(the_end_of_all_indexes),
        TEST(the_smallest_time_outs),
        TEST(unknown_kinds_are_refused),
        TEST(d10_numbers_past_the_greatest),
        TEST(d10_a_term_that_is_far_ahead),
        TEST(configurations_that_are_none),
        TEST(a_cluster_is_founded_once),
        TEST(what_is_out_of_place),
        TEST(a_log_that_is_ahead_of_the_term),
        TEST(two_cuts_in_a_turn),
        TEST(what_the_disk_cannot_have_done),
        TEST(snapshots_that_cannot_be),
        TEST(the_log_at_its_edges),
        TEST(progress_at_its_edges),
    };
    for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        printf("test %s\n", tests[i].name);
        fflush(stdout);
        tests[i].run();
    }
    CHECK(memory_live_count() == 0);
    printf("ok\n");
    return 0;
}
