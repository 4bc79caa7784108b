/* Changes of the cluster that somebody asked for: created, added, removed; and asked-for
 * snapshots.
 *
 * One change is under way at a time, the others wait in a line. A server that is not the leader
 * passes its own requests on. Invariant: each request is answered once - to our client, to the
 * server that passed it on, or to nobody where we asked ourselves (a wiped member is replaced).
 */
#include "base/assert.h"
#include "base/memory.h"
#include "node/internal.h"
#include "wire/address.h"
#include "wire/scan.h"

/* --- the line --- */
static struct admin *new_admin(struct node *node, enum admin_kind kind, const char *address) {
    struct admin *admin = memory_must_alloc_zero(sizeof(*admin));
    admin->kind = kind;
    admin->deadline_ms = node->now_ms + node->request_timeout_ms;
    admin->batch = node_unique_number(node, ++node->next_admin_batch);
    memcpy(admin->address, address, strlen(address) + 1);
    struct admin **last = &node->admins;
    while (*last != NULL) {
        last = &(*last)->next;
    }
    *last = admin;
    node->admin_count++;
    return admin;
}

/* One that says nothing would be in the way of the next for ever. */
static void stop_probing(struct node *node, const struct admin *admin) {
    if (admin->stage == ADMIN_PROBING && node->probe != NULL && node->probe->host != NULL) {
        conn_close(node, node->probe);
        node->probe = NULL;
    }
}

static void unlink_admin(struct node *node, struct admin *admin) {
    stop_probing(node, admin);
    struct admin **at = &node->admins;
    while (*at != admin) {
        at = &(*at)->next;
    }
    *at = admin->next;
    node->admin_count--;
    caller_drop(&admin->caller);
    memory_free(admin);
}

/* --- answering --- */
/* Numbers between servers have no sign. JSON-RPC's own codes are negative, and further from
 * zero than any of ours. */
#define RESERVED_CODES_FROM 32000u
#define RESERVED_CODES_TO 32768u

static uint64_t code_to_wire(enum rpc_code code) {
    return (uint64_t)(code < 0 ? -(int)code : (int)code);
}

static enum rpc_code code_from_wire(uint64_t code) {
    if (code > RESERVED_CODES_TO) {
        return RPC_INTERNAL_ERROR;
    }
    return (enum rpc_code)(code >= RESERVED_CODES_FROM ? -(int)code : (int)code);
}

static void reply_to_peer(struct node *node, struct admin *admin, enum rpc_code code,
                          struct span body) {
    struct peer *peer = peers_find_ready(node, admin->origin);
    if (peer != NULL) {
        conn_send_message(node, peer->out,
                          &(struct peer_message){.kind = PEER_ADMIN_REPLY,
                                                 .batch = admin->batch,
                                                 .code = code_to_wire(code),
                                                 .body = body});
    }
}

static void finish(struct node *node, struct admin *admin, enum rpc_code code,
                   struct span body) {
    if (admin->origin > 0) {
        reply_to_peer(node, admin, code, body);
    } else if (code == RPC_OK) {
        caller_result(node, &admin->caller, body);
    } else {
        caller_error(node, &admin->caller, code, body);
    }
    unlink_admin(node, admin);
}

static void refuse(struct node *node, struct admin *admin, enum rpc_code code,
                   const char *outcome, const char *reason) {
    struct buffer data;
    buffer_init(&data);
    buffer_append_format(&data, "{\"outcome\":\"%s\"", outcome);
    if (reason != NULL) {
        buffer_append_text(&data, ",\"reason\":");
        scan_append_string(&data, (struct span){reason, strlen(reason)});
    }
    buffer_append_char(&data, '}');
    finish(node, admin, code, buffer_span(&data));
    buffer_free(&data);
}

static void done(struct node *node, struct admin *admin) {
    struct buffer result;
    buffer_init(&result);
    if (admin->kind == ADMIN_SNAPSHOT) {
        buffer_append_text(&result, "{\"snapshot_index\":");
        buffer_append_u64(&result, node->snapshots.position.index);
    } else {
        buffer_append_text(&result, "{\"members\":");
        members_write(node, &result);
    }
    buffer_append_char(&result, '}');
    finish(node, admin, RPC_OK, buffer_span(&result));
    buffer_free(&result);
}

/* --- requests --- */
void admin_submit(struct node *node, struct node_conn *conn, struct gather *gather,
                  const struct rpc_request *request) {
    struct caller caller;
    caller_init(&caller, conn, gather, request);
    if (!node_is_member(node)) {
        caller_refuse(node, &caller, RPC_NOT_MEMBER, "not_applied", NULL);
        return;
    }
    if (node->admin_count >= ADMIN_REQUESTS_MAX) {
        caller_refuse(node, &caller, RPC_OVERLOADED, "not_applied",
                      "too many administrative requests wait");
        return;
    }
    enum admin_kind kind = request->method == RPC_ADD_SERVER      ? ADMIN_ADD
                           : request->method == RPC_REMOVE_SERVER ? ADMIN_REMOVE
                                                                  : ADMIN_SNAPSHOT;
    struct admin *admin = new_admin(node, kind, kind == ADMIN_SNAPSHOT ? "" : request->address);
    caller_move(&admin->caller, &caller);
    admin->index = node->applies.applied > 0 ? node->applies.applied : 1;
}

static void choose_cluster_id(struct node *node) {
    static const char DIGITS[] = "0123456789abcdef";
    for (size_t i = 0; i + 1 < CLUSTER_ID_BYTES; i++) {
        node->meta.cluster_id[i] = DIGITS[random_between(&node->random, 0, 15)];
    }
}

void admin_create_cluster(struct node *node, struct node_conn *conn, struct gather *gather,
                          const struct rpc_request *request) {
    struct caller caller;
    caller_init(&caller, conn, gather, request);
    if (node->meta.node_id != 0 && !node->meta.removed) {
        caller_refuse(node, &caller, RPC_CLUSTER_EXISTS, "not_applied", NULL);
        return;
    }
    if (node->meta.removed) {
        caller_refuse(node, &caller, RPC_NOT_MEMBER, "not_applied",
                      "this server was removed from its cluster: start it anew");
        return;
    }
    choose_cluster_id(node);
    node->meta.node_id = 1;
    node_save_identity(node);
    raft_set_id(node->raft, 1);
    memcpy(node->members.joining, node->address, sizeof(node->members.joining));
    node->members.create_min_timeout_ms = request->min_election_timeout_ms;
    node->members.create_max_timeout_ms = request->max_election_timeout_ms;
    execute_quietly(node, &(struct raft_event){.kind = RAFT_EVENT_BOOTSTRAP, .id = 1});
    struct admin *admin = new_admin(node, ADMIN_CREATE, "");
    caller_move(&admin->caller, &caller);
}

void admin_replace(struct node *node, struct peer *peer) {
    for (struct admin *admin = node->admins; admin != NULL; admin = admin->next) {
        if (strcmp(admin->address, peer->address) == 0) {
            return; /* under way, or somebody else decided about it */
        }
    }
    if (node->admin_count + 2 > ADMIN_REQUESTS_MAX) {
        return;
    }
    apply_notice(node, "warning", "member",
                 "%s came back empty: it is taken out and joins again as a learner",
                 peer->address);
    new_admin(node, ADMIN_REMOVE, peer->address)->again = true;
    new_admin(node, ADMIN_ADD, peer->address)->again = true;
}

void admin_receive(struct node *node, struct peer *peer, const struct peer_message *message) {
    struct span add = {rpc_method_name(RPC_ADD_SERVER),
                       strlen(rpc_method_name(RPC_ADD_SERVER))};
    struct span remove = {rpc_method_name(RPC_REMOVE_SERVER),
                          strlen(rpc_method_name(RPC_REMOVE_SERVER))};
    bool adds = span_equal(message->method, add);
    if (!peer->member || (!adds && !span_equal(message->method, remove)) ||
        !address_is_valid((struct span){message->address, strlen(message->address)})) {
        conn_close(node, peer->in);
        return;
    }
    struct admin asked = {.origin = peer->id, .batch = message->batch};
    if (node->state.role != RAFT_LEADER || node->admin_count >= ADMIN_REQUESTS_MAX) {
        reply_to_peer(node, &asked, RPC_LEADER_CHANGE, (struct span){NULL, 0});
        return;
    }
    for (struct admin *admin = node->admins; admin != NULL; admin = admin->next) {
        if (admin->origin == peer->id && admin->batch == message->batch) {
            return; /* sent again over a new connection: it is in the line already */
        }
    }
    struct admin *admin = new_admin(node, adds ? ADMIN_ADD : ADMIN_REMOVE, message->address);
    admin->origin = peer->id;
    admin->batch = message->batch;
    admin->again = message->again;
}

void admin_receive_reply(struct node *node, struct peer *peer,
                         const struct peer_message *message) {
    for (struct admin *admin = node->admins; admin != NULL; admin = admin->next) {
        if (admin->stage != ADMIN_FORWARDED || admin->batch != message->batch ||
            peer->id != node->state.leader) {
            continue;
        }
        if (message->code == RPC_LEADER_CHANGE) {
            admin->stage = ADMIN_WAITING;
            admin->step_deadline_ms = node->now_ms + REDIAL_MS_LEAST;
        } else {
            finish(node, admin, code_from_wire(message->code), message->body);
        }
        return;
    }
}

/* --- one step of a change --- */
static bool configuration_settled(const struct node *node) {
    const struct cluster *cluster = members_peek(node);
    return cluster != NULL && !cluster->raft.joint &&
           node->state.commit_index >= members_index(node);
}

/* The member that this addition made; NULL: it was lost with an earlier leader. Its id alone
 * does not tell, for the next leader may have given it to another server. */
static const struct raft_member *find_added(const struct cluster *cluster,
                                            const struct admin *admin) {
    uint64_t id = configuration_id_at(cluster, admin->address);
    return id == admin->node_id ? raft_configuration_find(&cluster->raft, id) : NULL;
}

static void start_catching_up(struct node *node, struct admin *admin) {
    admin->stage = ADMIN_CATCHING_UP;
    admin->progress = 0;
    admin->step_deadline_ms = node->now_ms + CATCH_UP_TIMEOUT_MS;
}

static void begin_add(struct node *node, struct admin *admin) {
    const struct cluster *cluster = members_peek(node);
    uint64_t id = configuration_id_at(cluster, admin->address);
    const struct raft_member *member = raft_configuration_find(&cluster->raft, id);
    if (member != NULL && member->voter && !admin->again) {
        refuse(node, admin, RPC_ALREADY_ADDED, "not_applied", NULL);
    } else if (member != NULL) {
        admin->node_id = id;
        start_catching_up(node, admin);
    } else if (cluster->raft.count == MEMBERS_MAX) {
        refuse(node, admin, RPC_UNREACHABLE, "not_applied",
               "the cluster has MEMBERS_MAX members");
    } else if (node->probe == NULL) {
        admin->stage = ADMIN_PROBING;
        admin->step_deadline_ms = node->now_ms + DIAL_TIMEOUT_MS;
        peers_dial_probe(node, admin->address);
    }
}

static void begin_remove(struct node *node, struct admin *admin) {
    admin->node_id = configuration_id_at(members_peek(node), admin->address);
    if (admin->node_id != 0) {
        admin->stage = ADMIN_PROPOSING;
    } else if (admin->again) {
        done(node, admin);
    } else {
        refuse(node, admin, RPC_NOT_MEMBER, "not_applied", "no member has this address");
    }
}

void admin_probe_done(struct node *node, const struct peer_message *message,
                      const char *reason) {
    struct admin *admin = node->admins;
    while (admin != NULL && admin->stage != ADMIN_PROBING) {
        admin = admin->next;
    }
    if (admin == NULL) {
        return;
    }
    if (message == NULL) {
        refuse(node, admin, RPC_UNREACHABLE, "not_applied", reason);
    } else if (message->cluster_id[0] != '\0') {
        bool ours = strcmp(message->cluster_id, node->meta.cluster_id) == 0;
        refuse(node, admin, RPC_UNREACHABLE, "not_applied",
               ours ? "it was removed from this cluster: start it with an empty data directory"
                    : "it belongs to another cluster: start it with an empty data directory");
    } else {
        admin->stage = ADMIN_PROPOSING;
    }
}

static void propose_add(struct node *node, struct admin *admin) {
    const struct cluster *cluster = members_peek(node);
    if (configuration_id_at(cluster, admin->address) != 0) {
        admin->stage = ADMIN_WAITING; /* another leader has added it since we asked who it is */
        return;
    }
    memcpy(node->members.joining, admin->address, sizeof(admin->address));
    struct raft_event event = {.kind = RAFT_EVENT_ADD, .id = cluster->next_id};
    struct raft_outcome outcome;
    uint64_t id = cluster->next_id;
    enum raft_result result = execute_step(node, &event, &outcome);
    if (result == RAFT_OK) {
        admin->again = true; /* whoever leads next is asked to finish it, not to do it */
        admin->node_id = id;
        struct peer *peer = peers_find(node, id);
        ASSERT(peer != NULL); /* the step has brought the configuration into force */
        peer->added_term = node->state.term;
        start_catching_up(node, admin);
    } else if (result != RAFT_BUSY && result != RAFT_NOT_LEADER && result != RAFT_OVERLOADED) {
        refuse(node, admin, RPC_UNREACHABLE, "not_applied", "the cluster cannot take it");
    }
}

static enum raft_result propose_remove(struct node *node, struct admin *admin) {
    struct raft_event event = {.kind = RAFT_EVENT_REMOVE, .id = admin->node_id};
    struct raft_outcome outcome;
    return execute_step(node, &event, &outcome);
}

static void step_remove(struct node *node, struct admin *admin) {
    enum raft_result result = propose_remove(node, admin);
    if (result == RAFT_OK) {
        admin->again = true;
        admin->stage = ADMIN_CATCHING_UP;
    } else if (result == RAFT_LAST_VOTER) {
        refuse(node, admin, RPC_INVALID_PARAMS, "not_applied",
               "the last voter cannot be removed");
    } else if (result == RAFT_NOT_MEMBER) {
        admin->stage = ADMIN_WAITING;
    }
}

static uint64_t progress_of(struct node *node, uint64_t id) {
    struct raft_peer_state state;
    struct peer *peer = peers_find(node, id);
    uint64_t progress = raft_peek_peer(node->raft, id, &state) ? state.match : 0;
    return progress + (peer != NULL ? peer->sending.offset : 0);
}

static void watch_add(struct node *node, struct admin *admin) {
    const struct cluster *cluster = members_peek(node);
    const struct raft_member *member = find_added(cluster, admin);
    if (member == NULL) {
        admin->stage = ADMIN_WAITING; /* begin again */
        return;
    }
    uint64_t progress = progress_of(node, admin->node_id);
    if (progress > admin->progress || member->voter) {
        admin->progress = progress;
        admin->step_deadline_ms = node->now_ms + CATCH_UP_TIMEOUT_MS;
    } else if (node->now_ms >= admin->step_deadline_ms &&
               propose_remove(node, admin) == RAFT_OK) {
        admin->stage = ADMIN_UNDOING;
    }
}

/* Whether the change is complete, whoever leads by now (a leader that removed itself does not).
 */
static bool is_complete(const struct node *node, const struct admin *admin) {
    if (admin->kind == ADMIN_CREATE) {
        return node->state.role == RAFT_LEADER && configuration_settled(node) &&
               node->state.commit_index >= node->state.term_start_index;
    }
    if (admin->kind == ADMIN_SNAPSHOT) {
        return node->snapshots.position.index > 0 &&
               node->snapshots.position.index >= admin->index && !node->snapshots.taking;
    }
    if (!configuration_settled(node)) {
        return false;
    }
    const struct cluster *cluster = members_peek(node);
    if (admin->kind == ADMIN_REMOVE && admin->stage == ADMIN_FORWARDED) {
        return configuration_id_at(cluster, admin->address) == 0 && node->meta.removed;
    }
    if (admin->stage != ADMIN_CATCHING_UP) {
        return false;
    }
    if (admin->kind == ADMIN_REMOVE) {
        return raft_configuration_find(&cluster->raft, admin->node_id) == NULL;
    }
    const struct raft_member *member = find_added(cluster, admin);
    return member != NULL && member->voter;
}

static void step_leading(struct node *node, struct admin *admin) {
    switch (admin->stage) {
    case ADMIN_FORWARDED:
    case ADMIN_WAITING:
        admin->stage = ADMIN_WAITING;
        if (admin->kind == ADMIN_ADD) {
            begin_add(node, admin);
        } else {
            begin_remove(node, admin);
        }
        return;
    case ADMIN_PROBING:
        if (node->now_ms >= admin->step_deadline_ms && node->probe != NULL) {
            stop_probing(node, admin);
            admin_probe_done(node, NULL, "the server does not answer");
        }
        return;
    case ADMIN_PROPOSING:
        if (admin->kind == ADMIN_ADD) {
            propose_add(node, admin);
        } else {
            step_remove(node, admin);
        }
        return;
    case ADMIN_CATCHING_UP:
        if (admin->kind == ADMIN_ADD) {
            watch_add(node, admin);
        } else if (!node->state.change_pending &&
                   configuration_id_at(members_peek(node), admin->address) == admin->node_id) {
            admin->stage = ADMIN_PROPOSING; /* lost with an earlier leader */
        }
        return;
    case ADMIN_UNDOING:
        if (configuration_settled(node) &&
            raft_configuration_find(&members_peek(node)->raft, admin->node_id) == NULL) {
            refuse(node, admin, RPC_UNREACHABLE, "not_applied",
                   "the server did not catch up in time");
        }
        return;
    }
}

static void step_following(struct node *node, struct admin *admin) {
    if (admin->origin > 0) {
        refuse(node, admin, RPC_LEADER_CHANGE, "unknown", NULL);
        return;
    }
    struct peer *leader = peers_find_ready(node, node->state.leader);
    bool asked = admin->stage == ADMIN_FORWARDED && admin->term == node->state.term;
    bool led = admin->stage > ADMIN_FORWARDED; /* its deadline was for a leader's step */
    if (leader == NULL || asked || (!led && node->now_ms < admin->step_deadline_ms)) {
        return;
    }
    const char *method =
        rpc_method_name(admin->kind == ADMIN_ADD ? RPC_ADD_SERVER : RPC_REMOVE_SERVER);
    struct peer_message message = {.kind = PEER_ADMIN,
                                   .batch = admin->batch,
                                   .method = {method, strlen(method)},
                                   .again = admin->again};
    memcpy(message.address, admin->address, sizeof(message.address));
    conn_send_message(node, leader->out, &message);
    stop_probing(node, admin);
    admin->stage = ADMIN_FORWARDED;
    admin->term = node->state.term;
    admin->again = true;
}

static void expire(struct node *node, struct admin *admin) {
    bool untouched =
        !admin->again && (admin->stage == ADMIN_WAITING || admin->stage == ADMIN_PROBING);
    refuse(node, admin,
           untouched && node->state.leader == 0 ? RPC_NO_LEADER : RPC_UNKNOWN_RESULT,
           untouched ? "not_applied" : "unknown", "no answer in time");
}

static bool waited_for_a_leader(const struct node *node, const struct admin *admin) {
    return admin->stage == ADMIN_WAITING && node->state.leader == 0 &&
           node->now_ms + node->request_timeout_ms >= admin->deadline_ms + NO_LEADER_TIMEOUT_MS;
}

void admin_tick(struct node *node) {
    bool changing = false; /* the first change in the line is the one under way */
    struct admin *next;
    for (struct admin *admin = node->admins; admin != NULL; admin = next) {
        next = admin->next;
        if (is_complete(node, admin)) {
            done(node, admin);
        } else if (node->now_ms >= admin->deadline_ms ||
                   ((admin->kind == ADMIN_ADD || admin->kind == ADMIN_REMOVE) &&
                    waited_for_a_leader(node, admin))) {
            expire(node, admin);
        } else if (admin->kind == ADMIN_ADD || admin->kind == ADMIN_REMOVE) {
            if (node->state.role != RAFT_LEADER) {
                step_following(node, admin);
            } else if (!changing) {
                changing = true;
                step_leading(node, admin);
            }
        }
    }
}

uint64_t admin_deadline_ms(const struct node *node) {
    return node->admins == NULL ? NEVER_MS : node->now_ms + 20;
}

bool admin_wants_snapshot(const struct node *node) {
    for (const struct admin *admin = node->admins; admin != NULL; admin = admin->next) {
        if (admin->kind == ADMIN_SNAPSHOT && node->snapshots.position.index < admin->index) {
            return true;
        }
    }
    return false;
}

void admin_snapshot_failed(struct node *node, enum rpc_code code, const char *reason) {
    struct admin *next;
    for (struct admin *admin = node->admins; admin != NULL; admin = next) {
        next = admin->next;
        if (admin->kind == ADMIN_SNAPSHOT) {
            refuse(node, admin, code, "not_applied", reason);
        }
    }
}

void admin_fail_all(struct node *node, enum rpc_code code, const char *reason) {
    while (node->admins != NULL) {
        refuse(node, node->admins, code, "unknown", reason);
    }
}
