/* What must hold of members, their disks and their log, looked at after every turn, write and
 * start; see nodesim.h.
 *
 * It keeps its own book of what each member's disk has reported as durable, and so knows what a
 * member may say and what must be there after a crash, whatever the member believes. */
#include <stdlib.h>
#include <string.h>

#include "node/internal.h"
#include "nodesim.h"

#define TERMS_MAX 100000u /* in one run: more is a stranger's doing */
#define PEER_BACKLOG_MAX                                                                       \
    (PEER_OUT_BYTES_MAX + APPEND_BYTES_MAX + PROPOSE_BYTES_MAX + 2u * SNAPSHOT_CHUNK_BYTES +   \
     (64u * 1024))        /* heartbeats go on meanwhile */
#define ANSWER_BYTES 512u /* of a cell */

typedef unsigned long long number;

struct durable { /* what the disk of one member id has reported */
    bool known;
    bool lost; /* its directory was wiped */
    uint64_t term;
    uint64_t vote;
    uint64_t snapshot;
    uint64_t last;    /* of the lines below; 0: none */
    uint64_t *hashes; /* of lines 1..last */
    uint64_t capacity;
};

struct seen { /* of a server, in this life */
    uint64_t life;
    uint64_t term;
    uint64_t vote;
    uint64_t commit;
    uint64_t applied;
    enum raft_role role;
    struct raft_configuration before; /* in force after the turn before */
};

struct order { /* of the commands that one server gave, as they stand in the log */
    uint64_t incarnation;
    uint64_t term;
    uint64_t sequence; /* the highest */
};

struct checker {
    struct history *history;
    struct order orders[IDS_MAX]; /* by the id in the tag */
    struct durable durable[IDS_MAX];
    struct seen seen[SERVERS_MAX];
    uint64_t *committed; /* hash of line i, once somebody took it for committed */
    uint64_t capacity;
    uint32_t leaders[TERMS_MAX]; /* id */
};

struct checker *checker_new(void) {
    struct checker *checker = calloc(1, sizeof(*checker));
    ASSERT(checker != NULL);
    checker->history = history_new();
    return checker;
}

void checker_free(struct checker *checker) {
    for (uint32_t id = 0; id < IDS_MAX; id++) {
        free(checker->durable[id].hashes);
    }
    free(checker->committed);
    history_free(checker->history);
    free(checker);
}

struct history *checker_history(struct world *world) {
    return world->checker->history;
}

static uint64_t hash_of(struct span line) {
    uint64_t hash = 14695981039346656037u;
    for (size_t i = 0; i < line.size; i++) {
        hash = (hash ^ (unsigned char)line.data[i]) * 0x100000001b3u;
    }
    return hash == 0 ? 1 : hash;
}

static struct durable *durable_of(struct world *world, uint64_t id) {
    ASSERT(id < IDS_MAX);
    return &world->checker->durable[id];
}

/* --- the disks --------------------------------------------------------------------------- */
struct stored checker_storing(struct server *server, const struct job *job) {
    return (struct stored){.id = server->node->meta.node_id,
                           .save_meta = job->kind == JOB_WRITE && job->save_meta,
                           .truncate_from = job->kind == JOB_WRITE ? job->truncate_from : 0};
}

static void forget_from(struct durable *durable, uint64_t index) {
    if (index > 0 && durable->last >= index) {
        durable->last = index - 1;
    }
}

static void keep_line(struct durable *durable, uint64_t index, struct span line) {
    if (index >= durable->capacity) {
        durable->capacity = index * 2 + 64;
        durable->hashes =
            realloc(durable->hashes, durable->capacity * sizeof(*durable->hashes));
        ASSERT(durable->hashes != NULL);
    }
    for (uint64_t i = durable->last + 1; i < index; i++) {
        durable->hashes[i] = 0; /* covered by a snapshot */
    }
    durable->hashes[index] = hash_of(line);
    durable->last = index;
}

/* The line of entry `index`, first <= index <= last. */
static struct span line_in(const struct job *job, uint64_t index) {
    uint64_t i = index - job->first;
    size_t from = job->offsets[i];
    size_t to = i + 1 < job->offset_count ? job->offsets[i + 1] : buffer_count(&job->data);
    return (struct span){buffer_peek(&job->data) + from, to - from};
}

/* Within a term and a server's life the leader takes commands in the order in which the server
 * did: what is lost on the way is lost with all behind it, or waited for. (It may stand there
 * again.) Looked at where the leader of the term stores them. */
static void check_order(struct world *world, uint64_t id, struct span line) {
    struct checker *checker = world->checker;
    struct entry entry;
    if (entry_parse(line, &entry) != STATUS_OK || entry.kind != ENTRY_COMMAND ||
        entry.term >= TERMS_MAX || checker->leaders[entry.term] != id ||
        entry.tag.node >= IDS_MAX) {
        return;
    }
    struct request *request = clients_find(world, machine_value(entry.body));
    struct order *order = &checker->orders[entry.tag.node];
    bool same = order->incarnation == entry.tag.incarnation && order->term == entry.term;
    bool behind = same && entry.tag.sequence < order->sequence;
    if (behind && request != NULL && request->logged_term < entry.term) {
        world_fail(world, "entry %llu holds command %llu of member %llu, behind %llu",
                   (number)entry.index, (number)entry.tag.sequence, (number)entry.tag.node,
                   (number)order->sequence);
    }
    if (request != NULL && request->logged_term < entry.term) { /* it may be stored later */
        request->logged_term = entry.term;
    }
    if (!behind) {
        *order = (struct order){entry.tag.incarnation, entry.term, entry.tag.sequence};
    }
}

static void keep_lines(struct world *world, uint64_t id, const struct job *job) {
    struct durable *durable = durable_of(world, id);
    for (uint64_t index = job->first; index <= job->last; index++) {
        keep_line(durable, index, line_in(job, index));
        check_order(world, id, line_in(job, index));
    }
}

static void stored_write(struct world *world, struct durable *durable,
                         const struct stored *before, const struct job *job, bool torn) {
    if (torn) {
        forget_from(durable, before->truncate_from);
        return;
    }
    if (before->save_meta && !job->save_meta) {
        if (durable->known && job->meta.term < durable->term) {
            world_fail(world, "member %llu stores term %llu after %llu", (number)before->id,
                       (number)job->meta.term, (number)durable->term);
        }
        durable->known = true;
        durable->term = job->meta.term;
        durable->vote = job->meta.voted_for;
    }
    /* A cut whose sync failed may have been made all the same; the member ends. */
    bool failed = job->status != STATUS_OK && job->status != STATUS_NO_SPACE;
    if (before->truncate_from > 0 && (job->truncate_from == 0 || failed)) {
        forget_from(durable, before->truncate_from);
    }
    if (job->status == STATUS_OK && job->first <= job->last) {
        keep_lines(world, before->id, job);
    }
}

void checker_stored(struct world *world, struct server *server, const struct stored *before,
                    const struct job *job, bool torn) {
    (void)server;
    struct durable *durable = durable_of(world, before->id);
    if (before->id == 0) {
        return;
    }
    switch (job->kind) {
    case JOB_WRITE:
        stored_write(world, durable, before, job, torn);
        return;
    case JOB_SNAPSHOT_INSTALL:
        if (job->reset_log && (torn || job->status == STATUS_OK)) {
            durable->last = 0;
        }
        /* fall through */
    case JOB_SNAPSHOT_TAKE:
        if (!torn && job->status == STATUS_OK && job->snapshot.index > durable->snapshot) {
            durable->snapshot = job->snapshot.index;
        }
        return;
    case JOB_READ:
    case JOB_SNAPSHOT_BEGIN:
    case JOB_SNAPSHOT_CHECK:
    case JOB_SNAPSHOT_DROP:
    case JOB_SNAPSHOT_RECEIVE:
    case JOB_SNAPSHOT_READ:
    case JOB_SNAPSHOT_LOAD:
    case JOB_CLEAR_QUARANTINE:
        return;
    }
}

static bool holds(const struct durable *durable, uint64_t index, uint64_t hash) {
    return index <= durable->snapshot ||
           (index <= durable->last && durable->hashes[index] == hash);
}

/* --- a start ----------------------------------------------------------------------------- */
/* Everything that the disk has reported must be there again. */
static void check_recovered(struct world *world, const struct server *server,
                            const struct durable *durable) {
    const struct node *node = server->node;
    uint64_t snapshot = node->snapshots.position.index;
    if (snapshot < durable->snapshot) {
        world_fail(world, "s%u comes back with snapshot %llu, not %llu", server->number + 1,
                   (number)snapshot, (number)durable->snapshot);
    }
    for (uint64_t i = snapshot + 1; i <= durable->last; i++) {
        struct span line = entries_peek(&node->entries, i);
        if (durable->hashes[i] != 0 &&
            (line.size == 0 || hash_of(line) != durable->hashes[i])) {
            world_fail(world, "s%u comes back without entry %llu, which was durable",
                       server->number + 1, (number)i);
            return;
        }
    }
}

/* What a crash left although it was never reported counts as well: the member builds on it. */
static void keep_recovered(struct world *world, const struct server *server,
                           struct durable *durable) {
    const struct node *node = server->node;
    uint64_t reported = durable->last;
    uint64_t snapshot = node->snapshots.position.index;
    durable->known = true;
    durable->term = node->meta.term;
    durable->vote = node->meta.voted_for;
    durable->snapshot = snapshot > durable->snapshot ? snapshot : durable->snapshot;
    for (uint64_t i = snapshot + 1; i <= node->entries.last; i++) {
        keep_line(durable, i, entries_peek(&node->entries, i));
        if (i > reported) {
            check_order(world, node->meta.node_id, entries_peek(&node->entries, i));
        }
    }
}

/* Who was a member is the same one again, unless it was wiped; but for a founder whose first
 * entry never was durable: it has founded nothing, and promised nothing to anybody. */
static void check_identity(struct world *world, struct server *server, uint64_t id) {
    struct durable *before = durable_of(world, server->member);
    if (server->member != 0 && id == 0 && before->known && !before->lost) {
        if (before->last > 0 || before->snapshot > 0 || server->member != 1) {
            world_fail(world, "s%u has forgotten that it is member %llu", server->number + 1,
                       (number)server->member);
        }
        *before = (struct durable){.hashes = before->hashes, .capacity = before->capacity};
    }
    server->member = id;
}

void checker_started(struct world *world, struct server *server, bool quarantined) {
    struct seen *seen = &world->checker->seen[server->number];
    *seen = (struct seen){.life = server->life};
    uint64_t id = server->node->meta.node_id;
    struct durable *durable = durable_of(world, id);
    check_identity(world, server, id);
    if (id == 0) {
        return;
    }
    const struct meta *meta = &server->node->meta;
    if (durable->lost) {
        world_fail(world, "s%u was wiped and is member %llu again", server->number + 1,
                   (number)id);
    }
    if (durable->known &&
        (meta->term < durable->term || (meta->term == durable->term && durable->vote != 0 &&
                                        meta->voted_for != durable->vote))) {
        world_fail(world, "s%u comes back with term %llu, vote %llu, not %llu, %llu",
                   server->number + 1, (number)meta->term, (number)meta->voted_for,
                   (number)durable->term, (number)durable->vote);
    }
    if (quarantined) {
        world_fail(world, "s%u takes a crash for damage", server->number + 1);
    } else {
        check_recovered(world, server, durable);
        keep_recovered(world, server, durable);
    }
}

bool checker_founded(const struct world *world) {
    return world->checker->durable[1].known;
}

/* --- a turn ------------------------------------------------------------------------------ */
static bool majority_holds(struct world *world, const struct raft_configuration *configuration,
                           bool before, uint64_t index, uint64_t hash) {
    uint32_t voters = 0;
    uint32_t holders = 0;
    for (uint32_t i = 0; i < configuration->count; i++) {
        const struct raft_member *member = &configuration->members[i];
        if (before ? member->voter_before : member->voter) {
            voters++;
            holders += holds(durable_of(world, member->id), index, hash) ? 1 : 0;
        }
    }
    return voters > 0 && holders > voters / 2;
}

static bool quorum_holds(struct world *world, const struct raft_configuration *configuration,
                         uint64_t index, uint64_t hash) {
    return majority_holds(world, configuration, false, index, hash) &&
           (!configuration->joint || majority_holds(world, configuration, true, index, hash));
}

static uint64_t *committed_at(struct checker *checker, uint64_t index) {
    if (index >= checker->capacity) {
        uint64_t capacity = index * 2 + 256;
        checker->committed =
            realloc(checker->committed, capacity * sizeof(*checker->committed));
        ASSERT(checker->committed != NULL);
        memset(checker->committed + checker->capacity, 0,
               (capacity - checker->capacity) * sizeof(*checker->committed));
        checker->capacity = capacity;
    }
    return &checker->committed[index];
}

/* What the jobs of a list are about to make of line `index`, if anything. */
static void look_in_jobs(const struct job *jobs, uint64_t index, uint64_t *hash) {
    for (const struct job *job = jobs; job != NULL; job = job->next) {
        if (job->kind == JOB_WRITE && job->first <= index && index <= job->last) {
            *hash = hash_of(line_in(job, index));
        } else if (job->kind == JOB_WRITE && job->truncate_from > 0 &&
                   job->truncate_from <= index) {
            *hash = 0;
        }
    }
}

/* A line that is not in memory any more is on the disk or on its way there; 0: behind a
 * snapshot. */
static uint64_t line_hash(struct world *world, const struct server *server, uint64_t index) {
    const struct node *node = server->node;
    struct span line = entries_peek(&node->entries, index);
    const struct durable *durable = durable_of(world, node->meta.node_id);
    if (line.size > 0) {
        return hash_of(line);
    }
    uint64_t hash = index <= durable->last ? durable->hashes[index] : 0;
    look_in_jobs(server->todo, index, &hash);
    look_in_jobs(node->stuck, index, &hash);
    look_in_jobs(node->jobs, index, &hash);
    return hash;
}

/* A line that is committed anywhere is the same everywhere, byte for byte, and when it first
 * is, a quorum's disks hold it. */
static void check_committed(struct world *world, const struct server *server, uint64_t index) {
    struct checker *checker = world->checker;
    const struct node *node = server->node;
    uint64_t hash = line_hash(world, server, index);
    if (hash == 0) {
        return; /* behind a snapshot */
    }
    uint64_t *committed = committed_at(checker, index);
    if (*committed == 0) {
        *committed = hash;
        world_mix(world, hash);
        const struct raft_configuration *now = raft_peek_configuration(node->raft);
        const struct raft_configuration *before = &checker->seen[server->number].before;
        if (!quorum_holds(world, now, index, hash) &&
            !quorum_holds(world, before, index, hash)) {
            world_fail(world, "s%u commits entry %llu, which no quorum's disks hold",
                       server->number + 1, (number)index);
        }
    } else if (*committed != hash) {
        world_fail(world, "s%u commits another entry %llu than others", server->number + 1,
                   (number)index);
    }
}

static void check_leader(struct world *world, const struct server *server) {
    const struct raft_state *state = &server->node->state;
    if (state->term >= TERMS_MAX) {
        world_fail(world, "s%u is at term %llu", server->number + 1, (number)state->term);
        return;
    }
    uint32_t *leader = &world->checker->leaders[state->term];
    if (state->role == RAFT_LEADER) {
        if (*leader != 0 && *leader != state->id) {
            world_fail(world, "two leaders in term %llu: %u and %llu", (number)state->term,
                       *leader, (number)state->id);
        }
        *leader = (uint32_t)state->id;
    }
}

static void tell_role(struct world *world, const struct server *server,
                      const struct seen *seen) {
    const struct raft_state *state = &server->node->state;
    if (state->role != seen->role || state->term != seen->term) {
        world_trace(world, "s%u (member %llu) is %s in term %llu, commit %llu, log to %llu",
                    server->number + 1, (number)state->id, raft_role_name(state->role),
                    (number)state->term, (number)state->commit_index,
                    (number)state->last.index);
    }
}

void checker_turned(struct world *world, struct server *server) {
    struct seen *seen = &world->checker->seen[server->number];
    const struct node *node = server->node;
    const struct raft_state *state = &node->state;
    tell_role(world, server, seen);
    if (state->term < seen->term ||
        (state->term == seen->term && seen->vote != 0 && state->voted_for != seen->vote) ||
        state->commit_index < seen->commit || node->applies.applied < seen->applied ||
        node->applies.applied > state->commit_index ||
        state->durable_index > state->last.index) {
        world_fail(world,
                   "s%u goes back: term %llu to %llu, vote %llu to %llu, commit %llu to %llu, "
                   "applied %llu to %llu",
                   server->number + 1, (number)seen->term, (number)state->term,
                   (number)seen->vote, (number)state->voted_for, (number)seen->commit,
                   (number)state->commit_index, (number)seen->applied,
                   (number)node->applies.applied);
    }
    check_leader(world, server);
    for (uint64_t i = seen->commit + 1; i <= state->commit_index && !world->failed; i++) {
        check_committed(world, server, i);
    }
    server->member = node->meta.node_id;
    seen->role = state->role;
    seen->term = state->term;
    seen->vote = state->voted_for;
    seen->commit = state->commit_index;
    seen->applied = node->applies.applied;
    seen->before = *raft_peek_configuration(node->raft);
}

/* --- what goes out ----------------------------------------------------------------------- */
/* No promise before its disk has it: votes, and "durable up to here" (V2, V3). */
static void check_promise(struct world *world, const struct server *server,
                          const struct peer_message *message) {
    const struct durable *durable = durable_of(world, server->node->meta.node_id);
    uint64_t last = durable->last > durable->snapshot ? durable->last : durable->snapshot;
    const struct raft_message *raft = &message->raft;
    bool votes = message->kind == PEER_VOTE_REPLY && raft->granted && !raft->pre;
    if (votes &&
        (durable->term < raft->term || (durable->term == raft->term && durable->vote == 0))) {
        world_fail(world, "s%u grants its vote in term %llu before it is durable",
                   server->number + 1, (number)raft->term);
    }
    bool holds_more =
        (message->kind == PEER_APPEND_REPLY || message->kind == PEER_SNAPSHOT_REPLY) &&
        !raft->rejected && raft->match > last;
    if (holds_more) {
        world_fail(world, "s%u claims entry %llu, its disk holds %llu", server->number + 1,
                   (number)raft->match, (number)last);
    }
}

static void tell_message(struct world *world, const struct server *server,
                         const struct peer_message *message, struct span line) {
    bool told = message->kind == PEER_PROPOSE || message->kind == PEER_PROPOSE_AGAIN ||
                message->kind == PEER_READ || message->kind == PEER_READ_REPLY ||
                message->kind == PEER_ADMIN || message->kind == PEER_ADMIN_REPLY ||
                message->kind == PEER_JOIN || message->kind == PEER_REFUSED;
    if (told) {
        world_trace(world, "s%u tells: %.*s%s%.12s", server->number + 1, (int)line.size,
                    line.data, message->bytes > 0 ? " " : "",
                    message->bytes > 0 ? line.data + line.size + 1 : "");
    }
}

void checker_sends(struct world *world, struct server *server, struct span bytes) {
    while (bytes.size > 0 && !world->failed) {
        const char *end = memchr(bytes.data, '\n', bytes.size);
        if (end == NULL) {
            world_fail(world, "s%u writes half a line", server->number + 1);
            return;
        }
        struct span line = {bytes.data, (size_t)(end - bytes.data)};
        size_t used = line.size + 1;
        if (peer_is_message(line)) {
            struct peer_message message;
            if (peer_read(line, &message) != STATUS_OK || used + message.bytes > bytes.size) {
                world_fail(world, "s%u writes no message: %.*s", server->number + 1,
                           (int)line.size, line.data);
                return;
            }
            check_promise(world, server, &message);
            tell_message(world, server, &message, line);
            used += message.bytes;
        }
        bytes = (struct span){bytes.data + used, bytes.size - used};
    }
}

/* What the answers that are under way may come to is known: cells, and now and then all of
 * them. (In peace the rates are others than those that the machine was filled at.) */
static size_t client_backlog_max(const struct world *world) {
    size_t state = KEYS_MAX * (world->rates.input_bytes_max + ANSWER_BYTES) + 4096;
    return CLIENT_OUT_BYTES_MAX + (IN_FLIGHT_PER_CLIENT_MAX + BURST_MAX) * ANSWER_BYTES +
           MACHINE_STATES_MAX * state;
}

void checker_backlog(struct world *world, struct server *server, struct node_conn *conn) {
    size_t backlog = conn_backlog(conn);
    bool client = conn->kind == CONN_CLIENT;
    size_t most = client ? client_backlog_max(world) : PEER_BACKLOG_MAX;
    if (backlog > most && !world->calm) {
        world_fail(world, "s%u holds %zu bytes for one connection", server->number + 1,
                   backlog);
    }
}

/* --- what was lost, and what is owed ----------------------------------------------------- */
void checker_wiped(struct world *world, uint64_t id) {
    struct durable *durable = durable_of(world, id);
    if (durable->term == 0 && durable->last == 0) {
        durable->known = false; /* it has promised nothing yet: it may get this id again */
    } else {
        durable->lost = true;
    }
}

static bool set_survives(struct world *world, const struct raft_configuration *configuration,
                         bool before, uint64_t also) {
    uint32_t voters = 0;
    uint32_t sound = 0;
    for (uint32_t i = 0; i < configuration->count; i++) {
        const struct raft_member *member = &configuration->members[i];
        if (before ? member->voter_before : member->voter) {
            voters++;
            sound += member->id != also && !durable_of(world, member->id)->lost ? 1 : 0;
        }
    }
    return voters == 0 || sound > voters / 2;
}

bool checker_survives(struct world *world, uint64_t also) {
    for (uint32_t i = 0; i < world->server_count; i++) {
        const struct server *server = &world->servers[i];
        if (!server->up) {
            continue;
        }
        const struct raft_configuration *configuration =
            raft_peek_configuration(server->node->raft);
        if (!set_survives(world, configuration, false, also) ||
            (configuration->joint && !set_survives(world, configuration, true, also))) {
            return false;
        }
    }
    return true;
}

void checker_summary(struct world *world) {
    for (uint32_t i = 0; i < world->server_count; i++) {
        const struct server *server = &world->servers[i];
        if (!server->up) {
            world_trace(world, "s%u is down", i + 1);
            continue;
        }
        struct buffer json;
        buffer_init(&json);
        node_write_state(server->node, &json, (struct span){NULL, 0});
        world_trace(world, "s%u: %.*s", i + 1, (int)buffer_count(&json), buffer_peek(&json));
        buffer_free(&json);
    }
}
