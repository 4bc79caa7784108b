/* Configurations, rule by rule: each test is named by the pitfall that it guards. What takes
 * several members and much weather is the simulator's (tests/sim). */
#include <string.h>

#include "check.h"
#include "raftrig.h"

static const struct raft_position NOTHING = {0, 0};

static struct raft_configuration configuration_of(const struct rig *rig) {
    return *raft_peek_configuration(rig->raft);
}

/* Member 1 of three has `configuration` at index 1, from `leader`. */
static void start_with(struct rig *rig, const struct raft_configuration *configuration,
                       uint64_t leader) {
    const struct raft_entry entry = {
        .term = 1, .kind = RAFT_ENTRY_CONFIGURATION, .configuration = configuration};
    rig_start(rig, 1, 3, 1, NULL, 0);
    CHECK(rig_receive(rig, &(struct raft_message){.kind = RAFT_APPEND,
                                                  .from = leader,
                                                  .term = 1,
                                                  .count = 1,
                                                  .entries = &entry}) == RAFT_OK);
    rig_sync(rig);
}

static void m1_no_change_before_an_entry_of_the_own_term_is_committed(void) {
    struct rig rig;
    rig_start(&rig, 1, 3, 1, NULL, 0);
    CHECK(rig_do(&rig, RAFT_EVENT_ADD, 4) == RAFT_NOT_LEADER);
    rig_lead(&rig, 3);
    CHECK(rig_do(&rig, RAFT_EVENT_ADD, 4) == RAFT_BUSY);
    CHECK(rig_do(&rig, RAFT_EVENT_REMOVE, 3) == RAFT_BUSY);
    rig_sync(&rig);
    CHECK(rig_acknowledge(&rig, 2, 1) == RAFT_OK);
    CHECK(rig_do(&rig, RAFT_EVENT_ADD, 4) == RAFT_OK);
    rig_stop(&rig);
}

static void m2_one_change_at_a_time(void) {
    struct rig rig;
    rig_lead_committed(&rig, 3);
    CHECK(rig_do(&rig, RAFT_EVENT_ADD, 4) == RAFT_OK);
    CHECK(rig_do(&rig, RAFT_EVENT_ADD, 5) == RAFT_BUSY);
    CHECK(rig_do(&rig, RAFT_EVENT_REMOVE, 4) == RAFT_BUSY);
    rig_sync(&rig);
    rig_bring_up(&rig, 2);
    CHECK(rig_do(&rig, RAFT_EVENT_ADD, 4) == RAFT_ALREADY_MEMBER);
    CHECK(rig_do(&rig, RAFT_EVENT_REMOVE, 9) == RAFT_NOT_MEMBER);
    CHECK(rig_do(&rig, RAFT_EVENT_REMOVE, 4) == RAFT_OK); /* a learner: no joint is needed */
    CHECK(!configuration_of(&rig).joint && configuration_of(&rig).count == 3);
    rig_stop(&rig);
}

/* An inherited configuration that is not committed yet counts as a change in flight. */
static void m2_across_leaders(void) {
    struct rig rig;
    const struct raft_configuration three = {
        .count = 3, .members = {{1, true, false}, {2, true, false}, {3, true, false}}};
    start_with(&rig, &three, 2);
    rig_lead(&rig, 3);
    CHECK(rig_state(&rig).change_pending);
    CHECK(rig_do(&rig, RAFT_EVENT_ADD, 4) == RAFT_BUSY);
    rig_stop(&rig);
}

static void m6_m12_joint_needs_both_majorities_and_learners_none(void) {
    struct rig rig;
    rig_lead_committed(&rig, 3);
    CHECK(rig_do(&rig, RAFT_EVENT_ADD, 4) == RAFT_OK); /* index 2 */
    rig_sync(&rig);
    CHECK(rig_acknowledge(&rig, 4, 2) == RAFT_OK);
    CHECK(rig_state(&rig).commit_index == 1); /* M12: a learner does not count */
    CHECK(rig_acknowledge(&rig, 2, 2) == RAFT_OK);
    CHECK(rig_state(&rig).commit_index == 2);
    struct raft_configuration joint = configuration_of(&rig); /* 4 had caught up: index 3 */
    CHECK(joint.joint && joint.count == 4 && joint.members[3].voter);
    CHECK(!joint.members[3].voter_before);
    CHECK(rig_do(&rig, RAFT_EVENT_REMOVE, 4) == RAFT_BUSY);
    rig_sync(&rig);
    CHECK(rig_acknowledge(&rig, 4, 3) == RAFT_OK);
    CHECK(rig_state(&rig).commit_index == 2); /* two of {1 2 3 4} and one of {1 2 3} */
    CHECK(rig_acknowledge(&rig, 3, 3) == RAFT_OK);
    CHECK(rig_state(&rig).commit_index == 3); /* both majorities: and joint is left */
    CHECK(!configuration_of(&rig).joint && rig_state(&rig).configuration_index == 4);
    rig_stop(&rig);
}

static void m7_a_new_leader_leaves_joint(void) {
    struct rig rig;
    const struct raft_configuration joint = {
        .count = 3,
        .joint = true,
        .members = {{1, true, true}, {2, true, true}, {3, false, true}}};
    start_with(&rig, &joint, 3);
    rig_lead(&rig, 3);
    rig_sync(&rig);
    CHECK(configuration_of(&rig).joint);
    CHECK(rig_acknowledge(&rig, 2, 2) == RAFT_OK);
    CHECK(rig_state(&rig).commit_index == 2);
    CHECK(!configuration_of(&rig).joint && configuration_of(&rig).count == 2);
    rig_stop(&rig);
}

static void v17_an_election_in_joint_needs_both_majorities(void) {
    struct rig rig;
    const struct raft_configuration joint = {
        .count = 4,
        .joint = true,
        .members = {{1, true, true}, {2, false, true}, {3, false, true}, {4, true, false}}};
    start_with(&rig, &joint, 3);
    rig_wait(&rig, RIG_MAX_MS + 1);
    struct raft_message reply = {
        .kind = RAFT_VOTE_REPLY, .from = 4, .term = 2, .pre = true, .granted = true};
    CHECK(rig_receive(&rig, &reply) == RAFT_OK);
    CHECK(rig_state(&rig).role == RAFT_PRECANDIDATE); /* all of the new set, one of the old */
    reply.from = 3;
    CHECK(rig_receive(&rig, &reply) == RAFT_OK);
    CHECK(rig_state(&rig).role == RAFT_CANDIDATE);
    rig_stop(&rig);
}

static void v15_a_learner_waits_but_votes(void) {
    struct rig rig;
    rig_start(&rig, 4, 3, 1, NULL, 0); /* 4 is not in its configuration */
    rig_wait(&rig, 5 * RIG_MAX_MS);
    CHECK(rig_state(&rig).role == RAFT_FOLLOWER);
    CHECK(rig_receive(&rig, &(struct raft_message){.kind = RAFT_VOTE, .from = 2, .term = 2}) ==
          RAFT_OK);
    rig_sync(&rig);
    CHECK(rig_find(&rig, RAFT_VOTE_REPLY, 2)->granted);
    rig_stop(&rig);
}

static void m11_one_to_two_does_not_stall(void) {
    struct rig rig;
    rig_lead_committed(&rig, 1);
    CHECK(rig_do(&rig, RAFT_EVENT_ADD, 2) == RAFT_OK);
    rig_sync(&rig);
    for (int i = 0; i < 10; i++) { /* nobody is there: commits go on all the same */
        CHECK(rig_do(&rig, RAFT_EVENT_PROPOSE, 0) == RAFT_OK);
        rig_wait(&rig, RIG_HEARTBEAT_MS);
        rig_sync(&rig);
    }
    CHECK(rig_state(&rig).commit_index == rig_state(&rig).last.index);
    CHECK(!configuration_of(&rig).members[1].voter);
    rig_stop(&rig);
}

static void m8_m9_a_leader_removes_itself_from_two(void) {
    struct rig rig;
    rig_lead_committed(&rig, 2);
    CHECK(rig_do(&rig, RAFT_EVENT_REMOVE, 1) == RAFT_OK); /* joint at 2 */
    rig_sync(&rig);
    rig_bring_up(&rig, 2); /* committed by both; {2} at 3 */
    CHECK(configuration_of(&rig).count == 1 && configuration_of(&rig).members[0].id == 2);
    CHECK(rig_state(&rig).role == RAFT_LEADER && rig_state(&rig).commit_index == 2);
    rig_sync(&rig); /* durable here: but we do not count */
    CHECK(rig_state(&rig).commit_index == 2);
    CHECK(rig_acknowledge(&rig, 2, 3) == RAFT_OK);
    CHECK(rig_state(&rig).commit_index == 3);
    CHECK(rig_state(&rig).transferee == 2);
    CHECK(rig_do(&rig, RAFT_EVENT_PROPOSE, 0) == RAFT_BUSY);
    rig_take(&rig);
    CHECK(rig_find(&rig, RAFT_TIMEOUT_NOW, 2) != NULL);
    CHECK(rig_find(&rig, RAFT_APPEND, 2)->commit == 3);
    for (int i = 0; i < 8; i++) {
        rig_wait(&rig, RIG_HEARTBEAT_MS);
    }
    CHECK(rig_state(&rig).role == RAFT_FOLLOWER); /* at the latest after one time-out */
    rig_wait(&rig, 5 * RIG_MAX_MS);
    CHECK(rig_state(&rig).role == RAFT_FOLLOWER);
    rig_stop(&rig);
}

/* The last configuration is only here, and without us: nobody else can be elected against our
 * log. */
static void m9_a_removed_server_may_still_be_needed(void) {
    struct rig rig;
    rig_lead_committed(&rig, 2);
    CHECK(rig_do(&rig, RAFT_EVENT_REMOVE, 1) == RAFT_OK);
    rig_sync(&rig);
    rig_bring_up(&rig, 2);
    CHECK(rig_state(&rig).commit_index == 2 && rig_state(&rig).configuration_index == 3);
    CHECK(rig_do(&rig, RAFT_EVENT_STEP_DOWN, 0) == RAFT_OK);
    rig_wait(&rig, RIG_MAX_MS + 1);
    rig_wait(&rig, RIG_MAX_MS + 1);
    CHECK(rig_state(&rig).role == RAFT_PRECANDIDATE);
    CHECK(rig_receive(&rig, &(struct raft_message){.kind = RAFT_VOTE_REPLY,
                                                   .from = 2,
                                                   .term = 3,
                                                   .pre = true,
                                                   .granted = true}) == RAFT_OK);
    CHECK(rig_state(&rig).role == RAFT_CANDIDATE); /* by 2's vote alone */
    rig_stop(&rig);
}

/* Leads {1 2} with 3 removed, by a committed configuration at 3. */
static void lead_without_3(struct rig *rig) {
    rig_lead_committed(rig, 3);
    CHECK(rig_do(rig, RAFT_EVENT_REMOVE, 3) == RAFT_OK);
    rig_sync(rig);
    rig_bring_up(rig, 2);
    rig_bring_up(rig, 2);
    CHECK(rig_state(rig).commit_index == 3);
}

static void m10_a_removed_peer_is_told(void) {
    struct rig rig;
    struct raft_peer_state peer;
    lead_without_3(&rig);
    CHECK(raft_peek_peer(rig.raft, 3, &peer));
    CHECK(rig_acknowledge(&rig, 3, 3) == RAFT_OK);
    rig_take(&rig);
    const struct raft_message *last = rig_find(&rig, RAFT_APPEND, 3);
    CHECK(last != NULL && last->commit == 3);
    struct raft_message echo = {.kind = RAFT_APPEND_REPLY,
                                .from = 3,
                                .term = 2,
                                .match = 3,
                                .round = last->round,
                                .previous = {2, 3}};
    CHECK(rig_receive(&rig, &echo) == RAFT_OK);
    CHECK(!raft_peek_peer(rig.raft, 3, &peer)); /* it knows: that was the last word */
    rig_stop(&rig);
}

static void m10_but_not_for_ever(void) {
    struct rig rig;
    struct raft_peer_state peer;
    lead_without_3(&rig);
    for (uint32_t i = 0; i < 2 * RAFT_DEPARTING_TIMEOUTS; i++) {
        rig_wait(&rig, RIG_MAX_MS / 2);
        CHECK(rig_acknowledge(&rig, 2, 3) == RAFT_OK);
    }
    rig_wait(&rig, RIG_HEARTBEAT_MS);
    CHECK(rig_state(&rig).role == RAFT_LEADER);
    CHECK(!raft_peek_peer(rig.raft, 3, &peer));
    rig_stop(&rig);
}

static void m10_peers_that_leave_make_room(void) {
    struct rig rig;
    struct raft_peer_state peer;
    rig_lead_committed(&rig, 1);
    for (uint64_t id = 2; id < 80; id++) {
        CHECK(rig_do(&rig, RAFT_EVENT_ADD, id) == RAFT_OK);
        rig_sync(&rig);
        CHECK(raft_peek_peer(rig.raft, id, &peer));
        CHECK(rig_do(&rig, RAFT_EVENT_REMOVE, id) == RAFT_OK);
        rig_sync(&rig);
    }
    rig_stop(&rig);
}

static void v12_a_removed_peer_has_no_say(void) {
    struct rig rig;
    lead_without_3(&rig);
    struct raft_message later = {
        .kind = RAFT_APPEND_REPLY, .from = 3, .term = 50, .rejected = true};
    CHECK(rig_receive(&rig, &later) == RAFT_STALE);
    CHECK(rig_state(&rig).role == RAFT_LEADER && rig_state(&rig).term == 2);
    later.from = 2; /* a member's is heard */
    CHECK(rig_receive(&rig, &later) == RAFT_OK);
    CHECK(rig_state(&rig).role == RAFT_FOLLOWER && rig_state(&rig).term == 50);
    rig_stop(&rig);
}

static void the_last_voter_stays(void) {
    struct rig rig;
    rig_lead_committed(&rig, 1);
    CHECK(rig_do(&rig, RAFT_EVENT_REMOVE, 1) == RAFT_LAST_VOTER);
    for (uint64_t id = 2; id <= MEMBERS_MAX; id++) {
        CHECK(rig_do(&rig, RAFT_EVENT_ADD, id) == RAFT_OK);
        rig_sync(&rig);
    }
    CHECK(rig_do(&rig, RAFT_EVENT_ADD, 99) == RAFT_TOO_MANY_MEMBERS);
    rig_stop(&rig);
}

static void bootstrap_founds_once(void) {
    struct rig rig;
    rig_start(&rig, 0, 0, 0, NULL, 0);
    rig_wait(&rig, 5 * RIG_MAX_MS);
    CHECK(rig_state(&rig).role == RAFT_FOLLOWER);
    CHECK(rig_do(&rig, RAFT_EVENT_BOOTSTRAP, 0) == RAFT_BAD_MESSAGE);
    CHECK(rig_do(&rig, RAFT_EVENT_BOOTSTRAP, 7) == RAFT_OK);
    CHECK(rig.outcome.first == 1 && rig.outcome.last == 1);
    rig_wait(&rig, 0);
    rig_sync(&rig);
    CHECK(rig_state(&rig).role == RAFT_LEADER && rig_state(&rig).id == 7);
    CHECK(rig_state(&rig).commit_index == 2);
    CHECK(rig_do(&rig, RAFT_EVENT_BOOTSTRAP, 7) == RAFT_ALREADY_MEMBER);
    rig_stop(&rig);
}

static void a_server_without_an_id_waits(void) {
    struct rig rig;
    rig_start(&rig, 0, 0, 0, NULL, 0);
    CHECK(rig_append(&rig, 2, 1, NOTHING, NULL, 0, 0) == RAFT_STALE);
    raft_set_id(rig.raft, 5);
    raft_set_id(rig.raft, 6); /* once */
    CHECK(rig_append(&rig, 2, 1, NOTHING, NULL, 0, 0) == RAFT_OK);
    CHECK(rig_state(&rig).id == 5 && rig_state(&rig).leader == 2);
    CHECK(rig_do(&rig, RAFT_EVENT_BOOTSTRAP, 5) == RAFT_ALREADY_MEMBER);
    rig_stop(&rig);
}

static void what_does_not_apply_is_refused(void) {
    struct rig rig;
    rig_lead_committed(&rig, 3);
    CHECK(rig_do(&rig, RAFT_EVENT_SNAPSHOT_FAILED, 2) == RAFT_STALE);
    CHECK(rig_do(&rig, RAFT_EVENT_SENT, 9) == RAFT_STALE);
    CHECK(rig_do(&rig, RAFT_EVENT_CONNECTED, 9) == RAFT_STALE);
    CHECK(rig_do(&rig, RAFT_EVENT_ADD, 0) == RAFT_BAD_MESSAGE);
    CHECK(rig_do(&rig, RAFT_EVENT_TRANSFER, 1) == RAFT_OK); /* to itself: it leads already */
    CHECK(rig_state(&rig).transferee == 0);
    CHECK(rig_step(&rig, &(struct raft_event){.kind = RAFT_EVENT_VOTE_PERSISTED, .term = 99}) ==
          RAFT_STALE);
    CHECK(rig_receive(&rig, NULL) == RAFT_BAD_MESSAGE);
    struct raft_message own = {.kind = RAFT_VOTE, .from = 1, .term = 9};
    CHECK(rig_receive(&rig, &own) == RAFT_BAD_MESSAGE);
    CHECK(!raft_peek_peer(rig.raft, 9, &(struct raft_peer_state){0}));
    rig_stop(&rig);
}

static void time_outs_can_be_shortened(void) {
    struct rig rig;
    rig_start(&rig, 1, 3, 1, NULL, 0);
    raft_set_election_timeouts(rig.raft, 20, 10); /* a range that is none: 20 to 20 */
    CHECK(raft_deadline_ms(rig.raft) <= rig.now_ms + 20);
    raft_set_election_timeouts(rig.raft, 1000, 2000); /* from the next one on */
    CHECK(raft_deadline_ms(rig.raft) <= rig.now_ms + 20);
    CHECK(strcmp(raft_role_name(RAFT_FOLLOWER), "Follower") == 0);
    CHECK(strcmp(raft_role_name(RAFT_PRECANDIDATE), "Candidate") == 0);
    CHECK(strcmp(raft_role_name(RAFT_CANDIDATE), "Candidate") == 0);
    CHECK(strcmp(raft_role_name(RAFT_LEADER), "Leader") == 0);
    rig_stop(&rig);
}

int main(void) {
    static const struct {
        const char *name;
        void (*run)(void);
    } tests[] = {
#define TEST(function) {#function, function}
        TEST(m1_no_change_before_an_entry_of_the_own_term_is_committed),
        TEST(m2_one_change_at_a_time),
        TEST(m2_across_leaders),
        TEST(m6_m12_joint_needs_both_majorities_and_learners_none),
        TEST(m7_a_new_leader_leaves_joint),
        TEST(v17_an_election_in_joint_needs_both_majorities),
        TEST(v15_a_learner_waits_but_votes),
        TEST(m11_one_to_two_does_not_stall),
        TEST(m8_m9_a_leader_removes_itself_from_two),
        TEST(m9_a_removed_server_may_still_be_needed),
        TEST(m10_a_removed_peer_is_told),
        TEST(m10_but_not_for_ever),
        TEST(m10_peers_that_leave_make_room),
        TEST(v12_a_removed_peer_has_no_say),
        TEST(the_last_voter_stays),
        TEST(bootstrap_founds_once),
        TEST(a_server_without_an_id_waits),
        TEST(what_does_not_apply_is_refused),
        TEST(time_outs_can_be_shortened),
    };
    for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        printf("test %s\n", tests[i].name);
        fflush(stdout);
        tests[i].run();
    }
    printf("ok\n");
    return 0;
}
