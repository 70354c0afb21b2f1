/* http_client.c - reads streams of completions on one thread, with little load on the machine that is
 * measured.
 *
 *   http_client PORT MODEL STREAMS TOKENS REQUESTS [EVENTS]
 *
 * Each of STREAMS clients asks for TOKENS tokens, REQUESTS times one after the other, each on a connection of
 * its own.  The server is costd or another one with OpenAI's completions that ends a stream with [DONE].
 * Prints seconds of wall time, tokens, and the median and 95th percentile of the time to the first event.
 * EVENTS is a file for the arrival of each event: records of seed, number and nanoseconds of the monotonic
 * clock, 64 bits each. */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { STREAMS_MAX = 4096, EVENTS_AT_ONCE = 64 };

struct stream {
    int fd;
    uint32_t n_requests; /* sent */
    uint64_t seed, n_events, sent_ns;
    bool said_done;
    char last[8]; /* the last bytes received */
};

static struct {
    int port, epoll;
    const char *model;
    uint32_t n_streams, tokens, requests;
    FILE *events;
    uint64_t *first_ns; /* [n_streams * requests] */
    uint64_t n_first, next_seed;
    struct stream streams[STREAMS_MAX];
} client;

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *what)
{
    fprintf(stderr, "http_client: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void ask(struct stream *s)
{
    char body[512], request[1024];
    s->seed = client.next_seed++;
    int n = snprintf(body, sizeof body,
                     "{\"model\":\"%s\",\"prompt\":\"Once upon a time\",\"max_tokens\":%" PRIu32
                     ",\"temperature\":0,\"ignore_eos\":true,\"stream\":true,\"seed\":%" PRIu64 "}",
                     client.model, client.tokens, s->seed);
    n = snprintf(request, sizeof request,
                 "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                 "Content-Length: %d\r\n\r\n%s",
                 n, body);
    s->n_events = 0;
    s->said_done = false;
    s->n_requests++;
    s->sent_ns = now_ns();
    if (write(s->fd, request, (size_t)n) != n)
        die("cannot send");
}

static void dial(struct stream *s)
{
    struct epoll_event event = { .events = EPOLLIN, .data.ptr = s };
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((uint16_t)client.port) };
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    s->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (s->fd < 0 || connect(s->fd, (struct sockaddr *)&address, sizeof address) != 0)
        die("cannot connect");
    if (epoll_ctl(client.epoll, EPOLL_CTL_ADD, s->fd, &event) != 0)
        die("epoll");
    memset(s->last, 0, sizeof s->last);
}

static void note(struct stream *s, uint64_t now)
{
    if (++s->n_events == 1)
        client.first_ns[client.n_first++] = now - s->sent_ns;
    if (client.events)
        fwrite((uint64_t[]){ s->seed, s->n_events, now }, 8, 3, client.events);
}

/* Counts the events that end in these bytes; returns whether the answer has ended, which the last chunk says.
 */
static bool take(struct stream *s, const char *bytes, size_t n, uint64_t now)
{
    static const char done[] = "[DONE]\n\n";
    char text[65536 + 8];
    memcpy(text, s->last, 8);
    memcpy(text + 8, bytes, n);
    for (const char *at = text + 7; (at = memchr(at, '\n', (size_t)(text + 8 + n - at))) != NULL; at++) {
        if (at + 1 == text + 8 + n || at[1] != '\n')
            continue;
        if (memcmp(at - 6, done, 8) == 0)
            s->said_done = true;
        else
            note(s, now);
        at++;
    }
    memcpy(s->last, text + n, 8);
    return s->said_done && memcmp(s->last + 3, "0\r\n\r\n", 5) == 0;
}

/* Returns whether the connection is finished. */
static bool read_some(struct stream *s)
{
    char bytes[65536];
    ssize_t n = read(s->fd, bytes, sizeof bytes);
    uint64_t now = now_ns();
    if (n <= 0)
        die("the server closed");
    if (memcmp(s->last, "\0\0\0\0\0\0\0", 8) == 0 && (n < 12 || memcmp(bytes, "HTTP/1.1 200", 12) != 0)) {
        fprintf(stderr, "http_client: %.*s\n", (int)n, bytes);
        exit(1);
    }
    if (!take(s, bytes, (size_t)n, now))
        return false;
    close(s->fd);
    if (s->n_requests == client.requests)
        return true;
    dial(s);
    ask(s);
    return false;
}

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

int main(int argc, char *argv[])
{
    if (argc < 6 || argc > 7) {
        fprintf(stderr, "usage: http_client PORT MODEL STREAMS TOKENS REQUESTS [EVENTS]\n");
        return 2;
    }
    client.port = atoi(argv[1]);
    client.model = argv[2];
    client.n_streams = (uint32_t)atoi(argv[3]);
    client.tokens = (uint32_t)atoi(argv[4]);
    client.requests = (uint32_t)atoi(argv[5]);
    client.next_seed = 1;
    if (client.n_streams == 0 || client.n_streams > STREAMS_MAX)
        return 2;
    client.first_ns = calloc((size_t)client.n_streams * client.requests, sizeof *client.first_ns);
    if (argc == 7 && !(client.events = fopen(argv[6], "wb")))
        die(argv[6]);
    client.epoll = epoll_create1(0);
    for (uint32_t i = 0; i < client.n_streams; i++)
        dial(&client.streams[i]);
    uint64_t start = now_ns();
    for (uint32_t i = 0; i < client.n_streams; i++)
        ask(&client.streams[i]);
    for (uint32_t left = client.n_streams; left > 0;) {
        struct epoll_event events[EVENTS_AT_ONCE];
        int n = epoll_wait(client.epoll, events, EVENTS_AT_ONCE, 60000);
        if (n <= 0)
            die("nothing comes");
        for (int i = 0; i < n; i++) {
            left -= read_some(events[i].data.ptr);
        }
    }
    uint64_t wall = now_ns() - start, n = (uint64_t)client.n_streams * client.requests;
    qsort(client.first_ns, n, sizeof *client.first_ns, by_size);
    printf("{\"seconds\":%.6f,\"tokens\":%" PRIu64 ",\"first_p50\":%.6f,\"first_p95\":%.6f}\n",
           (double)wall / 1e9, n * client.tokens, (double)client.first_ns[n / 2] / 1e9,
           (double)client.first_ns[n * 95 / 100] / 1e9);
    if (client.events && fclose(client.events) != 0)
        die(argv[6]);
    return 0;
}
