/* exact_activation.h - the activations in double precision, each written in another way than in the library.
 */
#ifndef EXACT_ACTIVATION_H
#define EXACT_ACTIVATION_H

#include <check.h>
#include <math.h>

#include <costinfer/checkpoint.h>

enum { ACTIVATIONS = CINF_ACTIVATION_LAPLACE + 1 };

static inline double exact_activation(enum cinf_activation activation, double y)
{
    const double pi = acos(-1);
    switch (activation) {
    case CINF_ACTIVATION_GELU_NEW:
        return 0.5 * y * (1 + tanh(sqrt(2 / pi) * (y + 0.044715 * pow(y, 3))));
    case CINF_ACTIVATION_GELU:
        return y * erfc(-y / sqrt(2)) / 2;
    case CINF_ACTIVATION_RELU:
        return fmax(y, 0);
    case CINF_ACTIVATION_SILU:
        return y / (1 + exp(-y));
    case CINF_ACTIVATION_TANH:
        return tanh(y);
    case CINF_ACTIVATION_GELU_10:
        return fmin(fmax(y * erfc(-y / sqrt(2)) / 2, -10), 10);
    case CINF_ACTIVATION_QUICK_GELU:
        return y * (1 + tanh(0.851 * y)) / 2;
    case CINF_ACTIVATION_MISH: {
        double s = pow(1 + exp(y), 2);
        return isinf(s) ? y : y * (s - 1) / (s + 1);
    }
    case CINF_ACTIVATION_RELU2:
        return pow(fmax(y, 0), 2);
    case CINF_ACTIVATION_RELU6:
        return fmin(fmax(y, 0), 6);
    case CINF_ACTIVATION_SIGMOID:
        return (1 + tanh(y / 2)) / 2;
    case CINF_ACTIVATION_LEAKY_RELU:
        return fmax(y, y / 100);
    case CINF_ACTIVATION_LINEAR:
        return y;
    case CINF_ACTIVATION_LAPLACE:
        return erfc(-(y - 0.707107) / 0.282095 / sqrt(2)) / 2;
    }
    ck_abort_msg("no such activation");
}

#endif
