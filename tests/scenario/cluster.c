/* Servers around cores: steps, turns, crashes, and what must hold whatever is expected; see
 * scenario.h. */
#include <stdlib.h>
#include <string.h>

#include "scenario.h"

#define TAKES_MAX 50u
#define SETTLE_ROUNDS_MAX 200u

struct server *cluster_find(struct cluster *cluster, uint64_t id) {
    bool known = id >= 1 && id <= SERVERS_MAX && cluster->servers[id - 1].used;
    return known ? &cluster->servers[id - 1] : NULL;
}

struct server *cluster_add(struct cluster *cluster, uint64_t id) {
    struct server *server = &cluster->servers[id - 1];
    *server = (struct server){.id = id, .used = true, .now_ms = 1000};
    server->lines.first = 1;
    server->disk.lines.first = 1;
    return server;
}

void cluster_open(struct server *server) {
    server->incarnation += 1;
    server->raft = disk_open(server);
    server->up = true;
    raft_peek_state(server->raft, &server->state);
}

void cluster_crash(struct cluster *cluster, struct server *server) {
    disk_forget_writes(server);
    raft_free(server->raft);
    server->raft = NULL;
    server->up = false;
    server->read_count = 0;
    server->damaged = server->damaged && server->state.quarantined;
    server->state.role = RAFT_FOLLOWER;
    (void)network_drop(cluster, &(struct selector){.from = server->id});
    (void)network_drop(cluster, &(struct selector){.to = server->id});
}

void cluster_clear(struct cluster *cluster) {
    for (uint32_t i = 0; i < SERVERS_MAX; i++) {
        struct server *server = &cluster->servers[i];
        if (server->used) {
            disk_forget_writes(server);
            raft_free(server->raft);
            lines_free(&server->lines);
            lines_free(&server->disk.lines);
        }
    }
    for (uint32_t i = 0; i < cluster->flight_count; i++) {
        flight_free(&cluster->flights[i]);
    }
}

/* --- what must hold ---------------------------------------------------------------------- */
/* A forged entry has no text. */
static bool same_line(const struct line *a, const struct line *b) {
    bool told = a->text[0] != '\0' && b->text[0] != '\0';
    return a->term == b->term && a->kind == b->kind && (!told || strcmp(a->text, b->text) == 0);
}

/* Leader completeness and state-machine safety (3.6.3). */
static void check_committed(struct cluster *cluster, const struct server *server,
                            uint64_t before) {
    for (uint64_t i = before + 1; i <= server->state.commit_index && i < COMMITTED_MAX; i++) {
        const struct line *line = lines_at(&server->lines, i);
        if (line == NULL) {
            continue;
        }
        if (cluster->committed[i].term == 0) {
            cluster->committed[i] = *line;
        } else if (!same_line(&cluster->committed[i], line)) {
            fprintf(cluster->out, "    VIOLATION: %llu commits another entry at %llu\n",
                    (unsigned long long)server->id, (unsigned long long)i);
        }
    }
    if (server->state.commit_index > cluster->committed_last) {
        cluster->committed_last = server->state.commit_index;
    }
}

/* Election safety (3.4). */
static void check_leader(struct cluster *cluster, const struct server *server) {
    if (server->state.role != RAFT_LEADER || server->state.term >= TERMS_MAX) {
        return;
    }
    uint64_t *leader = &cluster->leaders[server->state.term];
    if (*leader != 0 && *leader != server->id) {
        fprintf(cluster->out, "    VIOLATION: %llu and %llu lead term %llu\n",
                (unsigned long long)*leader, (unsigned long long)server->id,
                (unsigned long long)server->state.term);
    }
    *leader = server->id;
}

/* --- steps ------------------------------------------------------------------------------- */
/* Lines for what the core appended by itself, and for what was proposed. */
static void follow_core(struct cluster *cluster, struct server *server) {
    while (lines_last(&server->lines) < server->state.last.index) {
        uint64_t index = lines_last(&server->lines) + 1;
        const struct raft_configuration *configuration = NULL;
        struct line line = {.term = raft_term_at(server->raft, index)};
        line.kind = raft_kind_at(server->raft, index, &configuration);
        if (configuration != NULL) {
            line.configuration = *configuration;
        }
        if (line.kind == RAFT_ENTRY_COMMAND && cluster->text != NULL) {
            snprintf(line.text, sizeof(line.text), "%s", cluster->text);
        }
        lines_append(&server->lines, &line);
    }
}

enum raft_result cluster_step(struct cluster *cluster, struct server *server,
                              const struct raft_event *event, const struct flight *flight,
                              struct raft_outcome *outcome) {
    struct raft_state before = server->state;
    struct raft_event timed = *event;
    timed.now_ms = server->now_ms;
    enum raft_result result = raft_step(server->raft, &timed, outcome);
    raft_peek_state(server->raft, &server->state);
    if (event->kind !=
        RAFT_EVENT_CONNECTED) { /* concerns leaders alone: the others say stale */
        print_result(cluster, server, event, result);
    }
    if (outcome->log_reset) {
        server->lines.count = 0;
        server->lines.first = server->state.snapshot.index + 1;
    }
    if (outcome->truncated_from > 0) {
        lines_truncate(&server->lines, outcome->truncated_from);
        say(cluster, "%llu: its log is cut from %llu on", (unsigned long long)server->id,
            (unsigned long long)outcome->truncated_from);
    }
    for (uint64_t i = outcome->first; flight != NULL && i <= outcome->last; i++) {
        lines_append(&server->lines, &flight->lines[i - flight->message.previous.index - 1]);
    }
    follow_core(cluster, server);
    print_changes(cluster, server, &before);
    check_committed(cluster, server, before.commit_index);
    check_leader(cluster, server);
    return result;
}

/* --- reads ------------------------------------------------------------------------------- */
void cluster_read(struct cluster *cluster, struct server *server, uint64_t asker) {
    struct raft_outcome outcome;
    struct read read = {.number = ++cluster->reads, .floor = cluster->committed_last};
    enum raft_result result = cluster_step(
        cluster, server, &(struct raft_event){.kind = RAFT_EVENT_READ, .id = asker}, NULL,
        &outcome);
    if (result == RAFT_OK && outcome.round == 0) {
        say(cluster, "%llu: read %llu is proven by %llu, at index %llu",
            (unsigned long long)server->id, (unsigned long long)read.number,
            (unsigned long long)asker, (unsigned long long)outcome.index);
    } else if (result == RAFT_OK && server->read_count < READS_MAX) {
        read.term = server->state.term;
        read.round = outcome.round;
        read.index = outcome.index;
        server->reads[server->read_count++] = read;
        say(cluster, "%llu: read %llu waits for round %llu and index %llu",
            (unsigned long long)server->id, (unsigned long long)read.number,
            (unsigned long long)read.round, (unsigned long long)read.index);
    }
    cluster_turn(cluster, server);
}

static void answer_reads(struct cluster *cluster, struct server *server,
                         const struct raft_actions *actions) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < server->read_count; i++) {
        struct read read = server->reads[i];
        if (server->state.role != RAFT_LEADER || server->state.term != read.term) {
            fprintf(cluster->out, "    %llu: read %llu has to be asked again\n",
                    (unsigned long long)server->id, (unsigned long long)read.number);
        } else if (actions->reads_confirmed >= read.round &&
                   actions->commit_index >= read.index) {
            fprintf(cluster->out, "    %llu: read %llu is answered at %llu\n",
                    (unsigned long long)server->id, (unsigned long long)read.number,
                    (unsigned long long)actions->commit_index);
            if (read.index < read.floor) {
                fprintf(cluster->out, "    VIOLATION: it misses the commit of %llu\n",
                        (unsigned long long)read.floor);
            }
        } else {
            server->reads[kept++] = read;
        }
    }
    server->read_count = kept;
}

/* --- turns ------------------------------------------------------------------------------- */
static void give_to_disk(struct cluster *cluster, struct server *server,
                         const struct raft_actions *actions) {
    struct write write = {.kind = WRITE_TURN,
                          .save_vote = actions->save_vote,
                          .term = actions->term,
                          .voted_for = actions->voted_for,
                          .truncate_from = actions->truncate_from,
                          .lines.first = actions->append_first,
                          .generation = actions->generation};
    for (uint64_t i = actions->append_first; i <= actions->append_last; i++) {
        lines_append(&write.lines, lines_at(&server->lines, i));
    }
    if (write.save_vote || write.truncate_from > 0 || write.lines.count > 0) {
        print_write(cluster, server, &write);
        disk_write(server, &write);
    }
}

static void take(struct cluster *cluster, struct server *server) {
    struct raft_actions actions;
    raft_take_actions(server->raft, &actions);
    give_to_disk(cluster, server, &actions);
    answer_reads(cluster, server, &actions);
    for (uint32_t i = 0; i < actions.message_count; i++) {
        network_send(cluster, server, &actions.messages[i]);
    }
}

void cluster_turn(struct cluster *cluster, struct server *server) {
    for (uint32_t takes = 0;; takes++) {
        bool more = false;
        if (cluster->disks_instant) {
            while (disk_tell(cluster, server)) {
                more = true;
            }
        }
        if (raft_has_actions(server->raft)) {
            take(cluster, server);
            more = true;
        }
        if (!more) {
            return;
        }
        if (takes == TAKES_MAX) {
            fprintf(cluster->out, "    VIOLATION: %llu: actions without end\n",
                    (unsigned long long)server->id);
            return;
        }
    }
}

enum raft_result cluster_do(struct cluster *cluster, struct server *server,
                            const struct raft_event *event) {
    struct raft_outcome outcome;
    enum raft_result result = cluster_step(cluster, server, event, NULL, &outcome);
    cluster_turn(cluster, server);
    return result;
}

/* What was in flight on an earlier connection never arrives. */
void cluster_connect(struct cluster *cluster, struct server *a, struct server *b) {
    (void)network_drop(cluster, &(struct selector){.from = a->id, .to = b->id});
    (void)network_drop(cluster, &(struct selector){.from = b->id, .to = a->id});
    (void)!cluster_do(cluster, a,
                      &(struct raft_event){.kind = RAFT_EVENT_CONNECTED,
                                           .id = b->id,
                                           .incarnation = b->incarnation});
    (void)!cluster_do(cluster, b,
                      &(struct raft_event){.kind = RAFT_EVENT_CONNECTED,
                                           .id = a->id,
                                           .incarnation = a->incarnation});
}

/* index 0: of all that is committed. */
void cluster_snapshot(struct cluster *cluster, struct server *server, uint64_t index) {
    struct snapshot snapshot = {0};
    index = index == 0 ? server->state.commit_index : index;
    snapshot.position = (struct raft_position){raft_term_at(server->raft, index), index};
    const struct raft_configuration *configuration =
        raft_configuration_at(server->raft, index, &snapshot.configuration_index);
    if (configuration == NULL) {
        say(cluster, "%llu: nothing is known of %llu", (unsigned long long)server->id,
            (unsigned long long)index);
        return;
    }
    snapshot.configuration = *configuration;
    disk_write(server, &(struct write){.kind = WRITE_OWN, .snapshot = snapshot});
    cluster_turn(cluster, server);
}

void cluster_settle(struct cluster *cluster) {
    bool quiet = cluster->quiet;
    cluster->quiet = true;
    bool moved = true;
    for (uint32_t round = 0; moved && round < SETTLE_ROUNDS_MAX; round++) {
        moved = false;
        for (uint32_t i = 0; i < SERVERS_MAX; i++) {
            struct server *server = &cluster->servers[i];
            while (server->up && disk_tell(cluster, server)) {
                moved = true;
            }
            if (server->up) {
                cluster_turn(cluster, server);
            }
        }
        moved = network_deliver(cluster, &(struct selector){0}) > 0 || moved;
    }
    cluster->quiet = quiet;
    if (moved) {
        fprintf(cluster->out, "    VIOLATION: it never settles\n");
    }
}
