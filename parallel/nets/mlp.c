/* mlp: square linear layers and a mean-squared loss, the network of Alpa's solver tests. */
#include "parallel/nets/table.h"

#include <stdio.h>
#include <stdlib.h>

enum { LAYERS, HIDDEN, BATCH, BIAS, RELU, LOSS, TRAIN };

/* The gradient of mean((out - y)^2) needs the difference, not the loss: without `loss` that is never computed. */
static cria_status train(cria_network *net, int out, bool loss, cria_error *err) {
    if (out < 0) return cria_graph_check(net->graph, err);
    const cria_tensor like = *cria_graph_tensor(net->graph, out);
    const float scale = 1.0F / (float)cria_tensor_extent(&like, 0);
    int y = cria_network_input(net, like.dims, like.dim, "y");
    int difference = cria_network_binary(net, CRIA_OP_SUB, out, y, "difference");
    if (loss) cria_network_einsum(net, difference, difference, scale, 0, like.dim, "loss");
    int seed = cria_network_einsum(net, difference, CRIA_NO_TENSOR, 2 * scale, like.dims, like.dim, "gradient of loss");
    CRIA_TRY(cria_graph_check(net->graph, err));
    int count = cria_graph_tensors(net->graph);
    int *gradient = malloc((size_t)count * sizeof *gradient);
    if (!gradient) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the gradients");
    cria_status status = cria_graph_backward(net->graph, out, seed, gradient, err);
    const cria_optimizer sgd = {.kind = CRIA_OPTIMIZER_SGD, .rate = 0.01F};
    if (status == CRIA_OK) status = cria_graph_update(net->graph, gradient, count, &sgd, err);
    free(gradient);
    return status;
}

/* Widths alternate between two names, since a square weight needs two. */
static cria_status build(const int64_t *value, cria_graph *graph, cria_error *err) {
    cria_network net = {.graph = graph};
    const cria_dim width[2] = {{cria_graph_dim(graph, "hidden0"), value[HIDDEN]},
                               {cria_graph_dim(graph, "hidden1"), value[HIDDEN]}};
    const cria_dim in[2] = {{CRIA_DIM_BATCH, value[BATCH]}, width[0]};
    int x = cria_network_input(&net, 2, in, "x");
    for (net.layer = 0; net.layer < value[LAYERS]; net.layer++) {
        char name[32];
        snprintf(name, sizeof name, "layer %d", net.layer);
        x = cria_network_linear(&net, x, 1, &width[(net.layer + 1) % 2], 1, value[BIAS], name);
        if (!value[RELU] || net.layer + 1 == value[LAYERS]) continue;
        snprintf(name, sizeof name, "layer %d relu", net.layer);
        x = cria_network_activation(&net, x, CRIA_ACT_RELU, name);
    }
    return value[TRAIN] ? train(&net, x, value[LOSS], err) : CRIA_OK;
}

const cria_network_info cria_network_mlp = {
    .name = "mlp",
    .help = "square linear layers, mean-squared loss against an input y, SGD",
    .key = {[LAYERS] = {"layers", 2, 1, 10000, "linear layers"},
            [HIDDEN] = {"hidden", 128, 1, 1 << 24, "width of every layer"},
            [BATCH] = {"batch", 1024, 1, 1 << 24, "rows of a step"},
            [BIAS] = {"bias", 0, 0, 1, "a bias per layer"},
            [RELU] = {"relu", 0, 0, 1, "ReLU between layers"},
            [LOSS] = {"loss", 0, 0, 1, "the loss itself is computed too, which its gradient does not need"},
            [TRAIN] = {"train", 0, 0, 1, "a whole training step instead of the forward pass"}},
    .build = build,
};
