/* The operator kinds: one row each with its shape rule, its cost, its indices and its gradient. */
#include "parallel/graph/rules.h"

#define ROW(kind, name, least, most, infer, flops, indices, gradient)                                                  \
    [CRIA_OP_##kind] = {name, least, most, cria_infer_##infer, cria_flops_##flops, cria_indices_##indices, gradient}

const cria_op_info *cria_op_info_of(cria_op_kind kind) {
    static const cria_op_info table[CRIA_OP_COUNT] = {
        ROW(EMBED, "embed", 2, 2, embed, none, by_name, cria_gradient_embed),
        ROW(ADD, "add", 2, 2, broadcast, elements, by_name, cria_gradient_add),
        ROW(MUL, "mul", 2, 2, pair, elements, by_name, cria_gradient_mul),
        ROW(NORM, "norm", 1, 3, norm, few, norm, cria_gradient_norm),
        ROW(LINEAR, "linear", 2, 3, linear, product, by_name, cria_gradient_linear),
        ROW(ACTIVATION, "activation", 1, 1, same, elements, by_name, cria_gradient_activation),
        ROW(ROPE, "rope", 2, 2, rope, few, rope, cria_gradient_rope),
        ROW(ATTENTION, "attention", 3, 3, attention, attention, attention, cria_gradient_attention),
        ROW(GATHER, "gather", 1, 1, gather, none, gather, cria_gradient_gather),
        ROW(SAMPLE, "sample", 1, 1, sample, elements, last, NULL),
        ROW(EINSUM, "einsum", 1, 2, einsum, product, by_name, cria_gradient_einsum),
        ROW(SUB, "sub", 2, 2, broadcast, elements, by_name, cria_gradient_add),
        ROW(FILL, "fill", 0, 0, fill, none, by_name, cria_gradient_zero),
        ROW(RESHAPE, "reshape", 1, 1, reshape, none, reshape, cria_gradient_reshape),
        ROW(WHOLE, "whole", 1, 1, same, none, whole, cria_gradient_whole),
        ROW(SOFTMAX, "softmax", 1, 1, same, few, last, cria_gradient_softmax),
        ROW(CROSS_ENTROPY, "cross_entropy", 2, 2, cross_entropy, few, last, cria_gradient_cross_entropy),
        ROW(CONV, "conv", 2, 2, conv, product, window, cria_gradient_conv),
        ROW(POOL, "pool", 1, 1, pool, elements, window, cria_gradient_pool),
        ROW(ROUTE, "route", 1, 1, route, few, route, cria_gradient_zero),
        ROW(EMBED_GRADIENT, "embed_gradient", 2, 2, embed_gradient, none, by_name, NULL),
        ROW(NORM_GRADIENT, "norm_gradient", 2, 3, norm_gradient, many, norm, NULL),
        ROW(ACTIVATION_GRADIENT, "activation_gradient", 2, 2, pair, few, by_name, NULL),
        ROW(ATTENTION_GRADIENT, "attention_gradient", 4, 4, attention_gradient, attention_gradient, attention, NULL),
        ROW(SCATTER, "scatter", 1, 1, scatter, none, gather, NULL),
        ROW(SOFTMAX_GRADIENT, "softmax_gradient", 2, 2, pair, few, last, NULL),
        ROW(CROSS_ENTROPY_GRADIENT, "cross_entropy_gradient", 3, 3, cross_entropy_gradient, few, last, NULL),
        ROW(CONV_INPUT_GRADIENT, "conv_input_gradient", 2, 2, conv_input, product, window, NULL),
        ROW(CONV_KERNEL_GRADIENT, "conv_kernel_gradient", 2, 2, conv_kernel, product, window, NULL),
        ROW(POOL_GRADIENT, "pool_gradient", 2, 2, pool_gradient, elements, window, NULL),
        ROW(SGD, "sgd", 2, 2, pair, elements, by_name, NULL),
        ROW(MOMENT, "moment", 2, 2, pair, elements, by_name, NULL),
        ROW(ADAM, "adam", 4, 4, adam, many, by_name, NULL),
    };
    return &table[kind];
}

int cria_op_alias(const cria_op *op) {
    return op->kind == CRIA_OP_SGD || op->kind == CRIA_OP_MOMENT || op->kind == CRIA_OP_ADAM ? 0 : -1;
}
