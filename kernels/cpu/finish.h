/* The epilogue of a linear layer in the width of the including file's instruction set. */
#ifndef CRIA_KERNELS_CPU_FINISH_H
#define CRIA_KERNELS_CPU_FINISH_H

#include "kernels/cpu/activation.h"
#include "kernels/cpu/linear.h"

/* Outputs [row, row + count) of every token of the tile, count <= LANES; `sums` points at the first of them. */
VECTOR_INLINE void finish_lanes(const cria_linear_args *args, int64_t row, int64_t count, int64_t first_token,
                                int64_t tokens, const float *sums, cria_activation_name activation) {
    vf bias = args->bias ? vf_load_first(args->bias + row, count) : vf_set(0);
    float *out = args->out + first_token * args->out_stride + row;
    const float *residual = args->residual ? args->residual + first_token * args->residual_stride + row : NULL;
    for (int64_t t = 0; t < tokens; t++, out += args->out_stride, sums += CRIA_PANEL_ROWS) {
        vf value = vf_activation(activation, vf_load(sums) + bias);
        if (residual) {
            value = value + vf_load_first(residual, count);
            residual += args->residual_stride;
        }
        vf_store_first(out, count, value);
    }
}

/* The switch stands outside the loop over tokens, so that each loop holds one activation. */
VECTOR_INLINE void finish_panel(const cria_linear_args *args, int64_t first_row, int64_t first_token, int64_t tokens,
                                const float *sums) {
    int64_t rows = args->weight->rows - first_row;
    if (rows > CRIA_PANEL_ROWS) rows = CRIA_PANEL_ROWS;
    for (int64_t r = 0; r < rows; r += LANES) {
        int64_t count = rows - r < LANES ? rows - r : LANES;
        switch (args->activation) {
#define CASE(name)                                                                                                     \
    case name:                                                                                                         \
        finish_lanes(args, first_row + r, count, first_token, tokens, sums + r, name);                                 \
        break;
            CASE(CRIA_ACT_NONE)
            CASE(CRIA_ACT_RELU)
            CASE(CRIA_ACT_GELU)
            CASE(CRIA_ACT_GELU_TANH)
            CASE(CRIA_ACT_SILU)
            CASE(CRIA_ACT_QUICK_GELU)
            CASE(CRIA_ACT_TANH)
            CASE(CRIA_ACT_SIGMOID)
            CASE(CRIA_ACT_RELU2)
#undef CASE
        case CRIA_ACT_COUNT:
            break;
        }
    }
}

#endif
