/* What the scanner says of each document on the standard input, for a comparison from outside.
 *
 * A document is its size in four bytes, the lowest first, and its bytes. The answer is a line
 * for each: "good", or the byte offset and the reason. */
#include "check.h"
#include "wire/scan.h"

static bool read_bytes(void *into, size_t bytes) {
    return fread(into, 1, bytes, stdin) == bytes;
}

int main(void) {
    unsigned char size[4];
    while (read_bytes(size, sizeof(size))) {
        size_t bytes =
            size[0] | (size_t)size[1] << 8 | (size_t)size[2] << 16 | (size_t)size[3] << 24;
        char *text = malloc(bytes + 1); /* behind the first byte: of exactly its size */
        struct scan_error error;
        struct span value;
        CHECK(text != NULL && read_bytes(text + 1, bytes));
        if (scan_document((struct span){text + 1, bytes}, &value, &error)) {
            puts("good");
        } else {
            CHECK(error.offset <= bytes);
            printf("%zu %s\n", error.offset, error.reason);
        }
        free(text);
    }
    return 0;
}
