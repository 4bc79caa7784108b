/* Which texts are the address of a server. */
#include <string.h>

#include "check.h"
#include "wire/address.h"

static bool address_good(const char *text) {
    return address_is_valid((struct span){text, strlen(text)});
}

static void test_addresses(void) {
    static const char *const GOOD[] = {"127.0.0.1:4000",
                                       "localhost:1",
                                       "a.example.org:65535",
                                       "node_1:80",
                                       "[::1]:4000",
                                       "[2001:db8::7]:1",
                                       "[fe80::1%eth0]:9",
                                       "[::ffff:1.2.3.4]:80",
                                       "xn--bcher-kva.example:80",
                                       "1a:80",
                                       "example.org.:80"};
    static const char *const BAD[] = {"",
                                      ":",
                                      ":4000",
                                      "localhost",
                                      "localhost:",
                                      "localhost:0",
                                      "localhost:65536",
                                      "localhost:99999",
                                      "localhost:040",
                                      "localhost:+4",
                                      "localhost:4 ",
                                      " localhost:4",
                                      "localhost:4x",
                                      "local host:4",
                                      "a\"b:4",
                                      "a\\b:4",
                                      "a/b:4",
                                      "::1:4000",
                                      "[]:4000",
                                      "[::1]",
                                      "[::1:4000",
                                      "::1]:4000",
                                      "[localhost]:4",
                                      "[1.2.3.4]:4",
                                      "[::g]:4",
                                      "[::1%]:4",
                                      "[::1%a b]:4",
                                      "1.2.3:4",
                                      "300.0.0.1:4",
                                      "1.2.3.4.5:4",
                                      "1234:80",
                                      "a..b:4",
                                      ".a:4",
                                      "http://a:4",
                                      "b\xc3\xbc"
                                      "cher:4",
                                      "-:-",
                                      "[::1%0123456789abcdef]:4",
                                      "localhost:100000"};
    for (size_t i = 0; i < sizeof(GOOD) / sizeof(GOOD[0]); i++) {
        CHECK(address_good(GOOD[i]));
    }
    for (size_t i = 0; i < sizeof(BAD) / sizeof(BAD[0]); i++) {
        if (address_good(BAD[i])) {
            fprintf(stderr, "%s\n", BAD[i]);
            CHECK(!"a bad address");
        }
    }
    CHECK(!address_is_valid(SPAN("a\0b:4")) && !address_is_valid(SPAN("1.2.3.4\0:4")));
    char longest[ADDRESS_BYTES_MAX + 10];
    for (size_t name = 250; name < 256; name++) {
        for (size_t i = 0; i < name; i++) {
            longest[i] = i % 50 == 49 ? '.' : 'a';
        }
        snprintf(longest + name, sizeof(longest) - name, ":65535");
        CHECK(address_good(longest) == (name <= 253));
    }
    memset(longest, 'a', 64);
    snprintf(longest + 64, sizeof(longest) - 64, ":1");
    CHECK(!address_good(longest) && address_good(longest + 1));
}

int main(void) {
    test_addresses();
    puts("ok");
    return 0;
}
