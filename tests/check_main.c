/* check_main.c - runs the suite of a test program. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backend.h"
#include "support.h"

enum { SKIPPED = 77 };

/* Whether the device that the tests run on is available.  A child process opens it, because a driver's state
 * does not survive the fork() before each test. */
static int device_is_there(const char *name)
{
    struct device *device;
    int state = -1;
    pid_t child = fork();
    if (child == 0) {
        int there = device_open(&device, name, NULL, NULL) == CINF_OK;
        if (!there)
            printf("skipped: %s\n", cinf_last_error());
        fflush(stdout);
        _exit(there ? 0 : SKIPPED);
    }
    return waitpid(child, &state, 0) != child || !WIFEXITED(state) || WEXITSTATUS(state) != SKIPPED;
}

int main(void)
{
    const char *only = getenv("CINF_TEST_DEVICE");
    if (only && !device_is_there(only))
        return SKIPPED;
    SRunner *runner = srunner_create(suite());
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
