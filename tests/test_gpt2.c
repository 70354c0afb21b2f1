/* The model against an oracle that shares no code with it (golden/), on every device of the build; loading
 * good and bad files; the cost of a row. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"
#include "json.h"
#include "made_checkpoint.h"
#include "mem.h"
#include "model_steps.h"
#include "support.h"

static const char *const variants[] = {
    "plain",
    "prefix",
    "other_prefix",
    "untied",
    "head_for_both",
    "inner",
    "one_head",
    "gelu",
    "relu",
    "silu",
    "tanh",
    "epsilon",
    "no_scale",
    "inverse_layer",
    "padded",
    "f16",
    "bf16",
    "f64",
    "sharded",
    "gelu_pytorch_tanh",
    "mish",
    "head_alone",
    "head_in_first_shard",
};
enum { N_VARIANTS = sizeof variants / sizeof *variants };

/* The bound for float32 against the oracle's float64.  It is less than a tenth of the difference of any wrong
 * model (golden/README.md). */
static const double tolerance = 1e-4;

enum { IDS_MAX = 64 };
static const uint64_t plenty_ns = 1 << 30;

/* ---- Helpers ------------------------------------------------------------------------------ */

static struct device *open_reference(void)
{
    return open_device("cpu-reference");
}

/* The contents of a folder's expected.json and logits.f32. */
struct golden {
    uint32_t n_prompt, n_greedy, vocab;
    int32_t prompt[IDS_MAX], greedy[IDS_MAX];
    double margins[IDS_MAX];
    float *logits; /* [n_prompt, vocab] */
};

static uint32_t read_ids(int32_t *ids, const cJSON *array)
{
    uint32_t n = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, array)
    {
        ck_assert_uint_lt(n, IDS_MAX);
        ids[n++] = item->valueint;
    }
    ck_assert_uint_gt(n, 0);
    return n;
}

static cJSON *read_json(const char *folder, const char *name)
{
    char *path = path_join(folder, name), *text = NULL;
    size_t size = 0;
    cJSON *json = NULL;
    ck_ok(file_load(&text, &size, path, 1 << 20));
    ck_ok(json_parse(&json, text, size, NULL));
    mem_free(text);
    mem_free(path);
    return json;
}

static void golden_read(struct golden *g, const char *variant)
{
    const char *folder = golden_path(variant);
    cJSON *json = read_json(folder, "expected.json");
    *g = (struct golden){ 0 };
    g->n_prompt = read_ids(g->prompt, json_member(json, "prompt_ids"));
    g->n_greedy = read_ids(g->greedy, json_member(json, "greedy_ids"));
    uint32_t n = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, json_member(json, "margins")) g->margins[n++] = item->valuedouble;
    ck_assert_uint_eq(n, g->n_greedy);
    cJSON_Delete(json);

    char *path = path_join(folder, "logits.f32");
    size_t size = 0;
    ck_ok(file_load((char **)&g->logits, &size, path, 1 << 20));
    mem_free(path);
    g->vocab = (uint32_t)(size / sizeof(float) / g->n_prompt);
    ck_assert_uint_gt(g->vocab, 0);
}

static void assert_near(const float *got, const float *expected, uint32_t n, const char *what)
{
    double worst = 0;
    for (uint32_t i = 0; i < n; i++) {
        double apart = fabs((double)got[i] - expected[i]);
        worst = apart <= worst ? worst : apart; /* a NaN becomes the worst */
    }
    ck_assert_msg(worst <= tolerance, "%s: logits are %g from what they should be", what, worst);
}

static int32_t argmax(const float *logits, uint32_t n)
{
    int32_t best = 0;
    for (uint32_t i = 1; i < n; i++)
        best = logits[i] > logits[best] ? (int32_t)i : best;
    return best;
}

/* ---- Against the oracle ------------------------------------------------------------------- */

START_TEST(every_variant_gives_the_oracles_logits)
{
    uint32_t d = (uint32_t)_i / N_VARIANTS;
    const char *variant = variants[_i % N_VARIANTS];
    struct device *device = open_listed(d);
    if (!device)
        return;
    struct golden g;
    golden_read(&g, variant);
    struct model *model = load(device, golden_path(variant), &usual);
    ck_assert_uint_eq(model_config(model)->vocab_size, g.vocab);
    float *logits = calloc((size_t)g.n_prompt * g.vocab, sizeof *logits);
    feed(model, 0, g.prompt, 0, g.n_prompt, ROWS_MAX, logits);
    assert_near(logits, g.logits, g.n_prompt * g.vocab, variant);

    /* Generation continues to the end of the context.  If the two best tokens are nearly equal, either is
     * accepted, and the oracle's is the next input. */
    uint32_t position = g.n_prompt;
    int32_t id = argmax(logits + (size_t)(g.n_prompt - 1) * g.vocab, g.vocab);
    for (uint32_t i = 0; i < g.n_greedy; i++) {
        if (g.margins[i] > 2 * tolerance)
            ck_assert_msg(id == g.greedy[i], "%s on %s: greedy token %u is %d, not %d", variant,
                          device_list(d), i, id, g.greedy[i]);
        if (position == model_config(model)->n_positions)
            break;
        struct rows r = { 0 };
        add_row(&r, 0, position++, g.greedy[i], true);
        run(model, &r);
        id = argmax(logits_of(model, 0), g.vocab);
    }
    ck_assert_uint_eq(position, model_config(model)->n_positions);
    free(logits);
    mem_free(g.logits);
    model_free(model);
    device_close(device);
}
END_TEST

START_TEST(chunks_do_not_change_the_result)
{
    static const uint32_t chunks[] = { 1, 3, 7, ROWS_MAX };
    struct device *device = open_listed((uint32_t)_i);
    if (!device)
        return;
    struct golden g;
    golden_read(&g, "inverse_layer");
    struct model *model = load(device, golden_path("inverse_layer"), &usual);
    float *logits = calloc((size_t)g.n_prompt * g.vocab, sizeof *logits);
    /* Always the same slot, so that its earlier contents would show. */
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
        memset(logits, 0, (size_t)g.n_prompt * g.vocab * sizeof *logits);
        feed(model, 1, g.prompt, 0, g.n_prompt, chunks[i], logits);
        assert_near(logits, g.logits, g.n_prompt * g.vocab, "chunks");
    }
    free(logits);
    mem_free(g.logits);
    model_free(model);
    device_close(device);
}
END_TEST

START_TEST(requests_in_one_batch_do_not_disturb_each_other)
{
    struct device *device = open_listed((uint32_t)_i);
    if (!device)
        return;
    struct golden g;
    golden_read(&g, "plain");
    struct model *model = load(device, golden_path("plain"), &usual);
    uint32_t vocab = g.vocab, last = g.n_prompt - 1;
    int32_t reversed[IDS_MAX];
    for (uint32_t i = 0; i < g.n_prompt; i++)
        reversed[i] = g.prompt[last - i];
    float *alone = calloc((size_t)g.n_prompt * vocab, sizeof *alone);
    feed(model, 3, reversed, 0, g.n_prompt, ROWS_MAX, alone);

    /* Slot 2 has the prompt and slot 0 the reversed prompt, a step ahead or behind.  Slot 1 is between them
     * in the batch, with something else. */
    for (uint32_t step = 0; step <= last; step += 3) {
        struct rows r = { 0 };
        for (uint32_t i = step; i < step + 3 && i <= last; i++)
            add_row(&r, 2, i, g.prompt[i], i % 2 == 1);
        add_row(&r, 1, step / 3, (int32_t)step, false);
        for (uint32_t i = step == 0 ? 0 : step - 1; i < step + 2; i++)
            add_row(&r, 0, i, reversed[i], true);
        run(model, &r);
        uint32_t n = 0;
        for (uint32_t i = 0; i < r.n; i++) {
            if (!r.wants_logits[i])
                continue;
            const float *expected = (r.slots[i] == 2 ? g.logits : alone) + (size_t)r.positions[i] * vocab;
            assert_near(logits_of(model, n++), expected, vocab, r.slots[i] == 2 ? "slot 2" : "slot 0");
        }
    }
    free(alone);
    mem_free(g.logits);
    model_free(model);
    device_close(device);
}
END_TEST

START_TEST(a_copied_prefix_continues_like_a_computed_one)
{
    struct device *device = open_listed((uint32_t)_i);
    if (!device)
        return;
    struct golden g;
    golden_read(&g, "one_head");
    struct model *model = load(device, golden_path("one_head"), &usual);
    float *logits = calloc((size_t)g.n_prompt * g.vocab, sizeof *logits);
    int32_t other[IDS_MAX];
    for (uint32_t i = 0; i < g.n_prompt; i++)
        other[i] = (g.prompt[i] + 1) % (int32_t)g.vocab;
    feed(model, 0, g.prompt, 0, g.n_prompt, ROWS_MAX, NULL);
    feed(model, 3, other, 0, g.n_prompt, ROWS_MAX, NULL);
    for (uint32_t n = 1; n < g.n_prompt; n += 5) {
        ck_ok(model_copy_prefix(model, 3, 0, n));
        feed(model, 3, g.prompt, n, g.n_prompt, ROWS_MAX, logits);
        assert_near(logits + (size_t)n * g.vocab, g.logits + (size_t)n * g.vocab, (g.n_prompt - n) * g.vocab,
                    "after a copy");
        feed(model, 3, other, 0, g.n_prompt, ROWS_MAX, NULL);
    }
    free(logits);
    mem_free(g.logits);
    model_free(model);
    device_close(device);
}
END_TEST

START_TEST(demo_models_tell_their_stories)
{
    static const char *const names[] = { "stories-small", "stories-large" };
    const char *name = names[_i % 2];
    struct device *device = open_listed((uint32_t)_i / 2);
    if (!device)
        return;
    char below[64];
    snprintf(below, sizeof below, "examples/models/%s", name);
    const char *folder = support_source(below);
    struct model *model = load(device, folder, &usual);
    uint32_t vocab = model_config(model)->vocab_size;
    cJSON *json = read_json(folder, "expected.json");
    const cJSON *a_case;
    int n_cases = 0;
    cJSON_ArrayForEach(a_case, json_member(json, "cases"))
    {
        int32_t ids[2 * IDS_MAX], greedy[IDS_MAX];
        uint32_t n = read_ids(ids, json_member(a_case, "prompt_ids"));
        uint32_t n_greedy = read_ids(greedy, json_member(a_case, "greedy_ids"));
        uint32_t done = 0;
        for (uint32_t i = 0; i < n_greedy; i++) {
            struct rows r = { 0 };
            for (; done < n; done++)
                add_row(&r, 0, done, ids[done], done == n - 1);
            run(model, &r);
            ids[n++] = argmax(logits_of(model, 0), vocab);
            ck_assert_msg(ids[n - 1] == greedy[i], "%s on %s, case %d: token %u is %d, not %d", name,
                          device->backend->name, n_cases, i, ids[n - 1], greedy[i]);
        }
        n_cases++;
    }
    ck_assert_int_eq(n_cases, 4);
    cJSON_Delete(json);
    model_free(model);
    device_close(device);
}
END_TEST

/* ---- Files made from a golden one --------------------------------------------------------- */

static void assert_refused(struct made *m, enum cinf_status status, const char *words)
{
    struct model_stream *stream = NULL;
    const char *folder = made_write(m);
    ck_fails(model_stream_open(&stream, folder, &usual), status, words);
    ck_assert_ptr_null(stream);
}

/* It fails during the load, not before. */
static void assert_load_fails(const char *folder, const struct model_options *options,
                              enum cinf_status status, const char *words)
{
    struct device *device = open_reference();
    struct model_stream *stream = NULL;
    ck_ok(model_stream_open(&stream, folder, options));
    enum cinf_status got = CINF_OK;
    bool done = false;
    while (!done && got == CINF_OK)
        got = model_stream_step(stream, device, 0, &done);
    ck_assert_msg(got == status && !done, "%s: %s", cinf_status_name(got), cinf_last_error());
    ck_assert_msg(support_contains(cinf_last_error(), words), "\"%s\" lacks \"%s\"", cinf_last_error(),
                  words);
    model_stream_free(stream);
    device_close(device);
}

START_TEST(missing_tensors_are_named)
{
    struct made *m = made_from_golden("plain");
    strcpy(made_find(m, "h.1.ln_2.bias")->name, "h.1.ln_2.bogus");
    assert_refused(m, CINF_EFORMAT, ": there is no tensor h.1.ln_2.bias");

    m = made_from_golden("untied");
    strcpy(made_find(m, "transformer.h.0.mlp.c_fc.weight")->name, "h.0.mlp.c_fc.weight");
    assert_refused(m, CINF_EFORMAT, ": there is no tensor transformer.h.0.mlp.c_fc.weight");

    m = made_from_golden("untied");
    strcpy(made_find(m, "lm_head.weight")->name, "head.weight");
    assert_refused(
        m, CINF_EFORMAT,
        ": there is no tensor lm_head.weight, which tie_word_embeddings false in config.json asks for");

    m = made_from_golden("plain");
    strcpy(made_find(m, "wte.weight")->name, "wte");
    assert_refused(m, CINF_EFORMAT, ": there is no tensor wte.weight or transformer.wte.weight");

    m = made_from_golden("plain");
    strcpy(made_find(m, "wte.weight")->name, "a.wte.weight");
    made_add(m, "b.wte.weight", "a.wte.weight");
    assert_refused(m, CINF_EFORMAT, ": both a.wte.weight and b.wte.weight could be the token embeddings");

    struct model_stream *stream = NULL;
    ck_fails(model_stream_open(&stream, golden_path("absent"), &usual), CINF_ENOTFOUND, "golden/absent");
    ck_assert_ptr_null(stream);
}
END_TEST

START_TEST(shapes_are_exact)
{
    struct made *m = made_from_golden("plain");
    struct made_tensor *t = made_find(m, "h.0.attn.c_attn.weight");
    t->dims[0] = 72, t->dims[1] = 24;
    assert_refused(m, CINF_EFORMAT,
                   "model.safetensors: tensor h.0.attn.c_attn.weight is [72, 24], expected [24, 72]");

    m = made_from_golden("plain");
    t = made_find(m, "ln_f.bias");
    t->n_dims = 2, t->dims[0] = 1, t->dims[1] = 24;
    assert_refused(m, CINF_EFORMAT, "tensor ln_f.bias is [1, 24], expected [24]");

    m = made_from_golden("plain");
    made_find(m, "h.1.mlp.c_fc.bias")->dtype = "I32";
    assert_refused(m, CINF_EUNSUPPORTED,
                   "tensor h.1.mlp.c_fc.bias is I32; weights are read from F32, F16, BF16 and F64");

    m = made_from_golden("untied");
    t = made_find(m, "lm_head.weight");
    t->dims[0] = 24, t->dims[1] = 61;
    assert_refused(m, CINF_EFORMAT, "tensor lm_head.weight is [24, 61], expected [61, 24]");
}
END_TEST

START_TEST(config_and_tensors_must_agree)
{
    static const struct {
        const char *from, *to, *words;
    } cases[] = {
        { "\"n_embd\": 24", "\"n_embd\": 48", "tensor wte.weight is [61, 24], expected [61, 48]" },
        { "\"n_layer\": 2", "\"n_layer\": 3", "there is no tensor h.2.ln_1.weight" },
        { "\"n_layer\": 2", "\"n_layer\": 1", ", but config.json says n_layer 1" },
        { "\"n_layer\": 2", "\"n_layer\": 100",
          "config.json says n_layer 100, but there are 28 tensors in all" },
        { "\"n_inner\": null", "\"n_inner\": 95",
          "tensor h.0.mlp.c_fc.weight is [24, 96], expected [24, 95]" },
        { "\"vocab_size\": 61", "\"vocab_size\": 62", "tensor wte.weight is [61, 24], expected [62, 24]" },
        { "\"n_positions\": 32", "\"n_positions\": 64", "tensor wpe.weight is [32, 24], expected [64, 24]" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct made *m = made_from_golden("plain");
        made_set_config(m, cases[i].from, cases[i].to);
        assert_refused(m, CINF_EFORMAT, cases[i].words);
    }
    struct made *m = made_from_golden("plain");
    made_set_config(m, "\"n_head\": 3", "\"n_head\": 5");
    struct model_stream *stream = NULL;
    const char *folder = made_write(m);
    ck_assert_int_ne(model_stream_open(&stream, folder, &usual), CINF_OK);
    ck_assert_msg(support_contains(cinf_last_error(), "n_head"), "%s", cinf_last_error());
    ck_assert_ptr_null(stream);
}
END_TEST

START_TEST(values_that_are_not_finite_are_refused)
{
    static const uint16_t f16_infinity = 0x7C00, bf16_nan = 0xFFC1;
    static const float f32_nan = NAN;
    static const double f64_large = 3.5e38;
    static const struct {
        const char *variant, *tensor;
        const void *value;
        size_t size;
    } cases[] = {
        { "plain", "h.1.mlp.c_proj.weight", &f32_nan, 4 },
        { "plain", "ln_f.bias", &f32_nan, 4 },
        { "f16", "wte.weight", &f16_infinity, 2 },
        { "bf16", "transformer.h.0.ln_1.weight", &bf16_nan, 2 },
        { "plain", "wpe.weight", &f64_large, 8 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char words[160];
        struct made *m = made_from_golden(cases[i].variant);
        made_put(made_find(m, cases[i].tensor), 7, cases[i].value, cases[i].size);
        snprintf(words, sizeof words,
                 "model.safetensors: tensor %s holds a value that is not finite in float32, element 7",
                 cases[i].tensor);
        assert_load_fails(made_write(m), &usual, CINF_EFORMAT, words);
    }
}
END_TEST

START_TEST(the_largest_values_are_not_infinite)
{
    static const uint16_t f16 = 0x7BFF, bf16 = 0x7F7F;
    static const float f32 = -FLT_MAX;
    static const double f64 = FLT_MAX;
    static const struct {
        const char *variant, *tensor;
        const void *value;
        size_t size;
    } cases[] = {
        { "f16", "ln_f.bias", &f16, 2 },
        { "bf16", "transformer.ln_f.bias", &bf16, 2 },
        { "plain", "ln_f.bias", &f32, 4 },
        { "plain", "ln_f.bias", &f64, 8 },
    };
    struct device *device = open_reference();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct made *m = made_from_golden(cases[i].variant);
        made_put(made_find(m, cases[i].tensor), 0, cases[i].value, cases[i].size);
        model_free(load(device, made_write(m), &usual));
    }
    device_close(device);
}
END_TEST

/* ---- Head, padding, notes ----------------------------------------------------------------- */

static char *notes_of(const char *folder, const struct model_options *options)
{
    struct model_stream *stream = NULL;
    ck_ok(model_stream_open(&stream, folder, options));
    char *notes = strdup(model_stream_notes(stream));
    model_stream_free(stream);
    return notes;
}

static void assert_notes(const char *folder, const struct model_options *options, const char *expected)
{
    char *notes = notes_of(folder, options);
    ck_assert_str_eq(notes, expected);
    free(notes);
}

START_TEST(notes_say_what_is_ignored)
{
    assert_notes(golden_path("plain"), &usual, "");
    assert_notes(golden_path("prefix"), &usual, "");
    assert_notes(golden_path("other_prefix"), &usual, "");
    assert_notes(golden_path("untied"), &usual, "");
    assert_notes(golden_path("padded"), &usual,
                 "wte.weight has 61 rows, vocab_size in config.json is 57: 4 rows of padding\n");
    const char *tail =
        " is taken for both, as transformers does, because config.json ties them; the untied-head "
        "option takes each for itself\n";
    char expected[256];
    snprintf(expected, sizeof expected,
             "lm_head.weight differs from transformer.wte.weight; lm_head.weight%s", tail);
    assert_notes(golden_path("head_for_both"), &usual, expected);
    snprintf(expected, sizeof expected,
             "lm_head.weight differs from transformer.wte.weight; transformer.wte.weight%s", tail);
    assert_notes(golden_path("head_in_first_shard"), &usual, expected);
    assert_notes(golden_path("head_alone"), &usual, "");

    struct made *m = made_from_golden("plain");
    made_add(m, "h.0.attn.rotary", "ln_f.bias");
    made_add(m, "h.01.ln_1.weight", "ln_f.bias");
    made_add(m, "score.weight", "ln_f.bias");
    made_add(m, "transformer.ln_f.bias", "ln_f.bias");
    made_add(m, "zebra", "ln_f.bias");
    assert_notes(
        made_write(m), &usual,
        "5 tensors are not part of a GPT-2 and are ignored: \"h.0.attn.rotary\" \"h.01.ln_1.weight\" "
        "\"score.weight\" \"transformer.ln_f.bias\" ...\n");
}
END_TEST

START_TEST(an_untied_head_is_taken_when_asked_for)
{
    struct device *device = open_reference();
    struct model_options untied = usual;
    untied.untied_head = true;
    assert_notes(golden_path("head_for_both"), &untied, "");
    struct golden g;
    golden_read(&g, "untied");
    struct model *model = load(device, golden_path("head_for_both"), &untied);
    float *logits = calloc((size_t)g.n_prompt * g.vocab, sizeof *logits);
    feed(model, 0, g.prompt, 0, g.n_prompt, ROWS_MAX, logits);
    assert_near(logits, g.logits, g.n_prompt * g.vocab, "the head of its own");
    uint64_t parameters = model_parameters(model);
    free(logits);
    mem_free(g.logits);
    model_free(model);

    /* A copy of the embeddings needs no separate memory, tied or not. */
    for (int tied = 0; tied < 2; tied++) {
        struct made *m = made_from_golden("plain");
        made_add(m, "lm_head.weight", "wte.weight");
        if (!tied)
            made_set_config(m, "\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false");
        const char *folder = made_write(m);
        assert_notes(folder, &untied, "");
        model = load(device, folder, &untied);
        ck_assert_uint_eq(model_parameters(model), parameters - 61 * 24);
        model_free(model);
    }

    /* With a prefix of several parts, the head is beside the transformer. */
    struct made *m = made_from_golden("untied");
    for (uint32_t i = 0; i < m->n; i++) {
        char name[sizeof m->tensors[i].name];
        strcpy(name, m->tensors[i].name);
        snprintf(m->tensors[i].name, sizeof name, "_orig_mod.%.50s", name);
    }
    const char *folder = made_write(m);
    assert_notes(folder, &usual, "");
    model = load(device, folder, &usual);
    ck_assert_uint_eq(model_parameters(model), parameters);
    model_free(model);
    device_close(device);
}
END_TEST

START_TEST(tensors_of_several_chunks_arrive_whole)
{
    /* Embeddings padded to 2 MB with zeros, the last row a copy of row 5. */
    enum { ROWS = 22000, WIDTH = 24 };
    struct device *device = open_listed((uint32_t)_i);
    if (!device)
        return;
    struct made *m = made_from_golden("plain");
    struct made_tensor *t = made_find(m, "wte.weight");
    size_t row_bytes = WIDTH * sizeof(float);
    char *bytes = calloc(ROWS, row_bytes);
    memcpy(bytes, t->bytes, t->n_bytes);
    memcpy(bytes + (ROWS - 1) * row_bytes, t->bytes + 5 * row_bytes, row_bytes);
    free(t->bytes);
    t->bytes = bytes;
    t->n_bytes = ROWS * row_bytes;
    t->dims[0] = ROWS;
    struct model *model = load(device, made_write(m), &usual);
    struct golden g;
    golden_read(&g, "plain");
    struct rows r = { 0 };
    add_row(&r, 0, 0, g.prompt[0], true);
    add_row(&r, 1, 0, 5, true);
    add_row(&r, 2, 0, ROWS - 1, true);
    run(model, &r);
    const float *logits = logits_of(model, 0);
    assert_near(logits, g.logits, 61, "before the padding");
    /* The same embedding; a BLAS may sum the last rows of a matrix in another order than the first. */
    ck_assert_float_eq_tol(logits[ROWS - 1], logits[5], 1e-5f);
    for (uint32_t i = 61; i < ROWS - 1; i++)
        ck_assert_float_eq(logits[i], 0);
    assert_near(logits_of(model, 2), logits_of(model, 1), ROWS, "the same embedding");
    mem_free(g.logits);
    model_free(model);
    device_close(device);
}
END_TEST

/* ---- Options and jobs --------------------------------------------------------------------- */

START_TEST(the_cache_is_whole_slots_of_its_budget)
{
    struct device *device = open_reference();
    const uint64_t slot = 32 * 2 * 2 * 24 * sizeof(float); /* positions, layers, keys and values, width */
    static const struct {
        uint64_t halves; /* of a slot */
        uint32_t slots_max, slots;
    } cases[] = { { 2, 0, 1 }, { 7, 0, 3 }, { 7, 2, 2 }, { 400, 0, 64 }, { 400, 100, 100 } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct model_options options = usual;
        options.kv_bytes = cases[i].halves * slot / 2;
        options.slots_max = cases[i].slots_max;
        struct model *model = load(device, golden_path("plain"), &options);
        ck_assert_uint_eq(model_slots(model), cases[i].slots);
        ck_assert_uint_eq(model_kv_bytes(model), cases[i].slots * slot);
        model_free(model);
    }
    device_close(device);
    struct model_options options = usual;
    options.kv_bytes = slot - 1;
    char words[128];
    snprintf(words, sizeof words,
             "the cache of one context of 32 positions takes %llu bytes, and %llu are allowed",
             (unsigned long long)slot, (unsigned long long)slot - 1);
    assert_load_fails(golden_path("plain"), &options, CINF_ENOMEM, words);
}
END_TEST

START_TEST(the_type_of_weights)
{
    struct device *device = open_reference();
    struct model_options options = usual;
    struct model *model = load(device, golden_path("f64"), &options);
    ck_assert_int_eq(model_weights_type(model), WEIGHTS_F32);
    model_free(model);
    /* A given number of slots is used exactly, or the load fails. */
    options.weights_given = true;
    options.weights = WEIGHTS_F32;
    model = load(device, golden_path("bf16"), &options);
    ck_assert_int_eq(model_weights_type(model), WEIGHTS_F32);
    model_free(model);
    device_close(device);
    options.weights = WEIGHTS_INT4;
    assert_load_fails(golden_path("plain"), &options, CINF_EUNSUPPORTED, NULL);
}
END_TEST

START_TEST(loading_is_many_short_jobs)
{
    struct device *device = open_reference();
    struct model_stream *stream = NULL;
    ck_ok(model_stream_open(&stream, golden_path("sharded"), &usual));
    ck_assert_uint_eq(model_stream_config(stream)->n_layer, 2);
    uint64_t total = model_stream_bytes_total(stream), before = 0;
    ck_assert_uint_eq(model_stream_bytes_done(stream), 0);
    uint32_t n_jobs = 0;
    for (bool done = false; !done; n_jobs++) {
        ck_ok(model_stream_step(stream, device, 0, &done));
        ck_assert_uint_ge(model_stream_bytes_done(stream), before);
        before = model_stream_bytes_done(stream);
        ck_assert(!done || before == total);
    }
    struct model *model = NULL;
    ck_ok(model_stream_finish(&model, stream));
    model_stream_free(stream);
    /* One for each of the 28 tensors, one to finish the weights, one to prepare. */
    ck_assert_uint_eq(n_jobs, 30);
    ck_assert_uint_eq(total, model_parameters(model) * sizeof(float));
    model_free(model);

    /* The load is abandoned at each stage; the sanitizer looks for leaks. */
    for (uint32_t stop = 0; stop <= n_jobs; stop++) {
        bool done = false;
        ck_ok(model_stream_open(&stream, golden_path("sharded"), &usual));
        for (uint32_t i = 0; i < stop; i++)
            ck_ok(model_stream_step(stream, device, 0, &done));
        ck_assert_int_eq(done, stop == n_jobs);
        model_stream_free(stream);
    }
    model_stream_free(NULL);
    model_free(NULL);
    device_close(device);
}
END_TEST

START_TEST(every_failed_allocation_is_survived)
{
    const char *folder = golden_path("head_for_both");
    struct golden g;
    golden_read(&g, "head_for_both");
    char reason[DEVICE_REASON_MAX];
    bool passed = false;
    uint64_t n = 1;
    for (; !passed; n++) {
        struct device *device = NULL;
        struct model_stream *stream = NULL;
        struct model *model = NULL;
        bool done = false;
        mem_fail_at(n);
        enum cinf_status status = device_open(&device, "cpu-reference", NULL, reason);
        if (status == CINF_OK)
            status = model_stream_open(&stream, folder, &usual);
        while (status == CINF_OK && !done)
            status = model_stream_step(stream, device, plenty_ns, &done);
        if (status == CINF_OK)
            status = model_stream_finish(&model, stream);
        for (uint32_t i = 0; status == CINF_OK && i < g.n_prompt; i++) {
            status = model_run(model, &(struct batch){ .n_rows = 1,
                                                       .tokens = g.prompt + i,
                                                       .positions = &i,
                                                       .slots = &(uint32_t){ 0 },
                                                       .wants_logits = &(uint8_t){ 1 } });
            if (status == CINF_OK)
                status = model_wait(model);
        }
        passed = status == CINF_OK;
        if (passed) {
            ck_assert(!mem_fail_hit());
            assert_near(logits_of(model, 0), g.logits + (size_t)(g.n_prompt - 1) * g.vocab, g.vocab, "last");
        } else {
            ck_assert_msg(status == CINF_ENOMEM && mem_fail_hit(), "allocation %llu: %s: %s",
                          (unsigned long long)n, cinf_status_name(status), cinf_last_error());
            ck_assert(!model);
        }
        mem_fail_at(0);
        model_free(model);
        model_stream_free(stream);
        device_close(device);
    }
    ck_assert_uint_gt(n, 20);
    mem_free(g.logits);
}
END_TEST

/* ---- Synthetic weights, costs ------------------------------------------------------------- */

static const struct cinf_config small = { .vocab_size = 50,
                                          .n_positions = 16,
                                          .n_embd = 8,
                                          .n_layer = 3,
                                          .n_head = 2,
                                          .n_inner = 20,
                                          .layer_norm_epsilon = 1e-5f,
                                          .scale_attn_weights = true,
                                          .tie_word_embeddings = true,
                                          .bos = -1 };

static struct model *load_synthetic(struct device *device, const struct cinf_config *config, uint64_t seed)
{
    struct model_stream *stream = NULL;
    ck_ok(model_stream_synthetic(&stream, config, seed, &usual));
    ck_assert_str_eq(model_stream_notes(stream), "");
    return load_all(stream, device);
}

START_TEST(synthetic_weights_depend_on_the_seed_alone)
{
    struct device *device = open_reference();
    static const uint64_t seeds[] = { 1, 1, 2 };
    float logits[3][50];
    for (int i = 0; i < 3; i++) {
        struct model *model = load_synthetic(device, &small, seeds[i]);
        feed(model, 0, (const int32_t[]){ 7 }, 0, 1, 1, logits[i]);
        model_free(model);
    }
    ck_assert_mem_eq(logits[0], logits[1], sizeof logits[0]);
    ck_assert_mem_ne(logits[0], logits[2], sizeof logits[0]);
    /* A row that a norm has given length sqrt(8), times embeddings of 0.02: a deviation of 0.057. */
    double squares = 0;
    for (int i = 0; i < 50; i++)
        squares += (double)logits[0][i] * logits[0][i];
    ck_assert_double_gt(sqrt(squares / 50), 0.03);
    ck_assert_double_lt(sqrt(squares / 50), 0.10);

    struct model_stream *stream = NULL;
    struct cinf_config wrong = small;
    wrong.n_head = 3;
    ck_fails(model_stream_synthetic(&stream, &wrong, 1, &usual), CINF_EINVAL,
             "n_embd 8, n_layer 3, n_head 3");
    wrong = small;
    wrong.vocab_size = 1u << 31;
    ck_fails(model_stream_synthetic(&stream, &wrong, 1, &usual), CINF_EUNSUPPORTED, "vocab_size 2147483648");
    ck_assert_ptr_null(stream);
    device_close(device);
}
END_TEST

START_TEST(work_is_counted_by_its_formulas)
{
    struct device *device = open_reference();
    struct model *model = load_synthetic(device, &small, 1);
    const uint64_t matrices = 3 * (8 * 24 + 8 * 8 + 2 * 8 * 20), position = 3 * 2 * 8 * sizeof(float);
    ck_assert_uint_eq(model_parameters(model),
                      50 * 8 + 16 * 8 + matrices + 3 * (24 + 8 + 20 + 8 + 4 * 8) + 2 * 8);

    /* One row at position 4 with logits: it attends to 5 positions. */
    struct model_work w = model_work_of(model, 4, 1, 1, false);
    ck_assert_uint_eq(w.flops, 2 * matrices + 3 * 4 * 8 * 5 + 2 * 50 * 8);
    ck_assert_uint_eq(w.kv_bytes, position * (5 + 1));

    /* A chunk without logits needs as many operations as its rows alone, but its rows share the reading. */
    struct model_work chunk = model_work_of(model, 4, 3, 0, false);
    ck_assert_uint_eq(chunk.flops, 3 * 2 * matrices + 3 * 4 * 8 * (5 + 6 + 7));
    ck_assert_uint_eq(chunk.kv_bytes, position * (7 + 3));
    double head = (double)(w.weight_bytes - chunk.weight_bytes);
    ck_assert_double_ge(head, 0.9 * 50 * 8 * sizeof(float));
    ck_assert_double_le(head, 1.2 * 50 * 8 * sizeof(float));
    ck_assert_uint_ge(chunk.weight_bytes, matrices * sizeof(float));

    struct model_work none = model_work_of(model, 4, 0, 0, false);
    ck_assert_uint_eq(none.flops + none.kv_bytes, 0);
    ck_assert_uint_eq(model_copy_bytes(model, 5), 5 * 2 * position);
    model_free(model);
    device_close(device);
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("gpt2");
    TCase *oracle = tcase_create("oracle");
    tcase_set_timeout(oracle, 60);
    tcase_add_loop_test(oracle, every_variant_gives_the_oracles_logits, 0, DEVICES_MAX * N_VARIANTS);
    tcase_add_loop_test(oracle, chunks_do_not_change_the_result, 0, DEVICES_MAX);
    tcase_add_loop_test(oracle, requests_in_one_batch_do_not_disturb_each_other, 0, DEVICES_MAX);
    tcase_add_loop_test(oracle, a_copied_prefix_continues_like_a_computed_one, 0, DEVICES_MAX);
    tcase_add_loop_test(oracle, demo_models_tell_their_stories, 0, DEVICES_MAX * 2);
    suite_add_tcase(s, oracle);
    TCase *files = tcase_create("files");
    tcase_set_timeout(files, 60);
    tcase_add_test(files, missing_tensors_are_named);
    tcase_add_test(files, shapes_are_exact);
    tcase_add_test(files, config_and_tensors_must_agree);
    tcase_add_test(files, values_that_are_not_finite_are_refused);
    tcase_add_test(files, the_largest_values_are_not_infinite);
    tcase_add_test(files, notes_say_what_is_ignored);
    tcase_add_test(files, an_untied_head_is_taken_when_asked_for);
    tcase_add_loop_test(files, tensors_of_several_chunks_arrive_whole, 0, DEVICES_MAX);
    suite_add_tcase(s, files);
    TCase *jobs = tcase_create("jobs");
    tcase_set_timeout(jobs, 60);
    tcase_add_test(jobs, the_cache_is_whole_slots_of_its_budget);
    tcase_add_test(jobs, the_type_of_weights);
    tcase_add_test(jobs, loading_is_many_short_jobs);
    tcase_add_test(jobs, every_failed_allocation_is_survived);
    tcase_add_test(jobs, synthetic_weights_depend_on_the_seed_alone);
    tcase_add_test(jobs, work_is_counted_by_its_formulas);
    suite_add_tcase(s, jobs);
    return s;
}
