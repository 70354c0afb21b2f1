/* types.h - the kinds of numbers and functions that a checkpoint names and a device computes with.
 *
 * They stand apart so that code which reads checkpoints and code which drives devices can share them without
 * knowing each other.  The values do not change. */
#ifndef COSTINFER_TYPES_H
#define COSTINFER_TYPES_H

#ifdef __cplusplus
extern "C" {
#endif

/* How an element is stored. */
enum cinf_dtype {
    CINF_DTYPE_F32 = 0, /* IEEE 754 binary32 */
    CINF_DTYPE_F16,     /* binary16 */
    CINF_DTYPE_BF16,    /* the upper half of a binary32 */
    CINF_DTYPE_F64,     /* binary64 */
    CINF_DTYPE_OTHER,   /* known to the file format, listed, but not readable as numbers here */
};

/* The function between the two linear layers of a block. */
enum cinf_activation {
    CINF_ACTIVATION_GELU_NEW = 0, /* 0.5x(1 + tanh(sqrt(2/pi)(x + 0.044715x^3))) */
    CINF_ACTIVATION_GELU,         /* x * normal CDF(x), by erf */
    CINF_ACTIVATION_RELU,         /* max(x, 0) */
    CINF_ACTIVATION_SILU,         /* x / (1 + exp(-x)) */
    CINF_ACTIVATION_TANH,         /* hyperbolic tangent */
};

#ifdef __cplusplus
}
#endif
#endif
