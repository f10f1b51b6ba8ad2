/* Parts that several nets are made of. */
#include "parallel/nets/table.h"

#include <stdio.h>
#include <string.h>

cria_dim cria_network_dim(cria_network *net, const char *name, int64_t extent) {
    return (cria_dim){cria_graph_dim(net->graph, name), extent};
}

int cria_network_param(cria_network *net, int dims, const cria_dim *dim, const char *name) {
    return cria_graph_param(net->graph, CRIA_PARAM_PLAIN, dims, dim, "%s", name);
}

int cria_network_input(cria_network *net, int dims, const cria_dim *dim, const char *name) {
    return cria_graph_tensor_add(net->graph, CRIA_TENSOR_INPUT, dims, dim, "%s", name);
}

int cria_network_op(cria_network *net, cria_op op, const char *name) {
    op.layer = net->layer;
    return cria_graph_add(net->graph, op, "%s", name);
}

int cria_network_unary(cria_network *net, cria_op_kind kind, int x, const char *name) {
    return cria_network_binary(net, kind, x, CRIA_NO_TENSOR, name);
}

int cria_network_binary(cria_network *net, cria_op_kind kind, int a, int b, const char *name) {
    return cria_network_op(net, (cria_op){.kind = kind, .input = {a, b, CRIA_NO_TENSOR, CRIA_NO_TENSOR}}, name);
}

int cria_network_activation(cria_network *net, int x, cria_activation_name activation, const char *name) {
    cria_op op = {.kind = CRIA_OP_ACTIVATION, .input = {x}, .activation = activation};
    return cria_network_op(net, op, name);
}

int cria_network_einsum(cria_network *net, int a, int b, float scale, int dims, const cria_dim *dim, const char *name) {
    cria_op op = {
        .kind = CRIA_OP_EINSUM, .input = {a, b, CRIA_NO_TENSOR, CRIA_NO_TENSOR}, .scale = scale, .dims = dims};
    memcpy(op.dim, dim, (size_t)dims * sizeof *dim);
    return cria_network_op(net, op, name);
}

int cria_network_reshape(cria_network *net, int x, int dims, const cria_dim *dim, const char *name) {
    cria_op op = {.kind = CRIA_OP_RESHAPE, .input = {x}, .dims = dims};
    memcpy(op.dim, dim, (size_t)dims * sizeof *dim);
    return cria_network_op(net, op, name);
}

int cria_network_linear(cria_network *net, int x, int in, const cria_dim *kept, int kept_count, bool bias,
                        const char *name) {
    if (x < 0) return CRIA_NO_TENSOR;
    const cria_tensor *from = cria_graph_tensor(net->graph, x);
    cria_dim weight[CRIA_MAX_DIMS], out[CRIA_MAX_DIMS];
    int stay = from->dims - in;
    memcpy(weight, kept, (size_t)kept_count * sizeof *kept);
    memcpy(weight + kept_count, from->dim + stay, (size_t)in * sizeof *kept);
    memcpy(out, from->dim, (size_t)stay * sizeof *out);
    memcpy(out + stay, kept, (size_t)kept_count * sizeof *kept);
    char part[96];
    snprintf(part, sizeof part, "%s.weight", name);
    int w = cria_network_param(net, kept_count + in, weight, part);
    int y = cria_network_einsum(net, x, w, 1, stay + kept_count, out, name);
    if (!bias) return y;
    snprintf(part, sizeof part, "%s.bias", name);
    int b = cria_network_param(net, kept_count, kept, part);
    snprintf(part, sizeof part, "%s with bias", name);
    return cria_network_binary(net, CRIA_OP_ADD, y, b, part);
}

int cria_network_norm(cria_network *net, int x, bool batch, const char *name) {
    if (x < 0) return CRIA_NO_TENSOR;
    const cria_tensor *from = cria_graph_tensor(net->graph, x);
    int dims = from->dims;
    cria_dim last = from->dim[dims - 1];
    char part[96];
    cria_op op = {.kind = CRIA_OP_NORM, .input = {x, 0, 0, CRIA_NO_TENSOR}, .eps = 1e-5F};
    snprintf(part, sizeof part, "%s.weight", name);
    op.input[1] = cria_network_param(net, 1, &last, part);
    snprintf(part, sizeof part, "%s.bias", name);
    op.input[2] = cria_network_param(net, 1, &last, part);
    if (batch) op.over = (1U << (dims - 1)) - 1;
    return cria_network_op(net, op, name);
}

int cria_network_loss(cria_network *net, int logits) {
    if (logits < 0) return CRIA_NO_TENSOR;
    cria_tensor rows = *cria_graph_tensor(net->graph, logits);
    rows.dims--;
    int labels = cria_network_input(net, rows.dims, rows.dim, "labels");
    int each = cria_network_binary(net, CRIA_OP_CROSS_ENTROPY, logits, labels, "cross entropy");
    float scale = 1.0F / (float)cria_tensor_extent(&rows, 0);
    return cria_network_einsum(net, each, CRIA_NO_TENSOR, scale, 0, rows.dim, "loss");
}

cria_status cria_network_train(cria_network *net, int loss, bool adam, cria_error *err) {
    CRIA_TRY(cria_graph_check(net->graph, err));
    cria_optimizer optimizer = {.kind = CRIA_OPTIMIZER_SGD, .rate = 0.01F};
    if (adam)
        optimizer =
            (cria_optimizer){.kind = CRIA_OPTIMIZER_ADAM, .rate = 1e-4F, .beta1 = 0.9F, .beta2 = 0.999F, .eps = 1e-8F};
    return cria_graph_train(net->graph, loss, &optimizer, err);
}
