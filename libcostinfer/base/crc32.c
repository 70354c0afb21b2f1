/* crc32.c - the checksum by tables, eight bytes at a time: checkpoints have gigabytes, and this keeps up
 * with reading them. */
#include "crc32.h"

void crc32_init(struct crc32 *c)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t sum = byte;
        for (int bit = 0; bit < 8; bit++)
            sum = sum >> 1 ^ (sum & 1 ? 0xEDB88320u : 0);
        c->tables[0][byte] = sum;
    }
    /* tables[k][byte] is what `byte` becomes after k more bytes of zero. */
    for (int k = 1; k < 8; k++)
        for (int byte = 0; byte < 256; byte++) {
            uint32_t sum = c->tables[k - 1][byte];
            c->tables[k][byte] = sum >> 8 ^ c->tables[0][sum & 0xFF];
        }
}

uint32_t crc32_add(const struct crc32 *c, uint32_t sum, const void *bytes, size_t n)
{
    const unsigned char *p = bytes;
    sum = ~sum;
    for (; n >= 8; n -= 8, p += 8) {
        sum ^= (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
        sum = c->tables[7][sum & 0xFF] ^ c->tables[6][sum >> 8 & 0xFF] ^ c->tables[5][sum >> 16 & 0xFF] ^
              c->tables[4][sum >> 24] ^ c->tables[3][p[4]] ^ c->tables[2][p[5]] ^ c->tables[1][p[6]] ^
              c->tables[0][p[7]];
    }
    for (; n > 0; n--, p++)
        sum = sum >> 8 ^ c->tables[0][(sum ^ *p) & 0xFF];
    return ~sum;
}
