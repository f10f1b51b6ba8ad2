/* Reference activations, in double. */
#include "kernels/ref/ref.h"

#include <math.h>

static double sigmoid(double x) {
    return 1.0 / (1.0 + exp(-x));
}

double cria_ref_activation(cria_activation_name name, double x) {
    switch (name) {
    case CRIA_ACT_RELU:
        return x < 0 ? 0 : x;
    case CRIA_ACT_GELU:
        return 0.5 * x * erfc(-x * M_SQRT1_2); /* erfc keeps the left tail, where 1 + erf cancels */
    case CRIA_ACT_GELU_TANH:
        return x * sigmoid(2 * sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)); /* (1 + tanh u) / 2 = sigmoid(2u) */
    case CRIA_ACT_SILU:
        return x * sigmoid(x);
    case CRIA_ACT_QUICK_GELU:
        return x * sigmoid(1.702 * x);
    case CRIA_ACT_TANH:
        return tanh(x);
    case CRIA_ACT_SIGMOID:
        return sigmoid(x);
    case CRIA_ACT_RELU2:
        return x < 0 ? 0 : x * x;
    case CRIA_ACT_NONE:
    case CRIA_ACT_COUNT:
        break;
    }
    return x;
}
