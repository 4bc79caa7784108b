/* Log lines, and disks that hold what was synced and nothing else; see scenario.h. */
#include <stdlib.h>
#include <string.h>

#include "scenario.h"

/* --- lines ------------------------------------------------------------------------------- */
uint64_t lines_last(const struct lines *lines) {
    return lines->first + lines->count - 1;
}

struct line *lines_at(const struct lines *lines, uint64_t index) {
    bool has = index >= lines->first && index < lines->first + lines->count;
    return has ? &lines->lines[index - lines->first] : NULL;
}

void lines_append(struct lines *lines, const struct line *line) {
    if (lines->count == lines->capacity) {
        lines->capacity = lines->capacity * 2 + 8;
        lines->lines = realloc(lines->lines, lines->capacity * sizeof(*lines->lines));
        ASSERT(lines->lines != NULL);
    }
    lines->lines[lines->count++] = *line;
}

void lines_truncate(struct lines *lines, uint64_t index) {
    if (index <= lines_last(lines)) {
        lines->count = index > lines->first ? index - lines->first : 0;
    }
}

void lines_drop_before(struct lines *lines, uint64_t index) {
    if (index <= lines->first) {
        return;
    }
    uint64_t drop = index - lines->first;
    drop = drop < lines->count ? drop : lines->count;
    lines->count -= drop;
    memmove(lines->lines, lines->lines + drop, lines->count * sizeof(*lines->lines));
    lines->first = index;
}

void lines_free(struct lines *lines) {
    free(lines->lines);
    *lines = (struct lines){.first = 1};
}

/* --- writes ------------------------------------------------------------------------------ */
void disk_write(struct server *server, const struct write *write) {
    struct write *copy = malloc(sizeof(*copy));
    ASSERT(copy != NULL);
    *copy = *write;
    copy->next = NULL;
    struct write **end = &server->writes;
    while (*end != NULL) {
        end = &(*end)->next;
    }
    *end = copy;
}

static void store(struct disk *disk, struct write *write) {
    if (write->stored) {
        return;
    }
    write->stored = true;
    if (write->save_vote) {
        disk->term = write->term;
        disk->voted_for = write->voted_for;
    }
    if (write->truncate_from > 0) {
        lines_truncate(&disk->lines, write->truncate_from);
    }
    for (uint64_t i = 0; i < write->lines.count; i++) {
        ASSERT(lines_last(&disk->lines) + 1 == write->lines.first + i);
        lines_append(&disk->lines, &write->lines.lines[i]);
    }
    if (write->kind == WRITE_RESET) {
        disk->lines.count = 0;
        disk->lines.first = write->snapshot.position.index + 1;
    } else if (write->kind != WRITE_TURN) {
        disk->snapshot = write->snapshot;
    }
}

void disk_sync(struct server *server) {
    for (struct write *write = server->writes; write != NULL; write = write->next) {
        store(&server->disk, write);
    }
}

static struct write *pop(struct server *server) {
    struct write *write = server->writes;
    if (write != NULL) {
        server->writes = write->next;
    }
    return write;
}

static void step_written(struct cluster *cluster, struct server *server,
                         const struct write *write) {
    struct raft_outcome outcome;
    if (write->save_vote) {
        (void)!cluster_step(cluster, server,
                            &(struct raft_event){.kind = RAFT_EVENT_VOTE_PERSISTED,
                                                 .term = write->term,
                                                 .voted_for = write->voted_for},
                            NULL, &outcome);
    }
    if (write->lines.count > 0) {
        uint64_t last = lines_last(&write->lines);
        (void)!cluster_step(
            cluster, server,
            &(struct raft_event){.kind = RAFT_EVENT_LOG_PERSISTED,
                                 .generation = write->generation,
                                 .position = {lines_at(&write->lines, last)->term, last}},
            NULL, &outcome);
    }
    if (write->kind != WRITE_OWN && write->kind != WRITE_RECEIVED) {
        return;
    }
    enum raft_result result = cluster_step(
        cluster, server,
        &(struct raft_event){.kind = write->kind == WRITE_OWN ? RAFT_EVENT_COMPACTED
                                                              : RAFT_EVENT_INSTALLED,
                             .position = write->snapshot.position,
                             .configuration = &write->snapshot.configuration,
                             .configuration_index = write->snapshot.configuration_index},
        NULL, &outcome);
    if (result != RAFT_OK) {
        return;
    }
    if (outcome.log_reset) {
        disk_write(server, &(struct write){.kind = WRITE_RESET, .snapshot = write->snapshot});
    } else {
        lines_drop_before(&server->lines, write->snapshot.position.index + 1);
    }
    say(cluster, "%llu: its log begins after %llut%llu%s", (unsigned long long)server->id,
        (unsigned long long)write->snapshot.position.index,
        (unsigned long long)write->snapshot.position.term,
        outcome.log_reset ? " and is empty" : "");
}

bool disk_tell(struct cluster *cluster, struct server *server) {
    struct write *write = pop(server);
    if (write == NULL) {
        return false;
    }
    store(&server->disk, write);
    step_written(cluster, server, write);
    lines_free(&write->lines);
    free(write);
    return true;
}

void disk_forget_writes(struct server *server) {
    for (struct write *write = pop(server); write != NULL; write = pop(server)) {
        lines_free(&write->lines);
        free(write);
    }
}

/* --- opening ----------------------------------------------------------------------------- */
/* A log that does not continue the snapshot is dropped: the crash came before its reset. */
static void recover_lines(struct server *server) {
    struct disk *disk = &server->disk;
    struct raft_position end = disk->snapshot.position;
    const struct line *line = lines_at(&disk->lines, end.index);
    if (disk->lines.first != end.index + 1 && (line == NULL || line->term != end.term)) {
        disk->lines.count = 0;
        disk->lines.first = end.index + 1;
    }
    lines_drop_before(&disk->lines, end.index + 1);
    server->lines.first = disk->lines.first;
    server->lines.count = 0;
    for (uint64_t i = 0; i < disk->lines.count; i++) {
        lines_append(&server->lines, &disk->lines.lines[i]);
    }
}

struct raft *disk_open(struct server *server) {
    recover_lines(server);
    uint64_t count = server->lines.count;
    struct raft_entry *entries = calloc(count + 1, sizeof(*entries));
    ASSERT(entries != NULL);
    for (uint64_t i = 0; i < count; i++) {
        const struct line *line = &server->lines.lines[i];
        entries[i] = (struct raft_entry){line->term, line->kind, &line->configuration};
    }
    struct raft *raft = raft_new(
        &(struct raft_options){.id = server->id,
                               .seed = 7 * server->id + server->incarnation,
                               .now_ms = server->now_ms,
                               .min_election_timeout_ms = MIN_TIMEOUT_MS,
                               .max_election_timeout_ms = MAX_TIMEOUT_MS,
                               .term = server->disk.term,
                               .voted_for = server->disk.voted_for,
                               .snapshot = server->disk.snapshot.position,
                               .configuration = server->disk.snapshot.configuration,
                               .configuration_index = server->disk.snapshot.configuration_index,
                               .entry_count = count,
                               .entries = entries,
                               .quarantined = server->damaged});
    ASSERT(raft != NULL);
    free(entries);
    return raft;
}
