/* Clients whose lines wait because they do not read their answers: each goes on when it has
 * read, or when the others have and nothing presses any more. */
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

static void ask(int client) {
    static const char ASK[] =
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"Apply\",\"params\":[\"LocalQuery\",[1]]}\n";
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

int main(void) {
    test_one_goes_on_when_it_has_read();
    test_all_go_on_when_the_pressure_ends();
    test_whoever_leaves_is_forgotten();
    puts("ok");
    return 0;
}
