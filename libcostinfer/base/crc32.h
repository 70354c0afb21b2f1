/* crc32.h - the checksum of zip archives: CRC-32 with the reflected polynomial 0xEDB88320. */
#ifndef CRC32_H
#define CRC32_H

#include <stddef.h>
#include <stdint.h>

/* Tables for eight bytes at a time.  The caller owns them, so that no thread has to initialise anything
 * global. */
struct crc32 {
    uint32_t tables[8][256];
};

void crc32_init(struct crc32 *c);

/* Returns the checksum of earlier bytes, whose checksum is `sum`, followed by bytes[0..n).  The checksum of
 * no bytes is 0. */
uint32_t crc32_add(const struct crc32 *c, uint32_t sum, const void *bytes, size_t n);

#endif
