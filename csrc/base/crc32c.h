/* CRC-32C (Castagnoli), the checksum of every line: in hardware where the processor has it. */
#ifndef RAFTPICO_BASE_CRC32C_H
#define RAFTPICO_BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* The checksum of `bytes` of `data`, going on from `seed` (the checksum of what came before, 0
 * at the start): crc32c(crc32c(0, a), b) is that of a followed by b. */
uint32_t crc32c(uint32_t seed, const void *data, size_t bytes);

/* The same, slowly and plainly: the reference that tests compare with. */
uint32_t crc32c_plain(uint32_t seed, const void *data, size_t bytes);

#endif
