/* opencl_layout.h - what kernels and host must agree on.  Both read this file, so it contains only #define.
 *
 * A step is described by one buffer of uint, written once: a header, then arrays of rows_max entries each. */

#define STEP_ROWS         0 /* R */
#define STEP_SPLITS       1 /* pieces that a single row's past is cut into */
#define STEP_SPLIT_LENGTH 2 /* positions of a piece */
#define STEP_MOST         3 /* the largest of STEP_BEST */
#define STEP_HEADER       4

#define STEP_TOKENS      0 /* of row r */
#define STEP_POSITIONS   1
#define STEP_SLOTS       2
#define STEP_WANTED      3 /* rows that want logits, in order */
#define STEP_SINGLES     4 /* rows that attend alone */
#define STEP_TILES       5 /* first rows of runs of one slot that attend together */
#define STEP_TILE_COUNTS 6 /* and how many rows each has */
#define STEP_BEST        7 /* for the i-th row that wants logits: how many of the best; 0: all of them */
#define STEP_ARRAYS      8

#define STEP_ARRAY(step, which, rows_max) ((step) + STEP_HEADER + (which) * (rows_max))

/* Rows of weights and of row buffers are padded with zeros to a multiple of this, so that no product has a
 * tail. */
#define VECTOR 16

/* Logits in a piece that is searched for the best; words that a row's n best take. */
#define PICK_PIECE    1024
#define PICK_WORDS(n) (2 + 2 * (n))
