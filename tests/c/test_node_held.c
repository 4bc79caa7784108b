/* Clients whose lines wait because they do not read their answers: each goes on when it has
 * read, or when the others have and nothing presses any more. And lines that are not finished:
 * what those of all clients come to is bounded. */
#include "check.h"
#include "node/internal.h"
#include "nodehost.h"

#define CLIENTS 3

static struct nodehost host;
static struct nodehost_end *clients[CLIENTS];

static void start(void) {
    static const char CREATE[] = "{\"jsonrpc\":\"2.0\",\"method\":\"CreateCluster\"}\n";
    nodehost_init(&host, false);
    CHECK(node_start(host.node) == STATUS_OK);
    for (int i = 0; i < CLIENTS; i++) {
        clients[i] = nodehost_open(&host);
    }
    nodehost_receive(&host, clients[0], SPAN(CREATE));
    nodehost_turn(&host);
}

/* The host has this much for it that it could not send. */
static void set_unsent(int client, size_t bytes) {
    node_conn_set_unsent(clients[client]->conn, bytes);
}

static const char ASK[] =
    "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"Apply\",\"params\":[\"LocalQuery\",[1]]}\n";

static void ask(int client) {
    nodehost_receive(&host, clients[client], SPAN(ASK));
    nodehost_turn(&host);
}

static size_t answers(int client) {
    size_t count = 0;
    struct span sent = buffer_span(&clients[client]->sent);
    for (size_t i = 0; i < sent.size; i++) {
        count += sent.data[i] == '\n';
    }
    return count;
}

static bool is_held(int client) {
    return node_conn_waiting(clients[client]->conn) &&
           !node_conn_wants_input(clients[client]->conn);
}

static void test_one_goes_on_when_it_has_read(void) {
    start();
    set_unsent(0, CLIENT_OUT_BYTES_MAX);
    ask(0);
    ask(0); /* behind the first */
    ask(1);
    CHECK(is_held(0) && answers(0) == 0 && answers(1) == 1);
    CHECK(host.node->load.held.first == NULL); /* no turn looks at it */
    set_unsent(0, CLIENT_OUT_BYTES_MAX);
    nodehost_turn(&host);
    CHECK(answers(0) == 0);
    set_unsent(0, CLIENT_OUT_BYTES_MAX - 1);
    nodehost_turn(&host);
    CHECK(answers(0) == 2 && !is_held(0));
    nodehost_clear(&host);
}

static void test_all_go_on_when_the_pressure_ends(void) {
    start();
    set_unsent(2, CLIENTS_OUT_BYTES_MAX);
    set_unsent(0, CLIENT_OUT_PRESSED_BYTES_MAX);
    set_unsent(1, CLIENT_OUT_BYTES_MAX);
    ask(0);
    ask(1);
    CHECK(is_held(0) && is_held(1) && host.node->load.held.first == NULL);
    set_unsent(2, 0);
    nodehost_turn(&host);
    CHECK(answers(0) == 1 && answers(1) == 0); /* which has too much of its own */
    CHECK(is_held(1) && host.node->load.held.first == NULL);
    set_unsent(1, 0);
    nodehost_turn(&host);
    CHECK(answers(1) == 1);
    nodehost_clear(&host);
}

static void test_whoever_leaves_is_forgotten(void) {
    for (int gone = 0; gone < CLIENTS; gone++) {
        start();
        for (int i = 0; i < CLIENTS; i++) {
            set_unsent(i, CLIENT_OUT_BYTES_MAX);
            ask(i);
        }
        nodehost_close(&host, clients[gone]);
        for (int i = 0; i < CLIENTS; i++) {
            if (i != gone) {
                set_unsent(i, 0);
            }
        }
        nodehost_turn(&host);
        for (int i = 0; i < CLIENTS; i++) {
            CHECK(i == gone || answers(i) == 1);
        }
        CHECK(host.node->load.full.first == NULL && host.node->load.out_bytes == 0);
        nodehost_clear(&host);
    }
}

/* --- what is answered at once --- */

#define FLOOD_CLIENTS 40
#define FLOOD_LINES 90

/* Many clients ask for what needs no machine and no leader: together for more than is said in a
 * turn, and each for less than would lie unread too long. */
static void test_a_flood_of_what_is_answered_at_once_is_cut_short(void) {
    start();
    struct buffer lines;
    buffer_init(&lines);
    for (int i = 0; i < FLOOD_LINES; i++) {
        buffer_append_text(&lines, "{\"jsonrpc\":\"2.0\",\"id\":1,"
                                   "\"method\":\"GetServerState\"}\n");
    }
    struct nodehost_end *ends[FLOOD_CLIENTS];
    size_t said = 0;
    for (int i = 0; i < FLOOD_CLIENTS; i++) {
        ends[i] = nodehost_open(&host);
        nodehost_receive(&host, ends[i], buffer_span(&lines));
        said += buffer_count(node_conn_out(ends[i]->conn));
    }
    CHECK(said >= TURN_BYTES_MAX / 2 && said < TURN_BYTES_MAX + 4096);
    CHECK(node_read_bytes_max(host.node) == CLIENT_IN_PRESSED_BYTES_MAX);
    CHECK(!node_conn_wants_input(ends[FLOOD_CLIENTS - 1]->conn));
    node_turn(host.node); /* goes on with some of each, and wants the next one at once */
    CHECK(node_deadline_ms(host.node) == host.now_ms);
    CHECK(buffer_count(node_conn_out(ends[FLOOD_CLIENTS - 1]->conn)) > 0);
    nodehost_turn(&host);
    CHECK(node_deadline_ms(host.node) > host.now_ms);
    for (int i = 0; i < FLOOD_CLIENTS; i++) {
        struct span sent = buffer_span(&ends[i]->sent);
        size_t count = 0;
        for (size_t at = 0; at < sent.size; at++) {
            count += sent.data[at] == '\n';
        }
        CHECK(count == FLOOD_LINES && node_conn_wants_input(ends[i]->conn));
    }
    buffer_free(&lines);
    nodehost_clear(&host);
}

/* Nobody hears what comes of a notification, but it is in flight as long as any other request:
 * or one client's would fill the queue that all commands wait in. */
static void test_notifications_are_in_flight(void) {
    static const char NOTE[] =
        "{\"jsonrpc\":\"2.0\",\"method\":\"Apply\",\"params\":[\"Command\",1]}\n";
    start();
    for (uint32_t i = 0; i < IN_FLIGHT_PER_CLIENT_MAX + 10; i++) {
        nodehost_receive(&host, clients[1], SPAN(NOTE));
    }
    CHECK(host.node->pendings.count == IN_FLIGHT_PER_CLIENT_MAX && is_held(1));
    CHECK(host.node->load.waiting == IN_FLIGHT_PER_CLIENT_MAX);
    CHECK(host.node->load.expected == 0); /* no answers that would take room */
    ask(2);
    CHECK(answers(2) == 1);
    nodehost_turn(&host);
    nodehost_wait(&host, APPLY_GATHER_MS); /* the last few, for which nobody waits */
    CHECK(host.node->pendings.count == 0 && host.node->load.waiting == 0 && !is_held(1));
    CHECK(buffer_count(&clients[1]->sent) == 0);
    nodehost_clear(&host);
}

/* One client alone may have much in flight, which makes large batches; where another one waits
 * as well it waits behind a share of that at most. */
static void send_commands(int client, uint32_t count) {
    static const char COMMAND[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"Apply\","
                                  "\"params\":[\"Command\",1]}\n";
    for (uint32_t i = 0; i < count; i++) {
        nodehost_receive(&host, clients[client], SPAN(COMMAND));
    }
}

static void test_who_is_not_alone_has_a_share(void) {
    const uint32_t many = 2 * IN_FLIGHT_SHARED_MAX;
    start();
    ask(1); /* so that it is known how large answers are */
    send_commands(1, many);
    CHECK(clients[1]->conn->waiting == many && !is_held(1));
    send_commands(2, 1);
    nodehost_turn(&host);
    CHECK(answers(1) == 1 + many && answers(2) == 1);
    send_commands(1, many);
    CHECK(clients[1]->conn->waiting == IN_FLIGHT_SHARED_MAX && is_held(1));
    send_commands(2, 1);
    CHECK(clients[2]->conn->waiting == 1);
    nodehost_turn(&host);
    CHECK(answers(1) == 1 + 2 * many && answers(2) == 2);
    nodehost_wait(&host, SHARED_MS);
    send_commands(1, many);
    CHECK(clients[1]->conn->waiting == many);
    nodehost_turn(&host);
    nodehost_clear(&host);
}

/* So often that he is known to wait for each answer. */
static void ask_often(int client) {
    for (uint32_t i = 0; i <= LIGHT_SINGLES; i++) {
        CHECK(host.node->load.light_ms == 0);
        ask(client);
    }
    CHECK(host.node->load.light_ms == host.now_ms + LIGHT_MS);
}

/* Many at once: from then on he has to be known anew. */
static void test_who_sends_many_does_not_wait(void) {
    start();
    for (uint32_t i = 0; i < LIGHT_SINGLES; i++) {
        ask(1);
    }
    send_commands(1, LIGHT_IN_FLIGHT + 1);
    nodehost_turn(&host);
    CHECK(host.node->load.light_ms == 0);
    for (uint32_t i = 1; i < LIGHT_SINGLES; i++) {
        ask(1);
        CHECK(host.node->load.light_ms == 0);
    }
    ask(1);
    CHECK(host.node->load.light_ms == host.now_ms + LIGHT_MS);
    nodehost_clear(&host);
}

/* Beside a client that waits for each answer the others have little in flight, so that little
 * is before what he asks; soon after he stops asking it is as before. */
static void test_who_waits_for_each_answer(void) {
    const uint32_t many = IN_FLIGHT_SHARED_MAX;
    start();
    ask(1); /* so that it is known how large answers are */
    send_commands(1, many);
    CHECK(clients[1]->conn->waiting == many);
    nodehost_turn(&host);
    ask_often(2);
    send_commands(1, many);
    send_commands(0, many);
    CHECK(clients[1]->conn->waiting == BESIDE_LIGHT_IN_FLIGHT_MAX && is_held(1));
    CHECK(clients[0]->conn->waiting == 1 && is_held(0));
    send_commands(2, LIGHT_IN_FLIGHT);
    CHECK(clients[2]->conn->waiting == LIGHT_IN_FLIGHT && !is_held(2));
    nodehost_turn(&host);
    CHECK(answers(2) == 1 + LIGHT_SINGLES + LIGHT_IN_FLIGHT);
    CHECK(answers(1) == 1 + 2 * many && answers(0) == many);
    nodehost_wait(&host, LIGHT_MS);
    send_commands(1, many);
    CHECK(clients[1]->conn->waiting == many);
    nodehost_turn(&host);
    nodehost_clear(&host);
}

/* Not only the last one who has asked is known to wait. */
static void test_two_who_wait(void) {
    start();
    ask_often(1);
    for (uint32_t i = 0; i <= LIGHT_SINGLES; i++) {
        ask(2);
    }
    ask(0);
    send_commands(0, IN_FLIGHT_SHARED_MAX);
    CHECK(is_held(0));
    send_commands(1, LIGHT_IN_FLIGHT);
    send_commands(2, LIGHT_IN_FLIGHT);
    CHECK(clients[1]->conn->waiting == LIGHT_IN_FLIGHT && !is_held(1));
    CHECK(clients[2]->conn->waiting == LIGHT_IN_FLIGHT && !is_held(2));
    nodehost_turn(&host);
    nodehost_clear(&host);
}

/* One more millisecond, in which nothing is carried out that the node wants done, while he who
 * waits for each answer asks on. */
static void pass_in_vain(void) {
    host.now_ms++;
    node_set_time(host.node, host.now_ms, host.wall_start_ms + host.now_ms);
    host.node->load.light_ms = host.now_ms + LIGHT_MS;
    node_turn(host.node);
}

/* A client whose answers do not come makes no way: each of its requests has its own time, and
 * not one after the other. As few go on in a turn, the next turn comes at once. */
static void test_who_is_not_answered_makes_no_way(void) {
    const uint32_t many = IN_FLIGHT_SHARED_MAX / 2;
    start();
    clients[0] = nodehost_open(&host); /* the first one was answered before */
    struct nodehost_end *waits = nodehost_open(&host);
    for (uint32_t i = 0; i <= LIGHT_SINGLES; i++) {
        nodehost_receive(&host, waits, SPAN(ASK));
        nodehost_turn(&host);
    }
    for (int i = 0; i < CLIENTS; i++) {
        ask(i);
    }
    for (int i = 0; i < CLIENTS; i++) {
        send_commands(i, many);
        CHECK(is_held(i));
    }
    for (uint64_t ms = 0; ms < LIGHT_MS; ms++) {
        pass_in_vain();
        CHECK(clients[0]->conn->waiting == BESIDE_LIGHT_IN_FLIGHT_MAX);
        CHECK(node_deadline_ms(host.node) > host.now_ms);
    }
    pass_in_vain();
    CHECK((int)is_held(0) + (int)is_held(1) + (int)is_held(2) == 1);
    CHECK(node_deadline_ms(host.node) == host.now_ms);
    node_turn(host.node);
    CHECK(!is_held(0) && !is_held(1) && !is_held(2));
    nodehost_turn(&host);
    CHECK(answers(1) == 1 + many && answers(2) == 1 + many);
    nodehost_clear(&host);
}

/* The same where answers are large: few of them are under way. */
static void test_large_answers_beside_one_who_waits(void) {
    start();
    ask_often(2);
    ask(1);
    clients[1]->conn->answer_bytes = BESIDE_LIGHT_EXPECTED_BYTES_MAX / 2;
    send_commands(1, 10);
    CHECK(clients[1]->conn->waiting == 2 && is_held(1));
    nodehost_turn(&host);
    nodehost_clear(&host);
}

/* A client that has waited for each answer need not be kept from sending many itself. */
static void test_nobody_is_kept_from_himself(void) {
    start();
    ask_often(1);
    send_commands(1, IN_FLIGHT_SHARED_MAX);
    CHECK(clients[1]->conn->waiting == IN_FLIGHT_SHARED_MAX);
    nodehost_turn(&host);
    nodehost_clear(&host);
}

#define CROWD 30

static bool some_are_held(struct nodehost_end *const *ends) {
    bool any = false;
    for (int i = 0; i < CROWD; i++) {
        any = any || held_is_in_turn(ends[i]->conn);
        CHECK(ends[i]->conn->singles <= 2); /* the last ones leave nothing behind */
    }
    return any;
}

/* A turn looks at a few of those whose lines wait: he who waits for each answer waits for the
 * turn as well. */
static void turn_once(struct nodehost_end *const *ends) {
    uint32_t looked = 0;
    node_turn(host.node);
    for (int i = 0; i < CROWD; i++) {
        looked += ends[i]->conn->looked_turn == host.node->load.turn ? 1 : 0;
    }
    CHECK(looked <= HELD_LOOKED_AT_BESIDE_LIGHT);
}

/* Who sends many at once is not one who waits, though for want of room he has but one under
 * way: else some of them would hold each other up for ever. */
static void test_who_is_held_up_is_none_who_waits(void) {
    static const char COMMAND[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"Apply\","
                                  "\"params\":[\"Command\",1]}\n";
    struct nodehost_end *ends[CROWD];
    start();
    ask_often(2);
    for (int i = 0; i < CROWD; i++) {
        ends[i] = nodehost_open(&host);
        nodehost_receive(&host, ends[i], SPAN(COMMAND));
    }
    nodehost_turn(&host);
    host.node->load.waiting += BESIDE_LIGHT_IN_FLIGHT_MAX; /* others, whose answers take time */
    for (int i = 0; i < CROWD * 6; i++) {
        nodehost_receive(&host, ends[i % CROWD], SPAN(COMMAND));
    }
    CHECK(some_are_held(ends));
    while (some_are_held(ends)) {
        turn_once(ends);
        nodehost_turn(&host);
    }
    CHECK(host.node->load.light_conn == clients[2]->conn);
    host.node->load.waiting -= BESIDE_LIGHT_IN_FLIGHT_MAX;
    nodehost_wait(&host, LIGHT_MS);
    CHECK(host.node->load.light_ms == 0);
    send_commands(0, IN_FLIGHT_SHARED_MAX);
    CHECK(clients[0]->conn->waiting == IN_FLIGHT_SHARED_MAX);
    nodehost_turn(&host);
    nodehost_clear(&host);
}

/* --- unfinished lines ------------------------------------------------------------------------ */

#define PIECE (2 * CLIENT_IN_PRESSED_BYTES_MAX)
STATIC_ASSERT(CLIENTS_IN_BYTES_MAX >= 8 * PIECE && CLIENTS_IN_BYTES_MAX <= 32 * PIECE, "a few");

/* A line begins, or goes on: `[1,1,1,...`. */
static void send_piece(struct nodehost_end *end, size_t bytes) {
    char *piece = malloc(bytes);
    CHECK(piece != NULL);
    for (size_t i = 0; i < bytes; i++) {
        piece[i] = i % 2 == 0 ? '1' : ',';
    }
    nodehost_receive(&host, end, (struct span){piece, bytes});
    free(piece);
    nodehost_turn(&host);
}

static bool was_given_up(const struct nodehost_end *end) {
    struct span sent = buffer_span(&end->sent);
    return end->closing && sent.size > 0 && memmem(sent.data, sent.size, "110", 3) != NULL &&
           memmem(sent.data, sent.size, "retry_after_ms", 14) != NULL;
}

static void test_unfinished_lines_are_bounded(void) {
    start();
    struct nodehost_end *ends[40];
    int given_up = 0;
    for (int i = 0; i < 40; i++) {
        ends[i] = nodehost_open(&host);
        CHECK(ends[i] != NULL);
        send_piece(ends[i], PIECE);
        given_up += was_given_up(ends[i]);
        CHECK(host.node->load.in_bytes < CLIENTS_IN_BYTES_MAX + PIECE);
    }
    CHECK(!was_given_up(ends[0]) && was_given_up(ends[39]) && given_up >= 8);
    ask(1); /* a line that comes whole is not concerned */
    CHECK(answers(1) == 1);
    nodehost_clear(&host);
}

static void test_what_began_long_ago_makes_room(void) {
    start();
    struct nodehost_end *ends[40];
    int count = 0;
    do {
        CHECK(count < 39);
        ends[count] = nodehost_open(&host);
        send_piece(ends[count], PIECE);
    } while (!was_given_up(ends[count++]));
    nodehost_wait(&host, UNFINISHED_PRESSED_MS);
    struct nodehost_end *late = nodehost_open(&host);
    send_piece(late, PIECE);
    CHECK(!was_given_up(late) && was_given_up(ends[0]) && !was_given_up(ends[count - 2]));
    nodehost_clear(&host);
}

/* A client that sends line after line, each in two pieces, began the last one just now. */
static void test_a_line_that_ends_is_no_old_one(void) {
    start();
    struct nodehost_end *busy = nodehost_open(&host);
    send_piece(busy, PIECE);
    struct nodehost_end *slow = nodehost_open(&host);
    send_piece(slow, PIECE);
    nodehost_wait(&host, UNFINISHED_PRESSED_MS);
    nodehost_receive(&host, busy, SPAN("\n"));
    send_piece(busy, PIECE);
    while (!was_given_up(slow)) {
        struct nodehost_end *other = nodehost_open(&host);
        CHECK(other != NULL);
        send_piece(other, PIECE);
    }
    CHECK(!was_given_up(busy));
    nodehost_clear(&host);
}

/* Waiting lines count as well; then the host is to read little at once. */
static void test_little_is_read_under_pressure(void) {
    start();
    CHECK(node_read_bytes_max(host.node) == READ_BYTES_MAX);
    set_unsent(0, CLIENT_OUT_BYTES_MAX);
    ask(0);
    for (size_t held = 0; held < CLIENTS_IN_BYTES_MAX; held += PIECE) {
        send_piece(clients[0], PIECE);
    }
    CHECK(node_read_bytes_max(host.node) == CLIENT_IN_PRESSED_BYTES_MAX);
    CHECK(!clients[0]->closing); /* these are whole lines, which it may yet get answers to */
    nodehost_close(&host, clients[0]);
    CHECK(node_read_bytes_max(host.node) == READ_BYTES_MAX && host.node->load.in_bytes == 0);
    nodehost_clear(&host);
}

/* A hello makes nobody a member: what is said to follow is not waited for. */
static void test_a_stranger_carries_nothing(void) {
    static const char HELLO[] =
        "{\"type\":\"hello\",\"protocol\":%u,\"cluster\":\"\",\"node\":0,\"incarnation\":1,"
        "\"addr\":\"127.0.0.1:1\",\"to\":0}\n";
    start();
    char line[256];
    snprintf(line, sizeof(line), HELLO, (unsigned)PEER_PROTOCOL);
    nodehost_receive(&host, clients[0], (struct span){line, strlen(line)});
    nodehost_turn(&host);
    CHECK(!clients[0]->closing);
    nodehost_receive(&host, clients[0],
                     SPAN("{\"type\":\"propose\",\"term\":1,\"again\":false,\"count\":1,"
                          "\"bytes\":4000000}\n"));
    nodehost_turn(&host);
    CHECK(clients[0]->closing);
    nodehost_clear(&host);
}

/* Nor does one that may be a peer: what it lets us wait for is not its clients' trouble. */
static void test_a_peers_input_presses_no_client(void) {
    static const char HELLO[] =
        "{\"type\":\"hello\",\"protocol\":%u,\"cluster\":\"%s\",\"node\":9,"
        "\"incarnation\":1,\"addr\":\"127.0.0.1:1\",\"to\":1}\n";
    start();
    char line[256];
    snprintf(line, sizeof(line), HELLO, (unsigned)PEER_PROTOCOL, host.node->meta.cluster_id);
    nodehost_receive(&host, clients[0], (struct span){line, strlen(line)});
    nodehost_receive(&host, clients[0],
                     SPAN("{\"type\":\"propose\",\"term\":1,\"again\":false,\"count\":1,"
                          "\"bytes\":4000000}\n"));
    send_piece(clients[0], 2 * CLIENTS_IN_BYTES_MAX);
    CHECK(!clients[0]->closing && buffer_count(&clients[0]->conn->in) > CLIENTS_IN_BYTES_MAX);
    CHECK(node_read_bytes_max(host.node) == READ_BYTES_MAX);
    send_piece(clients[1], PIECE);
    CHECK(!was_given_up(clients[1]));
    nodehost_close(&host, clients[0]);
    nodehost_close(&host, clients[1]);
    CHECK(host.node->load.in_bytes == 0);
    nodehost_clear(&host);
}

int main(void) {
    test_a_peers_input_presses_no_client();
    test_notifications_are_in_flight();
    test_who_is_not_alone_has_a_share();
    test_who_sends_many_does_not_wait();
    test_who_waits_for_each_answer();
    test_who_is_not_answered_makes_no_way();
    test_two_who_wait();
    test_large_answers_beside_one_who_waits();
    test_nobody_is_kept_from_himself();
    test_who_is_held_up_is_none_who_waits();
    test_a_flood_of_what_is_answered_at_once_is_cut_short();
    test_unfinished_lines_are_bounded();
    test_what_began_long_ago_makes_room();
    test_a_line_that_ends_is_no_old_one();
    test_little_is_read_under_pressure();
    test_a_stranger_carries_nothing();
    test_one_goes_on_when_it_has_read();
    test_all_go_on_when_the_pressure_ends();
    test_whoever_leaves_is_forgotten();
    puts("ok");
    return 0;
}
