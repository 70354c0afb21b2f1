/* Each source of a device's memory in use, with fakes: a management library, sysfs and fdinfo. */
#include "support.h"

#if CINF_HAVE_OPENCL
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mem.h"
#include "opencl_vendor_memory.h"

static const struct pci_address at = { 0, 0x65, 0, 0 };
static char folder[64], library[512];

static void put(const char *name, const char *text)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    fputs(text, file);
    fclose(file);
}

static void begin(void)
{
    snprintf(folder, sizeof folder, "/tmp/costinfer-vendor-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(library, sizeof library, "%s/bin/libfake_nvml.so", getenv("CINF_BUILD"));
    unsetenv("COSTINFER_FAKE_NVML");
}

static void end(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    ck_assert_int_eq(system(command), 0);
}

static struct vendor_memory *open_in(const char *nvml)
{
    return vendor_memory_open(&at, &(struct vendor_sources){ nvml, folder, folder });
}

START_TEST(no_source_knows)
{
    ck_assert_ptr_null(open_in("libthere-is-none.so"));
    ck_assert_ptr_null(open_in("libm.so.6")); /* a library, but another one */
    ck_assert_ptr_null(vendor_memory_open(&at, NULL));
    vendor_memory_close(NULL);
    for (uint64_t n = 1; n <= 3; n++) {
        mem_fail_at(n);
        ck_assert_ptr_null(open_in("libthere-is-none.so"));
        mem_fail_at(0);
    }
}
END_TEST

START_TEST(nvml)
{
    uint64_t bytes = 7;
    void *fake = dlopen(library, RTLD_NOW);
    int (*started)(void);
    ck_assert_msg(fake != NULL, "%s", dlerror());
    void *symbol = dlsym(fake, "fake_nvml_started");
    memcpy(&started, &symbol, sizeof started);

    static const char *const faults[] = { "init", "find", "memory", "nonsense", "1001 1000" };
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        setenv("COSTINFER_FAKE_NVML", faults[i], 1);
        ck_assert_ptr_null(open_in(library));
        ck_assert_int_eq(started(), 0);
    }
    setenv("COSTINFER_FAKE_NVML", "5000000000 85899345920", 1);
    struct vendor_memory *m = open_in(library);
    ck_assert_ptr_nonnull(m);
    ck_assert_int_eq(started(), 1);
    ck_assert(vendor_memory_used(m, &bytes));
    ck_assert_uint_eq(bytes, 5000000000);
    setenv("COSTINFER_FAKE_NVML", "memory", 1); /* a driver that stops answering */
    bytes = 7;
    ck_assert(!vendor_memory_used(m, &bytes));
    ck_assert_uint_eq(bytes, 7);
    vendor_memory_close(m);
    ck_assert_int_eq(started(), 0);

    /* The library knows another device. */
    setenv("COSTINFER_FAKE_NVML", "1 2", 1);
    const struct pci_address other = { 1, 0x65, 0, 0 };
    ck_assert_ptr_null(vendor_memory_open(&other, &(struct vendor_sources){ library, folder, folder }));
    ck_assert_int_eq(started(), 0);
    dlclose(fake);
}
END_TEST

START_TEST(sysfs)
{
    uint64_t bytes = 7;
    char path[128];
    snprintf(path, sizeof path, "%s/0000:65:00.0", folder);
    mkdir(path, 0700);
    static const char *const wrong[] = { "", "\n", "many\n", "-5\n", "5 apples\n" };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        put("0000:65:00.0/mem_info_vram_used", wrong[i]);
        ck_assert_ptr_null(open_in("libthere-is-none.so"));
    }
    put("0000:65:00.0/mem_info_vram_used", "17179869184\n");
    struct vendor_memory *m = open_in("libthere-is-none.so");
    ck_assert_ptr_nonnull(m);
    ck_assert(vendor_memory_used(m, &bytes));
    ck_assert_uint_eq(bytes, 17179869184);
    put("0000:65:00.0/mem_info_vram_used", "4096\n");
    ck_assert(vendor_memory_used(m, &bytes));
    ck_assert_uint_eq(bytes, 4096);
    snprintf(path, sizeof path, "%s/0000:65:00.0/mem_info_vram_used", folder);
    unlink(path); /* as if the driver were unloaded */
    bytes = 7;
    ck_assert(!vendor_memory_used(m, &bytes));
    ck_assert_uint_eq(bytes, 7);
    vendor_memory_close(m);
}
END_TEST

START_TEST(fdinfo)
{
    uint64_t bytes = 7;
    put("0", "pos:\t0\nflags:\t0100002\nmnt_id:\t25\n"); /* not a DRM device */
    put("3",
        "pos:\t0\ndrm-driver:\txe\ndrm-pdev:\t0000:03:00.0\ndrm-client-id:\t1\ndrm-total-vram0:\t9 MiB\n");
    ck_assert_ptr_null(open_in("libthere-is-none.so")); /* another device */
    static const char one[] = "pos:\t0\ndrm-driver:\txe\ndrm-pdev:\t0000:65:00.0\ndrm-client-id:\t7\n"
                              "drm-total-system:\t8192 KiB\ndrm-total-vram0:\t100 MiB\n"
                              "drm-resident-vram0:\t64 MiB\ndrm-resident-vram1:\t512 KiB\nno colon here\n";
    put("4", one);
    put("5", one); /* another descriptor of the same client */
    put("6", "drm-pdev:\t0000:65:00.0\ndrm-client-id:\t8\ndrm-memory-vram:\t3\ndrm-memory-gtt:\t50 KiB\n");
    put("7", "drm-pdev:\t0000:65:00.0\ndrm-client-id:\t9\ndrm-total-vram:\t1 KiB\n");
    struct vendor_memory *m = open_in("libthere-is-none.so");
    ck_assert_ptr_nonnull(m);
    ck_assert(vendor_memory_used(m, &bytes));
    ck_assert_uint_eq(bytes, 64 * 1048576 + 512 * 1024 + 3 + 1024);
    vendor_memory_close(m);
}
END_TEST
#endif

Suite *suite(void)
{
    Suite *s = suite_create("opencl_vendor_memory");
    TCase *t = tcase_create("vendor_memory");
    suite_add_tcase(s, t);
#if CINF_HAVE_OPENCL
    tcase_add_checked_fixture(t, begin, end);
    tcase_add_test(t, no_source_knows);
    tcase_add_test(t, nvml);
    tcase_add_test(t, sysfs);
    tcase_add_test(t, fdinfo);
#endif
    return s;
}
