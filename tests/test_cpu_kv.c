/* The cache of the CPU backends: its shape in both formats, what a copy copies, and that it takes memory only
 * when it is written. */
#include <stdio.h>
#include <string.h>

#include "cpu_plain.h"
#include "support.h"

static struct device *device;

static void open_device(void)
{
    ck_ok(backend_cpu_reference.open(&device, &(struct device_options){ 0 }));
}

static uint64_t memory_used(void)
{
    struct device_info info;
    cpu_device_info(device, &info);
    return info.memory_used;
}

static void close_device(void)
{
    ck_assert_uint_eq(memory_used(), 0);
    cpu_device_close(device);
}

START_TEST(cache)
{
    struct program p = { .width = 12, .inner = 5, .heads = 3, .layers = 2, .vocab = 9, .positions = 7 };
    struct kv *kv = NULL;
    ck_assert_uint_eq(cpu_kv_slot_bytes(device, &p), 2 * 2 * 7 * 12 * sizeof(float));
    uint64_t before = memory_used();
    ck_ok(cpu_kv_new(&kv, device, &p, 3));
    ck_assert_uint_ge(memory_used() - before, 3 * cpu_kv_slot_bytes(device, &p));
    /* The matrices follow one another and fill the cache. */
    const struct cpu_kv *c = (struct cpu_kv *)kv;
    ck_assert_ptr_eq(cpu_keys(c, 0, 0, 0), c->elements);
    ck_assert_ptr_eq(cpu_values(c, 0, 0, 0), cpu_keys(c, 0, 0, 0) + 7 * 4);
    ck_assert_ptr_eq(cpu_keys(c, 0, 0, 1), cpu_values(c, 0, 0, 0) + 7 * 4);
    ck_assert_ptr_eq(cpu_keys(c, 0, 1, 0), cpu_keys(c, 0, 0, 0) + 6 * 7 * 4);
    ck_assert_ptr_eq(cpu_keys(c, 1, 0, 0), cpu_keys(c, 0, 0, 0) + 12 * 7 * 4);
    ck_assert_ptr_eq(cpu_values(c, 2, 1, 2) + 7 * 4, cpu_keys(c, 0, 0, 0) + 3 * 12 * 7 * 4);
    cpu_kv_free(kv);
    cpu_kv_free(NULL);

    kv = NULL;
    p.layers = UINT32_MAX;
    p.positions = p.width = 1u << 28;
    p.heads = 1;
    ck_assert_uint_eq(cpu_kv_slot_bytes(device, &p), UINT64_MAX);
    ck_fails(cpu_kv_new(&kv, device, &p, 1), CINF_ENOMEM, "1 slots");
    p.heads = 3;
    ck_fails(cpu_kv_new(&kv, device, &p, 1), CINF_EINVAL, "3 heads");
    ck_assert_ptr_null(kv);
}
END_TEST

/* Lines and positions of the other format are whole units, and elements may be half as large. */
START_TEST(units)
{
    const struct program p = { .width = 12, .inner = 5, .heads = 3, .layers = 2, .vocab = 9, .positions = 7 };
    for (int f16 = 0; f16 < 2; f16++) {
        const struct cpu_kv_format format = { 32, f16 };
        struct kv *kv;
        ck_assert_uint_eq(cpu_kv_bytes_of_slot(&p, format), 2 * 3 * 2 * 32 * 32 * (f16 ? 2 : 4));
        ck_ok(cpu_kv_new_as(&kv, device, &p, 2, format));
        const struct cpu_kv *c = (struct cpu_kv *)kv;
        const size_t bytes = cpu_kv_bytes(c, 7 * 32);
        ck_assert_uint_eq(bytes, 7 * 32 * (f16 ? 2 : 4));
        ck_assert_ptr_eq(cpu_kv_values(c, 1, 1, 2) + c->matrix_bytes,
                         c->elements + 2 * cpu_kv_bytes_of_slot(&p, format));
        memset(cpu_kv_keys(c, 0, 1, 2), 1, bytes);
        memset(cpu_kv_values(c, 0, 1, 2), 2, bytes);
        memset(cpu_kv_values(c, 0, 0, 0), 3, bytes);
        ck_fails(cpu_kv_copy(kv, 1, 2, 1), CINF_EINVAL, "from slot 2 to slot 1 of 2");
        ck_ok(cpu_kv_copy(kv, 0, 0, 7));
        ck_ok(cpu_kv_copy(kv, 1, 0, 5));
        const size_t copied = cpu_kv_bytes(c, 5 * 32);
        ck_assert_mem_eq(cpu_kv_keys(c, 1, 1, 2), cpu_kv_keys(c, 0, 1, 2), copied);
        ck_assert_mem_eq(cpu_kv_values(c, 1, 1, 2), cpu_kv_values(c, 0, 1, 2), copied);
        ck_assert_mem_eq(cpu_kv_values(c, 1, 0, 0), cpu_kv_values(c, 0, 0, 0), copied);
        for (size_t i = copied; i < c->matrix_bytes; i++)
            ck_assert_uint_eq(cpu_kv_keys(c, 1, 1, 2)[i], 0);
        ck_ok(cpu_kv_check(kv, &p));
        ck_fails(cpu_kv_check(kv, &(struct program){ .width = 12, .heads = 3, .layers = 2, .positions = 8 }),
                 CINF_EINVAL, "another shape");
        cpu_kv_free(kv);
    }
}
END_TEST

/* A cache takes addresses, not memory, until it is written. */
START_TEST(cache_is_lazy)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return; /* a sanitizer's allocator touches what it hands out */
#endif
    long before = 0, after = 0;
    const struct program p = {
        .width = 768, .inner = 1, .heads = 12, .layers = 12, .vocab = 1, .positions = 1024
    };
    FILE *f = fopen("/proc/self/statm", "r");
    if (!f)
        return;
    ck_assert_int_eq(fscanf(f, "%*d %ld", &before), 1);
    struct kv *kv;
    ck_ok(cpu_kv_new(&kv, device, &p, 16)); /* 1.2 GB */
    rewind(f);
    ck_assert_int_eq(fscanf(f, "%*d %ld", &after), 1);
    fclose(f);
    ck_assert_int_lt(after - before, 1000); /* pages */
    cpu_kv_free(kv);
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("cpu_kv");
    TCase *t = tcase_create("cache");
    tcase_add_checked_fixture(t, open_device, close_device);
    tcase_add_test(t, cache);
    tcase_add_test(t, units);
    tcase_add_test(t, cache_is_lazy);
    suite_add_tcase(s, t);
    return s;
}
