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
    CINF_ACTIVATION_GELU_10,      /* gelu, held between -10 and 10 */
    CINF_ACTIVATION_QUICK_GELU,   /* x / (1 + exp(-1.702x)) */
    CINF_ACTIVATION_MISH,         /* x tanh(log(1 + exp(x))) */
    CINF_ACTIVATION_RELU2,        /* max(x, 0)^2 */
    CINF_ACTIVATION_RELU6,        /* max(x, 0), at most 6 */
    CINF_ACTIVATION_SIGMOID,      /* 1 / (1 + exp(-x)) */
    CINF_ACTIVATION_LEAKY_RELU,   /* x from 0 on, x/100 below */
    CINF_ACTIVATION_LINEAR,       /* x */
    CINF_ACTIVATION_LAPLACE,      /* normal CDF((x - 0.707107) / 0.282095) */
};

#ifdef __cplusplus
}
#endif
#endif
