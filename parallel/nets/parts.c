/* Parts that several nets are made of. */
#include "parallel/nets/table.h"

#include <string.h>

int cria_network_param(cria_network *net, int dims, const cria_dim *dim, const char *name) {
    return cria_graph_param(net->graph, CRIA_PARAM_PLAIN, dims, dim, "%s", name);
}

int cria_network_einsum(cria_network *net, int a, int b, float scale, int dims, const cria_dim *dim, const char *name) {
    cria_op op = {.kind = CRIA_OP_EINSUM,
                  .layer = net->layer,
                  .input = {a, b, CRIA_NO_TENSOR, CRIA_NO_TENSOR},
                  .scale = scale,
                  .dims = dims};
    memcpy(op.dim, dim, (size_t)dims * sizeof *dim);
    return cria_graph_add(net->graph, op, "%s", name);
}

int cria_network_binary(cria_network *net, cria_op_kind kind, int a, int b, const char *name) {
    cria_op op = {.kind = kind, .layer = net->layer, .input = {a, b, CRIA_NO_TENSOR, CRIA_NO_TENSOR}};
    return cria_graph_add(net->graph, op, "%s", name);
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
    int w = cria_graph_param(net->graph, CRIA_PARAM_PLAIN, kept_count + in, weight, "%s.weight", name);
    int y = cria_network_einsum(net, x, w, 1, stay + kept_count, out, name);
    if (!bias) return y;
    int b = cria_graph_param(net->graph, CRIA_PARAM_PLAIN, kept_count, kept, "%s.bias", name);
    cria_op add = {.kind = CRIA_OP_ADD, .layer = net->layer, .input = {y, b, CRIA_NO_TENSOR, CRIA_NO_TENSOR}};
    return cria_graph_add(net->graph, add, "%s with bias", name);
}
