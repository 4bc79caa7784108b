/* The way to the machine and back: committed entries and released queries into batches, in
 * order; results to those who wait.
 *
 * Invariant: entries are handed out in index order, each once; a tag takes effect
 * once; a query's item stands behind every entry that it must see. */
#include <stdarg.h>
#include <stdio.h>

#include "base/assert.h"
#include "base/memory.h"
#include "node/internal.h"
#include "wire/line.h"
#include "wire/scan.h"

#define COMMAND_TOKEN (1ULL << 63) /* with a sequence number; without: a query's slot + 1 */
#define NO_SLOT UINT32_MAX

static struct apply_batch *filling(struct node *node) {
    struct applies *applies = &node->applies;
    if (applies->filling == NULL) {
        applies->filling = applies->spare != NULL ? applies->spare : apply_batch_new();
        applies->spare = NULL;
    }
    return applies->filling;
}

/* Local queries do not count, or many of them would keep commands out. */
bool apply_has_room(const struct node *node) {
    const struct applies *applies = &node->applies;
    const struct apply_batch *batch = applies->filling;
    if (batch == NULL) {
        return true;
    }
    uint64_t count = batch->count - applies->local_count;
    return count < APPLY_BATCH_ITEMS_MAX &&
           batch->input.size - applies->local_bytes < APPLY_BATCH_BYTES_MAX &&
           count * applies->output_bytes < APPLY_OUTPUT_BYTES_MAX;
}

static struct apply_item *add_item(struct node *node, enum apply_kind kind, struct span input) {
    struct apply_item *item = apply_batch_add(filling(node), kind, input);
    if (item == filling(node)->items) {
        node->applies.gather_until_ms = node->now_ms + APPLY_GATHER_MS;
    }
    node->applies.urgent = node->applies.urgent || kind != APPLY_COMMAND;
    item->index = node->applies.handed;
    item->term = raft_term_at(node->raft, node->applies.handed);
    item->time_ms = node->applies.handed_time_ms;
    return item;
}

void apply_clear(struct node *node) {
    struct applies *applies = &node->applies;
    for (uint32_t i = 0; i < applies->slot_count; i++) {
        if (applies->slots[i].used) {
            caller_drop(&applies->slots[i].caller);
        }
    }
    memory_free(applies->slots);
    apply_batch_free(applies->filling);
    apply_batch_free(applies->spare);
    while (applies->ready != NULL) {
        struct apply_batch *next = applies->ready->next;
        apply_batch_free(applies->ready);
        applies->ready = next;
    }
    sessions_clear(&applies->sessions);
    *applies = (struct applies){.slot_free = NO_SLOT};
}

/* --- queries --- */
static uint32_t take_slot(struct applies *applies) {
    if (applies->slot_free == NO_SLOT) {
        uint32_t before = applies->slot_count;
        uint32_t count = before == 0 ? 64 : before * 2;
        struct query_slot *slots = memory_must_alloc_zero(count * sizeof(*slots));
        for (uint32_t i = 0; i < before; i++) {
            slots[i] = applies->slots[i];
            caller_move(&slots[i].caller, &applies->slots[i].caller);
        }
        for (uint32_t i = count; i > before; i--) {
            slots[i - 1].next_free = applies->slot_free;
            applies->slot_free = i - 1;
        }
        memory_free(applies->slots);
        applies->slots = slots;
        applies->slot_count = count;
    }
    uint32_t slot = applies->slot_free;
    applies->slot_free = applies->slots[slot].next_free;
    applies->slots_used++;
    return slot;
}

void apply_query(struct node *node, enum apply_kind kind, struct caller *caller,
                 struct span input, uint64_t deadline_ms) {
    struct applies *applies = &node->applies;
    uint32_t slot = take_slot(applies);
    struct query_slot *place = &applies->slots[slot];
    place->used = true;
    place->deadline_ms = deadline_ms;
    caller_move(&place->caller, caller);
    struct apply_item *item = add_item(node, kind, input);
    item->wants_output = true;
    item->token = slot + 1;
    if (kind == APPLY_LOCAL_QUERY) {
        applies->local_count++;
        applies->local_bytes += input.size;
    }
}

void apply_expire(struct node *node) {
    struct applies *applies = &node->applies;
    for (uint32_t i = 0; i < applies->slot_count; i++) {
        struct query_slot *slot = &applies->slots[i];
        if (slot->used && node->now_ms >= slot->deadline_ms) {
            caller_refuse(node, &slot->caller, RPC_OVERLOADED, "not_applied",
                          "the machine did not answer in time");
        }
    }
}

void apply_fail_all(struct node *node, enum rpc_code code, const char *reason) {
    for (uint32_t i = 0; i < node->applies.slot_count; i++) {
        struct query_slot *slot = &node->applies.slots[i];
        if (slot->used) {
            caller_refuse(node, &slot->caller, code, "not_applied", reason);
        }
    }
}

/* --- commands --- */
static struct entry_tag *find_tag(struct applies *applies, uint64_t server) {
    for (uint32_t i = 0; i < applies->tag_count; i++) {
        if (applies->tags[i].node == server) {
            return &applies->tags[i];
        }
    }
    return NULL;
}

/* Whether a tag takes effect here and now; a function of the log alone, so the same everywhere.
 */
static bool tag_accepts(struct node *node, const struct entry *entry) {
    struct applies *applies = &node->applies;
    const struct cluster *cluster = members_at(node, entry->index);
    struct entry_tag *last = find_tag(applies, entry->tag.node);
    if (cluster == NULL || raft_configuration_find(&cluster->raft, entry->tag.node) == NULL) {
        return false; /* of a server that was removed: its tags are forgotten */
    }
    if (last == NULL) {
        ASSERT(applies->tag_count < TAGS_MAX);
        applies->tags[applies->tag_count++] = entry->tag;
        return true;
    }
    bool later =
        entry->tag.incarnation > last->incarnation ||
        (entry->tag.incarnation == last->incarnation && entry->tag.sequence > last->sequence);
    if (later) {
        *last = entry->tag;
    }
    return later;
}

/* A configuration takes effect for the tags too: those of removed servers go. */
static void prune_tags(struct node *node, uint64_t index) {
    struct applies *applies = &node->applies;
    const struct cluster *cluster = members_at(node, index);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < applies->tag_count; i++) {
        if (cluster != NULL &&
            raft_configuration_find(&cluster->raft, applies->tags[i].node) != NULL) {
            applies->tags[kept++] = applies->tags[i];
        }
    }
    applies->tag_count = kept;
}

void apply_load_tags(struct node *node, const struct snapshot_header *header) {
    struct applies *applies = &node->applies;
    memcpy(applies->tags, header->tags, header->tag_count * sizeof(struct entry_tag));
    applies->tag_count = header->tag_count;
}

static bool is_ours(const struct node *node, const struct entry_tag *tag) {
    return tag->node == node->meta.node_id && tag->incarnation == node->meta.incarnation;
}

/* Whether a command goes to the machine, by its client's session; if not, its caller is
 * answered, or waits for what the first one of this number gave. */
static bool session_applies(struct node *node, const struct entry *entry,
                            struct pending *pending) {
    uint64_t last_seq = 0;
    uint64_t waiter = pending != NULL ? entry->tag.sequence : 0;
    enum session_verdict verdict =
        sessions_offer(&node->applies.sessions, entry, waiter, &last_seq);
    if (verdict == SESSION_APPLY || verdict == SESSION_REPEAT) {
        return verdict == SESSION_APPLY;
    }
    if (pending != NULL) {
        caller_refuse_session(node, &pending->caller, verdict, last_seq);
        pending_forget(node, entry->tag.sequence);
    }
    return false;
}

static void hand_command(struct node *node, const struct entry *entry) {
    uint64_t sequence = entry->tag.sequence;
    struct pending *pending = is_ours(node, &entry->tag) ? pending_peek(node, sequence) : NULL;
    if (!tag_accepts(node, entry)) {
        if (pending != NULL && !pending->handed) {
            pending_again(node, sequence); /* overtaken by a later tag: certainly not applied */
        }
        return;
    }
    if (pending != NULL) {
        pending->handed = true;
        node->applies.urgent = node->applies.urgent || pending->caller.id != NULL;
    }
    if (entry->session.size > 0 && !session_applies(node, entry, pending)) {
        return;
    }
    struct apply_item *item = add_item(node, APPLY_COMMAND, entry->body);
    item->index = entry->index;
    item->term = entry->term;
    item->time_ms = entry->time_ms;
    item->wants_output = entry->session.size > 0; /* for the repeats that may come */
    if (pending != NULL) {
        item->wants_output = item->wants_output || pending->caller.id != NULL;
        item->token = COMMAND_TOKEN | sequence;
    }
}

static void fail_line(struct node *node) {
    node_fail(node, STATUS_CORRUPT, "a log line that was read back is not what was written");
}

static bool hand_line(struct node *node, struct span line) {
    struct applies *applies = &node->applies;
    struct entry entry;
    if (entry_parse(line, &entry) != STATUS_OK || entry.index != applies->handed + 1) {
        fail_line(node);
        return false;
    }
    applies->handed = entry.index;
    applies->handed_time_ms = entry.time_ms;
    if (entry.kind == ENTRY_COMMAND) {
        hand_command(node, &entry);
    } else if (entry.kind == ENTRY_CONFIGURATION) {
        prune_tags(node, entry.index);
    }
    return true;
}

/* The chain's checksum at the last line of a run is all that anybody asks for. */
static void note_chain(struct node *node, struct span last_line) {
    struct span body;
    if (last_line.size > 0 &&
        line_peek_crc(last_line, &body, &node->applies.handed_crc) != STATUS_OK) {
        fail_line(node);
    }
}

static void read_back(struct node *node, uint64_t first) {
    if (node->applies.reading) {
        return;
    }
    struct job *job = job_new(JOB_READ);
    job->first = first;
    job->last = node->entries.first - 1 < node->state.commit_index ? node->entries.first - 1
                                                                   : node->state.commit_index;
    node->applies.reading = true;
    node_push_job(node, job);
}

/* Before a snapshot the machine gets nothing new, until it has answered all it was given. */
static bool may_advance(const struct node *node) {
    return !node->applies.restoring && !node->stopped && !node->snapshots.file_ready;
}

void apply_advance(struct node *node) {
    struct applies *applies = &node->applies;
    struct span last = {NULL, 0};
    while (may_advance(node) && applies->handed < node->state.commit_index &&
           apply_has_room(node)) {
        struct span line = entries_peek(&node->entries, applies->handed + 1);
        if (line.size == 0) {
            read_back(node, applies->handed + 1);
            break;
        }
        if (!hand_line(node, line)) {
            return;
        }
        last = line;
    }
    note_chain(node, last);
}

void apply_read_done(struct node *node, struct job *job) {
    struct applies *applies = &node->applies;
    applies->reading = false;
    if (job->status != STATUS_OK) {
        if (job->status != STATUS_NOT_FOUND) {
            node_fail(node, job->status, job->error.text);
        }
        return;
    }
    struct span rest = buffer_span(&job->data);
    struct span last = {NULL, 0};
    for (uint64_t index = job->first; index <= job->last && rest.size > 0; index++) {
        const char *end = memchr(rest.data, '\n', rest.size);
        size_t bytes = end == NULL ? rest.size : (size_t)(end + 1 - rest.data);
        if (index == applies->handed + 1 && index <= node->state.commit_index &&
            may_advance(node)) {
            last = (struct span){rest.data, bytes};
            if (!hand_line(node, last)) {
                return;
            }
        }
        rest = (struct span){rest.data + bytes, rest.size - bytes};
    }
    note_chain(node, last);
}

/* --- other items --- */
void apply_snapshot_item(struct node *node, struct span head, bool in_process) {
    add_item(node, APPLY_SNAPSHOT, head)->in_process = in_process;
}

void apply_restore(struct node *node, struct cargo *cargo) {
    add_item(node, APPLY_RESTORE, (struct span){NULL, 0})->cargo = cargo;
}

void apply_notice(struct node *node, const char *level, const char *event, const char *format,
                  ...) {
    char text[ERROR_TEXT_BYTES_MAX * 2];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    struct buffer json;
    buffer_init(&json);
    buffer_append_format(&json,
                         "{\"level\":\"%s\",\"event\":\"%s\",\"role\":\"%s\",\"term\":", level,
                         event, node_role_name(node));
    buffer_append_u64(&json, node->state.term);
    buffer_append_text(&json, ",\"text\":");
    scan_append_string(&json, (struct span){text, strlen(text)});
    buffer_append_char(&json, '}');
    if (apply_has_room(node)) {
        apply_batch_add(filling(node), APPLY_NOTICE, buffer_span(&json));
        node->applies.urgent = true;
    }
    buffer_free(&json);
}

/* --- answers of commands --- */
static enum rpc_code outcome_code(enum apply_outcome outcome) {
    switch (outcome) {
    case APPLY_DONE:
        return RPC_OK;
    case APPLY_NO_OUTPUT:
        return RPC_NO_OUTPUT;
    case APPLY_INVALID_INPUT:
        return RPC_INVALID_INPUT;
    case APPLY_INVALID_OUTPUT:
        return RPC_INVALID_OUTPUT;
    case APPLY_RAISED:
        return RPC_MACHINE_ERROR;
    }
    return RPC_INTERNAL_ERROR;
}

static enum rpc_code item_code(const struct apply_item *item) {
    bool silent = item->outcome == APPLY_DONE && item->output_size == 0;
    return silent ? RPC_NO_OUTPUT : outcome_code(item->outcome);
}

static void answer_repeat(struct node *node, const struct session_answer *answer) {
    struct pending *pending = pending_peek(node, answer->waiter);
    if (pending == NULL) {
        return; /* its time was over */
    }
    if (answer->kept) {
        caller_outcome(node, &pending->caller,
                       &(struct outcome){.code = (enum rpc_code)answer->code,
                                         .applied = true,
                                         .index = answer->index,
                                         .text = answer->text});
    } else {
        caller_refuse(node, &pending->caller, RPC_ANSWER_FORGOTTEN, "applied", NULL);
    }
    pending_forget(node, answer->waiter);
}

/* Of commands that came before the answer at `index`, or up to it where it is there already. */
static void answer_repeats(struct node *node, uint64_t index) {
    struct session_answer answer;
    while (sessions_next(&node->applies.sessions, index, &answer)) {
        answer_repeat(node, &answer);
    }
}

static void command_done(struct node *node, const struct apply_batch *batch,
                         const struct apply_item *item) {
    struct sessions *sessions = &node->applies.sessions;
    struct span output = apply_item_output(batch, item);
    enum rpc_code code = item_code(item);
    if (sessions_due(sessions, item->index)) {
        answer_repeats(node, item->index);
        sessions_store(sessions, item->index, (int32_t)code, output);
    }
    uint64_t sequence = item->token & ~COMMAND_TOKEN;
    struct pending *pending = item->token == 0 ? NULL : pending_peek(node, sequence);
    if (pending != NULL) {
        caller_outcome(node, &pending->caller,
                       &(struct outcome){code, true, item->index, output});
        pending_forget(node, sequence);
    }
}

/* --- batches out and back --- */
/* Of a batch for which nobody waits here. Each costs the machine's thread two wake-ups; whoever
 * comes next is behind it in the same batch, so no query sees less for that. */
static bool may_gather(const struct node *node) {
    const struct applies *applies = &node->applies;
    return !applies->urgent && !node->stopping && !node->stopped && apply_has_room(node) &&
           applies->filling->count < APPLY_GATHER_ITEMS_MAX &&
           node->now_ms < applies->gather_until_ms;
}

uint64_t apply_deadline_ms(const struct node *node) {
    const struct applies *applies = &node->applies;
    bool gathers = applies->filling != NULL && applies->filling->count > 0 &&
                   applies->outstanding < APPLY_BATCHES_MAX && may_gather(node);
    return gathers ? applies->gather_until_ms : UINT64_MAX;
}

void apply_hand_over(struct node *node) {
    struct applies *applies = &node->applies;
    if (applies->filling == NULL || applies->filling->count == 0) {
        if (applies->outstanding == 0) {
            applies->applied = applies->handed;
            answer_repeats(node, applies->applied);
        }
        return;
    }
    if (applies->outstanding == APPLY_BATCHES_MAX || may_gather(node)) {
        return;
    }
    struct apply_batch *batch = applies->filling;
    applies->filling = NULL;
    applies->urgent = false;
    applies->local_count = 0;
    applies->local_bytes = 0;
    applies->through[applies->outstanding++] = applies->handed;
    batch->next = NULL;
    if (applies->ready == NULL) {
        applies->ready = batch;
    } else {
        applies->ready_last->next = batch;
    }
    applies->ready_last = batch;
}

struct apply_batch *node_take_batch(struct node *node) {
    struct applies *applies = &node->applies;
    struct apply_batch *batch = applies->ready;
    if (batch != NULL) {
        applies->ready = batch->next;
        batch->next = NULL;
    }
    return batch;
}

static void answer_query(struct node *node, struct caller *caller,
                         const struct apply_batch *batch, const struct apply_item *item) {
    caller_outcome(
        node, caller,
        &(struct outcome){item_code(item), false, item->index, apply_item_output(batch, item)});
}

static void answer_state(struct node *node, struct caller *caller,
                         const struct apply_batch *batch, const struct apply_item *item) {
    struct span output = apply_item_output(batch, item);
    if (item->outcome != APPLY_DONE) {
        answer_query(node, caller, batch, item);
        return;
    }
    struct buffer json;
    struct buffer user;
    buffer_init(&json);
    buffer_init(&user);
    size_t pieces = 0;
    while (output.size > 0) {
        const char *end = memchr(output.data, '\n', output.size);
        size_t bytes = end == NULL ? output.size : (size_t)(end - output.data);
        buffer_append(&user, output.data, bytes);
        buffer_append_char(&user, ',');
        size_t used = end == NULL ? bytes : bytes + 1;
        output = (struct span){output.data + used, output.size - used};
        pieces++;
    }
    if (pieces > 0) {
        user.size--; /* the last comma */
    }
    if (pieces != 1) { /* a machine that yields its state in pieces: shown as an array */
        struct span inside = buffer_span(&user);
        struct buffer array;
        buffer_init(&array);
        buffer_append_char(&array, '[');
        buffer_append_span(&array, inside);
        buffer_append_char(&array, ']');
        buffer_free(&user);
        user = array;
    }
    node_write_state(node, &json, buffer_span(&user));
    caller_result(node, caller, buffer_span(&json));
    buffer_free(&user);
    buffer_free(&json);
}

static void item_done(struct node *node, const struct apply_batch *batch,
                      const struct apply_item *item) {
    struct applies *applies = &node->applies;
    if (item->kind != APPLY_SNAPSHOT) {
        applies->output_bytes = conn_faded_max(applies->output_bytes, item->output_size);
    }
    if (item->kind == APPLY_COMMAND) {
        command_done(node, batch, item);
    } else if (item->token > 0) {
        uint32_t slot = (uint32_t)item->token - 1;
        struct query_slot *place = &applies->slots[slot];
        if (item->kind == APPLY_STATE) {
            applies->states_asked--;
            answer_state(node, &place->caller, batch, item);
        } else {
            answer_query(node, &place->caller, batch, item);
        }
        place->used = false;
        place->next_free = applies->slot_free;
        applies->slot_free = slot;
        applies->slots_used--;
    }
}

void node_batch_done(struct node *node, struct apply_batch *batch) {
    struct applies *applies = &node->applies;
    ASSERT(applies->outstanding > 0);
    for (uint32_t i = 0; i < batch->count; i++) {
        item_done(node, batch, &batch->items[i]);
    }
    if (batch->more) {
        apply_batch_free(batch); /* the rest of it is running */
        return;
    }
    applies->applied = applies->through[0];
    answer_repeats(node, applies->applied);
    applies->outstanding--;
    memmove(applies->through, applies->through + 1,
            applies->outstanding * sizeof(applies->through[0]));
    if (applies->spare == NULL &&
        batch->input.capacity + batch->output.capacity < 4 * (size_t)APPLY_BATCH_BYTES_MAX) {
        apply_batch_clear(batch);
        applies->spare = batch;
    } else {
        apply_batch_free(batch);
    }
}
