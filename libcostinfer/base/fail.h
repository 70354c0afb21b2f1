/* fail.h - the only way to fail: a status and one line, set together. */
#ifndef FAIL_H
#define FAIL_H

#include <costinfer/status.h>

/* Sets the thread's message and returns `status`, so that every failure has a message. */
enum cinf_status cinf_fail(enum cinf_status status, const char *format, ...) CINF_PRINTF(2, 3);

/* Prefixes the message of a failure that is being passed up ("models/gpt2/config.json: ").  Returns
 * `status`. */
enum cinf_status cinf_fail_in(enum cinf_status status, const char *format, ...) CINF_PRINTF(2, 3);

/* Sets the thread's message to a copy made earlier, perhaps in another thread.  Returns `status`. */
enum cinf_status cinf_fail_again(enum cinf_status status, const char *message);

#ifdef __clang_analyzer__
/* clang-tidy sees one file at a time; these macros show it that a failure is never CINF_OK. */
#define cinf_fail(status, ...)          (cinf_fail(status, __VA_ARGS__), (status))
#define cinf_fail_in(status, ...)       (cinf_fail_in(status, __VA_ARGS__), (status))
#define cinf_fail_again(status, string) (cinf_fail_again(status, string), (status))
#endif

/* Passes a failure up.  Use it only where the function owns nothing yet. */
#define TRY(call)                                                                                            \
    do {                                                                                                     \
        enum cinf_status try_status_ = (call);                                                               \
        if (try_status_ != CINF_OK)                                                                          \
            return try_status_;                                                                              \
    } while (0)

#endif
