/* The interpreter over whole graphs: arrays, random contents, all operators in order. */
#include "base/random.h"
#include "tests/parallel/interpret.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

double **interpret_create(const cria_graph *graph) {
    int count = cria_graph_tensors(graph), half;
    double **value = calloc((size_t)count + 1, sizeof *value);
    const double *frequency = cria_graph_rope(graph, &half);
    for (int t = 0; t < count; t++) {
        const cria_tensor *tensor = cria_graph_tensor(graph, t);
        int64_t elements = interpret_elements(tensor);
        assert(elements > 0);
        value[t] = calloc((size_t)elements, sizeof **value);
        if (tensor->kind != CRIA_TENSOR_PARAM || tensor->param != CRIA_PARAM_ROPE_TABLE) continue;
        for (int64_t i = 0; i < elements / 2; i++) {
            double angle = (double)(i / half) * frequency[i % half];
            value[t][2 * i] = cos(angle);
            value[t][2 * i + 1] = sin(angle);
        }
    }
    return value;
}

void interpret_destroy(const cria_graph *graph, double **value) {
    if (!value) return;
    for (int t = 0; t < cria_graph_tensors(graph); t++) free(value[t]);
    free(value);
}

static double normal(uint64_t seed, int tensor, int64_t element) {
    uint32_t word[4];
    cria_philox(seed, (uint64_t)element, (uint64_t)tensor, word);
    return sqrt(-2 * log((double)cria_uniform(word[0]))) * cos(2 * M_PI * (double)cria_uniform(word[1]));
}

/* How many ids there are, and the least of them, where a tensor is read as ids; 0: it is not. */
static int64_t ids_of(const cria_graph *graph, int tensor, int64_t *least) {
    for (int i = 0; i < cria_graph_ops(graph); i++) {
        const cria_op *op = cria_graph_op(graph, i);
        bool embed = op->kind == CRIA_OP_EMBED && op->input[0] == tensor;
        bool labels = op->kind == CRIA_OP_CROSS_ENTROPY && op->input[1] == tensor;
        *least = labels ? -1 : 0;
        if (embed) return cria_graph_tensor(graph, op->input[1])->dim[0].extent - op->row_offset;
        const cria_tensor *logits = cria_graph_tensor(graph, op->input[0] < 0 ? 0 : op->input[0]);
        if (labels) return logits->dim[logits->dims - 1].extent;
    }
    return 0;
}

/* Where a norm multiplies by a tensor, numbers near 1 keep its gradients alive; variances are squares. */
static bool is_scale(const cria_graph *graph, int tensor) {
    for (int i = 0; i < cria_graph_ops(graph); i++) {
        const cria_op *op = cria_graph_op(graph, i);
        if (op->kind == CRIA_OP_NORM && op->input[1] == tensor) return true;
        if (op->kind == CRIA_OP_MOMENT && op->square && op->input[0] == tensor) return true;
    }
    return false;
}

void interpret_fill(const cria_graph *graph, double **value, double width, uint64_t seed) {
    for (int t = 0; t < cria_graph_tensors(graph); t++) {
        const cria_tensor *tensor = cria_graph_tensor(graph, t);
        if (tensor->kind == CRIA_TENSOR_VALUE) continue;
        if (tensor->kind == CRIA_TENSOR_PARAM && tensor->param == CRIA_PARAM_ROPE_TABLE) continue;
        int64_t elements = interpret_elements(tensor), least = 0, ids = ids_of(graph, t, &least);
        bool scale = is_scale(graph, t);
        for (int64_t e = 0; e < elements; e++) {
            double x = width * normal(seed, t, e);
            uint32_t word[4];
            cria_philox(seed, (uint64_t)e, (uint64_t)t, word);
            if (ids > 0) x = (double)(least + (int64_t)(word[2] % (uint64_t)(ids - least)));
            if (scale) x = 1 + 0.5 * fabs(x);
            value[t][e] = tensor->dims == 0 && strcmp(tensor->name, "step") == 0 ? 1 : x;
        }
    }
}

void interpret_run(const cria_graph *graph, double **value, int first_op, int end_op) {
    for (int i = first_op; i < end_op; i++) {
        const cria_op *op = cria_graph_op(graph, i);
        const double *input[CRIA_MAX_INPUTS];
        for (int k = 0; k < CRIA_MAX_INPUTS; k++) input[k] = op->input[k] < 0 ? NULL : value[op->input[k]];
        interpret_op(graph, op, input, NULL, value[op->output]);
    }
}
