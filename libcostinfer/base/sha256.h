/* sha256.h - the hash of FIPS 180-4, for API keys and for the fingerprints of files: short inputs, whole in
 * memory. */
#ifndef SHA256_H
#define SHA256_H

#include <stddef.h>
#include <stdint.h>

enum { SHA256_BYTES = 32, SHA256_TEXT = 2 * SHA256_BYTES + 1 };

void sha256(uint8_t digest[SHA256_BYTES], const void *bytes, size_t n);

/* The same in lowercase hexadecimal. */
void sha256_text(char text[SHA256_TEXT], const void *bytes, size_t n);

#endif
