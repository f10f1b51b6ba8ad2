/* Reverse mode: walks the operators backwards and lets the rule of each give gradients to its inputs. */
#include "parallel/graph/gradient.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct cria_backward {
    cria_graph *graph;
    int tensors;   /* before the first gradient */
    bool *wanted;  /* [tensors] */
    int *gradient; /* [tensors] */
};

cria_graph *cria_backward_graph(cria_backward *backward) {
    return backward->graph;
}

bool cria_backward_wants(const cria_backward *backward, const cria_op *op, int input) {
    return op->input[input] >= 0 && backward->wanted[op->input[input]];
}

/* Tensors' names are cut where they are too long; the buffer spares the compiler's doubts. */
static int add(cria_backward *backward, const cria_op *op, cria_op by, const char *what, int of) {
    char name[96];
    snprintf(name, sizeof name, "%s", cria_graph_tensor(backward->graph, of)->name);
    by.layer = op->layer;
    by.pass = CRIA_PASS_BACKWARD;
    return cria_graph_add(backward->graph, by, "%s %s", what, name);
}

int cria_backward_help(cria_backward *backward, const cria_op *op, cria_op by, const char *what) {
    return add(backward, op, by, what, op->output);
}

void cria_backward_pass(cria_backward *backward, const cria_op *op, int input, int gradient) {
    int tensor = op->input[input], have = backward->gradient[tensor];
    if (have < 0) {
        backward->gradient[tensor] = gradient;
        return;
    }
    cria_op sum = {.kind = CRIA_OP_ADD, .input = {have, gradient, CRIA_NO_TENSOR, CRIA_NO_TENSOR}};
    backward->gradient[tensor] = add(backward, op, sum, "summed gradient of", tensor);
}

void cria_backward_give(cria_backward *backward, const cria_op *op, int input, cria_op by) {
    cria_backward_pass(backward, op, input, add(backward, op, by, "gradient of", op->input[input]));
}

/* What depends on a parameter or on an input that is marked needs a gradient. */
static void find_wanted(cria_backward *backward) {
    const cria_graph *graph = backward->graph;
    for (int t = 0; t < backward->tensors; t++) {
        const cria_tensor *tensor = cria_graph_tensor(graph, t);
        backward->wanted[t] =
            tensor->differentiable || (tensor->kind == CRIA_TENSOR_PARAM && tensor->param != CRIA_PARAM_ROPE_TABLE);
    }
    for (int i = 0; i < cria_graph_ops(graph); i++) {
        const cria_op *op = cria_graph_op(graph, i);
        for (int k = 0; k < CRIA_MAX_INPUTS; k++)
            if (op->input[k] >= 0 && backward->wanted[op->input[k]]) backward->wanted[op->output] = true;
    }
}

static cria_status walk(cria_backward *backward, cria_error *err) {
    for (int i = cria_graph_ops(backward->graph) - 1; i >= 0; i--) {
        cria_op op = *cria_graph_op(backward->graph, i); /* the array moves as it grows */
        int dy = backward->gradient[op.output];
        if (dy < 0 || !backward->wanted[op.output]) continue;
        const cria_op_info *info = cria_op_info_of(op.kind);
        if (!info->gradient)
            return cria_fail(err, CRIA_ERR_UNSUPPORTED, "operator \"%s\" of kind %s has no gradient",
                             cria_graph_tensor(backward->graph, op.output)->name, info->name);
        info->gradient(backward, &op, dy);
        CRIA_TRY(cria_graph_check(backward->graph, err));
    }
    return CRIA_OK;
}

cria_status cria_graph_backward(cria_graph *graph, int output, int seed, int *gradient, cria_error *err) {
    CRIA_TRY(cria_graph_check(graph, err));
    cria_backward backward = {.graph = graph, .tensors = cria_graph_tensors(graph), .gradient = gradient};
    const cria_tensor *out = cria_graph_tensor(graph, output), *with = cria_graph_tensor(graph, seed);
    bool fits = out->dims == with->dims;
    for (int d = 0; fits && d < out->dims; d++)
        fits = out->dim[d].name == with->dim[d].name && out->dim[d].extent == with->dim[d].extent;
    if (!fits)
        return cria_fail(err, CRIA_ERR_ARGUMENT, "the seed \"%s\" does not have the dims of \"%s\"", with->name,
                         out->name);
    backward.wanted = calloc((size_t)backward.tensors, sizeof *backward.wanted);
    if (!backward.wanted) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the gradients of %s", out->name);
    for (int t = 0; t < backward.tensors; t++) gradient[t] = CRIA_NO_TENSOR;
    gradient[output] = seed;
    find_wanted(&backward);
    cria_status status = walk(&backward, err);
    free(backward.wanted);
    return status;
}

cria_status cria_graph_gradient(cria_graph *graph, int loss, int *gradient, cria_error *err) {
    CRIA_TRY(cria_graph_check(graph, err));
    if (cria_graph_tensor(graph, loss)->dims != 0)
        return cria_fail(err, CRIA_ERR_ARGUMENT, "the loss \"%s\" is no scalar", cria_graph_tensor(graph, loss)->name);
    int before = cria_graph_tensors(graph);
    cria_op one = {.kind = CRIA_OP_FILL, .layer = cria_graph_layers(graph), .pass = CRIA_PASS_BACKWARD, .scale = 1};
    int seed = cria_graph_add(graph, one, "seed");
    CRIA_TRY(cria_graph_check(graph, err));
    int *all = malloc((size_t)(before + 1) * sizeof *all);
    if (!all) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the gradients of %d tensors", before);
    cria_status status = cria_graph_backward(graph, loss, seed, all, err);
    memcpy(gradient, all, (size_t)before * sizeof *all);
    free(all);
    return status;
}

/* The layer of the first operator that reads each tensor. */
static void find_layers(const cria_graph *graph, int count, int *layer) {
    for (int t = 0; t < count; t++) layer[t] = -1;
    for (int i = cria_graph_ops(graph) - 1; i >= 0; i--) {
        const cria_op *op = cria_graph_op(graph, i);
        for (int k = 0; k < CRIA_MAX_INPUTS; k++)
            if (op->input[k] >= 0 && op->input[k] < count) layer[op->input[k]] = op->layer;
    }
}

static int add_moment(cria_graph *graph, cria_op op, int parameter, int gradient, bool square, float decay) {
    cria_tensor like = *cria_graph_tensor(graph, parameter);
    const char *what = square ? "variance" : "mean";
    op.kind = CRIA_OP_MOMENT;
    op.rate = 0;
    op.input[0] = cria_graph_tensor_add(graph, CRIA_TENSOR_STATE, like.dims, like.dim, "%s %s", like.name, what);
    op.input[1] = gradient;
    op.square = square;
    op.decay = decay;
    return cria_graph_add(graph, op, "updated %s %s", like.name, what);
}

static void add_update(cria_graph *graph, int parameter, int layer, int gradient, int step,
                       const cria_optimizer *optimizer) {
    cria_op op = {.kind = CRIA_OP_SGD,
                  .layer = layer,
                  .pass = CRIA_PASS_UPDATE,
                  .input = {parameter, gradient, CRIA_NO_TENSOR, CRIA_NO_TENSOR},
                  .rate = optimizer->rate};
    char name[96];
    snprintf(name, sizeof name, "%s", cria_graph_tensor(graph, parameter)->name);
    if (optimizer->kind == CRIA_OPTIMIZER_ADAM) {
        int mean = add_moment(graph, op, parameter, gradient, false, optimizer->beta1);
        int variance = add_moment(graph, op, parameter, gradient, true, optimizer->beta2);
        op.kind = CRIA_OP_ADAM;
        op.input[1] = mean;
        op.input[2] = variance;
        op.input[3] = step;
        op.decay = optimizer->beta1;
        op.decay2 = optimizer->beta2;
        op.eps = optimizer->eps;
    }
    cria_graph_add(graph, op, "updated %s", name);
}

cria_status cria_graph_update(cria_graph *graph, const int *gradient, int count, const cria_optimizer *optimizer,
                              cria_error *err) {
    int step = CRIA_NO_TENSOR;
    if (optimizer->kind == CRIA_OPTIMIZER_ADAM) step = cria_graph_tensor_add(graph, CRIA_TENSOR_INPUT, 0, NULL, "step");
    int *layer = malloc((size_t)(count + 1) * sizeof *layer);
    if (!layer) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the updates of %d tensors", count);
    find_layers(graph, count, layer);
    for (int t = 0; t < count; t++)
        if (cria_graph_tensor(graph, t)->kind == CRIA_TENSOR_PARAM && gradient[t] >= 0)
            add_update(graph, t, layer[t], gradient[t], step, optimizer);
    free(layer);
    return cria_graph_check(graph, err);
}

cria_status cria_graph_train(cria_graph *graph, int loss, const cria_optimizer *optimizer, cria_error *err) {
    int count = cria_graph_tensors(graph);
    int *gradient = malloc((size_t)(count + 1) * sizeof *gradient);
    if (!gradient) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the gradients of %d tensors", count);
    cria_status status = cria_graph_gradient(graph, loss, gradient, err);
    if (status == CRIA_OK) status = cria_graph_update(graph, gradient, count, optimizer, err);
    free(gradient);
    return status;
}
