/* arena.h - many arrays in one block, each named once.
 *
 * A function takes the arrays one after the other; it is called twice.  The first time the arena has no block
 * and only counts; the second time the same calls return the places.  One allocation lies in between, and one
 * free lets go of everything:
 *
 *     static void lay_out(struct arena *arena, struct things *t)
 *     {
 *         t->ids = arena_take(arena, t->n, sizeof *t->ids, 0);
 *         t->sums = arena_take(arena, t->n, sizeof *t->sums, 64);
 *     }
 *
 *     struct arena arena = { 0 };
 *     lay_out(&arena, t);
 *     t->block = mem_new_aligned(64, arena.used, 1);
 *     if (!t->block)
 *         return cinf_fail(CINF_ENOMEM, ...);
 *     arena_begin(&arena, t->block);
 *     lay_out(&arena, t);
 *
 * The arena allocates nothing itself: the block may be zeroed or not, and counted by whom it belongs to. */
#ifndef ARENA_H
#define ARENA_H

#include <stddef.h>

struct arena {
    unsigned char *block; /* NULL: nothing but count */
    size_t used;          /* bytes taken; SIZE_MAX once they cannot be counted, which no allocation fulfils */
};

/* n * size bytes at a multiple of `align`, a power of two; 0: of what any type needs.  The block itself must
 * be aligned to the largest `align`.  NULL while counting. */
void *arena_take(struct arena *arena, size_t n, size_t size, size_t align);

/* From here on arena_take() returns places in `block`, which has the bytes that were counted. */
void arena_begin(struct arena *arena, void *block);

#endif
