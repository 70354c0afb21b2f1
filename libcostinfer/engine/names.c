/* names.c - the library's version, and the names of the enums that users write and read. */
#include <string.h>

#include <costinfer/costinfer.h>

#include "fail.h"

const char *cinf_version(void)
{
    return CINF_VERSION;
}

static const char *const weights_names[] = { "auto", "f32", "f16", "bf16", "int8", "int4" };
enum { WEIGHTS_NAMES = sizeof weights_names / sizeof *weights_names };

const char *cinf_weights_name(enum cinf_weights weights)
{
    return (unsigned)weights < WEIGHTS_NAMES ? weights_names[weights] : "unknown";
}

enum cinf_status cinf_weights_parse(enum cinf_weights *out, const char *name)
{
    for (int i = 0; i < WEIGHTS_NAMES; i++)
        if (strcmp(name, weights_names[i]) == 0) {
            *out = (enum cinf_weights)i;
            return CINF_OK;
        }
    return cinf_fail(CINF_EINVAL,
                     "unknown weights type \"%.40s\"; expected auto, f32, f16, bf16, int8 or int4", name);
}

static const char *const kv_names[] = { "f32", "f16" };
enum { KV_NAMES = sizeof kv_names / sizeof *kv_names };

const char *cinf_kv_name(enum cinf_kv kv)
{
    return (unsigned)kv < KV_NAMES ? kv_names[kv] : "unknown";
}

enum cinf_status cinf_kv_parse(enum cinf_kv *out, const char *name)
{
    for (int i = 0; i < KV_NAMES; i++)
        if (strcmp(name, kv_names[i]) == 0) {
            *out = (enum cinf_kv)i;
            return CINF_OK;
        }
    return cinf_fail(CINF_EINVAL, "unknown type of keys and values \"%.40s\"; expected f32 or f16", name);
}
