/* cli_inspect.c - what is in a checkpoint, or what is wrong with it. */
#include <inttypes.h>
#include <string.h>

#include "cli.h"
#include "file.h"

struct inspection {
    const char *path;
    struct cinf_checkpoint *checkpoint;
    bool has_config;
    struct cinf_config config;
    bool has_tokenizer;
    uint32_t tokenizer_size;
};

static void put_shape(struct strbuf *out, const struct cinf_tensor *t)
{
    strbuf_putc(out, '[');
    for (uint32_t i = 0; i < t->n_dims; i++)
        strbuf_printf(out, "%s%" PRIu64, i ? "," : "", t->dims[i]);
    strbuf_putc(out, ']');
}

static void put_totals(struct strbuf *out, const struct cinf_checkpoint *checkpoint, bool json)
{
    uint64_t elements = 0, bytes = 0;
    uint32_t n = cinf_checkpoint_count(checkpoint);
    for (uint32_t i = 0; i < n; i++) {
        elements += cinf_checkpoint_tensor(checkpoint, i)->n_elements;
        bytes += cinf_checkpoint_tensor(checkpoint, i)->n_bytes;
    }
    strbuf_printf(out,
                  json ? "{\"tensors\":%" PRIu32 ",\"elements\":%" PRIu64 ",\"bytes\":%" PRIu64 "}"
                       : "%" PRIu32 " tensors, %" PRIu64 " elements, %" PRIu64 " bytes",
                  n, elements, bytes);
}

static void put_entry(struct strbuf *out, bool json, const char *key, const char *value)
{
    if (json)
        strbuf_printf(out, "%s\"%s\":%s", out->len && out->text[out->len - 1] == '{' ? "" : ",", key, value);
    else
        strbuf_printf(out, "\n  %-32s %s", key, value);
}

static void put_number(struct strbuf *out, bool json, const char *key, uint32_t value)
{
    char text[16];
    snprintf(text, sizeof text, "%" PRIu32, value);
    put_entry(out, json, key, text);
}

static void put_switch(struct strbuf *out, bool json, const char *key, bool value)
{
    put_entry(out, json, key, value ? "true" : "false");
}

/* By the keys of config.json: as members of a JSON object that has just been opened, or a line each. */
static void put_config(struct strbuf *out, const struct cinf_config *c, bool json)
{
    char text[64];
    put_number(out, json, "vocab_size", c->vocab_size);
    put_number(out, json, "n_positions", c->n_positions);
    put_number(out, json, "n_embd", c->n_embd);
    put_number(out, json, "n_layer", c->n_layer);
    put_number(out, json, "n_head", c->n_head);
    put_number(out, json, "n_inner", c->n_inner);
    snprintf(text, sizeof text, json ? "\"%s\"" : "%s", cinf_activation_name(c->activation));
    put_entry(out, json, "activation_function", text);
    snprintf(text, sizeof text, "%.6g", (double)c->layer_norm_epsilon);
    put_entry(out, json, "layer_norm_epsilon", text);
    put_switch(out, json, "scale_attn_weights", c->scale_attn_weights);
    put_switch(out, json, "scale_attn_by_inverse_layer_idx", c->scale_attn_by_inverse_layer_idx);
    put_switch(out, json, "tie_word_embeddings", c->tie_word_embeddings);
    struct strbuf ids = { 0 };
    strbuf_putc(&ids, '[');
    for (uint32_t i = 0; i < c->n_eos; i++)
        strbuf_printf(&ids, "%s%" PRId32, i ? "," : "", c->eos[i]);
    strbuf_putc(&ids, ']');
    put_entry(out, json, "eos_token_id", ids.failed ? "[]" : ids.text);
    strbuf_free(&ids);
    snprintf(text, sizeof text, "%" PRId32, c->bos);
    put_entry(out, json, "bos_token_id", c->bos < 0 ? "null" : text);
}

static void put_json(struct strbuf *out, const struct inspection *in)
{
    strbuf_puts(out, "{\"path\":");
    strbuf_put_json(out, in->path, strlen(in->path));
    const char *format = cinf_checkpoint_format(in->checkpoint);
    strbuf_puts(out, ",\"format\":");
    strbuf_put_json(out, format, strlen(format));
    strbuf_puts(out, ",\"totals\":");
    put_totals(out, in->checkpoint, true);
    strbuf_puts(out, ",\"config\":");
    if (in->has_config) {
        strbuf_putc(out, '{');
        put_config(out, &in->config, true);
        strbuf_putc(out, '}');
    } else {
        strbuf_puts(out, "null");
    }
    strbuf_puts(out, ",\"tokenizer_size\":");
    if (in->has_tokenizer)
        strbuf_put_u64(out, in->tokenizer_size);
    else
        strbuf_puts(out, "null");
    strbuf_puts(out, ",\"tensors\":[");
    for (uint32_t i = 0; i < cinf_checkpoint_count(in->checkpoint); i++) {
        const struct cinf_tensor *t = cinf_checkpoint_tensor(in->checkpoint, i);
        strbuf_puts(out, i ? ",\n{\"name\":" : "\n{\"name\":");
        strbuf_put_json(out, t->name, strlen(t->name));
        strbuf_puts(out, ",\"dtype\":");
        strbuf_put_json(out, t->dtype_name, strlen(t->dtype_name));
        strbuf_puts(out, ",\"shape\":");
        put_shape(out, t);
        strbuf_printf(out, ",\"elements\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"file\":", t->n_elements,
                      t->n_bytes);
        strbuf_put_json(out, t->file, strlen(t->file));
        strbuf_putc(out, '}');
    }
    strbuf_puts(out, "]}");
}

static void put_table(struct strbuf *out, const struct inspection *in)
{
    uint32_t n = cinf_checkpoint_count(in->checkpoint);
    int width = 4;
    struct strbuf name = { 0 };
    for (uint32_t i = 0; i < n; i++) {
        strbuf_clear(&name);
        put_printable(&name, cinf_checkpoint_tensor(in->checkpoint, i)->name);
        if ((int)name.len > width && name.len <= 60)
            width = (int)name.len;
    }
    put_printable(out, in->path);
    strbuf_printf(out, ": %s\n\n%-*s  %-5s  %-14s %12s %13s\n", cinf_checkpoint_format(in->checkpoint), width,
                  "name", "dtype", "shape", "elements", "bytes");
    for (uint32_t i = 0; i < n; i++) {
        const struct cinf_tensor *t = cinf_checkpoint_tensor(in->checkpoint, i);
        strbuf_clear(&name);
        put_printable(&name, t->name);
        struct strbuf shape = { 0 };
        put_shape(&shape, t);
        strbuf_printf(out, "%-*s  %-5s  %-14s %12" PRIu64 " %13" PRIu64 "\n", width,
                      name.text ? name.text : "", t->dtype_name, shape.text ? shape.text : "", t->n_elements,
                      t->n_bytes);
        strbuf_free(&shape);
    }
    strbuf_free(&name);
    strbuf_putc(out, '\n');
    put_totals(out, in->checkpoint, false);
    if (in->has_config) {
        strbuf_puts(out, "\n\nconfiguration");
        put_config(out, &in->config, false);
    }
    if (in->has_tokenizer)
        strbuf_printf(out, "\n\ntokenizer: %" PRIu32 " tokens", in->tokenizer_size);
}

/* A folder's other files: each may be absent, none may be malformed. */
static bool read_folder(struct inspection *in)
{
    enum cinf_status status = cinf_config_read(&in->config, in->path);
    in->has_config = status == CINF_OK;
    if (status != CINF_OK && status != CINF_ENOTFOUND)
        return false;
    struct cinf_tokenizer *tokenizer;
    status = cinf_tokenizer_open(&tokenizer, in->path);
    if (status == CINF_OK) {
        in->has_tokenizer = true;
        in->tokenizer_size = cinf_tokenizer_size(tokenizer);
        cinf_tokenizer_free(tokenizer);
    }
    return status == CINF_OK || status == CINF_ENOTFOUND;
}

static int run(const struct command *self, int argc, char **argv)
{
    bool json = false;
    const struct flag flags[] = {
        { "json", FLAG_SWITCH, &json, 0, 0, NULL, "One JSON object." },
    };
    struct inspection in = { 0 };
    int status = flags_parse(self, flags, N_FLAGS(flags), argc, argv, &in.path);
    if (status != FLAGS_GO)
        return status;
    if (cinf_checkpoint_open(&in.checkpoint, in.path) != CINF_OK)
        return fail_last();
    if (path_is_folder(in.path) && !read_folder(&in)) {
        status = fail_last();
    } else {
        struct strbuf out = { 0 };
        if (json)
            put_json(&out, &in);
        else
            put_table(&out, &in);
        status = print_document(&out);
        strbuf_free(&out);
    }
    cinf_checkpoint_free(in.checkpoint);
    return status;
}

const struct command command_inspect = {
    .name = "inspect",
    .summary = "list a checkpoint's tensors, or say what is wrong with it",
    .operand = "PATH",
    .synopsis = "PATH [--json]",
    .manual =
        "PATH is a checkpoint's folder (safetensors or pytorch_model.bin, sharded or not), or one such\n"
        "file.  Nothing in it is executed.  Lists every tensor with its type and shape, the totals, and\n"
        "for a folder its configuration and the size of its vocabulary.  A malformed file gives one\n"
        "line that names the file, the tensor and the fault, and exit status 1.\n",
    .run = run,
};
