/* Snapshots, reads, answers, hand-over and quarantine, rule by rule: each test is named by the pitfall
 * that it guards. What takes several members and much weather is the simulator's (tests/sim).
 */
#include "check.h"
#include "raftrig.h"

static const struct raft_position NOTHING = {0, 0};

/* --- snapshots --- */
static enum raft_result install(struct rig *rig, struct raft_position position) {
    const struct raft_configuration configuration = {
        .count = 2, .members = {{1, true, false}, {9, true, false}}};
    return rig_step(rig, &(struct raft_event){.kind = RAFT_EVENT_INSTALLED,
                                              .position = position,
                                              .configuration = &configuration,
                                              .configuration_index = 2});
}

static void s1_m3_an_install_replaces_a_log_that_conflicts(void) {
    struct rig rig;
    const uint64_t terms[] = {1, 1, 1, 1, 1};
    rig_start(&rig, 1, 3, 2, terms, 5);
    struct raft_message piece = {
        .kind = RAFT_SNAPSHOT, .from = 2, .term = 2, .last = {2, 4}, .commit = 4};
    CHECK(rig_receive(&rig, &piece) == RAFT_OK);
    CHECK(rig.outcome.wanted);
    CHECK(install(&rig, piece.last) == RAFT_OK);
    CHECK(rig.outcome.log_reset);
    struct raft_state state = rig_state(&rig);
    CHECK(state.last.index == 4 && state.last.term == 2 && state.commit_index == 4);
    CHECK(state.durable_index == 4 && state.configuration_index == 2);
    CHECK(raft_peek_configuration(rig.raft)->members[1].id == 9); /* M3 */
    rig_sync(&rig);
    CHECK(rig_find(&rig, RAFT_SNAPSHOT_REPLY, 2)->match == 4);
    CHECK(rig_receive(&rig, &piece) == RAFT_OK); /* S2: a duplicate is not wanted */
    CHECK(!rig.outcome.wanted);
    CHECK(install(&rig, piece.last) == RAFT_STALE);
    rig_stop(&rig);
}

static void s2_an_install_keeps_a_log_that_goes_on(void) {
    struct rig rig;
    const uint64_t terms[] = {1, 1, 2, 2, 2};
    rig_start(&rig, 1, 3, 2, terms, 5);
    struct raft_message piece = {
        .kind = RAFT_SNAPSHOT, .from = 2, .term = 2, .last = {2, 3}, .commit = 3};
    CHECK(rig_receive(&rig, &piece) == RAFT_OK);
    CHECK(!rig.outcome.wanted); /* it is all here */
    CHECK(rig_state(&rig).commit_index == 3);
    CHECK(install(&rig, piece.last) == RAFT_OK);
    CHECK(!rig.outcome.log_reset);
    CHECK(rig_state(&rig).last.index == 5 && rig_state(&rig).snapshot.index == 3);
    rig_stop(&rig);
}

/* What was refused may come with a snapshot: the answer must not refuse it any more. */
static void s2_an_install_answers_what_was_refused(void) {
    struct rig rig;
    rig_start(&rig, 1, 3, 2, NULL, 0);
    CHECK(rig_append(&rig, 2, 2, (struct raft_position){2, 4}, NULL, 0, 4) == RAFT_OK);
    CHECK(install(&rig, (struct raft_position){2, 4}) == RAFT_OK);
    rig_sync(&rig);
    const struct raft_message *reply = rig_find(&rig, RAFT_APPEND_REPLY, 2);
    CHECK(!reply->rejected && reply->match == 4 && reply->previous.index == 4);
    rig_stop(&rig);
}

static void m4_only_what_is_committed_is_compacted(void) {
    struct rig rig;
    uint64_t at = 0;
    rig_lead_committed(&rig, 3);
    CHECK(rig_do(&rig, RAFT_EVENT_ADD, 4) == RAFT_OK);
    rig_sync(&rig);
    struct raft_event compact = {.kind = RAFT_EVENT_COMPACTED, .position = {2, 2}};
    CHECK(rig_step(&rig, &compact) == RAFT_STALE);
    compact.position.index = 1;
    CHECK(rig_step(&rig, &compact) == RAFT_OK);
    CHECK(raft_configuration_at(rig.raft, 1, &at)->count == 3 && at == 0);
    CHECK(raft_configuration_at(rig.raft, 2, &at)->count == 4 && at == 2);
    CHECK(raft_configuration_at(rig.raft, 0, &at) == NULL);
    rig_stop(&rig);
}

static void s7_s11_a_follower_behind_the_tip_gets_the_snapshot(void) {
    struct rig rig;
    rig_lead_committed(&rig, 2);
    struct raft_event compact = {.kind = RAFT_EVENT_COMPACTED, .position = {2, 1}};
    CHECK(rig_step(&rig, &compact) == RAFT_OK); /* to the very tip */
    struct raft_event up = {.kind = RAFT_EVENT_CONNECTED, .id = 2, .incarnation = 8};
    CHECK(rig_step(&rig, &up) == RAFT_OK);
    rig_take(&rig);
    CHECK(rig_find(&rig, RAFT_APPEND, 2)->previous.index == 1);
    struct raft_message refusal = {
        .kind = RAFT_APPEND_REPLY, .from = 2, .term = 2, .rejected = true, .previous = {2, 1}};
    CHECK(rig_receive(&rig, &refusal) == RAFT_OK);
    CHECK(rig_peer(&rig, 2).in_snapshot);
    rig_take(&rig);
    CHECK(rig_find(&rig, RAFT_SNAPSHOT, 2)->last.index == 1);
    for (int i = 0; i < 4; i++) { /* heartbeats go on besides it */
        rig_wait(&rig, RIG_HEARTBEAT_MS);
        rig_take(&rig);
        CHECK(rig_find(&rig, RAFT_SNAPSHOT, 2) == NULL);
        const struct raft_message *heartbeat = rig_find(&rig, RAFT_APPEND, 2);
        CHECK(heartbeat != NULL && heartbeat->previous.index == 0);
        CHECK(rig_acknowledge(&rig, 2, 0) == RAFT_OK);
        CHECK(rig_peer(&rig, 2).in_snapshot);
    }
    CHECK(rig_receive(&rig,
                      &(struct raft_message){
                          .kind = RAFT_SNAPSHOT_REPLY, .from = 2, .term = 2, .match = 1}) ==
          RAFT_OK);
    CHECK(!rig_peer(&rig, 2).in_snapshot && rig_peer(&rig, 2).match == 1);
    rig_stop(&rig);
}

static void s12_an_install_after_a_change_of_role(void) {
    struct rig rig;
    rig_start(&rig, 1, 3, 2, NULL, 0);
    rig_wait(&rig, RIG_MAX_MS + 1);
    CHECK(rig_state(&rig).role == RAFT_PRECANDIDATE);
    CHECK(install(&rig, (struct raft_position){2, 4}) == RAFT_OK);
    CHECK(rig_state(&rig).commit_index == 4);
    rig_stop(&rig);
    rig_lead_committed(&rig, 3);
    CHECK(install(&rig, (struct raft_position){2, 40}) == RAFT_STALE); /* not a leader's */
    CHECK(rig_state(&rig).last.index == 1);
    rig_stop(&rig);
}

/* --- reads --- */
static void l1_l2_a_read_before_the_first_own_entry_waits(void) {
    struct rig rig;
    rig_start(&rig, 1, 3, 1, NULL, 0);
    CHECK(rig_do(&rig, RAFT_EVENT_READ, 0) == RAFT_NOT_LEADER);
    rig_lead(&rig, 3);
    CHECK(rig_do(&rig, RAFT_EVENT_READ, 0) == RAFT_OK);
    CHECK(rig.outcome.index == 1 && rig_state(&rig).term_start_index == 1);
    rig_stop(&rig);
}

static void l3_an_older_round_confirms_nothing(void) {
    struct rig rig;
    rig_lead_committed(&rig, 3);
    CHECK(rig_do(&rig, RAFT_EVENT_READ, 0) == RAFT_OK);
    uint64_t first = rig.outcome.round;
    CHECK(rig_do(&rig, RAFT_EVENT_READ, 0) == RAFT_OK);
    CHECK(rig.outcome.round == first); /* of the same turn */
    rig_take(&rig);
    CHECK(rig_find(&rig, RAFT_APPEND, 2)->round == first);
    CHECK(rig_do(&rig, RAFT_EVENT_READ, 0) == RAFT_OK);
    CHECK(rig.outcome.round == first + 1);
    struct raft_message echo = {.kind = RAFT_APPEND_REPLY,
                                .from = 2,
                                .term = 2,
                                .match = 1,
                                .round = first,
                                .previous = {2, 1}};
    CHECK(rig_receive(&rig, &echo) == RAFT_OK);
    rig_take(&rig);
    CHECK(rig.actions.reads_confirmed == first);
    echo.round = first + 7; /* nobody was told that */
    CHECK(rig_receive(&rig, &echo) == RAFT_BAD_MESSAGE);
    echo.round = first + 1;
    CHECK(rig_receive(&rig, &echo) == RAFT_OK);
    rig_take(&rig);
    CHECK(rig.actions.reads_confirmed == first + 1);
    rig_stop(&rig);
}

static void l3_a_question_proves_the_askers_reads_alone(void) {
    struct rig rig;
    rig_lead_committed(&rig, 3);
    CHECK(rig_do(&rig, RAFT_EVENT_READ, 0) == RAFT_OK);
    uint64_t ours = rig.outcome.round;
    CHECK(rig_do(&rig, RAFT_EVENT_READ, 2) == RAFT_OK); /* it and we are two of three */
    CHECK(rig.outcome.round == 0 && rig.outcome.index == 1);
    rig_take(&rig);
    CHECK(rig.actions.reads_confirmed < ours);          /* ours may be younger */
    CHECK(rig_do(&rig, RAFT_EVENT_READ, 9) == RAFT_OK); /* no member, no proof */
    CHECK(rig.outcome.round > ours);
    rig_take(&rig);
    CHECK(rig_do(&rig, RAFT_EVENT_READ, 2) == RAFT_OK);
    CHECK(rig.outcome.round == 0);
    rig_take(&rig);
    CHECK(rig_find(&rig, RAFT_APPEND, 2) == NULL); /* nobody need be asked */
    rig_stop(&rig);
    rig_lead_committed(&rig, 5);
    CHECK(rig_do(&rig, RAFT_EVENT_READ, 2) == RAFT_OK);
    CHECK(rig.outcome.round > 0); /* two of five are no quorum */
    rig_stop(&rig);
}

static void l3_l10_a_question_proves_nothing_to_another_quorum(void) {
    struct rig rig;
    rig_lead_committed(&rig, 2);
    CHECK(rig_do(&rig, RAFT_EVENT_READ, 2) == RAFT_OK);
    CHECK(rig.outcome.round == 0);
    CHECK(rig_do(&rig, RAFT_EVENT_ADD, 4) == RAFT_OK);
    CHECK(rig_do(&rig, RAFT_EVENT_READ, 4) == RAFT_OK); /* a learner's says nothing */
    CHECK(rig.outcome.round > 0);
    rig_stop(&rig);
    rig_lead_committed(&rig, 3);
    rig_bring_up(&rig, 2);
    rig_bring_up(&rig, 3);
    CHECK(rig_do(&rig, RAFT_EVENT_REMOVE, 3) == RAFT_OK); /* {1 2 3} and {1 2} */
    CHECK(rig_do(&rig, RAFT_EVENT_READ, 3) == RAFT_OK);   /* of the old set, not of the new */
    CHECK(rig.outcome.round > 0);
    CHECK(rig_do(&rig, RAFT_EVENT_READ, 2) == RAFT_OK);
    CHECK(rig.outcome.round == 0);
    rig_stop(&rig);
}

static void c15_l10_a_smaller_quorum_is_looked_at_again(void) {
    struct rig rig;
    rig_lead_committed(&rig, 2);
    CHECK(rig_do(&rig, RAFT_EVENT_REMOVE, 2) == RAFT_OK); /* joint at 2 */
    rig_sync(&rig);
    CHECK(rig_do(&rig, RAFT_EVENT_READ, 0) == RAFT_OK);
    CHECK(rig_do(&rig, RAFT_EVENT_PROPOSE, 0) == RAFT_OK); /* 3 */
    rig_take(&rig);
    rig_persist(&rig);
    CHECK(rig.actions.reads_confirmed == 0);
    rig_bring_up(&rig, 2); /* joint committed; {1} at 4: now we alone are the quorum */
    CHECK(rig_state(&rig).commit_index == 4);
    rig_take(&rig);
    CHECK(rig.actions.reads_confirmed >= 1);
    rig_stop(&rig);
}

/* --- hand-over --- */
static void l9_a_transfer_ends(void) {
    struct rig rig;
    rig_lead_committed(&rig, 3);
    CHECK(rig_do(&rig, RAFT_EVENT_PROPOSE, 0) == RAFT_OK);
    rig_sync(&rig);
    CHECK(rig_do(&rig, RAFT_EVENT_TRANSFER, 9) == RAFT_NOT_MEMBER);
    CHECK(rig_do(&rig, RAFT_EVENT_TRANSFER, 3) == RAFT_OK);
    CHECK(rig_do(&rig, RAFT_EVENT_TRANSFER, 2) == RAFT_BUSY);
    CHECK(rig_do(&rig, RAFT_EVENT_PROPOSE, 0) == RAFT_BUSY);
    CHECK(rig_do(&rig, RAFT_EVENT_ADD, 4) == RAFT_BUSY);
    rig_take(&rig);
    CHECK(rig_find(&rig, RAFT_TIMEOUT_NOW, 3) == NULL); /* it lacks an entry */
    for (uint32_t ms = 0; ms <= RIG_MAX_MS; ms += RIG_HEARTBEAT_MS) {
        CHECK(rig_acknowledge(&rig, 2, 2) == RAFT_OK);
        rig_wait(&rig, RIG_HEARTBEAT_MS);
    }
    CHECK(rig_state(&rig).transferee == 0);
    CHECK(rig_do(&rig, RAFT_EVENT_PROPOSE, 0) == RAFT_OK);
    rig_stop(&rig);
}

static void transfer_makes_the_target_campaign(void) {
    struct rig rig;
    rig_lead_committed(&rig, 3);
    CHECK(rig_do(&rig, RAFT_EVENT_TRANSFER, 0) == RAFT_OK);
    rig_take(&rig);
    uint64_t target = rig_state(&rig).transferee;
    CHECK(rig_find(&rig, RAFT_TIMEOUT_NOW, target) != NULL);
    rig_stop(&rig);
    rig_start(&rig, 2, 3, 2, NULL, 0);
    struct raft_message now = {.kind = RAFT_TIMEOUT_NOW, .from = 1, .term = 2};
    CHECK(rig_receive(&rig, &now) == RAFT_STALE); /* not from its leader */
    CHECK(rig_append(&rig, 1, 2, NOTHING, NULL, 0, 0) == RAFT_OK);
    CHECK(rig_receive(&rig, &now) == RAFT_OK);
    CHECK(rig_state(&rig).role == RAFT_CANDIDATE && rig_state(&rig).term == 3);
    rig_sync(&rig);
    CHECK(rig_find(&rig, RAFT_VOTE, 1)->transfer);
    rig_stop(&rig);
}

/* --- quarantine --- */
static void m13_a_damaged_log_votes_when_it_is_whole(void) {
    const uint64_t old[] = {1, 1};
    const uint64_t own[] = {3};
    struct raft_options options = {.id = 1,
                                   .seed = 1,
                                   .now_ms = 1000,
                                   .min_election_timeout_ms = RIG_MIN_MS,
                                   .max_election_timeout_ms = RIG_MAX_MS,
                                   .term = 2,
                                   .quarantined = true};
    options.configuration = (struct raft_configuration){
        .count = 3, .members = {{1, true, false}, {2, true, false}, {3, true, false}}};
    struct rig rig = {.now_ms = 1000, .raft = raft_new(&options)};
    CHECK(rig.raft != NULL);
    rig_wait(&rig, 5 * RIG_MAX_MS);
    CHECK(rig_state(&rig).role == RAFT_FOLLOWER);
    struct raft_message ask = {.kind = RAFT_VOTE, .from = 2, .term = 3};
    for (int pre = 0; pre < 2; pre++) {
        ask.pre = pre == 0;
        CHECK(rig_receive(&rig, &ask) == RAFT_OK);
        rig_sync(&rig);
        CHECK(!rig_find(&rig, RAFT_VOTE_REPLY, 2)->granted);
    }
    CHECK(rig_append(&rig, 3, 3, NOTHING, old, 2, 2) == RAFT_OK);
    rig_sync(&rig);
    CHECK(rig_state(&rig).commit_index == 2);
    CHECK(rig_state(&rig).quarantined); /* nothing of the leader's own term yet */
    CHECK(rig_append(&rig, 3, 3, (struct raft_position){1, 2}, own, 1, 2) == RAFT_OK);
    CHECK(rig_state(&rig).quarantined); /* and not durable yet */
    rig_sync(&rig);
    CHECK(!rig_state(&rig).quarantined);
    rig_stop(&rig);
}

/* --- answers --- */
static const struct raft_message *answer_of(struct rig *rig) {
    rig_take(rig);
    return rig_find(rig, RAFT_APPEND_REPLY, 2);
}

/* Entries are answered when they are durable, and not before by a message that says nothing new;
 * what a leader cannot wait for is answered at once all the same. */
static void p_entries_are_answered_once_when_durable(void) {
    struct rig rig;
    const uint64_t terms[] = {1};
    rig_start(&rig, 1, 3, 1, NULL, 0);
    CHECK(rig_append(&rig, 2, 1, NOTHING, terms, 1, 0) == RAFT_OK);
    CHECK(answer_of(&rig)->match == 0); /* the first message of a leader: at once */
    rig_persist(&rig);
    CHECK(answer_of(&rig)->match == 1);
    CHECK(rig_append(&rig, 2, 1, (struct raft_position){1, 1}, terms, 1, 1) == RAFT_OK);
    CHECK(answer_of(&rig) == NULL); /* not durable yet */
    rig_persist(&rig);
    CHECK(answer_of(&rig)->match == 2);
    CHECK(rig_append(&rig, 2, 1, (struct raft_position){1, 2}, NULL, 0, 2) == RAFT_OK);
    CHECK(rig_state(&rig).commit_index == 2);
    CHECK(answer_of(&rig) == NULL); /* a commit index asks for nothing */
    CHECK(rig_append(&rig, 2, 1, (struct raft_position){1, 2}, NULL, 0, 2) == RAFT_OK);
    CHECK(answer_of(&rig)->match == 2); /* a heartbeat, or a question */
    CHECK(rig_append(&rig, 2, 1, (struct raft_position){1, 1}, terms, 1, 2) == RAFT_OK);
    CHECK(answer_of(&rig)->match == 2); /* entries again: the leader missed our answer */
    rig_stop(&rig);
}

static void l_d6_what_cannot_wait_is_answered_at_once(void) {
    struct rig rig;
    const uint64_t terms[] = {1};
    rig_start(&rig, 1, 3, 1, NULL, 0);
    CHECK(rig_append(&rig, 2, 1, NOTHING, NULL, 0, 0) == RAFT_OK);
    CHECK(answer_of(&rig) != NULL);
    struct raft_entry entry = {.term = 1, .kind = RAFT_ENTRY_COMMAND};
    struct raft_message asks = {
        .kind = RAFT_APPEND, .from = 2, .term = 1, .round = 1, .count = 1, .entries = &entry};
    CHECK(rig_receive(&rig, &asks) == RAFT_OK);
    CHECK(answer_of(&rig)->round == 1); /* a read waits for it, the disk has not answered */
    CHECK(rig_append(&rig, 2, 1, (struct raft_position){1, 1}, terms, 1, 0) == RAFT_OK);
    CHECK(answer_of(&rig) == NULL);
    rig.now_ms += RIG_HEARTBEAT_MS;
    CHECK(rig_append(&rig, 2, 1, (struct raft_position){1, 2}, terms, 1, 0) == RAFT_OK);
    CHECK(answer_of(&rig)->match == 0); /* the disk hangs: the leader must still hear us */
    CHECK(rig_do(&rig, RAFT_EVENT_DISCONNECTED, 2) == RAFT_OK);
    CHECK(rig_append(&rig, 2, 1, (struct raft_position){1, 3}, terms, 1, 0) == RAFT_OK);
    CHECK(answer_of(&rig) != NULL); /* an answer may have been lost with the connection */
    CHECK(rig_append(&rig, 3, 2, (struct raft_position){1, 4}, NULL, 0, 0) == RAFT_OK);
    rig_sync(&rig);
    CHECK(rig_find(&rig, RAFT_APPEND_REPLY, 3) != NULL); /* another leader */
    rig_stop(&rig);
}

int main(void) {
    static const struct {
        const char *name;
        void (*run)(void);
    } tests[] = {
#define TEST(function) {#function, function}
        TEST(s1_m3_an_install_replaces_a_log_that_conflicts),
        TEST(s2_an_install_keeps_a_log_that_goes_on),
        TEST(s2_an_install_answers_what_was_refused),
        TEST(m4_only_what_is_committed_is_compacted),
        TEST(s7_s11_a_follower_behind_the_tip_gets_the_snapshot),
        TEST(s12_an_install_after_a_change_of_role),
        TEST(l1_l2_a_read_before_the_first_own_entry_waits),
        TEST(l3_an_older_round_confirms_nothing),
        TEST(l3_a_question_proves_the_askers_reads_alone),
        TEST(l3_l10_a_question_proves_nothing_to_another_quorum),
        TEST(c15_l10_a_smaller_quorum_is_looked_at_again),
        TEST(l9_a_transfer_ends),
        TEST(transfer_makes_the_target_campaign),
        TEST(m13_a_damaged_log_votes_when_it_is_whole),
        TEST(p_entries_are_answered_once_when_durable),
        TEST(l_d6_what_cannot_wait_is_answered_at_once),
    };
    for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        printf("test %s\n", tests[i].name);
        fflush(stdout);
        tests[i].run();
    }
    printf("ok\n");
    return 0;
}
