/* zip_directory.c - from the end of the file to the offsets of its entries.
 *
 *   | local header, bytes | … | central directory | zip64 end, zip64 locator | end record, comment |
 *
 * Sizes come from the central directory: PyTorch leaves them out of the local headers, whose lengths of name
 * and padding are still needed to find an entry's first byte.  The zip64 records hold 64-bit values for those
 * that are all ones elsewhere; PyTorch writes them always, so where both are there they must agree.
 *
 *   end record (22)   0 PK56  4 disk u16  6 directory's disk u16  8 entries here u16  10 entries u16
 *                     12 directory's size u32  16 its offset u32  20 comment's length u16
 *   locator (20)      0 PK67  4 disk u32  8 offset of the zip64 end u64  16 disks u32
 *   zip64 end (56)    0 PK66  4 size - 12 u64  16 disk u32  20 directory's disk u32  24 entries here u64
 *                     32 entries u64  40 directory's size u64  48 its offset u64
 *   entry (46)        0 PK12  8 flags u16  10 method u16  16 checksum u32  20 packed size u32  24 size u32
 *                     28 name's length u16  30 extra's length u16  32 comment's length u16  34 disk u16
 *                     42 local header's offset u32
 *   local header (30) 0 PK34  26 name's length u16  28 extra's length u16 */
#include "zip_directory.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "fail.h"
#include "mem.h"

enum {
    END_SIZE = 22,
    LOCATOR_SIZE = 20,
    END64_SIZE = 56,
    ENTRY_SIZE = 46,
    LOCAL_SIZE = 30,
    ENTRIES_MAX = 200000,
    DIRECTORY_MAX = 1 << 26,
    EXTRA_ZIP64 = 1,
    FLAG_ENCRYPTED = 1,
};

#define END_MAGIC     0x06054b50u
#define LOCATOR_MAGIC 0x07064b50u
#define END64_MAGIC   0x06064b50u
#define ENTRY_MAGIC   0x02014b50u
#define LOCAL_MAGIC   0x04034b50u

static enum cinf_status fault(const struct file *f, const char *what)
{
    return cinf_fail(CINF_EFORMAT, "%s: zip: %s", f->path, what);
}

static enum cinf_status entry_fault(const struct file *f, const struct zip_entry *e, const char *what)
{
    return cinf_fail(CINF_EFORMAT, "%s: zip entry \"%.*s\": %s", f->path,
                     (int)(e->n_name < 100 ? e->n_name : 100), e->name, what);
}

/* Where the end record begins, and its bytes. */
static enum cinf_status find_end(const struct file *f, uint64_t *at, unsigned char end[END_SIZE])
{
    enum { TAIL_MAX = END_SIZE + 65535 };
    size_t n = f->size < TAIL_MAX ? (size_t)f->size : TAIL_MAX;
    unsigned char *tail = mem_new(n, 1);
    if (!tail)
        return cinf_fail(CINF_ENOMEM, "%s: no memory for its last %zu bytes", f->path, n);
    enum cinf_status status = file_read(f, f->size - n, tail, n);
    bool found = false;
    for (size_t i = n; status == CINF_OK && !found && i >= END_SIZE; i--) {
        const unsigned char *p = tail + i - END_SIZE;
        found = load_u32(p) == END_MAGIC && i + load_u16(p + 20) == n;
        if (found) {
            memcpy(end, p, END_SIZE);
            *at = f->size - n + i - END_SIZE;
        }
    }
    mem_free(tail);
    if (status == CINF_OK && !found)
        return fault(f, "has no end record (truncated?)");
    return status;
}

/* A value of the end record, whose zip64 twin must agree unless it is all ones. */
static bool agree(uint64_t small, uint64_t large, uint64_t ones)
{
    return small == ones || small == large;
}

struct extent {
    uint64_t n, size, offset, end; /* of the directory; `end` is where the end records begin */
};

static enum cinf_status find_directory(struct extent *out, const struct file *f)
{
    unsigned char end[END_SIZE] = { 0 }, locator[LOCATOR_SIZE], end64[END64_SIZE];
    struct extent d;
    TRY(find_end(f, &d.end, end));
    d.n = load_u16(end + 10);
    d.size = load_u32(end + 12);
    d.offset = load_u32(end + 16);
    bool one_disk = load_u16(end + 4) == 0 && load_u16(end + 6) == 0 && load_u16(end + 8) == d.n;

    if (d.end >= LOCATOR_SIZE)
        TRY(file_read(f, d.end - LOCATOR_SIZE, locator, LOCATOR_SIZE));
    if (d.end >= LOCATOR_SIZE && load_u32(locator) == LOCATOR_MAGIC) {
        uint64_t at = load_u64(locator + 8), before = d.end - LOCATOR_SIZE;
        if (at > before || before - at < END64_SIZE)
            return fault(f, "its zip64 locator points outside the file");
        TRY(file_read(f, at, end64, END64_SIZE));
        if (load_u32(end64) != END64_MAGIC || load_u64(end64 + 4) != before - at - 12)
            return fault(f, "its zip64 locator points at something else");
        uint64_t n = load_u64(end64 + 32), size = load_u64(end64 + 40), offset = load_u64(end64 + 48);
        if (!agree(d.n, n, 0xFFFF) || !agree(d.size, size, 0xFFFFFFFF) ||
            !agree(d.offset, offset, 0xFFFFFFFF))
            return fault(f, "its end record and its zip64 end record disagree");
        one_disk = load_u32(end64 + 16) == 0 && load_u32(end64 + 20) == 0 && load_u64(end64 + 24) == n;
        d = (struct extent){ .n = n, .size = size, .offset = offset, .end = at };
    }
    if (!one_disk)
        return fault(f, "is spread over several disks");
    if (d.offset > d.end || d.size != d.end - d.offset)
        return cinf_fail(CINF_EFORMAT,
                         "%s: zip: says that its directory has %" PRIu64 " bytes at offset %" PRIu64
                         ", but the end record follows at %" PRIu64,
                         f->path, d.size, d.offset, d.end);
    if (d.n > d.size / ENTRY_SIZE || d.n > ENTRIES_MAX || d.size > DIRECTORY_MAX)
        return cinf_fail(CINF_EFORMAT, "%s: zip: %" PRIu64 " entries in a directory of %" PRIu64 " bytes",
                         f->path, d.n, d.size);
    *out = d;
    return CINF_OK;
}

/* Replaces those of the three values that are all ones by the zip64 extra field's, which lists only them. */
static bool read_extra(const unsigned char *extra, size_t n, uint64_t *values[3])
{
    size_t wanted = 0;
    for (int i = 0; i < 3; i++)
        wanted += *values[i] == 0xFFFFFFFF ? 8 : 0;
    while (wanted > 0 && n >= 4) {
        size_t size = load_u16(extra + 2);
        if (size > n - 4)
            return false;
        if (load_u16(extra) == EXTRA_ZIP64) {
            if (size < wanted)
                return false;
            const unsigned char *from = extra + 4;
            for (int i = 0; i < 3; i++)
                if (*values[i] == 0xFFFFFFFF) {
                    *values[i] = load_u64(from);
                    from += 8;
                }
            return true;
        }
        extra += 4 + size;
        n -= 4 + size;
    }
    return wanted == 0;
}

/* One entry of the directory at `p`, n bytes left; *used is its length. */
static enum cinf_status read_entry(struct zip_entry *e, const struct file *f, const unsigned char *p,
                                   size_t n, size_t *used)
{
    if (n < ENTRY_SIZE || load_u32(p) != ENTRY_MAGIC)
        return fault(f, "its directory is malformed");
    size_t n_name = load_u16(p + 28), n_extra = load_u16(p + 30), n_comment = load_u16(p + 32);
    if (n_name + n_extra + n_comment > n - ENTRY_SIZE)
        return fault(f, "its directory is malformed");
    *used = ENTRY_SIZE + n_name + n_extra + n_comment;
    e->name = (const char *)p + ENTRY_SIZE;
    e->n_name = (uint32_t)n_name;
    uint64_t packed = load_u32(p + 20), size = load_u32(p + 24), at = load_u32(p + 42);
    if (!read_extra(p + ENTRY_SIZE + n_name, n_extra, (uint64_t *[]){ &size, &packed, &at }))
        return entry_fault(f, e, "its zip64 sizes are missing");
    if (load_u16(p + 8) & FLAG_ENCRYPTED)
        return entry_fault(f, e, "is encrypted");
    if (load_u16(p + 10) != 0)
        return entry_fault(f, e, "is compressed; PyTorch stores its checkpoints uncompressed");
    if (packed != size)
        return entry_fault(f, e, "is stored, but its two sizes differ");
    if (load_u16(p + 34) != 0)
        return entry_fault(f, e, "lies on another disk");
    e->crc = load_u32(p + 16);
    e->offset = at; /* of its local header, for now */
    e->size = size;
    return CINF_OK;
}

/* From the local header to the bytes behind it, which must lie before the directory. */
static enum cinf_status find_bytes(struct zip_entry *e, const struct file *f, uint64_t directory)
{
    unsigned char local[LOCAL_SIZE];
    char name[256];
    if (e->offset > directory || directory - e->offset < LOCAL_SIZE)
        return entry_fault(f, e, "its local header lies outside the file");
    TRY(file_read(f, e->offset, local, LOCAL_SIZE));
    uint64_t skip = LOCAL_SIZE + (uint64_t)load_u16(local + 26) + load_u16(local + 28);
    if (load_u32(local) != LOCAL_MAGIC || load_u16(local + 26) != e->n_name)
        return entry_fault(f, e, "its local header is something else");
    if (skip > directory - e->offset || e->size > directory - e->offset - skip)
        return entry_fault(f, e, "its bytes lie outside the file");
    for (uint32_t i = 0; i < e->n_name; i += sizeof name) {
        size_t n = e->n_name - i < sizeof name ? e->n_name - i : sizeof name;
        TRY(file_read(f, e->offset + LOCAL_SIZE + i, name, n));
        if (memcmp(name, e->name + i, n) != 0)
            return entry_fault(f, e, "its local header has another name");
    }
    e->offset += skip;
    return CINF_OK;
}

static int by_offset(const void *a, const void *b)
{
    const struct zip_entry *x = a, *y = b;
    return x->offset != y->offset ? (x->offset < y->offset ? -1 : 1)
                                  : (x->size > y->size) - (x->size < y->size);
}

static int compare_names(const char *a, size_t n_a, const char *b, size_t n_b)
{
    int order = memcmp(a, b, n_a < n_b ? n_a : n_b);
    return order ? order : (n_a > n_b) - (n_a < n_b);
}

static int by_name(const void *a, const void *b)
{
    const struct zip_entry *x = a, *y = b;
    return compare_names(x->name, x->n_name, y->name, y->n_name);
}

static enum cinf_status read_entries(struct zip_directory *zip, const struct file *f, const struct extent *d)
{
    size_t at = 0;
    TRY(file_read(f, d->offset, zip->bytes, (size_t)d->size));
    for (size_t i = 0, used = 0; i < zip->n; i++, at += used) {
        TRY(read_entry(&zip->entries[i], f, (unsigned char *)zip->bytes + at, (size_t)d->size - at, &used));
        TRY(find_bytes(&zip->entries[i], f, d->offset));
    }
    if (at != d->size)
        return fault(f, "its directory has bytes beyond its entries");
    if (zip->n < 2)
        return CINF_OK;
    qsort(zip->entries, zip->n, sizeof *zip->entries, by_offset);
    for (size_t i = 1; i < zip->n; i++)
        if (zip->entries[i].offset - zip->entries[i - 1].offset < zip->entries[i - 1].size)
            return entry_fault(f, &zip->entries[i], "overlaps another entry");
    qsort(zip->entries, zip->n, sizeof *zip->entries, by_name);
    for (size_t i = 1; i < zip->n; i++)
        if (by_name(&zip->entries[i - 1], &zip->entries[i]) == 0)
            return entry_fault(f, &zip->entries[i], "occurs twice");
    return CINF_OK;
}

enum cinf_status zip_directory_read(struct zip_directory *out, const struct file *f)
{
    struct extent d = { 0 };
    TRY(find_directory(&d, f));
    struct zip_directory zip = { .n = (size_t)d.n };
    zip.entries = mem_new(zip.n, sizeof *zip.entries);
    zip.bytes = mem_new((size_t)d.size, 1);
    enum cinf_status status = CINF_OK;
    if (!zip.entries || !zip.bytes)
        status = cinf_fail(CINF_ENOMEM, "%s: no memory for a zip directory of %zu entries", f->path, zip.n);
    if (status == CINF_OK)
        status = read_entries(&zip, f, &d);
    if (status != CINF_OK) {
        zip_directory_free(&zip);
        return status;
    }
    *out = zip;
    return CINF_OK;
}

void zip_directory_free(struct zip_directory *zip)
{
    mem_free(zip->entries);
    mem_free(zip->bytes);
    *zip = (struct zip_directory){ 0 };
}

struct zip_entry *zip_directory_find(const struct zip_directory *zip, const char *name, size_t n_name)
{
    for (size_t low = 0, high = zip->n; low < high;) {
        size_t middle = low + (high - low) / 2;
        struct zip_entry *e = &zip->entries[middle];
        int order = compare_names(name, n_name, e->name, e->n_name);
        if (order == 0)
            return e;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

enum cinf_status zip_entry_check(struct zip_entry *entry, const struct file *f, struct zip_checker *checker)
{
    uint32_t sum = 0;
    for (uint64_t at = 0, n; !entry->intact && entry->crc != 0 && at < entry->size; at += n) {
        n = entry->size - at < sizeof checker->bytes ? entry->size - at : sizeof checker->bytes;
        TRY(file_read(f, entry->offset + at, checker->bytes, (size_t)n));
        sum = crc32_add(&checker->crc, sum, checker->bytes, (size_t)n);
    }
    entry->intact = entry->intact || sum == entry->crc;
    return CINF_OK;
}
