/* support.h - what several test programs need. */
#ifndef SUPPORT_H
#define SUPPORT_H

#include <check.h>
#include <stdbool.h>
#include <stddef.h>

#include <costinfer/status.h>

/* The suite of this program. */
Suite *suite(void);

/* Asserts CINF_OK and shows the library's message otherwise. */
#define ck_ok(call)                                                                                          \
    do {                                                                                                     \
        enum cinf_status ck_status_ = (call);                                                                \
        ck_assert_msg(ck_status_ == CINF_OK, "%s: %s: %s", #call, cinf_status_name(ck_status_),              \
                      cinf_last_error());                                                                    \
    } while (0)

/* Asserts a failure, and that its message contains `words` ("": any). */
#define ck_fails(call, status, words)                                                                        \
    do {                                                                                                     \
        enum cinf_status ck_status_ = (call);                                                                \
        ck_assert_msg(ck_status_ == (status), "%s: %s, expected %s: %s", #call,                              \
                      cinf_status_name(ck_status_), cinf_status_name(status), cinf_last_error());            \
        ck_assert_msg(support_contains(cinf_last_error(), (words)), "%s: the message \"%s\" lacks \"%s\"",   \
                      #call, cinf_last_error(), (const char *)(words));                                      \
    } while (0)

bool support_contains(const char *text, const char *words);

/* A path below the source tree, or below the data folder beside it (tests that need that one skip when it
 * is absent: support_have()).  Static buffers, eight in turn. */
const char *support_source(const char *path);
const char *support_shared(const char *path);
bool support_have(const char *path);

/* A fresh folder for a test's files, removed with all it holds when the process ends.  Kept by the caller. */
char *support_temp_folder(void);

/* Writes a file of n bytes (n = -1: strlen) in `folder`; returns its path, in a static buffer as above. */
const char *support_write(const char *folder, const char *name, const void *bytes, long n);

/* Waits until every other thread of this process has been waiting for something else than a processor for
 * some milliseconds.  A thread that computes is runnable however busy the machine is, so this tells a pause
 * from a thread that merely gets no turn. */
void support_await_sleep(void);

#endif
