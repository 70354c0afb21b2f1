/* bench_tokenizer.c - how fast text is encoded to ids and decoded from them, on one thread.
 *
 *     bench_tokenizer FOLDER TEXT-FILE
 *
 * Prints one line of JSON: MB (10^6 bytes) a second of CPU time, the best of seven passes over the whole
 * file. */
#include <stdio.h>
#include <stdlib.h>

#include <costinfer/tokenizer.h>

#include "clock.h"
#include "file.h"
#include "mem.h"

enum { PASSES = 7 };

static void check(enum cinf_status status)
{
    if (status == CINF_OK)
        return;
    fprintf(stderr, "bench_tokenizer: %s\n", cinf_last_error());
    exit(1);
}

static void keep_least(uint64_t *least, uint64_t since)
{
    uint64_t ns = clock_process_cpu_ns() - since;
    if (*least == 0 || ns < *least)
        *least = ns;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: bench_tokenizer FOLDER TEXT-FILE\n");
        return 2;
    }
    struct cinf_tokenizer *tokenizer = NULL;
    char *text;
    size_t n, n_ids = 0, n_back;
    check(file_load(&text, &n, argv[2], (size_t)1 << 30));

    uint64_t load_ns = 0, encode_ns = 0, decode_ns = 0, start;
    for (int i = 0; i < PASSES; i++) {
        cinf_tokenizer_free(tokenizer);
        start = clock_process_cpu_ns();
        check(cinf_tokenizer_open(&tokenizer, argv[1]));
        keep_least(&load_ns, start);
    }
    for (int i = 0; i < PASSES; i++) {
        int32_t *ids;
        char *back;
        start = clock_process_cpu_ns();
        check(cinf_tokenizer_encode(tokenizer, text, n, 0, &ids, &n_ids));
        keep_least(&encode_ns, start);
        start = clock_process_cpu_ns();
        check(cinf_tokenizer_decode(tokenizer, ids, n_ids, &back, &n_back));
        keep_least(&decode_ns, start);
        cinf_text_free(back);
        cinf_ids_free(ids);
    }
    printf("{\"benchmark\":\"tokenizer\",\"bytes\":%zu,\"tokens\":%zu,\"open_ms\":%.1f,"
           "\"encode_mb_per_second\":%.1f,\"decode_mb_per_second\":%.1f}\n",
           n, n_ids, (double)load_ns / 1e6, (double)n * 1e3 / (double)encode_ns,
           (double)n * 1e3 / (double)decode_ns);
    cinf_tokenizer_free(tokenizer);
    mem_free(text);
    return 0;
}
