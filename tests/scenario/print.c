/* Messages, states and logs in words; see scenario.h. 3t2 is the entry 3, of term 2. */
#include <stdarg.h>
#include <string.h>

#include "scenario.h"

typedef unsigned long long number;

void say(struct cluster *cluster, const char *format, ...) {
    if (cluster->quiet) {
        return;
    }
    fprintf(cluster->out, "    ");
    va_list args;
    va_start(args, format);
    vfprintf(cluster->out, format, args);
    va_end(args);
    fprintf(cluster->out, "\n");
}

const char *kind_name(const struct raft_message *message) {
    switch (message->kind) {
    case RAFT_VOTE:
        return message->pre ? "prevote" : "vote";
    case RAFT_VOTE_REPLY:
        return message->pre ? "prevote-reply" : "vote-reply";
    case RAFT_APPEND:
        return "append";
    case RAFT_APPEND_REPLY:
        return "append-reply";
    case RAFT_SNAPSHOT:
        return "snapshot";
    case RAFT_SNAPSHOT_REPLY:
        return "snapshot-reply";
    case RAFT_TIMEOUT_NOW:
        return "timeout-now";
    }
    return "?";
}

static void print_position(FILE *out, const char *name, struct raft_position position) {
    if (position.index == 0) {
        fprintf(out, " %s 0", name);
    } else {
        fprintf(out, " %s %llut%llu", name, (number)position.index, (number)position.term);
    }
}

static void print_set(FILE *out, const struct raft_configuration *configuration, bool old_set) {
    const char *space = "";
    fprintf(out, "{");
    for (uint32_t i = 0; i < configuration->count; i++) {
        const struct raft_member *member = &configuration->members[i];
        bool learner = !member->voter && !member->voter_before;
        if (old_set ? member->voter_before : member->voter) {
            fprintf(out, "%s%llu", space, (number)member->id);
            space = " ";
        } else if (learner && !old_set) {
            fprintf(out, "%s(%llu)", space, (number)member->id);
            space = " ";
        }
    }
    fprintf(out, "}");
}

/* {1 2 (3)}: voters 1 and 2, learner 3; joint: the old set, then the new one. */
static void print_configuration(FILE *out, const struct raft_configuration *configuration) {
    if (configuration->joint) {
        print_set(out, configuration, true);
        fprintf(out, "+");
    }
    print_set(out, configuration, false);
}

static void print_line(FILE *out, uint64_t index, const struct line *line) {
    fprintf(out, " %llut%llu", (number)index, (number)line->term);
    switch (line->kind) {
    case RAFT_ENTRY_COMMAND:
        fprintf(out, "%s%s", line->text[0] != '\0' ? " " : "", line->text);
        break;
    case RAFT_ENTRY_NOOP:
        fprintf(out, " noop");
        break;
    case RAFT_ENTRY_CONFIGURATION:
        fprintf(out, " ");
        print_configuration(out, &line->configuration);
        break;
    }
}

static void print_append(FILE *out, const struct flight *flight) {
    const struct raft_message *message = &flight->message;
    print_position(out, "previous", message->previous);
    if (flight->count > 0) {
        fprintf(out, " entries");
    }
    for (uint32_t i = 0; i < flight->count; i++) {
        print_line(out, message->previous.index + 1 + i, &flight->lines[i]);
        fprintf(out, i + 1 < flight->count ? "," : "");
    }
    fprintf(out, " commit %llu", (number)message->commit);
}

static void print_append_reply(FILE *out, const struct raft_message *message) {
    if (message->rejected) {
        print_position(out, "refuses", message->previous);
        print_position(out, "hint", message->hint);
    } else {
        print_position(out, "verified", message->previous);
    }
    fprintf(out, " match %llu", (number)message->match);
}

void print_message(struct cluster *cluster, const struct flight *flight, const char *end) {
    const struct raft_message *message = &flight->message;
    FILE *out = cluster->out;
    if (cluster->quiet) {
        return;
    }
    fprintf(out, "    %llu>%llu %s term %llu", (number)message->from, (number)message->to,
            kind_name(message), (number)message->term);
    switch (message->kind) {
    case RAFT_VOTE:
        print_position(out, "last", message->last);
        fprintf(out, "%s", message->transfer ? " transfer" : "");
        break;
    case RAFT_VOTE_REPLY:
        fprintf(out, "%s", message->granted ? " granted" : " refused");
        break;
    case RAFT_APPEND:
        print_append(out, flight);
        break;
    case RAFT_APPEND_REPLY:
        print_append_reply(out, message);
        break;
    case RAFT_SNAPSHOT:
        print_position(out, "last", message->last);
        break;
    case RAFT_SNAPSHOT_REPLY:
        fprintf(out, " match %llu", (number)message->match);
        break;
    case RAFT_TIMEOUT_NOW:
        break;
    }
    if (message->round > 0) {
        fprintf(out, " round %llu", (number)message->round);
    }
    fprintf(out, "%s\n", end);
}

/* --- changes ----------------------------------------------------------------------------- */
static const char *role_name(enum raft_role role) {
    switch (role) {
    case RAFT_FOLLOWER:
        return "follower";
    case RAFT_PRECANDIDATE:
        return "pre-candidate";
    case RAFT_CANDIDATE:
        return "candidate";
    case RAFT_LEADER:
        return "leader";
    }
    return "?";
}

static void print_role(FILE *out, const struct server *server) {
    const struct raft_state *state = &server->state;
    fprintf(out, "    %llu ", (number)server->id);
    switch (state->role) {
    case RAFT_FOLLOWER:
        if (state->leader == 0) {
            fprintf(out, "waits in");
        } else {
            fprintf(out, "follows %llu in", (number)state->leader);
        }
        break;
    case RAFT_PRECANDIDATE:
    case RAFT_CANDIDATE:
        fprintf(out, "is a %s in", role_name(state->role));
        break;
    case RAFT_LEADER:
        fprintf(out, "leads");
        break;
    }
    fprintf(out, " term %llu\n", (number)state->term);
}

void print_changes(struct cluster *cluster, const struct server *server,
                   const struct raft_state *before) {
    const struct raft_state *now = &server->state;
    FILE *out = cluster->out;
    if (now->role != before->role || now->term != before->term ||
        now->leader != before->leader) {
        print_role(out, server);
    }
    if (now->commit_index != before->commit_index) {
        fprintf(out, "    %llu: commit %llu\n", (number)server->id, (number)now->commit_index);
    }
    if (now->configuration_index != before->configuration_index) {
        fprintf(out, "    %llu: members ", (number)server->id);
        print_configuration(out, raft_peek_configuration(server->raft));
        fprintf(out, "\n");
    }
    if (now->quarantined != before->quarantined) {
        fprintf(out, "    %llu: its log is whole again\n", (number)server->id);
    }
    if (now->transferee != before->transferee) {
        fprintf(out, "    %llu: %s %llu\n", (number)server->id,
                now->transferee != 0 ? "hands over to" : "does not hand over any more to",
                (number)(now->transferee != 0 ? now->transferee : before->transferee));
    }
}

void print_write(struct cluster *cluster, const struct server *server,
                 const struct write *write) {
    if (cluster->quiet || cluster->disks_instant) {
        return;
    }
    FILE *out = cluster->out;
    fprintf(out, "    %llu writes", (number)server->id);
    if (write->save_vote) {
        fprintf(out, " term %llu vote %llu", (number)write->term, (number)write->voted_for);
    }
    if (write->truncate_from > 0) {
        fprintf(out, " cut at %llu", (number)write->truncate_from);
    }
    for (uint64_t i = 0; i < write->lines.count; i++) {
        fprintf(out, i > 0 ? "," : " log");
        print_line(out, write->lines.first + i, &write->lines.lines[i]);
    }
    fprintf(out, "\n");
}

void print_result(struct cluster *cluster, const struct server *server,
                  const struct raft_event *event, enum raft_result result) {
    static const char *const names[] = {
        [RAFT_OK] = "ok",
        [RAFT_NOT_LEADER] = "not the leader",
        [RAFT_BUSY] = "busy",
        [RAFT_OVERLOADED] = "overloaded",
        [RAFT_ALREADY_MEMBER] = "already a member",
        [RAFT_NOT_MEMBER] = "not a member",
        [RAFT_TOO_MANY_MEMBERS] = "too many members",
        [RAFT_LAST_VOTER] = "the last voter",
        [RAFT_STALE] = "stale",
        [RAFT_BAD_MESSAGE] = "BAD MESSAGE",
        [RAFT_NO_MEMORY] = "no memory",
    };
    if (result == RAFT_OK || (cluster->quiet && result != RAFT_BAD_MESSAGE)) {
        return;
    }
    fprintf(cluster->out, "    %llu: %s", (number)server->id, names[result]);
    if (event->kind == RAFT_EVENT_RECEIVE) {
        fprintf(cluster->out, ": %s of %llu", kind_name(event->message),
                (number)event->message->from);
    }
    fprintf(cluster->out, "%s\n", event->kind == RAFT_EVENT_LOG_PERSISTED ? " sync" : "");
}

/* --- on request -------------------------------------------------------------------------- */
void print_state(struct cluster *cluster, const struct server *server) {
    const struct raft_state *state = &server->state;
    FILE *out = cluster->out;
    if (!server->up) {
        fprintf(out, "    %llu is down\n", (number)server->id);
        return;
    }
    fprintf(out, "    %llu %s term %llu vote %llu leader %llu", (number)server->id,
            role_name(state->role), (number)state->term, (number)state->voted_for,
            (number)state->leader);
    print_position(out, "last", state->last);
    fprintf(out, " durable %llu commit %llu members ", (number)state->durable_index,
            (number)state->commit_index);
    print_configuration(out, raft_peek_configuration(server->raft));
    fprintf(out, "%s\n", state->quarantined ? " quarantined" : "");
}

/* Committed entries stand before the bar. */
void print_log(struct cluster *cluster, const struct server *server) {
    FILE *out = cluster->out;
    fprintf(out, "    %llu:", (number)server->id);
    if (server->state.snapshot.index > 0) {
        print_position(out, "after", server->state.snapshot);
        fprintf(out, ":");
    }
    for (uint64_t i = server->lines.first; i <= lines_last(&server->lines); i++) {
        if (i == server->state.commit_index + 1) {
            fprintf(out, " |");
        }
        print_line(out, i, lines_at(&server->lines, i));
    }
    if (server->lines.count == 0 || server->state.commit_index == lines_last(&server->lines)) {
        fprintf(out, " |");
    }
    fprintf(out, "\n");
}

void print_disk(struct cluster *cluster, const struct server *server) {
    const struct disk *disk = &server->disk;
    FILE *out = cluster->out;
    fprintf(out, "    %llu's disk: term %llu vote %llu", (number)server->id, (number)disk->term,
            (number)disk->voted_for);
    if (disk->snapshot.position.index > 0) {
        print_position(out, "snapshot", disk->snapshot.position);
    }
    fprintf(out, " log");
    for (uint64_t i = disk->lines.first; i <= lines_last(&disk->lines); i++) {
        print_line(out, i, lines_at(&disk->lines, i));
    }
    fprintf(out, "\n");
}

void print_peers(struct cluster *cluster, const struct server *server) {
    struct raft_peer_state peer;
    for (uint64_t id = 1; id <= SERVERS_MAX; id++) {
        if (raft_peek_peer(server->raft, id, &peer)) {
            fprintf(cluster->out, "    %llu of %llu: %s match %llu next %llu\n",
                    (number)server->id, (number)id,
                    peer.in_snapshot ? "snapshot"
                    : peer.probing   ? "probe"
                                     : "pipeline",
                    (number)peer.match, (number)peer.next);
        }
    }
}
