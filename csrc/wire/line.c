/* Writing and checking the seal of a line; see line.h. */
#include "wire/line.h"

#include "base/crc32c.h"

#define SEAL_HEAD ",\"crc32c\":\""
#define SEAL_HEAD_BYTES (sizeof(SEAL_HEAD) - 1)
#define CRC_DIGITS 8

_Static_assert(SEAL_HEAD_BYTES + CRC_DIGITS + 3 == LINE_SEAL_BYTES, "the seal's parts add up");

static const char HEX_DIGITS[] = "0123456789abcdef";

uint32_t line_seal(struct buffer *buffer, size_t line_start, uint32_t seed) {
    uint32_t crc = crc32c(seed, buffer->bytes + line_start, buffer->size - line_start);
    char *at = buffer_reserve(buffer, LINE_SEAL_BYTES);
    memcpy(at, SEAL_HEAD, SEAL_HEAD_BYTES);
    at += SEAL_HEAD_BYTES;
    for (int digit = 0; digit < CRC_DIGITS; digit++) {
        *at++ = HEX_DIGITS[(crc >> (28 - 4 * digit)) & 15u];
    }
    memcpy(at, "\"}\n", 3);
    buffer_extend(buffer, LINE_SEAL_BYTES);
    return crc;
}

/* A digit's value and one more; 0 for what is no lower-case digit. */
static const uint8_t HEX_VALUES[256] = {
    ['0'] = 1,  ['1'] = 2,  ['2'] = 3,  ['3'] = 4,  ['4'] = 5,  ['5'] = 6,
    ['6'] = 7,  ['7'] = 8,  ['8'] = 9,  ['9'] = 10, ['a'] = 11, ['b'] = 12,
    ['c'] = 13, ['d'] = 14, ['e'] = 15, ['f'] = 16,
};

enum status line_peek_crc(struct span line, struct span *body, uint32_t *crc) {
    if (line.size <= LINE_SEAL_BYTES) {
        return STATUS_CORRUPT;
    }
    const char *seal = line.data + line.size - LINE_SEAL_BYTES;
    if (memcmp(seal, SEAL_HEAD, SEAL_HEAD_BYTES) != 0 ||
        memcmp(seal + SEAL_HEAD_BYTES + CRC_DIGITS, "\"}\n", 3) != 0) {
        return STATUS_CORRUPT;
    }
    uint32_t value = 0;
    for (int digit = 0; digit < CRC_DIGITS; digit++) {
        uint32_t nibble = HEX_VALUES[(unsigned char)seal[SEAL_HEAD_BYTES + (size_t)digit]];
        if (nibble == 0) {
            return STATUS_CORRUPT;
        }
        value = (value << 4) | (nibble - 1);
    }
    *body = (struct span){line.data, line.size - LINE_SEAL_BYTES};
    *crc = value;
    return STATUS_OK;
}

enum status line_check(struct span line, uint32_t seed, struct span *body, uint32_t *crc) {
    struct span inside;
    uint32_t said;
    if (line_peek_crc(line, &inside, &said) != STATUS_OK ||
        crc32c(seed, inside.data, inside.size) != said) {
        return STATUS_CORRUPT;
    }
    *body = inside;
    *crc = said;
    return STATUS_OK;
}
