#include "watcher.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "fail.h"
#include "mem.h"

enum { EVENTS_MAX = 64 };
static const uint64_t WAKE = UINT64_MAX; /* the number of no watch */

/* An epoll event carries slot and generation; it counts only while the slot still has that generation. */
struct watch {
    uint32_t generation;
    uint32_t next_free; /* while the slot is free: 1 + slot; 0: none */
    int fd;             /* -1: free */
    void (*gone)(void *context);
    void *context;
};

struct watcher {
    pthread_t thread;
    int epoll, wake;
    pthread_mutex_t lock; /* the fields below; held while gone() runs */
    struct watch *watches;
    size_t n_watches, cap_watches;
    uint32_t first_free; /* 1 + slot */
    struct orphan *orphans;
    bool stopping;
};

static uint64_t watch_number(uint32_t slot, uint32_t generation)
{
    return (uint64_t)generation << 32 | slot;
}

static void hang_up(struct watcher *w, uint64_t number)
{
    uint32_t slot = (uint32_t)number;
    pthread_mutex_lock(&w->lock);
    struct watch *watch = &w->watches[slot];
    if (watch->generation == number >> 32 && watch->fd >= 0 && watch->gone) {
        watch->gone(watch->context);
        watch->gone = NULL;
    }
    pthread_mutex_unlock(&w->lock);
}

/* Returns whether the watcher has nothing left to do.  The list is detached while its orphans are polled,
 * because a poll may take long and watcher_adopt() must not wait for it. */
static bool poll_orphans(struct watcher *w)
{
    uint64_t count;
    ssize_t ignored = read(w->wake, &count, sizeof count);
    (void)ignored;

    pthread_mutex_lock(&w->lock);
    struct orphan *list = w->orphans, *kept = NULL;
    w->orphans = NULL;
    pthread_mutex_unlock(&w->lock);
    while (list) {
        struct orphan *orphan = list;
        list = orphan->next;
        if (!orphan->poll(orphan)) {
            orphan->next = kept;
            kept = orphan;
        }
    }
    pthread_mutex_lock(&w->lock);
    while (kept) {
        struct orphan *orphan = kept;
        kept = orphan->next;
        orphan->next = w->orphans;
        w->orphans = orphan;
    }
    bool done = w->stopping && !w->orphans;
    pthread_mutex_unlock(&w->lock);
    return done;
}

static void *watcher_run(void *context)
{
    struct watcher *w = context;
    for (;;) {
        struct epoll_event events[EVENTS_MAX];
        bool woken = false;
        int n = epoll_wait(w->epoll, events, EVENTS_MAX, -1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.u64 == WAKE)
                woken = true;
            else
                hang_up(w, events[i].data.u64);
        }
        if (woken && poll_orphans(w))
            return NULL;
    }
}

enum cinf_status watcher_start(struct watcher **out)
{
    struct watcher *w = mem_new(1, sizeof *w);
    if (!w)
        return cinf_fail(CINF_ENOMEM, "no memory for the watcher");
    w->epoll = epoll_create1(EPOLL_CLOEXEC);
    w->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pthread_mutex_init(&w->lock, NULL);
    struct epoll_event event = { .events = EPOLLIN, .data.u64 = WAKE };
    if (w->epoll < 0 || w->wake < 0 || epoll_ctl(w->epoll, EPOLL_CTL_ADD, w->wake, &event) != 0 ||
        pthread_create(&w->thread, NULL, watcher_run, w) != 0) {
        enum cinf_status status = cinf_fail(CINF_EIO, "cannot start the watcher: %s", strerror(errno));
        if (w->epoll >= 0)
            close(w->epoll);
        if (w->wake >= 0)
            close(w->wake);
        pthread_mutex_destroy(&w->lock);
        mem_free(w);
        return status;
    }
    *out = w;
    return CINF_OK;
}

void watcher_stop(struct watcher *w)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->stopping = true;
    pthread_mutex_unlock(&w->lock);
    watcher_wake(w);
    pthread_join(w->thread, NULL);
    close(w->epoll);
    close(w->wake);
    pthread_mutex_destroy(&w->lock);
    mem_free(w->watches);
    mem_free(w);
}

/* With the lock held.  Returns 1 + slot, or 0. */
static uint32_t take_slot(struct watcher *w)
{
    if (!w->first_free) {
        if (w->n_watches == UINT32_MAX - 1 ||
            !mem_reserve(&w->watches, &w->cap_watches, w->n_watches + 1, sizeof *w->watches))
            return 0;
        w->watches[w->n_watches] = (struct watch){ .fd = -1 };
        w->first_free = (uint32_t)++w->n_watches;
    }
    uint32_t taken = w->first_free;
    w->first_free = w->watches[taken - 1].next_free;
    return taken;
}

static void free_slot(struct watcher *w, uint32_t slot)
{
    w->watches[slot].fd = -1;
    w->watches[slot].next_free = w->first_free;
    w->first_free = slot + 1;
}

uint64_t watcher_add(struct watcher *w, int fd, void (*gone)(void *context), void *context)
{
    uint64_t number = 0;
    pthread_mutex_lock(&w->lock);
    uint32_t taken = take_slot(w);
    if (taken) {
        struct watch *watch = &w->watches[taken - 1];
        uint32_t generation = watch->generation + 1 ? watch->generation + 1 : 1;
        *watch = (struct watch){ .generation = generation, .fd = fd, .gone = gone, .context = context };
        number = watch_number(taken - 1, generation);
        struct epoll_event event = { .events = EPOLLRDHUP | EPOLLET, .data.u64 = number };
        if (epoll_ctl(w->epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
            free_slot(w, taken - 1);
            number = 0;
        }
    }
    pthread_mutex_unlock(&w->lock);
    return number;
}

void watcher_remove(struct watcher *w, uint64_t number)
{
    if (!number)
        return;
    uint32_t slot = (uint32_t)number;
    pthread_mutex_lock(&w->lock);
    epoll_ctl(w->epoll, EPOLL_CTL_DEL, w->watches[slot].fd, NULL);
    free_slot(w, slot);
    pthread_mutex_unlock(&w->lock);
}

void watcher_adopt(struct watcher *w, struct orphan *orphan)
{
    pthread_mutex_lock(&w->lock);
    orphan->next = w->orphans;
    w->orphans = orphan;
    pthread_mutex_unlock(&w->lock);
    watcher_wake(w);
}

void watcher_wake(struct watcher *w)
{
    uint64_t one = 1;
    ssize_t ignored = write(w->wake, &one, sizeof one);
    (void)ignored;
}
