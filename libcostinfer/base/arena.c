/* arena.c - see arena.h.
 *
 * AddressSanitizer sees one block, so an array that is overrun would silently write to its neighbour.  In its
 * builds a poisoned gap stands before each array. */
#include "arena.h"

#include <assert.h>
#include <stdint.h>

#include "mem.h"

#if defined(__SANITIZE_ADDRESS__)
#define POISONED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define POISONED 1
#endif
#endif

#ifdef POISONED
#include <sanitizer/asan_interface.h>
enum { GAP = 64 };
#else
enum { GAP = 0 };
#define ASAN_POISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#endif

/* The first multiple of `align` from `used` + GAP on; SIZE_MAX if there is none. */
static size_t place_behind(size_t used, size_t align)
{
    if (used > SIZE_MAX - GAP - align)
        return SIZE_MAX;
    return (used + GAP + align - 1) & ~(align - 1);
}

void *arena_take(struct arena *arena, size_t n, size_t size, size_t align)
{
    align = align ? align : _Alignof(max_align_t);
    assert((align & (align - 1)) == 0);
    const size_t before = arena->used, place = place_behind(before, align);
    size_t bytes;
    if (!mul_size(&bytes, n, size) || bytes > SIZE_MAX - place) {
        assert(!arena->block); /* counting has failed, so there cannot be a block */
        arena->used = SIZE_MAX;
        return NULL;
    }
    arena->used = place + bytes;
    if (!arena->block)
        return NULL;
    assert((uintptr_t)(arena->block + place) % align == 0);
    ASAN_POISON_MEMORY_REGION(arena->block + before, place - before);
    return arena->block + place;
}

void arena_begin(struct arena *arena, void *block)
{
    arena->block = block;
    arena->used = 0;
}
