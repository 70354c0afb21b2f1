/* pickle.h - what a PyTorch state dict needs of Python's pickle format, and nothing else.
 *
 * A closed world: values are plain data, the names a pickle may refer to are a short table of tags, and
 * "calling" one builds a value here.  Nothing is looked up, imported or executed.  An unknown opcode or name
 * ends the reading. */
#ifndef PICKLE_H
#define PICKLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "file.h"
#include "strbuf.h"

enum pickle_kind {
    PICKLE_NONE,
    PICKLE_BOOL,    /* number: 0 or 1 */
    PICKLE_INT,     /* number */
    PICKLE_FLOAT,   /* its value is not kept */
    PICKLE_LONG,    /* an integer above 64 bits: n little-endian bytes at text + first */
    PICKLE_TEXT,    /* n bytes of UTF-8 without NUL, and a NUL, at text + first */
    PICKLE_TUPLE,   /* items[first, first + n) */
    PICKLE_LIST,    /* containers[first] */
    PICKLE_DICT,    /* containers[first]; OrderedDict too */
    PICKLE_NAME,    /* number: which of the known names; see pickle_storage_dtype() */
    PICKLE_STORAGE, /* a persistent id: its tuple, as PICKLE_TUPLE */
    PICKLE_TENSOR,  /* a call of _rebuild_tensor_v2: its arguments, as PICKLE_TUPLE */
};

struct pickle_value {
    uint32_t kind; /* enum pickle_kind */
    uint32_t n;
    union {
        int64_t number;
        uint64_t first;
    };
};

/* A member of a list (key unused) or dict. */
struct pickle_member {
    struct pickle_value key, value;
    uint32_t next; /* members[next], or PICKLE_END */
};

#define PICKLE_END UINT32_MAX

struct pickle_container {
    uint32_t head, tail; /* in members, or PICKLE_END */
};

struct pickle {
    struct pickle_value result;
    struct strbuf text;
    struct pickle_value *items;
    struct pickle_member *members;
    struct pickle_container *containers;
    size_t n_items, cap_items, n_members, cap_members, n_containers, cap_containers;
};

/* Reads one pickle from the file's bytes [*at, end), and sets *at behind it.  Memory is bounded by what was
 * read and by a limit of its own. */
enum cinf_status pickle_load(struct pickle *out, const struct file *file, uint64_t *at, uint64_t end);
void pickle_free(struct pickle *p);

const char *pickle_text(const struct pickle *p, struct pickle_value text);

/* Returns "F32" for the name torch.FloatStorage, and so on; NULL for any other value. */
const char *pickle_storage_dtype(struct pickle_value value);

/* Returns "a dict", "an integer" and the like, for messages. */
const char *pickle_kind_name(struct pickle_value value);

#endif
