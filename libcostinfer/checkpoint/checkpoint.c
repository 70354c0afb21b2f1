/* checkpoint.c - a folder or file becomes one table of tensors.
 *
 * A folder's safetensors win over its pickles, and one file wins over shards, as for other readers of these
 * folders.  A file's name decides what it must be: a zip named .safetensors is a mistake to report, not a
 * puzzle to solve.  The files stay open as long as the checkpoint. They are read at offsets and never mapped.
 */
#include <costinfer/checkpoint.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fail.h"
#include "file.h"
#include "file_kind.h"
#include "hub_cache.h"
#include "json.h"
#include "mem.h"
#include "safetensors.h"
#include "strbuf.h"
#include "tensor_table.h"
#include "torch_file.h"

enum {
    SHARDS_MAX = 256,          /* each is an open file */
    INDEX_BYTES_MAX = 1 << 24, /* TENSORS_MAX names and files of about 128 bytes, twice */
    FILE_NAME_MAX = 255,
};

enum kind { SAFETENSORS, TORCH };

struct cinf_checkpoint {
    struct tensor_table table;
    struct file *files;
    size_t n_files;
    size_t n_zip; /* of the files, how many are of torch's zip kind */
    char format[64];
};

static enum cinf_status no_memory(const char *path)
{
    return cinf_fail(CINF_ENOMEM, "%s: no memory for the checkpoint", path);
}

/* Opens one more file, for which there is room, and reads its tensors. */
static enum cinf_status load_file(struct cinf_checkpoint *c, const char *path, enum kind kind)
{
    bool zip = false;
    struct file *f = &c->files[c->n_files];
    TRY(file_open(f, path));
    c->n_files++;
    TRY(kind == SAFETENSORS ? safetensors_load(&c->table, f) : torch_file_load(&c->table, f, &zip));
    c->n_zip += zip;
    return CINF_OK;
}

static void name_format(struct cinf_checkpoint *c, enum kind kind, bool sharded)
{
    const char *name = kind == SAFETENSORS      ? "safetensors"
                       : c->n_zip == c->n_files ? "pytorch zip"
                       : c->n_zip == 0          ? "pytorch legacy"
                                                : "pytorch";
    if (sharded)
        snprintf(c->format, sizeof c->format, "%s, %zu shard%s", name, c->n_files,
                 c->n_files == 1 ? "" : "s");
    else
        snprintf(c->format, sizeof c->format, "%s", name);
}

static enum cinf_status load_single(struct cinf_checkpoint *c, const char *path, enum kind kind)
{
    c->files = mem_new(1, sizeof *c->files);
    if (!c->files)
        return no_memory(path);
    TRY(load_file(c, path, kind));
    TRY(tensor_table_sort(&c->table, 0));
    name_format(c, kind, false);
    return CINF_OK;
}

/* ---- shards ------------------------------------------------------------------------------------ */

/* Whether a name can only mean a file in the same folder. */
static bool plain_name(const char *name)
{
    size_t n = strlen(name);
    if (n == 0 || n > FILE_NAME_MAX || name[0] == '.' || strpbrk(name, "/\\"))
        return false;
    for (; *name; name++)
        if ((unsigned char)*name < 0x20 || *name == 0x7F)
            return false;
    return true;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Lists the different files of the map in order. The array (freed by mem_free) points into the tree. */
static enum cinf_status list_shards(const char ***out, size_t *n_out, const cJSON *map, const char *index,
                                    enum kind kind)
{
    size_t n = 0, unique = 0;
    const cJSON *m;
    cJSON_ArrayForEach(m, map)
    {
        n++;
        if (!cJSON_IsString(m))
            return cinf_fail(CINF_EFORMAT, "%s: tensor \"%.100s\": its file is not a name", index, m->string);
        if (!plain_name(m->valuestring))
            return cinf_fail(CINF_EFORMAT,
                             "%s: tensor \"%.100s\": \"%.100s\" is not the plain name of a file beside it",
                             index, m->string, m->valuestring);
        if (!text_ends_with(m->valuestring, kind == SAFETENSORS ? ".safetensors" : ".bin"))
            return cinf_fail(CINF_EFORMAT, "%s: tensor \"%.100s\": \"%.100s\" is not a %s file", index,
                             m->string, m->valuestring, kind == SAFETENSORS ? ".safetensors" : ".bin");
    }
    const char **names = mem_new(n, sizeof *names);
    if (!names)
        return no_memory(index);
    n = 0;
    cJSON_ArrayForEach(m, map)
    {
        names[n++] = m->valuestring;
    }
    if (n > 1)
        qsort(names, n, sizeof *names, by_text);
    for (size_t i = 0; i < n; i++)
        if (i == 0 || strcmp(names[i], names[unique - 1]) != 0)
            names[unique++] = names[i];
    if (unique == 0 || unique > SHARDS_MAX) {
        mem_free(names);
        return cinf_fail(CINF_EFORMAT, "%s: \"weight_map\" names %zu files, not 1 to %d", index, unique,
                         SHARDS_MAX);
    }
    *out = names;
    *n_out = unique;
    return CINF_OK;
}

static enum cinf_status load_shards(struct cinf_checkpoint *c, const char **names, size_t n,
                                    const char *folder, enum kind kind)
{
    c->files = mem_new(n, sizeof *c->files);
    if (!c->files)
        return no_memory(folder);
    for (size_t i = 0; i < n; i++) {
        char *path = path_join(folder, names[i]);
        if (!path)
            return no_memory(folder);
        enum cinf_status status = load_file(c, path, kind);
        mem_free(path);
        TRY(status);
    }
    return tensor_table_sort(&c->table, 0);
}

/* Checks that each tensor of the map lies in the file that the map names. */
static enum cinf_status check_map(const struct cinf_checkpoint *c, const cJSON *map, const char *index)
{
    const cJSON *m;
    cJSON_ArrayForEach(m, map)
    {
        const struct cinf_tensor *t = cinf_checkpoint_find(c, m->string);
        if (!t)
            return cinf_fail(CINF_EFORMAT, "%s: tensor \"%.100s\": is not in %.100s, nor in another shard",
                             index, m->string, m->valuestring);
        const char *slash = strrchr(t->file, '/');
        if (strcmp(slash ? slash + 1 : t->file, m->valuestring) != 0)
            return cinf_fail(CINF_EFORMAT, "%s: tensor \"%.100s\": is not in %.100s, but in %s", index,
                             m->string, m->valuestring, t->file);
    }
    return CINF_OK;
}

static enum cinf_status load_map(struct cinf_checkpoint *c, const cJSON *tree, const char *index,
                                 const char *folder, enum kind kind)
{
    const char **names = NULL;
    size_t n = 0;
    const cJSON *map = json_member(tree, "weight_map");
    if (!cJSON_IsObject(map))
        return cinf_fail(CINF_EFORMAT, "%s: has no object \"weight_map\"", index);
    TRY(list_shards(&names, &n, map, index, kind));
    enum cinf_status status = load_shards(c, names, n, folder, kind);
    mem_free(names);
    TRY(status);
    TRY(check_map(c, map, index));
    name_format(c, kind, true);
    return CINF_OK;
}

/* Reads {"metadata": …, "weight_map": {TENSOR: FILE}}. The files lie in the index's own folder. */
static enum cinf_status load_index(struct cinf_checkpoint *c, const char *index, enum kind kind)
{
    char *text;
    size_t n;
    cJSON *tree;
    TRY(file_load(&text, &n, index, INDEX_BYTES_MAX));
    const struct json_limits limits = { .values_max = TENSORS_MAX + 1024, .python = true };
    enum cinf_status status = json_parse(&tree, text, n, &limits);
    mem_free(text);
    if (status != CINF_OK)
        return cinf_fail_in(status, "%s: ", index);
    char *folder = mem_copy_text(index);
    if (folder) {
        char *slash = strrchr(folder, '/');
        if (slash)
            slash[1] = '\0';
        status = load_map(c, tree, index, slash ? folder : "", kind);
        mem_free(folder);
    } else {
        status = no_memory(index);
    }
    cJSON_Delete(tree);
    return status;
}

/* ---- what a path means --------------------------------------------------------------------------- */

static const struct {
    const char *name;
    enum kind kind;
    bool index;
} known_files[] = {
    { "model.safetensors", SAFETENSORS, false },
    { "model.safetensors.index.json", SAFETENSORS, true },
    { "pytorch_model.bin", TORCH, false },
    { "pytorch_model.bin.index.json", TORCH, true },
};

/* Files that show what else a folder holds, and what its owner can do. */
static const struct {
    const char *name, *hint;
} other_files[] = {
    { "tf_model.h5", NULL },
    { "flax_model.msgpack", NULL },
    { "rust_model.ot", NULL },
    { "model.ckpt.index", NULL },
    { "ckpt.pt", torch_file_nanogpt },
    { "zero_to_fp32.py",
      "a checkpoint of DeepSpeed; in its folder: python3 zero_to_fp32.py . pytorch_model.bin" },
    { "mp_rank_00_model_states.pt", "a checkpoint of DeepSpeed; rename that file to pytorch_model.bin" },
    { "last.ckpt", "a checkpoint of Lightning; rename that file to pytorch_model.bin" },
    { "adapter_model.safetensors", "an adapter; merge it into its model and save that: merge_and_unload()" },
};

/* Loads folder/name if it exists, which *found tells. */
static enum cinf_status try_file(struct cinf_checkpoint *c, bool *found, const char *folder, const char *name,
                                 enum kind kind, bool index)
{
    char *path = path_join(folder, name);
    if (!path)
        return no_memory(folder);
    enum cinf_status status = CINF_OK;
    *found = path_exists(path);
    if (*found)
        status = index ? load_index(c, path, kind) : load_single(c, path, kind);
    mem_free(path);
    return status;
}

static enum cinf_status load_folder(struct cinf_checkpoint *c, const char *folder)
{
    bool found;
    for (size_t i = 0; i < sizeof known_files / sizeof *known_files; i++) {
        TRY(try_file(c, &found, folder, known_files[i].name, known_files[i].kind, known_files[i].index));
        if (found)
            return CINF_OK;
    }
    for (size_t i = 0; i < sizeof other_files / sizeof *other_files; i++) {
        char *path = path_join(folder, other_files[i].name);
        if (!path)
            return no_memory(folder);
        found = path_exists(path);
        mem_free(path);
        if (found)
            return cinf_fail(
                CINF_ENOTFOUND,
                "%s: holds %s, but neither model.safetensors nor pytorch_model.bin nor an index of "
                "their shards%s%s",
                folder, other_files[i].name, other_files[i].hint ? "; it is " : "",
                other_files[i].hint ? other_files[i].hint : "");
    }
    cinf_fail(CINF_ENOTFOUND,
              "%s: holds neither model.safetensors nor pytorch_model.bin nor an index of their shards",
              folder);
    hub_cache_hint(folder);
    return CINF_ENOTFOUND;
}

static enum cinf_status kind_by_content(enum kind *kind, const char *path)
{
    struct file f;
    TRY(file_open(&f, path));
    const char *is = file_kind(&f);
    file_close(&f);
    if (is != file_kind_safetensors && is != file_kind_torch_zip && is != file_kind_torch_legacy)
        return cinf_fail(CINF_EFORMAT, "%s: is %s, not a checkpoint", path, is ? is : "of an unknown kind");
    *kind = is == file_kind_safetensors ? SAFETENSORS : TORCH;
    return CINF_OK;
}

static enum cinf_status load(struct cinf_checkpoint *c, const char *path)
{
    enum kind kind = SAFETENSORS;
    if (path_is_folder(path))
        return load_folder(c, path);
    if (text_ends_with(path, ".safetensors"))
        return load_single(c, path, SAFETENSORS);
    if (text_ends_with(path, ".bin"))
        return load_single(c, path, TORCH);
    if (text_ends_with(path, ".safetensors.index.json"))
        return load_index(c, path, SAFETENSORS);
    if (text_ends_with(path, ".bin.index.json"))
        return load_index(c, path, TORCH);
    TRY(kind_by_content(&kind, path));
    return load_single(c, path, kind);
}

/* ---- the public calls ---------------------------------------------------------------------------- */

enum cinf_status cinf_checkpoint_open(struct cinf_checkpoint **out, const char *path)
{
    struct cinf_checkpoint *c = mem_new(1, sizeof *c);
    if (!c)
        return no_memory(path);
    enum cinf_status status = load(c, path);
    if (status != CINF_OK) {
        cinf_checkpoint_free(c);
        return status;
    }
    *out = c;
    return CINF_OK;
}

void cinf_checkpoint_free(struct cinf_checkpoint *c)
{
    if (!c)
        return;
    tensor_table_free(&c->table);
    for (size_t i = 0; i < c->n_files; i++)
        file_close(&c->files[i]);
    mem_free(c->files);
    mem_free(c);
}

const char *cinf_checkpoint_format(const struct cinf_checkpoint *c)
{
    return c->format;
}

uint32_t cinf_checkpoint_count(const struct cinf_checkpoint *c)
{
    return (uint32_t)c->table.n;
}

const struct cinf_tensor *cinf_checkpoint_tensor(const struct cinf_checkpoint *c, uint32_t index)
{
    return index < c->table.n ? &c->table.items[index].view : NULL;
}

static int name_of(const void *name, const void *tensor)
{
    return strcmp(name, ((const struct tensor *)tensor)->view.name);
}

const struct cinf_tensor *cinf_checkpoint_find(const struct cinf_checkpoint *c, const char *name)
{
    if (c->table.n == 0)
        return NULL;
    const struct tensor *t = bsearch(name, c->table.items, c->table.n, sizeof *c->table.items, name_of);
    return t ? &t->view : NULL;
}

enum cinf_status cinf_checkpoint_read(const struct cinf_checkpoint *c, const struct cinf_tensor *tensor,
                                      uint64_t first, uint64_t n, void *elements)
{
    (void)c;
    return tensor_read((const struct tensor *)tensor, first, n, elements);
}
