/* fail.c - the thread's last message.  The buffer is fixed, because reporting that memory is exhausted
 * must not need memory; a longer line is cut.
 *
 * Messages quote names from hostile files and end up in terminals, logs and JSON, so a message is kept
 * as one line of well-formed UTF-8.  This is the only place that has to ensure it. */
#include "fail.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "utf8.h"

#undef cinf_fail /* the analyzer's macros in fail.h */
#undef cinf_fail_in
#undef cinf_fail_again

enum { MESSAGE_MAX = 1024 };

static _Thread_local char last_message[MESSAGE_MAX];

/* Replaces control characters, characters that change the writing direction and bytes that are not UTF-8
 * by '?'. */
static void keep(const char *message)
{
    size_t n = strlen(message);
    for (size_t i = 0, used; i < n; i += used) {
        uint32_t c = utf8_read(message + i, n - i, &used);
        bool bad = c == UTF8_BAD || c < 0x20 || (c >= 0x7F && c < 0xA0) || (c >= 0x2028 && c <= 0x202E) ||
                   (c >= 0x2066 && c <= 0x2069);
        if (bad)
            memset(last_message + i, '?', used);
        else
            memcpy(last_message + i, message + i, used);
    }
    last_message[n] = '\0';
}

const char *cinf_last_error(void)
{
    return last_message;
}

enum cinf_status cinf_fail(enum cinf_status status, const char *format, ...)
{
    /* A second buffer, so that the old message may be an argument of the new one. */
    char message[MESSAGE_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    keep(message);
    return status;
}

enum cinf_status cinf_fail_in(enum cinf_status status, const char *format, ...)
{
    char message[MESSAGE_MAX];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(message, sizeof message, format, args);
    va_end(args);
    if (n < 0 || (size_t)n >= sizeof message)
        n = n < 0 ? 0 : (int)sizeof message - 1;
    snprintf(message + n, sizeof message - (size_t)n, "%s", last_message);
    keep(message);
    return status;
}

enum cinf_status cinf_fail_again(enum cinf_status status, const char *message)
{
    return cinf_fail(status, "%s", message);
}

const char *cinf_status_name(enum cinf_status status)
{
    switch (status) {
    case CINF_OK:
        return "CINF_OK";
    case CINF_EINVAL:
        return "CINF_EINVAL";
    case CINF_ENOMEM:
        return "CINF_ENOMEM";
    case CINF_EIO:
        return "CINF_EIO";
    case CINF_EFORMAT:
        return "CINF_EFORMAT";
    case CINF_EUNSUPPORTED:
        return "CINF_EUNSUPPORTED";
    case CINF_ENOTFOUND:
        return "CINF_ENOTFOUND";
    case CINF_EEXIST:
        return "CINF_EEXIST";
    case CINF_EBUSY:
        return "CINF_EBUSY";
    case CINF_EFULL:
        return "CINF_EFULL";
    case CINF_ECONTEXT:
        return "CINF_ECONTEXT";
    case CINF_EDEVICE:
        return "CINF_EDEVICE";
    case CINF_ECANCELLED:
        return "CINF_ECANCELLED";
    case CINF_ECLOSED:
        return "CINF_ECLOSED";
    case CINF_EAGAIN:
        return "CINF_EAGAIN";
    }
    return "unknown status";
}
