/* Costs: floating-point operations and bytes of every operator kind, from its indices. */
#include "parallel/graph/rules.h"

static double extent_of(cria_dim dim, int64_t symbolic) {
    return (double)(dim.extent == CRIA_SYMBOLIC ? symbolic : dim.extent);
}

static double elements(const cria_tensor *tensor, int64_t symbolic) {
    double product = 1;
    for (int d = 0; d < tensor->dims; d++) product *= extent_of(tensor->dim[d], symbolic);
    return product;
}

static double output_elements(const cria_graph *graph, const cria_op *op, int64_t symbolic) {
    return elements(cria_graph_tensor(graph, op->output), symbolic);
}

double cria_flops_none(const cria_graph *graph, const cria_op *op, int64_t tokens, int64_t context) {
    (void)graph, (void)op, (void)tokens, (void)context;
    return 0;
}

/* One operation for every element of the first input. */
double cria_flops_elements(const cria_graph *graph, const cria_op *op, int64_t tokens, int64_t context) {
    (void)context;
    return elements(cria_op_input(graph, op, 0), tokens);
}

/* A handful: norms, softmax, rotation, Adam. */
double cria_flops_few(const cria_graph *graph, const cria_op *op, int64_t tokens, int64_t context) {
    return 5 * cria_flops_elements(graph, op, tokens, context);
}

double cria_flops_many(const cria_graph *graph, const cria_op *op, int64_t tokens, int64_t context) {
    return 12 * cria_flops_elements(graph, op, tokens, context);
}

/* A multiplication and an addition at every point of the loop nest; additions alone where there is one operand, nothing
 * where that is only moved. */
double cria_flops_product(const cria_graph *graph, const cria_op *op, int64_t tokens, int64_t context) {
    (void)context;
    cria_op_index index[CRIA_MAX_INDICES];
    int count = cria_op_indices(graph, op, index);
    double points = 1;
    bool summed = false;
    for (int i = 0; i < count; i++) {
        points *= extent_of(index[i].dim, tokens);
        summed = summed || index[i].output < 0;
    }
    if (op->input[1] < 0) return summed ? points : 0;
    return (summed ? 2 : 1) * points;
}

/* Keys that each query of an attention meets: all of its sequence, as the literature counts (half of them masked). */
static double keys(const cria_graph *graph, const cria_op *op, int64_t context) {
    const cria_tensor *k = cria_op_input(graph, op, 1);
    if (k->dims == 4) return extent_of(k->dim[1], context);
    int64_t sequence = cria_graph_sequence(graph);
    return (double)(sequence > 0 ? sequence : context);
}

double cria_flops_attention(const cria_graph *graph, const cria_op *op, int64_t tokens, int64_t context) {
    return 4 * elements(cria_op_input(graph, op, 0), tokens) * keys(graph, op, context);
}

/* Scores are computed again once (with dv), the gradient of the scores once (with dq): five products in all, as in
 * FlashAttention (Dao et al. 2022). */
double cria_flops_attention_gradient(const cria_graph *graph, const cria_op *op, int64_t tokens, int64_t context) {
    static const double products[3] = {2, 1, 2};
    return 2 * products[op->which] * elements(cria_op_input(graph, op, 0), tokens) * keys(graph, op, context);
}

double cria_op_flops(const cria_graph *graph, const cria_op *op, int64_t symbolic, int64_t context) {
    return cria_op_info_of(op->kind)->flops(graph, op, symbolic, context);
}

/* Lookups touch as many rows as there are ids, not the whole table. */
double cria_op_bytes(const cria_graph *graph, const cria_op *op, int64_t symbolic, double element) {
    double total = output_elements(graph, op, symbolic);
    for (int i = 0; i < CRIA_MAX_INPUTS; i++) {
        const cria_tensor *input = cria_op_input(graph, op, i);
        if (!input) continue;
        bool table = i == 1 && (op->kind == CRIA_OP_EMBED || op->kind == CRIA_OP_ROPE);
        total += table ? output_elements(graph, op, symbolic) : elements(input, symbolic);
    }
    return total * element;
}
