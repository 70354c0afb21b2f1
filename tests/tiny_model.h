/* tiny_model.h - a whole model folder small enough to load hundreds of times: tiny_tokenizer.h's vocabulary
 * and one layer of synthetic weights. */
#ifndef TINY_MODEL_H
#define TINY_MODEL_H

#include <stdlib.h>

#include "tiny_tokenizer.h"

enum { TINY_D = 8, TINY_P = 256 };

static const struct {
    const char *name;
    int rows, cols; /* rows 0: a vector */
} tiny_tensors[] = {
    { "h.0.attn.c_attn.bias", 0, 3 * TINY_D },
    { "h.0.attn.c_attn.weight", TINY_D, 3 * TINY_D },
    { "h.0.attn.c_proj.bias", 0, TINY_D },
    { "h.0.attn.c_proj.weight", TINY_D, TINY_D },
    { "h.0.ln_1.bias", 0, TINY_D },
    { "h.0.ln_1.weight", 0, TINY_D },
    { "h.0.ln_2.bias", 0, TINY_D },
    { "h.0.ln_2.weight", 0, TINY_D },
    { "h.0.mlp.c_fc.bias", 0, 4 * TINY_D },
    { "h.0.mlp.c_fc.weight", TINY_D, 4 * TINY_D },
    { "h.0.mlp.c_proj.bias", 0, TINY_D },
    { "h.0.mlp.c_proj.weight", 4 * TINY_D, TINY_D },
    { "ln_f.bias", 0, TINY_D },
    { "ln_f.weight", 0, TINY_D },
    { "wpe.weight", TINY_P, TINY_D },
    { "wte.weight", TINY_SIZE, TINY_D },
};

/* Returns the folder of a model with that many rows of tokens: the tokenizer's, and padding. */
static inline char *tiny_model_padded(int vocab)
{
    char *folder = tiny_tokenizer();
    struct strbuf config = { 0 }, header = { 0 }, file = { 0 }, data = { 0 };
    strbuf_printf(&config,
                  "{\"model_type\": \"gpt2\", \"vocab_size\": %d, \"n_positions\": %d, \"n_embd\": %d, "
                  "\"n_layer\": 1, \"n_head\": 2, \"bos_token_id\": %d, \"eos_token_id\": %d}",
                  vocab, TINY_P, TINY_D, TINY_END_OF_TEXT, TINY_END_OF_TEXT);
    support_write(folder, "config.json", config.text, (long)config.len);
    unsigned seed = 1;
    for (size_t i = 0; i < sizeof tiny_tensors / sizeof *tiny_tensors; i++) {
        bool tokens = strcmp(tiny_tensors[i].name, "wte.weight") == 0;
        int rows = tokens ? vocab : tiny_tensors[i].rows, cols = tiny_tensors[i].cols;
        size_t from = data.len;
        for (int k = 0; k < (rows ? rows : 1) * cols; k++) {
            float value = (float)(rand_r(&seed) % 2001 - 1000) / 1000;
            strbuf_add(&data, &value, sizeof value);
        }
        strbuf_printf(&header, "%c\"%s\": {\"dtype\": \"F32\", \"shape\": [", i ? ',' : '{',
                      tiny_tensors[i].name);
        if (rows)
            strbuf_printf(&header, "%d, ", rows);
        strbuf_printf(&header, "%d], \"data_offsets\": [%zu, %zu]}", cols, from, data.len);
    }
    strbuf_puts(&header, "}");
    uint64_t n_header = header.len;
    strbuf_add(&file, &n_header, sizeof n_header);
    strbuf_add(&file, header.text, header.len);
    strbuf_add(&file, data.text, data.len);
    support_write(folder, "model.safetensors", file.text, (long)file.len);
    strbuf_free(&config);
    strbuf_free(&header);
    strbuf_free(&file);
    strbuf_free(&data);
    return folder;
}

static inline char *tiny_model(void)
{
    return tiny_model_padded(TINY_SIZE);
}

#endif
