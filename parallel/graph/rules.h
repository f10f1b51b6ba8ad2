/* Rules: what a row of the operator table (parallel/graph/ops.c) is made of. Private to parallel/graph. */
#ifndef CRIA_PARALLEL_GRAPH_RULES_H
#define CRIA_PARALLEL_GRAPH_RULES_H

#include "parallel/graph/gradient.h"
#include "parallel/graph/index.h"

/* The tensor of an operand; NULL where an optional one is absent. */
const cria_tensor *cria_op_input(const cria_graph *graph, const cria_op *op, int input);
/* Whether dim `d` of a tensor with `dims` dims is one that a norm takes its moments over. */
bool cria_norm_over(const cria_op *op, int dims, int d);
/* Reshapes: a run of dims of x that holds the same elements as a run of dims of the output. Returns false after the
 * last. Start with a zeroed run. */
typedef struct {
    int in, in_end, out, out_end;
} cria_reshape_run;
bool cria_reshape_next(const cria_tensor *in, const cria_tensor *out, cria_reshape_run *run);

/* Output dims (parallel/graph/shape.c). */
typedef bool cria_infer_rule(const cria_graph *graph, const cria_op *op, cria_tensor *out);
cria_infer_rule cria_infer_embed, cria_infer_same, cria_infer_pair, cria_infer_broadcast, cria_infer_norm,
    cria_infer_linear, cria_infer_rope, cria_infer_attention, cria_infer_gather, cria_infer_sample, cria_infer_einsum,
    cria_infer_fill, cria_infer_reshape, cria_infer_cross_entropy, cria_infer_conv, cria_infer_pool, cria_infer_route,
    cria_infer_embed_gradient, cria_infer_norm_gradient, cria_infer_attention_gradient, cria_infer_scatter,
    cria_infer_cross_entropy_gradient, cria_infer_conv_input, cria_infer_conv_kernel, cria_infer_pool_gradient,
    cria_infer_adam;

/* Floating-point operations (parallel/graph/cost.c). */
typedef double cria_flops_rule(const cria_graph *graph, const cria_op *op, int64_t tokens, int64_t context);
cria_flops_rule cria_flops_none, cria_flops_elements, cria_flops_few, cria_flops_many, cria_flops_product,
    cria_flops_attention, cria_flops_attention_gradient;

/* The indices of one operator while they are being found (parallel/graph/index.c). */
typedef struct cria_index_list {
    const cria_graph *graph;
    const cria_op *op;
    cria_op_index *index;
    int count;
} cria_index_list;

typedef void cria_indices_rule(cria_index_list *list);
/* Indices by name: the output's dims are free, those of the inputs that the output does not have are summed over. */
cria_indices_rule cria_indices_by_name;
/* The others change what the names alone would say. `last`: statistics over the last dim of the first input. */
cria_indices_rule cria_indices_norm, cria_indices_rope, cria_indices_attention, cria_indices_gather, cria_indices_last,
    cria_indices_whole, cria_indices_reshape, cria_indices_window, cria_indices_route;

/* Gradients (parallel/graph/derive.c). */
typedef void cria_gradient_rule(cria_backward *backward, const cria_op *op, int dy);
cria_gradient_rule cria_gradient_embed, cria_gradient_add, cria_gradient_mul, cria_gradient_norm, cria_gradient_linear,
    cria_gradient_activation, cria_gradient_rope, cria_gradient_attention, cria_gradient_gather, cria_gradient_einsum,
    cria_gradient_reshape, cria_gradient_whole, cria_gradient_softmax, cria_gradient_cross_entropy, cria_gradient_conv,
    cria_gradient_pool, cria_gradient_zero;

#endif
