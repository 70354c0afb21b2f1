#include "line_writer.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "fail.h"
#include "mem.h"

enum { LOOK_MS = 10 };

struct line_writer {
    int fd;
    size_t capacity;
    line_note *note;
    pthread_t thread;

    pthread_mutex_t lock;
    pthread_cond_t filled;
    char *back; /* [capacity] what waits; `front` is what the thread writes */
    size_t n_back;
    bool dropping; /* until the thread takes `back`: what is missing is missing at one place */
    bool busy;     /* the thread has something in hand */
    bool ending;
    uint64_t untold; /* dropped lines that no note has named yet */

    char *front; /* [capacity], the thread's */
    bool torn;   /* a line was cut: what is written next begins a new one */
    atomic_uint_fast64_t dropped, n_written;
};

/* ---- Writing ------------------------------------------------------------------------------ */

/* All `n` bytes; false, with *done of them written, when the descriptor does not take them. */
static bool write_bytes(struct line_writer *w, const char *bytes, size_t n, size_t *done)
{
    *done = 0;
    while (*done < n) {
        ssize_t wrote = write(w->fd, bytes + *done, n - *done);
        if (wrote >= 0) {
            *done += (size_t)wrote;
            atomic_fetch_add(&w->n_written, (uint64_t)wrote);
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            struct pollfd fd = { .fd = w->fd, .events = POLLOUT };
            (void)poll(&fd, 1, -1);
        } else if (errno != EINTR) {
            return false;
        }
    }
    return true;
}

/* As write_bytes(), on a line of its own. */
static bool write_whole(struct line_writer *w, const char *lines, size_t n, size_t *done)
{
    *done = 0;
    if (w->torn && !write_bytes(w, "\n", 1, done))
        return false;
    bool whole = write_bytes(w, lines, n, done);
    w->torn = *done > 0 && lines[*done - 1] != '\n';
    return whole;
}

static uint64_t count_lines(const char *text, size_t n)
{
    uint64_t lines = 0;
    for (const char *at = text; (at = memchr(at, '\n', n - (size_t)(at - text))); at++)
        lines++;
    return lines;
}

/* The length of as many whole lines as a pipe takes in one piece; of the first line if that is longer. */
static size_t piece_of(const char *text, size_t n)
{
    size_t most = n < PIPE_BUF ? n : PIPE_BUF;
    while (most > 0 && text[most - 1] != '\n')
        most--;
    if (most > 0)
        return most;
    const char *end = memchr(text, '\n', n);
    return end ? (size_t)(end - text) + 1 : n;
}

/* Returns how many lines could not be written. */
static uint64_t write_lines(struct line_writer *w, const char *text, size_t n)
{
    uint64_t lost = 0;
    for (size_t at = 0, piece, done; at < n; at += piece) {
        piece = piece_of(text + at, n - at);
        if (!write_whole(w, text + at, piece, &done))
            lost += count_lines(text + at + done, piece - done);
    }
    return lost;
}

static bool write_note(struct line_writer *w, uint64_t n)
{
    struct strbuf note = { 0 };
    w->note(&note, n);
    size_t done;
    bool written = !note.failed && write_whole(w, note.text, note.len, &done);
    strbuf_free(&note);
    return written;
}

static void *write_all(void *context)
{
    struct line_writer *w = context;
    pthread_mutex_lock(&w->lock);
    for (;;) {
        while (w->n_back == 0 && !w->ending)
            pthread_cond_wait(&w->filled, &w->lock);
        if (w->n_back == 0)
            break;
        char *taken = w->back;
        size_t n = w->n_back;
        uint64_t missing = w->untold;
        w->back = w->front;
        w->front = taken;
        w->n_back = 0;
        w->untold = 0;
        w->dropping = false;
        w->busy = true;
        pthread_mutex_unlock(&w->lock);

        uint64_t lost = write_lines(w, taken, n);
        atomic_fetch_add(&w->dropped, lost);
        missing += lost;
        bool told = missing == 0 || write_note(w, missing);

        pthread_mutex_lock(&w->lock);
        w->untold += told ? 0 : missing;
        w->busy = false;
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

/* ---- The callers' side -------------------------------------------------------------------- */

void line_writer_put(struct line_writer *w, const char *line, size_t n)
{
    pthread_mutex_lock(&w->lock);
    if (w->dropping || n > w->capacity - w->n_back) {
        /* A line that could never fit must not shut out the others: nothing would take `back`. */
        w->dropping = w->n_back > 0;
        w->untold++;
        atomic_fetch_add(&w->dropped, 1);
    } else {
        memcpy(w->back + w->n_back, line, n);
        w->n_back += n;
        pthread_cond_signal(&w->filled);
    }
    pthread_mutex_unlock(&w->lock);
}

uint64_t line_writer_dropped(struct line_writer *w)
{
    return atomic_load(&w->dropped);
}

static bool is_idle(struct line_writer *w)
{
    pthread_mutex_lock(&w->lock);
    bool idle = w->n_back == 0 && !w->busy;
    pthread_mutex_unlock(&w->lock);
    return idle;
}

bool line_writer_flush(struct line_writer *w, uint32_t stuck_ms, uint32_t total_ms)
{
    static const struct timespec pause = { .tv_nsec = LOOK_MS * 1000000L };
    uint64_t now = clock_monotonic_ns(), seen = atomic_load(&w->n_written);
    uint64_t stuck_ns = stuck_ms * UINT64_C(1000000), moved = now, until = now + total_ms * UINT64_C(1000000);
    while (!is_idle(w)) {
        now = clock_monotonic_ns();
        uint64_t written = atomic_load(&w->n_written);
        if (written != seen)
            moved = now;
        seen = written;
        if (now - moved >= stuck_ns || now >= until)
            return false;
        (void)nanosleep(&pause, NULL);
    }
    return true;
}

static void line_writer_free(struct line_writer *w)
{
    pthread_cond_destroy(&w->filled);
    pthread_mutex_destroy(&w->lock);
    mem_free(w->back);
    mem_free(w->front);
    mem_free(w);
}

enum cinf_status line_writer_start(struct line_writer **out, int fd, size_t capacity, line_note *note)
{
    struct line_writer *w = mem_new(1, sizeof *w);
    if (!w)
        return cinf_fail(CINF_ENOMEM, "no memory for a writer of lines");
    w->fd = fd;
    w->capacity = capacity;
    w->note = note;
    w->back = mem_new(capacity, 1);
    w->front = mem_new(capacity, 1);
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->filled, NULL);
    int error = w->back && w->front ? pthread_create(&w->thread, NULL, write_all, w) : ENOMEM;
    if (error) {
        line_writer_free(w);
        return cinf_fail(CINF_ENOMEM, "cannot start a writer of lines: %s", strerror(error));
    }
    *out = w;
    return CINF_OK;
}

void line_writer_stop(struct line_writer *w, uint32_t stuck_ms, uint32_t total_ms)
{
    if (!w)
        return;
    bool flushed = line_writer_flush(w, stuck_ms, total_ms);
    pthread_mutex_lock(&w->lock);
    w->ending = true;
    pthread_cond_signal(&w->filled);
    pthread_mutex_unlock(&w->lock);
    if (!flushed) {
        pthread_detach(w->thread);
        return;
    }
    pthread_join(w->thread, NULL);
    line_writer_free(w);
}
