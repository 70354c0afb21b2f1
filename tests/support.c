#include "support.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static char *next_buffer(void)
{
    static char buffers[8][4096];
    static unsigned turn;
    return buffers[turn++ % 8];
}

static const char *below(const char *variable, const char *path)
{
    const char *root = getenv(variable);
    char *buffer = next_buffer();
    snprintf(buffer, 4096, "%s/%s", root ? root : ".", path);
    return buffer;
}

bool support_contains(const char *text, const char *words)
{
    return !words || strstr(text, words) != NULL;
}

const char *support_source(const char *path)
{
    return below("CINF_SOURCE", path);
}

const char *support_shared(const char *path)
{
    return below("CINF_SHARED", path);
}

bool support_have(const char *path)
{
    struct stat st;
    if (stat(path, &st) == 0)
        return true;
    printf("skipped: %s is absent\n", path);
    return false;
}

static char temp_folders[64][64];
static int n_temp_folders;
static pid_t temp_owner;

static void remove_temp_folders(void)
{
    if (getpid() != temp_owner)
        return;
    for (int i = 0; i < n_temp_folders; i++) {
        char command[128];
        snprintf(command, sizeof command, "rm -rf '%.63s'", temp_folders[i]);
        if (system(command) != 0)
            fprintf(stderr, "could not remove %s\n", temp_folders[i]);
    }
}

char *support_temp_folder(void)
{
    /* Check forks for each test; the child that made a folder removes it. */
    if (temp_owner != getpid()) {
        temp_owner = getpid();
        n_temp_folders = 0;
        atexit(remove_temp_folders);
    }
    ck_assert_int_lt(n_temp_folders, 64);
    char *folder = temp_folders[n_temp_folders++];
    snprintf(folder, 64, "/tmp/costinfer-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    return folder;
}

const char *support_write(const char *folder, const char *name, const void *bytes, long n)
{
    char *path = next_buffer();
    snprintf(path, 4096, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    ck_assert_msg(f != NULL, "cannot write %s", path);
    size_t size = n < 0 ? strlen(bytes) : (size_t)n;
    ck_assert_uint_eq(fwrite(bytes, 1, size, f), size);
    ck_assert_int_eq(fclose(f), 0);
    return path;
}

/* The letter of a thread's state; 'R' when it cannot be read: it has ended, or begun, just now. */
static char state_of_thread(const char *id)
{
    char path[300], line[512];
    snprintf(path, sizeof path, "/proc/self/task/%s/stat", id);
    FILE *file = fopen(path, "r");
    if (!file)
        return 'R';
    size_t n = fread(line, 1, sizeof line - 1, file);
    fclose(file);
    line[n] = '\0';
    const char *end = strrchr(line, ')'); /* of the name, which may hold anything */
    return end && end[1] == ' ' ? end[2] : 'R';
}

static bool others_sleep(void)
{
    char self[64] = ""; /* "PID/task/ID" */
    ck_assert_int_gt(readlink("/proc/thread-self", self, sizeof self - 1), 0);
    DIR *threads = opendir("/proc/self/task");
    ck_assert_ptr_nonnull(threads);
    bool asleep = true;
    for (struct dirent *entry; asleep && (entry = readdir(threads)) != NULL;) {
        if (entry->d_name[0] == '.' || strcmp(entry->d_name, strrchr(self, '/') + 1) == 0)
            continue;
        char state = state_of_thread(entry->d_name);
        asleep = state != 'R' && state != 'D';
    }
    closedir(threads);
    return asleep;
}

void support_await_sleep(void)
{
    for (int n_asleep = 0; n_asleep < 10; n_asleep = others_sleep() ? n_asleep + 1 : 0)
        nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
}
