/* cli_inspect.c - lists what a checkpoint contains, or reports what is wrong with it. */
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
    struct strbuf notes; /* a line each */
};

static void put_shape(struct json_writer *w, const char *key, const struct cinf_tensor *t)
{
    json_open_array(w, key);
    for (uint32_t i = 0; i < t->n_dims; i++)
        json_put_u64(w, NULL, t->dims[i]);
    json_close(w);
}

/* These functions write a member to `w`, or a line of text if `w` is NULL. */
static void put_totals(struct strbuf *out, struct json_writer *w, const struct cinf_checkpoint *checkpoint)
{
    uint64_t elements = 0, bytes = 0;
    uint32_t n = cinf_checkpoint_count(checkpoint);
    for (uint32_t i = 0; i < n; i++) {
        elements += cinf_checkpoint_tensor(checkpoint, i)->n_elements;
        bytes += cinf_checkpoint_tensor(checkpoint, i)->n_bytes;
    }
    if (!w) {
        strbuf_printf(out, "%" PRIu32 " tensors, %" PRIu64 " elements, %" PRIu64 " bytes", n, elements,
                      bytes);
        return;
    }
    json_open_object(w, "totals");
    json_put_u64(w, "tensors", n);
    json_put_u64(w, "elements", elements);
    json_put_u64(w, "bytes", bytes);
    json_close(w);
}

/* `value` reads the same in JSON and as text. */
static void put_entry(struct strbuf *out, struct json_writer *w, const char *key, const char *value)
{
    if (w)
        json_put_format(w, key, "%s", value);
    else
        strbuf_printf(out, "\n  %-32s %s", key, value);
}

static void put_number(struct strbuf *out, struct json_writer *w, const char *key, uint32_t value)
{
    char text[16];
    snprintf(text, sizeof text, "%" PRIu32, value);
    put_entry(out, w, key, text);
}

static void put_switch(struct strbuf *out, struct json_writer *w, const char *key, bool value)
{
    put_entry(out, w, key, value ? "true" : "false");
}

static void put_eos(struct strbuf *out, struct json_writer *w, const struct cinf_config *c)
{
    struct strbuf ids = { 0 };
    struct json_writer list = json_write_to(&ids);
    json_open_array(&list, NULL);
    for (uint32_t i = 0; i < c->n_eos; i++)
        json_put_i64(&list, NULL, c->eos[i]);
    json_close(&list);
    put_entry(out, w, "eos_token_id", ids.failed ? "[]" : ids.text);
    out->failed = out->failed || ids.failed;
    strbuf_free(&ids);
}

/* Writes the configuration under the keys of config.json. */
static void put_config(struct strbuf *out, struct json_writer *w, const struct cinf_config *c)
{
    char text[64];
    put_number(out, w, "vocab_size", c->vocab_size);
    put_number(out, w, "n_positions", c->n_positions);
    put_number(out, w, "n_embd", c->n_embd);
    put_number(out, w, "n_layer", c->n_layer);
    put_number(out, w, "n_head", c->n_head);
    put_number(out, w, "n_inner", c->n_inner);
    if (w)
        json_put_text(w, "activation_function", cinf_activation_name(c->activation));
    else
        put_entry(out, NULL, "activation_function", cinf_activation_name(c->activation));
    snprintf(text, sizeof text, "%.6g", (double)c->layer_norm_epsilon);
    put_entry(out, w, "layer_norm_epsilon", text);
    put_switch(out, w, "scale_attn_weights", c->scale_attn_weights);
    put_switch(out, w, "scale_attn_by_inverse_layer_idx", c->scale_attn_by_inverse_layer_idx);
    put_switch(out, w, "tie_word_embeddings", c->tie_word_embeddings);
    put_eos(out, w, c);
    snprintf(text, sizeof text, "%" PRId32, c->bos);
    put_entry(out, w, "bos_token_id", c->bos < 0 ? "null" : text);
}

static void put_json(struct strbuf *out, const struct inspection *in)
{
    struct json_writer w = json_write_to(out);
    json_open_object(&w, NULL);
    json_put_text(&w, "path", in->path);
    json_put_text(&w, "format", cinf_checkpoint_format(in->checkpoint));
    put_totals(out, &w, in->checkpoint);
    if (in->has_config) {
        json_open_object(&w, "config");
        put_config(out, &w, &in->config);
        json_close(&w);
    } else {
        json_put_null(&w, "config");
    }
    if (in->has_tokenizer)
        json_put_u64(&w, "tokenizer_size", in->tokenizer_size);
    else
        json_put_null(&w, "tokenizer_size");
    json_put_text(&w, "notes", in->notes.text ? in->notes.text : "");
    json_open_array(&w, "tensors");
    for (uint32_t i = 0; i < cinf_checkpoint_count(in->checkpoint); i++) {
        const struct cinf_tensor *t = cinf_checkpoint_tensor(in->checkpoint, i);
        json_new_line(&w);
        json_open_object(&w, NULL);
        json_put_text(&w, "name", t->name);
        json_put_text(&w, "dtype", t->dtype_name);
        put_shape(&w, "shape", t);
        json_put_u64(&w, "elements", t->n_elements);
        json_put_u64(&w, "bytes", t->n_bytes);
        json_put_text(&w, "file", t->file);
        json_close(&w);
    }
    json_close(&w);
    json_close(&w);
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
        struct json_writer w = json_write_to(&shape);
        put_shape(&w, NULL, t);
        strbuf_printf(out, "%-*s  %-5s  %-14s %12" PRIu64 " %13" PRIu64 "\n", width,
                      name.text ? name.text : "", t->dtype_name, shape.text ? shape.text : "", t->n_elements,
                      t->n_bytes);
        strbuf_free(&shape);
    }
    strbuf_free(&name);
    strbuf_putc(out, '\n');
    put_totals(out, NULL, in->checkpoint);
    if (in->has_config) {
        strbuf_puts(out, "\n\nconfiguration");
        put_config(out, NULL, &in->config);
    }
    if (in->has_tokenizer)
        strbuf_printf(out, "\n\ntokenizer: %" PRIu32 " tokens", in->tokenizer_size);
    if (in->notes.len > 0)
        strbuf_printf(out, "\n\nnotes\n%.*s", (int)in->notes.len - 1, in->notes.text);
}

/* Checks a folder's other files: each may be absent, but none may be malformed. */
static bool read_folder(struct inspection *in)
{
    char notes[CINF_CONFIG_NOTES_MAX];
    enum cinf_status status = cinf_config_read_with_notes(&in->config, notes, in->path);
    in->has_config = status == CINF_OK;
    if (in->has_config)
        strbuf_puts(&in->notes, notes);
    if (status != CINF_OK && status != CINF_ENOTFOUND)
        return false;
    struct cinf_tokenizer *tokenizer;
    status = cinf_tokenizer_open(&tokenizer, in->path);
    if (status == CINF_OK) {
        in->has_tokenizer = true;
        in->tokenizer_size = cinf_tokenizer_size(tokenizer);
        strbuf_puts(&in->notes, cinf_tokenizer_notes(tokenizer));
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
    strbuf_free(&in.notes);
    return status;
}

const struct command command_inspect = {
    .name = "inspect",
    .summary = "list a checkpoint's tensors, or report what is wrong with it",
    .operand = "PATH",
    .synopsis = "PATH [--json]",
    .manual =
        "PATH is a checkpoint's folder (safetensors or pytorch_model.bin, sharded or not), or one such\n"
        "file.  Nothing in it is executed.  The command lists every tensor with its type and shape, the\n"
        "totals, and for a folder its configuration, the size of its vocabulary and notes for the\n"
        "operator.  For a malformed file it prints one line that names the file, the tensor and the\n"
        "fault, and exits with status 1.\n",
    .run = run,
};
