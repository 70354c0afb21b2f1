/* fail.h - the only way to fail: a code and one line, set together. */
#ifndef FAIL_H
#define FAIL_H

#include <costinfer/status.h>

/* Sets the thread's message and returns `status`, so that no code is without one. */
enum cinf_status cinf_fail(enum cinf_status status, const char *format, ...) CINF_PRINTF(2, 3);

/* Puts a prefix ("models/gpt2/config.json: ") before the message of a failure that is being
 * handed upwards.  Returns `status`. */
enum cinf_status cinf_fail_in(enum cinf_status status, const char *format, ...) CINF_PRINTF(2, 3);

/* Sets the thread's message to a copy made earlier, perhaps in another thread.  Returns `status`. */
enum cinf_status cinf_fail_again(enum cinf_status status, const char *message);

/* Hands a failure upwards.  Only where the function owns nothing yet. */
#define TRY(call)                                                                                            \
    do {                                                                                                     \
        enum cinf_status try_status_ = (call);                                                               \
        if (try_status_ != CINF_OK)                                                                          \
            return try_status_;                                                                              \
    } while (0)

#endif
