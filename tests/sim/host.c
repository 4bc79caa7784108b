/* What a server does around the core: turns, log lines, the disk, the state machine; see sim.h.
 */
#include <stdlib.h>
#include <string.h>

#include "sim.h"

#define TAKES_MAX 200u

uint64_t host_now_ms(const struct world *world, const struct node *node) {
    return world->now_us * node->rate_ppm / 1000000000u;
}

static uint64_t true_us(const struct node *node, uint64_t local_ms) {
    return (local_ms * 1000000000u + node->rate_ppm - 1) / node->rate_ppm;
}

uint64_t host_mix(uint64_t state, const struct line *line) {
    uint64_t mixed = (state ^ line->value ^ ((uint64_t)line->kind << 60)) * 0x9e3779b97f4a7c15u;
    return mixed ^ (mixed >> 29);
}

void host_wake(struct world *world, struct node *node, uint64_t at_us) {
    at_us = at_us < world->now_us ? world->now_us : at_us;
    if (at_us < node->turn_us) {
        node->turn_us = at_us;
        world_plan(world, &(struct happening){.at_us = at_us,
                                              .kind = HAPPEN_TURN,
                                              .a = (uint32_t)node->id - 1});
    }
}

void host_input(struct world *world, struct node *node, struct input *input) {
    input->next = NULL;
    if (node->inputs_last != NULL) {
        node->inputs_last->next = input;
    } else {
        node->inputs = input;
    }
    node->inputs_last = input;
    host_wake(world, node,
              world->now_us + world_between(world, 0, world->rates.turn_delay_us_max));
}

/* --- the log's lines --------------------------------------------------------------------- */
static void add_line(struct world *world, struct node *node, const struct line *line) {
    lines_append(&node->lines, line);
    checker_line(world, node, lines_last(&node->lines));
}

/* Lines for what the core appended by itself: a NOOP, a configuration. */
static void follow_core(struct world *world, struct node *node) {
    while (lines_last(&node->lines) < node->state.last.index) {
        uint64_t index = lines_last(&node->lines) + 1;
        const struct raft_configuration *configuration = NULL;
        struct line line = {.term = raft_term_at(node->raft, index)};
        line.kind = raft_kind_at(node->raft, index, &configuration);
        if (line.kind == RAFT_ENTRY_COMMAND) {
            line.value = world->next_value++;
        } else if (line.kind == RAFT_ENTRY_CONFIGURATION) {
            line.configuration = world_intern(world, configuration);
        }
        add_line(world, node, &line);
    }
}

static void follow_outcome(struct world *world, struct node *node, const struct input *input,
                           const struct raft_outcome *outcome) {
    if (outcome->truncated_from > 0) {
        lines_truncate(&node->lines, outcome->truncated_from);
    }
    if (input != NULL && input->parcel != NULL) {
        const struct parcel *parcel = input->parcel;
        for (uint64_t index = outcome->first; index <= outcome->last; index++) {
            add_line(world, node, &parcel->lines[index - parcel->message.previous.index - 1]);
        }
    }
    follow_core(world, node);
}

enum raft_result host_step(struct world *world, struct node *node,
                           const struct raft_event *event, const struct input *input,
                           struct raft_outcome *outcome) {
    struct raft_event timed = *event;
    timed.now_ms = host_now_ms(world, node);
    enum raft_result result = raft_step(node->raft, &timed, outcome);
    raft_peek_state(node->raft, &node->state);
    if (outcome->log_reset) {
        lines_reset(&node->lines, node->state.snapshot.index + 1);
    }
    follow_outcome(world, node, input, outcome);
    world_mix(world, world->now_us ^ ((uint64_t)event->kind << 48) ^ (node->id << 56));
    world_mix(world, node->state.last.index ^ (node->state.term << 32) ^
                         ((uint64_t)node->state.role << 60));
    checker_stepped(world, node, result, outcome);
    return result;
}

/* --- the disk ---------------------------------------------------------------------------- */
static void plan_disk(struct world *world, struct node *node) {
    world_plan(world, &(struct happening){.at_us = node->writes->done_us,
                                          .kind = HAPPEN_DISK,
                                          .a = (uint32_t)node->id - 1,
                                          .incarnation = node->incarnation});
}

void host_write(struct world *world, struct node *node, const struct write *write) {
    struct write *copy = malloc(sizeof(*copy));
    ASSERT(copy != NULL);
    *copy = *write;
    uint64_t delay_us = world_between(world, 20, 20 + world->rates.disk_us_max);
    if (world_chance(world, world->rates.disk_slow)) {
        delay_us *= 20;
    }
    uint64_t begin_us = world->now_us;
    if (node->writes_last != NULL) {
        begin_us = node->writes_last->done_us;
        node->writes_last->next = copy;
    } else {
        node->writes = copy;
    }
    node->writes_last = copy;
    copy->next = NULL;
    copy->done_us = begin_us + delay_us;
    if (node->writes == copy) {
        plan_disk(world, node);
    }
}

static struct write *pop_write(struct node *node) {
    struct write *write = node->writes;
    if (write != NULL) {
        node->writes = write->next;
        if (node->writes == NULL) {
            node->writes_last = NULL;
        }
    }
    return write;
}

static void store_snapshot(struct disk *disk, const struct snapshot *snapshot) {
    if (snapshot->position.index > disk->snapshot.position.index) {
        disk->snapshot = *snapshot;
    }
}

/* Write the first `lines_most` lines of a batch, and everything that comes before them. */
static void store(struct disk *disk, const struct write *write, uint64_t lines_most) {
    if (write->save_vote) {
        disk->term = write->term;
        disk->voted_for = write->voted_for;
    }
    if (write->truncate_from > 0) {
        lines_truncate(&disk->lines, write->truncate_from);
    }
    for (uint64_t i = 0; i < write->lines.count && i < lines_most; i++) {
        ASSERT(lines_last(&disk->lines) + 1 == write->lines.first + i);
        lines_append(&disk->lines, &write->lines.lines[i]);
    }
    switch (write->kind) {
    case WRITE_TURN:
        break;
    case WRITE_OWN:
    case WRITE_RECEIVED:
        store_snapshot(disk, &write->snapshot);
        break;
    case WRITE_RESET:
        lines_reset(&disk->lines, write->snapshot.position.index + 1);
        break;
    }
}

static void notify(struct world *world, struct node *node, const struct write *write,
                   enum raft_event_kind kind) {
    struct input *input = calloc(1, sizeof(*input));
    ASSERT(input != NULL);
    input->event = (struct raft_event){.kind = kind,
                                       .generation = write->generation,
                                       .term = write->term,
                                       .voted_for = write->voted_for};
    input->snapshot = write->snapshot;
    input->event.position = write->snapshot.position;
    if (kind == RAFT_EVENT_LOG_PERSISTED) {
        uint64_t last = lines_last(&write->lines);
        input->event.position =
            (struct raft_position){lines_at(&write->lines, last)->term, last};
    }
    uint64_t late_us =
        world_chance(world, world->rates.late_notice) ? world_between(world, 0, 100000) : 0;
    world_plan(world, &(struct happening){.at_us = world->now_us + late_us,
                                          .kind = HAPPEN_NOTIFY,
                                          .a = (uint32_t)node->id - 1,
                                          .incarnation = node->incarnation,
                                          .input = input});
}

void host_disk_done(struct world *world, struct node *node) {
    struct write *write = pop_write(node);
    store(&node->disk, write, UINT64_MAX);
    if (write->save_vote) {
        notify(world, node, write, RAFT_EVENT_VOTE_PERSISTED);
    }
    if (write->lines.count > 0) {
        notify(world, node, write, RAFT_EVENT_LOG_PERSISTED);
    }
    if (write->kind == WRITE_OWN || write->kind == WRITE_RECEIVED) {
        notify(world, node, write,
               write->kind == WRITE_OWN ? RAFT_EVENT_COMPACTED : RAFT_EVENT_INSTALLED);
    }
    lines_free(&write->lines);
    free(write);
    if (node->writes != NULL) {
        if (world->calm) {
            node->writes->done_us = world->now_us + 200; /* works off what has piled up */
        }
        plan_disk(world, node);
    }
}

/* --- start and crash --------------------------------------------------------------------- */
/* A log that does not continue the snapshot is dropped: the crash came before its reset. */
static void recover_lines(struct node *node) {
    struct disk *disk = &node->disk;
    uint64_t index = disk->snapshot.position.index;
    const struct line *line = lines_at(&disk->lines, index);
    bool goes_on = disk->lines.first == index + 1 ||
                   (line != NULL && line->term == disk->snapshot.position.term);
    if (goes_on) {
        lines_drop_before(&disk->lines, index + 1);
    } else {
        lines_reset(&disk->lines, index + 1);
    }
    lines_reset(&node->lines, disk->lines.first);
    for (uint64_t i = 0; i < disk->lines.count; i++) {
        lines_append(&node->lines, &disk->lines.lines[i]);
    }
}

/* A founder whose disk is still empty after a crash founds its cluster again. */
static void bootstrap(struct world *world, struct node *node) {
    struct raft_outcome outcome;
    (void)host_step(world, node,
                    &(struct raft_event){.kind = RAFT_EVENT_BOOTSTRAP, .id = node->id}, NULL,
                    &outcome);
    node->knows_id = true;
}

void host_start(struct world *world, struct node *node) {
    recover_lines(node);
    const struct snapshot *snapshot = &node->disk.snapshot;
    uint64_t count = node->lines.count;
    struct raft_entry *entries = calloc(count + 1, sizeof(*entries));
    ASSERT(entries != NULL);
    for (uint64_t i = 0; i < count; i++) {
        const struct line *line = &node->lines.lines[i];
        entries[i] =
            (struct raft_entry){.term = line->term,
                                .kind = line->kind,
                                .configuration = &world->configurations[line->configuration]};
    }
    bool fresh = count == 0 && snapshot->position.index == 0;
    node->knows_id = !fresh || world_chance(world, 500000);
    struct raft_options options = {.id = node->knows_id ? node->id : 0,
                                   .seed = world_between(world, 1, UINT64_MAX - 1),
                                   .now_ms = host_now_ms(world, node),
                                   .min_election_timeout_ms = world->min_timeout_ms,
                                   .max_election_timeout_ms = world->max_timeout_ms,
                                   .commit_notice_ms = world->commit_notice_ms,
                                   .term = node->disk.term,
                                   .voted_for = node->disk.voted_for,
                                   .snapshot = snapshot->position,
                                   .configuration =
                                       world->configurations[snapshot->configuration],
                                   .configuration_index = snapshot->configuration_index,
                                   .entry_count = count,
                                   .entries = entries,
                                   .quarantined = node->damaged};
    node->raft = raft_new(&options);
    ASSERT(node->raft != NULL);
    free(entries);
    node->up = true;
    node->incarnation += 1;
    node->applied = snapshot->position.index;
    node->applied_state = snapshot->state;
    node->turn_us = UINT64_MAX;
    node->paused_until_us = 0;
    raft_peek_state(node->raft, &node->state);
    world_trace(world, "%llu starts: term %llu, log %llu..%llu%s", (unsigned long long)node->id,
                (unsigned long long)node->state.term, (unsigned long long)node->lines.first,
                (unsigned long long)node->state.last.index, node->damaged ? ", damaged" : "");
    checker_started(world, node);
    for (uint32_t i = 0; i < world->node_count; i++) {
        if (&world->nodes[i] != node) {
            network_connect_later(world, node, &world->nodes[i]);
        }
    }
    if (world->founder == node->id && fresh) {
        bootstrap(world, node);
    }
    host_wake(world, node, world->now_us);
}

/* Of what was not PERSISTED any prefix may have reached the disk. */
static void lose_writes(struct world *world, struct node *node) {
    bool reaching = true;
    for (struct write *write = pop_write(node); write != NULL; write = pop_write(node)) {
        if (reaching && world_chance(world, 400000)) {
            store(&node->disk, write, UINT64_MAX);
        } else if (reaching && write->kind == WRITE_TURN && world_chance(world, 400000)) {
            store(&node->disk, write, world_between(world, 0, write->lines.count));
            reaching = false;
        } else {
            reaching = false;
        }
        lines_free(&write->lines);
        free(write);
    }
}

void host_crash(struct world *world, struct node *node) {
    world_trace(world, "%llu crashes", (unsigned long long)node->id);
    lose_writes(world, node);
    while (node->inputs != NULL) {
        struct input *input = node->inputs;
        node->inputs = input->next;
        parcel_free(input->parcel);
        free(input);
    }
    node->inputs_last = NULL;
    raft_free(node->raft);
    node->raft = NULL;
    node->up = false;
    node->damaged = node->damaged && node->state.quarantined;
    node->read_count = 0;
    memset(node->sending, 0, sizeof(node->sending));
    node->incoming_from = 0;
    node->state.role = RAFT_FOLLOWER;
    network_break_all(world, node);
}

/* --- a turn ------------------------------------------------------------------------------ */
static void note_sent(struct world *world, struct node *node, uint64_t to, uint64_t index) {
    struct raft_outcome outcome;
    (void)host_step(world, node,
                    &(struct raft_event){.kind = RAFT_EVENT_SENT, .id = to, .index = index},
                    NULL, &outcome);
}

static void carry_append(struct world *world, struct node *node,
                         const struct raft_message *message) {
    uint64_t count = message->end >= message->first ? message->end - message->first + 1 : 0;
    if (count > 0 && world_chance(world, world->rates.silent)) {
        return;
    }
    if (count > 0 && world_chance(world, world->rates.full)) {
        note_sent(world, node, message->to, message->first - 1);
        return;
    }
    if (count > world->rates.entries_max) {
        count = world->rates.entries_max;
    }
    struct parcel *parcel = calloc(1, sizeof(*parcel));
    ASSERT(parcel != NULL);
    parcel->message = *message;
    parcel->message.first = parcel->message.end = 0;
    parcel->message.count = parcel->count = (uint32_t)count;
    if (count > 0) {
        parcel->entries = calloc(count, sizeof(*parcel->entries));
        parcel->lines = calloc(count, sizeof(*parcel->lines));
        ASSERT(parcel->entries != NULL && parcel->lines != NULL);
        for (uint64_t i = 0; i < count; i++) {
            parcel->lines[i] = *lines_at(&node->lines, message->first + i);
        }
    }
    network_send(world, node, parcel);
    if (count > 0) {
        note_sent(world, node, message->to, message->first + count - 1);
    }
}

static void carry_message(struct world *world, struct node *node,
                          const struct raft_message *message) {
    switch (message->kind) {
    case RAFT_APPEND:
        carry_append(world, node, message);
        return;
    case RAFT_SNAPSHOT:
        snapshot_begin_sending(world, node, message->to);
        return;
    case RAFT_VOTE:
    case RAFT_VOTE_REPLY:
    case RAFT_APPEND_REPLY:
    case RAFT_SNAPSHOT_REPLY:
    case RAFT_TIMEOUT_NOW: {
        struct parcel *parcel = calloc(1, sizeof(*parcel));
        ASSERT(parcel != NULL);
        parcel->message = *message;
        network_send(world, node, parcel);
        return;
    }
    }
}

static void apply(struct world *world, struct node *node, uint64_t commit_index) {
    while (node->applied < commit_index) {
        node->applied += 1;
        node->applied_state =
            host_mix(node->applied_state, lines_at(&node->lines, node->applied));
        checker_applied(world, node);
    }
}

static void answer_reads(struct world *world, struct node *node, uint64_t confirmed) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < node->read_count; i++) {
        struct read read = node->reads[i];
        if (node->state.role != RAFT_LEADER || node->state.term != read.term) {
            continue;
        }
        if (confirmed >= read.round && node->applied >= read.index) {
            checker_read(world, node, &read);
        } else {
            node->reads[kept++] = read;
        }
    }
    node->read_count = kept;
}

void host_read(struct world *world, struct node *node) {
    struct raft_outcome outcome;
    struct read read = {.floor = checker_committed(world)};
    enum raft_result result =
        host_step(world, node, &(struct raft_event){.kind = RAFT_EVENT_READ}, NULL, &outcome);
    if (result == RAFT_OK && node->read_count < READS_MAX) {
        read.term = node->state.term;
        read.round = outcome.round;
        read.index = outcome.index;
        node->reads[node->read_count++] = read;
    }
}

/* A member asks its leader, as the node does for its clients' queries. */
void host_ask_read(struct world *world, struct node *node) {
    uint64_t leader = node->state.leader;
    if (leader == 0 || leader == node->id || leader > world->node_count) {
        return;
    }
    struct parcel *parcel = calloc(1, sizeof(*parcel));
    ASSERT(parcel != NULL);
    parcel->word = WORD_READ;
    parcel->floor = checker_committed(world);
    parcel->message = (struct raft_message){
        .kind = RAFT_APPEND_REPLY, .from = node->id, .to = leader, .term = node->state.term};
    network_send(world, node, parcel);
}

static void read_asked(struct world *world, struct node *node, const struct parcel *parcel) {
    struct raft_outcome outcome;
    struct raft_event event = {.kind = RAFT_EVENT_READ, .id = parcel->message.from};
    if (node->state.role != RAFT_LEADER || parcel->message.term != node->state.term ||
        host_step(world, node, &event, NULL, &outcome) != RAFT_OK) {
        return;
    }
    struct read read = {.term = node->state.term,
                        .round = outcome.round,
                        .index = outcome.index,
                        .floor = parcel->floor};
    if (read.round == 0) {
        checker_proven(world, node, &read);
    } else if (node->read_count < READS_MAX) {
        node->reads[node->read_count++] = read;
    }
}

static void take_word(struct world *world, struct node *node, const struct parcel *parcel) {
    if (parcel->word == WORD_READ) {
        read_asked(world, node, parcel);
    } else {
        snapshot_wanted(world, node, parcel);
    }
}

static void take(struct world *world, struct node *node) {
    struct raft_actions actions;
    raft_take_actions(node->raft, &actions);
    struct write write = {.kind = WRITE_TURN,
                          .save_vote = actions.save_vote,
                          .term = actions.term,
                          .voted_for = actions.voted_for,
                          .truncate_from = actions.truncate_from,
                          .lines.first = actions.append_first,
                          .generation = actions.generation};
    for (uint64_t i = actions.append_first; i <= actions.append_last; i++) {
        lines_append(&write.lines, lines_at(&node->lines, i));
    }
    if (write.save_vote || write.truncate_from > 0 || write.lines.count > 0) {
        host_write(world, node, &write);
    }
    apply(world, node, actions.commit_index);
    answer_reads(world, node, actions.reads_confirmed);
    for (uint32_t i = 0; i < actions.message_count; i++) {
        carry_message(world, node, &actions.messages[i]);
    }
}

static void handle(struct world *world, struct node *node, struct input *input) {
    struct raft_outcome outcome;
    struct parcel *parcel = input->parcel;
    if (parcel != NULL && parcel->word != WORD_NONE) {
        take_word(world, node, parcel);
        return;
    }
    if (parcel != NULL) {
        for (uint32_t i = 0; i < parcel->count; i++) {
            parcel->entries[i] = (struct raft_entry){
                .term = parcel->lines[i].term,
                .kind = parcel->lines[i].kind,
                .configuration = &world->configurations[parcel->lines[i].configuration]};
        }
        parcel->message.entries = parcel->entries;
        input->event.message = &parcel->message;
        if (!node->knows_id) {
            node->knows_id = true;
            raft_set_id(node->raft, node->id);
        }
    }
    if (input->event.kind == RAFT_EVENT_INSTALLED) {
        input->event.configuration = &world->configurations[input->snapshot.configuration];
        input->event.configuration_index = input->snapshot.configuration_index;
    }
    enum raft_result result = host_step(world, node, &input->event, input, &outcome);
    if (input->event.kind == RAFT_EVENT_INSTALLED ||
        input->event.kind == RAFT_EVENT_COMPACTED) {
        snapshot_outcome(world, node, input, &outcome, result);
    }
    if (parcel != NULL && parcel->message.kind == RAFT_SNAPSHOT) {
        snapshot_piece(world, node, parcel, outcome.wanted);
    }
}

void host_turn(struct world *world, struct node *node) {
    if (node->paused_until_us > world->now_us) {
        return;
    }
    struct raft_outcome outcome;
    (void)host_step(world, node, &(struct raft_event){.kind = RAFT_EVENT_TICK}, NULL, &outcome);
    while (node->inputs != NULL && !world->failed) {
        struct input *input = node->inputs;
        node->inputs = input->next;
        if (node->inputs == NULL) {
            node->inputs_last = NULL;
        }
        handle(world, node, input);
        parcel_free(input->parcel);
        free(input);
    }
    snapshot_tick(world, node);
    uint32_t takes = 0;
    for (; takes < TAKES_MAX && raft_has_actions(node->raft) && !world->failed; takes++) {
        take(world, node);
    }
    if (takes == TAKES_MAX && world->rates.entries_max > 30) {
        world_fail(world, "node %llu: actions without end", (unsigned long long)node->id);
    }
    if (raft_has_actions(node->raft)) {
        host_wake(world, node, world->now_us + 500);
    }
    uint64_t deadline_ms = raft_deadline_ms(node->raft);
    host_wake(world, node, true_us(node, deadline_ms));
}
