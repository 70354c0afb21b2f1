#include "checkpoint_builder.h"
#include "pickle.h"

static struct blob b;
static struct file f;
static struct pickle p;
static char *folder;

static void setup(void)
{
    folder = support_temp_folder();
    b.n = 0;
    put(&b, "\x80\x02", 2);
}

static void teardown(void)
{
    pickle_free(&p);
    file_close(&f);
}

/* Loads the blob, which is followed by a byte that belongs to no pickle. */
static enum cinf_status load(void)
{
    static struct blob with_tail;
    uint64_t at = 0;
    file_close(&f);
    pickle_free(&p);
    with_tail = b;
    put(&with_tail, "!", 1);
    ck_ok(file_open(&f, support_write(folder, "p", with_tail.bytes, (long)with_tail.n)));
    enum cinf_status status = pickle_load(&p, &f, &at, f.size - 1);
    ck_assert_uint_eq(at, status == CINF_OK ? b.n : 0);
    return status;
}

/* The ops after PROTO 2 are refused with these words. */
static void refused(const char *ops, size_t n, const char *words)
{
    b.n = 2;
    put(&b, ops, n);
    ck_fails(load(), CINF_EFORMAT, words);
    ck_assert_ptr_null(p.items);
    ck_assert(support_contains(cinf_last_error(), "/p: pickle: "));
}

#define REFUSED(ops, words) refused(ops, sizeof(ops) - 1, words)

static void loaded(const char *ops, size_t n)
{
    b.n = 2;
    put(&b, ops, n);
    ck_ok(load());
}

#define LOADED(ops) loaded(ops, sizeof(ops) - 1)

START_TEST(numbers)
{
    static const struct {
        const char *ops;
        size_t n;
        int64_t number;
    } cases[] = {
        { "K\xff.", 3, 255 },
        { "M\xff\xff.", 4, 65535 },
        { "J\xff\xff\xff\xff.", 6, -1 },
        { "J\xff\xff\xff\x7f.", 6, INT32_MAX },
        { "J\0\0\0\x80.", 6, INT32_MIN },
        { "\x8a\0.", 3, 0 },
        { "\x8a\1\xff.", 4, -1 },
        { "\x8a\2\xff\0.", 5, 255 },
        { "\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f.", 11, INT64_MAX },
        { "\x8a\x08\0\0\0\0\0\0\0\x80.", 11, INT64_MIN },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        loaded(cases[i].ops, cases[i].n);
        ck_assert_int_eq(p.result.kind, PICKLE_INT);
        ck_assert_int_eq(p.result.number, cases[i].number);
    }
    LOADED("\x8a\x09\1\2\3\4\5\6\7\x08\x09.");
    ck_assert_int_eq(p.result.kind, PICKLE_LONG);
    ck_assert_uint_eq(p.result.n, 9);
    ck_assert_mem_eq(pickle_text(&p, p.result), "\1\2\3\4\5\6\7\x08\x09", 9);
    LOADED("N.");
    ck_assert_int_eq(p.result.kind, PICKLE_NONE);
    LOADED("\x88.");
    ck_assert_int_eq(p.result.kind, PICKLE_BOOL);
    ck_assert_int_eq(p.result.number, 1);
    LOADED("\x89.");
    ck_assert_int_eq(p.result.number, 0);
    LOADED("G\0\0\0\0\0\0\0\0.");
    ck_assert_int_eq(p.result.kind, PICKLE_FLOAT);
}
END_TEST

START_TEST(texts)
{
    LOADED("X\0\0\0\0.");
    ck_assert_int_eq(p.result.kind, PICKLE_TEXT);
    ck_assert_str_eq(pickle_text(&p, p.result), "");
    LOADED("X\3\0\0\0h\xc3\xa9.");
    ck_assert_uint_eq(p.result.n, 3);
    ck_assert_str_eq(pickle_text(&p, p.result), "h\xc3\xa9");
    REFUSED("X\2\0\0\0\xc3\xc3.", "not UTF-8");
    REFUSED("X\3\0\0\0a\0b.", "contains NUL");
    REFUSED("X\xff\xff\xff\xffhello.", "more than 65536 bytes");
    REFUSED("X\0\1\0\0hello.", "cut off");
}
END_TEST

START_TEST(tuples_lists_dicts)
{
    LOADED(").");
    ck_assert_int_eq(p.result.kind, PICKLE_TUPLE);
    ck_assert_uint_eq(p.result.n, 0);
    LOADED("K\1K\2K\3\x87.");
    ck_assert_uint_eq(p.result.n, 3);
    ck_assert_int_eq(p.items[p.result.first + 2].number, 3);
    LOADED("(K\1(K\2K\3tt.");
    ck_assert_uint_eq(p.result.n, 2);
    struct pickle_value inner = p.items[p.result.first + 1];
    ck_assert_int_eq(inner.kind, PICKLE_TUPLE);
    ck_assert_int_eq(p.items[inner.first].number, 2);

    /* A list, filled twice, of which one more fills another between. */
    LOADED("]q\0(K\1](K\7eK\2eK\3a.");
    ck_assert_int_eq(p.result.kind, PICKLE_LIST);
    uint32_t i = p.containers[p.result.first].head;
    ck_assert_int_eq(p.members[i].value.number, 1);
    i = p.members[i].next;
    ck_assert_int_eq(p.members[i].value.kind, PICKLE_LIST);
    i = p.members[i].next;
    ck_assert_int_eq(p.members[i].value.number, 2);
    i = p.members[i].next;
    ck_assert_int_eq(p.members[i].value.number, 3);
    ck_assert_uint_eq(p.members[i].next, PICKLE_END);

    LOADED("}(K\1K\2K\3K\4uK\5K\6s.");
    ck_assert_int_eq(p.result.kind, PICKLE_DICT);
    i = p.containers[p.result.first].head;
    ck_assert_int_eq(p.members[i].key.number, 1);
    ck_assert_int_eq(p.members[i].value.number, 2);
    i = p.members[p.members[i].next].next;
    ck_assert_int_eq(p.members[i].key.number, 5);
    ck_assert_uint_eq(p.members[i].next, PICKLE_END);

    /* A dict that holds itself is no trouble, as nothing walks it. */
    LOADED("}q\0K\1h\0s.");
    ck_assert_int_eq(p.members[0].value.kind, PICKLE_DICT);
}
END_TEST

START_TEST(names_and_calls)
{
    LOADED("ccollections\nOrderedDict\n)R}b.");
    ck_assert_int_eq(p.result.kind, PICKLE_DICT);
    LOADED("ctorch\nBFloat16Storage\n.");
    ck_assert_str_eq(pickle_storage_dtype(p.result), "BF16");
    LOADED("ctorch\nSize\n.");
    ck_assert_ptr_null(pickle_storage_dtype(p.result));
    LOADED("K\1.");
    ck_assert_ptr_null(pickle_storage_dtype(p.result));
    LOADED("ctorch\nSize\nK\4\x85\x85R.");
    ck_assert_int_eq(p.result.kind, PICKLE_TUPLE);
    ck_assert_int_eq(p.items[p.result.first].number, 4);
    LOADED("ctorch._utils\n_rebuild_parameter\nctorch._utils\n_rebuild_tensor_v2\n(K\7tR\x88)\x87R.");
    ck_assert_int_eq(p.result.kind, PICKLE_TENSOR);
    ck_assert_int_eq(p.items[p.result.first].number, 7);
    LOADED("K\1\x85Q.");
    ck_assert_int_eq(p.result.kind, PICKLE_STORAGE);
    ck_assert_str_eq(pickle_kind_name(p.result), "a storage");
}
END_TEST

START_TEST(nothing_else_may_be_named)
{
    REFUSED("cos\nsystem\nX\2\0\0\0ls\x85R.", "refers to \"os.system\"");
    REFUSED("cposix\nsystem\n.", "refers to \"posix.system\"");
    REFUSED("c__builtin__\neval\n.", "refers to \"__builtin__.eval\"");
    REFUSED("ctorch\nload\n.", "refers to \"torch.load\"");
    REFUSED("ctorch\nFloatStorage2\n.", "refers to");
    REFUSED("ctorch._utils\n_rebuild_tensor\n.", "refers to");
    REFUSED("c\n\n.", "refers to");
    REFUSED("cbad\x1b[31m\nna\rme\n.", "refers to \"bad?[31m.na?me\"");
    REFUSED("ctorch", "cut off");
    REFUSED("caaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
            "aaaaaaaaaaaaaaaaaaaa"
            "\n\n.",
            "too long");
}
END_TEST

START_TEST(calls_that_make_no_sense)
{
    REFUSED("K\1)R.", "cannot be called");
    REFUSED("ctorch\nSize\nK\1R.", "cannot be called");
    REFUSED("ctorch\nFloatStorage\n)R.", "a storage type is called");
    REFUSED("ccollections\nOrderedDict\nK\1\x85R.", "unexpected arguments for OrderedDict");
    REFUSED("ctorch\nSize\n)R.", "unexpected arguments for Size");
    REFUSED("ctorch\nSize\nK\1\x85R.", "unexpected arguments for Size");
    REFUSED("ctorch._utils\n_rebuild_parameter\nK\1\x88)\x87R.",
            "unexpected arguments for _rebuild_parameter");
    REFUSED("ctorch._utils\n_rebuild_parameter\n)R.", "unexpected arguments for _rebuild_parameter");
    REFUSED("K\1}b.", "attributes are set");
    REFUSED("}K\1b.", "attributes are set");
    REFUSED("K\1Q.", "persistent id");
}
END_TEST

START_TEST(stack_discipline)
{
    REFUSED(".", "other than one value");
    REFUSED("K\1K\2.", "other than one value");
    REFUSED("K\1(.", "other than one value");
    REFUSED("R", "stack underflow");
    REFUSED("K\1R", "stack underflow");
    REFUSED("Q", "stack underflow");
    REFUSED("b", "stack underflow");
    REFUSED("q\0", "stack underflow");
    REFUSED("\x85", "stack underflow");
    REFUSED("K\1K\2\x87", "stack underflow");
    REFUSED("a", "stack underflow");
    REFUSED("]a", "stack underflow");
    REFUSED("}K\1s", "stack underflow");
    REFUSED("(e", "stack underflow");
    REFUSED("(u", "stack underflow");
    REFUSED("t", "no mark");
    REFUSED("e", "no mark");
    REFUSED("u", "no mark");
    /* Nothing may reach below a mark. */
    REFUSED("]K\1(a", "stack underflow");
    REFUSED("}K\1(K\2s", "stack underflow");
    REFUSED("K\1(\x85", "stack underflow");
    REFUSED("ctorch\nSize\n()R", "stack underflow");
    REFUSED("}((K\1K\2u", "stack underflow");
    /* Nor fill what cannot be filled. */
    REFUSED("}K\1a.", "not a list");
    REFUSED("](K\1K\2u.", "not a dict");
    REFUSED("K\0K\1K\2s.", "not a dict");
    REFUSED("}(K\1u.", "a key without a value");
}
END_TEST

START_TEST(memo)
{
    LOADED("(K\7q\0K\x08r\1\0\0\0h\0j\1\0\0\0K\x09q\1h\1t.");
    ck_assert_uint_eq(p.result.n, 6);
    static const int expected[] = { 7, 8, 7, 8, 9, 9 };
    for (int i = 0; i < 6; i++)
        ck_assert_int_eq(p.items[p.result.first + (unsigned)i].number, expected[i]);
    REFUSED("K\1q\1.", "out of order");
    REFUSED("K\1r\xff\xff\xff\xff.", "out of order");
    REFUSED("K\1r\xff\xff\xff\x7f.", "out of order");
    REFUSED("h\0.", "never set");
    REFUSED("K\1q\0h\1.", "never set");
    REFUSED("K\1q\0j\xff\xff\xff\xff.", "never set");
}
END_TEST

START_TEST(unknown_opcodes)
{
    static const char known[] = "(.JKMNQRGX]abcehjqrstu})\x80\x85\x86\x87\x88\x89\x8a";
    for (int op = 0; op < 256; op++) {
        char ops[2] = { (char)op, 0 };
        if (op != 0x80 && (op == 0 || memchr(known, op, sizeof known - 1)))
            continue;
        refused(ops, 1, "is none that a state dict needs");
    }
    REFUSED("\x81.", "opcode 0x81 at byte 2");
}
END_TEST

START_TEST(protocols)
{
    b.n = 0;
    put(&b, "\x80\x04\x95", 3);
    ck_fails(load(), CINF_EUNSUPPORTED, "protocol 4");
    b.n = 0;
    put_text(&b, "K\1.");
    ck_fails(load(), CINF_EFORMAT, "protocol 0");
    b.n = 0;
    ck_fails(load(), CINF_EFORMAT, "cut off");
}
END_TEST

START_TEST(every_truncation_is_cut_off)
{
    b.n = 0;
    begin_state_dict(&b);
    put_tensor(&b, "a", "FloatStorage", "0", 6, 0, 2, (int64_t[]){ 2, 3 }, (int64_t[]){ 3, 1 });
    end_state_dict(&b);
    ck_ok(load());
    ck_assert_int_eq(p.result.kind, PICKLE_DICT);
    while (b.n-- > 0)
        ck_fails(load(), CINF_EFORMAT, "cut off");
}
END_TEST

/* Four megabytes that push a value with each byte: refused at the machine's limit, not at memory's end. */
START_TEST(limits)
{
    size_t n = (1 << 22) + 100;
    char *bytes = malloc(n);
    memset(bytes, 'N', n);
    memcpy(bytes, "\x80\x02", 2);
    ck_ok(file_open(&f, support_write(folder, "big", bytes, (long)n)));
    uint64_t at = 0;
    ck_fails(pickle_load(&p, &f, &at, f.size), CINF_EFORMAT, "too many values");
    ck_assert_uint_eq(at, 0);
    memset(bytes + 2, '(', n - 2);
    file_close(&f);
    ck_ok(file_open(&f, support_write(folder, "big", bytes, (long)n)));
    ck_fails(pickle_load(&p, &f, &at, f.size), CINF_EFORMAT, "too many values");
    free(bytes);
}
END_TEST

/* Input is read through a window of 4096 bytes; values may cross its border anywhere. */
START_TEST(window_border)
{
    for (size_t shift = 4080; shift < 4100; shift++) {
        b.n = 2;
        put_text(&b, "(");
        while (b.n < shift)
            put_text(&b, "N");
        put_pickle_text(&b, "some text that is long enough to cross");
        put_text(&b, "ctorch\nDoubleStorage\n");
        put_pickle_int(&b, 0x0102030405060708);
        put_text(&b, "t.");
        ck_ok(load());
        const struct pickle_value *last = &p.items[p.result.first + p.result.n - 3];
        ck_assert_str_eq(pickle_text(&p, last[0]), "some text that is long enough to cross");
        ck_assert_str_eq(pickle_storage_dtype(last[1]), "F64");
        ck_assert_int_eq(last[2].number, 0x0102030405060708);
    }
}
END_TEST

Suite *suite(void)
{
    Suite *s = suite_create("pickle");
    TCase *t = tcase_create("pickle");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, numbers);
    tcase_add_test(t, texts);
    tcase_add_test(t, tuples_lists_dicts);
    tcase_add_test(t, names_and_calls);
    tcase_add_test(t, nothing_else_may_be_named);
    tcase_add_test(t, calls_that_make_no_sense);
    tcase_add_test(t, stack_discipline);
    tcase_add_test(t, memo);
    tcase_add_test(t, unknown_opcodes);
    tcase_add_test(t, protocols);
    tcase_add_test(t, every_truncation_is_cut_off);
    tcase_add_test(t, limits);
    tcase_add_test(t, window_border);
    suite_add_tcase(s, t);
    return s;
}
