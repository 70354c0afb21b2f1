#include "checkpoint_builder.h"
#include "tensor_table.h"

static struct file f;
static struct tensor_table table;

static void setup(void)
{
    unsigned char bytes[4096];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)(i % 2 ? i / 2 / 256 : i / 2); /* u16 0, 1, 2 … */
    ck_ok(file_open(&f, support_write(support_temp_folder(), "numbers", bytes, sizeof bytes)));
}

static void teardown(void)
{
    tensor_table_free(&table);
    file_close(&f);
}

static struct tensor *add(const char *name, uint32_t n_dims, const uint64_t *dims)
{
    struct tensor *t = NULL;
    ck_ok(tensor_table_add(&t, &table, &f, name));
    t->view.n_dims = n_dims;
    if (n_dims)
        memcpy(t->view.dims, dims, n_dims * sizeof *dims);
    return t;
}

START_TEST(dtypes)
{
    ck_assert_int_eq(dtype_find("F32")->is, CINF_DTYPE_F32);
    ck_assert_int_eq(dtype_find("F16")->is, CINF_DTYPE_F16);
    ck_assert_int_eq(dtype_find("BF16")->is, CINF_DTYPE_BF16);
    ck_assert_int_eq(dtype_find("F64")->is, CINF_DTYPE_F64);
    ck_assert_int_eq(dtype_find("I64")->is, CINF_DTYPE_OTHER);
    ck_assert_uint_eq(dtype_find("F6_E2M3")->bits, 6);
    ck_assert_ptr_null(dtype_find("f32"));
    ck_assert_ptr_null(dtype_find(""));
}
END_TEST

START_TEST(description)
{
    struct tensor *t = add("a", 3, (uint64_t[]){ 2, 3, 4 });
    ck_ok(tensor_describe(t, dtype_find("F64")));
    ck_assert_uint_eq(t->view.n_elements, 24);
    ck_assert_uint_eq(t->view.n_bytes, 192);
    ck_assert_uint_eq(t->strides[0], 12);
    ck_assert_uint_eq(t->strides[1], 4);
    ck_assert_uint_eq(t->strides[2], 1);
    ck_assert(t->contiguous);
    t = add("b", 2, (uint64_t[]){ 1ull << 32, 1ull << 32 });
    ck_fails(tensor_describe(t, dtype_find("U8")), CINF_EFORMAT, "tensor \"b\": the product");
    t = add("c", 2, (uint64_t[]){ 1ull << 32, 1ull << 31 });
    ck_fails(tensor_describe(t, dtype_find("U8")), CINF_EFORMAT, "elements of U8 overflows");
    t = add("d", 1, (uint64_t[]){ 3 });
    ck_fails(tensor_describe(t, dtype_find("F4")), CINF_EFORMAT, "whole number of bytes");
    t = add("e", 3, (uint64_t[]){ 0, UINT64_MAX, UINT64_MAX });
    ck_ok(tensor_describe(t, dtype_find("F32")));
    ck_assert_uint_eq(t->view.n_bytes, 0);
}
END_TEST

START_TEST(order_and_limits)
{
    struct tensor *t = NULL;
    char name[TENSOR_NAME_MAX + 2];
    ck_ok(tensor_table_sort(&table, 0));
    add("b", 0, NULL);
    add("a", 0, NULL);
    ck_ok(tensor_table_sort(&table, 1));
    ck_assert_str_eq(table.items[0].view.name, "b");
    ck_ok(tensor_table_sort(&table, 0));
    ck_assert_str_eq(table.items[0].view.name, "a");
    add("b", 0, NULL);
    ck_ok(tensor_table_sort(&table, 2));
    ck_fails(tensor_table_sort(&table, 0), CINF_EFORMAT, "tensor \"b\": occurs twice");

    memset(name, 'x', sizeof name);
    name[TENSOR_NAME_MAX + 1] = '\0';
    ck_fails(tensor_table_add(&t, &table, &f, name), CINF_EFORMAT, "a name of 1025 bytes");
    ck_assert_ptr_null(t);
    name[TENSOR_NAME_MAX] = '\0';
    ck_ok(tensor_table_add(&t, &table, &f, name));
    while (table.n < TENSORS_MAX)
        add("x", 0, NULL);
    t = NULL;
    ck_fails(tensor_table_add(&t, &table, &f, "y"), CINF_EUNSUPPORTED, "more than 65536 tensors");
    ck_assert_ptr_null(t);
}
END_TEST

/* Reads every range of a strided view and compares it with the sum of index times stride. */
static void check_view(uint32_t n_dims, const uint64_t *dims, const uint64_t *strides, uint64_t first_element)
{
    struct tensor *t = add("view", n_dims, dims);
    ck_ok(tensor_describe(t, dtype_find("F16")));
    memcpy(t->strides, strides, n_dims * sizeof *strides);
    t->contiguous = false;
    t->offset = 2 * first_element;
    uint64_t expected[256], n = t->view.n_elements;
    ck_assert_uint_le(n, 256);
    for (uint64_t i = 0; i < n; i++) {
        expected[i] = first_element;
        for (uint64_t d = n_dims, rest = i; d-- > 0; rest /= dims[d])
            expected[i] += rest % dims[d] * strides[d];
    }
    for (uint64_t first = 0; first < n; first++)
        for (uint64_t count = 0; count <= n - first; count++) {
            unsigned char got[514];
            memset(got, 0xEE, sizeof got);
            ck_ok(tensor_read(t, first, count, got));
            for (uint64_t i = 0; i < count; i++)
                ck_assert_uint_eq(got[2 * i] + 256u * got[2 * i + 1], expected[first + i]);
            ck_assert_uint_eq(got[2 * count], 0xEE);
        }
}

START_TEST(strided_reads)
{
    check_view(2, (uint64_t[]){ 5, 7 }, (uint64_t[]){ 1, 5 }, 0);
    check_view(2, (uint64_t[]){ 5, 7 }, (uint64_t[]){ 70, 2 }, 3);
    check_view(1, (uint64_t[]){ 9 }, (uint64_t[]){ 200 }, 1);
    check_view(1, (uint64_t[]){ 1 }, (uint64_t[]){ 77777 }, 2047);
    check_view(3, (uint64_t[]){ 3, 4, 2 }, (uint64_t[]){ 2, 6, 1 }, 10);
    check_view(3, (uint64_t[]){ 2, 3, 4 }, (uint64_t[]){ 1, 2, 6 }, 0);
    check_view(4, (uint64_t[]){ 2, 1, 3, 2 }, (uint64_t[]){ 100, 999999, 7, 31 }, 5);
    check_view(2, (uint64_t[]){ 3, 4 }, (uint64_t[]){ 0, 1 }, 8);
    check_view(8, (uint64_t[]){ 1, 2, 1, 2, 1, 2, 1, 2 }, (uint64_t[]){ 1, 1, 1, 2, 1, 4, 1, 8 }, 0);
}
END_TEST

/* Runs that are longer than the buffer, and strides that are wider than it. */
START_TEST(long_runs)
{
    enum { ROWS = 3, COLUMNS = 30000 };
    uint16_t *numbers = calloc(ROWS * COLUMNS, 2), *got = calloc(ROWS * COLUMNS, 2);
    for (int i = 0; i < ROWS * COLUMNS; i++)
        numbers[i] = (uint16_t)(i * 7 + i / 65536);
    file_close(&f);
    ck_ok(file_open(&f, support_write(support_temp_folder(), "long", numbers, 2 * ROWS * COLUMNS)));
    struct tensor *t = add("t", 2, (uint64_t[]){ COLUMNS, ROWS });
    ck_ok(tensor_describe(t, dtype_find("BF16")));
    t->strides[0] = 1;
    t->strides[1] = COLUMNS;
    t->contiguous = false;
    ck_ok(tensor_read(t, 1, ROWS * COLUMNS - 1, got + 1));
    for (int i = 1; i < ROWS * COLUMNS; i++)
        ck_assert_uint_eq(got[i], numbers[i % ROWS * COLUMNS + i / ROWS]);
    t = add("wide", 1, (uint64_t[]){ ROWS });
    ck_ok(tensor_describe(t, dtype_find("F16")));
    t->strides[0] = COLUMNS;
    t->contiguous = false;
    ck_ok(tensor_read(t, 0, ROWS, got));
    for (int i = 0; i < ROWS; i++)
        ck_assert_uint_eq(got[i], numbers[i * COLUMNS]);
    free(numbers);
    free(got);
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("tensor_table");
    TCase *t = tcase_create("tensor_table");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, dtypes);
    tcase_add_test(t, description);
    tcase_add_test(t, order_and_limits);
    tcase_add_test(t, strided_reads);
    tcase_add_test(t, long_runs);
    suite_add_tcase(s, t);
    return s;
}
