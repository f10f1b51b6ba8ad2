/* Spans of memory in one walk over the operators. */
#include "parallel/graph/liveness.h"

enum { NOT_MADE = -1 };

/* While walking, span.first is the operator that makes a tensor (NOT_MADE: none) and span.last the last reader. */
static void find_uses(const cria_graph *graph, cria_span *span) {
    for (int t = 0; t < cria_graph_tensors(graph); t++) span[t] = (cria_span){NOT_MADE, NOT_MADE};
    for (int i = 0; i < cria_graph_ops(graph); i++) {
        const cria_op *op = cria_graph_op(graph, i);
        span[op->output].first = i;
        for (int k = 0; k < CRIA_MAX_INPUTS; k++)
            if (op->input[k] >= 0) span[op->input[k]].last = i;
    }
}

static cria_span clip(const cria_tensor *tensor, cria_span use, int first_op, int end_op) {
    const cria_span all = {first_op, end_op - 1}, none = {0, -1};
    if (tensor->kind == CRIA_TENSOR_PARAM || tensor->kind == CRIA_TENSOR_STATE) return all;
    if (tensor->kind == CRIA_TENSOR_VALUE && use.last < 0) use.last = end_op; /* a result */
    if (use.first >= end_op || use.last < first_op) return none;
    if (use.first < first_op) use.first = first_op;
    if (use.last >= end_op) use.last = end_op - 1;
    return use;
}

void cria_graph_liveness(const cria_graph *graph, int first_op, int end_op, int *storage, cria_span *span) {
    int tensors = cria_graph_tensors(graph);
    find_uses(graph, span);
    for (int t = 0; t < tensors; t++) storage[t] = CRIA_NO_TENSOR;
    for (int i = first_op; i < end_op; i++) {
        const cria_op *op = cria_graph_op(graph, i);
        for (int k = 0; k < CRIA_MAX_INPUTS; k++)
            if (op->input[k] >= 0 && storage[op->input[k]] < 0) storage[op->input[k]] = op->input[k];
        int alias = cria_op_alias(op);
        storage[op->output] = alias < 0 ? op->output : storage[op->input[alias]];
    }
    /* What is only passed by (made before, read after) is kept too. */
    for (int t = 0; t < tensors; t++) {
        const cria_tensor *tensor = cria_graph_tensor(graph, t);
        bool passes = tensor->kind == CRIA_TENSOR_VALUE && span[t].first < first_op && span[t].last >= end_op;
        if (passes && storage[t] < 0) storage[t] = t;
    }
    for (int t = 0; t < tensors; t++)
        span[t] = storage[t] == t ? clip(cria_graph_tensor(graph, t), span[t], first_op, end_op) : (cria_span){0, -1};
}
