#include <stdio.h>

#include "checkpoint_builder.h"

#define ZIP    "pytorch_model.bin"
#define LEGACY "legacy.bin"

static struct blob b, pickle;
static struct zip_places z;

struct view {
    const char *storage_type, *key;
    int64_t numel, offset;
    int n_dims;
    int64_t dims[10], strides[10];
};

static void build_pickle(const struct view *views, int n)
{
    pickle.n = 0;
    begin_state_dict(&pickle);
    for (int i = 0; i < n; i++) {
        char name[16];
        snprintf(name, sizeof name, "t%d", i);
        put_tensor(&pickle, name, views[i].storage_type, views[i].key, views[i].numel, views[i].offset,
                   views[i].n_dims, views[i].dims, views[i].strides);
    }
    end_state_dict(&pickle);
}

/* An archive of the pickle and one storage, "0", of n bytes 0, 1, 2 … */
static void zip_pickle(size_t n)
{
    unsigned char bytes[256];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)i;
    zip_begin(&z, &b);
    zip_add(&z, &b, "m/data.pkl", pickle.bytes, pickle.n);
    zip_add(&z, &b, "m/data/0", bytes, n);
    zip_finish(&z, &b, true);
}

static void build_zip(const struct view *views, int n)
{
    build_pickle(views, n);
    zip_pickle(24);
}

static void put_preamble(struct blob *to)
{
    to->n = 0;
    put(to, "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 15);
    put(to, "\x80\x02M\xe9\x03.", 6);
    put(to, "\x80\x02}", 3);
    put_pickle_text(to, "little_endian");
    put(to, "\x88s.", 3);
}

/* The pickle, a list of `keys`, and for each a storage of n_elements of `width` bytes. */
static void build_legacy(const struct view *views, int n, const char *const *keys, int n_keys,
                         uint64_t n_elements, size_t width)
{
    build_pickle(views, n);
    put_preamble(&b);
    put(&b, pickle.bytes, pickle.n);
    put(&b, "\x80\x02](", 4);
    for (int i = 0; i < n_keys; i++)
        put_pickle_text(&b, keys[i]);
    put_text(&b, "e.");
    for (int i = 0; i < n_keys; i++) {
        put_number(&b, n_elements, 8);
        for (size_t j = 0; j < n_elements * width; j++)
            put_number(&b, j, 1);
    }
}

static void refused_zip(struct view view, enum cinf_status status, const char *words)
{
    build_zip(&view, 1);
    ck_refused(&b, ZIP, status, words);
    ck_assert(support_contains(cinf_last_error(), "tensor \"t0\": "));
}

START_TEST(views_must_lie_in_their_storage)
{
    const struct view good = { "FloatStorage", "0", 6, 0, 2, { 2, 3 }, { 3, 1 } };
    struct view v = good;
    v.offset = 1;
    refused_zip(v, CINF_EFORMAT, "its last element is number 6 of a storage of 6");
    v = good;
    v.strides[0] = 4;
    refused_zip(v, CINF_EFORMAT, "its last element is number 6 of a storage of 6");
    v = good;
    v.offset = INT64_MAX;
    refused_zip(v, CINF_EFORMAT, "of a storage of 6");
    v = good;
    v.strides[0] = INT64_MAX;
    v.dims[0] = 4;
    refused_zip(v, CINF_EFORMAT, "strides overflow");
    v = good;
    v.dims[0] = INT64_MAX;
    v.dims[1] = 1;
    v.strides[0] = 3;
    refused_zip(v, CINF_EFORMAT, "overflow");
    v = good;
    v.dims[0] = INT64_MAX;
    v.strides[0] = 0;
    refused_zip(v, CINF_EFORMAT, "product of its dimensions overflows");
    v = good;
    v.offset = -1;
    refused_zip(v, CINF_EFORMAT, "its offset");
    v = good;
    v.dims[1] = -3;
    refused_zip(v, CINF_EFORMAT, "sizes and strides");
    v = good;
    v.strides[1] = -1;
    refused_zip(v, CINF_EFORMAT, "sizes and strides");
    v = (struct view){ "FloatStorage", "0", 6, 0, 9, { 1, 1, 1, 1, 1, 1, 1, 1, 1 }, { 0 } };
    refused_zip(v, CINF_EFORMAT, "at most 8");
    /* More elements than its storage: an expanded view, which would cost memory that the file does not have.
     */
    v = good;
    v.dims[0] = 3;
    v.strides[0] = 0;
    refused_zip(v, CINF_EUNSUPPORTED, "expanded view, 9 elements of a storage of 6");
}
END_TEST

START_TEST(storages_must_be_what_is_claimed)
{
    const struct view good = { "FloatStorage", "0", 6, 0, 1, { 6 }, { 1 } };
    struct view v = good;
    v.numel = 5;
    v.dims[0] = 5;
    refused_zip(v, CINF_EFORMAT, "its storage, data/0, has 24 bytes instead of 20");
    v = good;
    v.storage_type = "DoubleStorage";
    refused_zip(v, CINF_EFORMAT, "has 24 bytes instead of 48");
    v = good;
    v.numel = INT64_MAX;
    refused_zip(v, CINF_EFORMAT, "impossible number of elements");
    v = good;
    v.numel = -1;
    refused_zip(v, CINF_EFORMAT, "impossible number of elements");
    v = good;
    v.key = "1";
    refused_zip(v, CINF_EFORMAT, "its storage, data/1, is missing");
    v.key = "../data/0";
    refused_zip(v, CINF_EFORMAT, "is missing");
    v.key = "";
    refused_zip(v, CINF_EFORMAT, "is missing");
    v = good;
    v.storage_type = "Size";
    refused_zip(v, CINF_EFORMAT, "no known type");
}
END_TEST

START_TEST(strides_and_zero_sizes)
{
    struct cinf_checkpoint *c = NULL;
    const struct view views[] = {
        { "HalfStorage", "0", 12, 0, 2, { 3, 4 }, { 1, 3 } },
        { "HalfStorage", "0", 12, 2, 2, { 2, 2 }, { 4, 2 } },
        { "HalfStorage", "0", 12, 11, 0, { 0 }, { 0 } },
        { "HalfStorage", "0", 12, 99, 2, { 0, 5 }, { 7, 9 } },
        { "HalfStorage", "0", 12, 5, 3, { 1, 2, 1 }, { 77, 1, 88 } },
        { "HalfStorage", "0", 12, 0, 2, { 4, 3 }, { 3, 1 } },
    };
    build_zip(views, 6);
    ck_ok(open_blob(&c, &b, ZIP));
    ck_assert_str_eq(cinf_checkpoint_format(c), "pytorch zip");
    unsigned char e[24];
    ck_ok(cinf_checkpoint_read(c, cinf_checkpoint_find(c, "t0"), 0, 12, e));
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 4; j++)
            ck_assert_uint_eq(e[2 * (4 * i + j)], 2 * (i + 3 * j));
    ck_ok(cinf_checkpoint_read(c, cinf_checkpoint_find(c, "t1"), 0, 4, e));
    ck_assert_mem_eq(e, "\4\5\10\11\14\15\20\21", 8);
    ck_ok(cinf_checkpoint_read(c, cinf_checkpoint_find(c, "t2"), 0, 1, e));
    ck_assert_mem_eq(e, "\26\27", 2);
    ck_ok(cinf_checkpoint_read(c, cinf_checkpoint_find(c, "t3"), 0, 0, e));
    ck_ok(cinf_checkpoint_read(c, cinf_checkpoint_find(c, "t4"), 1, 1, e));
    ck_assert_mem_eq(e, "\14\15", 2);
    ck_ok(cinf_checkpoint_read(c, cinf_checkpoint_find(c, "t5"), 0, 12, e));
    for (int i = 0; i < 24; i++)
        ck_assert_uint_eq(e[i], i);
    cinf_checkpoint_free(c);
}
END_TEST

/* A state dict of one member, made of these ops instead of a tensor. */
static void refused_member(const char *ops, size_t n, enum cinf_status status, const char *words)
{
    pickle.n = 0;
    begin_state_dict(&pickle);
    put(&pickle, ops, n);
    end_state_dict(&pickle);
    zip_pickle(24);
    ck_refused(&b, ZIP, status, words);
}

#define REFUSED_MEMBER(ops, words) refused_member(ops, sizeof(ops) - 1, CINF_EFORMAT, words)
#define TENSOR                     "X\1\0\0\0tctorch._utils\n_rebuild_tensor_v2\n"
#define STORAGE                                                                                              \
    "(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0"                                                       \
    "0X\3\0\0\0cpuK\6"

START_TEST(members_must_be_tensors)
{
    REFUSED_MEMBER("X\1\0\0\0aK\1", "\"a\" is an integer, not a tensor");
    REFUSED_MEMBER("X\5\0\0\0model}", "\"model\" is a dict, not a tensor");
    REFUSED_MEMBER("X\1\0\0\0aN", "\"a\" is None");
    REFUSED_MEMBER("X\1\0\0\0a\x88", "\"a\" is a truth value");
    REFUSED_MEMBER("X\1\0\0\0aG\0\0\0\0\0\0\0\0", "\"a\" is a number");
    REFUSED_MEMBER("X\1\0\0\0aX\0\0\0\0", "\"a\" is a string");
    REFUSED_MEMBER("X\1\0\0\0actorch\nSize\n", "\"a\" is a name");
    REFUSED_MEMBER("X\1\0\0\0a)", "\"a\" is a tuple");
    REFUSED_MEMBER("X\1\0\0\0a)Q", "\"a\" is a storage");
    REFUSED_MEMBER("X\1\0\0\0a]", "\"a\" is a list");
    REFUSED_MEMBER("K\1K\1", "a key of its dict is an integer");
    REFUSED_MEMBER(TENSOR ")R", "is described by 0 values");
    REFUSED_MEMBER(TENSOR "(NNNNNNNNtR", "is described by 8 values");
    REFUSED_MEMBER(TENSOR "(NNNNNNtR", "its storage is not described");
    REFUSED_MEMBER(TENSOR "(K\1\x85QNNNNNtR", "its storage is not described");
    REFUSED_MEMBER(TENSOR "((NNNNNtQNNNNNtR", "its storage is not described");
    REFUSED_MEMBER(TENSOR "(" STORAGE "NNtQNNNNNtR", "its storage is not described");
    REFUSED_MEMBER(TENSOR "(" STORAGE "tQNK\6\x85K\1\x85NNtR", "its offset");
    REFUSED_MEMBER(TENSOR "(" STORAGE "tQK\0NNNNtR", "sizes and strides");
    REFUSED_MEMBER(TENSOR "(" STORAGE "tQK\0K\6\x85)NNtR", "sizes and strides");
    REFUSED_MEMBER(TENSOR "(" STORAGE "tQK\0N\x85K\1\x85NNtR", "sizes and strides");
}
END_TEST

START_TEST(special_tensors_are_not_supported)
{
    static const char view[] = TENSOR "(" STORAGE "K\1tQK\0K\6\x85K\1\x85\x89NtR";
    refused_member(view, sizeof view - 1, CINF_EUNSUPPORTED, "view of another storage");
    static const char negated[] = TENSOR "(" STORAGE "tQK\0K\6\x85K\1\x85\x89N}X\3\0\0\0neg\x88stR";
    refused_member(negated, sizeof negated - 1, CINF_EUNSUPPORTED, "negated");
    static const char flag[] = TENSOR "(" STORAGE "tQK\0K\6\x85K\1\x85\x89N\x88tR";
    refused_member(flag, sizeof flag - 1, CINF_EUNSUPPORTED, "special");
}
END_TEST

START_TEST(result_must_be_a_dict)
{
    pickle.n = 0;
    put(&pickle, "\x80\x02].", 4);
    zip_pickle(24);
    ck_refused(&b, ZIP, CINF_EFORMAT, "holds a list, not a dict of tensors");
}
END_TEST

START_TEST(names_twice)
{
    const struct view v = { "FloatStorage", "0", 6, 0, 1, { 6 }, { 1 } };
    pickle.n = 0;
    begin_state_dict(&pickle);
    for (int i = 0; i < 2; i++)
        put_tensor(&pickle, "a", v.storage_type, v.key, v.numel, v.offset, v.n_dims, v.dims, v.strides);
    end_state_dict(&pickle);
    zip_pickle(24);
    ck_refused(&b, ZIP, CINF_EFORMAT, "tensor \"a\": occurs twice");
}
END_TEST

START_TEST(archives_that_are_something_else)
{
    zip_begin(&z, &b);
    zip_add(&z, &b, "word/document.xml", "<x/>", 4);
    zip_finish(&z, &b, false);
    ck_refused(&b, ZIP, CINF_EFORMAT, "zip archive without data.pkl");
    zip_begin(&z, &b);
    zip_add(&z, &b, "a/b/data.pkl", "", 0);
    zip_finish(&z, &b, false);
    ck_refused(&b, ZIP, CINF_EFORMAT, "zip archive without data.pkl");
    zip_begin(&z, &b);
    zip_add(&z, &b, "/data.pkl", "", 0);
    zip_finish(&z, &b, false);
    ck_refused(&b, ZIP, CINF_EFORMAT, "zip archive without data.pkl");
    zip_begin(&z, &b);
    zip_add(&z, &b, "a/data.pkl", "", 0);
    zip_add(&z, &b, "b/data.pkl", "", 0);
    zip_finish(&z, &b, false);
    ck_refused(&b, ZIP, CINF_EFORMAT, "two entries data.pkl");
    zip_begin(&z, &b);
    zip_add(&z, &b, "a/data.pkl", "", 0);
    zip_finish(&z, &b, false);
    ck_refused(&b, ZIP, CINF_EFORMAT, "pickle: cut off");
}
END_TEST

START_TEST(byte_order)
{
    static const char *const orders[] = { "big", "BIGEND", "" };
    const struct view v = { "FloatStorage", "0", 6, 0, 1, { 6 }, { 1 } };
    struct cinf_checkpoint *c = NULL;
    build_pickle(&v, 1);
    for (int i = 0; i < 4; i++) {
        zip_begin(&z, &b);
        zip_add(&z, &b, "m/data.pkl", pickle.bytes, pickle.n);
        zip_add(&z, &b, "m/byteorder", i < 3 ? orders[i] : "little", i < 3 ? strlen(orders[i]) : 6);
        zip_add(&z, &b, "m/data/0", pickle.bytes, 24);
        zip_finish(&z, &b, true);
        if (i < 3)
            ck_refused(&b, ZIP, CINF_EUNSUPPORTED, "not little-endian");
    }
    ck_ok(open_blob(&c, &b, ZIP));
    cinf_checkpoint_free(c);
}
END_TEST

START_TEST(legacy)
{
    struct cinf_checkpoint *c = NULL;
    const char *const keys[] = { "20", "100" };
    const struct view views[] = {
        { "FloatStorage", "100", 6, 0, 1, { 6 }, { 1 } },
        { "FloatStorage", "20", 6, 2, 1, { 2 }, { 1 } },
        { "FloatStorage", "100", 6, 5, 0, { 0 }, { 0 } },
    };
    build_legacy(views, 3, keys, 2, 6, 4);
    ck_ok(open_blob(&c, &b, LEGACY));
    ck_assert_str_eq(cinf_checkpoint_format(c), "pytorch legacy");
    unsigned char e[24];
    ck_ok(cinf_checkpoint_read(c, cinf_checkpoint_find(c, "t1"), 0, 2, e));
    ck_assert_mem_eq(e, "\10\11\12\13\14\15\16\17", 8);
    ck_ok(cinf_checkpoint_read(c, cinf_checkpoint_find(c, "t2"), 0, 1, e));
    ck_assert_mem_eq(e, "\24\25\26\27", 4);
    cinf_checkpoint_free(c);

    for (size_t whole = b.n--; b.n > 15 && b.n < whole; b.n--) {
        c = NULL;
        ck_fails(open_blob(&c, &b, LEGACY), CINF_EFORMAT, "cut off");
        ck_assert_ptr_null(c);
    }
}
END_TEST

START_TEST(legacy_storages)
{
    const struct view one = { "FloatStorage", "1", 6, 0, 1, { 6 }, { 1 } };
    const struct view differing[] = { one, { "IntStorage", "1", 6, 0, 1, { 6 }, { 1 } } };
    const struct view longer[] = { one, { "FloatStorage", "1", 7, 0, 1, { 6 }, { 1 } } };
    const char *const keys[] = { "1", "2" }, *const twice[] = { "1", "1" };
    build_legacy(&one, 1, keys, 0, 6, 4);
    ck_refused(&b, LEGACY, CINF_EFORMAT, "tensor \"t0\": its storage, 1, is missing");
    build_legacy(&one, 1, keys, 2, 6, 4);
    ck_refused(&b, LEGACY, CINF_EFORMAT, "storage 2 belongs to no tensor");
    build_legacy(&one, 1, twice, 2, 6, 4);
    ck_refused(&b, LEGACY, CINF_EFORMAT, "is listed twice");
    build_legacy(&one, 1, keys, 1, 5, 4);
    ck_refused(&b, LEGACY, CINF_EFORMAT, "has 5 elements instead of 6");
    build_legacy(&one, 1, keys, 1, 6, 3);
    ck_refused(&b, LEGACY, CINF_EFORMAT, "is cut off: 18 bytes of 24");
    build_legacy(differing, 2, keys, 1, 6, 4);
    ck_refused(&b, LEGACY, CINF_EFORMAT, "described differently");
    build_legacy(longer, 2, keys, 1, 6, 4);
    ck_refused(&b, LEGACY, CINF_EFORMAT, "its storage, 1, ");
}
END_TEST

START_TEST(legacy_preamble)
{
    put_preamble(&b);
    set_number(&b, 15 + 3, 1002, 2);
    ck_refused(&b, LEGACY, CINF_EUNSUPPORTED, "version other than 1001");
    put_preamble(&b);
    b.bytes[b.n - 3] = 0x89;
    ck_refused(&b, LEGACY, CINF_EUNSUPPORTED, "not little-endian");
    put_preamble(&b);
    b.n = 15 + 6;
    put(&b, "\x80\x02}.", 4);
    ck_refused(&b, LEGACY, CINF_EUNSUPPORTED, "not little-endian");
    b.n = 15 + 6;
    put(&b, "\x80\x02N.", 4);
    ck_refused(&b, LEGACY, CINF_EFORMAT, "third pickle");
    put_preamble(&b);
    put(&b, "\x80\x02}.\x80\x02}.", 8);
    ck_refused(&b, LEGACY, CINF_EFORMAT, "its list of storages is a dict");
    put_preamble(&b);
    put(&b, "\x80\x02}.\x80\x02]K\1a.", 11);
    ck_refused(&b, LEGACY, CINF_EFORMAT, "its list of storages holds an integer");
}
END_TEST

START_TEST(other_files_are_recognised)
{
    static const struct {
        const char *bytes;
        size_t n;
        const char *words;
    } files[] = {
        { "", 0, "is empty, not a PyTorch checkpoint" },
        { "version https://git-lfs.github.com/spec/v1\n", 43, "git-LFS pointer" },
        { "\n <html><body>", 14, "an HTML page" },
        { "\x1f\x8b\x08\0", 4, "a gzip file" },
        { "GGUF\3\0\0\0", 8, "a GGUF file" },
        { "\x08\0\0\0\0\0\0\0{}      ", 16, "is a safetensors file, not a PyTorch checkpoint" },
        { "\x80\x04\x95", 3, "a Python pickle" },
        { "garbage", 7, "unknown kind" },
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        b.n = 0;
        put(&b, files[i].bytes, files[i].n);
        ck_refused(&b, ZIP, CINF_EFORMAT, files[i].words);
    }
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("torch_file");
    TCase *t = tcase_create("torch_file");
    tcase_add_test(t, views_must_lie_in_their_storage);
    tcase_add_test(t, storages_must_be_what_is_claimed);
    tcase_add_test(t, strides_and_zero_sizes);
    tcase_add_test(t, members_must_be_tensors);
    tcase_add_test(t, special_tensors_are_not_supported);
    tcase_add_test(t, result_must_be_a_dict);
    tcase_add_test(t, names_twice);
    tcase_add_test(t, archives_that_are_something_else);
    tcase_add_test(t, byte_order);
    tcase_add_test(t, legacy);
    tcase_add_test(t, legacy_storages);
    tcase_add_test(t, legacy_preamble);
    tcase_add_test(t, other_files_are_recognised);
    suite_add_tcase(s, t);
    return s;
}
