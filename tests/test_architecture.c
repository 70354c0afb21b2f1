/* A second architecture, known to this program alone: GPT-2 without biases and with names of its own.  It is
 * added as architecture.h says, by tables, a function that writes the program and a place in the list, and
 * then binds, loads, runs and serves like GPT-2.  Its logits must be those of the GPT-2 whose biases are
 * zero, bit for bit. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <costinfer/costinfer.h>

#include "gpt2.h"
#include "made_checkpoint.h"
#include "mem.h"
#include "model_steps.h"
#include "support.h"
#include "tiny_model.h"

/* ---- The architecture --------------------------------------------------------------------- */

enum { TOKENS, POSITIONS, FIRST_TENSORS };
enum { MLP_OUT, MLP_IN, NORM_B, ATTN_OUT, QKV, NORM_A, LAYER_TENSORS };

static const struct model_tensor first_tensors[FIRST_TENSORS] = {
    [TOKENS] = { .name = "embed.tokens", .role = WEIGHT_TOKENS, .rows = DIM_V, .cols = DIM_D },
    [POSITIONS] = { .name = "embed.positions", .role = WEIGHT_TABLE, .rows = DIM_P, .cols = DIM_D },
};
static const struct model_tensor layer_tensors[LAYER_TENSORS] = {
    [MLP_OUT] = { .name = "mlp.out", .role = WEIGHT_MATRIX, .rows = DIM_I, .cols = DIM_D },
    [MLP_IN] = { .name = "mlp.in", .role = WEIGHT_MATRIX, .rows = DIM_D, .cols = DIM_I },
    [NORM_B] = { .name = "norm_b", .role = WEIGHT_VECTOR, .cols = DIM_D, .is_gain = true },
    [ATTN_OUT] = { .name = "attention.out", .role = WEIGHT_MATRIX, .rows = DIM_D, .cols = DIM_D },
    [QKV] = { .name = "attention.in", .role = WEIGHT_MATRIX, .rows = DIM_D, .cols = DIM_3D },
    [NORM_A] = { .name = "norm_a", .role = WEIGHT_VECTOR, .cols = DIM_D, .is_gain = true },
};
static const struct model_tensor last_tensors[] = {
    { .name = "norm", .role = WEIGHT_VECTOR, .cols = DIM_D, .is_gain = true }
};
static const char *const extras[] = { "attention.cache", NULL };

static struct op *write_ops(struct op *op, const struct cinf_config *config, uint32_t head);

static const struct architecture plain = {
    .name = "a plain transformer",
    .prefix = "net.",
    .layer = "block_",
    .head = "unembed",
    .first = { first_tensors, FIRST_TENSORS },
    .layers = { layer_tensors, LAYER_TENSORS },
    .last = { last_tensors, 1 },
    .extras = extras,
    .layer_ops = 7,
    .other_ops = 3,
    .write_ops = write_ops,
};

static struct op norm(const struct cinf_config *c, uint32_t gain)
{
    return (struct op){ .kind = OP_NORM,
                        .in = ROWS_X,
                        .out = ROWS_H,
                        .weight = gain,
                        .bias = NO_WEIGHT,
                        .epsilon = c->layer_norm_epsilon };
}

static struct op *write_ops(struct op *op, const struct cinf_config *c, uint32_t head)
{
    *op++ = (struct op){ .kind = OP_EMBED, .out = ROWS_X, .weight = TOKENS, .weight2 = POSITIONS };
    for (uint32_t layer = 0; layer < c->n_layer; layer++) {
        *op++ = norm(c, layer_spec(&plain, layer, NORM_A));
        *op++ = (struct op){ .kind = OP_LINEAR,
                             .in = ROWS_H,
                             .out = ROWS_Q,
                             .weight = layer_spec(&plain, layer, QKV),
                             .bias = NO_WEIGHT,
                             .epilogue = EPILOGUE_QKV,
                             .q_cols = c->n_embd,
                             .k_cols = c->n_embd,
                             .v_cols = c->n_embd,
                             .layer = layer };
        *op++ = (struct op){ .kind = OP_ATTEND,
                             .in = ROWS_Q,
                             .out = ROWS_A,
                             .layer = layer,
                             .scale = (float)(1 / sqrt((double)(c->n_embd / c->n_head))) };
        *op++ = (struct op){ .kind = OP_LINEAR,
                             .in = ROWS_A,
                             .out = ROWS_X,
                             .weight = layer_spec(&plain, layer, ATTN_OUT),
                             .bias = NO_WEIGHT,
                             .epilogue = EPILOGUE_ADD };
        *op++ = norm(c, layer_spec(&plain, layer, NORM_B));
        *op++ = (struct op){ .kind = OP_LINEAR,
                             .in = ROWS_H,
                             .out = ROWS_F,
                             .weight = layer_spec(&plain, layer, MLP_IN),
                             .bias = NO_WEIGHT,
                             .epilogue = EPILOGUE_ACTIVATION,
                             .activation = c->activation };
        *op++ = (struct op){ .kind = OP_LINEAR,
                             .in = ROWS_F,
                             .out = ROWS_X,
                             .weight = layer_spec(&plain, layer, MLP_OUT),
                             .bias = NO_WEIGHT,
                             .epilogue = EPILOGUE_ADD };
    }
    *op++ = norm(c, last_spec(&plain, c, 0));
    *op++ = (struct op){ .kind = OP_LOGITS, .in = ROWS_H, .weight = head };
    return op;
}

/* The linker puts this in the place of the library's list. */
const struct architecture *const *__wrap_architectures(void);
const struct architecture *const *__real_architectures(void);

const struct architecture *const *__wrap_architectures(void)
{
    static const struct architecture *const list[] = { &architecture_gpt2, &plain, NULL };
    ck_assert_ptr_eq(__real_architectures()[0], list[0]);
    return list;
}

/* ---- Its checkpoints ---------------------------------------------------------------------- */

/* A model as GPT-2, with biases of zero. */
static struct made *without_biases(const char *folder)
{
    struct made *m = made_from(folder);
    for (uint32_t i = 0; i < m->n; i++) {
        if (support_contains(m->tensors[i].name, ".bias"))
            memset(m->tensors[i].bytes, 0, m->tensors[i].n_bytes);
    }
    return m;
}

/* The same model under plain's names, each after `prefix`. */
static struct made *as_plain(const char *folder, const char *prefix)
{
    static const char *const names[][2] = {
        { "wte.weight", "embed.tokens" },
        { "wpe.weight", "embed.positions" },
        { "ln_f.weight", "norm" },
        { "ln_1.weight", "norm_a" },
        { "ln_2.weight", "norm_b" },
        { "attn.c_attn.weight", "attention.in" },
        { "attn.c_proj.weight", "attention.out" },
        { "mlp.c_fc.weight", "mlp.in" },
        { "mlp.c_proj.weight", "mlp.out" },
    };
    struct made *m = made_from(folder);
    uint32_t n = 0;
    for (uint32_t i = 0; i < m->n; i++) {
        struct made_tensor t = m->tensors[i];
        if (support_contains(t.name, ".bias")) {
            free(t.bytes);
            continue;
        }
        const char *name = t.name;
        char layer[28] = "", *rest;
        if (strncmp(name, "h.", 2) == 0) {
            snprintf(layer, sizeof layer, "block_%lu.", strtoul(name + 2, &rest, 10));
            name = rest + 1;
        }
        for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
            if (strcmp(name, names[k][0]) == 0)
                name = names[k][1];
        }
        struct made_tensor *to = &m->tensors[n++];
        *to = t;
        snprintf(to->name, sizeof to->name, "%.12s%s%.24s", prefix, layer, name);
    }
    m->n = n;
    return m;
}

static void assert_notes(struct made *m, const char *expected)
{
    struct model_stream *stream = NULL;
    ck_ok(model_stream_open(&stream, made_write(m), &usual));
    ck_assert_str_eq(model_stream_notes(stream), expected);
    model_stream_free(stream);
}

static void assert_refused(struct made *m, const char *words)
{
    struct model_stream *stream = NULL;
    ck_fails(model_stream_open(&stream, made_write(m), &usual), CINF_EFORMAT, words);
    ck_assert_ptr_null(stream);
}

/* ---- Tables ------------------------------------------------------------------------------- */

START_TEST(every_spec_has_a_name_that_is_bound)
{
    const struct cinf_config c = {
        .vocab_size = 50, .n_positions = 16, .n_embd = 8, .n_layer = 12, .n_head = 2, .n_inner = 20
    };
    const struct architecture *a = __wrap_architectures()[_i];
    uint32_t n = (uint32_t)architecture_count_specs(a, &c, true), n_gains = 0;
    ck_assert_uint_eq(n, a == &plain ? 2 + 12 * 6 + 1 + 1 : 2 + 12 * 12 + 2 + 1);
    ck_assert_uint_eq(architecture_count_specs(a, &c, false), n - 1);
    struct weight_spec *specs = calloc(n, sizeof *specs);
    architecture_fill_specs(specs, a, &c, true);
    struct strbuf name = { 0 };
    for (uint32_t i = 0; i < n; i++) {
        architecture_spec_name(&name, a, &c, i);
        ck_assert_msg(architecture_name_kind(a, name.text, 12) == NAME_BOUND, "%s", name.text);
        bool is_gain = architecture_spec_is_gain(a, &c, i);
        ck_assert(!is_gain || specs[i].role == WEIGHT_VECTOR);
        n_gains += is_gain;
        bool in_layer = strncmp(name.text, a->layer, strlen(a->layer)) == 0;
        ck_assert_int_eq(architecture_name_kind(a, name.text, 0), in_layer ? NAME_BEYOND : NAME_BOUND);
    }
    ck_assert_str_eq(name.text, a->head);
    ck_assert_int_eq(specs[n - 1].role, WEIGHT_HEAD);
    ck_assert_uint_eq(specs[n - 1].rows, 50);
    ck_assert_uint_eq(n_gains, 2 * 12 + 1);
    architecture_spec_name(&name, a, &c, layer_spec(a, 11, 0));
    ck_assert_str_eq(name.text, a == &plain ? "block_11.mlp.out" : "h.11.ln_1.weight");
    strbuf_free(&name);
    free(specs);
}
END_TEST

START_TEST(names_are_exact)
{
    static const struct {
        const char *name;
        enum name_kind kind;
    } cases[] = {
        { "h.3.ln_1.weight", NAME_BOUND },
        { "h.4.ln_1.weight", NAME_BEYOND },
        { "h.18446744073709551617.ln_1.weight", NAME_BEYOND },
        { "h.3.attn.bias", NAME_EXTRA },
        { "h.4.attn.masked_bias", NAME_EXTRA },
        { "h.0.ln_1.weight", NAME_BOUND },
        { "h.00.ln_1.weight", NAME_UNKNOWN },
        { "h.03.ln_1.weight", NAME_UNKNOWN },
        { "h..ln_1.weight", NAME_UNKNOWN },
        { "h.3ln_1.weight", NAME_UNKNOWN },
        { "h.-1.ln_1.weight", NAME_UNKNOWN },
        { "h.3.", NAME_UNKNOWN },
        { "h.3", NAME_UNKNOWN },
        { "h.", NAME_UNKNOWN },
        { "", NAME_UNKNOWN },
        { "h.3.ln_1.weight2", NAME_UNKNOWN },
        { "h.3.wte.weight", NAME_UNKNOWN },
        { "ln_1.weight", NAME_UNKNOWN },
        { "wte.weight", NAME_BOUND },
        { "ln_f.bias", NAME_BOUND },
        { "lm_head.weight", NAME_BOUND },
        { "block_3.norm_a", NAME_UNKNOWN },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        ck_assert_msg(architecture_name_kind(&architecture_gpt2, cases[i].name, 4) == cases[i].kind, "%s",
                      cases[i].name);
}
END_TEST

/* ---- Binding ------------------------------------------------------------------------------ */

START_TEST(the_embeddings_name_tells_the_architecture)
{
    static const char *const prefixes[] = { "", "net.", "model.net." };
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
        assert_notes(as_plain(golden_path("plain"), prefixes[i]), "");
    assert_notes(made_from_golden("untied"), "");

    struct made *m = as_plain(golden_path("plain"), "");
    strcpy(made_find(m, "embed.tokens")->name, "tokens");
    assert_refused(m, ": there is no tensor wte.weight or transformer.wte.weight or embed.tokens or "
                      "net.embed.tokens");
    m = as_plain(golden_path("plain"), "");
    strcpy(made_find(m, "embed.tokens")->name, "a.embed.tokens");
    made_add(m, "b.embed.tokens", "a.embed.tokens");
    assert_refused(m, ": both a.embed.tokens and b.embed.tokens could be the token embeddings");
}
END_TEST

START_TEST(its_names_are_checked_like_gpt2s)
{
    struct made *m = as_plain(golden_path("plain"), "net.");
    strcpy(made_find(m, "net.block_1.norm_b")->name, "net.block_1.norm_c");
    assert_refused(m, ": there is no tensor net.block_1.norm_b");

    m = as_plain(golden_path("plain"), "");
    made_set_config(m, "\"n_layer\": 2", "\"n_layer\": 1");
    assert_refused(m, ": there is a tensor block_1.");

    m = as_plain(golden_path("plain"), "");
    made_find(m, "block_0.attention.in")->dims[0] = 72;
    made_find(m, "block_0.attention.in")->dims[1] = 24;
    assert_refused(m, "tensor block_0.attention.in is [72, 24], expected [24, 72]");

    m = as_plain(golden_path("plain"), "net.");
    made_set_config(m, "\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false");
    assert_refused(m,
                   ": there is no tensor unembed, which tie_word_embeddings false in config.json asks for");

    /* A tensor of another architecture, an extra, and a head that is a copy. */
    m = as_plain(golden_path("plain"), "net.");
    made_add(m, "net.h.0.ln_1.weight", "net.norm");
    made_add(m, "net.block_0.attn.bias", "net.norm");
    made_add(m, "net.block_0.attention.cache", "net.norm");
    made_add(m, "unembed", "net.embed.tokens");
    assert_notes(m,
                 "2 tensors are not part of a plain transformer and are ignored: \"net.block_0.attn.bias\" "
                 "\"net.h.0.ln_1.weight\"\n");

    m = as_plain(golden_path("plain"), "net.");
    memset(made_add(m, "unembed", "net.embed.tokens")->bytes, 0, 4);
    assert_notes(
        m, "unembed differs from net.embed.tokens; unembed is taken for both, as transformers does, because "
           "config.json ties them; the untied-head option takes each for itself\n");
}
END_TEST

/* ---- Running ------------------------------------------------------------------------------ */

enum { N_IDS = 11 };
static const int32_t ids[N_IDS] = { 1, 7, 3, 60, 3, 3, 0, 41, 12, 9, 5 };

/* Logits [N_IDS, V] of `ids` in two steps; and what a row costs. */
static float *logits_and_work(struct device *device, struct made *m, uint64_t *parameters,
                              struct model_work *work)
{
    struct model *model = load(device, made_write(m), &usual);
    float *logits = calloc((size_t)N_IDS * model_config(model)->vocab_size, sizeof *logits);
    feed(model, 1, ids, 0, N_IDS, 7, logits);
    *parameters = model_parameters(model);
    *work = model_work_of(model, 4, 3, 1, false);
    model_free(model);
    return logits;
}

START_TEST(its_logits_are_those_of_a_gpt2_without_biases)
{
    static const char *const variants[] = { "plain", "relu", "inner", "f16" };
    struct device *device = open_listed((uint32_t)_i);
    if (!device)
        return;
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
        const char *folder = golden_path(variants[i]);
        uint64_t parameters[2];
        struct model_work work[2];
        struct made *m = without_biases(folder);
        uint32_t vocab = (uint32_t)made_find(m, "wte.weight")->dims[0];
        uint64_t width = made_find(m, "ln_f.bias")->dims[0],
                 inner = made_find(m, "h.0.mlp.c_fc.bias")->dims[0];
        float *expected = logits_and_work(device, m, &parameters[0], &work[0]);
        float *got = logits_and_work(device, as_plain(folder, ""), &parameters[1], &work[1]);
        ck_assert_mem_eq(got, expected, N_IDS * vocab * sizeof *got);
        /* The biases mattered. */
        float *with = logits_and_work(device, made_from(folder), &parameters[0], &work[0]);
        ck_assert_mem_ne(got, with, N_IDS * vocab * sizeof *got);
        free(expected), free(got), free(with);

        ck_assert_uint_eq(work[1].flops, work[0].flops);
        ck_assert_uint_eq(work[1].kv_bytes, work[0].kv_bytes);
        ck_assert_uint_lt(work[1].weight_bytes, work[0].weight_bytes);
        /* The biases of two norms and four products in each of two layers, and that of the last norm. */
        ck_assert_uint_eq(parameters[0] - parameters[1], 2 * (7 * width + inner) + width);
    }
    device_close(device);
}
END_TEST

enum { N_GENERATED = 60 };

/* What the engine samples of the model in `folder`. */
static void serve(int32_t generated[N_GENERATED], const char *folder)
{
    struct cinf_engine *engine;
    struct cinf_model *model;
    struct cinf_result *result;
    struct cinf_model_info info = { CINF_MODEL_INFO };
    ck_ok(cinf_engine_open(
        &engine, &(struct cinf_engine_options){ CINF_ENGINE_OPTIONS, .device = getenv("CINF_TEST_DEVICE") }));
    ck_ok(cinf_model_load(&model, engine,
                          &(struct cinf_model_options){ CINF_MODEL_OPTIONS, .folder = folder }));
    cinf_model_info(model, &info);
    ck_assert_uint_eq(info.config.n_layer, 1);
    struct cinf_request_options o = {
        CINF_REQUEST_OPTIONS, .prompt = "the hall", .max_tokens = N_GENERATED, .temperature = 1, .seed = 3,
        .ignore_eos = true
    };
    ck_ok(cinf_generate(&result, model, &o, NULL, NULL));
    ck_assert_uint_eq(result->choices[0].n_ids, N_GENERATED);
    ck_assert_uint_gt(result->report.device_ns, 0);
    memcpy(generated, result->choices[0].ids, N_GENERATED * sizeof *generated);
    cinf_result_free(result);
    cinf_model_release(model);
    cinf_engine_close(engine);
}

START_TEST(the_engine_serves_it)
{
    int32_t expected[N_GENERATED], got[N_GENERATED], with_biases[N_GENERATED];
    char *gpt2_folder = tiny_model(), *plain_folder = tiny_model();
    serve(with_biases, gpt2_folder);
    made_write_to(plain_folder, as_plain(plain_folder, ""));
    made_write_to(gpt2_folder, without_biases(gpt2_folder));
    serve(expected, gpt2_folder);
    serve(got, plain_folder);
    ck_assert_mem_eq(got, expected, sizeof got);
    ck_assert_mem_ne(got, with_biases, sizeof got);
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("architecture");
    TCase *names = tcase_create("names");
    tcase_add_loop_test(names, every_spec_has_a_name_that_is_bound, 0, 2);
    tcase_add_test(names, names_are_exact);
    tcase_add_test(names, the_embeddings_name_tells_the_architecture);
    tcase_add_test(names, its_names_are_checked_like_gpt2s);
    suite_add_tcase(s, names);
    TCase *running = tcase_create("running");
    tcase_set_timeout(running, 60);
    tcase_add_loop_test(running, its_logits_are_those_of_a_gpt2_without_biases, 0, DEVICES_MAX);
    tcase_add_test(running, the_engine_serves_it);
    suite_add_tcase(s, running);
    return s;
}
