#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checkpoint_builder.h"
#include "file.h"
#include "json.h"
#include "mem.h"

#define GOLDEN "tests/golden/checkpoints/"

static const struct {
    const char *path, *format;
} goldens[] = {
    { GOLDEN "aligned.safetensors", "safetensors" },
    { GOLDEN "odd.safetensors", "safetensors" },
    { GOLDEN "sharded-safetensors", "safetensors, 3 shards" },
    { GOLDEN "sharded-safetensors/model.safetensors.index.json", "safetensors, 3 shards" },
    { GOLDEN "zip.bin", "pytorch zip" },
    { GOLDEN "legacy.bin", "pytorch legacy" },
    { GOLDEN "sharded-bin", "pytorch zip, 3 shards" },
    { GOLDEN "sharded-bin/pytorch_model.bin.index.json", "pytorch zip, 3 shards" },
    { GOLDEN "training.bin", "pytorch zip" },
    { GOLDEN "lightning.bin", "pytorch zip" },
    { GOLDEN "deepspeed.bin", "pytorch zip" },
};

static char *folder;

static void setup(void)
{
    folder = support_temp_folder();
}

static void load_text(char **text, size_t *n, const char *path)
{
    ck_ok(file_load(text, n, path, 1 << 20));
}

static unsigned nibble(char c)
{
    return (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10);
}

/* The tensor against its entry in expected.json: everything, and every range of the small ones. */
static void compare(const struct cinf_checkpoint *c, const struct cinf_tensor *t, const cJSON *expected)
{
    const char *hex = json_member(expected, "elements")->valuestring;
    size_t n_bytes = strlen(hex) / 2, d = 0;
    unsigned char want[1024], got[1025];
    const cJSON *dim;
    ck_assert_uint_le(n_bytes, sizeof want);
    for (size_t i = 0; i < n_bytes; i++)
        want[i] = (unsigned char)(nibble(hex[2 * i]) << 4 | nibble(hex[2 * i + 1]));
    ck_assert_str_eq(t->dtype_name, json_member(expected, "dtype")->valuestring);
    ck_assert_uint_eq(t->n_bytes, n_bytes);
    cJSON_ArrayForEach(dim, json_member(expected, "shape"))
    {
        ck_assert_uint_lt(d, t->n_dims);
        ck_assert_uint_eq(t->dims[d++], (uint64_t)dim->valuedouble);
    }
    ck_assert_uint_eq(t->n_dims, d);
    if (t->dtype == CINF_DTYPE_OTHER) {
        ck_fails(cinf_checkpoint_read(c, t, 0, t->n_elements, got), CINF_EUNSUPPORTED, t->name);
        return;
    }
    size_t width = t->n_elements ? n_bytes / t->n_elements : 1;
    for (uint64_t first = 0; first <= t->n_elements; first += t->n_elements > 30 ? 7 : 1)
        for (uint64_t n = 0; n <= t->n_elements - first; n++) {
            memset(got, 0xEE, sizeof got);
            ck_ok(cinf_checkpoint_read(c, t, first, n, got));
            ck_assert_mem_eq(got, want + first * width, n * width);
            ck_assert_uint_eq(got[n * width], 0xEE);
        }
}

START_TEST(goldens_are_read_as_torch_reads_them)
{
    char *text;
    size_t n;
    cJSON *tree;
    load_text(&text, &n, support_source(GOLDEN "expected.json"));
    ck_ok(json_parse(&tree, text, n, NULL));
    mem_free(text);
    struct cinf_checkpoint *c = NULL;
    ck_ok(cinf_checkpoint_open(&c, support_source(goldens[_i].path)));
    ck_assert_str_eq(cinf_checkpoint_format(c), goldens[_i].format);
    ck_assert_uint_eq(cinf_checkpoint_count(c), (unsigned)cJSON_GetArraySize(tree));
    for (uint32_t i = 0; i < cinf_checkpoint_count(c); i++) {
        const struct cinf_tensor *t = cinf_checkpoint_tensor(c, i);
        if (i > 0)
            ck_assert_int_lt(strcmp(cinf_checkpoint_tensor(c, i - 1)->name, t->name), 0);
        ck_assert_ptr_eq(cinf_checkpoint_find(c, t->name), t);
        ck_assert_ptr_nonnull(json_member(tree, t->name));
        compare(c, t, json_member(tree, t->name));
    }
    ck_assert_ptr_null(cinf_checkpoint_find(c, "absent"));
    ck_assert_ptr_null(cinf_checkpoint_tensor(c, cinf_checkpoint_count(c)));
    cinf_checkpoint_free(c);
    cJSON_Delete(tree);
}
END_TEST

START_TEST(other_pickles_are_refused)
{
    struct cinf_checkpoint *c = NULL;
    static const struct {
        const char *path, *words;
        enum cinf_status status;
    } cases[] = {
        { GOLDEN "no-state.bin", "\"epoch\" is an integer, not a tensor", CINF_EFORMAT },
        { GOLDEN "training-legacy.bin", "torch.save(c[\"model\"], \"pytorch_model.bin\")",
          CINF_EUNSUPPORTED },
        { GOLDEN "nanogpt.bin", "nanoGPT's, whose matrices are transposed; in Python: import json, torch; ",
          CINF_EUNSUPPORTED },
        { GOLDEN "nanogpt.bin", "open(\"config.json\", \"w\"))",
          CINF_EUNSUPPORTED }, /* the message is whole */
        { GOLDEN "nanogpt-bare.bin", "nanoGPT's, whose matrices are transposed", CINF_EUNSUPPORTED },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        ck_fails(cinf_checkpoint_open(&c, support_source(cases[i].path)), cases[i].status, cases[i].words);
    ck_fails(cinf_checkpoint_open(&c, support_source(GOLDEN "protocol4.bin")), CINF_EUNSUPPORTED,
             "protocol 4");
    ck_assert_ptr_null(c);
}
END_TEST

/* The single-file goldens. */
static const char *const files[] = { GOLDEN "aligned.safetensors",
                                     GOLDEN "sharded-bin/pytorch_model-00002-of-00003.bin",
                                     GOLDEN "legacy.bin" };

static void load_blob(struct blob *b, const char *path)
{
    char *text;
    load_text(&text, &b->n, path);
    memcpy(b->bytes, text, b->n);
    mem_free(text);
}

/* A copy of the file to damage, made once: writing it anew for each byte would take most of the time. */
static int copy_file(char path[4096], struct blob *b, const char *golden)
{
    load_blob(b, support_source(golden));
    snprintf(path, 4096, "%s", support_write(folder, strrchr(golden, '/') + 1, b->bytes, (long)b->n));
    int fd = open(path, O_RDWR);
    ck_assert_int_ge(fd, 0);
    return fd;
}

START_TEST(every_truncation_is_refused)
{
    static struct blob b;
    char path[4096];
    int fd = copy_file(path, &b, files[_i]);
    while (b.n-- > 0) {
        struct cinf_checkpoint *c = NULL;
        ck_assert_int_eq(ftruncate(fd, (off_t)b.n), 0);
        enum cinf_status status = cinf_checkpoint_open(&c, path);
        ck_assert_msg(status == CINF_EFORMAT, "%zu bytes: %s", b.n, status ? cinf_last_error() : "accepted");
        ck_assert_ptr_null(c);
        ck_assert(support_contains(cinf_last_error(), path));
    }
    close(fd);
}
END_TEST

/* Damage gives a status or other numbers, never a crash or a read outside. */
START_TEST(every_damaged_byte_is_survived)
{
    static struct blob b;
    static const unsigned char masks[] = { 0x01, 0x80, 0xFF };
    char path[4096];
    int fd = copy_file(path, &b, files[_i]);
    for (size_t i = 0; i < b.n; i++) {
        struct cinf_checkpoint *c = NULL;
        unsigned char damaged = b.bytes[i] ^ masks[i % 3];
        ck_assert_int_eq(pwrite(fd, &damaged, 1, (off_t)i), 1);
        if (cinf_checkpoint_open(&c, path) == CINF_OK)
            read_everything(c);
        cinf_checkpoint_free(c);
        ck_assert_int_eq(pwrite(fd, &b.bytes[i], 1, (off_t)i), 1);
    }
    close(fd);
}
END_TEST

static bool equal(const struct cinf_checkpoint *a, const struct cinf_checkpoint *b)
{
    static unsigned char x[4096], y[4096];
    if (cinf_checkpoint_count(a) != cinf_checkpoint_count(b))
        return false;
    for (uint32_t i = 0; i < cinf_checkpoint_count(a); i++) {
        const struct cinf_tensor *t = cinf_checkpoint_tensor(a, i), *u = cinf_checkpoint_tensor(b, i);
        if (strcmp(t->name, u->name) != 0 || t->dtype != u->dtype || t->n_dims != u->n_dims ||
            memcmp(t->dims, u->dims, sizeof t->dims) != 0)
            return false;
        if (t->dtype == CINF_DTYPE_OTHER)
            continue;
        ck_assert_uint_le(t->n_bytes, sizeof x);
        ck_ok(cinf_checkpoint_read(a, t, 0, t->n_elements, x));
        ck_ok(cinf_checkpoint_read(b, u, 0, u->n_elements, y));
        if (memcmp(x, y, t->n_bytes) != 0)
            return false;
    }
    return true;
}

/* torch.save() wrote a checksum for each entry: what opens in spite of damage (to padding, dates …) is what
 * was written. */
START_TEST(a_damaged_archive_is_refused_or_unchanged)
{
    static const char golden[] = GOLDEN "zip.bin";
    static struct blob b;
    struct cinf_checkpoint *original;
    unsigned refused = 0;
    char path[4096];
    int fd = copy_file(path, &b, golden);
    ck_ok(cinf_checkpoint_open(&original, support_source(golden)));
    for (size_t i = 0; i < b.n; i++) {
        struct cinf_checkpoint *c = NULL;
        unsigned char damaged = b.bytes[i] ^ (unsigned char)(1u << i % 8);
        ck_assert_int_eq(pwrite(fd, &damaged, 1, (off_t)i), 1);
        if (cinf_checkpoint_open(&c, path) == CINF_OK)
            ck_assert_msg(equal(original, c), "byte %zu", i);
        else if (support_contains(cinf_last_error(), "is damaged: the archive's checksum is of other bytes"))
            refused++;
        cinf_checkpoint_free(c);
        ck_assert_int_eq(pwrite(fd, &b.bytes[i], 1, (off_t)i), 1);
    }
    /* The bytes of data.pkl and of 16 storages, and four bytes of checksum for each; and what moves an entry.
     */
    ck_assert_uint_ge(refused, 1648 + 817 + 4 * 17);
    cinf_checkpoint_free(original);
    close(fd);
}
END_TEST

START_TEST(allocation_failures)
{
    char path[4096];
    snprintf(path, sizeof path, "%s", support_source(goldens[_i].path));
    for (uint64_t n = 1;; n++) {
        struct cinf_checkpoint *c = NULL;
        mem_fail_at(n);
        enum cinf_status status = cinf_checkpoint_open(&c, path);
        if (status == CINF_OK)
            read_everything(c);
        bool hit = mem_fail_hit();
        mem_fail_at(0);
        ck_assert_int_eq(status, hit ? CINF_ENOMEM : CINF_OK);
        ck_assert(hit == (c == NULL));
        cinf_checkpoint_free(c);
        if (!hit) {
            ck_assert_uint_gt(n, 10);
            return;
        }
    }
}
END_TEST

static int open_files(void)
{
    int n = 0;
    for (int fd = 0; fd < 256; fd++)
        n += fcntl(fd, F_GETFD) != -1;
    return n;
}

START_TEST(no_file_stays_open)
{
    int before = open_files();
    struct cinf_checkpoint *c = NULL;
    ck_ok(cinf_checkpoint_open(&c, support_source(GOLDEN "sharded-bin")));
    ck_assert_int_eq(open_files(), before + 3);
    cinf_checkpoint_free(c);
    c = NULL;
    ck_fails(cinf_checkpoint_open(&c, support_source(GOLDEN "no-state.bin")), CINF_EFORMAT, "epoch");
    ck_assert_int_eq(open_files(), before);
    cinf_checkpoint_free(NULL);
}
END_TEST

START_TEST(a_file_that_shrinks_is_a_status)
{
    static struct blob b;
    float numbers[16];
    struct cinf_checkpoint *c = NULL;
    build_safetensors(&b, "{\"a\":{\"dtype\":\"F32\",\"shape\":[16],\"data_offsets\":[0,64]}}", 64);
    char path[4096];
    snprintf(path, sizeof path, "%s", support_write(folder, "a.safetensors", b.bytes, (long)b.n));
    ck_ok(cinf_checkpoint_open(&c, path));
    ck_assert_int_eq(truncate(path, (off_t)b.n - 8), 0);
    ck_fails(cinf_checkpoint_read(c, cinf_checkpoint_tensor(c, 0), 0, 16, numbers), CINF_EIO, "8 more bytes");
    cinf_checkpoint_free(c);
}
END_TEST

/* ---- what a path means --------------------------------------------------------------------------- */

#define ONE_TENSOR(name) "{\"" name "\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[0,2]}}"

static void write_one(const char *name, const char *header)
{
    static struct blob b;
    build_safetensors(&b, header, 2);
    support_write(folder, name, b.bytes, (long)b.n);
}

static void write_golden(const char *name, const char *golden)
{
    static struct blob b;
    load_blob(&b, support_source(golden));
    support_write(folder, name, b.bytes, (long)b.n);
}

static void has_format(const char *path, const char *format)
{
    struct cinf_checkpoint *c = NULL;
    ck_ok(cinf_checkpoint_open(&c, path));
    ck_assert_str_eq(cinf_checkpoint_format(c), format);
    cinf_checkpoint_free(c);
}

static void fails(const char *path, enum cinf_status status, const char *words)
{
    struct cinf_checkpoint *c = NULL;
    ck_fails(cinf_checkpoint_open(&c, path), status, words);
    ck_assert_ptr_null(c);
}

START_TEST(a_folder_prefers_safetensors)
{
    fails(folder, CINF_ENOTFOUND, "holds neither model.safetensors nor pytorch_model.bin");
    support_write(folder, "tf_model.h5", "", 0);
    fails(folder, CINF_ENOTFOUND, "holds tf_model.h5, but neither model.safetensors");
    support_write(folder, "ckpt.pt", "", 0);
    char path[4096];
    snprintf(path, sizeof path, "%s/tf_model.h5", folder);
    ck_assert_int_eq(unlink(path), 0);
    fails(folder, CINF_ENOTFOUND, "holds ckpt.pt, but neither");
    fails(folder, CINF_ENOTFOUND, "nanoGPT's, whose matrices are transposed; in Python: ");
    fails(folder, CINF_ENOTFOUND, "open(\"config.json\", \"w\"))");
    support_write(folder, "pytorch_model.bin.index.json", "{}", -1);
    fails(folder, CINF_EFORMAT, "pytorch_model.bin.index.json: has no object \"weight_map\"");
    write_golden("pytorch_model.bin", GOLDEN "legacy.bin");
    has_format(folder, "pytorch legacy");
    support_write(folder, "model.safetensors.index.json", "{\"weight_map\":{\"a\":\"m-1.safetensors\"}}", -1);
    write_one("m-1.safetensors", ONE_TENSOR("a"));
    has_format(folder, "safetensors, 1 shard");
    write_one("model.safetensors", ONE_TENSOR("a"));
    has_format(folder, "safetensors");
    snprintf(path, sizeof path, "%s/", folder);
    has_format(path, "safetensors");
}
END_TEST

START_TEST(broken_links_are_named)
{
    static const char *const names[] = { "model.safetensors", "model.safetensors.index.json",
                                         "pytorch_model.bin", "pytorch_model.bin.index.json" };
    char path[4096], words[256];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        snprintf(words, sizeof words, "/%s: is a link to ../../blobs/7, which does not exist", names[i]);
        ck_assert_int_eq(symlink("../../blobs/7", path), 0);
        /* Also where a file that would be taken next is whole. */
        if (i < 3)
            write_golden(i < 2 ? "pytorch_model.bin" : "unused.bin", GOLDEN "zip.bin");
        fails(folder, CINF_EIO, words);
        ck_assert_int_eq(unlink(path), 0);
        snprintf(path, sizeof path, "%s/pytorch_model.bin", folder);
        unlink(path);
    }
    support_write(folder, "model.safetensors.index.json",
                  "\xEF\xBB\xBF{\"weight_map\":{\"a\":\"m-1.safetensors\"}}", -1);
    snprintf(path, sizeof path, "%s/m-1.safetensors", folder);
    ck_assert_int_eq(symlink("gone", path), 0);
    fails(folder, CINF_EIO, "/m-1.safetensors: is a link to gone, which does not exist");
    ck_assert_int_eq(unlink(path), 0);
    fails(folder, CINF_ENOTFOUND, "/m-1.safetensors: ");
}
END_TEST

START_TEST(roots_of_a_cache_lead_to_the_model)
{
    char path[4096];
    static const char *const below[] = { "snapshots", "snapshots/12ab", "refs" };
    for (size_t i = 0; i < sizeof below / sizeof *below; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, below[i]);
        ck_assert_int_eq(mkdir(path, 0700), 0);
    }
    support_write(folder, "refs/main", "12ab", -1);
    fails(folder, CINF_ENOTFOUND, "holds neither model.safetensors");
    fails(folder, CINF_ENOTFOUND, "it is a cache of downloads, and a model is in");
    fails(folder, CINF_ENOTFOUND, "/snapshots/12ab");
}
END_TEST

START_TEST(single_files)
{
    char path[4096];
    fails("/nonexistent/model.safetensors", CINF_ENOTFOUND, "/nonexistent/model.safetensors");
    fails("/nonexistent", CINF_ENOTFOUND, "/nonexistent");
    fails("", CINF_ENOTFOUND, "");
    /* Another name: the content decides. */
    write_one("blob", ONE_TENSOR("a"));
    snprintf(path, sizeof path, "%s/blob", folder);
    has_format(path, "safetensors");
    write_golden("blob", GOLDEN "zip.bin");
    has_format(path, "pytorch zip");
    write_golden("blob", GOLDEN "legacy.bin");
    has_format(path, "pytorch legacy");
    support_write(folder, "blob", "GGUF\3\0\0\0", 8);
    fails(path, CINF_EFORMAT, "blob: is a GGUF file, not a checkpoint");
    support_write(folder, "blob", "text", -1);
    fails(path, CINF_EFORMAT, "unknown kind");
    /* A wrong name is a mistake to tell. */
    write_golden("blob.safetensors", GOLDEN "zip.bin");
    snprintf(path, sizeof path, "%s/blob.safetensors", folder);
    fails(path, CINF_EFORMAT,
          "blob.safetensors: is a zip archive (newer PyTorch checkpoints are such), not safetensors");
    write_golden("blob.safetensors", GOLDEN "legacy.bin");
    fails(path, CINF_EFORMAT, "is a legacy PyTorch checkpoint, not safetensors");
    write_one("blob.bin", ONE_TENSOR("a"));
    snprintf(path, sizeof path, "%s/blob.bin", folder);
    fails(path, CINF_EFORMAT, "blob.bin: is a safetensors file, not a PyTorch checkpoint");
    snprintf(path, sizeof path, "%s/pipe.safetensors", folder);
    ck_assert_int_eq(mkfifo(path, 0600), 0);
    fails(path, CINF_EINVAL, "not a file");
}
END_TEST

/* ---- shards --------------------------------------------------------------------------------------- */

static void index_fails(const char *index, const char *words)
{
    support_write(folder, "model.safetensors.index.json", index, -1);
    fails(folder, CINF_EFORMAT, words);
    ck_assert(support_contains(cinf_last_error(), "/"));
}

START_TEST(indexes)
{
    write_one("a.safetensors", ONE_TENSOR("a"));
    write_one("b.safetensors", ONE_TENSOR("b"));
    support_write(folder, "model.safetensors.index.json",
                  "{\"weight_map\":{\"a\":\"a.safetensors\",\"b\":\"b.safetensors\"}}", -1);
    has_format(folder, "safetensors, 2 shards");

    index_fails("{", "JSON");
    index_fails("[]", "no object \"weight_map\"");
    index_fails("{\"weight_map\":null}", "no object \"weight_map\"");
    index_fails("{\"weight_map\":[]}", "no object \"weight_map\"");
    index_fails("{\"weight_map\":{}}", "names 0 files");
    index_fails("{\"weight_map\":{\"a\":1}}", "tensor \"a\": its file is not a name");
    index_fails("{\"weight_map\":{\"a\":\"a.safetensors\",\"a\":\"b.safetensors\"}}", "duplicate key");
    index_fails("{\"weight_map\":{\"c\":\"a.safetensors\"}}",
                "tensor \"c\": is not in a.safetensors, nor in another");
    index_fails("{\"weight_map\":{\"a\":\"b.safetensors\",\"b\":\"a.safetensors\"}}",
                "tensor \"a\": is not in b.safetensors, but in ");
    index_fails("{\"weight_map\":{\"a\":\"a.bin\"}}", "is not a .safetensors file");
    support_write(folder, "model.safetensors.index.json", "{\"weight_map\":{\"a\":\"absent.safetensors\"}}",
                  -1);
    fails(folder, CINF_ENOTFOUND, "absent.safetensors");
}
END_TEST

START_TEST(shard_names_are_plain)
{
    static const char *const names[] = { "../a.safetensors",
                                         "/etc/a.safetensors",
                                         "sub/a.safetensors",
                                         "..",
                                         "sub\\\\a.safetensors",
                                         ".safetensors",
                                         "",
                                         "a\\n.safetensors",
                                         "a\\u007f.safetensors" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char index[256];
        snprintf(index, sizeof index, "{\"weight_map\":{\"a\":\"%s\"}}", names[i]);
        index_fails(index, "is not the plain name of a file beside it");
    }
    char index[400];
    snprintf(index, sizeof index, "{\"weight_map\":{\"a\":\"%0250d.safetensors\"}}", 1);
    index_fails(index, "is not the plain name");
}
END_TEST

START_TEST(tensors_twice_across_shards)
{
    write_one("a.safetensors", ONE_TENSOR("x"));
    write_one("b.safetensors", "{\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
                               "\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}");
    index_fails("{\"weight_map\":{\"x\":\"a.safetensors\",\"b\":\"b.safetensors\"}}",
                "tensor \"x\": occurs a second time, in ");
}
END_TEST

START_TEST(too_many_shards)
{
    static char index[20000] = "{\"weight_map\":{\"t0\":\"0.safetensors\"";
    size_t n = strlen(index);
    for (int i = 1; i <= 256; i++)
        n += (size_t)snprintf(index + n, sizeof index - n, ",\"t%d\":\"%d.safetensors\"", i, i);
    snprintf(index + n, sizeof index - n, "}}");
    index_fails(index, "names 257 files, not 1 to 256");
}
END_TEST

START_TEST(mixed_torch_shards)
{
    write_golden("x-1.bin", GOLDEN "sharded-bin/pytorch_model-00001-of-00003.bin");
    write_golden("x-2.bin", GOLDEN "legacy.bin");
    support_write(folder, "pytorch_model.bin.index.json",
                  "{\"weight_map\":{\"f32\":\"x-1.bin\",\"f16\":\"x-2.bin\"}}", -1);
    fails(folder, CINF_EFORMAT, "occurs a second time");
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("checkpoint");
    TCase *t = tcase_create("checkpoint");
    int n_goldens = sizeof goldens / sizeof *goldens, n_files = sizeof files / sizeof *files;
    tcase_add_checked_fixture(t, setup, NULL);
    tcase_set_timeout(t, 30);
    tcase_add_loop_test(t, goldens_are_read_as_torch_reads_them, 0, n_goldens);
    tcase_add_test(t, other_pickles_are_refused);
    tcase_add_loop_test(t, every_truncation_is_refused, 0, n_files);
    tcase_add_loop_test(t, every_damaged_byte_is_survived, 0, n_files);
    tcase_add_test(t, a_damaged_archive_is_refused_or_unchanged);
    tcase_add_loop_test(t, allocation_failures, 0, n_goldens);
    tcase_add_test(t, no_file_stays_open);
    tcase_add_test(t, a_file_that_shrinks_is_a_status);
    tcase_add_test(t, a_folder_prefers_safetensors);
    tcase_add_test(t, broken_links_are_named);
    tcase_add_test(t, roots_of_a_cache_lead_to_the_model);
    tcase_add_test(t, single_files);
    tcase_add_test(t, indexes);
    tcase_add_test(t, shard_names_are_plain);
    tcase_add_test(t, tensors_twice_across_shards);
    tcase_add_test(t, too_many_shards);
    tcase_add_test(t, mixed_torch_shards);
    suite_add_tcase(s, t);
    return s;
}
