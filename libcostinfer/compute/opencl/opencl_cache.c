/* opencl_cache.c - one file for each program, below $XDG_CACHE_HOME/costinfer (or ~/.cache/costinfer):
 *
 *     0         8            16             24          32          32 + k        32 + k + n
 *     | magic   | k: key's   | n: program's | checksum  | key       | program     |
 *     | CINFOCL1| length     | length       | (FNV-1a)  |           |             |
 *
 * Numbers are in this machine's byte order, since a file is useful on this machine only.  The checksum covers
 * all bytes after it and is verified before the driver sees any: some drivers crash on a damaged program. The
 * checksum guards against accidents; the folder (mode 700) guards against other users. */
#include "opencl_cache.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file.h"
#include "mem.h"

enum { PROGRAM_BYTES_MAX = 64 << 20 };

static const char magic[8] = { 'C', 'I', 'N', 'F', 'O', 'C', 'L', '1' };

struct head {
    char magic[8];
    uint64_t key_bytes, program_bytes, checksum;
};

static uint64_t checksum(const void *bytes, size_t n, uint64_t sum)
{
    const unsigned char *from = bytes;
    for (size_t i = 0; i < n; i++)
        sum = (sum ^ from[i]) * 0x100000001B3u;
    return sum;
}
static const uint64_t checksum_start = 0xCBF29CE484222325u;

bool opencl_cache_wanted(cl_device_id id)
{
    static const char *const with_their_own[] = { "Portable Computing Language", "NVIDIA CUDA", "rusticl",
                                                  "Clover" };
    cl_platform_id platform;
    char name[128] = "";
    if (clGetDeviceInfo(id, CL_DEVICE_PLATFORM, sizeof platform, &platform, NULL) != CL_SUCCESS ||
        clGetPlatformInfo(platform, CL_PLATFORM_NAME, sizeof name - 1, name, NULL) != CL_SUCCESS)
        return false;
    for (size_t i = 0; i < sizeof with_their_own / sizeof *with_their_own; i++) {
        if (strcmp(name, with_their_own[i]) == 0)
            return false;
    }
    return true;
}

void opencl_cache_key(struct strbuf *out, cl_device_id id, const char *options, const char *const *sources,
                      uint32_t n_sources)
{
    static const cl_device_info facts[] = { CL_DEVICE_NAME, CL_DEVICE_VENDOR, CL_DEVICE_VERSION,
                                            CL_DRIVER_VERSION };
    for (size_t i = 0; i < sizeof facts / sizeof *facts; i++) {
        char text[256] = "";
        clGetDeviceInfo(id, facts[i], sizeof text - 1, text, NULL);
        strbuf_printf(out, "%s\n", text);
    }
    cl_platform_id platform;
    char version[256] = "";
    if (clGetDeviceInfo(id, CL_DEVICE_PLATFORM, sizeof platform, &platform, NULL) == CL_SUCCESS)
        clGetPlatformInfo(platform, CL_PLATFORM_VERSION, sizeof version - 1, version, NULL);
    strbuf_printf(out, "%s\n%s\n", version, options);
    for (uint32_t i = 0; i < n_sources; i++)
        strbuf_puts(out, sources[i]);
}

/* The path of a key's file, or NULL.  `make` creates its folder. */
static char *path_of(const struct strbuf *key, bool make)
{
    const char *root = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char *base = root && root[0] == '/' ? mem_copy_text(root) : home ? path_join(home, ".cache") : NULL;
    char *folder = base ? path_join(base, "costinfer") : NULL;
    char name[32];
    snprintf(name, sizeof name, "opencl-%016" PRIx64, checksum(key->text, key->len, checksum_start));
    if (make && folder) {
        mkdir(base, 0700); /* failing is fine: what matters is whether the file can be written */
        mkdir(folder, 0700);
    }
    char *path = folder ? path_join(folder, name) : NULL;
    mem_free(folder);
    mem_free(base);
    return path;
}

/* Finds the program's bytes in the file; NULL if the file is damaged or has another key. */
static const unsigned char *program_in(const char *file, size_t size, const struct strbuf *key,
                                       size_t *program_bytes)
{
    struct head head;
    if (size < sizeof head)
        return NULL;
    memcpy(&head, file, sizeof head);
    size_t rest = size - sizeof head;
    if (memcmp(head.magic, magic, sizeof magic) != 0 || head.key_bytes != key->len || key->len > rest ||
        head.program_bytes != rest - key->len || head.program_bytes == 0 ||
        head.checksum != checksum(file + sizeof head, rest, checksum_start) ||
        memcmp(file + sizeof head, key->text, key->len) != 0)
        return NULL;
    *program_bytes = (size_t)head.program_bytes;
    return (const unsigned char *)file + sizeof head + key->len;
}

cl_program opencl_cache_load(cl_context context, cl_device_id id, const struct strbuf *key)
{
    char *path = key->failed ? NULL : path_of(key, false), *file = NULL;
    size_t size = 0, program_bytes;
    if (!path || file_load(&file, &size, path, PROGRAM_BYTES_MAX) != CINF_OK) {
        mem_free(path);
        return NULL;
    }
    mem_free(path);
    cl_program program = NULL;
    const unsigned char *bytes = program_in(file, size, key, &program_bytes);
    if (bytes)
        program = clCreateProgramWithBinary(context, 1, &id, &program_bytes, &bytes, NULL, NULL);
    if (program && clBuildProgram(program, 1, &id, "", NULL, NULL) != CL_SUCCESS) {
        clReleaseProgram(program);
        program = NULL;
    }
    mem_free(file);
    return program;
}

static bool write_all(int fd, const void *bytes, size_t n)
{
    const char *from = bytes;
    while (n > 0) {
        ssize_t wrote = write(fd, from, n);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote <= 0)
            return false;
        from += wrote;
        n -= (size_t)wrote;
    }
    return true;
}

/* Writes a temporary file and renames it, so that a reader never sees half a file. */
static void write_file(const char *path, const struct head *head, const struct strbuf *key,
                       const void *program)
{
    struct strbuf temporary = { 0 };
    strbuf_printf(&temporary, "%s.%ld", path, (long)getpid());
    int fd = temporary.failed ? -1 : open(temporary.text, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd >= 0) {
        bool written = write_all(fd, head, sizeof *head) && write_all(fd, key->text, key->len) &&
                       write_all(fd, program, (size_t)head->program_bytes);
        written = close(fd) == 0 && written;
        if (!written || rename(temporary.text, path) != 0)
            unlink(temporary.text);
    }
    strbuf_free(&temporary);
}

void opencl_cache_save(cl_program program, const struct strbuf *key)
{
    size_t n = 0;
    if (key->failed || clGetProgramInfo(program, CL_PROGRAM_BINARY_SIZES, sizeof n, &n, NULL) != CL_SUCCESS ||
        n == 0 || n > PROGRAM_BYTES_MAX / 2)
        return;
    char *path = path_of(key, true);
    unsigned char *bytes = mem_new(n, 1);
    if (path && bytes &&
        clGetProgramInfo(program, CL_PROGRAM_BINARIES, sizeof bytes, &bytes, NULL) == CL_SUCCESS) {
        struct head head = { .key_bytes = key->len, .program_bytes = n };
        memcpy(head.magic, magic, sizeof magic);
        head.checksum = checksum(bytes, n, checksum(key->text, key->len, checksum_start));
        write_file(path, &head, key, bytes);
    }
    mem_free(bytes);
    mem_free(path);
}
