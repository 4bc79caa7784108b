/* How long one rpc_read of a request takes. Not a test: built and run by hand.
 *
 *   gcc -std=c11 -D_GNU_SOURCE -O2 -Icsrc tests/c/bench_wire.c csrc/wire/rpc*.c \
 *       csrc/wire/scan*.c csrc/wire/address.c csrc/wire/frame.c \
 *       csrc/base/{buffer,memory,status}.c -o bench_wire
 *
 * The lines go through frame_next too, as from a connection; the best of several rounds counts,
 * since a busy machine only ever adds time. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "wire/frame.h"
#include "wire/rpc.h"
#include "wire/scan.h"

#define LINES 64
#define TURNS 4000
#define ROUNDS 15

static double now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static size_t read_lines(struct span input) {
    struct frame frame = {0};
    struct rpc_request request;
    struct span line;
    struct span batch;
    size_t consumed;
    size_t sum = 0;
    while (frame_next(&frame, input, LINE_BYTES_MAX, &line, &consumed) == FRAME_LINE) {
        if (rpc_read(line, &request, &batch) == RPC_SINGLE && request.code == RPC_OK) {
            sum += request.input.size;
        }
        input.data += consumed;
        input.size -= consumed;
    }
    return sum;
}

static size_t scan_lines(struct span input) {
    struct scan_error error;
    struct span value;
    size_t sum = 0;
    for (size_t i = 0; i < LINES; i++) {
        struct span line = {input.data + i * (input.size / LINES), input.size / LINES};
        sum += scan_document(line, &value, &error) ? value.size : 0;
    }
    return sum;
}

static double best_ns(size_t (*work)(struct span), struct span input) {
    double best = 1e18;
    volatile size_t sink = 0;
    for (int round = 0; round < ROUNDS; round++) {
        double start = now_ns();
        for (int turn = 0; turn < TURNS; turn++) {
            sink += work(input);
        }
        double each = (now_ns() - start) / TURNS / LINES;
        best = each < best ? each : best;
    }
    return best;
}

static void bench(const char *name, const char *line) {
    struct buffer buffer = {0};
    for (int i = 0; i < LINES; i++) {
        buffer_append_text(&buffer, line);
        buffer_append_char(&buffer, '\n');
    }
    struct span input = buffer_span(&buffer);
    double read = best_ns(read_lines, input);
    double scan = best_ns(scan_lines, input);
    printf("%-14s %4zu bytes   frame+rpc_read %6.1f ns   scan_document alone %6.1f ns\n", name,
           strlen(line), read, scan);
    buffer_free(&buffer);
}

int main(void) {
    bench("Put", "{\"jsonrpc\":\"2.0\",\"id\":12345,\"method\":\"Apply\",\"params\":{\"kind\":"
                 "\"Command\",\"input\":{\"Put\":[\"key-00012\",123]}}}");
    bench("Put, long form",
          "{\"jsonrpc\":\"2.0\",\"method\":\"Apply\",\"params\":{\"input\":{\"Put\":{\"key\":"
          "\"foo\",\"value\":1}},\"kind\":\"Command\"},\"id\":12345}");
    bench("Get", "{\"jsonrpc\":\"2.0\",\"id\":12345,\"method\":\"Apply\",\"params\":{\"kind\":"
                 "\"Query\",\"input\":{\"Get\":\"key-00012\"}}}");
    bench("List",
          "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"Apply\",\"params\":[\"LocalQuery\","
          "\"List\"]}");
    return 0;
}
