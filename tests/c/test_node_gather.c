/* Commands for which nobody waits here reach the machine a little later, together; what
 * somebody waits for reaches it at once, and behind them. */
#include "check.h"
#include "node/internal.h"
#include "nodehost.h"

static struct nodehost host;
static struct nodehost_end *client;

static const struct applies *applies(void) {
    return &host.node->applies;
}

static void send(const char *line) {
    nodehost_receive(&host, client, (struct span){line, strlen(line)});
}

static void send_command(const char *id) {
    char line[128];
    snprintf(line, sizeof(line),
             "{\"jsonrpc\":\"2.0\",%s\"method\":\"Apply\",\"params\":{\"kind\":\"Command\","
             "\"input\":[1]}}\n",
             id);
    send(line);
}

static void send_silent_command(void) {
    send_command("");
}

static bool is_answered(void) {
    bool answered = buffer_count(&client->sent) > 0;
    buffer_clear(&client->sent);
    return answered;
}

static bool all_is_applied(void) {
    return applies()->applied == applies()->handed &&
           applies()->handed == host.node->state.commit_index;
}

static void start(void) {
    nodehost_init(&host, false);
    CHECK(node_start(host.node) == STATUS_OK);
    client = nodehost_open(&host);
    send("{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"CreateCluster\"}\n");
    for (int tries = 0; tries < 100 && host.node->state.role != RAFT_LEADER; tries++) {
        nodehost_wait(&host, 10);
    }
    nodehost_wait(&host, APPLY_GATHER_MS);
    CHECK(host.node->state.role == RAFT_LEADER && is_answered() && all_is_applied());
}

static void gathered_for_a_moment(void) {
    start();
    send_silent_command();
    nodehost_turn(&host);
    CHECK(!all_is_applied());
    CHECK(node_deadline_ms(host.node) <= host.now_ms + APPLY_GATHER_MS);
    nodehost_wait(&host, APPLY_GATHER_MS - 1);
    send_silent_command(); /* the later ones do not wait anew */
    nodehost_turn(&host);
    CHECK(!all_is_applied());
    nodehost_wait(&host, 1);
    CHECK(all_is_applied() && !is_answered());
    nodehost_clear(&host);
}

static void many_do_not_wait(void) {
    start();
    for (uint32_t i = 0; i < APPLY_GATHER_ITEMS_MAX; i++) {
        CHECK(all_is_applied() == (i == 0));
        send_silent_command();
        if (i + 1 < APPLY_GATHER_ITEMS_MAX) {
            nodehost_turn(&host);
        }
    }
    nodehost_turn(&host);
    CHECK(all_is_applied());
    nodehost_clear(&host);
}

static void who_waits_is_served_at_once(void) {
    start();
    send_silent_command();
    nodehost_turn(&host);
    send_command("\"id\":1,");
    nodehost_turn(&host);
    CHECK(is_answered() && all_is_applied());
    send_silent_command();
    nodehost_turn(&host);
    CHECK(!all_is_applied());
    send("{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"Apply\",\"params\":{\"kind\":"
         "\"LocalQuery\","
         "\"input\":[2]}}\n");
    nodehost_turn(&host);
    CHECK(is_answered() && all_is_applied());
    send_silent_command(); /* the next ones are gathered again */
    nodehost_turn(&host);
    CHECK(!all_is_applied());
    nodehost_clear(&host);
}

static void a_stop_waits_for_them(void) {
    start();
    send_silent_command();
    nodehost_turn(&host);
    CHECK(!all_is_applied());
    node_stop(host.node);
    nodehost_turn(&host);
    CHECK(all_is_applied());
    nodehost_clear(&host);
}

int main(void) {
    gathered_for_a_moment();
    many_do_not_wait();
    who_waits_is_served_at_once();
    a_stop_waits_for_them();
    puts("ok");
    return 0;
}
