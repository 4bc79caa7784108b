/* One core on the bench; see raftrig.h. */
#include "raftrig.h"

#include "check.h"

#define TERMS_MAX 64u

uint32_t rig_commit_notice_ms;

void rig_start(struct rig *rig, uint64_t id, uint32_t voters, uint64_t term,
               const uint64_t *terms, uint64_t count) {
    struct raft_entry entries[TERMS_MAX];
    CHECK(count <= TERMS_MAX);
    for (uint64_t i = 0; i < count; i++) {
        entries[i] = (struct raft_entry){.term = terms[i], .kind = RAFT_ENTRY_COMMAND};
    }
    struct raft_options options = {.id = id,
                                   .seed = 7 * id + 1,
                                   .now_ms = 1000,
                                   .min_election_timeout_ms = RIG_MIN_MS,
                                   .max_election_timeout_ms = RIG_MAX_MS,
                                   .commit_notice_ms = rig_commit_notice_ms,
                                   .term = term,
                                   .entry_count = count,
                                   .entries = entries};
    options.configuration.count = voters;
    for (uint32_t i = 0; i < voters; i++) {
        options.configuration.members[i] = (struct raft_member){.id = i + 1, .voter = true};
    }
    *rig = (struct rig){.now_ms = 1000};
    rig->raft = raft_new(&options);
    CHECK(rig->raft != NULL);
}

void rig_stop(struct rig *rig) {
    raft_free(rig->raft);
    rig->raft = NULL;
}

enum raft_result rig_step(struct rig *rig, const struct raft_event *event) {
    struct raft_event timed = *event;
    timed.now_ms = rig->now_ms;
    return raft_step(rig->raft, &timed, &rig->outcome);
}

enum raft_result rig_do(struct rig *rig, enum raft_event_kind kind, uint64_t id) {
    return rig_step(rig, &(struct raft_event){.kind = kind, .id = id, .count = 1});
}

enum raft_result rig_receive(struct rig *rig, const struct raft_message *message) {
    return rig_step(rig, &(struct raft_event){.kind = RAFT_EVENT_RECEIVE, .message = message});
}

void rig_wait(struct rig *rig, uint64_t ms) {
    rig->now_ms += ms;
    CHECK(rig_do(rig, RAFT_EVENT_TICK, 0) == RAFT_OK);
}

void rig_take(struct rig *rig) {
    raft_take_actions(rig->raft, &rig->actions);
}

void rig_persist(struct rig *rig) {
    const struct raft_actions *actions = &rig->actions;
    if (actions->save_vote) {
        CHECK(rig_step(rig, &(struct raft_event){.kind = RAFT_EVENT_VOTE_PERSISTED,
                                                 .term = actions->term,
                                                 .voted_for = actions->voted_for}) == RAFT_OK);
    }
    if (actions->append_first <= actions->append_last) {
        uint64_t last = actions->append_last;
        enum raft_result result = rig_step(
            rig, &(struct raft_event){.kind = RAFT_EVENT_LOG_PERSISTED,
                                      .generation = actions->generation,
                                      .position = {raft_term_at(rig->raft, last), last}});
        CHECK(result == RAFT_OK || result == RAFT_STALE);
    }
}

void rig_sync(struct rig *rig) {
    struct raft_actions kept = {0};
    while (raft_has_actions(rig->raft)) {
        rig_take(rig);
        if (rig->actions.message_count > 0) {
            kept = rig->actions;
        }
        rig_persist(rig);
    }
    rig->actions = kept;
}

const struct raft_message *rig_find(const struct rig *rig, enum raft_message_kind kind,
                                    uint64_t to) {
    for (uint32_t i = 0; i < rig->actions.message_count; i++) {
        const struct raft_message *message = &rig->actions.messages[i];
        if (message->kind == kind && message->to == to) {
            return message;
        }
    }
    return NULL;
}

struct raft_state rig_state(const struct rig *rig) {
    struct raft_state state;
    raft_peek_state(rig->raft, &state);
    return state;
}

struct raft_peer_state rig_peer(const struct rig *rig, uint64_t id) {
    struct raft_peer_state peer;
    CHECK(raft_peek_peer(rig->raft, id, &peer));
    return peer;
}

static void grant(struct rig *rig, uint32_t voters, bool pre) {
    struct raft_state state = rig_state(rig);
    for (uint64_t id = 1; id <= voters; id++) {
        if (id != state.id) {
            (void)!rig_receive(rig, &(struct raft_message){.kind = RAFT_VOTE_REPLY,
                                                           .from = id,
                                                           .term = state.term + (pre ? 1 : 0),
                                                           .pre = pre,
                                                           .granted = true});
        }
    }
}

void rig_lead(struct rig *rig, uint32_t voters) {
    rig_wait(rig, RIG_MAX_MS + 1);
    rig_sync(rig);
    grant(rig, voters, true);
    rig_sync(rig);
    grant(rig, voters, false);
    CHECK(rig_state(rig).role == RAFT_LEADER);
    CHECK(rig_do(rig, RAFT_EVENT_TICK, 0) == RAFT_OK);
}

enum raft_result rig_append(struct rig *rig, uint64_t from, uint64_t term,
                            struct raft_position previous, const uint64_t *terms,
                            uint32_t count, uint64_t commit) {
    struct raft_entry entries[TERMS_MAX];
    CHECK(count <= TERMS_MAX);
    for (uint32_t i = 0; i < count; i++) {
        entries[i] = (struct raft_entry){.term = terms[i], .kind = RAFT_ENTRY_COMMAND};
    }
    return rig_receive(rig, &(struct raft_message){.kind = RAFT_APPEND,
                                                   .from = from,
                                                   .term = term,
                                                   .previous = previous,
                                                   .commit = commit,
                                                   .count = count,
                                                   .entries = entries});
}

enum raft_result rig_acknowledge(struct rig *rig, uint64_t from, uint64_t match) {
    return rig_receive(
        rig, &(struct raft_message){.kind = RAFT_APPEND_REPLY,
                                    .from = from,
                                    .term = rig_state(rig).term,
                                    .match = match,
                                    .previous = {raft_term_at(rig->raft, match), match}});
}

void rig_sent_all(struct rig *rig) {
    const struct raft_actions sent = rig->actions;
    for (uint32_t i = 0; i < sent.message_count; i++) {
        const struct raft_message *message = &sent.messages[i];
        if (message->kind == RAFT_APPEND && message->end >= message->first) {
            CHECK(rig_step(rig, &(struct raft_event){.kind = RAFT_EVENT_SENT,
                                                     .id = message->to,
                                                     .index = message->end}) == RAFT_OK);
        }
    }
}

void rig_lead_committed(struct rig *rig, uint32_t voters) {
    rig_start(rig, 1, voters, 1, NULL, 0);
    rig_lead(rig, voters);
    rig_sync(rig);
    for (uint64_t id = 2; id <= voters; id++) {
        CHECK(rig_acknowledge(rig, id, 1) == RAFT_OK);
    }
    rig_sync(rig);
    CHECK(rig_state(rig).commit_index == 1);
}

void rig_bring_up(struct rig *rig, uint64_t id) {
    CHECK(rig_acknowledge(rig, id, rig_state(rig).last.index) == RAFT_OK);
    rig_sync(rig);
}
