/* fail.c - the thread's last message.  A fixed buffer, because reporting that memory is exhausted
 * must not need memory; a longer line is cut. */
#include "fail.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { MESSAGE_MAX = 1024 };

static _Thread_local char last_message[MESSAGE_MAX];

const char *cinf_last_error(void)
{
    return last_message;
}

enum cinf_status cinf_fail(enum cinf_status status, const char *format, ...)
{
    /* Through a second buffer, so that the old message may be an argument of the new one. */
    char message[MESSAGE_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    memcpy(last_message, message, sizeof message);
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
    memcpy(last_message, message, sizeof message);
    return status;
}

enum cinf_status cinf_fail_again(enum cinf_status status, const char *message)
{
    snprintf(last_message, sizeof last_message, "%s", message);
    return status;
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
