/* Memory of a CPU device, which is aligned, zeroed and counted; and the sizes and times of its measurement.
 */
#include <string.h>

#include "cpu_device.h"
#include "cpu_measure.h"
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

START_TEST(blocks)
{
    static const size_t sizes[] = { 0, 1, 63, 64, 65, 4096, 1000000 };
    struct cpu_device *d = (struct cpu_device *)device;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        unsigned char *block = cpu_new(d, sizes[i], 1);
        ck_assert_ptr_nonnull(block);
        ck_assert_uint_eq((uintptr_t)block % 64, 0);
        ck_assert_uint_ge(memory_used(), sizes[i]);
        for (size_t k = 0; k < sizes[i]; k++) {
            if (block[k] != 0)
                ck_abort_msg("byte %zu of %zu", k, sizes[i]);
        }
        memset(block, 0xFF, sizes[i]);
        cpu_free(d, block);
        ck_assert_uint_eq(memory_used(), 0);
    }
    cpu_free(d, NULL);
    ck_assert_ptr_null(cpu_new(d, SIZE_MAX, 2));
    ck_assert_ptr_null(cpu_new(d, SIZE_MAX - 100, 1));
    ck_assert_uint_eq(memory_used(), 0);
}
END_TEST

START_TEST(median)
{
    uint64_t samples[] = { 9, 1, 5, 7, 3 };
    ck_assert_uint_eq(cpu_median(samples, 5), 5);
    ck_assert_uint_eq(cpu_median(samples, 1), 1);
}
END_TEST

static void count_call(const void *argument)
{
    ++*(uint32_t *)(uintptr_t)argument;
}

START_TEST(measuring_stops_at_the_deadline_but_not_before_the_first_call)
{
    uint32_t calls = 0;
    cpu_time_of(count_call, &calls, CPU_SAMPLES_MAX, UINT64_MAX);
    ck_assert_uint_eq(calls, CPU_SAMPLES_MAX);
    cpu_time_of(count_call, &calls, CPU_SAMPLES_MAX, 0);
    ck_assert_uint_eq(calls, CPU_SAMPLES_MAX + 1);
    ck_assert_uint_ge(cpu_measured_bytes(), (size_t)64 << 20);
    ck_assert_uint_le(cpu_measured_bytes(), (size_t)256 << 20);
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("cpu_device");
    TCase *t = tcase_create("memory");
    tcase_add_checked_fixture(t, open_device, close_device);
    tcase_add_test(t, blocks);
    tcase_add_test(t, median);
    tcase_add_test(t, measuring_stops_at_the_deadline_but_not_before_the_first_call);
    suite_add_tcase(s, t);
    return s;
}
