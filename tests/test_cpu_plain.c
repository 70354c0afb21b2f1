/* Row-major weights from elements of any type at any address, and what cannot be written or prepared. */
#include <math.h>
#include <string.h>

#include "cpu_plain.h"
#include "half.h"
#include "support.h"

static struct device *device;

static void open_device(void)
{
    ck_ok(backend_cpu_reference.open(&device, &(struct device_options){ 0 }));
}

static uint64_t memory_used(void)
{
    struct device_info info;
    cpu_device_info(device, &info);
    return info.memory_used;
}

static void close_device(void)
{
    ck_assert_uint_eq(memory_used(), 0);
    cpu_device_close(device);
}

static const struct weight_spec specs[] = {
    { WEIGHT_MATRIX, 4, 3 },
    { WEIGHT_VECTOR, 1, 5 },
    { WEIGHT_TABLE, 7, 3 },
    { WEIGHT_TOKENS, 11, 3 },
};

static struct weights *make_weights(uint32_t n)
{
    struct weights *weights;
    ck_ok(cpu_weights_new(&weights, device, specs, n, WEIGHTS_F32));
    return weights;
}

START_TEST(elements_of_every_type)
{
    struct weights *weights = make_weights(1);
    const float *stored = ((struct cpu_weights *)weights)->matrices[0];
    static const double values[] = { 1, -2.5, 0, 65504, 0x1p-24, -0.0, 3, 7, -0x1p-14, 1024, 0.5, -1 };
    unsigned char bytes[8 * 12 + 1];
    for (int dtype = CINF_DTYPE_F32; dtype <= CINF_DTYPE_F64; dtype++) {
        if (dtype == CINF_DTYPE_BF16)
            continue;
        for (size_t shift = 0; shift < 2; shift++) {
            for (size_t i = 0; i < 12; i++) {
                float f = (float)values[i];
                uint16_t h = f16_of_f32(f);
                if (dtype == CINF_DTYPE_F32)
                    memcpy(bytes + shift + 4 * i, &f, 4);
                else if (dtype == CINF_DTYPE_F16)
                    memcpy(bytes + shift + 2 * i, &h, 2);
                else
                    memcpy(bytes + shift + 8 * i, &values[i], 8);
            }
            ck_ok(cpu_weights_write(weights, 0, 0, 4, bytes + shift, (enum cinf_dtype)dtype));
            for (size_t i = 0; i < 12; i++)
                ck_assert_msg((double)stored[i] == values[i] && !signbit(stored[i]) == !signbit(values[i]),
                              "type %d, element %zu: %g", dtype, i, (double)stored[i]);
        }
    }
    const unsigned char bf16[] = { 0xEE, 0x80, 0x3F, 0x40, 0xC0, 0x80, 0x7F }; /* 1, -3, infinity at 1 */
    ck_ok(cpu_weights_write(weights, 0, 1, 1, bf16 + 1, CINF_DTYPE_BF16));
    ck_assert(stored[3] == 1 && stored[4] == -3 && stored[5] == INFINITY);
    ck_assert(stored[2] == 0 && stored[6] == 3); /* the rows before and after are unchanged */
    cpu_weights_free(weights);
}
END_TEST

START_TEST(double_that_does_not_fit)
{
    struct weights *weights = make_weights(1);
    double values[6] = { 1, NAN, INFINITY, 3.4e38, -1e39, 0 };
    ck_fails(cpu_weights_write(weights, 0, 2, 2, values, CINF_DTYPE_F64), CINF_EUNSUPPORTED,
             "-1e+39 in row 3, column 1");
    values[4] = 1e-320; /* becomes 0, which is close enough */
    ck_ok(cpu_weights_write(weights, 0, 2, 2, values, CINF_DTYPE_F64));
    cpu_weights_free(weights);
}
END_TEST

START_TEST(writes_out_of_range)
{
    struct weights *weights = make_weights(2);
    float values[12] = { 0 };
    ck_fails(cpu_weights_write(weights, 2, 0, 1, values, CINF_DTYPE_F32), CINF_EINVAL, "weight 2 of 2");
    ck_fails(cpu_weights_write(weights, 0, 0, 5, values, CINF_DTYPE_F32), CINF_EINVAL, "rows 0 to 5 of 4");
    ck_fails(cpu_weights_write(weights, 0, 4, 1, values, CINF_DTYPE_F32), CINF_EINVAL, "of 4");
    ck_fails(cpu_weights_write(weights, 0, 3, UINT32_MAX, values, CINF_DTYPE_F32), CINF_EINVAL, "of 4");
    ck_fails(cpu_weights_write(weights, 0, UINT32_MAX, 2, values, CINF_DTYPE_F32), CINF_EINVAL, "of 4");
    ck_fails(cpu_weights_write(weights, 0, 0, 1, values, CINF_DTYPE_OTHER), CINF_EUNSUPPORTED, "weight 0");
    ck_ok(cpu_weights_write(weights, 0, 4, 0, NULL, CINF_DTYPE_F32));
    cpu_weights_free(weights);
}
END_TEST

START_TEST(weights_that_cannot_be)
{
    struct weights *weights = NULL;
    for (int type = WEIGHTS_F16; type <= WEIGHTS_INT4; type++)
        ck_fails(cpu_weights_new(&weights, device, specs, 2, (enum weights_type)type), CINF_EUNSUPPORTED,
                 "f32");
    const struct weight_spec empty = { WEIGHT_MATRIX, 0, 4 }, tall = { WEIGHT_VECTOR, 2, 4 };
    const struct weight_spec huge[] = { { WEIGHT_MATRIX, UINT32_MAX, 1u << 28 },
                                        { WEIGHT_MATRIX, UINT32_MAX, 1u << 28 },
                                        { WEIGHT_MATRIX, UINT32_MAX, UINT32_MAX } };
    ck_fails(cpu_weights_new(&weights, device, &empty, 1, WEIGHTS_F32), CINF_EINVAL, "0 x 4");
    ck_fails(cpu_weights_new(&weights, device, &tall, 1, WEIGHTS_F32), CINF_EINVAL, "2 x 4");
    ck_fails(cpu_weights_new(&weights, device, huge + 2, 1, WEIGHTS_F32), CINF_ENOMEM, "too large");
    ck_fails(cpu_weights_new(&weights, device, huge, 3, WEIGHTS_F32), CINF_ENOMEM, "too large");
    ck_assert_ptr_null(weights);
    cpu_weights_free(NULL);
}
END_TEST

/* Tables are read by row.  With a separate head, the token embeddings are not part of the products. */
START_TEST(bytes_of_a_step)
{
    struct weights *weights = make_weights(4);
    ck_assert_uint_eq(cpu_weights_bytes(weights), (4 * 3 + 5 + 11 * 3) * sizeof(float));
    ck_assert_uint_ge(memory_used(), (4 * 3 + 5 + 7 * 3 + 11 * 3) * sizeof(float));
    cpu_weights_free(weights);
    const struct weight_spec untied[] = { { WEIGHT_TOKENS, 11, 3 }, { WEIGHT_HEAD, 11, 3 } };
    ck_ok(cpu_weights_new(&weights, device, untied, 2, WEIGHTS_F32));
    ck_assert_uint_eq(cpu_weights_bytes(weights), 11 * 3 * sizeof(float));
    bool done = false;
    ck_ok(cpu_weights_finish(weights, &done));
    ck_assert(done);
    cpu_weights_free(weights);
}
END_TEST

START_TEST(prepare_for_others)
{
    const struct op op = { .kind = OP_EMBED, .weight = 0, .weight2 = 1 };
    const struct weight_spec mine[] = { { WEIGHT_TOKENS, 9, 12 }, { WEIGHT_TABLE, 7, 12 } };
    struct program p = { .ops = &op,
                         .n_ops = 1,
                         .specs = mine,
                         .n_specs = 2,
                         .width = 12,
                         .inner = 5,
                         .heads = 3,
                         .layers = 2,
                         .vocab = 9,
                         .positions = 7 };
    struct weights *weights;
    struct kv *kv;
    struct prepared *prepared = NULL;
    ck_ok(cpu_weights_new(&weights, device, mine, 2, WEIGHTS_F32));
    ck_ok(cpu_kv_new(&kv, device, &p, 1));
    ck_fails(cpu_prepared_new(&prepared, weights, kv, &p, 0, 8), CINF_EINVAL, "0 rows");
    ck_fails(cpu_prepared_new(&prepared, weights, kv, &p, UINT32_MAX, 8), CINF_EINVAL, "rows");
    p.layers = 1;
    ck_fails(cpu_prepared_new(&prepared, weights, kv, &p, 4, 8), CINF_EINVAL, "cache");
    p.layers = 2;
    struct weights *others = make_weights(2);
    ck_fails(cpu_prepared_new(&prepared, others, kv, &p, 4, 8), CINF_EINVAL, "weights");
    p.heads = 5;
    ck_fails(cpu_prepared_new(&prepared, weights, kv, &p, 4, 8), CINF_EINVAL, "5 heads");
    p.heads = 3;
    ck_assert_ptr_null(prepared);
    ck_ok(cpu_prepared_new(&prepared, weights, kv, &p, 4, 8));
    const float *logits = NULL;
    ck_fails(cpu_logits(prepared, 0, &logits), CINF_EINVAL, "made 0");
    cpu_prepared_free(prepared);
    cpu_prepared_free(NULL);
    cpu_weights_free(others);
    cpu_kv_free(kv);
    cpu_weights_free(weights);
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("cpu_plain");
    TCase *t = tcase_create("weights");
    tcase_add_checked_fixture(t, open_device, close_device);
    tcase_add_test(t, elements_of_every_type);
    tcase_add_test(t, double_that_does_not_fit);
    tcase_add_test(t, writes_out_of_range);
    tcase_add_test(t, weights_that_cannot_be);
    tcase_add_test(t, bytes_of_a_step);
    tcase_add_test(t, prepare_for_others);
    suite_add_tcase(s, t);
    return s;
}
