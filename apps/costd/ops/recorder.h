/* recorder.h - keeps what the built-in page shows: the history, which a thread feeds every ten seconds, and
 * the last requests, which come from where the log's lines are written.  Prompts and texts are never kept. */
#ifndef RECORDER_H
#define RECORDER_H

#include <pthread.h>

#include "access_log.h"
#include "history.h"

enum { RECENT_MAX = 100 };

/* A generation that has ended. */
struct recent {
    int64_t ended_unix_ms;
    char id[40];
    uint32_t key; /* number of the API key, 0: none */
    unsigned status;
    const char *endpoint; /* lives for ever */
    bool stream;
    struct cinf_report report;
};

struct cinf_engine;
struct recorder;

/* Begins to record.  The engine must outlive the recorder. */
enum cinf_status recorder_start(struct recorder **out, struct cinf_engine *engine);
void recorder_stop(struct recorder *recorder); /* accepts NULL */

/* Called from any thread; the recorder may be NULL. */
void recorder_add(struct recorder *recorder, const struct access *access, const struct outcome *outcome);

uint64_t recorder_run(const struct recorder *recorder); /* random; differs after a restart */
uint64_t recorder_now(const struct recorder *recorder); /* nanoseconds since the start */
struct cinf_engine *recorder_engine(const struct recorder *recorder);
uint64_t recorder_process_bytes(void); /* resident memory; 0: unknown */

/* Newest first into out[0..RECENT_MAX); returns how many. */
uint32_t recorder_recent(struct recorder *recorder, struct recent *out);

/* The history does not change until it is released. */
const struct history *recorder_hold(struct recorder *recorder);
void recorder_release(struct recorder *recorder);

#endif
