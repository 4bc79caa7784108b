/* CRC-32C by the SSE4.2 or ARMv8 instruction, by a table elsewhere; see crc32c.h. */
#include "base/crc32c.h"

#include <string.h>

#define POLYNOMIAL 0x82f63b78u /* Castagnoli's, reflected */

static uint32_t plain_step(uint32_t crc, unsigned char byte) {
    crc ^= byte;
    for (int bit = 0; bit < 8; bit++) {
        crc = (crc >> 1) ^ ((crc & 1u) != 0 ? POLYNOMIAL : 0u);
    }
    return crc;
}

uint32_t crc32c_plain(uint32_t seed, const void *data, size_t bytes) {
    const unsigned char *at = data;
    uint32_t crc = ~seed;
    for (size_t i = 0; i < bytes; i++) {
        crc = plain_step(crc, at[i]);
    }
    return ~crc;
}

#if defined(__x86_64__) && defined(__GNUC__)

__attribute__((target("sse4.2"))) static uint32_t
hardware(uint32_t seed, const unsigned char *at, size_t bytes) {
    uint64_t crc = (uint32_t)~seed;
    for (; bytes >= 8; bytes -= 8, at += 8) {
        uint64_t word;
        memcpy(&word, at, sizeof(word));
        crc = __builtin_ia32_crc32di(crc, word);
    }
    for (; bytes > 0; bytes--, at++) {
        crc = __builtin_ia32_crc32qi((uint32_t)crc, *at);
    }
    return ~(uint32_t)crc;
}

uint32_t crc32c(uint32_t seed, const void *data, size_t bytes) {
    if (__builtin_cpu_supports("sse4.2")) {
        return hardware(seed, data, bytes);
    }
    return crc32c_plain(seed, data, bytes);
}

#elif defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>

uint32_t crc32c(uint32_t seed, const void *data, size_t bytes) {
    const unsigned char *at = data;
    uint32_t crc = ~seed;
    for (; bytes >= 8; bytes -= 8, at += 8) {
        uint64_t word;
        memcpy(&word, at, sizeof(word));
        crc = __crc32cd(crc, word);
    }
    for (; bytes > 0; bytes--, at++) {
        crc = __crc32cb(crc, *at);
    }
    return ~crc;
}

#else

uint32_t crc32c(uint32_t seed, const void *data, size_t bytes) {
    return crc32c_plain(seed, data, bytes);
}

#endif
