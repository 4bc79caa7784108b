/* Fuzzing the core's step: whatever messages come, in any order, no assertion trips.
 *
 * The input is a list of events. The host's own events (what is durable, a snapshot that is
 * there, a connection) keep the host's contract in raft.h, as far as it binds; messages are of
 * the right shape and otherwise anything: numbers near the core's own, and some far off, from
 * members and strangers, also such as no sound server would send. What must hold beyond the
 * core's own checks: term and commit index never go back, one vote a term, messages leave only
 * for terms that are durable. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "raft/raft.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(condition)                                                                        \
    do {                                                                                       \
        if (!(condition)) {                                                                    \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                    \
            abort();                                                                           \
        }                                                                                      \
    } while (0)

#define ENTRIES_MAX 8
#define EVENTS_MAX 300

struct world {
    const uint8_t *data;
    size_t size;
    struct raft *raft;
    struct raft_state state;
    uint64_t now_ms;
    uint64_t saved_term;         /* as the disk has it */
    struct raft_actions actions; /* of the last take */
    bool writing;                /* their log part is not persisted yet */
    bool voting;                 /* ... nor is their vote */
    struct raft_position written;
    struct raft_configuration configurations[ENTRIES_MAX];
};

static uint8_t take(struct world *world) {
    if (world->size == 0) {
        return 0;
    }
    world->size--;
    return *world->data++;
}

static uint64_t near(uint64_t number, uint8_t byte) {
    if (byte >= 248) {
        return byte >= 254 ? NUMBER_MAX + 1 - (255 - byte) : byte - 248u;
    }
    uint64_t up = number + byte % 8;
    return up < 4 ? 0 : up - 4;
}

static uint64_t a_term(struct world *world) {
    uint8_t byte = take(world);
    uint64_t term = world->state.term;
    return byte >= 248                 ? near(term, byte)
           : byte % 4 == 3 && term > 0 ? term - 1
                                       : term + byte % 4;
}

static uint64_t an_index(struct world *world) {
    return near(world->state.last.index, take(world));
}

static struct raft_position a_position(struct world *world) {
    uint64_t index = an_index(world);
    uint64_t term = raft_term_at(world->raft, index);
    uint8_t byte = take(world);
    if ((term == 0 && index > 0) || byte >= 224) {
        term = near(world->state.term, byte);
    }
    return (struct raft_position){term, index};
}

static void a_configuration(struct world *world, struct raft_configuration *configuration) {
    uint8_t shape = take(world);
    *configuration =
        (struct raft_configuration){.count = 1 + (shape & 3), .joint = (shape & 4) != 0};
    for (uint32_t i = 0; i < configuration->count; i++) {
        configuration->members[i].id = shape == 255 ? 1 : i + 1;
        configuration->members[i].voter = (shape >> (3 + i) & 1) == 0;
        configuration->members[i].voter_before = configuration->joint && (shape & 128) == 0;
    }
}

/* --- steps --- */
static enum raft_result step(struct world *world, struct raft_event *event,
                             struct raft_outcome *outcome) {
    struct raft_state before = world->state;
    event->now_ms = world->now_ms;
    enum raft_result result = raft_step(world->raft, event, outcome);
    raft_peek_state(world->raft, &world->state);
    MUST(result != RAFT_NO_MEMORY);
    MUST(world->state.term >= before.term);
    MUST(world->state.commit_index >= before.commit_index);
    MUST(world->state.term != before.term || before.voted_for == 0 ||
         world->state.voted_for == before.voted_for);
    if (result == RAFT_BAD_MESSAGE) {
        MUST(world->state.term == before.term && world->state.role == before.role);
        MUST(world->state.last.index == before.last.index);
    }
    return result;
}

static void step_quietly(struct world *world, struct raft_event event) {
    struct raft_outcome outcome;
    (void)step(world, &event, &outcome);
}

static void receive(struct world *world, struct raft_message *message) {
    message->from = take(world) % 6;
    message->to = world->state.id;
    step_quietly(world, (struct raft_event){.kind = RAFT_EVENT_RECEIVE, .message = message});
}

static void receive_append(struct world *world) {
    struct raft_entry entries[ENTRIES_MAX];
    struct raft_message message = {.kind = RAFT_APPEND, .entries = entries};
    message.term = a_term(world);
    message.previous = a_position(world);
    message.commit = an_index(world);
    message.round = take(world);
    message.count = take(world) % ENTRIES_MAX;
    uint64_t term = message.previous.term;
    for (uint32_t i = 0; i < message.count; i++) {
        uint8_t byte = take(world);
        term = byte >= 128 || term == 0 ? message.term : term;
        entries[i] = (struct raft_entry){.term = byte == 127 ? near(term, take(world)) : term,
                                         .kind = (enum raft_entry_kind)(byte % 3)};
        if (entries[i].kind == RAFT_ENTRY_CONFIGURATION) {
            a_configuration(world, &world->configurations[i]);
            entries[i].configuration = &world->configurations[i];
        }
    }
    receive(world, &message);
}

static void receive_other(struct world *world, enum raft_message_kind kind) {
    uint8_t flags = take(world);
    struct raft_message message = {.kind = kind,
                                   .pre = (flags & 1) != 0,
                                   .granted = (flags & 2) != 0,
                                   .transfer = (flags & 4) != 0,
                                   .rejected = (flags & 8) != 0};
    message.term = a_term(world);
    message.last = a_position(world);
    message.previous = a_position(world);
    message.hint = a_position(world);
    message.commit = an_index(world);
    message.match = an_index(world);
    message.round = take(world) % 16;
    receive(world, &message);
}

/* --- the host's part --- */
static void take_actions(struct world *world) {
    if (world->writing || world->voting) {
        return; /* one write at a time, as the host does */
    }
    bool any = raft_has_actions(world->raft);
    raft_take_actions(world->raft, &world->actions);
    raft_peek_state(world->raft, &world->state);
    const struct raft_actions *actions = &world->actions;
    MUST(any || (actions->message_count == 0 && !actions->save_vote &&
                 actions->truncate_from == 0 && actions->append_first > actions->append_last));
    for (uint32_t i = 0; i < actions->message_count; i++) {
        const struct raft_message *message = &actions->messages[i];
        MUST(message->to != world->state.id && message->from == world->state.id);
        bool asks_ahead = message->kind == RAFT_VOTE && message->pre;
        MUST(asks_ahead || world->saved_term == world->state.term);
        MUST(message->kind != RAFT_APPEND || message->end <= world->state.last.index);
    }
    world->voting = actions->save_vote;
    world->writing = actions->append_first <= actions->append_last || actions->truncate_from;
    uint64_t last = actions->append_last;
    world->written = (struct raft_position){raft_term_at(world->raft, last), last};
}

static void persist_vote(struct world *world) {
    if (world->voting) {
        world->voting = false;
        world->saved_term = world->actions.term;
        step_quietly(world, (struct raft_event){.kind = RAFT_EVENT_VOTE_PERSISTED,
                                                .term = world->actions.term,
                                                .voted_for = world->actions.voted_for});
    }
}

static void persist_log(struct world *world) {
    if (world->writing && !world->voting) {
        world->writing = false;
        step_quietly(world, (struct raft_event){.kind = RAFT_EVENT_LOG_PERSISTED,
                                                .generation = world->actions.generation,
                                                .position = world->written});
    }
}

static void send_all(struct world *world) {
    const struct raft_actions *actions = &world->actions;
    for (uint32_t i = 0; i < actions->message_count; i++) {
        const struct raft_message *message = &actions->messages[i];
        if (message->kind == RAFT_APPEND && message->first <= message->end) {
            step_quietly(world, (struct raft_event){.kind = RAFT_EVENT_SENT,
                                                    .id = message->to,
                                                    .index = message->end});
        }
    }
}

static void compact(struct world *world) {
    uint64_t index = world->state.commit_index;
    step_quietly(world,
                 (struct raft_event){.kind = RAFT_EVENT_COMPACTED,
                                     .position = {raft_term_at(world->raft, index), index}});
}

static void install(struct world *world) {
    struct raft_configuration configuration;
    a_configuration(world, &configuration);
    struct raft_event event = {.kind = RAFT_EVENT_INSTALLED,
                               .position = a_position(world),
                               .configuration = &configuration,
                               .configuration_index = take(world) % 4};
    struct raft_outcome outcome;
    if (!world->writing && !world->voting) {
        (void)step(world, &event, &outcome);
    }
}

static void do_plain(struct world *world, enum raft_event_kind kind) {
    step_quietly(world, (struct raft_event){.kind = kind,
                                            .count = take(world),
                                            .id = take(world) % 6,
                                            .index = an_index(world),
                                            .incarnation = take(world) % 3});
}

static void do_one(struct world *world) {
    static const enum raft_message_kind MESSAGES[] = {
        RAFT_VOTE,         RAFT_VOTE_REPLY, RAFT_VOTE_REPLY,     RAFT_APPEND_REPLY,
        RAFT_APPEND_REPLY, RAFT_SNAPSHOT,   RAFT_SNAPSHOT_REPLY, RAFT_TIMEOUT_NOW};
    static const enum raft_event_kind EVENTS[] = {
        RAFT_EVENT_BOOTSTRAP, RAFT_EVENT_PROPOSE,      RAFT_EVENT_ADD,
        RAFT_EVENT_REMOVE,    RAFT_EVENT_READ,         RAFT_EVENT_TRANSFER,
        RAFT_EVENT_CONNECTED, RAFT_EVENT_DISCONNECTED, RAFT_EVENT_SNAPSHOT_FAILED,
        RAFT_EVENT_STEP_DOWN};
    uint8_t kind = take(world) % 36;
    if (kind < 6) {
        receive_append(world);
    } else if (kind < 14) {
        receive_other(world, MESSAGES[kind - 6]);
    } else if (kind < 24) {
        do_plain(world, EVENTS[kind - 14]);
    } else if (kind < 27) {
        take_actions(world);
    } else if (kind < 29) {
        persist_vote(world);
    } else if (kind < 31) {
        persist_log(world);
    } else if (kind == 31) {
        send_all(world);
    } else if (kind == 32) {
        compact(world);
    } else if (kind == 33) {
        install(world);
    } else if (kind == 34) {
        do_plain(world, RAFT_EVENT_ROOM);
    } else {
        world->now_ms += take(world) * 4u;
        step_quietly(world, (struct raft_event){.kind = RAFT_EVENT_TICK});
        if (world->state.id == 0 && kind == 35) { /* its leader told it */
            raft_set_id(world->raft, 1);
            raft_peek_state(world->raft, &world->state);
        }
    }
}

/* What it says of its log is of one mind. */
static void look(const struct world *world) {
    const struct raft_configuration *configuration;
    const struct raft *raft = world->raft;
    uint64_t at;
    for (uint64_t back = 0; back < 8 && back < world->state.last.index; back++) {
        uint64_t index = world->state.last.index - back;
        if (index > world->state.snapshot.index) {
            bool kept = raft_kind_at(raft, index, &configuration) == RAFT_ENTRY_CONFIGURATION;
            MUST(kept == (configuration != NULL));
            MUST(raft_term_at(raft, index) > 0);
            MUST(raft_configuration_at(raft, index, &at) != NULL && at <= index);
            MUST(!kept || (at == index && raft_configuration_at(raft, index, &at) ==
                                              configuration));
        }
    }
    (void)raft_deadline_ms(raft);
}

/* A member of three or the only one, with a short log, a fresh server, or one whose log was
 * damaged. */
static void start(struct world *world) {
    uint8_t shape = take(world);
    static const struct raft_entry ENTRIES[] = {{.term = 1, .kind = RAFT_ENTRY_NOOP},
                                                {.term = 1, .kind = RAFT_ENTRY_COMMAND},
                                                {.term = 3, .kind = RAFT_ENTRY_NOOP}};
    struct raft_options options = {.id = 1,
                                   .seed = shape,
                                   .now_ms = 1000,
                                   .min_election_timeout_ms = 100,
                                   .max_election_timeout_ms = 200,
                                   .commit_notice_ms = (shape & 8) != 0 ? 2 : 0};
    if ((shape & 3) != 0) {
        options.term = 3;
        options.entries = ENTRIES;
        options.entry_count = 3;
        options.quarantined = (shape & 3) == 2;
        options.configuration.count = (shape & 16) != 0 ? 1 : 3;
        for (uint32_t i = 0; i < options.configuration.count; i++) {
            options.configuration.members[i] = (struct raft_member){.id = i + 1, .voter = true};
        }
    } else if (shape & 4) {
        options.id = 0;
    }
    world->saved_term = options.term;
    world->now_ms = 1000;
    world->raft = raft_new(&options);
    MUST(world->raft != NULL);
    raft_peek_state(world->raft, &world->state);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct world world;
    world = (struct world){.data = data, .size = size};
    start(&world);
    for (int i = 0; i < EVENTS_MAX && world.size > 0; i++) {
        do_one(&world);
    }
    look(&world);
    raft_free(world.raft);
    MUST(memory_live_count() == 0);
    return 0;
}
