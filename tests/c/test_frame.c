/* Bytes to lines, at every split of the input and at the limit; and who is taken for a browser.
 */
#include <string.h>

#include "check.h"
#include "wire/frame.h"

/* --- frames ----------------------------------------------------------------------------------
 */

/* Feed `input` in two pieces, split at `split`; the lines, each with a bar behind it. */
static void frame_all(struct span input, size_t split, size_t bytes_max, struct buffer *lines) {
    struct frame frame = {0};
    size_t start = 0;
    for (int piece = 0; piece < 2; piece++) {
        size_t end = piece == 0 ? split : input.size;
        for (;;) {
            size_t size = end - start;
            char *copy = malloc(size > 0 ? size : 1);
            CHECK(copy != NULL);
            memcpy(copy, input.data + start, size);
            struct span line;
            size_t consumed;
            enum frame_result result =
                frame_next(&frame, (struct span){copy, size}, bytes_max, &line, &consumed);
            if (result == FRAME_LINE) {
                buffer_append_span(lines, line);
                buffer_append_char(lines, '|');
                start += consumed;
            }
            free(copy);
            if (result == FRAME_TOO_LONG) {
                buffer_append_text(lines, "too long");
                return;
            }
            if (result == FRAME_MORE) {
                CHECK(consumed == 0 && frame.scanned == size);
                break;
            }
        }
    }
}

static void check_frames(struct span input, size_t bytes_max, const char *expected) {
    struct buffer lines = {0};
    for (size_t split = 0; split <= input.size; split++) {
        buffer_clear(&lines);
        frame_all(input, split, bytes_max, &lines);
        CHECK(span_equal(buffer_span(&lines), (struct span){expected, strlen(expected)}));
    }
    buffer_free(&lines);
}

static void test_frames(void) {
    check_frames(SPAN(""), 5, "");
    check_frames(SPAN("\n"), 5, "|");
    check_frames(SPAN("\n\n\n"), 0, "|||");
    check_frames(SPAN("abc"), 5, "");
    check_frames(SPAN("abc\r\n\nde\nf"), 5, "abc\r||de|");
    check_frames(SPAN("12345\n12345\n"), 5, "12345|12345|");
    check_frames(SPAN("12345\n123456\n1\n"), 5, "12345|too long");
    check_frames(SPAN("123456"), 5, "too long");
    check_frames(SPAN("12345"), 5, "");
}

static void test_http(void) {
    static const char *const HTTP[] = {"GET / HTTP/1.1\r",
                                       "POST / HTTP/1.1",
                                       "post /x http/1.0",
                                       "OPTIONS * HTTP/1.1",
                                       "PRI * HTTP/2.0",
                                       "BREW /pot HTTP/1.1",
                                       "GET /",
                                       "PUT /a b",
                                       "CONNECT a:4 HTTP/1.1",
                                       "GET http://127.0.0.1:4000/ HTTP/1.1",
                                       "HTTP/1.1 200 OK",
                                       "HTTP/1.1 200",
                                       "HTTP/2",
                                       "Host: x",
                                       "host:x",
                                       "HOST:",
                                       "User-Agent: curl/7",
                                       "Content-Type: text/plain",
                                       "Content-Length: 5",
                                       "content-length:5\r",
                                       "Connection: keep-alive",
                                       "Accept: */*",
                                       "Origin: null",
                                       "Sec-Fetch-Mode: cors",
                                       "sec-ch-ua: x",
                                       "Transfer-Encoding: chunked",
                                       "Accept-Encoding: gzip",
                                       "Accept-Language: de",
                                       "Referer: http://x",
                                       "Cookie: a=b",
                                       "X-Forwarded-For: 1.2.3.4",
                                       "Upgrade: websocket",
                                       " GET / HTTP/1.1",
                                       "Cache-Control: no",
                                       "Access-Control-Request-Method: POST",
                                       "Access-Control-Request-Headers: x"};
    static const char *const OTHER[] = {"",
                                        " ",
                                        "\r",
                                        "{\"jsonrpc\":\"2.0\"}",
                                        " {GET / HTTP/1.1",
                                        "[GET / HTTP/1.1",
                                        "\t[Host: x",
                                        "{Host: x}",
                                        "hello",
                                        "hello world",
                                        "GET",
                                        "get foo",
                                        "delete foo",
                                        "Apply: x",
                                        "foo: bar",
                                        "null",
                                        "true",
                                        "123",
                                        "\"GET / HTTP/1.1\"",
                                        "-1",
                                        "HTTP",
                                        "HTTP/",
                                        "HTTP/x",
                                        "HTTPS/1.1 2",
                                        "a HTTP/x",
                                        "Host",
                                        "Host x",
                                        "Hosts: x",
                                        "GET/ HTTP/1.1",
                                        ":",
                                        "/",
                                        " :x",
                                        "CreateCluster",
                                        "\x16\x03\x01"};
    for (size_t i = 0; i < sizeof(HTTP) / sizeof(HTTP[0]); i++) {
        if (!frame_looks_like_http((struct span){HTTP[i], strlen(HTTP[i])})) {
            fprintf(stderr, "%s\n", HTTP[i]);
            CHECK(!"HTTP");
        }
    }
    for (size_t i = 0; i < sizeof(OTHER) / sizeof(OTHER[0]); i++) {
        if (frame_looks_like_http((struct span){OTHER[i], strlen(OTHER[i])})) {
            fprintf(stderr, "%s\n", OTHER[i]);
            CHECK(!"not HTTP");
        }
    }
}

int main(void) {
    test_frames();
    test_http();
    puts("ok");
    return 0;
}
