/* The replicated state machine: cells that commands write, on the text of their inputs.
 *
 *   {"put":{"key":3,"value":17,"pad":"..."}}             value: the request's own number
 *   {"cas":{"key":3,"value":17,"old":9,"pad":"..."}}     writes where `old` stands
 *   {"raise":{"key":3,"value":17}}                       fails, the same everywhere
 *   {"mute":{"key":3,"value":17}}                        writes, but has no output
 *   {"get":3}                                            a query
 *
 * Each answer names the index of the last command that the machine has run, so that a history of
 * answers can be checked exactly. */
#include <stdio.h>
#include <string.h>

#include "nodesim.h"
#include "server/reader.h"

#define HEAD_BYTES 120u /* of an input: what stands before its ballast */

typedef unsigned long long number;

static uint64_t mix(uint64_t hash, uint64_t value) {
    return (hash ^ value) * 0x9e3779b97f4a7c15u + (hash >> 29);
}

static uint64_t mix_bytes(uint64_t hash, struct span bytes) {
    for (size_t i = 0; i < bytes.size; i++) {
        hash = (hash ^ (unsigned char)bytes.data[i]) * 0x100000001b3u;
    }
    return hash;
}

static void head_of(struct span input, char *head) {
    size_t size = input.size < HEAD_BYTES - 1 ? input.size : HEAD_BYTES - 1;
    memcpy(head, input.data, size);
    head[size] = 0;
}

/* --- commands ---------------------------------------------------------------------------- */
static struct effect effect_of(const struct machine *machine, struct span input) {
    char head[HEAD_BYTES];
    char verb[8];
    unsigned key = 0;
    number value = 0;
    number old = 0;
    head_of(input, head);
    int found = sscanf(head, "{\"%7[a-z]\":{\"key\":%u,\"value\":%llu,\"old\":%llu", verb, &key,
                       &value, &old);
    if (found < 3 || key >= KEYS_MAX) {
        return (struct effect){.value = 0};
    }
    struct effect effect = {.value = value, .key = key};
    effect.raises = strcmp(verb, "raise") == 0;
    effect.writes = strcmp(verb, "put") == 0 || strcmp(verb, "mute") == 0 ||
                    (strcmp(verb, "cas") == 0 && machine->cells[key].value == old);
    return effect;
}

uint64_t machine_value(struct span input) {
    const struct machine nobody = {.index = 0};
    return effect_of(&nobody, input).value;
}

static void write_cell(struct buffer *out, const struct machine *machine, unsigned key) {
    buffer_append_format(out, "{\"at\":%llu,\"key\":%u,\"value\":%llu,\"count\":%llu}",
                         (number)machine->index, key, (number)machine->cells[key].value,
                         (number)machine->cells[key].count);
}

static enum apply_outcome run_command(struct world *world, struct server *server,
                                      const struct apply_item *item, struct span input,
                                      struct buffer *out) {
    struct machine *machine = &server->machine;
    struct effect effect = effect_of(machine, input);
    if (item->index <= machine->index) {
        world_fail(world, "s%u: entry %llu after entry %llu", server->number + 1,
                   (number)item->index, (number)machine->index);
    }
    machine->index = item->index;
    machine->hash = mix_bytes(mix(mix(machine->hash, item->index), item->term), input);
    if (effect.writes) {
        struct cell *cell = &machine->cells[effect.key];
        cell->value = effect.value;
        cell->count++;
        cell->pad = (uint32_t)(input.size > HEAD_BYTES ? input.size - HEAD_BYTES : 0);
    }
    history_applied(world, server, item, &effect, input);
    if (effect.raises) {
        buffer_append_text(out, "{\"type\":\"ValueError\",\"reason\":\"asked to\"}");
        return APPLY_RAISED;
    }
    if (input.size > 8 && memcmp(input.data, "{\"mute\"", 7) == 0) {
        return APPLY_NO_OUTPUT;
    }
    if (item->wants_output) {
        write_cell(out, machine, effect.key);
    }
    return APPLY_DONE;
}

static enum apply_outcome run_query(struct server *server, struct span input,
                                    struct buffer *out) {
    char head[HEAD_BYTES];
    unsigned key = 0;
    head_of(input, head);
    if (sscanf(head, "{\"get\":%u}", &key) != 1 || key >= KEYS_MAX) {
        buffer_append_text(out, "{\"reason\":\"no query\"}");
        return APPLY_INVALID_INPUT;
    }
    write_cell(out, &server->machine, key);
    return APPLY_DONE;
}

/* --- snapshots --------------------------------------------------------------------------- */
static void write_state(const struct machine *machine, struct buffer *out) {
    buffer_append_format(out, "{\"index\":%llu,\"hash\":\"%016llx\"}\n", (number)machine->index,
                         (number)machine->hash);
    for (unsigned key = 0; key < KEYS_MAX; key++) {
        const struct cell *cell = &machine->cells[key];
        if (cell->count > 0) {
            buffer_append_format(
                out, "{\"key\":%u,\"value\":%llu,\"count\":%llu,\"bytes\":%u,\"pad\":\"", key,
                (number)cell->value, (number)cell->count, cell->pad);
            memset(buffer_reserve(out, cell->pad), 'p', cell->pad);
            buffer_extend(out, cell->pad);
            buffer_append_text(out, "\"}\n");
        }
    }
}

static bool read_cell(struct machine *machine, const char *head) {
    unsigned key = 0;
    unsigned pad = 0;
    number value = 0;
    number count = 0;
    int found = sscanf(head, "{\"key\":%u,\"value\":%llu,\"count\":%llu,\"bytes\":%u", &key,
                       &value, &count, &pad);
    if (found != 4 || key >= KEYS_MAX) {
        return false;
    }
    machine->cells[key] = (struct cell){.value = value, .count = count, .pad = pad};
    return true;
}

static void restore(struct world *world, struct server *server, struct span input) {
    struct machine restored = {.index = 0};
    bool first = true;
    bool sound = true;
    while (input.size > 0 && sound) {
        const char *end = memchr(input.data, '\n', input.size);
        size_t size = end != NULL ? (size_t)(end - input.data) : input.size;
        char head[HEAD_BYTES];
        head_of((struct span){input.data, size}, head);
        number index = 0;
        number hash = 0;
        if (first) {
            sound = sscanf(head, "{\"index\":%llu,\"hash\":\"%16llx\"", &index, &hash) == 2;
            restored.index = index;
            restored.hash = hash;
        } else {
            sound = read_cell(&restored, head);
        }
        first = false;
        size_t used = end != NULL ? size + 1 : size;
        input = (struct span){input.data + used, input.size - used};
    }
    if (!sound || first) {
        world_fail(world, "s%u restores what no machine wrote", server->number + 1);
    }
    if (restored.index < server->machine.index) {
        world_fail(world, "s%u: the machine goes back from %llu to %llu", server->number + 1,
                   (number)server->machine.index, (number)restored.index);
    }
    server->machine = restored;
    world_trace(world, "s%u machine: restored at %llu", server->number + 1,
                (number)restored.index);
    history_restored(world, server);
}

static void take_snapshot(struct world *world, struct server *server, struct span head) {
    struct buffer states;
    buffer_init(&states);
    write_state(&server->machine, &states);
    host_write_snapshot(world, server, head, buffer_span(&states));
    buffer_free(&states);
}

static void read_snapshot(struct world *world, struct server *server, struct cargo *cargo) {
    struct buffer states;
    struct span json;
    struct error error = {.status = STATUS_OK};
    bool ended = false;
    buffer_init(&states);
    vdisk_use(server->disk);
    while (!ended) {
        enum status status = reader_next(reader_of(cargo), &json, &ended, &error);
        if (status != STATUS_OK) {
            world_fail(world, "s%u cannot restore: %s", server->number + 1, error.text);
            break;
        }
        if (!ended) {
            buffer_append_span(&states, json);
            buffer_append_char(&states, '\n');
        }
    }
    if (ended) {
        restore(world, server, buffer_span(&states));
    }
    buffer_free(&states);
}

/* --- batches ----------------------------------------------------------------------------- */
static void say(struct world *world, const struct server *server, struct span text) {
    world_trace(world, "s%u says: %.*s", server->number + 1, (int)text.size, text.data);
}

static enum apply_outcome run_item(struct world *world, struct server *server,
                                   const struct apply_item *item, struct span input,
                                   struct buffer *out) {
    switch (item->kind) {
    case APPLY_COMMAND:
        return run_command(world, server, item, input, out);
    case APPLY_QUERY:
    case APPLY_LOCAL_QUERY:
        return run_query(server, input, out);
    case APPLY_STATE:
        write_state(&server->machine, out);
        return APPLY_DONE;
    case APPLY_SNAPSHOT:
        take_snapshot(world, server, input);
        return APPLY_DONE;
    case APPLY_RESTORE:
        read_snapshot(world, server, item->cargo);
        return APPLY_DONE;
    case APPLY_NOTICE:
        say(world, server, input);
        return APPLY_DONE;
    }
    return APPLY_DONE;
}

void machine_run(struct world *world, struct server *server, struct apply_batch *batch) {
    for (uint32_t i = 0; i < batch->count && !world->failed; i++) {
        struct apply_item *item = &batch->items[i];
        item->output_offset = batch->output.size;
        item->outcome =
            run_item(world, server, item, apply_item_input(batch, item), &batch->output);
        item->output_size = batch->output.size - item->output_offset;
    }
}
