/* Fuzzing a client's connection to a whole node: framing, scanner, dispatch, log, machine, out.
 *
 * The node is the only member of its cluster, or has none yet, in memory, with a machine that
 * gives back what it is given. The first byte says which, and at which sizes the rest arrives.
 * What must hold: each request with an id is answered once and nothing else is said, within the
 * time-out; each answer is a line of JSON; the connection is closed only by what the protocol
 * says; no memory is left. */
#include "nodehost.h"
#include "wire/frame.h"
#include "wire/peer.h"
#include "wire/rpc.h"
#include "wire/scan.h"

#define STEP_MS 5000u
#define STEPS 16 /* past the request time-out */
#define ALONE 128u /* without a cluster */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What the stream asks for, by the wire's own reading of it (fuzz_wire.c tries that). */
struct expected {
    uint64_t answers;
    bool exact; /* false: the connection is closed, or becomes a server's, on the way */
};

static uint64_t answers_to(struct span line, bool *bad) {
    struct rpc_request request;
    struct span batch;
    *bad = false;
    switch (rpc_read(line, &request, &batch)) {
    case RPC_BLANK:
        return 0;
    case RPC_SINGLE:
        *bad = request.code == RPC_PARSE_ERROR || request.code == RPC_INVALID_REQUEST;
        return request.notification ? 0 : 1;
    case RPC_BATCH:
        for (size_t at = 0; rpc_batch_next(batch, &at, &request);) {
            if (!request.notification) {
                return 1;
            }
        }
        return 0;
    }
    return 0;
}

static struct expected expect(struct span stream) {
    struct expected expected = {0, true};
    struct frame frame = {0};
    struct span line;
    size_t consumed;
    uint32_t bad_lines = 0;
    bool bad;
    enum frame_result result;
    while ((result = frame_next(&frame, stream, LINE_BYTES_MAX, &line, &consumed)) ==
           FRAME_LINE) {
        expected.answers += answers_to(line, &bad);
        bad_lines = bad ? bad_lines + 1 : 0;
        if (peer_is_message(line) || frame_looks_like_http(line) || bad_lines > BAD_LINES_MAX) {
            expected.exact = false;
            break;
        }
        stream = (struct span){stream.data + consumed, stream.size - consumed};
    }
    expected.exact = expected.exact && result == FRAME_MORE;
    return expected;
}

/* The number of answers, each of which is a line of JSON. */
static uint64_t count_answers(struct span sent) {
    uint64_t count = 0;
    struct scan_error error;
    struct span value;
    while (sent.size > 0) {
        const char *end = memchr(sent.data, '\n', sent.size);
        MUST(end != NULL);
        struct span line = {sent.data, (size_t)(end - sent.data)};
        MUST(scan_document(line, &value, &error));
        MUST(line.data[0] == '[' ||
             (line.size > 22 && memcmp(line.data, "{\"jsonrpc\":\"2.0\",\"id\":", 22) == 0));
        sent = (struct span){end + 1, sent.size - line.size - 1};
        count++;
    }
    return count;
}

static struct nodehost_end *start(struct nodehost *host, bool create) {
    static const char CREATE[] = "{\"jsonrpc\":\"2.0\",\"method\":\"CreateCluster\"}\n";
    nodehost_init(host, false);
    MUST(node_start(host->node) == STATUS_OK);
    struct nodehost_end *end = nodehost_open(host);
    if (create) {
        nodehost_receive(host, end, SPAN(CREATE));
    }
    nodehost_turn(host);
    return end;
}

/* Nobody answers at an address that is to be added. */
static void refuse_dials(struct nodehost *host) {
    for (int i = 0; i < NODEHOST_ENDS_MAX; i++) {
        if (host->ends[i].conn != NULL && host->ends[i].dialled) {
            nodehost_close(host, &host->ends[i]);
        }
    }
}

static void feed(struct nodehost *host, struct nodehost_end *end, struct span stream,
                 size_t step) {
    while (stream.size > 0) {
        size_t bytes = stream.size < step ? stream.size : step;
        nodehost_receive(host, end, (struct span){stream.data, bytes});
        stream = (struct span){stream.data + bytes, stream.size - bytes};
        if (bytes % 3 != 0) { /* some pieces come in the same turn */
            nodehost_turn(host);
            refuse_dials(host);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct nodehost host;
    if (size < 1) {
        return 0;
    }
    struct buffer text = {0};
    buffer_append(&text, data + 1, size - 1);
    buffer_append_char(&text, '\n');
    struct expected expected = expect(buffer_span(&text));
    struct nodehost_end *end = start(&host, (data[0] & ALONE) == 0);
    size_t step = data[0] & (ALONE - 1u);
    feed(&host, end, buffer_span(&text), step == 0 ? SIZE_MAX : step * 2);
    nodehost_turn(&host);
    /* A request's time begins when it is read, which the limits may put off behind others. */
    uint64_t steps = STEPS * (1 + expected.answers);
    for (; steps > 0 && end->conn != NULL && node_conn_waiting(end->conn); steps--) {
        refuse_dials(&host); /* before the turn, which takes what it is answered with */
        nodehost_wait(&host, STEP_MS);
    }
    if (expected.exact) {
        MUST(end->conn != NULL && !node_conn_waiting(end->conn));
        MUST(count_answers(buffer_span(&end->sent)) == expected.answers);
    }
    MUST(!node_stopped(host.node, NULL));
    buffer_free(&text);
    nodehost_clear(&host);
    return 0;
}
