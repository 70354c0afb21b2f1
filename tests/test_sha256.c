/* test_sha256.c - the examples that NIST publishes for FIPS 180-4, and the lengths around a block's end. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sha256.h"
#include "support.h"

static void digest_is(const void *bytes, size_t n, const char *expected)
{
    uint8_t digest[SHA256_BYTES];
    char text[2 * SHA256_BYTES + 1];
    sha256(digest, bytes, n);
    for (size_t i = 0; i < sizeof digest; i++)
        snprintf(text + 2 * i, 3, "%02x", digest[i]);
    ck_assert_msg(strcmp(text, expected) == 0, "of %zu bytes: %s", n, text);
}

START_TEST(the_messages_of_the_standard)
{
    const struct {
        const char *message, *digest;
    } cases[] = {
        { "", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" },
        { "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" },
        { "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
          "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1" },
        { "abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmn"
          "opqrstnopqrstu",
          "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        digest_is(cases[i].message, strlen(cases[i].message), cases[i].digest);
}
END_TEST

/* The padding takes 9 bytes: up to 55 fit the last block, 56 and more take another. */
START_TEST(one_byte_repeated)
{
    const struct {
        char byte;
        size_t n;
        const char *digest;
    } cases[] = {
        { '\xbd', 1, "68325720aabd7c82f30f554b313d0570c95accbb7dc4b5aae11204c08ffe732b" },
        { '\0', 55, "02779466cdec163811d078815c633f21901413081449002f24aa3e80f0b88ef7" },
        { '\0', 56, "d4817aa5497628e7c77e6b606107042bbba3130888c5f47a375e6179be789fbb" },
        { '\0', 57, "65a16cb7861335d5ace3c60718b5052e44660726da4cd13bb745381b235a1785" },
        { '\0', 63, "c7723fa1e0127975e49e62e753db53924c1bd84b8ac1ac08df78d09270f3d971" },
        { '\0', 64, "f5a5fd42d16a20302798ef6ed309979b43003d2320d9f0e8ea9831a92759fb4b" },
        { '\0', 65, "98ce42deef51d40269d542f5314bef2c7468d401ad5d85168bfab4c0108f75f7" },
        { '\0', 119, "f616b0d54e78571a9611f343c9f8e022e859e920381ab0e4d3da01e193a7bd7e" },
        { '\0', 120, "6edd9f6f9cc92cded36e6c4a580933f9c9f1b90562b46903b806f21902a1a54f" },
        { '\0', 128, "38723a2e5e8a17aa7950dc008209944e898f69a7bd10a23c839d341e935fd5ca" },
        { '\0', 1000, "541b3e9daa09b20bf85fa273e5cbd3e80185aa4ec298e765db87742b70138a53" },
        { 'A', 1000, "c2e686823489ced2017f6059b8b239318b6364f6dcd835d0a519105a1eadd6e4" },
        { 'U', 1005, "f4d62ddec0f3dd90ea1380fa16a5ff8dc4c54b21740650f24afc4120903552b0" },
        { 'a', 1000000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *bytes = malloc(cases[i].n);
        ck_assert_ptr_nonnull(bytes);
        memset(bytes, cases[i].byte, cases[i].n);
        digest_is(bytes, cases[i].n, cases[i].digest);
        free(bytes);
    }
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("sha256");
    TCase *t = tcase_create("sha256");
    tcase_add_test(t, the_messages_of_the_standard);
    tcase_add_test(t, one_byte_repeated);
    suite_add_tcase(s, t);
    return s;
}
