#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <costinfer/checkpoint.h>

#include "mem.h"
#include "support.h"

static char *folder;

static void setup(void)
{
    folder = support_temp_folder();
}

/* Reads config.json, and generation_config.json if that is not NULL. */
static enum cinf_status read_texts(struct cinf_config *c, const char *config, const char *generation)
{
    char path[256];
    snprintf(path, sizeof path, "%s/generation_config.json", folder);
    remove(path);
    support_write(folder, "config.json", config, -1);
    if (generation)
        support_write(folder, "generation_config.json", generation, -1);
    return cinf_config_read(c, folder);
}

static struct cinf_config good(const char *config, const char *generation)
{
    struct cinf_config c;
    memset(&c, 0xEE, sizeof c);
    ck_ok(read_texts(&c, config, generation));
    return c;
}

static void bad(const char *config, const char *generation, enum cinf_status status, const char *words)
{
    struct cinf_config c, before;
    memset(&c, 0xEE, sizeof c);
    memset(&before, 0xEE, sizeof before);
    ck_fails(read_texts(&c, config, generation), status, words);
    ck_assert_mem_eq(&c, &before, sizeof c);
    ck_assert(support_contains(cinf_last_error(), generation ? "generation_config.json: " : "config.json: "));
}

static void check_gpt2(struct cinf_config c)
{
    ck_assert_uint_eq(c.vocab_size, 50257);
    ck_assert_uint_eq(c.n_positions, 1024);
    ck_assert_uint_eq(c.n_embd, 768);
    ck_assert_uint_eq(c.n_layer, 12);
    ck_assert_uint_eq(c.n_head, 12);
    ck_assert_uint_eq(c.n_inner, 3072);
    ck_assert_int_eq(c.activation, CINF_ACTIVATION_GELU_NEW);
    ck_assert(c.layer_norm_epsilon == 1e-5f);
    ck_assert(c.scale_attn_weights);
    ck_assert(!c.scale_attn_by_inverse_layer_idx);
    ck_assert(c.tie_word_embeddings);
    ck_assert_uint_eq(c.n_eos, 1);
    ck_assert_int_eq(c.eos[0], 50256);
    ck_assert_int_eq(c.bos, 50256);
}

START_TEST(absent_means_default)
{
    check_gpt2(good("{}", NULL));
    check_gpt2(good("{}", "{}"));
    check_gpt2(good("{\"model_type\":\"gpt2\",\"n_ctx\":5,\"torch_dtype\":\"float16\",\"dtype\":7,"
                    "\"task_specific_params\":{\"text-generation\":{\"do_sample\":true,\"max_length\":50}}}",
                    "{\"do_sample\":true,\"temperature\":0.7,\"top_k\":[],\"max_length\":\"x\"}"));
    check_gpt2(
        good("{\"n_inner\":null,\"n_layer\":null,\"activation_function\":null,\"layer_norm_epsilon\":null,"
             "\"scale_attn_weights\":null,\"tie_word_embeddings\":null,\"model_type\":null,"
             "\"add_cross_attention\":null,\"vocab_size\":null}",
             NULL));
    check_gpt2(good("{\"add_cross_attention\":false,\"reorder_and_upcast_attn\":true}", NULL));
}
END_TEST

START_TEST(every_key)
{
    struct cinf_config c =
        good("{\"vocab_size\":1000,\"n_positions\":64,\"n_embd\":60,\"n_layer\":3,\"n_head\":5,\"n_inner\":7,"
             "\"activation_function\":\"relu\",\"layer_norm_epsilon\":1e-6,\"scale_attn_weights\":false,"
             "\"scale_attn_by_inverse_layer_idx\":true,\"tie_word_embeddings\":false,\"eos_token_id\":3,"
             "\"bos_token_id\":4}",
             NULL);
    ck_assert_uint_eq(c.vocab_size, 1000);
    ck_assert_uint_eq(c.n_positions, 64);
    ck_assert_uint_eq(c.n_embd, 60);
    ck_assert_uint_eq(c.n_layer, 3);
    ck_assert_uint_eq(c.n_head, 5);
    ck_assert_uint_eq(c.n_inner, 7);
    ck_assert_int_eq(c.activation, CINF_ACTIVATION_RELU);
    ck_assert(c.layer_norm_epsilon == 1e-6f);
    ck_assert(!c.scale_attn_weights);
    ck_assert(c.scale_attn_by_inverse_layer_idx);
    ck_assert(!c.tie_word_embeddings);
    ck_assert_uint_eq(c.n_eos, 1);
    ck_assert_int_eq(c.eos[0], 3);
    ck_assert_int_eq(c.bos, 4);
}
END_TEST

START_TEST(aliases)
{
    struct cinf_config c =
        good("{\"hidden_size\":64,\"max_position_embeddings\":32,\"num_attention_heads\":4,"
             "\"num_hidden_layers\":2,\"n_embd\":64}",
             NULL);
    ck_assert_uint_eq(c.n_embd, 64);
    ck_assert_uint_eq(c.n_positions, 32);
    ck_assert_uint_eq(c.n_head, 4);
    ck_assert_uint_eq(c.n_layer, 2);
    ck_assert_uint_eq(c.n_inner, 256);
    bad("{\"hidden_size\":64,\"n_embd\":128}", NULL, CINF_EFORMAT,
        "\"n_embd\" is 128, but \"hidden_size\" is 64");
    bad("{\"num_hidden_layers\":0}", NULL, CINF_EFORMAT, "\"num_hidden_layers\" must be an integer");
}
END_TEST

START_TEST(activations)
{
    static const struct {
        const char *name;
        enum cinf_activation activation;
    } cases[] = {
        { "gelu_new", CINF_ACTIVATION_GELU_NEW },
        { "gelu_pytorch_tanh", CINF_ACTIVATION_GELU_NEW },
        { "gelu_python_tanh", CINF_ACTIVATION_GELU_NEW },
        { "gelu_accurate", CINF_ACTIVATION_GELU_NEW },
        { "gelu_fast", CINF_ACTIVATION_GELU_NEW },
        { "gelu", CINF_ACTIVATION_GELU },
        { "gelu_python", CINF_ACTIVATION_GELU },
        { "relu", CINF_ACTIVATION_RELU },
        { "silu", CINF_ACTIVATION_SILU },
        { "swish", CINF_ACTIVATION_SILU },
        { "tanh", CINF_ACTIVATION_TANH },
        { "gelu_10", CINF_ACTIVATION_GELU_10 },
        { "quick_gelu", CINF_ACTIVATION_QUICK_GELU },
        { "mish", CINF_ACTIVATION_MISH },
        { "relu2", CINF_ACTIVATION_RELU2 },
        { "relu6", CINF_ACTIVATION_RELU6 },
        { "sigmoid", CINF_ACTIVATION_SIGMOID },
        { "leaky_relu", CINF_ACTIVATION_LEAKY_RELU },
        { "linear", CINF_ACTIVATION_LINEAR },
        { "laplace", CINF_ACTIVATION_LAPLACE },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[100];
        snprintf(text, sizeof text, "{\"activation_function\":\"%s\"}", cases[i].name);
        ck_assert_int_eq(good(text, NULL).activation, cases[i].activation);
        /* The name that is shown is one that reads back. */
        snprintf(text, sizeof text, "{\"activation_function\":\"%s\"}",
                 cinf_activation_name(cases[i].activation));
        ck_assert_int_eq(good(text, NULL).activation, cases[i].activation);
    }
    bad("{\"activation_function\":\"gelu_11\"}", NULL, CINF_EUNSUPPORTED, "\"gelu_11\" is not supported");
    bad("{\"activation_function\":1}", NULL, CINF_EFORMAT, "must be a string");
    ck_assert_str_eq(cinf_activation_name(CINF_ACTIVATION_GELU_NEW), "gelu_new");
    ck_assert_str_eq(cinf_activation_name(CINF_ACTIVATION_GELU), "gelu");
    ck_assert_str_eq(cinf_activation_name(CINF_ACTIVATION_RELU), "relu");
    ck_assert_str_eq(cinf_activation_name(CINF_ACTIVATION_SILU), "silu");
    ck_assert_str_eq(cinf_activation_name(CINF_ACTIVATION_TANH), "tanh");
    ck_assert_str_eq(cinf_activation_name((enum cinf_activation)99), "unknown");
}
END_TEST

START_TEST(other_models)
{
    bad("{\"model_type\":\"llama\"}", NULL, CINF_EUNSUPPORTED, "\"model_type\" is \"llama\"");
    bad("{\"model_type\":\"evil\\n\\u001b\"}", NULL, CINF_EUNSUPPORTED, "\"evil?\?\"");
    bad("{\"add_cross_attention\":true}", NULL, CINF_EUNSUPPORTED, "add_cross_attention");
    bad("{\"add_cross_attention\":1}", NULL, CINF_EFORMAT, "must be true or false");
    bad("{\"n_embd\":768,\"n_head\":11}", NULL, CINF_EFORMAT,
        "\"n_embd\" 768 is not a multiple of \"n_head\" 11");
}
END_TEST

START_TEST(sizes_have_bounds)
{
    static const struct {
        const char *key;
        double most;
    } keys[] = { { "vocab_size", 16777216 }, { "n_positions", 1048576 }, { "n_embd", 65536 },
                 { "n_layer", 1024 },        { "n_inner", 1048576 },     { "n_head", 65536 } };
    static const char *const values[] = { "0",    "-1",     "1.5", "1e300",
                                          "true", "\"12\"", "[1]", "9007199254740993" };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        char text[100];
        for (size_t j = 0; j < sizeof values / sizeof *values; j++) {
            snprintf(text, sizeof text, "{\"%s\":%s}", keys[i].key, values[j]);
            bad(text, NULL, CINF_EFORMAT, keys[i].key);
        }
        snprintf(text, sizeof text, "{\"%s\":%.0f}", keys[i].key, keys[i].most + 1);
        bad(text, NULL, CINF_EFORMAT, "must be an integer from 1 to");
        if (strcmp(keys[i].key, "n_head") != 0 && strcmp(keys[i].key, "n_embd") != 0) {
            snprintf(text, sizeof text, "{\"%s\":%.0f}", keys[i].key, keys[i].most);
            good(text, NULL);
        }
    }
    good("{\"n_embd\":65536,\"n_head\":65536}", NULL);
    good("{\"n_layer\":1,\"n_embd\":1,\"n_head\":1,\"n_positions\":1,\"vocab_size\":1,\"n_inner\":1}", NULL);
    bad("{\"layer_norm_epsilon\":0}", NULL, CINF_EFORMAT, "layer_norm_epsilon");
    bad("{\"layer_norm_epsilon\":-1e-5}", NULL, CINF_EFORMAT, "layer_norm_epsilon");
    bad("{\"layer_norm_epsilon\":2}", NULL, CINF_EFORMAT, "layer_norm_epsilon");
    bad("{\"layer_norm_epsilon\":\"1e-5\"}", NULL, CINF_EFORMAT, "layer_norm_epsilon");
}
END_TEST

START_TEST(end_tokens)
{
    struct cinf_config c = good("{\"eos_token_id\":[5,6,5]}", NULL);
    ck_assert_uint_eq(c.n_eos, 3);
    ck_assert_int_eq(c.eos[1], 6);
    c = good("{\"eos_token_id\":[]}", NULL);
    ck_assert_uint_eq(c.n_eos, 0);
    c = good("{\"eos_token_id\":null,\"bos_token_id\":null}", NULL);
    ck_assert_uint_eq(c.n_eos, 0);
    ck_assert_int_eq(c.bos, -1);
    c = good("{\"eos_token_id\":-1,\"bos_token_id\":-1}", NULL);
    ck_assert_uint_eq(c.n_eos, 0);
    ck_assert_int_eq(c.bos, -1);
    /* A vocabulary that lacks the default token, or a named one. */
    c = good("{\"vocab_size\":50256}", NULL);
    ck_assert_uint_eq(c.n_eos, 0);
    ck_assert_int_eq(c.bos, -1);
    c = good("{\"vocab_size\":10,\"eos_token_id\":[10,9,2000000000],\"bos_token_id\":10}", NULL);
    ck_assert_uint_eq(c.n_eos, 1);
    ck_assert_int_eq(c.eos[0], 9);
    ck_assert_int_eq(c.bos, -1);
    c = good("{\"eos_token_id\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]}", NULL);
    ck_assert_uint_eq(c.n_eos, 16);
    bad("{\"eos_token_id\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]}", NULL, CINF_EUNSUPPORTED,
        "more than 16");
    bad("{\"eos_token_id\":\"</s>\"}", NULL, CINF_EFORMAT, "neither a token nor a list");
    bad("{\"eos_token_id\":[1,null]}", NULL, CINF_EFORMAT, "neither a token nor a list");
    bad("{\"eos_token_id\":1.5}", NULL, CINF_EFORMAT, "neither a token nor a list");
    bad("{\"eos_token_id\":-2}", NULL, CINF_EFORMAT, "neither a token nor a list");
    bad("{\"eos_token_id\":2147483648}", NULL, CINF_EFORMAT, "neither a token nor a list");
    bad("{\"bos_token_id\":[1]}", NULL, CINF_EFORMAT, "bos_token_id");
}
END_TEST

START_TEST(generation_config_goes_first)
{
    struct cinf_config c =
        good("{\"eos_token_id\":5,\"bos_token_id\":6}", "{\"eos_token_id\":[7,8],\"bos_token_id\":9}");
    ck_assert_uint_eq(c.n_eos, 2);
    ck_assert_int_eq(c.eos[0], 7);
    ck_assert_int_eq(c.eos[1], 8);
    ck_assert_int_eq(c.bos, 9);
    c = good("{\"eos_token_id\":5,\"bos_token_id\":6}", "{\"eos_token_id\":null,\"do_sample\":true}");
    ck_assert_uint_eq(c.n_eos, 1);
    ck_assert_int_eq(c.eos[0], 5);
    ck_assert_int_eq(c.bos, 6);
    bad("{}", "{\"eos_token_id\":\"x\"}", CINF_EFORMAT, "neither a token nor a list");
}
END_TEST

/* The notes of a folder with these two files hold `words`; "" stands for no note. */
static void expect_notes(const char *generation, const char *words)
{
    struct cinf_config c;
    char notes[CINF_CONFIG_NOTES_MAX];
    support_write(folder, "config.json", "{\"eos_token_id\":5}", -1);
    support_write(folder, "generation_config.json", generation, -1);
    ck_ok(cinf_config_read_with_notes(&c, notes, folder));
    ck_assert_int_eq(c.eos[0], 5);
    if (words[0])
        ck_assert_msg(strstr(notes, words) && strstr(notes, "/generation_config.json: ") &&
                          notes[strlen(notes) - 1] == '\n',
                      "the notes \"%s\" lack \"%s\"", notes, words);
    else
        ck_assert_str_eq(notes, "");
}

/* As transformers does: a file that is not JSON does not stop a model from loading. */
START_TEST(a_broken_generation_config_is_noted)
{
    expect_notes("{}", "");
    expect_notes("\xEF\xBB\xBF{\"top_p\":Infinity}", "");
    expect_notes("", "JSON: unexpected end");
    expect_notes("{", "JSON: ");
    expect_notes("[]", "is not a JSON object");
    expect_notes("version https://git-lfs.github.com/spec/v1", "JSON: ");
    expect_notes("{\"eos_token_id\":1,\"eos_token_id\":2}", "duplicate key");
}
END_TEST

START_TEST(broken_links_are_named)
{
    static const char *const names[] = { "generation_config.json", "config.json" };
    struct cinf_config c;
    char path[256], words[256];
    support_write(folder, "config.json", "{}", -1);
    for (size_t i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        snprintf(words, sizeof words, "/%s: is a link to ../../blobs/9, which does not exist", names[i]);
        unlink(path);
        ck_assert_int_eq(symlink("../../blobs/9", path), 0);
        ck_fails(cinf_config_read(&c, folder), CINF_EIO, words);
        unlink(path);
    }
    /* The root of a cached model. */
    snprintf(path, sizeof path, "%s/snapshots", folder);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    snprintf(path, sizeof path, "%s/snapshots/abc", folder);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    ck_fails(cinf_config_read(&c, folder), CINF_ENOTFOUND, "/config.json: ");
    ck_fails(cinf_config_read(&c, folder), CINF_ENOTFOUND, "a model is in ");
    ck_fails(cinf_config_read(&c, folder), CINF_ENOTFOUND, "/snapshots/abc");
}
END_TEST

START_TEST(numbers_of_python)
{
    struct cinf_config c =
        good("\xEF\xBB\xBF{\"n_layer\":3,\"initializer_range\":NaN,\"x\":[Infinity,-Infinity]}", NULL);
    ck_assert_uint_eq(c.n_layer, 3);
    bad("{\"n_layer\":Infinity}", NULL, CINF_EFORMAT, "\"n_layer\" must be an integer");
    bad("{\"layer_norm_epsilon\":NaN}", NULL, CINF_EFORMAT, "\"layer_norm_epsilon\" must be a number");
    bad("{\"eos_token_id\":Infinity}", NULL, CINF_EFORMAT, "neither a token nor a list");
}
END_TEST

START_TEST(files_that_are_no_config)
{
    struct cinf_config c;
    ck_fails(cinf_config_read(&c, "/nonexistent"), CINF_ENOTFOUND, "/nonexistent/config.json");
    bad("", NULL, CINF_EFORMAT, "JSON");
    bad("[]", NULL, CINF_EFORMAT, "is not a JSON object");
    bad("{\"n_layer\":2,\"n_layer\":3}", NULL, CINF_EFORMAT, "duplicate key");
    bad("{\"a\\nb\":2,\"a\\nb\":3}", NULL, CINF_EFORMAT, "duplicate key \"a?b\"");
    bad("version https://git-lfs.github.com/spec/v1", NULL, CINF_EFORMAT, "JSON");
    char *big = mem_new((1 << 20) + 2, 1);
    memset(big, ' ', (1 << 20) + 1);
    memcpy(big, "{}", 2);
    bad(big, NULL, CINF_EFORMAT, "more than the 1048576 allowed");
    mem_free(big);
}
END_TEST

START_TEST(published_shapes)
{
    static const struct {
        const char *name;
        uint32_t n_layer, n_embd, n_head;
    } shapes[] = { { "distilgpt2", 6, 768, 12 },
                   { "gpt2", 12, 768, 12 },
                   { "gpt2-medium", 24, 1024, 16 },
                   { "gpt2-large", 36, 1280, 20 },
                   { "gpt2-xl", 48, 1600, 25 } };
    static const uint64_t parameters[] = { 81912576, 124439808, 354823168, 774030080, 1557611200 };
    for (size_t i = 0; i < 5; i++) {
        struct cinf_config c;
        ck_ok(cinf_config_named(&c, shapes[i].name));
        ck_assert_uint_eq(c.n_layer, shapes[i].n_layer);
        ck_assert_uint_eq(c.n_embd, shapes[i].n_embd);
        ck_assert_uint_eq(c.n_head, shapes[i].n_head);
        uint64_t d = c.n_embd, inner = c.n_inner;
        ck_assert_uint_eq((c.vocab_size + c.n_positions) * d + 2 * d +
                              c.n_layer * (4 * d + d * 3 * d + 3 * d + d * d + d + 2 * d * inner + inner + d),
                          parameters[i]);
    }
    struct cinf_config c, before;
    memset(&c, 0xEE, sizeof c);
    before = c;
    ck_fails(cinf_config_named(&c, "gpt3"), CINF_ENOTFOUND, "\"gpt3\"");
    ck_fails(cinf_config_named(&c, ""), CINF_ENOTFOUND, "\"\"");
    ck_assert_mem_eq(&c, &before, sizeof c);
    ck_ok(cinf_config_named(&c, "gpt2"));
    check_gpt2(c);
}
END_TEST

START_TEST(allocation_failures)
{
    support_write(folder, "config.json", "{\"n_layer\":2,\"n_head\":4}", -1);
    support_write(folder, "generation_config.json", "{\"eos_token_id\":[1,2]}", -1);
    for (uint64_t n = 1;; n++) {
        struct cinf_config c = { .n_layer = 99 };
        mem_fail_at(n);
        enum cinf_status status = cinf_config_read(&c, folder);
        bool hit = mem_fail_hit();
        mem_fail_at(0);
        if (!hit) {
            ck_ok(status);
            ck_assert_uint_gt(n, 4);
            return;
        }
        ck_assert_int_eq(status, CINF_ENOMEM);
        ck_assert_uint_eq(c.n_layer, 99);
    }
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("config");
    TCase *t = tcase_create("config");
    tcase_add_checked_fixture(t, setup, NULL);
    tcase_add_test(t, absent_means_default);
    tcase_add_test(t, every_key);
    tcase_add_test(t, aliases);
    tcase_add_test(t, activations);
    tcase_add_test(t, other_models);
    tcase_add_test(t, sizes_have_bounds);
    tcase_add_test(t, end_tokens);
    tcase_add_test(t, generation_config_goes_first);
    tcase_add_test(t, a_broken_generation_config_is_noted);
    tcase_add_test(t, broken_links_are_named);
    tcase_add_test(t, numbers_of_python);
    tcase_add_test(t, files_that_are_no_config);
    tcase_add_test(t, published_shapes);
    tcase_add_test(t, allocation_failures);
    suite_add_tcase(s, t);
    return s;
}
