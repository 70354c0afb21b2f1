/* bytes.h - little-endian numbers out of a file's bytes, at any alignment. */
#ifndef BYTES_H
#define BYTES_H

#include <stdint.h>

static inline uint16_t load_u16(const void *bytes)
{
    const unsigned char *b = bytes;
    return (uint16_t)(b[0] | b[1] << 8);
}

static inline uint32_t load_u32(const void *bytes)
{
    const unsigned char *b = bytes;
    return load_u16(b) | (uint32_t)load_u16(b + 2) << 16;
}

static inline uint64_t load_u64(const void *bytes)
{
    const unsigned char *b = bytes;
    return load_u32(b) | (uint64_t)load_u32(b + 4) << 32;
}

#endif
