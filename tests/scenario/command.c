/* One line of a scenario: the command, and what it asks for; see scenario.h. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "scenario.h"

struct words {
    uint32_t count;
    char *words[WORDS_MAX];
    char text[512];
};

static bool split(struct words *words, const char *line) {
    words->count = 0;
    snprintf(words->text, sizeof(words->text), "%s", line);
    for (char *at = words->text; *at != '\0';) {
        while (isspace((unsigned char)*at)) {
            *at++ = '\0';
        }
        if (*at != '\0') {
            if (words->count == WORDS_MAX) {
                return false;
            }
            words->words[words->count++] = at;
        }
        while (*at != '\0' && !isspace((unsigned char)*at)) {
            at++;
        }
    }
    return words->count > 0;
}

static const char *word(const struct words *words, uint32_t at) {
    return at < words->count ? words->words[at] : NULL;
}

static uint64_t number_at(const struct words *words, uint32_t at) {
    const char *text = word(words, at);
    return text == NULL ? 0 : strtoull(text, NULL, 10);
}

/* The number after a word; 0 when it is not there. */
static uint64_t number_after(const struct words *words, const char *name) {
    for (uint32_t i = 1; i + 1 < words->count; i++) {
        if (strcmp(words->words[i], name) == 0) {
            return number_at(words, i + 1);
        }
    }
    return 0;
}

static bool has_word(const struct words *words, const char *name) {
    for (uint32_t i = 1; i < words->count; i++) {
        if (strcmp(words->words[i], name) == 0) {
            return true;
        }
    }
    return false;
}

/* 3t2: the entry 3, of term 2. */
static struct raft_position position_of(const char *text) {
    char *end;
    struct raft_position position = {.index = strtoull(text, &end, 10)};
    position.term = *end == 't' ? strtoull(end + 1, NULL, 10) : 0;
    return position;
}

static struct raft_position position_after(const struct words *words, const char *name) {
    for (uint32_t i = 1; i + 1 < words->count; i++) {
        if (strcmp(words->words[i], name) == 0) {
            return position_of(words->words[i + 1]);
        }
    }
    return (struct raft_position){0, 0};
}

/* "1>2", "1>", ">2", a kind of message, "first"; nothing: all. */
static struct selector selector_of(const struct words *words) {
    struct selector selector = {0};
    for (uint32_t i = 1; i < words->count; i++) {
        const char *text = words->words[i];
        const char *arrow = strchr(text, '>');
        if (arrow != NULL) {
            selector.from = strtoull(text, NULL, 10);
            selector.to = strtoull(arrow + 1, NULL, 10);
        } else if (strcmp(text, "first") == 0) {
            selector.first = true;
        } else {
            selector.kind = text;
        }
    }
    return selector;
}

/* --- servers ----------------------------------------------------------------------------- */
static struct raft_configuration voters(uint64_t count) {
    struct raft_configuration configuration = {.count = (uint32_t)count};
    for (uint32_t i = 0; i < count; i++) {
        configuration.members[i] = (struct raft_member){.id = i + 1, .voter = true};
    }
    return configuration;
}

/* A disk whose log holds commands of the terms that follow the word `log`. */
static void fill_disk(struct server *server, const struct words *words) {
    struct disk *disk = &server->disk;
    disk->lines.count = 0;
    bool found = false;
    for (uint32_t i = 1; i < words->count; i++) {
        if (found && !isdigit((unsigned char)words->words[i][0])) {
            break;
        }
        if (found) {
            struct line line = {.term = number_at(words, i), .kind = RAFT_ENTRY_COMMAND};
            lines_append(&disk->lines, &line);
            disk->term = line.term;
        }
        found = found || strcmp(words->words[i], "log") == 0;
    }
    disk->term = has_word(words, "term") ? number_after(words, "term") : disk->term;
    disk->term = disk->term == 0 ? 1 : disk->term;
    disk->voted_for = number_after(words, "vote");
}

static bool run_start(struct cluster *cluster, const struct words *words) {
    uint64_t count = number_at(words, 1);
    if (count == 0 || count > SERVERS_MAX || cluster_find(cluster, 1) != NULL) {
        return false;
    }
    for (uint64_t id = 1; id <= count; id++) {
        struct server *server = cluster_add(cluster, id);
        server->disk.snapshot.configuration = voters(count);
        fill_disk(server, words);
        cluster_open(server);
    }
    return true;
}

static bool run_node(struct cluster *cluster, struct server *server,
                     const struct words *words) {
    (void)cluster;
    raft_free(server->raft);
    fill_disk(server, words);
    cluster_open(server);
    return true;
}

static bool run_new(struct cluster *cluster, const struct words *words) {
    uint64_t id = number_at(words, 1);
    if (id == 0 || id > SERVERS_MAX || cluster_find(cluster, id) != NULL) {
        return false;
    }
    cluster_open(cluster_add(cluster, id));
    return true;
}

static void restart(struct cluster *cluster, struct server *server) {
    cluster_open(server);
    print_state(cluster, server);
    cluster_turn(cluster, server);
    for (uint32_t i = 0; i < SERVERS_MAX; i++) {
        struct server *other = &cluster->servers[i];
        if (other != server && other->up) {
            cluster_connect(cluster, server, other);
        }
    }
}

static bool run_down(struct cluster *cluster, struct server *server,
                     const struct words *words) {
    if (server->up) {
        return false;
    }
    if (strcmp(words->words[0], "restart") == 0) {
        restart(cluster, server);
    } else if (strcmp(words->words[0], "damage") == 0) {
        lines_truncate(&server->disk.lines, number_at(words, 2));
        server->damaged = true;
    } else if (strcmp(words->words[0], "wipe") == 0) {
        lines_free(&server->disk.lines);
        server->disk = (struct disk){.lines.first = 1};
    } else {
        return false;
    }
    return true;
}

static void campaign(struct cluster *cluster, struct server *server) {
    uint64_t deadline_ms = raft_deadline_ms(server->raft);
    server->now_ms = deadline_ms > server->now_ms ? deadline_ms : server->now_ms;
    (void)!cluster_do(cluster, server, &(struct raft_event){.kind = RAFT_EVENT_TICK});
}

static bool run_tick(struct cluster *cluster, const struct words *words) {
    uint64_t id = words->count > 2 ? number_at(words, 1) : 0;
    uint64_t ms = number_at(words, words->count - 1);
    for (uint32_t i = 0; i < SERVERS_MAX; i++) {
        struct server *server = &cluster->servers[i];
        if (server->up && (id == 0 || id == server->id)) {
            server->now_ms += ms;
            (void)!cluster_do(cluster, server, &(struct raft_event){.kind = RAFT_EVENT_TICK});
        }
    }
    return words->count > 1;
}

/* --- disks ------------------------------------------------------------------------------- */
static bool run_batch(struct cluster *cluster, const struct words *words) {
    cluster->batch = number_at(words, 1);
    return words->count > 1;
}

static bool run_disks(struct cluster *cluster, const struct words *words) {
    cluster->disks_instant = has_word(words, "instant");
    return cluster->disks_instant || has_word(words, "manual");
}

static void persist(struct cluster *cluster, struct server *server, bool first) {
    while (disk_tell(cluster, server) && !first) {
    }
    cluster_turn(cluster, server);
}

static bool run_persist(struct cluster *cluster, const struct words *words) {
    uint64_t id = number_at(words, 1);
    for (uint32_t i = 0; i < SERVERS_MAX; i++) {
        struct server *server = &cluster->servers[i];
        if (server->up && (id == 0 || id == server->id)) {
            persist(cluster, server, has_word(words, "first"));
        }
    }
    return true;
}

/* --- the network ------------------------------------------------------------------------- */
static bool run_messages(struct cluster *cluster, const struct words *words) {
    const struct selector selector = selector_of(words);
    const char *name = words->words[0];
    uint32_t count = 0;
    if (strcmp(name, "deliver") == 0) {
        count = network_deliver(cluster, &selector);
    } else if (strcmp(name, "drop") == 0) {
        count = network_drop(cluster, &selector);
    } else if (strcmp(name, "duplicate") == 0) {
        count = network_duplicate(cluster, &selector);
    } else {
        count = network_keep(cluster, &selector, strcmp(name, "keep") == 0);
    }
    if (count == 0) {
        say(cluster, "nothing is in flight");
    }
    return true;
}

static bool run_cut(struct cluster *cluster, const struct words *words) {
    bool cut = strcmp(words->words[0], "cut") == 0;
    bool one = words->count > 1 && strchr(words->words[1], '>') == NULL;
    uint64_t alone = number_at(words, 1);
    const struct selector selector = one ? (struct selector){0} : selector_of(words);
    for (uint64_t from = 1; from <= SERVERS_MAX; from++) {
        for (uint64_t to = 1; to <= SERVERS_MAX; to++) {
            bool chosen = one ? from == alone || to == alone
                              : (selector.from == 0 || selector.from == from) &&
                                    (selector.to == 0 || selector.to == to);
            cluster->cut[from][to] = chosen ? cut : cluster->cut[from][to];
        }
    }
    return true;
}

static enum raft_message_kind kind_of(const char *name, bool *pre) {
    static const struct raft_message all[] = {
        {.kind = RAFT_VOTE},          {.kind = RAFT_VOTE, .pre = true},
        {.kind = RAFT_VOTE_REPLY},    {.kind = RAFT_VOTE_REPLY, .pre = true},
        {.kind = RAFT_APPEND},        {.kind = RAFT_APPEND_REPLY},
        {.kind = RAFT_SNAPSHOT_REPLY}};
    for (uint32_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        if (strcmp(kind_name(&all[i]), name) == 0) {
            *pre = all[i].pre;
            return all[i].kind;
        }
    }
    return RAFT_TIMEOUT_NOW;
}

/* Commands at the positions that follow the word `entries`. */
static void forge_entries(struct flight *flight, const struct words *words) {
    flight->lines = calloc(WORDS_MAX, sizeof(*flight->lines));
    ASSERT(flight->lines != NULL);
    bool found = false;
    for (uint32_t i = 3; i < words->count; i++) {
        if (found && !isdigit((unsigned char)words->words[i][0])) {
            break;
        }
        if (found) {
            flight->lines[flight->count++] =
                (struct line){.term = position_of(words->words[i]).term};
        }
        found = found || strcmp(words->words[i], "entries") == 0;
    }
    flight->message.count = flight->count;
}

/* What no server here would send now: `forge 2>1 append-reply term 2 match 3 verified 3t2`. */
static bool run_forge(struct cluster *cluster, const struct words *words) {
    if (words->count < 3) {
        return false;
    }
    const struct selector selector = selector_of(words);
    struct flight flight = {.message = {.from = selector.from,
                                        .to = selector.to,
                                        .term = number_after(words, "term"),
                                        .granted = has_word(words, "granted"),
                                        .transfer = has_word(words, "transfer"),
                                        .last = position_after(words, "last"),
                                        .previous = position_after(words, "previous"),
                                        .commit = number_after(words, "commit"),
                                        .round = number_after(words, "round"),
                                        .match = number_after(words, "match"),
                                        .hint = position_after(words, "hint"),
                                        .rejected = has_word(words, "refuses")}};
    struct raft_message *message = &flight.message;
    message->kind = kind_of(words->words[2], &message->pre);
    if (message->kind == RAFT_APPEND_REPLY) {
        message->previous = position_after(words, message->rejected ? "refuses" : "verified");
    }
    forge_entries(&flight, words);
    network_put(cluster, &flight);
    return true;
}

/* --- requests ---------------------------------------------------------------------------- */
static bool run_propose(struct cluster *cluster, struct server *server,
                        const struct words *words) {
    uint64_t count = words->count > 3 ? number_at(words, 3) : 1;
    cluster->text = word(words, 2);
    (void)!cluster_do(
        cluster, server,
        &(struct raft_event){.kind = RAFT_EVENT_PROPOSE, .count = (uint32_t)count});
    cluster->text = NULL;
    return words->count > 2;
}

static bool run_change(struct cluster *cluster, struct server *server,
                       const struct words *words) {
    for (uint32_t i = 2; i < words->count; i++) {
        bool add = words->words[i][0] == '+';
        (void)!cluster_do(cluster, server,
                          &(struct raft_event){.kind = add ? RAFT_EVENT_ADD : RAFT_EVENT_REMOVE,
                                               .id = strtoull(words->words[i] + 1, NULL, 10)});
    }
    return words->count > 2;
}

/* Events that concern another server: `transfer 1 2`, `hangup 1 2`. */
static bool run_about(struct cluster *cluster, struct server *server,
                      const struct words *words) {
    static const struct {
        const char *name;
        enum raft_event_kind kind;
    } kinds[] = {{"transfer", RAFT_EVENT_TRANSFER},
                 {"hangup", RAFT_EVENT_DISCONNECTED},
                 {"snapfail", RAFT_EVENT_SNAPSHOT_FAILED},
                 {"stepdown", RAFT_EVENT_STEP_DOWN},
                 {"found", RAFT_EVENT_BOOTSTRAP}};
    uint64_t other = number_at(words, 2);
    for (uint32_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(kinds[i].name, words->words[0]) == 0) {
            other = kinds[i].kind == RAFT_EVENT_BOOTSTRAP ? server->id : other;
            (void)!cluster_do(cluster, server,
                              &(struct raft_event){.kind = kinds[i].kind, .id = other});
            return true;
        }
    }
    struct server *peer = cluster_find(cluster, other);
    if (peer == NULL || !peer->up || strcmp(words->words[0], "connect") != 0) {
        return false;
    }
    cluster_connect(cluster, server, peer);
    return true;
}

/* --- a look ------------------------------------------------------------------------------ */
static bool run_look(struct cluster *cluster, const struct words *words) {
    uint64_t id = number_at(words, 1);
    bool log = strcmp(words->words[0], "log") == 0;
    for (uint32_t i = 0; i < SERVERS_MAX; i++) {
        const struct server *server = &cluster->servers[i];
        if (!server->used || (id != 0 && id != server->id)) {
            continue;
        }
        if (log && server->up) {
            print_log(cluster, server);
        } else {
            print_state(cluster, server);
        }
    }
    return true;
}

/* --- the table --------------------------------------------------------------------------- */
static bool run_of_server(struct cluster *cluster, struct server *server,
                          const struct words *words) {
    const char *name = words->words[0];
    if (strcmp(name, "disk") == 0) {
        print_disk(cluster, server);
        return true;
    }
    if (!server->up) {
        return run_down(cluster, server, words);
    }
    if (strcmp(name, "node") == 0) {
        return run_node(cluster, server, words);
    }
    if (strcmp(name, "campaign") == 0 || strcmp(name, "elect") == 0) {
        bool quiet = cluster->quiet;
        cluster->quiet = strcmp(name, "elect") == 0;
        campaign(cluster, server);
        if (cluster->quiet) {
            cluster_settle(cluster);
        }
        cluster->quiet = quiet;
    } else if (strcmp(name, "sync") == 0) {
        disk_sync(server);
    } else if (strcmp(name, "crash") == 0) {
        cluster_crash(cluster, server);
    } else if (strcmp(name, "propose") == 0) {
        return run_propose(cluster, server, words);
    } else if (strcmp(name, "change") == 0) {
        return run_change(cluster, server, words);
    } else if (strcmp(name, "read") == 0) {
        bool remote = words->count > 3 && strcmp(words->words[2], "for") == 0;
        cluster_read(cluster, server, remote ? number_at(words, 3) : 0);
    } else if (strcmp(name, "snapshot") == 0) {
        cluster_snapshot(cluster, server, number_at(words, 2));
    } else if (strcmp(name, "timer") == 0) {
        say(cluster, "%llu: due in %llu ms", (unsigned long long)server->id,
            (unsigned long long)(raft_deadline_ms(server->raft) - server->now_ms));
    } else if (strcmp(name, "peers") == 0) {
        print_peers(cluster, server);
    } else {
        return run_about(cluster, server, words);
    }
    return true;
}

bool command_run(struct cluster *cluster, const char *line) {
    static const struct {
        const char *name;
        bool (*run)(struct cluster *cluster, const struct words *words);
    } commands[] = {{"start", run_start},     {"new", run_new},
                    {"tick", run_tick},       {"disks", run_disks},
                    {"persist", run_persist}, {"deliver", run_messages},
                    {"drop", run_messages},   {"duplicate", run_messages},
                    {"keep", run_messages},   {"release", run_messages},
                    {"cut", run_cut},         {"heal", run_cut},
                    {"batch", run_batch},     {"forge", run_forge},
                    {"state", run_look},      {"log", run_look}};
    struct words words;
    if (!split(&words, line)) {
        return false;
    }
    for (uint32_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (strcmp(commands[i].name, words.words[0]) == 0) {
            return commands[i].run(cluster, &words);
        }
    }
    if (strcmp(words.words[0], "settle") == 0) {
        cluster_settle(cluster);
        return true;
    }
    struct server *server = cluster_find(cluster, number_at(&words, 1));
    return server != NULL && run_of_server(cluster, server, &words);
}
