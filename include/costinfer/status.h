/* status.h - how every call of libcostinfer reports success or failure.
 *
 * A fallible function returns an enum cinf_status and hands its result through
 * its first parameter, which is untouched on failure.  One line of explanation,
 * with the numbers involved, is kept per thread until the next failure:
 *
 *     struct cinf_engine *engine;
 *     if (cinf_engine_open(&engine, NULL) != CINF_OK)
 *         fprintf(stderr, "%s\n", cinf_last_error());
 *
 * The library never prints, exits, aborts on input or installs handlers. */
#ifndef COSTINFER_STATUS_H
#define COSTINFER_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define CINF_API                 __attribute__((visibility("default"))) /* what the library exports */
#define CINF_PRINTF(text, first) __attribute__((__format__(__printf__, text, first))) /* checked formats */
#else
#define CINF_API
#define CINF_PRINTF(text, first)
#endif

/* Why a call failed.  Codes keep their values; later libraries may add codes. */
enum cinf_status {
    CINF_OK = 0,       /* done */
    CINF_EINVAL,       /* an argument or option is out of its range */
    CINF_ENOMEM,       /* memory, or a device's memory, is exhausted */
    CINF_EIO,          /* the operating system failed a read, write or map */
    CINF_EFORMAT,      /* a file or text is malformed; the message names file, place and fault */
    CINF_EUNSUPPORTED, /* well-formed, but beyond what this build supports */
    CINF_ENOTFOUND,    /* unknown file, model, device or token */
    CINF_EEXIST,       /* the name is taken */
    CINF_EBUSY,        /* the device belongs to another engine */
    CINF_EFULL,        /* a bounded queue or table is full; trying later may succeed */
    CINF_ECONTEXT,     /* the prompt does not fit the model's context */
    CINF_EDEVICE,      /* the device failed */
    CINF_ECANCELLED,   /* cancelled by the caller */
    CINF_ECLOSED,      /* the engine is closing, or the model was unloaded */
    CINF_EAGAIN,       /* nothing is available yet */
};

/* The name of a code, "CINF_EINVAL" for instance; never NULL. */
CINF_API const char *cinf_status_name(enum cinf_status status);

/* The calling thread's last failure as one line without a line feed.  It is valid
 * until the thread's next failing call, and meaningful only right after a failure. */
CINF_API const char *cinf_last_error(void);

#ifdef __cplusplus
}
#endif
#endif
