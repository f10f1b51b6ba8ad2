/* The operator kinds: one row each with its shape rule and its cost. */
#include "parallel/graph/rules.h"

const cria_tensor *cria_op_input(const cria_graph *graph, const cria_op *op, int input) {
    return op->input[input] >= 0 ? cria_graph_tensor(graph, op->input[input]) : NULL;
}

static bool same_dim(cria_dim a, cria_dim b) {
    return a.name == b.name && a.extent == b.extent;
}

static bool same_dims(const cria_tensor *a, const cria_tensor *b) {
    if (a->dims != b->dims) return false;
    for (int i = 0; i < a->dims; i++)
        if (!same_dim(a->dim[i], b->dim[i])) return false;
    return true;
}

static void copy_dims(cria_tensor *out, const cria_tensor *from) {
    out->dims = from->dims;
    for (int i = 0; i < from->dims; i++) out->dim[i] = from->dim[i];
}

static bool infer_embed(const cria_graph *graph, const cria_op *op, cria_tensor *out) {
    const cria_tensor *ids = cria_op_input(graph, op, 0), *table = cria_op_input(graph, op, 1);
    if (ids->dims != 1 || table->dims != 2) return false;
    out->dims = 2;
    out->dim[0] = ids->dim[0];
    out->dim[1] = table->dim[1];
    return true;
}

static bool infer_pair(const cria_graph *graph, const cria_op *op, cria_tensor *out) {
    copy_dims(out, cria_op_input(graph, op, 0));
    return same_dims(cria_op_input(graph, op, 0), cria_op_input(graph, op, 1));
}

static bool infer_same(const cria_graph *graph, const cria_op *op, cria_tensor *out) {
    copy_dims(out, cria_op_input(graph, op, 0));
    return true;
}

static bool infer_norm(const cria_graph *graph, const cria_op *op, cria_tensor *out) {
    const cria_tensor *x = cria_op_input(graph, op, 0);
    copy_dims(out, x);
    for (int i = 1; i < 3; i++) {
        const cria_tensor *vector = cria_op_input(graph, op, i);
        if (vector && (vector->dims != 1 || !same_dim(vector->dim[0], x->dim[x->dims - 1]))) return false;
    }
    return true;
}

/* x[token, in...], w[out..., in...] -> [token, out...]: the trailing dims of the weight are those of x after the first.
 */
static bool infer_linear(const cria_graph *graph, const cria_op *op, cria_tensor *out) {
    const cria_tensor *x = cria_op_input(graph, op, 0), *w = cria_op_input(graph, op, 1),
                      *bias = cria_op_input(graph, op, 2);
    int contracted = x->dims - 1, kept = w->dims - contracted;
    if (kept < 1 || kept + 1 > CRIA_MAX_DIMS) return false;
    for (int i = 0; i < contracted; i++)
        if (!same_dim(x->dim[1 + i], w->dim[kept + i])) return false;
    out->dims = 1 + kept;
    out->dim[0] = x->dim[0];
    for (int i = 0; i < kept; i++) {
        out->dim[1 + i] = w->dim[i];
        if (bias && !(bias->dims == kept && same_dim(bias->dim[i], w->dim[i]))) return false;
    }
    return true;
}

static bool infer_attention(const cria_graph *graph, const cria_op *op, cria_tensor *out) {
    const cria_tensor *q = cria_op_input(graph, op, 0), *k = cria_op_input(graph, op, 1),
                      *v = cria_op_input(graph, op, 2);
    copy_dims(out, q);
    return q->dims == 3 && same_dims(k, v) && k->dims == 3 && q->dim[2].extent == k->dim[2].extent &&
           k->dim[1].extent == op->kv_heads && q->dim[1].extent % op->kv_heads == 0;
}

static bool infer_gather(const cria_graph *graph, const cria_op *op, cria_tensor *out) {
    copy_dims(out, cria_op_input(graph, op, 0));
    out->dim[0] = (cria_dim){CRIA_DIM_ROW, CRIA_SYMBOLIC};
    return true;
}

static bool infer_sample(const cria_graph *graph, const cria_op *op, cria_tensor *out) {
    const cria_tensor *logits = cria_op_input(graph, op, 0);
    out->dims = 1;
    out->dim[0] = logits->dim[0];
    return logits->dims == 2;
}

static double flops_none(const cria_graph *graph, const cria_op *op, int64_t tokens, int64_t context) {
    (void)graph, (void)op, (void)tokens, (void)context;
    return 0;
}

static double flops_elementwise(const cria_graph *graph, const cria_op *op, int64_t tokens, int64_t context) {
    (void)context;
    return (double)tokens * (double)cria_tensor_extent(cria_op_input(graph, op, 0), 1);
}

static double flops_norm(const cria_graph *graph, const cria_op *op, int64_t tokens, int64_t context) {
    return 5 * flops_elementwise(graph, op, tokens, context);
}

static double flops_linear(const cria_graph *graph, const cria_op *op, int64_t tokens, int64_t context) {
    (void)context;
    return 2.0 * (double)tokens * (double)cria_tensor_extent(cria_op_input(graph, op, 1), 0);
}

static double flops_attention(const cria_graph *graph, const cria_op *op, int64_t tokens, int64_t context) {
    return 4 * flops_elementwise(graph, op, tokens, context) * (double)context;
}

const cria_op_info *cria_op_info_of(cria_op_kind kind) {
    static const cria_op_info table[CRIA_OP_COUNT] = {
        [CRIA_OP_EMBED] = {"embed", 2, 2, infer_embed, flops_none, true, cria_indices_by_name},
        [CRIA_OP_ADD] = {"add", 2, 2, infer_pair, flops_elementwise, true, cria_indices_by_name},
        [CRIA_OP_MUL] = {"mul", 2, 2, infer_pair, flops_elementwise, true, cria_indices_by_name},
        [CRIA_OP_NORM] = {"norm", 1, 3, infer_norm, flops_norm, true, cria_indices_norm},
        [CRIA_OP_LINEAR] = {"linear", 2, 3, infer_linear, flops_linear, true, cria_indices_by_name},
        [CRIA_OP_ACTIVATION] = {"activation", 1, 1, infer_same, flops_elementwise, true, cria_indices_by_name},
        [CRIA_OP_ROPE] = {"rope", 2, 2, infer_same, flops_norm, true, cria_indices_rope},
        [CRIA_OP_ATTENTION] = {"attention", 3, 3, infer_attention, flops_attention, false, cria_indices_attention},
        [CRIA_OP_GATHER] = {"gather", 1, 1, infer_gather, flops_none, true, cria_indices_gather},
        [CRIA_OP_SAMPLE] = {"sample", 1, 1, infer_sample, flops_elementwise, true, cria_indices_sample},
    };
    return &table[kind];
}

const char *cria_dim_to_name(cria_dim_name name) {
    static const char *const names[CRIA_DIM_COUNT] = {"token",   "row",      "hidden", "embed", "head",
                                                      "kv_head", "head_dim", "ffn",    "vocab", "position"};
    return names[name];
}
