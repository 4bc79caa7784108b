/* What must hold of commands, queries and their answers; see nodesim.h.
 *
 * The machines' hashes tell one order of commands from every other, numbers of commands are
 * unique, and each answer names the index that it is of: so "applied once, in one order,
 * everywhere", "answered once" and linearizability are checked exactly and cheaply.
 *
 * A command of a session may be sent many times, to many members; the first of these requests
 * stands for all of them: one effect, in the order of its session, and each answer that speaks
 * of an effect tells of that one.
 *
 * An index is *complete* once a client holds an answer of it: what is sent after that must see
 * it (Herlihy and Wing's order in real time, over the one order that the log gives). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nodesim.h"
#include "wire/peer.h"
#include "wire/rpc.h"

#define DEADLINE_SLACK_MS 1000u /* housekeeping, and the turn that follows it */

typedef unsigned long long number;

struct deed {          /* what entry i did; the same on every member */
    uint64_t hash;     /* of the machine after it; 0: no command took effect there */
    struct cell after; /* its key's cell after it */
    uint32_t key;
    uint64_t unseen; /* a query that ought to have seen a command here, and saw none */
};

struct moment {
    uint64_t at_us;
    uint64_t floor; /* from then on */
};

struct history {
    struct deed *deeds; /* by index */
    uint64_t capacity;
    uint64_t last;                     /* index of the last deed */
    uint64_t first_open;               /* id: all before it are resolved */
    uint64_t answered[SERVERS_MAX];    /* index of the latest answer of this life */
    uint64_t answered_in[SERVERS_MAX]; /* which life */
    struct moment *moments;            /* how the floor rose */
    uint64_t moment_count;
    uint64_t moment_capacity;
};

struct history *history_new(void) {
    struct history *history = calloc(1, sizeof(*history));
    ASSERT(history != NULL);
    history->first_open = 1;
    return history;
}

void history_free(struct history *history) {
    free(history->deeds);
    free(history->moments);
    free(history);
}

/* --- the machines ------------------------------------------------------------------------ */
static struct deed *deed_at(struct history *history, uint64_t index) {
    if (index >= history->capacity) {
        uint64_t capacity = index * 2 + 256;
        history->deeds = realloc(history->deeds, capacity * sizeof(*history->deeds));
        ASSERT(history->deeds != NULL);
        memset(history->deeds + history->capacity, 0,
               (capacity - history->capacity) * sizeof(*history->deeds));
        history->capacity = capacity;
    }
    return &history->deeds[index];
}

static void note_first(struct world *world, const struct server *server, uint64_t index,
                       const struct effect *effect) {
    struct request *request = clients_find(world, effect->value);
    if (request == NULL || request->kind != REQUEST_COMMAND || !request->given) {
        world_fail(world, "s%u applies at %llu what nobody asked for", server->number + 1,
                   (number)index);
        return;
    }
    if (request->applied != 0) {
        world_fail(world, "#%llu takes effect at %llu and again at %llu", (number)request->id,
                   (number)request->applied, (number)index);
    }
    if (request->refusals == request->tries) {
        world_fail(world, "#%llu was answered as not applied, and is applied at %llu",
                   (number)request->id, (number)index);
    }
    request->applied = index;
    struct request *opener = clients_find(world, request->session);
    if (opener != NULL && request->seq <= opener->done_seq) {
        world_fail(world, "#%llu takes effect at %llu, behind number %llu of its session",
                   (number)request->id, (number)index, (number)opener->done_seq);
    }
    if (opener != NULL) {
        opener->done_seq = request->seq;
    }
}

void history_applied(struct world *world, struct server *server, const struct apply_item *item,
                     const struct effect *effect, struct span input) {
    struct history *history = checker_history(world);
    struct deed *deed = deed_at(history, item->index);
    const struct machine *machine = &server->machine;
    (void)input;
    if (deed->hash == 0 && item->index <= history->last) {
        world_fail(world, "s%u applies entry %llu, which others left out or not yet have",
                   server->number + 1, (number)item->index);
    } else if (deed->hash == 0) {
        if (deed->unseen != 0) {
            world_fail(world, "query #%llu did not see entry %llu, which it had to",
                       (number)deed->unseen, (number)item->index);
        }
        *deed = (struct deed){
            .hash = machine->hash, .after = machine->cells[effect->key], .key = effect->key};
        history->last = item->index;
        world_mix(world, machine->hash);
        note_first(world, server, item->index, effect);
    } else if (deed->hash != machine->hash) {
        world_fail(world, "s%u: the machine differs from others' at entry %llu",
                   server->number + 1, (number)item->index);
    }
}

void history_restored(struct world *world, struct server *server) {
    const struct machine *machine = &server->machine;
    if (machine->index > 0 &&
        deed_at(checker_history(world), machine->index)->hash != machine->hash) {
        world_fail(world, "s%u: the restored machine differs from others' at entry %llu",
                   server->number + 1, (number)machine->index);
    }
}

/* The cell of a key after the last command up to `index`. */
static struct cell cell_at(struct history *history, uint32_t key, uint64_t index) {
    for (uint64_t i = index < history->last ? index : history->last; i > 0; i--) {
        if (history->deeds[i].hash != 0 && history->deeds[i].key == key) {
            return history->deeds[i].after;
        }
    }
    return (struct cell){.value = 0};
}

/* --- the floor in time ------------------------------------------------------------------- */
static void raise_floor(struct world *world, uint64_t floor) {
    struct history *history = checker_history(world);
    if (floor <= world->floor) {
        return;
    }
    world->floor = floor;
    if (history->moment_count == history->moment_capacity) {
        history->moment_capacity = history->moment_capacity * 2 + 64;
        history->moments =
            realloc(history->moments, history->moment_capacity * sizeof(*history->moments));
        ASSERT(history->moments != NULL);
    }
    history->moments[history->moment_count++] = (struct moment){world->now_us, floor};
}

/* What was complete when as much time had yet to pass on this server's clock. */
static uint64_t floor_before(struct world *world, const struct server *server, uint64_t ms) {
    const struct history *history = checker_history(world);
    uint64_t ago_us = (ms + 1) * 1000000000 / server->rate_ppm + 1; /* clocks show whole ms */
    uint64_t i = history->moment_count;
    while (i > 0 && history->moments[i - 1].at_us + ago_us >= world->now_us) {
        i--;
    }
    return i == 0 ? 0 : history->moments[i - 1].floor;
}

/* --- requests given ---------------------------------------------------------------------- */
static bool is_open(const struct request *request) {
    return request->stage == STAGE_SENT || request->stage == STAGE_GIVEN;
}

static void skip_resolved(struct world *world) {
    struct history *history = checker_history(world);
    while (history->first_open <= world->request_count &&
           !is_open(&world->requests[history->first_open - 1])) {
        history->first_open++;
    }
}

void history_given(struct world *world, struct server *server, const struct pipe *pipe,
                   size_t held_bytes) {
    struct history *history = checker_history(world);
    skip_resolved(world);
    for (uint64_t id = history->first_open; id <= world->request_count; id++) {
        struct request *request = &world->requests[id - 1];
        if (request->pipe == pipe->id && request->stage == STAGE_SENT &&
            request->end_bytes + held_bytes <= pipe->given_bytes) {
            bool same_life = history->answered_in[server->number] == server->life;
            request->stage = request->quiet ? STAGE_ANSWERED : STAGE_GIVEN;
            request->life = server->life;
            clients_find(world, request->origin)->given = true;
            request->fresh_floor = request->age_ms_max == NEVER
                                       ? 0
                                       : floor_before(world, server, request->age_ms_max);
            request->given_ms = host_now_ms(world, server);
            request->local_floor = same_life ? history->answered[server->number] : 0;
        }
    }
}

void history_conn_closed(struct world *world, uint64_t pipe) {
    struct history *history = checker_history(world);
    skip_resolved(world);
    for (uint64_t id = history->first_open; id <= world->request_count; id++) {
        struct request *request = &world->requests[id - 1];
        if (request->pipe == pipe && is_open(request)) {
            request->stage = STAGE_CLOSED;
        }
    }
}

/* --- answers ----------------------------------------------------------------------------- */
struct answer {
    bool null_id;
    uint64_t id;
    int code; /* 0: a result */
    bool not_applied;
    bool applied;
    bool has_cell;
    uint64_t at;
    uint32_t key;
    struct cell cell;
    bool has_index;
    uint64_t index;
};

/* One response object, NUL-terminated. */
static bool read_answer(const char *text, struct answer *answer) {
    *answer = (struct answer){.null_id = false};
    number id = 0;
    if (strncmp(text, "{\"jsonrpc\":\"2.0\",\"id\":", 22) != 0) {
        return false;
    }
    text += 22;
    answer->null_id = strncmp(text, "null", 4) == 0;
    if (!answer->null_id && sscanf(text, "%llu", &id) != 1) {
        return false;
    }
    answer->id = id;
    const char *error = strstr(text, ",\"error\":{\"code\":");
    if (error != NULL) {
        answer->not_applied = strstr(text, "\"outcome\":\"not_applied\"") != NULL;
        const char *applied = strstr(text, "\"outcome\":\"applied\"");
        answer->applied = applied != NULL;
        answer->has_index = applied != NULL &&
                            sscanf(applied, "\"outcome\":\"applied\",\"index\":%llu", &id) == 1;
        answer->index = id;
        return sscanf(error, ",\"error\":{\"code\":%d", &answer->code) == 1;
    }
    const char *result = strstr(text, ",\"result\":");
    if (result == NULL) {
        return false;
    }
    int inside = 0;
    if (sscanf(result, ",\"result\":{\"index\":%llu,\"output\":%n", &id, &inside) == 1 &&
        inside > 0) {
        answer->has_index = true;
        answer->index = id;
        result += inside;
    } else {
        result += strlen(",\"result\":");
    }
    number at = 0;
    number value = 0;
    number count = 0;
    unsigned key = 0;
    answer->has_cell = sscanf(result, "{\"at\":%llu,\"key\":%u,\"value\":%llu,\"count\":%llu}",
                              &at, &key, &value, &count) == 4;
    answer->at = at;
    answer->key = key;
    answer->cell = (struct cell){.value = value, .count = count};
    return true;
}

static void check_cell(struct world *world, const struct request *request,
                       const struct answer *answer) {
    struct history *history = checker_history(world);
    struct cell cell = cell_at(history, request->key, answer->at);
    if (!answer->has_cell || answer->key != request->key || answer->at > history->last ||
        cell.value != answer->cell.value || cell.count != answer->cell.count) {
        world_fail(world, "#%llu: the answer is not the state at entry %llu",
                   (number)request->id, (number)answer->at);
    }
}

/* The answer of an effect, to the first who asks or to a repeat: the same to all. */
static void check_effect(struct world *world, const struct request *request,
                         const struct request *first, const struct answer *answer) {
    if (first->applied == 0) {
        world_fail(world, "#%llu is answered as applied, and nobody has", (number)request->id);
    } else if (answer->code != first->outcome) {
        world_fail(world, "#%llu is answered with %d, and its effect gave %d",
                   (number)request->id, answer->code, first->outcome);
    } else if (answer->code == 0 && first->applied != answer->at) {
        world_fail(world, "#%llu took effect at %llu, and is answered as at %llu",
                   (number)request->id, (number)first->applied, (number)answer->at);
    } else if (answer->has_index && answer->index != first->applied) {
        world_fail(world, "#%llu took effect at %llu, and is told %llu", (number)request->id,
                   (number)first->applied, (number)answer->index);
    } else if (answer->code == 0) {
        check_cell(world, request, answer);
    }
}

/* A client of ours goes on in its session only when it knows that the session exists. */
static void check_session(struct world *world, const struct request *request,
                          const struct answer *answer) {
    const struct request *opener = clients_find(world, request->session);
    if (answer->code == RPC_SESSION_EXPIRED) {
        world_fail(world, "#%llu: its session is said to be gone", (number)request->id);
    }
    if (answer->code == RPC_STALE_SEQ && (opener == NULL || opener->sent_seq <= request->seq)) {
        world_fail(world, "#%llu: its number is said to be past", (number)request->id);
    }
}

static void check_command(struct world *world, struct request *request,
                          const struct answer *answer) {
    struct request *first = clients_find(world, request->origin);
    if (answer->code == 0 || answer->applied) {
        check_effect(world, request, first, answer);
    }
    check_session(world, request, answer);
    if (answer->code != 0 && answer->not_applied) {
        first->refusals++;
        if (first->applied != 0 && first->tries == 1) {
            world_fail(world, "#%llu took effect at %llu, and is answered as not applied",
                       (number)request->id, (number)first->applied);
        }
    }
}

/* A query that must have seen all commands up to `index` saw them up to `at`: none may lie
 * between, neither now nor when it is run somewhere at last. */
static void check_seen(struct world *world, const struct request *request, uint64_t at,
                       uint64_t index) {
    struct history *history = checker_history(world);
    if (index > at + 1000000) {
        world_fail(world, "#%llu: entry %llu is far off", (number)request->id, (number)index);
        return;
    }
    for (uint64_t i = at + 1; i <= index; i++) {
        struct deed *deed = deed_at(history, i);
        if (deed->hash != 0) {
            world_fail(world, "query #%llu sees entry %llu, and had to see %llu",
                       (number)request->id, (number)at, (number)i);
        }
        deed->unseen = request->id;
    }
}

static void check_query(struct world *world, const struct server *server,
                        const struct request *request, const struct answer *answer) {
    if (answer->code == RPC_INDEX_NOT_REACHED &&
        (request->min_index == 0 ||
         host_now_ms(world, server) < request->given_ms + world->request_timeout_ms)) {
        world_fail(world, "#%llu is refused before its time is up", (number)request->id);
    }
    if (answer->code != 0) {
        return;
    }
    check_cell(world, request, answer);
    if (answer->at < request->local_floor) {
        world_fail(world, "#%llu: s%u answers of entry %llu what it answered of %llu before",
                   (number)request->id, server->number + 1, (number)answer->at,
                   (number)request->local_floor);
    }
    if (answer->at < request->fresh_floor) {
        world_fail(world, "query #%llu sees entry %llu, but %llu was complete %llu ms before",
                   (number)request->id, (number)answer->at, (number)request->fresh_floor,
                   (number)request->age_ms_max);
    }
    check_seen(world, request, answer->at, request->min_index);
    if (answer->has_index) {
        check_seen(world, request, answer->at, answer->index);
    }
}

/* The node has written an answer for this request. */
static void answered(struct world *world, struct server *server, struct request *request,
                     const struct answer *answer) {
    struct history *history = checker_history(world);
    request->stage = STAGE_ANSWERED;
    world->answers++;
    if (request->kind == REQUEST_COMMAND) {
        check_command(world, request, answer);
    } else if (request->kind == REQUEST_QUERY || request->kind == REQUEST_LOCAL_QUERY) {
        check_query(world, server, request, answer);
    }
    bool speaks_of_index = request->wants_index && (answer->code == 0 || answer->applied);
    if (answer->has_index != speaks_of_index) {
        world_fail(world, "#%llu is %stold an index", (number)request->id,
                   speaks_of_index ? "not " : "");
    }
    uint64_t at = answer->has_cell ? answer->at : 0;
    if (history->answered_in[server->number] != server->life) {
        history->answered_in[server->number] = server->life;
        history->answered[server->number] = 0;
    }
    if (at > history->answered[server->number]) {
        history->answered[server->number] = at;
    }
}

static struct request *find_garbage(struct world *world, uint64_t pipe) {
    struct history *history = checker_history(world);
    for (uint64_t id = history->first_open; id <= world->request_count; id++) {
        struct request *request = &world->requests[id - 1];
        if (request->pipe == pipe && request->kind == REQUEST_GARBAGE &&
            request->stage == STAGE_GIVEN) {
            return request;
        }
    }
    return NULL;
}

static void one_answered(struct world *world, struct server *server, uint64_t pipe,
                         const char *text) {
    struct answer answer;
    if (!read_answer(text, &answer)) {
        world_fail(world, "s%u writes what is no answer: %.80s", server->number + 1, text);
        return;
    }
    struct request *request =
        answer.null_id ? find_garbage(world, pipe) : clients_find(world, answer.id);
    if (request == NULL || request->pipe != pipe || request->stage != STAGE_GIVEN) {
        world_fail(world, "s%u answers what was not asked, or again: %.80s", server->number + 1,
                   text);
        return;
    }
    answered(world, server, request, &answer);
    world_trace(world, "s%u answers #%llu: %.100s", server->number + 1, (number)request->id,
                text + 22);
}

/* Each response object of a line; an array's come apart. */
static void each_answer(struct world *world, struct span line, void *context,
                        void (*each)(struct world *world, void *context, const char *text)) {
    static const char HEAD[] = "{\"jsonrpc\":\"2.0\",";
    char *copy = malloc(line.size + 1);
    ASSERT(copy != NULL);
    memcpy(copy, line.data, line.size);
    copy[line.size] = 0;
    char *at = strstr(copy, HEAD);
    if (at == NULL || (at != copy && (at != copy + 1 || copy[0] != '['))) {
        world_fail(world, "what is written is no answer: %.80s", copy);
    }
    while (at != NULL && !world->failed) {
        char *next = strstr(at + 1, HEAD);
        if (next != NULL) {
            next[-1] = 0; /* the comma */
        }
        each(world, context, at);
        at = next;
    }
    free(copy);
}

struct answering {
    struct server *server;
    uint64_t pipe;
};

static void each_written(struct world *world, void *context, const char *text) {
    const struct answering *answering = context;
    one_answered(world, answering->server, answering->pipe, text);
}

void history_answered(struct world *world, struct server *server, uint64_t pipe,
                      struct span bytes) {
    struct answering answering = {server, pipe};
    while (bytes.size > 0 && !world->failed) {
        const char *end = memchr(bytes.data, '\n', bytes.size);
        size_t size = end != NULL ? (size_t)(end - bytes.data) : bytes.size;
        struct span line = {bytes.data, size};
        if (!peer_is_message(line)) { /* what a stranger is told */
            each_answer(world, line, &answering, each_written);
        }
        size_t used = end != NULL ? size + 1 : size;
        bytes = (struct span){bytes.data + used, bytes.size - used};
    }
}

/* --- what clients make of it ------------------------------------------------------------- */
static void each_heard(struct world *world, void *context, const char *text) {
    (void)context;
    struct answer answer;
    struct request *request =
        read_answer(text, &answer) && !answer.null_id ? clients_find(world, answer.id) : NULL;
    if (answer.null_id) {
        return;
    }
    if (request == NULL || request->stage != STAGE_ANSWERED) {
        world_fail(world, "a client hears what was not answered: %.80s", text);
        return;
    }
    request->stage = STAGE_HEARD;
    request->succeeded = answer.code == 0 || answer.applied;
    uint64_t at = 0;
    const struct request *first = clients_find(world, request->origin);
    bool applied = request->kind == REQUEST_COMMAND && (answer.code == 0 || answer.applied);
    if (request->session != 0 && (applied || answer.code == RPC_STALE_SEQ)) {
        clients_settled(world, request, applied);
    }
    if (applied) {
        at = first->applied;
        if (at <= first->floor) {
            world_fail(world, "#%llu takes effect at %llu, before what was complete (%llu)",
                       (number)request->id, (number)at, (number)first->floor);
        }
    } else if (request->kind == REQUEST_QUERY && answer.code == 0) {
        at = answer.at;
        if (at < request->floor) {
            world_fail(world, "query #%llu sees entry %llu, but %llu was complete before it",
                       (number)request->id, (number)at, (number)request->floor);
        }
    }
    world->seen_index = answer.has_index ? answer.index : world->seen_index;
    raise_floor(world, at);
}

void history_heard(struct world *world, struct span line) {
    each_answer(world, line, NULL, each_heard);
}

/* --- time -------------------------------------------------------------------------------- */
void history_deadlines(struct world *world) {
    struct history *history = checker_history(world);
    skip_resolved(world);
    for (uint64_t id = history->first_open; id <= world->request_count; id++) {
        const struct request *request = &world->requests[id - 1];
        const struct server *server = &world->servers[request->server];
        bool waits = request->stage == STAGE_GIVEN && server->up &&
                     server->life == request->life &&
                     server->paused_until_us + 1000000 <= world->now_us;
        if (waits && host_now_ms(world, server) >
                         request->given_ms + world->request_timeout_ms + DEADLINE_SLACK_MS) {
            world_fail(world, "#%llu: s%u has not answered in time", (number)id,
                       server->number + 1);
            return;
        }
    }
}

bool history_all_resolved(struct world *world) {
    struct history *history = checker_history(world);
    skip_resolved(world);
    for (uint64_t id = history->first_open; id <= world->request_count; id++) {
        const struct request *request = &world->requests[id - 1];
        if (is_open(request) && streams_find(world, request->pipe) != NULL) {
            return false;
        }
    }
    return true;
}
