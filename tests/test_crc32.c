#include "crc32.h"

#include <string.h>

#include "support.h"

/* Computes the checksum a bit at a time, as the polynomial is defined. */
static uint32_t by_bits(const unsigned char *p, size_t n)
{
    uint32_t sum = 0xFFFFFFFF;
    for (size_t i = 0; i < n; i++) {
        sum ^= p[i];
        for (int bit = 0; bit < 8; bit++)
            sum = sum >> 1 ^ (sum & 1 ? 0xEDB88320u : 0);
    }
    return ~sum;
}

START_TEST(published_values)
{
    struct crc32 c;
    crc32_init(&c);
    ck_assert_uint_eq(crc32_add(&c, 0, "", 0), 0);
    ck_assert_uint_eq(crc32_add(&c, 0, "a", 1), 0xE8B7BE43);
    ck_assert_uint_eq(crc32_add(&c, 0, "123456789", 9), 0xCBF43926);
    ck_assert_uint_eq(crc32_add(&c, 0, "The quick brown fox jumps over the lazy dog", 43), 0x414FA339);
}
END_TEST

/* Every length and alignment around the eight bytes of an iteration, and every place to split the data in
 * two. */
START_TEST(lengths_and_parts)
{
    struct crc32 c;
    unsigned char bytes[64];
    crc32_init(&c);
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)(i * 151 + 7);
    for (size_t at = 0; at < 8; at++)
        for (size_t n = 0; n + at <= sizeof bytes; n++) {
            uint32_t whole = by_bits(bytes + at, n);
            ck_assert_uint_eq(crc32_add(&c, 0, bytes + at, n), whole);
            uint32_t first = crc32_add(&c, 0, bytes + at, n / 3);
            ck_assert_uint_eq(crc32_add(&c, first, bytes + at + n / 3, n - n / 3), whole);
        }
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("crc32");
    TCase *tc = tcase_create("crc32");
    tcase_add_test(tc, published_values);
    tcase_add_test(tc, lengths_and_parts);
    suite_add_tcase(s, tc);
    return s;
}
