/* The arena: the second round returns what the first one counted, every array aligned and none overlapping
 * another; sizes that cannot be added never yield a block. */
#include <stdint.h>
#include <string.h>

#include "arena.h"
#include "mem.h"
#include "support.h"

enum { ARRAYS = 6 };

static const struct {
    size_t n, size, align;
} arrays[ARRAYS] = { { 3, 1, 1 }, { 5, 8, 0 }, { 0, 4, 64 }, { 7, 4, 64 }, { 1, 1, 1 }, { 2, 100, 16 } };

static void take_all(struct arena *arena, unsigned char *places[ARRAYS])
{
    for (size_t i = 0; i < ARRAYS; i++)
        places[i] = arena_take(arena, arrays[i].n, arrays[i].size, arrays[i].align);
}

START_TEST(arrays_lie_apart_in_the_bytes_that_were_counted)
{
    unsigned char *places[ARRAYS];
    struct arena arena = { 0 };
    take_all(&arena, places);
    for (size_t i = 0; i < ARRAYS; i++)
        ck_assert_ptr_null(places[i]);
    const size_t counted = arena.used;
    ck_assert_uint_ge(counted, 3 + 40 + 28 + 1 + 200);
    unsigned char *block = mem_new_aligned(64, counted, 1);
    ck_assert_ptr_nonnull(block);
    arena_begin(&arena, block);
    take_all(&arena, places);
    ck_assert_uint_eq(arena.used, counted);
    for (size_t i = 0; i < ARRAYS; i++) {
        const size_t align = arrays[i].align ? arrays[i].align : _Alignof(max_align_t);
        ck_assert_uint_eq((uintptr_t)places[i] % align, 0);
        ck_assert(places[i] >= block && places[i] + arrays[i].n * arrays[i].size <= block + counted);
        ck_assert(i == 0 || places[i] >= places[i - 1] + arrays[i - 1].n * arrays[i - 1].size);
        memset(places[i], (int)i, arrays[i].n * arrays[i].size);
    }
    for (size_t i = 0; i < ARRAYS; i++)
        for (size_t k = 0; k < arrays[i].n * arrays[i].size; k++)
            ck_assert_uint_eq(places[i][k], i);
    mem_free(block);
}
END_TEST

/* No sum wraps around to a small block, and nothing that is taken later makes the sum possible again. */
START_TEST(what_cannot_be_counted_stays_so)
{
    static const size_t pairs[][2] = { { SIZE_MAX, 2 }, { SIZE_MAX, 1 }, { SIZE_MAX - 100, 1 } };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        struct arena arena = { 0 };
        arena_take(&arena, 200, 1, 64);
        arena_take(&arena, pairs[i][0], pairs[i][1], 64);
        ck_assert_uint_eq(arena.used, SIZE_MAX);
        arena_take(&arena, 1, 1, 1);
        ck_assert_uint_eq(arena.used, SIZE_MAX);
        arena_take(&arena, 0, 1, 0);
        ck_assert_uint_eq(arena.used, SIZE_MAX);
    }
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("arena");
    TCase *t = tcase_create("arena");
    tcase_add_test(t, arrays_lie_apart_in_the_bytes_that_were_counted);
    tcase_add_test(t, what_cannot_be_counted_stays_so);
    suite_add_tcase(s, t);
    return s;
}
