/* The registry over a list of synthetic backends: two that find devices and one that finds none, next to two
 * for the CPU.  It is compiled here a second time, with that list instead of the library's. */
#define backends     test_backends
#define device_open  test_device_open
#define device_close test_device_close
#define device_list  test_device_list
#include "devices.c" /* NOLINT(bugprone-suspicious-include) */

#include "support.h"

/* ---- The backends -------------------------------------------------------------------------- */

enum { FAKES_MAX = 8 };

struct fake {
    struct device base;
    struct device_info info;
};

static struct fake fakes[FAKES_MAX];
static bool gpu_breaks, no_gpu;

static void describe(struct device_info *out, const char *name, const char *description, uint64_t memory)
{
    *out = (struct device_info){ .memory_total = memory, .is_gpu = memory > 0 && !no_gpu };
    snprintf(out->name, sizeof out->name, "%s", name);
    snprintf(out->description, sizeof out->description, "%s", description);
}

static enum cinf_status find_red(uint32_t index, struct device_info *out)
{
    if (index > 1)
        return cinf_fail(CINF_ENOTFOUND, "two red devices");
    describe(out, index ? "red:1" : "red:0", index ? "Big Scarlet" : "Small Scarlet", index ? 8 : 4);
    return CINF_OK;
}

static enum cinf_status find_blue(uint32_t index, struct device_info *out)
{
    if (index > 1)
        return cinf_fail(CINF_ENOTFOUND, "two blue devices");
    describe(out, index ? "blue:1" : "blue:0", index ? "Host Navy" : "Huge Navy", index ? 0 : 16);
    out->shares_cpu = index == 1;
    return CINF_OK;
}

static enum cinf_status find_none(uint32_t index, struct device_info *out)
{
    (void)index, (void)out;
    return cinf_fail(CINF_ENOTFOUND, "the driver of green devices is absent");
}

static enum cinf_status open_as(struct device **out, const struct backend *backend, const char *which)
{
    struct fake *fake = fakes;
    while (fake->base.backend)
        fake++;
    ck_assert_uint_lt((size_t)(fake - fakes), FAKES_MAX);
    describe(&fake->info, which ? which : backend->name, "", 0);
    fake->base.backend = backend;
    *out = &fake->base;
    return CINF_OK;
}

static const struct backend red, blue, green, quick, slow;

static enum cinf_status open_red(struct device **out, const struct device_options *options)
{
    return open_as(out, &red, options->which);
}

static enum cinf_status open_blue(struct device **out, const struct device_options *options)
{
    if (gpu_breaks)
        return cinf_fail(CINF_EDEVICE, "it smokes");
    return open_as(out, &blue, options->which);
}

static enum cinf_status open_quick(struct device **out, const struct device_options *options)
{
    ck_assert_ptr_null(options->which);
    return open_as(out, &quick, NULL);
}

static enum cinf_status open_slow(struct device **out, const struct device_options *options)
{
    ck_assert_ptr_null(options->which);
    return open_as(out, &slow, NULL);
}

static void close_fake(struct device *device)
{
    device->backend = NULL;
}

static void info_of(const struct device *device, struct device_info *out)
{
    *out = ((const struct fake *)device)->info;
}

static const struct backend red = {
    .name = "red", .find = find_red, .open = open_red, .close = close_fake, .info = info_of
};
static const struct backend blue = {
    .name = "blue", .find = find_blue, .open = open_blue, .close = close_fake, .info = info_of
};
static const struct backend green = { .name = "green", .find = find_none };
static const struct backend quick = {
    .name = "quick", .open = open_quick, .close = close_fake, .info = info_of
};
static const struct backend slow = {
    .name = "slow", .open = open_slow, .close = close_fake, .info = info_of
};

const struct backend_entry test_backends[BACKENDS_MAX] = {
    { &red, NULL }, { &quick, "quick loops" }, { &green, NULL }, { &slow, "slow loops" }, { &blue, NULL }
};

/* ---- Tests --------------------------------------------------------------------------------- */

/* Opens it and checks which device that is and what the reason says. */
static struct device *opened(const char *name, const char *expected, const char *words)
{
    struct device *device;
    struct device_info info;
    char reason[DEVICE_REASON_MAX];
    ck_ok(device_open(&device, name, NULL, reason));
    device->backend->info(device, &info);
    ck_assert_str_eq(info.name, expected);
    ck_assert_msg(support_contains(reason, words), "the reason \"%s\" lacks \"%s\"", reason, words);
    return device;
}

START_TEST(names_of_the_cpu_come_first)
{
    static const char *const names[] = { "quick", "slow", "red:0", "red:1", "blue:0", "blue:1" };
    for (uint32_t i = 0; i < 6; i++)
        ck_assert_str_eq(device_list(i), names[i]);
    ck_assert_ptr_null(device_list(6));
}
END_TEST

START_TEST(auto_is_the_largest_gpu_of_all_backends)
{
    device_close(opened("auto", "blue:0", "the GPU with the most memory"));
    device_close(opened(NULL, "blue:0", "the GPU with the most memory"));
    gpu_breaks = true;
    device_close(opened("auto", "quick",
                        "quick loops): the fastest CPU device of this build; the GPU cannot "
                        "be used: it smokes"));
}
END_TEST

START_TEST(each_backend_says_why_it_has_no_gpu)
{
    no_gpu = true;
    device_close(
        opened("auto", "quick", "of 2 red devices none is a GPU; the driver of green devices is absent; "));
}
END_TEST

START_TEST(names_mean_devices)
{
    device_close(opened("red", "red:1", "the GPU with the most memory"));
    device_close(opened("red:0", "red:0", "asked for by name"));
    device_close(opened("NAVY", "blue:0", "asked for by name"));
    device_close(opened("host", "blue:1", "asked for by name"));
    device_close(opened("slow", "slow", "slow loops): asked for by name"));
    no_gpu = true;
    device_close(opened("blue", "blue:0", "asked for by name"));
    struct device *device = NULL;
    ck_fails(
        device_open(&device, "green", NULL, NULL), CINF_ENOTFOUND,
        "no device \"green\": the driver of green devices is absent; available: auto, quick, slow, red:0");
    ck_fails(device_open(&device, "yellow", NULL, NULL), CINF_ENOTFOUND,
             "no device \"yellow\"; available: auto");
    ck_assert_ptr_null(device);
}
END_TEST

/* Devices that compute on the CPU exclude each other, whichever backend they are of; others only themselves.
 */
START_TEST(a_device_has_one_opener)
{
    struct device *second = NULL;
    struct device *small = opened("red:0", "red:0", ""), *big = opened("red:1", "red:1", "");
    struct device *cpu = opened("blue:1", "blue:1", "");
    ck_fails(device_open(&second, "red:1", NULL, NULL), CINF_EBUSY, "red:1: it belongs to another");
    ck_fails(device_open(&second, "slow", NULL, NULL), CINF_EBUSY, "slow: the CPU belongs to another");
    struct device *other = opened("auto", "blue:0", "");
    ck_fails(device_open(&second, "auto", NULL, NULL), CINF_EBUSY, "blue:0");
    device_close(small);
    device_close(cpu);
    device_close(opened("quick", "quick", ""));
    device_close(opened("red:0", "red:0", ""));
    device_close(big);
    device_close(other);
    ck_assert_ptr_null(second);
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("devices");
    TCase *t = tcase_create("registry");
    tcase_add_test(t, names_of_the_cpu_come_first);
    tcase_add_test(t, auto_is_the_largest_gpu_of_all_backends);
    tcase_add_test(t, each_backend_says_why_it_has_no_gpu);
    tcase_add_test(t, names_mean_devices);
    tcase_add_test(t, a_device_has_one_opener);
    suite_add_tcase(s, t);
    return s;
}
