/* fuzz_config.c - config.json and generation_config.json.
 *
 * The input is split at its first byte FF into the two files.  What is read must be within its bounds, and
 * the same again; a second file that is not JSON must leave a note and nothing else. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <costinfer/checkpoint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char folder[] = "/tmp/fuzz-config-XXXXXX";

static void must(int good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "fuzz_config: %s: %s\n", what, cinf_last_error());
    abort();
}

static void name(char path[64], const char *file)
{
    snprintf(path, 64, "%s/%s", folder, file);
}

static void clean_up(void)
{
    char path[64];
    name(path, "config.json");
    unlink(path);
    name(path, "generation_config.json");
    unlink(path);
    rmdir(folder);
}

static void write_file(const char *file, const uint8_t *data, size_t size)
{
    char path[64];
    name(path, file);
    FILE *f = fopen(path, "wb");
    must(f && fwrite(data, 1, size, f) == size, path);
    fclose(f);
}

static void check(const struct cinf_config *c)
{
    must(c->n_layer >= 1 && c->n_layer <= 1024 && c->n_positions >= 1 && c->vocab_size >= 1 &&
             c->n_inner >= 1,
         "sizes");
    must(c->n_embd >= 1 && c->n_head >= 1 && c->n_embd % c->n_head == 0, "heads");
    must(c->layer_norm_epsilon > 0 && c->layer_norm_epsilon <= 1, "epsilon");
    must(strcmp(cinf_activation_name(c->activation), "unknown") != 0, "activation");
    must(c->n_eos <= CINF_EOS_MAX && c->bos >= -1 && c->bos < (int64_t)c->vocab_size, "tokens");
    for (uint32_t i = 0; i < c->n_eos; i++)
        must(c->eos[i] >= 0 && (uint32_t)c->eos[i] < c->vocab_size, "an end that the vocabulary lacks");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int ready;
    if (!ready) {
        must(mkdtemp(folder) != NULL, "a folder");
        atexit(clean_up);
        ready = 1;
    }
    const uint8_t *cut = size ? memchr(data, 0xFF, size) : NULL;
    size_t first = cut ? (size_t)(cut - data) : size;
    write_file("config.json", data, first);
    char path[64];
    name(path, "generation_config.json");
    unlink(path);
    if (cut)
        write_file("generation_config.json", cut + 1, size - first - 1);
    struct cinf_config c, again;
    char notes[CINF_CONFIG_NOTES_MAX];
    memset(&c, 0, sizeof c);
    memset(&again, 0, sizeof again);
    if (cinf_config_read_with_notes(&c, notes, folder) != CINF_OK)
        return 0;
    check(&c);
    must(memchr(notes, '\0', sizeof notes) != NULL, "notes");
    must(cinf_config_read(&again, folder) == CINF_OK && memcmp(&c, &again, sizeof c) == 0,
         "another configuration");
    if (notes[0]) {
        unlink(path);
        must(cinf_config_read(&again, folder) == CINF_OK && memcmp(&c, &again, sizeof c) == 0,
             "a file that is ignored");
    }
    return 0;
}
