/* Elections and replication, rule by rule: each test is named by the pitfall that it guards, or
 * by the section of the dissertation that it repeats. Membership:
 * test_raft_membership.c; snapshots, reads, hand-over: test_raft_reads.c. */
#include <string.h>

#include "check.h"
#include "raftrig.h"

static const struct raft_position NOTHING = {0, 0};

static struct raft_message vote(uint64_t from, uint64_t term, struct raft_position last) {
    return (struct raft_message){.kind = RAFT_VOTE, .from = from, .term = term, .last = last};
}

static bool grants(struct rig *rig, const struct raft_message *message) {
    (void)!rig_receive(rig, message);
    rig_sync(rig);
    const struct raft_message *reply = rig_find(rig, RAFT_VOTE_REPLY, message->from);
    return reply != NULL && reply->granted && reply->pre == message->pre;
}

/* --- elections --------------------------------------------------------------------------- */
static void v1_term_before_index(void) {
    struct rig rig;
    const uint64_t terms[] = {1, 2};
    struct raft_message longer = vote(2, 3, (struct raft_position){1, 9});
    struct raft_message shorter = vote(3, 3, (struct raft_position){2, 1});
    struct raft_message equal = vote(3, 3, (struct raft_position){2, 2});
    rig_start(&rig, 1, 3, 2, terms, 2);
    CHECK(!grants(&rig, &longer));
    CHECK(!grants(&rig, &shorter));
    CHECK(grants(&rig, &equal));
    rig_stop(&rig);
}

static void v2_v3_vote_durable_before_it_is_told(void) {
    struct rig rig;
    struct raft_message ask = vote(2, 5, NOTHING);
    rig_start(&rig, 1, 3, 0, NULL, 0);
    CHECK(rig_receive(&rig, &ask) == RAFT_OK);
    rig_take(&rig);
    CHECK(rig.actions.save_vote && rig.actions.term == 5 && rig.actions.voted_for == 2);
    CHECK(rig.actions.message_count == 0);
    CHECK(!raft_has_actions(rig.raft));
    rig_persist(&rig);
    CHECK(raft_has_actions(rig.raft));
    rig_take(&rig);
    CHECK(rig_find(&rig, RAFT_VOTE_REPLY, 2)->granted);
    ask.from = 3; /* one vote a term */
    CHECK(!grants(&rig, &ask));
    rig_stop(&rig);
}

static void v2_candidate_speaks_when_its_term_is_durable(void) {
    struct rig rig;
    rig_start(&rig, 1, 3, 0, NULL, 0);
    rig_wait(&rig, RIG_MAX_MS + 1);
    rig_take(&rig);
    CHECK(rig_find(&rig, RAFT_VOTE, 2)->pre && !rig.actions.save_vote);
    CHECK(rig_receive(&rig, &(struct raft_message){.kind = RAFT_VOTE_REPLY,
                                                   .from = 2,
                                                   .term = 1,
                                                   .pre = true,
                                                   .granted = true}) == RAFT_OK);
    rig_take(&rig);
    CHECK(rig.actions.save_vote && rig.actions.message_count == 0);
    struct raft_message early = {
        .kind = RAFT_VOTE_REPLY, .from = 2, .term = 1, .granted = true};
    CHECK(rig_receive(&rig, &early) == RAFT_STALE); /* nobody was asked yet */
    rig_persist(&rig);
    rig_take(&rig);
    CHECK(!rig_find(&rig, RAFT_VOTE, 2)->pre && rig_find(&rig, RAFT_VOTE, 3) != NULL);
    CHECK(rig_receive(&rig, &early) == RAFT_OK);
    CHECK(rig_state(&rig).role == RAFT_LEADER);
    rig_stop(&rig);
}

static void v5_v6_votes_are_counted_by_node_and_kind(void) {
    struct rig rig;
    rig_start(&rig, 1, 5, 0, NULL, 0);
    rig_wait(&rig, RIG_MAX_MS + 1);
    rig_sync(&rig);
    struct raft_message pre = {
        .kind = RAFT_VOTE_REPLY, .from = 2, .term = 1, .pre = true, .granted = true};
    CHECK(rig_receive(&rig, &pre) == RAFT_OK);
    CHECK(rig_receive(&rig, &pre) == RAFT_OK);
    CHECK(rig_state(&rig).role == RAFT_PRECANDIDATE);
    pre.from = 3;
    CHECK(rig_receive(&rig, &pre) == RAFT_OK);
    CHECK(rig_state(&rig).role == RAFT_CANDIDATE && rig_state(&rig).term == 1);
    rig_sync(&rig);
    struct raft_message real = {.kind = RAFT_VOTE_REPLY, .from = 2, .term = 1, .granted = true};
    CHECK(rig_receive(&rig, &real) == RAFT_OK);
    CHECK(rig_receive(&rig, &real) == RAFT_OK);
    CHECK(rig_receive(&rig, &pre) != RAFT_OK); /* a pre-vote is no vote */
    CHECK(rig_state(&rig).role == RAFT_CANDIDATE);
    real.from = 9; /* nor is a stranger's */
    CHECK(rig_receive(&rig, &real) == RAFT_STALE);
    real.from = 4;
    CHECK(rig_receive(&rig, &real) == RAFT_OK);
    CHECK(rig_state(&rig).role == RAFT_LEADER);
    rig_stop(&rig);
}

static void v6_v9_granting_a_pre_vote_changes_nothing(void) {
    struct rig rig;
    rig_start(&rig, 1, 3, 4, NULL, 0);
    uint64_t deadline_ms = raft_deadline_ms(rig.raft);
    struct raft_message ask = vote(2, 5, NOTHING);
    ask.pre = true;
    CHECK(grants(&rig, &ask));
    CHECK(rig_find(&rig, RAFT_VOTE_REPLY, 2)->term == 5);
    CHECK(rig_state(&rig).term == 4 && rig_state(&rig).voted_for == 0);
    CHECK(raft_deadline_ms(rig.raft) == deadline_ms);
    ask.from = 3; /* any number of them */
    CHECK(grants(&rig, &ask));
    rig_stop(&rig);
}

static void v7_a_refused_pre_vote_teaches_the_term(void) {
    struct rig rig;
    struct rig behind;
    rig_start(&rig, 1, 3, 9, NULL, 0);
    rig_start(&behind, 2, 3, 4, NULL, 0);
    struct raft_message ask = vote(2, 5, NOTHING);
    ask.pre = true;
    CHECK(!grants(&rig, &ask));
    struct raft_message refusal = *rig_find(&rig, RAFT_VOTE_REPLY, 2);
    CHECK(refusal.term == 9);
    rig_wait(&behind, RIG_MAX_MS + 1);
    CHECK(rig_receive(&behind, &refusal) == RAFT_OK);
    CHECK(rig_state(&behind).term == 9 && rig_state(&behind).role == RAFT_FOLLOWER);
    rig_stop(&rig);
    rig_stop(&behind);
}

static void v8_a_pre_candidate_does_not_believe_in_its_old_leader(void) {
    struct rig rig;
    rig_start(&rig, 1, 3, 1, NULL, 0);
    CHECK(rig_append(&rig, 3, 1, NOTHING, NULL, 0, 0) == RAFT_OK);
    CHECK(rig_state(&rig).leader == 3);
    struct raft_message ask = vote(2, 2, NOTHING);
    ask.pre = true;
    CHECK(!grants(&rig, &ask)); /* 4.2.3: it hears a leader */
    rig_wait(&rig, RIG_MAX_MS + 1);
    CHECK(rig_state(&rig).role == RAFT_PRECANDIDATE && rig_state(&rig).leader == 0);
    CHECK(grants(&rig, &ask));
    rig_stop(&rig);
}

static void v11_who_lost_follows_the_winner(void) {
    struct rig rig;
    rig_start(&rig, 1, 3, 0, NULL, 0);
    rig_wait(&rig, RIG_MAX_MS + 1);
    CHECK(rig_receive(&rig, &(struct raft_message){.kind = RAFT_VOTE_REPLY,
                                                   .from = 2,
                                                   .term = 1,
                                                   .pre = true,
                                                   .granted = true}) == RAFT_OK);
    CHECK(rig_state(&rig).role == RAFT_CANDIDATE && rig_state(&rig).voted_for == 1);
    CHECK(rig_append(&rig, 3, 1, NOTHING, NULL, 0, 0) == RAFT_OK);
    CHECK(rig_state(&rig).role == RAFT_FOLLOWER && rig_state(&rig).leader == 3);
    CHECK(rig_state(&rig).voted_for == 1);
    /* and refuses another leader of that term, without harm */
    CHECK(rig_append(&rig, 2, 1, NOTHING, NULL, 0, 0) == RAFT_BAD_MESSAGE);
    CHECK(rig_state(&rig).leader == 3);
    rig_stop(&rig);
}

static void v12_a_live_leader_is_not_unseated(void) {
    struct rig rig;
    rig_start(&rig, 1, 3, 1, NULL, 0);
    rig_lead(&rig, 3);
    struct raft_message ask = vote(9, 50, (struct raft_position){40, 40});
    CHECK(rig_receive(&rig, &ask) == RAFT_STALE);
    CHECK(rig_state(&rig).role == RAFT_LEADER);
    /* an answer from a stranger does not count either */
    CHECK(rig_receive(&rig, &(struct raft_message){.kind = RAFT_APPEND_REPLY,
                                                   .from = 9,
                                                   .term = 50,
                                                   .rejected = true}) == RAFT_STALE);
    CHECK(rig_state(&rig).term == 2);
    ask.transfer = true; /* 3.10: but by the leader's own order */
    ask.from = 2;
    CHECK(grants(&rig, &ask));
    CHECK(rig_state(&rig).term == 50);
    rig_stop(&rig);
}

static void v13_v14_a_leader_without_quorum_steps_down(void) {
    struct rig rig;
    rig_start(&rig, 1, 5, 1, NULL, 0);
    rig_lead(&rig, 5);
    for (int i = 0; i < 20; i++) {
        CHECK(rig_acknowledge(&rig, 2, 0) == RAFT_OK);
        CHECK(rig_acknowledge(&rig, 3, 0) == RAFT_OK);
        rig_wait(&rig, RIG_HEARTBEAT_MS);
    }
    CHECK(rig_state(&rig).role == RAFT_LEADER);
    for (int i = 0; i < 20; i++) {
        CHECK(rig_acknowledge(&rig, 2, 0) != RAFT_BAD_MESSAGE); /* two of five are too few */
        rig_wait(&rig, RIG_HEARTBEAT_MS);
    }
    CHECK(rig_state(&rig).role != RAFT_LEADER);
    rig_sync(&rig);
    CHECK(rig_find(&rig, RAFT_APPEND, 2) == NULL);
    rig_stop(&rig);
}

static void v19_time_outs_differ(void) {
    uint64_t seen[8];
    uint32_t different = 0;
    for (uint64_t id = 1; id <= 8; id++) {
        struct rig rig;
        rig_start(&rig, id, 8, 0, NULL, 0);
        seen[id - 1] = raft_deadline_ms(rig.raft) - rig.now_ms;
        CHECK(seen[id - 1] >= RIG_MIN_MS && seen[id - 1] <= RIG_MAX_MS);
        different += seen[id - 1] != seen[0] ? 1 : 0;
        rig_stop(&rig);
    }
    CHECK(different >= 5);
}

static void election_alone_at_once(void) {
    struct rig rig;
    rig_start(&rig, 1, 1, 3, NULL, 0);
    CHECK(raft_deadline_ms(rig.raft) == rig.now_ms);
    rig_wait(&rig, 0);
    CHECK(rig_state(&rig).role == RAFT_CANDIDATE); /* C7: not before its own vote is durable */
    rig_take(&rig);
    rig_persist(&rig);
    CHECK(rig_state(&rig).role == RAFT_LEADER && rig_state(&rig).commit_index == 0);
    rig_take(&rig);
    CHECK(rig.actions.append_first == 1 && rig.actions.append_last == 1);
    rig_persist(&rig);
    CHECK(rig_state(&rig).commit_index == 1);
    rig_stop(&rig);
}

static void election_hastens_when_the_leader_hangs_up(void) {
    struct rig rig;
    rig_start(&rig, 1, 3, 1, NULL, 0);
    CHECK(rig_append(&rig, 3, 1, NOTHING, NULL, 0, 0) == RAFT_OK);
    CHECK(rig_do(&rig, RAFT_EVENT_DISCONNECTED, 2) == RAFT_OK);
    CHECK(raft_deadline_ms(rig.raft) >= rig.now_ms + RIG_MIN_MS);
    CHECK(rig_do(&rig, RAFT_EVENT_DISCONNECTED, 3) == RAFT_OK);
    CHECK(raft_deadline_ms(rig.raft) <= rig.now_ms + 2 * RIG_HEARTBEAT_MS);
    struct raft_message ask = vote(2, 2, NOTHING);
    CHECK(grants(&rig, &ask)); /* nor does it stick to that leader */
    rig_stop(&rig);
}

static void election_pauses_after_step_down(void) {
    struct rig rig;
    rig_start(&rig, 1, 1, 1, NULL, 0);
    rig_lead(&rig, 1);
    CHECK(rig_do(&rig, RAFT_EVENT_STEP_DOWN, 0) == RAFT_OK);
    CHECK(rig_state(&rig).role == RAFT_FOLLOWER);
    rig_wait(&rig, RIG_MAX_MS - 1);
    CHECK(rig_state(&rig).role == RAFT_FOLLOWER);
    rig_wait(&rig, RIG_MAX_MS);
    CHECK(rig_state(&rig).role != RAFT_FOLLOWER);
    rig_stop(&rig);
}

/* --- the log of a follower --------------------------------------------------------------- */
static void c2_no_commit_past_what_is_verified(void) {
    struct rig rig;
    const uint64_t terms[] = {1, 1, 1};
    rig_start(&rig, 1, 3, 1, terms, 3);
    CHECK(rig_append(&rig, 2, 2, (struct raft_position){1, 1}, NULL, 0, 3) == RAFT_OK);
    CHECK(rig_state(&rig).commit_index == 1);
    CHECK(rig_append(&rig, 2, 2, NOTHING, NULL, 0, 3) == RAFT_OK);
    CHECK(rig_state(&rig).commit_index == 1);
    rig_sync(&rig);
    CHECK(rig_find(&rig, RAFT_APPEND_REPLY, 2)->match == 1);
    rig_stop(&rig);
}

static void c3_only_a_real_conflict_truncates(void) {
    struct rig rig;
    const uint64_t terms[] = {1, 1, 1, 1};
    const uint64_t later[] = {2};
    rig_start(&rig, 1, 3, 1, terms, 4);
    CHECK(rig_append(&rig, 2, 1, NOTHING, terms, 2, 0) == RAFT_OK);
    CHECK(rig_state(&rig).last.index == 4 && rig.outcome.truncated_from == 0);
    CHECK(rig.outcome.first > rig.outcome.last);
    CHECK(rig_append(&rig, 2, 2, (struct raft_position){1, 2}, later, 1, 0) == RAFT_OK);
    CHECK(rig.outcome.truncated_from == 3);
    CHECK(rig.outcome.first == 3 && rig.outcome.last == 3);
    CHECK(rig_state(&rig).last.index == 3 && rig_state(&rig).last.term == 2);
    rig_take(&rig);
    CHECK(rig.actions.truncate_from == 3);
    CHECK(rig.actions.append_first == 3 && rig.actions.append_last == 3);
    /* what this leader has verified, it cannot contradict */
    CHECK(rig_append(&rig, 2, 2, NOTHING, later, 1, 0) == RAFT_BAD_MESSAGE);
    CHECK(rig_state(&rig).last.index == 3);
    rig_stop(&rig);
}

static void c5_c6_a_late_sync_of_a_cut_tail_counts_nothing(void) {
    struct rig rig;
    const uint64_t old[] = {1, 1, 1};
    const uint64_t new[] = {2, 2};
    rig_start(&rig, 1, 3, 1, NULL, 0);
    CHECK(rig_append(&rig, 2, 1, NOTHING, old, 3, 0) == RAFT_OK);
    rig_take(&rig);
    uint64_t generation = rig.actions.generation;
    CHECK(rig_append(&rig, 3, 2, (struct raft_position){1, 1}, new, 2, 0) == RAFT_OK);
    struct raft_event late = {
        .kind = RAFT_EVENT_LOG_PERSISTED, .generation = generation, .position = {2, 3}};
    CHECK(rig_step(&rig, &late) == RAFT_STALE);
    CHECK(rig_state(&rig).durable_index == 0);
    rig_take(&rig);
    CHECK(rig.actions.generation != generation && rig.actions.truncate_from == 2);
    late.generation = rig.actions.generation;
    late.position.term = 1;
    CHECK(rig_step(&rig, &late) == RAFT_STALE); /* nor one of another term */
    rig_persist(&rig);
    CHECK(rig_state(&rig).durable_index == 3);
    rig_stop(&rig);
}

/* Cut, replaced, and brought back by a third leader: the first sync of it says nothing of the
 * second. */
static void c5_an_entry_that_came_back_is_written_again(void) {
    struct rig rig;
    const uint64_t kept[] = {2};
    const uint64_t other[] = {3};
    rig_start(&rig, 1, 3, 2, NULL, 0);
    CHECK(rig_append(&rig, 2, 2, NOTHING, kept, 1, 0) == RAFT_OK);
    rig_take(&rig);
    struct raft_event late = {.kind = RAFT_EVENT_LOG_PERSISTED,
                              .generation = rig.actions.generation,
                              .position = {2, 1}};
    CHECK(rig_append(&rig, 3, 3, NOTHING, other, 1, 0) == RAFT_OK);
    rig_take(&rig);
    CHECK(rig_append(&rig, 2, 4, NOTHING, kept, 1, 0) == RAFT_OK);
    rig_take(&rig);
    CHECK(rig_step(&rig, &late) == RAFT_STALE);
    CHECK(rig_state(&rig).durable_index == 0);
    rig_persist(&rig);
    CHECK(rig_state(&rig).durable_index == 1);
    rig_stop(&rig);
}

static void d_acknowledged_when_durable(void) {
    struct rig rig;
    const uint64_t terms[] = {1, 1};
    rig_start(&rig, 1, 3, 1, NULL, 0);
    CHECK(rig_append(&rig, 2, 1, NOTHING, terms, 2, 2) == RAFT_OK);
    rig_take(&rig);
    CHECK(rig_find(&rig, RAFT_APPEND_REPLY, 2)->match == 0);
    CHECK(rig_find(&rig, RAFT_APPEND_REPLY, 2)->previous.index == 2); /* verified */
    CHECK(!raft_has_actions(rig.raft));
    rig_persist(&rig);
    rig_take(&rig);
    CHECK(rig_find(&rig, RAFT_APPEND_REPLY, 2)->match == 2);
    rig_stop(&rig);
}

static void c10_a_hint_of_nothing_is_a_hint(void) {
    struct rig rig;
    rig_start(&rig, 1, 3, 1, NULL, 0);
    CHECK(rig_append(&rig, 2, 1, (struct raft_position){1, 9}, NULL, 0, 0) == RAFT_OK);
    rig_sync(&rig);
    const struct raft_message *reply = rig_find(&rig, RAFT_APPEND_REPLY, 2);
    CHECK(reply->rejected && reply->previous.index == 9 && reply->hint.index == 0);
    rig_stop(&rig);
}

/* --- a leader's side --------------------------------------------------------------------- */
static void c1_an_older_term_is_not_committed_by_counting(void) {
    struct rig rig;
    const uint64_t terms[] = {1, 2};
    rig_start(&rig, 1, 3, 3, terms, 2);
    rig_lead(&rig, 3); /* term 4: NOOP at 3 */
    rig_sync(&rig);
    CHECK(rig_acknowledge(&rig, 2, 2) == RAFT_OK);
    CHECK(rig_state(&rig).commit_index == 0);
    CHECK(rig_acknowledge(&rig, 2, 3) == RAFT_OK);
    CHECK(rig_state(&rig).commit_index == 3);
    rig_stop(&rig);
}

static void c7_the_leaders_own_disk_counts_when_it_is_durable(void) {
    struct rig rig;
    rig_start(&rig, 1, 3, 1, NULL, 0);
    rig_lead(&rig, 3);
    rig_take(&rig);
    CHECK(rig_acknowledge(&rig, 2, 1) == RAFT_OK);
    CHECK(rig_state(&rig).commit_index == 0);
    CHECK(rig_acknowledge(&rig, 3, 1) == RAFT_OK); /* but two others are a quorum without us */
    CHECK(rig_state(&rig).commit_index == 1);
    CHECK(rig_state(&rig).durable_index == 0);
    rig_stop(&rig);
}

/* Ask and answer until the logs meet; returns the round trips. */
static uint32_t converge(struct rig *leader, struct rig *follower) {
    for (uint32_t trips = 0; trips < 50; trips++) {
        struct raft_state have = rig_state(follower);
        struct raft_state want = rig_state(leader);
        if (have.last.index == want.last.index && have.last.term == want.last.term) {
            return trips;
        }
        rig_take(leader);
        const struct raft_message *offer = rig_find(leader, RAFT_APPEND, have.id);
        CHECK(offer != NULL);
        uint64_t terms[64];
        uint32_t count = 0;
        for (uint64_t i = offer->first; i <= offer->end; i++) {
            terms[count++] = raft_term_at(leader->raft, i);
        }
        CHECK(rig_append(follower, 1, want.term, offer->previous, terms, count, 0) == RAFT_OK);
        rig_sent_all(leader);
        rig_sync(follower);
        struct raft_message reply = *rig_find(follower, RAFT_APPEND_REPLY, 1);
        reply.from = have.id;
        CHECK(rig_receive(leader, &reply) == RAFT_OK);
    }
    return 50;
}

static void c9_a_conflict_costs_a_round_trip_a_term(void) {
    struct rig leader;
    struct rig follower;
    uint64_t ours[40];
    uint64_t theirs[60];
    for (uint32_t i = 0; i < 40; i++) {
        ours[i] = i < 10 ? 1 : 5;
    }
    for (uint32_t i = 0; i < 60; i++) {
        theirs[i] = i < 10 ? 1 : i < 30 ? 2 : i < 50 ? 3 : 4;
    }
    rig_start(&leader, 1, 2, 5, ours, 40);
    rig_start(&follower, 2, 2, 4, theirs, 60);
    rig_lead(&leader, 2);
    CHECK(converge(&leader, &follower) <= 5);
    rig_stop(&leader);
    rig_stop(&follower);
}

static void c12_c13_match_falls_only_with_a_new_incarnation(void) {
    struct rig rig;
    rig_start(&rig, 1, 3, 1, NULL, 0);
    rig_lead(&rig, 3);
    struct raft_event up = {.kind = RAFT_EVENT_CONNECTED, .id = 2, .incarnation = 4};
    CHECK(rig_step(&rig, &up) == RAFT_OK);
    rig_sync(&rig);
    CHECK(rig_acknowledge(&rig, 2, 1) == RAFT_OK);
    CHECK(rig_peer(&rig, 2).match == 1);
    struct raft_message stale = {
        .kind = RAFT_APPEND_REPLY, .from = 2, .term = 2, .rejected = true, .previous = {2, 1}};
    CHECK(rig_receive(&rig, &stale) == RAFT_OK); /* a rejection of what it has: of long ago */
    CHECK(rig_peer(&rig, 2).match == 1 && rig_peer(&rig, 2).next == 2);
    CHECK(rig_acknowledge(&rig, 2, 0) == RAFT_OK);
    CHECK(rig_peer(&rig, 2).match == 1);
    stale.term = 1;
    CHECK(rig_receive(&rig, &stale) == RAFT_STALE);
    CHECK(rig_step(&rig, &up) == RAFT_OK);
    CHECK(rig_peer(&rig, 2).match == 1 && rig_peer(&rig, 2).probing);
    up.incarnation = 5;
    CHECK(rig_step(&rig, &up) == RAFT_OK);
    CHECK(rig_peer(&rig, 2).match == 0 && rig_peer(&rig, 2).probing);
    CHECK(rig_state(&rig).commit_index == 1); /* what is committed stays so */
    rig_stop(&rig);
}

static void c17_the_uncommitted_tail_is_bounded(void) {
    struct rig rig;
    rig_start(&rig, 1, 3, 1, NULL, 0);
    rig_lead(&rig, 3);
    struct raft_event much = {.kind = RAFT_EVENT_PROPOSE,
                              .count = (uint32_t)RAFT_UNCOMMITTED_ENTRIES_MAX};
    CHECK(rig_step(&rig, &much) == RAFT_OVERLOADED);
    much.count -= 1;
    CHECK(rig_step(&rig, &much) == RAFT_OK);
    CHECK(rig_do(&rig, RAFT_EVENT_PROPOSE, 0) == RAFT_OVERLOADED);
    rig_take(&rig); /* and what one peer is sent ahead of its answers */
    rig_sent_all(&rig);
    CHECK(rig_peer(&rig, 2).next <= RAFT_IN_FLIGHT_ENTRIES_MAX + 1);
    rig_stop(&rig);
}

static void c18_lost_entries_are_asked_for_again(void) {
    struct rig rig;
    rig_start(&rig, 1, 2, 1, NULL, 0);
    rig_lead(&rig, 2);
    rig_sync(&rig);
    CHECK(rig_acknowledge(&rig, 2, 1) == RAFT_OK);
    CHECK(rig_do(&rig, RAFT_EVENT_PROPOSE, 0) == RAFT_OK);
    rig_take(&rig);
    rig_persist(&rig);
    CHECK(rig_find(&rig, RAFT_APPEND, 2)->end == 2);
    rig_sent_all(&rig);
    CHECK(!rig_peer(&rig, 2).probing && rig_peer(&rig, 2).next == 3);
    CHECK(rig_acknowledge(&rig, 2, 1) == RAFT_OK); /* duplicates never resend */
    rig_sync(&rig);
    CHECK(rig_peer(&rig, 2).next == 3);
    bool offered = false;
    for (int i = 0; i < 20 && !offered; i++) {
        rig_wait(&rig, RIG_HEARTBEAT_MS);
        rig_sync(&rig);
        CHECK(rig_acknowledge(&rig, 2, 1) == RAFT_OK);
        rig_take(&rig);
        const struct raft_message *again = rig_find(&rig, RAFT_APPEND, 2);
        offered = again != NULL && again->first == 2 && again->end == 2;
    }
    CHECK(offered);
    rig_stop(&rig);
}

static void offers_wait_for_a_full_queue_without_spinning(void) {
    struct rig rig;
    rig_start(&rig, 1, 2, 1, NULL, 0);
    rig_lead(&rig, 2);
    rig_sync(&rig);
    CHECK(rig_acknowledge(&rig, 2, 1) == RAFT_OK);
    rig_sync(&rig);
    CHECK(rig_do(&rig, RAFT_EVENT_PROPOSE, 0) == RAFT_OK);
    rig_take(&rig);
    rig_persist(&rig);
    CHECK(rig_find(&rig, RAFT_APPEND, 2)->end == 2);
    struct raft_event sent = {.kind = RAFT_EVENT_SENT, .id = 2, .index = 1};
    CHECK(rig_step(&rig, &sent) == RAFT_OK); /* nothing: the queue is full */
    CHECK(!raft_has_actions(rig.raft));
    CHECK(raft_deadline_ms(rig.raft) <= rig.now_ms + RIG_HEARTBEAT_MS);
    rig_wait(&rig, RIG_HEARTBEAT_MS); /* D11: a heartbeat first, by itself */
    rig_take(&rig);
    const struct raft_message *heartbeat = rig_find(&rig, RAFT_APPEND, 2);
    CHECK(heartbeat->first > heartbeat->end && heartbeat->previous.index == 1);
    CHECK(raft_has_actions(rig.raft));
    rig_take(&rig);
    CHECK(rig_find(&rig, RAFT_APPEND, 2)->end == 2);
    sent.index = 2;
    CHECK(rig_step(&rig, &sent) == RAFT_OK);
    CHECK(rig_step(&rig, &sent) == RAFT_STALE);
    CHECK(!raft_has_actions(rig.raft));
    rig_stop(&rig);
}

static void a_refused_offer_comes_again_at_once_where_there_is_room(void) {
    struct rig rig;
    rig_start(&rig, 1, 2, 1, NULL, 0);
    CHECK(rig_do(&rig, RAFT_EVENT_ROOM, 2) == RAFT_STALE); /* it does not lead */
    rig_lead(&rig, 2);
    rig_sync(&rig);
    CHECK(rig_acknowledge(&rig, 2, 1) == RAFT_OK);
    rig_sync(&rig);
    CHECK(rig_do(&rig, RAFT_EVENT_ROOM, 9) == RAFT_STALE);
    CHECK(rig_do(&rig, RAFT_EVENT_ROOM, 2) == RAFT_STALE); /* nothing is offered */
    CHECK(rig_do(&rig, RAFT_EVENT_PROPOSE, 0) == RAFT_OK);
    rig_take(&rig);
    rig_persist(&rig);
    CHECK(rig_find(&rig, RAFT_APPEND, 2)->end == 2);
    CHECK(rig_step(&rig, &(struct raft_event){
                             .kind = RAFT_EVENT_SENT, .id = 2, .index = 1}) == RAFT_OK);
    CHECK(!raft_has_actions(rig.raft));
    CHECK(rig_do(&rig, RAFT_EVENT_ROOM, 2) == RAFT_OK);
    rig_take(&rig);
    const struct raft_message *again = rig_find(&rig, RAFT_APPEND, 2);
    CHECK(again != NULL && again->first == 2 && again->end == 2);
    rig_stop(&rig);
}

static void entries_go_out_before_our_own_disk_has_them(void) {
    struct rig rig;
    rig_start(&rig, 1, 3, 1, NULL, 0);
    rig_lead(&rig, 3);
    rig_take(&rig);
    CHECK(rig.actions.append_first == 1 && rig.actions.append_last == 1);
    CHECK(rig_find(&rig, RAFT_APPEND, 2)->end == 1);
    CHECK(rig_find(&rig, RAFT_APPEND, 3)->end == 1);
    const struct raft_configuration *configuration;
    CHECK(raft_kind_at(rig.raft, 1, &configuration) == RAFT_ENTRY_NOOP);
    rig_stop(&rig);
}

int main(void) {
    static const struct {
        const char *name;
        void (*run)(void);
    } tests[] = {
#define TEST(function) {#function, function}
        TEST(v1_term_before_index),
        TEST(v2_v3_vote_durable_before_it_is_told),
        TEST(v2_candidate_speaks_when_its_term_is_durable),
        TEST(v5_v6_votes_are_counted_by_node_and_kind),
        TEST(v6_v9_granting_a_pre_vote_changes_nothing),
        TEST(v7_a_refused_pre_vote_teaches_the_term),
        TEST(v8_a_pre_candidate_does_not_believe_in_its_old_leader),
        TEST(v11_who_lost_follows_the_winner),
        TEST(v12_a_live_leader_is_not_unseated),
        TEST(v13_v14_a_leader_without_quorum_steps_down),
        TEST(v19_time_outs_differ),
        TEST(election_alone_at_once),
        TEST(election_hastens_when_the_leader_hangs_up),
        TEST(election_pauses_after_step_down),
        TEST(c1_an_older_term_is_not_committed_by_counting),
        TEST(c2_no_commit_past_what_is_verified),
        TEST(c3_only_a_real_conflict_truncates),
        TEST(c5_c6_a_late_sync_of_a_cut_tail_counts_nothing),
        TEST(c5_an_entry_that_came_back_is_written_again),
        TEST(d_acknowledged_when_durable),
        TEST(c7_the_leaders_own_disk_counts_when_it_is_durable),
        TEST(c9_a_conflict_costs_a_round_trip_a_term),
        TEST(c10_a_hint_of_nothing_is_a_hint),
        TEST(c12_c13_match_falls_only_with_a_new_incarnation),
        TEST(c17_the_uncommitted_tail_is_bounded),
        TEST(c18_lost_entries_are_asked_for_again),
        TEST(offers_wait_for_a_full_queue_without_spinning),
        TEST(a_refused_offer_comes_again_at_once_where_there_is_room),
        TEST(entries_go_out_before_our_own_disk_has_them),
    };
    for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        printf("test %s\n", tests[i].name);
        fflush(stdout);
        tests[i].run();
    }
    printf("ok\n");
    return 0;
}
