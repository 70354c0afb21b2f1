/* versioned.c - see versioned.h. */
#include "versioned.h"

#include <string.h>

#include "fail.h"

enum cinf_status versioned_read(void *ours, size_t size, const void *given)
{
    size_t given_size;
    if (!given)
        return CINF_OK;
    memcpy(&given_size, given, sizeof given_size);
    if (given_size < sizeof given_size)
        return cinf_fail(CINF_EINVAL, "an options struct lacks its struct_size");
    memcpy(ours, given, given_size < size ? given_size : size);
    memcpy(ours, &size, sizeof size);
    return CINF_OK;
}

void versioned_write(void *theirs, void *ours, size_t size)
{
    size_t given_size;
    memcpy(&given_size, theirs, sizeof given_size);
    size_t n = given_size < size ? given_size : size;
    memcpy(ours, &n, sizeof n);
    memcpy(theirs, ours, n);
}
