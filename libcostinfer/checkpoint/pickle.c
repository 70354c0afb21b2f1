/* pickle.c - the stack machine of pickle protocol 2, reduced to what torch.save() writes for a state dict.
 *
 * A pickle is a program of one-byte opcodes over a stack, a stack of marks in it, and a memo of values that
 * are used again.  No opcode here can do more than push, pop, remember and fill lists and dicts. */
#include "pickle.h"

#include <inttypes.h>
#include <string.h>

#include "bytes.h"
#include "fail.h"
#include "mem.h"
#include "utf8.h"

enum {
    VALUES_MAX = 1 << 22, /* of each: stack, memo, items, members; 65,536 tensors need half */
    TEXT_MAX = 1 << 16,   /* bytes of one string */
    PICKLE_MAX = 1 << 26, /* bytes of one pickle */
    NAME_MAX_BYTES = 100, /* of one half of a GLOBAL */
    PROTOCOL = 2,
};

enum opcode {
    OP_MARK = '(',
    OP_STOP = '.',
    OP_BININT = 'J',
    OP_BININT1 = 'K',
    OP_BININT2 = 'M',
    OP_NONE = 'N',
    OP_BINPERSID = 'Q',
    OP_REDUCE = 'R',
    OP_BINFLOAT = 'G',
    OP_BINUNICODE = 'X',
    OP_EMPTY_LIST = ']',
    OP_APPEND = 'a',
    OP_BUILD = 'b',
    OP_GLOBAL = 'c',
    OP_APPENDS = 'e',
    OP_BINGET = 'h',
    OP_LONG_BINGET = 'j',
    OP_BINPUT = 'q',
    OP_LONG_BINPUT = 'r',
    OP_SETITEM = 's',
    OP_TUPLE = 't',
    OP_SETITEMS = 'u',
    OP_EMPTY_DICT = '}',
    OP_EMPTY_TUPLE = ')',
    OP_PROTO = 0x80,
    OP_TUPLE1 = 0x85,
    OP_TUPLE2 = 0x86,
    OP_TUPLE3 = 0x87,
    OP_NEWTRUE = 0x88,
    OP_NEWFALSE = 0x89,
    OP_LONG1 = 0x8A,
};

enum { NAME_ORDERED_DICT, NAME_TENSOR, NAME_PARAMETER, NAME_SIZE, NAME_STORAGES };

static const struct {
    const char *module, *name, *dtype;
} names[] = {
    [NAME_ORDERED_DICT] = { "collections", "OrderedDict", NULL },
    [NAME_TENSOR] = { "torch._utils", "_rebuild_tensor_v2", NULL },
    [NAME_PARAMETER] = { "torch._utils", "_rebuild_parameter", NULL },
    [NAME_SIZE] = { "torch", "Size", NULL },
    [NAME_STORAGES] = { "torch", "FloatStorage", "F32" },
    { "torch", "HalfStorage", "F16" },
    { "torch", "BFloat16Storage", "BF16" },
    { "torch", "DoubleStorage", "F64" },
    { "torch", "ByteStorage", "U8" },
    { "torch", "CharStorage", "I8" },
    { "torch", "BoolStorage", "BOOL" },
    { "torch", "ShortStorage", "I16" },
    { "torch", "IntStorage", "I32" },
    { "torch", "LongStorage", "I64" },
};

struct machine {
    struct pickle *p;
    struct pickle_value *stack, *memo;
    uint32_t *marks; /* heights of the stack */
    size_t n_stack, cap_stack, n_memo, cap_memo, n_marks, cap_marks;

    /* The input: file bytes [at - have, at) are in buffer[0..have), of which `used` are read. */
    const struct file *file;
    uint64_t at, end;
    size_t have, used;
    unsigned char buffer[4096];
};

static uint64_t position(const struct machine *m)
{
    return m->at - m->have + m->used;
}

static enum cinf_status fault(const struct machine *m, const char *what)
{
    return cinf_fail(CINF_EFORMAT, "%s: pickle: %s at byte %" PRIu64, m->file->path, what, position(m));
}

static enum cinf_status no_memory(const struct machine *m)
{
    return cinf_fail(CINF_ENOMEM, "%s: pickle: no memory at byte %" PRIu64, m->file->path, position(m));
}

/* ---- input ------------------------------------------------------------------------------------- */

static enum cinf_status take(struct machine *m, void *bytes, size_t n)
{
    unsigned char *to = bytes;
    if (n > m->end - position(m))
        return fault(m, "cut off");
    while (n > 0) {
        if (m->used == m->have) {
            size_t more = m->end - m->at < sizeof m->buffer ? (size_t)(m->end - m->at) : sizeof m->buffer;
            TRY(file_read(m->file, m->at, m->buffer, more));
            m->at += more;
            m->have = more;
            m->used = 0;
        }
        size_t part = m->have - m->used < n ? m->have - m->used : n;
        memcpy(to, m->buffer + m->used, part);
        m->used += part;
        to += part;
        n -= part;
    }
    return CINF_OK;
}

/* Reads a little-endian number of 1, 2 or 4 bytes. */
static enum cinf_status take_number(struct machine *m, uint32_t *value, size_t width)
{
    unsigned char bytes[4] = { 0 };
    TRY(take(m, bytes, width));
    *value = load_u32(bytes);
    return CINF_OK;
}

/* Reads n bytes into the text and puts a NUL behind them. */
static enum cinf_status take_text(struct machine *m, struct pickle_value *value, size_t n)
{
    struct strbuf *text = &m->p->text;
    if (n > TEXT_MAX)
        return fault(m, "a string of more than 65536 bytes");
    if (n > m->end - position(m))
        return fault(m, "a string is cut off");
    value->n = (uint32_t)n;
    value->first = text->len;
    for (size_t left = n; left > 0;) {
        unsigned char part[512];
        size_t some = left < sizeof part ? left : sizeof part;
        TRY(take(m, part, some));
        strbuf_add(text, part, some);
        left -= some;
    }
    strbuf_putc(text, '\0');
    return text->failed ? no_memory(m) : CINF_OK;
}

/* Reads a line without its line feed. */
static enum cinf_status take_line(struct machine *m, char line[NAME_MAX_BYTES + 1])
{
    for (size_t n = 0; n <= NAME_MAX_BYTES; n++) {
        TRY(take(m, &line[n], 1));
        if (line[n] == '\n') {
            line[n] = '\0';
            return CINF_OK;
        }
    }
    return fault(m, "a name is too long");
}

/* ---- stack, memo, containers ------------------------------------------------------------------- */

/* Makes room for one more in an array of the machine. */
static enum cinf_status grow(const struct machine *m, void *array_pointer, size_t *cap, size_t need,
                             size_t size)
{
    if (need > VALUES_MAX)
        return fault(m, "too many values");
    return mem_reserve(array_pointer, cap, need, size) ? CINF_OK : no_memory(m);
}

static enum cinf_status push(struct machine *m, struct pickle_value value)
{
    TRY(grow(m, &m->stack, &m->cap_stack, m->n_stack + 1, sizeof *m->stack));
    m->stack[m->n_stack++] = value;
    return CINF_OK;
}

static enum cinf_status push_number(struct machine *m, enum pickle_kind kind, int64_t number)
{
    return push(m, (struct pickle_value){ .kind = kind, .number = number });
}

/* Checks that n values lie above the last mark. */
static enum cinf_status need(const struct machine *m, size_t n)
{
    size_t floor = m->n_marks ? m->marks[m->n_marks - 1] : 0;
    return m->n_stack - floor >= n ? CINF_OK : fault(m, "stack underflow");
}

static struct pickle_value *top(const struct machine *m)
{
    return &m->stack[m->n_stack - 1];
}

/* Takes the last mark away; *height is where it was. */
static enum cinf_status pop_mark(struct machine *m, size_t *height)
{
    if (m->n_marks == 0)
        return fault(m, "no mark on the stack");
    *height = m->marks[--m->n_marks];
    return CINF_OK;
}

/* Makes one tuple of the values from `height` on. */
static enum cinf_status make_tuple(struct machine *m, size_t height)
{
    struct pickle *p = m->p;
    size_t n = m->n_stack - height;
    struct pickle_value tuple = { .kind = PICKLE_TUPLE, .n = (uint32_t)n, .first = p->n_items };
    TRY(grow(m, &p->items, &p->cap_items, p->n_items + n, sizeof *p->items));
    if (n > 0)
        memcpy(p->items + p->n_items, m->stack + height, n * sizeof *p->items);
    p->n_items += n;
    m->n_stack = height;
    return push(m, tuple);
}

static enum cinf_status push_container(struct machine *m, enum pickle_kind kind)
{
    struct pickle *p = m->p;
    TRY(grow(m, &p->containers, &p->cap_containers, p->n_containers + 1, sizeof *p->containers));
    p->containers[p->n_containers] = (struct pickle_container){ PICKLE_END, PICKLE_END };
    return push(m, (struct pickle_value){ .kind = kind, .first = p->n_containers++ });
}

/* Appends the values from `height` on to the list or dict below them. */
static enum cinf_status fill(struct machine *m, size_t height, enum pickle_kind kind)
{
    struct pickle *p = m->p;
    size_t step = kind == PICKLE_DICT ? 2 : 1;
    size_t floor = m->n_marks ? m->marks[m->n_marks - 1] : 0;
    if (height <= floor)
        return fault(m, "stack underflow");
    if (m->stack[height - 1].kind != kind)
        return fault(m, kind == PICKLE_DICT ? "items are set on something that is not a dict"
                                            : "values are appended to something that is not a list");
    if ((m->n_stack - height) % step != 0)
        return fault(m, "a key without a value");
    struct pickle_container *c = &p->containers[m->stack[height - 1].first];
    for (size_t i = height; i < m->n_stack; i += step) {
        TRY(grow(m, &p->members, &p->cap_members, p->n_members + 1, sizeof *p->members));
        uint32_t index = (uint32_t)p->n_members++;
        p->members[index] =
            (struct pickle_member){ .key = m->stack[i], .value = m->stack[i + step - 1], .next = PICKLE_END };
        if (c->tail == PICKLE_END)
            c->head = index;
        else
            p->members[c->tail].next = index;
        c->tail = index;
    }
    m->n_stack = height;
    return CINF_OK;
}

/* Writers number the memo from 0 without gaps, so an index can ask for no more than one new place. */
static enum cinf_status remember(struct machine *m, uint32_t index)
{
    TRY(need(m, 1));
    if (index > m->n_memo)
        return fault(m, "a memo index out of order");
    if (index == m->n_memo) {
        TRY(grow(m, &m->memo, &m->cap_memo, m->n_memo + 1, sizeof *m->memo));
        m->n_memo++;
    }
    m->memo[index] = *top(m);
    return CINF_OK;
}

/* ---- opcodes that are more than a push --------------------------------------------------------- */

static enum cinf_status op_long(struct machine *m)
{
    uint32_t n;
    struct pickle_value value = { .kind = PICKLE_LONG };
    unsigned char bytes[8];
    TRY(take_number(m, &n, 1));
    if (n > sizeof bytes) {
        TRY(take_text(m, &value, n));
        return push(m, value);
    }
    TRY(take(m, bytes, n));
    bool negative = n > 0 && bytes[n - 1] & 0x80;
    memset(bytes + n, negative ? 0xFF : 0, sizeof bytes - n);
    uint64_t unsigned_value = load_u64(bytes);
    int64_t number;
    memcpy(&number, &unsigned_value, sizeof number);
    return push_number(m, PICKLE_INT, number);
}

static enum cinf_status op_text(struct machine *m)
{
    uint32_t n;
    struct pickle_value value = { .kind = PICKLE_TEXT };
    TRY(take_number(m, &n, 4));
    TRY(take_text(m, &value, n));
    const char *text = pickle_text(m->p, value);
    if (memchr(text, '\0', n) || !utf8_valid(text, n))
        return fault(m, "a string that is not UTF-8 or contains NUL");
    return push(m, value);
}

static enum cinf_status op_global(struct machine *m)
{
    char module[NAME_MAX_BYTES + 1], name[NAME_MAX_BYTES + 1];
    TRY(take_line(m, module));
    TRY(take_line(m, name));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(module, names[i].module) == 0 && strcmp(name, names[i].name) == 0)
            return push_number(m, PICKLE_NAME, (int64_t)i);
    return cinf_fail(CINF_EFORMAT,
                     "%s: pickle: refers to \"%s.%s\" at byte %" PRIu64
                     "; a checkpoint of tensors needs no such name, and nothing is ever executed; "
                     "torch.save(model.state_dict(), \"pytorch_model.bin\") writes one",
                     m->file->path, module, name, position(m));
}

/* "Calls" a known name with a tuple of arguments. */
static enum cinf_status op_reduce(struct machine *m)
{
    TRY(need(m, 2));
    struct pickle_value arguments = m->stack[m->n_stack - 1], callee = m->stack[m->n_stack - 2];
    if (callee.kind != PICKLE_NAME || arguments.kind != PICKLE_TUPLE)
        return fault(m, "a call of something that cannot be called");
    m->n_stack -= 2;
    const struct pickle_value *items = arguments.n ? &m->p->items[arguments.first] : NULL;
    switch (callee.number) {
    case NAME_ORDERED_DICT:
        if (arguments.n == 0)
            return push_container(m, PICKLE_DICT);
        break;
    case NAME_TENSOR:
        arguments.kind = PICKLE_TENSOR;
        return push(m, arguments);
    case NAME_PARAMETER:
        if (arguments.n == 3 && items[0].kind == PICKLE_TENSOR)
            return push(m, items[0]);
        break;
    case NAME_SIZE:
        if (arguments.n == 1 && items[0].kind == PICKLE_TUPLE)
            return push(m, items[0]);
        break;
    default:
        return fault(m, "a storage type is called");
    }
    return cinf_fail(CINF_EFORMAT, "%s: pickle: unexpected arguments for %s at byte %" PRIu64, m->file->path,
                     names[callee.number].name, position(m));
}

/* Drops attributes that are set on an object: the _metadata of a state dict, which changes no tensor. */
static enum cinf_status op_build(struct machine *m)
{
    TRY(need(m, 2));
    if (m->stack[m->n_stack - 2].kind != PICKLE_DICT || top(m)->kind != PICKLE_DICT)
        return fault(m, "attributes are set on something that is not an OrderedDict");
    m->n_stack--;
    return CINF_OK;
}

static enum cinf_status step(struct machine *m, unsigned char op)
{
    uint32_t number;
    size_t height = 0;
    unsigned char ignored[8];
    switch (op) {
    case OP_MARK:
        TRY(grow(m, &m->marks, &m->cap_marks, m->n_marks + 1, sizeof *m->marks));
        m->marks[m->n_marks++] = (uint32_t)m->n_stack;
        return CINF_OK;
    case OP_BININT:
        TRY(take_number(m, &number, 4));
        return push_number(m, PICKLE_INT,
                           number < 0x80000000u ? (int64_t)number : (int64_t)number - 0x100000000);
    case OP_BININT1:
        TRY(take_number(m, &number, 1));
        return push_number(m, PICKLE_INT, number);
    case OP_BININT2:
        TRY(take_number(m, &number, 2));
        return push_number(m, PICKLE_INT, number);
    case OP_LONG1:
        return op_long(m);
    case OP_BINFLOAT:
        TRY(take(m, ignored, 8));
        return push_number(m, PICKLE_FLOAT, 0);
    case OP_NONE:
        return push_number(m, PICKLE_NONE, 0);
    case OP_NEWTRUE:
        return push_number(m, PICKLE_BOOL, 1);
    case OP_NEWFALSE:
        return push_number(m, PICKLE_BOOL, 0);
    case OP_BINUNICODE:
        return op_text(m);
    case OP_GLOBAL:
        return op_global(m);
    case OP_BINPERSID:
        TRY(need(m, 1));
        if (top(m)->kind != PICKLE_TUPLE)
            return fault(m, "a persistent id that is not a tuple");
        top(m)->kind = PICKLE_STORAGE;
        return CINF_OK;
    case OP_REDUCE:
        return op_reduce(m);
    case OP_BUILD:
        return op_build(m);
    case OP_EMPTY_TUPLE:
        return make_tuple(m, m->n_stack);
    case OP_TUPLE1:
    case OP_TUPLE2:
    case OP_TUPLE3:
        number = op - OP_TUPLE1 + 1u;
        TRY(need(m, number));
        return make_tuple(m, m->n_stack - number);
    case OP_TUPLE:
        TRY(pop_mark(m, &height));
        return make_tuple(m, height);
    case OP_EMPTY_LIST:
        return push_container(m, PICKLE_LIST);
    case OP_EMPTY_DICT:
        return push_container(m, PICKLE_DICT);
    case OP_APPEND:
        TRY(need(m, 2));
        return fill(m, m->n_stack - 1, PICKLE_LIST);
    case OP_APPENDS:
        TRY(pop_mark(m, &height));
        return fill(m, height, PICKLE_LIST);
    case OP_SETITEM:
        TRY(need(m, 3));
        return fill(m, m->n_stack - 2, PICKLE_DICT);
    case OP_SETITEMS:
        TRY(pop_mark(m, &height));
        return fill(m, height, PICKLE_DICT);
    case OP_BINPUT:
    case OP_LONG_BINPUT:
        TRY(take_number(m, &number, op == OP_BINPUT ? 1 : 4));
        return remember(m, number);
    case OP_BINGET:
    case OP_LONG_BINGET:
        TRY(take_number(m, &number, op == OP_BINGET ? 1 : 4));
        return number < m->n_memo ? push(m, m->memo[number]) : fault(m, "a memo index that was never set");
    default:
        return cinf_fail(CINF_EFORMAT,
                         "%s: pickle: opcode 0x%02x at byte %" PRIu64 " is none that a state dict needs",
                         m->file->path, op, position(m) - 1);
    }
}

static enum cinf_status run(struct machine *m)
{
    unsigned char op;
    uint32_t protocol = 0;
    TRY(take(m, &op, 1));
    if (op == OP_PROTO)
        TRY(take_number(m, &protocol, 1));
    if (protocol != PROTOCOL)
        return cinf_fail(op == OP_PROTO ? CINF_EUNSUPPORTED : CINF_EFORMAT,
                         "%s: pickle: protocol %u instead of %d at byte %" PRIu64, m->file->path, protocol,
                         PROTOCOL, position(m));
    for (;;) {
        TRY(take(m, &op, 1));
        if (op == OP_STOP)
            break;
        TRY(step(m, op));
    }
    if (m->n_stack != 1 || m->n_marks != 0)
        return fault(m, "ends with something other than one value");
    m->p->result = m->stack[0];
    return CINF_OK;
}

enum cinf_status pickle_load(struct pickle *out, const struct file *file, uint64_t *at, uint64_t end)
{
    struct pickle p = { 0 };
    struct machine m = { .p = &p, .file = file, .at = *at, .end = end };
    if (end - *at > PICKLE_MAX)
        m.end = *at + PICKLE_MAX;
    enum cinf_status status = run(&m);
    mem_free(m.stack);
    mem_free(m.memo);
    mem_free(m.marks);
    if (status != CINF_OK) {
        pickle_free(&p);
        return status;
    }
    *at = position(&m);
    *out = p;
    return CINF_OK;
}

void pickle_free(struct pickle *p)
{
    strbuf_free(&p->text);
    mem_free(p->items);
    mem_free(p->members);
    mem_free(p->containers);
    *p = (struct pickle){ 0 };
}

const char *pickle_text(const struct pickle *p, struct pickle_value text)
{
    return p->text.text + text.first;
}

const char *pickle_storage_dtype(struct pickle_value value)
{
    return value.kind == PICKLE_NAME ? names[value.number].dtype : NULL;
}

const char *pickle_kind_name(struct pickle_value value)
{
    switch ((enum pickle_kind)value.kind) {
    case PICKLE_NONE:
        return "None";
    case PICKLE_BOOL:
        return "a truth value";
    case PICKLE_INT:
    case PICKLE_LONG:
        return "an integer";
    case PICKLE_FLOAT:
        return "a number";
    case PICKLE_TEXT:
        return "a string";
    case PICKLE_TUPLE:
        return "a tuple";
    case PICKLE_LIST:
        return "a list";
    case PICKLE_DICT:
        return "a dict";
    case PICKLE_NAME:
        return "a name";
    case PICKLE_STORAGE:
        return "a storage";
    case PICKLE_TENSOR:
        return "a tensor";
    }
    return "something else";
}
