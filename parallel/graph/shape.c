/* Shape rules: the output dims of every operator kind, and whether its inputs fit. */
#include "parallel/graph/rules.h"

#include <string.h>

const cria_tensor *cria_op_input(const cria_graph *graph, const cria_op *op, int input) {
    return op->input[input] >= 0 ? cria_graph_tensor(graph, op->input[input]) : NULL;
}

static bool same_dim(cria_dim a, cria_dim b) {
    return a.name == b.name && a.extent == b.extent;
}

/* The first `dims` dims of both. */
static bool same_leading(const cria_tensor *a, const cria_tensor *b, int dims) {
    for (int i = 0; i < dims; i++)
        if (!same_dim(a->dim[i], b->dim[i])) return false;
    return true;
}

static bool same_dims(const cria_tensor *a, const cria_tensor *b) {
    return a->dims == b->dims && same_leading(a, b, a->dims);
}

/* Whether `tensor` has the dim; `*clash` is set if it has one of that name with another extent. */
static bool has_dim(const cria_tensor *tensor, cria_dim dim, bool *clash) {
    for (int i = 0; tensor && i < tensor->dims; i++) {
        if (tensor->dim[i].name != dim.name) continue;
        if (tensor->dim[i].extent != dim.extent) *clash = true;
        return true;
    }
    return false;
}

/* Whether no dim of `tensor` is called so: lookups would take an index for a place in the table. */
static bool lacks_name(const cria_tensor *tensor, cria_dim_name name) {
    for (int i = 0; i < tensor->dims; i++)
        if (tensor->dim[i].name == name) return false;
    return true;
}

static void copy_dims(cria_tensor *out, const cria_tensor *from) {
    out->dims = from->dims;
    memcpy(out->dim, from->dim, sizeof out->dim);
}

static bool stated_dims(const cria_op *op, cria_tensor *out) {
    if (op->dims < 0 || op->dims > CRIA_MAX_DIMS) return false;
    out->dims = op->dims;
    memcpy(out->dim, op->dim, sizeof out->dim);
    return true;
}

bool cria_infer_embed(const cria_graph *graph, const cria_op *op, cria_tensor *out) {
    const cria_tensor *ids = cria_op_input(graph, op, 0), *table = cria_op_input(graph, op, 1);
    if (ids->dims >= CRIA_MAX_DIMS || table->dims != 2 || !lacks_name(ids, table->dim[0].name)) return false;
    copy_dims(out, ids);
    out->dim[out->dims++] = table->dim[1];
    return true;
}

bool cria_infer_same(const cria_graph *graph, const cria_op *op, cria_tensor *out) {
    copy_dims(out, cria_op_input(graph, op, 0));
    return out->dims > 0;
}

bool cria_infer_pair(const cria_graph *graph, const cria_op *op, cria_tensor *out) {
    copy_dims(out, cria_op_input(graph, op, 0));
    return same_dims(cria_op_input(graph, op, 0), cria_op_input(graph, op, 1));
}

bool cria_infer_broadcast(const cria_graph *graph, const cria_op *op, cria_tensor *out) {
    const cria_tensor *a = cria_op_input(graph, op, 0), *b = cria_op_input(graph, op, 1);
    copy_dims(out, a);
    bool clash = false;
    for (int i = 0; i < b->dims; i++)
        if (!has_dim(a, b->dim[i], &clash)) return false;
    return !clash;
}

bool cria_norm_over(const cria_op *op, int dims, int d) {
    return op->over ? op->over >> d & 1 : d == dims - 1;
}

static bool norm_vector(const cria_tensor *x, const cria_tensor *vector) {
    return !vector || (vector->dims == 1 && same_dim(vector->dim[0], x->dim[x->dims - 1]));
}

bool cria_infer_norm(const cria_graph *graph, const cria_op *op, cria_tensor *out) {
    const cria_tensor *x = cria_op_input(graph, op, 0);
    copy_dims(out, x);
    return x->dims > 0 && op->over >> x->dims == 0 && norm_vector(x, cria_op_input(graph, op, 1)) &&
           norm_vector(x, cria_op_input(graph, op, 2));
}

bool cria_infer_norm_gradient(const cria_graph *graph, const cria_op *op, cria_tensor *out) {
    const cria_tensor *x = cria_op_input(graph, op, 0);
    return cria_infer_pair(graph, op, out) && x->dims > 0 && op->over >> x->dims == 0 &&
           norm_vector(x, cria_op_input(graph, op, 2));
}

/* x[token, in...], w[out..., in...] -> [token, out...]: the trailing dims of the weight are those of x after the first.
 */
bool cria_infer_linear(const cria_graph *graph, const cria_op *op, cria_tensor *out) {
    const cria_tensor *x = cria_op_input(graph, op, 0), *w = cria_op_input(graph, op, 1),
                      *bias = cria_op_input(graph, op, 2);
    int contracted = x->dims - 1, kept = w->dims - contracted;
    if (contracted < 1 || kept < 1 || kept + 1 > CRIA_MAX_DIMS || (bias && bias->dims != kept)) return false;
    for (int i = 0; i < contracted; i++)
        if (!same_dim(x->dim[1 + i], w->dim[kept + i])) return false;
    out->dims = 1 + kept;
    out->dim[0] = x->dim[0];
    for (int i = 0; i < kept; i++) {
        out->dim[1 + i] = w->dim[i];
        if (bias && !same_dim(bias->dim[i], w->dim[i])) return false;
    }
    return true;
}

bool cria_infer_rope(const cria_graph *graph, const cria_op *op, cria_tensor *out) {
    const cria_tensor *x = cria_op_input(graph, op, 0), *table = cria_op_input(graph, op, 1);
    copy_dims(out, x);
    return x->dims == 3 && table->dims == 2 && same_dim(table->dim[1], x->dim[2]) && x->dim[2].extent % 2 == 0 &&
           lacks_name(x, table->dim[0].name);
}

bool cria_infer_attention(const cria_graph *graph, const cria_op *op, cria_tensor *out) {
    const cria_tensor *q = cria_op_input(graph, op, 0), *k = cria_op_input(graph, op, 1),
                      *v = cria_op_input(graph, op, 2);
    copy_dims(out, q);
    int n = q->dims;
    return (n == 3 || n == 4) && same_dims(k, v) && k->dims == n && same_leading(q, k, n - 2) && op->kv_heads > 0 &&
           q->dim[n - 1].extent == k->dim[n - 1].extent && k->dim[n - 2].extent == op->kv_heads &&
           q->dim[n - 2].extent % op->kv_heads == 0;
}

bool cria_infer_attention_gradient(const cria_graph *graph, const cria_op *op, cria_tensor *out) {
    if (!cria_infer_attention(graph, op, out) || op->which < 0 || op->which > 2) return false;
    copy_dims(out, cria_op_input(graph, op, op->which));
    return same_dims(cria_op_input(graph, op, 0), cria_op_input(graph, op, 3));
}

/* While a batch is made at run time the rows are too; a training step wants every token's. */
bool cria_infer_gather(const cria_graph *graph, const cria_op *op, cria_tensor *out) {
    copy_dims(out, cria_op_input(graph, op, 0));
    out->dim[0].name = CRIA_DIM_ROW;
    return out->dims > 0;
}

bool cria_infer_scatter(const cria_graph *graph, const cria_op *op, cria_tensor *out) {
    const cria_tensor *dy = cria_op_input(graph, op, 0);
    if (!stated_dims(op, out) || out->dims != dy->dims || out->dims < 1) return false;
    for (int i = 1; i < out->dims; i++)
        if (!same_dim(out->dim[i], dy->dim[i])) return false;
    return out->dim[0].extent == dy->dim[0].extent;
}

bool cria_infer_sample(const cria_graph *graph, const cria_op *op, cria_tensor *out) {
    const cria_tensor *logits = cria_op_input(graph, op, 0);
    out->dims = 1;
    out->dim[0] = logits->dim[0];
    return logits->dims == 2;
}

bool cria_infer_einsum(const cria_graph *graph, const cria_op *op, cria_tensor *out) {
    const cria_tensor *a = cria_op_input(graph, op, 0), *b = cria_op_input(graph, op, 1);
    if (!stated_dims(op, out)) return false;
    bool clash = false;
    int names = out->dims;
    for (int i = 0; i < a->dims; i++) names += !has_dim(out, a->dim[i], &clash);
    for (int i = 0; b && i < b->dims; i++) names += !has_dim(out, b->dim[i], &clash) && !has_dim(a, b->dim[i], &clash);
    for (int i = 0; b && i < b->dims; i++) has_dim(a, b->dim[i], &clash);
    return !clash && names <= CRIA_MAX_INDICES;
}

bool cria_infer_fill(const cria_graph *graph, const cria_op *op, cria_tensor *out) {
    (void)graph;
    return stated_dims(op, out);
}

bool cria_reshape_next(const cria_tensor *in, const cria_tensor *out, cria_reshape_run *run) {
    run->in = run->in_end;
    run->out = run->out_end;
    if (run->in >= in->dims && run->out >= out->dims) return false;
    int64_t left = 1, right = 1;
    do {
        /* Dims of extent 1 that stand alone end a run of their own. */
        bool grow_in = run->in_end < in->dims && (left <= right || run->out_end >= out->dims);
        if (grow_in)
            left *= in->dim[run->in_end++].extent;
        else if (run->out_end < out->dims)
            right *= out->dim[run->out_end++].extent;
        else
            return true;
    } while (left != right || run->out == run->out_end);
    return true;
}

bool cria_infer_reshape(const cria_graph *graph, const cria_op *op, cria_tensor *out) {
    const cria_tensor *in = cria_op_input(graph, op, 0);
    if (!stated_dims(op, out)) return false;
    int64_t left = 1, right = 1;
    for (int i = 0; i < in->dims; i++) {
        if (in->dim[i].extent == CRIA_SYMBOLIC) return false;
        left *= in->dim[i].extent;
    }
    for (int i = 0; i < out->dims; i++)
        if (out->dim[i].extent < 1 || __builtin_mul_overflow(right, out->dim[i].extent, &right)) return false;
    return left == right && in->dims > 0 && out->dims > 0 && in->dims + out->dims <= CRIA_MAX_INDICES;
}

bool cria_infer_cross_entropy(const cria_graph *graph, const cria_op *op, cria_tensor *out) {
    const cria_tensor *logits = cria_op_input(graph, op, 0), *labels = cria_op_input(graph, op, 1);
    copy_dims(out, labels);
    return logits->dims == labels->dims + 1 && same_leading(logits, labels, labels->dims);
}

bool cria_infer_cross_entropy_gradient(const cria_graph *graph, const cria_op *op, cria_tensor *out) {
    if (!cria_infer_cross_entropy(graph, op, out) || !same_dims(out, cria_op_input(graph, op, 2))) return false;
    copy_dims(out, cria_op_input(graph, op, 0));
    return true;
}

/* Whether a window of `size` that moves over `in` (padded on both sides) has as many places as `out` has elements. */
static bool window_fits(const cria_op *op, cria_dim in, cria_dim out, int64_t size) {
    if (op->stride < 1 || op->pad < 0 || size < 1 || op->pad >= size) return false;
    int64_t room = in.extent + 2 * (int64_t)op->pad - size;
    return room >= 0 && out.extent == room / op->stride + 1;
}

/* x[n, h, w, in], kernel[out, kh, kw, in], y[n, h', w', out]. */
static bool conv_fits(const cria_op *op, const cria_tensor *x, const cria_tensor *kernel, const cria_tensor *y) {
    return x->dims == 4 && kernel->dims == 4 && y->dims == 4 && same_dim(x->dim[0], y->dim[0]) &&
           lacks_name(x, kernel->dim[1].name) && lacks_name(x, kernel->dim[2].name) &&
           lacks_name(y, kernel->dim[1].name) && lacks_name(y, kernel->dim[2].name) &&
           same_dim(x->dim[3], kernel->dim[3]) && same_dim(kernel->dim[0], y->dim[3]) &&
           window_fits(op, x->dim[1], y->dim[1], kernel->dim[1].extent) &&
           window_fits(op, x->dim[2], y->dim[2], kernel->dim[2].extent);
}

bool cria_infer_conv(const cria_graph *graph, const cria_op *op, cria_tensor *out) {
    return stated_dims(op, out) && conv_fits(op, cria_op_input(graph, op, 0), cria_op_input(graph, op, 1), out);
}

bool cria_infer_conv_input(const cria_graph *graph, const cria_op *op, cria_tensor *out) {
    return stated_dims(op, out) && conv_fits(op, out, cria_op_input(graph, op, 1), cria_op_input(graph, op, 0));
}

bool cria_infer_conv_kernel(const cria_graph *graph, const cria_op *op, cria_tensor *out) {
    return stated_dims(op, out) && conv_fits(op, cria_op_input(graph, op, 0), out, cria_op_input(graph, op, 1));
}

static bool pool_fits(const cria_op *op, const cria_tensor *x, const cria_tensor *y) {
    return x->dims == 4 && y->dims == 4 && same_dim(x->dim[0], y->dim[0]) && same_dim(x->dim[3], y->dim[3]) &&
           window_fits(op, x->dim[1], y->dim[1], op->window) && window_fits(op, x->dim[2], y->dim[2], op->window);
}

bool cria_infer_pool(const cria_graph *graph, const cria_op *op, cria_tensor *out) {
    return stated_dims(op, out) && pool_fits(op, cria_op_input(graph, op, 0), out);
}

bool cria_infer_pool_gradient(const cria_graph *graph, const cria_op *op, cria_tensor *out) {
    copy_dims(out, cria_op_input(graph, op, 0));
    return pool_fits(op, out, cria_op_input(graph, op, 1));
}

bool cria_infer_route(const cria_graph *graph, const cria_op *op, cria_tensor *out) {
    const cria_tensor *gates = cria_op_input(graph, op, 0);
    return stated_dims(op, out) && gates->dims >= 2 && out->dims == gates->dims + 1 &&
           same_leading(out, gates, gates->dims) && op->top >= 1 && op->top <= gates->dim[gates->dims - 1].extent &&
           out->dim[out->dims - 1].extent >= 1;
}

/* The table's gradient: ids[n...], dy[n..., w] -> [rows, w]. */
bool cria_infer_embed_gradient(const cria_graph *graph, const cria_op *op, cria_tensor *out) {
    const cria_tensor *ids = cria_op_input(graph, op, 0), *dy = cria_op_input(graph, op, 1);
    return stated_dims(op, out) && out->dims == 2 && dy->dims == ids->dims + 1 && same_leading(ids, dy, ids->dims) &&
           same_dim(out->dim[1], dy->dim[ids->dims]) && lacks_name(dy, out->dim[0].name);
}

bool cria_infer_adam(const cria_graph *graph, const cria_op *op, cria_tensor *out) {
    return cria_infer_pair(graph, op, out) && same_dims(out, cria_op_input(graph, op, 2)) &&
           cria_op_input(graph, op, 3)->dims == 0;
}
