/* The loop and its connections alone: a listener that is dialled by its own loop. */
#include "base/memory.h"
#include "check.h"
#include "net/internal.h"

#define BULK_BYTES (24u * 1024 * 1024) /* more than the system takes at once */
#define TURN_MS 20

enum role {
    ACCEPTED,
    SENDER,  /* dialled: sends the bulk and closes at once */
    REFUSED, /* dialled: nobody listens there */
    DROPPED, /* dialled and let go before it came to anything */
};

struct end {
    enum role role;
    struct net_conn *conn;
};

struct host {
    struct net *net;
    char address[ADDRESS_BYTES_MAX];
    struct end ends[16];
    uint32_t end_count;
    uint32_t connected, refused, turns;
    uint32_t ended; /* of accepted ones; what was dropped may have come that far */
    uint64_t received;
    struct end *paused;
    bool crowded; /* nobody reads */
};

static struct end *end_new(struct host *host, enum role role) {
    CHECK(host->end_count < 16);
    struct end *end = &host->ends[host->end_count++];
    *end = (struct end){.role = role};
    return end;
}

static void *on_accepted(void *context, struct net_conn *conn) {
    struct host *host = context;
    struct end *end = end_new(host, ACCEPTED);
    end->conn = conn;
    return end;
}

static void on_connected(void *context, void *user) {
    struct host *host = context;
    struct end *end = user;
    CHECK(end->role == SENDER && net_conn_is_open(end->conn));
    host->connected++;
    struct buffer bulk;
    buffer_init(&bulk);
    memset(buffer_reserve(&bulk, BULK_BYTES), 'b', BULK_BYTES);
    buffer_extend(&bulk, BULK_BYTES);
    CHECK(net_conn_write(end->conn, &bulk));
    CHECK(buffer_count(&bulk) == 0 && net_conn_unsent(end->conn) > 0);
    buffer_append_text(&bulk, "the end");
    CHECK(net_conn_write(end->conn, &bulk)); /* queues up behind it */
    buffer_free(&bulk);
    net_conn_close(end->conn); /* all of it arrives all the same */
    net_turn_soon(host->net);
}

/* Does not read for a turn after its first bytes, so that the sender has to wait. */
static void on_bytes(void *context, void *user, struct span bytes) {
    struct host *host = context;
    struct end *end = user;
    CHECK(end->role == ACCEPTED && bytes.size > 0 && bytes.size <= READ_BYTES_MAX);
    CHECK(host->paused != end);
    if (host->crowded) {
        net_conn_pause(end->conn);
        return;
    }
    if (host->received == 0) {
        host->paused = end;
        net_conn_pause(end->conn);
        net_turn_at(host->net, net_now_ms() + TURN_MS);
    }
    host->received += bytes.size;
}

static void on_ended(void *context, void *user) {
    struct host *host = context;
    host->ended++;
    net_conn_close(((struct end *)user)->conn);
    net_turn_soon(host->net);
}

static void on_drained(void *context, void *user) {
    (void)context;
    (void)user;
    CHECK(false && "let go: nothing more is heard");
}

static void on_closed(void *context, void *user) {
    struct host *host = context;
    CHECK(((struct end *)user)->role == (host->crowded ? ACCEPTED : REFUSED));
    host->refused++;
    net_turn_soon(host->net);
}

static void on_woken(void *context) {
    (void)context;
}

#define SENDERS 2u
#define CROWD 5u /* one after the other, more than may be unsent to closing connections */
STATIC_ASSERT((CROWD - 1) * BULK_BYTES > FINISH_UNSENT_BYTES_MAX, "more");
#define REFUSALS 3u
#define RECEIVED (SENDERS * (BULK_BYTES + 7ull))

static void on_turn(void *context) {
    struct host *host = context;
    host->turns++;
    if (host->crowded) {
        CHECK(host->net->finishing <= FINISH_UNSENT_BYTES_MAX);
        if (host->connected == CROWD) {
            CHECK(host->net->finishing > 0);
            net_stop(host->net);
        }
        return;
    }
    if (host->paused != NULL) {
        net_conn_resume(host->paused->conn);
        host->paused = NULL;
    }
    if (host->received == RECEIVED && host->ended >= SENDERS && host->refused == REFUSALS) {
        net_stop(host->net);
    }
}

static const struct net_events EVENTS = {
    .accepted = on_accepted,
    .connected = on_connected,
    .bytes = on_bytes,
    .ended = on_ended,
    .drained = on_drained,
    .closed = on_closed,
    .woken = on_woken,
    .turn = on_turn,
};

static void dial(struct host *host, const char *address, enum role role) {
    struct end *end = end_new(host, role);
    end->conn = net_dial(host->net, address, end);
    if (role == DROPPED) {
        net_conn_close(end->conn);
    }
}

static void test_connections(void) {
    struct host host = {0};
    struct error error = {0};
    char named[ADDRESS_BYTES_MAX];
    CHECK(net_open(&EVENTS, &host, &host.net, &error) == STATUS_OK);
    CHECK(net_listen(host.net, "127.0.0.1:0", true, host.address, &error) == STATUS_OK);
    snprintf(named, sizeof(named), "localhost%s", strrchr(host.address, ':'));
    dial(&host, host.address, SENDER);
    dial(&host, named, SENDER); /* perhaps by way of [::1], where nobody listens */
    dial(&host, "127.0.0.1:1", REFUSED);
    dial(&host, "localhost:1", REFUSED);
    dial(&host, "nonsense", REFUSED);
    dial(&host, host.address, DROPPED);
    dial(&host, named, DROPPED);
    CHECK(!net_run(host.net, NET_NEVER_MS));
    CHECK(host.connected == SENDERS);
    net_close(host.net);
}

/* What closing connections have unsent is nobody's to count but the loop's. */
static void test_closing_ones_are_bounded(void) {
    struct host host = {.crowded = true};
    struct error error = {0};
    CHECK(net_open(&EVENTS, &host, &host.net, &error) == STATUS_OK);
    CHECK(net_listen(host.net, "127.0.0.1:0", true, host.address, &error) == STATUS_OK);
    for (uint32_t i = 0; i < CROWD; i++) {
        dial(&host, host.address, SENDER);
    }
    CHECK(!net_run(host.net, NET_NEVER_MS));
    CHECK(host.connected == CROWD && host.net->finishing == 0);
    net_close(host.net);
}

/* Left, by one who runs it or because the time is over, the loop goes on where it was. */
static void test_left_and_run_again(void) {
    struct host host = {.crowded = true};
    struct error error = {0};
    CHECK(net_open(&EVENTS, &host, &host.net, &error) == STATUS_OK);
    net_leave(host.net);
    CHECK(net_run(host.net, NET_NEVER_MS) && host.turns == 0);
    net_turn_soon(host.net);
    CHECK(net_run(host.net, TURN_MS) && host.turns == 1);
    net_turn_soon(host.net);
    CHECK(net_run(host.net, TURN_MS) && host.turns == 2);
    net_stop(host.net);
    CHECK(!net_run(host.net, TURN_MS));
    net_close(host.net);
}

/* Whatever is under way when the loop is stopped or never runs is freed. */
static void test_never_run(void) {
    struct host host = {0};
    struct error error = {0};
    CHECK(net_open(&EVENTS, &host, &host.net, &error) == STATUS_OK);
    CHECK(net_listen(host.net, "127.0.0.1:0", true, host.address, &error) == STATUS_OK);
    dial(&host, host.address, SENDER);
    dial(&host, "localhost:1", REFUSED);
    net_turn_soon(host.net);
    net_wake(host.net);
    net_close(host.net);
    CHECK(host.connected == 0 && host.turns == 0);
}

int main(void) {
    test_connections();
    test_closing_ones_are_bounded();
    test_left_and_run_again();
    test_never_run();
    CHECK(memory_live_count() == 0);
    printf("ok\n");
    return 0;
}
