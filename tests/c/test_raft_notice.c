/* When a peer learns how far the commit has come: at once where its clients wait for it, with
 * whatever is sent to it anyway, and after RAFT_OPTIONS.commit_notice_ms in any case. */
#include "check.h"
#include "raftrig.h"

#define NOTICE_MS 5u

/* A leader of three, everything before is known everywhere. */
static void lead(struct rig *rig) {
    rig_lead_committed(rig, 3);
    rig_bring_up(rig, 2);
    rig_bring_up(rig, 3);
    rig_wait(rig, NOTICE_MS);
    rig_sync(rig);
    rig_sent_all(rig);
}

/* An entry of peer `id`'s clients (0: ours), durable here and at peer 3. */
static void commit(struct rig *rig, uint64_t id) {
    CHECK(rig_do(rig, RAFT_EVENT_PROPOSE, id) == RAFT_OK);
    rig_sync(rig);
    rig_sent_all(rig);
    CHECK(rig_acknowledge(rig, 3, rig_state(rig).last.index) == RAFT_OK);
    CHECK(rig_state(rig).commit_index == rig_state(rig).last.index);
    rig_take(rig);
}

static void a_peer_that_waits_for_nothing_is_told_in_time(void) {
    struct rig rig;
    lead(&rig);
    commit(&rig, 0);
    uint64_t committed = rig_state(&rig).commit_index;
    CHECK(rig_find(&rig, RAFT_APPEND, 2) == NULL && rig_find(&rig, RAFT_APPEND, 3) == NULL);
    CHECK(raft_deadline_ms(rig.raft) == rig.now_ms + NOTICE_MS);
    rig_wait(&rig, NOTICE_MS - 1);
    CHECK(!raft_has_actions(rig.raft));
    rig_wait(&rig, 1);
    rig_take(&rig);
    CHECK(rig_find(&rig, RAFT_APPEND, 2)->commit == committed);
    CHECK(rig_find(&rig, RAFT_APPEND, 3)->commit == committed);
    CHECK(raft_deadline_ms(rig.raft) > rig.now_ms + NOTICE_MS); /* once */
    rig_stop(&rig);
}

static void a_peer_whose_clients_wait_is_told_at_once(void) {
    struct rig rig;
    lead(&rig);
    commit(&rig, 2);
    CHECK(rig_find(&rig, RAFT_APPEND, 2)->commit == rig_state(&rig).commit_index);
    CHECK(rig_find(&rig, RAFT_APPEND, 3) == NULL);
    commit(&rig, 0); /* what it waited for, it knows */
    CHECK(rig_find(&rig, RAFT_APPEND, 2) == NULL);
    rig_stop(&rig);
}

static void the_next_entries_tell_as_well(void) {
    struct rig rig;
    lead(&rig);
    commit(&rig, 0);
    uint64_t committed = rig_state(&rig).commit_index;
    CHECK(rig_do(&rig, RAFT_EVENT_PROPOSE, 0) == RAFT_OK);
    rig_take(&rig);
    CHECK(rig_find(&rig, RAFT_APPEND, 2)->commit == committed);
    rig_persist(&rig);
    rig_sent_all(&rig);
    rig_wait(&rig, NOTICE_MS);
    rig_take(&rig);
    CHECK(rig_find(&rig, RAFT_APPEND, 2) == NULL); /* and no message besides */
    rig_stop(&rig);
}

/* Its queries wait until it has applied what they must see. */
static void l3_a_peer_that_asks_for_reads_is_told(void) {
    struct rig rig;
    lead(&rig);
    commit(&rig, 0);
    CHECK(rig_do(&rig, RAFT_EVENT_READ, 2) == RAFT_OK);
    CHECK(rig.outcome.index == rig_state(&rig).commit_index);
    rig_take(&rig);
    CHECK(rig_find(&rig, RAFT_APPEND, 2)->commit == rig.outcome.index);
    CHECK(rig_find(&rig, RAFT_APPEND, 3) == NULL);
    CHECK(rig_do(&rig, RAFT_EVENT_READ, 2) == RAFT_OK);
    CHECK(!raft_has_actions(rig.raft)); /* by now it knows */
    rig_stop(&rig);
}

/* L1: a read before the leader's first own entry is committed waits for that one. */
static void l1_a_peer_that_asked_too_early_is_told_of_the_first_entry(void) {
    struct rig rig;
    rig_start(&rig, 1, 3, 1, NULL, 0);
    rig_lead(&rig, 3);
    CHECK(rig_do(&rig, RAFT_EVENT_READ, 2) == RAFT_OK);
    CHECK(rig.outcome.index == 1);
    rig_sync(&rig);
    rig_sent_all(&rig);
    CHECK(rig_acknowledge(&rig, 3, 1) == RAFT_OK);
    rig_take(&rig);
    CHECK(rig_find(&rig, RAFT_APPEND, 2)->commit == 1);
    rig_stop(&rig);
}

/* M10: one that is being removed is kept informed without delay. */
static void m10_a_departing_peer_is_told_at_once(void) {
    struct rig rig;
    lead(&rig);
    CHECK(rig_do(&rig, RAFT_EVENT_REMOVE, 3) == RAFT_OK);
    for (int i = 0; i < 4 && rig_state(&rig).commit_index < rig_state(&rig).last.index; i++) {
        rig_sync(&rig);
        rig_sent_all(&rig);
        CHECK(rig_acknowledge(&rig, 2, rig_state(&rig).last.index) == RAFT_OK);
        CHECK(rig_acknowledge(&rig, 3, rig_state(&rig).last.index) == RAFT_OK);
    }
    rig_take(&rig);
    CHECK(rig_find(&rig, RAFT_APPEND, 3)->commit == rig_state(&rig).commit_index);
    rig_stop(&rig);
}

static void without_a_time_everybody_is_told_at_once(void) {
    struct rig rig;
    rig_commit_notice_ms = 0;
    lead(&rig);
    commit(&rig, 0);
    CHECK(rig_find(&rig, RAFT_APPEND, 2)->commit == rig_state(&rig).commit_index);
    rig_stop(&rig);
}

int main(void) {
#define TEST(name)                                                                             \
    { #name, name }
    const struct {
        const char *name;
        void (*run)(void);
    } tests[] = {
        TEST(a_peer_that_waits_for_nothing_is_told_in_time),
        TEST(a_peer_whose_clients_wait_is_told_at_once),
        TEST(the_next_entries_tell_as_well),
        TEST(l3_a_peer_that_asks_for_reads_is_told),
        TEST(l1_a_peer_that_asked_too_early_is_told_of_the_first_entry),
        TEST(m10_a_departing_peer_is_told_at_once),
        TEST(without_a_time_everybody_is_told_at_once),
    };
    rig_commit_notice_ms = NOTICE_MS;
    for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        printf("test %s\n", tests[i].name);
        fflush(stdout);
        tests[i].run();
    }
    printf("ok\n");
    return 0;
}
