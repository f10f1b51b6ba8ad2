/* The element-wise functions between linear layers. Plain data. */
#ifndef CRIA_KERNELS_ACTIVATION_H
#define CRIA_KERNELS_ACTIVATION_H

/* Element-wise functions that configs name (transformers' ACT2FN). */
typedef enum {
    CRIA_ACT_NONE,
    CRIA_ACT_RELU,
    CRIA_ACT_GELU,      /* "gelu": exact, with erf */
    CRIA_ACT_GELU_TANH, /* "gelu_new", "gelu_pytorch_tanh", "gelu_fast" (same formula) */
    CRIA_ACT_SILU,      /* "silu", "swish" */
    CRIA_ACT_QUICK_GELU,
    CRIA_ACT_TANH,
    CRIA_ACT_SIGMOID,
    CRIA_ACT_RELU2, /* "relu2": relu(x)^2 */
    CRIA_ACT_COUNT
} cria_activation_name;

#endif
