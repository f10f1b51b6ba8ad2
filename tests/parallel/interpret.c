/* The interpreter: loop nests over the indices of operators, and own loops for those that look at more than a point. */
#include "tests/parallel/interpret.h"

#include "kernels/ref/ref.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { OUT = CRIA_MAX_INPUTS, OPERANDS = CRIA_MAX_INPUTS + 1, MOST = CRIA_MAX_INDICES };

typedef struct {
    const cria_graph *graph;
    const cria_op *op;
    const double *in[CRIA_MAX_INPUTS];
    double *out;
    cria_op_index index[MOST];
    interpret_range range[MOST];
    int count;
    const cria_tensor *tensor[OPERANDS];
    int64_t stride[OPERANDS][MOST]; /* elements from one value of an index to the next; 0: the operand lacks it */
} job;

int64_t interpret_elements(const cria_tensor *tensor) {
    int64_t elements = 1;
    for (int d = 0; d < tensor->dims; d++) elements *= tensor->dim[d].extent;
    return elements;
}

static int64_t dim_stride(const cria_tensor *tensor, int dim) {
    int64_t stride = 1;
    for (int d = dim + 1; d < tensor->dims; d++) stride *= tensor->dim[d].extent;
    return stride;
}

/* ---- Walking: `mask` says which indices move; the others stay where they are. ---- */

static bool begin_walk(const job *j, unsigned mask, const interpret_range *range, int64_t *at) {
    for (int i = 0; i < j->count; i++) {
        if (!(mask >> i & 1)) continue;
        if (range[i].begin >= range[i].end) return false;
        at[i] = range[i].begin;
    }
    return true;
}

static bool step(const job *j, unsigned mask, const interpret_range *range, int64_t *at) {
    for (int i = j->count - 1; i >= 0; i--) {
        if (!(mask >> i & 1)) continue;
        if (++at[i] < range[i].end) return true;
        at[i] = range[i].begin;
    }
    return false;
}

static int64_t offset(const job *j, int operand, const int64_t *at) {
    int64_t sum = 0;
    for (int i = 0; i < j->count; i++) sum += at[i] * j->stride[operand][i];
    return sum;
}

static unsigned all(const job *j) {
    return (1U << j->count) - 1;
}

/* The indices that the output has. */
static unsigned of_output(const job *j) {
    unsigned mask = 0;
    for (int i = 0; i < j->count; i++)
        if (j->index[i].output >= 0) mask |= 1U << i;
    return mask;
}

/* ---- Operators that are a sum, or one value, at every point of the nest. ---- */

static double activation_slope(cria_activation_name name, double x) {
    double s = 1 / (1 + exp(-x));
    switch (name) {
    case CRIA_ACT_RELU:
        return x > 0;
    case CRIA_ACT_GELU:
        return 0.5 * erfc(-x * M_SQRT1_2) + x * exp(-x * x / 2) / sqrt(2 * M_PI);
    case CRIA_ACT_GELU_TANH: {
        double u = sqrt(2 / M_PI) * (x + 0.044715 * x * x * x), du = sqrt(2 / M_PI) * (1 + 3 * 0.044715 * x * x);
        double t = tanh(u);
        return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * du;
    }
    case CRIA_ACT_SILU:
        return s + x * s * (1 - s);
    case CRIA_ACT_QUICK_GELU:
        s = 1 / (1 + exp(-1.702 * x));
        return s + 1.702 * x * s * (1 - s);
    case CRIA_ACT_TANH:
        return 1 - tanh(x) * tanh(x);
    case CRIA_ACT_SIGMOID:
        return s * (1 - s);
    case CRIA_ACT_RELU2:
        return x > 0 ? 2 * x : 0;
    default:
        return 1;
    }
}

static double adam(const cria_op *op, const double v[4]) {
    double mean = v[1] / (1 - pow(op->decay, v[3])), variance = v[2] / (1 - pow(op->decay2, v[3]));
    return v[0] - op->rate * mean / (sqrt(variance) + op->eps);
}

/* v: the operands at the point; absent ones are 1. */
static double point(const cria_op *op, const double v[4]) {
    switch (op->kind) {
    case CRIA_OP_ADD:
        return v[0] + v[1];
    case CRIA_OP_SUB:
        return v[0] - v[1];
    case CRIA_OP_MUL:
    case CRIA_OP_LINEAR:
        return v[0] * v[1];
    case CRIA_OP_EINSUM:
        return op->scale * v[0] * v[1];
    case CRIA_OP_FILL:
        return op->scale;
    case CRIA_OP_ACTIVATION:
        return cria_ref_activation(op->activation, v[0]);
    case CRIA_OP_ACTIVATION_GRADIENT:
        return v[1] * activation_slope(op->activation, v[0]);
    case CRIA_OP_SGD:
        return v[0] - op->rate * v[1];
    case CRIA_OP_MOMENT:
        return op->decay * v[0] + (1 - op->decay) * (op->square ? v[1] * v[1] : v[1]);
    case CRIA_OP_ADAM:
        return adam(op, v);
    default:
        return v[0];
    }
}

static void run_points(const job *j) {
    int64_t at[MOST] = {0};
    if (!begin_walk(j, all(j), j->range, at)) return;
    unsigned kept = of_output(j);
    do j->out[offset(j, OUT, at)] = 0;
    while (step(j, kept, j->range, at));
    begin_walk(j, all(j), j->range, at);
    int operands = j->op->kind == CRIA_OP_LINEAR ? 2 : CRIA_MAX_INPUTS;
    do {
        double v[4] = {1, 1, 1, 1};
        for (int k = 0; k < operands; k++)
            if (j->in[k]) v[k] = j->in[k][offset(j, k, at)];
        j->out[offset(j, OUT, at)] += point(j->op, v);
    } while (step(j, all(j), j->range, at));
    bool first = j->op->kind == CRIA_OP_LINEAR && j->in[2];
    for (int i = 0; i < j->count; i++) first = first && (j->index[i].output >= 0 || j->range[i].begin == 0);
    if (!first) return;
    begin_walk(j, kept, j->range, at);
    do j->out[offset(j, OUT, at)] += j->in[2][offset(j, 2, at)];
    while (step(j, kept, j->range, at));
}

/* ---- Lookups. ---- */

/* Which index is dim `dim` of an operand. */
static int index_of(const job *j, int operand, int dim) {
    for (int i = 0; i < j->count; i++)
        if ((operand == OUT ? j->index[i].output : j->index[i].input[operand]) == dim) return i;
    assert(false);
    return -1;
}

static void run_embed(const job *j) {
    int rows = index_of(j, 1, 0);
    int64_t at[MOST] = {0};
    unsigned kept = of_output(j);
    if (!begin_walk(j, kept, j->range, at)) return;
    do {
        at[rows] = 0;
        int64_t id = (int64_t)j->in[0][offset(j, 0, at)] + j->op->row_offset;
        bool mine = id >= j->range[rows].begin && id < j->range[rows].end;
        at[rows] = id;
        j->out[offset(j, OUT, at)] = mine ? j->in[1][offset(j, 1, at)] : 0;
    } while (step(j, kept, j->range, at));
}

static void run_embed_gradient(const job *j) {
    int rows = index_of(j, OUT, 0);
    int64_t at[MOST] = {0};
    if (!begin_walk(j, all(j), j->range, at)) return;
    do j->out[offset(j, OUT, at)] = 0;
    while (step(j, of_output(j), j->range, at));
    unsigned walked = all(j) & ~(1U << rows);
    begin_walk(j, walked, j->range, at);
    do {
        at[rows] = 0;
        int64_t id = (int64_t)j->in[0][offset(j, 0, at)] + j->op->row_offset;
        at[rows] = id;
        if (id >= j->range[rows].begin && id < j->range[rows].end)
            j->out[offset(j, OUT, at)] += j->in[1][offset(j, 1, at)];
    } while (step(j, walked, j->range, at));
}

/* x[token, head, head_dim]; the position of a token is its place in its sequence. Halves are rotated against each
 * other. */
static void run_rope(const job *j) {
    int64_t sequence = cria_graph_sequence(j->graph), half = j->tensor[0]->dim[2].extent / 2;
    double way = j->op->backward ? -1 : 1;
    int64_t at[MOST] = {0};
    unsigned walked = 3; /* token and head */
    if (!begin_walk(j, walked, j->range, at)) return;
    do {
        int64_t from = offset(j, 0, at), position = sequence > 0 ? at[0] % sequence : at[0];
        for (int64_t i = 0; i < half; i++) {
            const double *angle = j->in[1] + (position * half + i) * 2, *x = j->in[0] + from;
            j->out[from + i] = x[i] * angle[0] - way * x[i + half] * angle[1];
            j->out[from + i + half] = x[i + half] * angle[0] + way * x[i] * angle[1];
        }
    } while (step(j, walked, j->range, at));
}

/* ---- Statistics: the whole index is read, the part is written. ---- */

static interpret_range whole(int64_t extent) {
    return (interpret_range){0, extent};
}

typedef struct {
    double n, mean, scale, dy, dyx; /* dy and dyx: means of weight * dy, and of that times x normalised */
} moments;

/* x without its mean and over its deviation at a point. */
static double normal(const job *j, const moments *m, const int64_t *at) {
    return (j->in[0][offset(j, 0, at)] - m->mean) * m->scale;
}

static double weighted_dy(const job *j, const int64_t *at) {
    return j->in[1][offset(j, 1, at)] * (j->in[2] ? j->in[2][offset(j, 2, at)] : 1);
}

static moments find_moments(const job *j, unsigned over, const interpret_range *full, int64_t *at) {
    moments m = {0};
    double squares = 0;
    begin_walk(j, over, full, at);
    do {
        m.n++;
        m.mean += j->in[0][offset(j, 0, at)];
    } while (step(j, over, full, at));
    m.mean = j->op->rms ? 0 : m.mean / m.n;
    begin_walk(j, over, full, at);
    do {
        double x = j->in[0][offset(j, 0, at)] - m.mean;
        squares += x * x;
    } while (step(j, over, full, at));
    m.scale = 1 / sqrt(squares / m.n + (double)j->op->eps);
    if (j->op->kind == CRIA_OP_NORM) return m;
    begin_walk(j, over, full, at);
    do {
        m.dy += weighted_dy(j, at) / m.n;
        m.dyx += weighted_dy(j, at) * normal(j, &m, at) / m.n;
    } while (step(j, over, full, at));
    if (j->op->rms) m.dy = 0;
    return m;
}

static void run_norm(const job *j) {
    unsigned over = 0;
    interpret_range full[MOST];
    for (int i = 0; i < j->count; i++) {
        full[i] = whole(j->index[i].dim.extent);
        if (j->index[i].split == CRIA_SPLIT_STATS) over |= 1U << i;
    }
    int64_t at[MOST] = {0};
    unsigned rows = all(j) & ~over;
    if (!begin_walk(j, rows, j->range, at)) return;
    do {
        moments m = find_moments(j, over, full, at);
        if (!begin_walk(j, over, j->range, at)) return;
        do {
            double x = normal(j, &m, at);
            if (j->op->kind == CRIA_OP_NORM)
                x = x * (j->in[1] ? j->in[1][offset(j, 1, at)] : 1) + (j->in[2] ? j->in[2][offset(j, 2, at)] : 0);
            else
                x = m.scale * (weighted_dy(j, at) - m.dy - x * m.dyx);
            j->out[offset(j, OUT, at)] = x;
        } while (step(j, over, j->range, at));
    } while (step(j, rows, j->range, at));
}

/* Rows over the last dim of the first operand. */
static void run_row(const job *j, const int64_t *at, int last, int64_t n) {
    const double *x = j->in[0] + offset(j, 0, at);
    double most = -HUGE_VAL, sum = 0, dot = 0;
    for (int64_t i = 0; i < n; i++) most = fmax(most, x[i]);
    for (int64_t i = 0; i < n; i++) sum += exp(x[i] - most);
    const double *b = j->in[1] ? j->in[1] + offset(j, 1, at) : NULL;
    double *out = j->out + offset(j, OUT, at);
    if (j->op->kind == CRIA_OP_CROSS_ENTROPY) {
        *out = b[0] < 0 ? 0 : most + log(sum) - x[(int64_t)b[0]];
        return;
    }
    if (j->op->kind == CRIA_OP_SOFTMAX_GRADIENT)
        for (int64_t i = 0; i < n; i++) dot += x[i] * b[i];
    for (int64_t i = j->range[last].begin; i < j->range[last].end; i++) {
        double p = exp(x[i] - most) / sum;
        if (j->op->kind == CRIA_OP_SOFTMAX)
            out[i] = p;
        else if (j->op->kind == CRIA_OP_SOFTMAX_GRADIENT)
            out[i] = x[i] * (b[i] - dot);
        else
            out[i] = b[0] < 0 ? 0 : (p - (i == (int64_t)b[0])) * j->in[2][offset(j, 2, at)];
    }
}

static void run_rows(const job *j) {
    int last = index_of(j, 0, j->tensor[0]->dims - 1);
    int64_t at[MOST] = {0};
    unsigned rows = all(j) & ~(1U << last);
    if (!begin_walk(j, rows, j->range, at)) return;
    do run_row(j, at, last, j->tensor[0]->dim[j->tensor[0]->dims - 1].extent);
    while (step(j, rows, j->range, at));
}

/* ---- Attention. ---- */

typedef struct {
    int64_t sequences, length, heads, kv_heads, dim;
} attention_shape;

/* One query head on one sequence. The pointers are at its first token; `apart` is the way to the next token. */
static void run_head(const job *j, const attention_shape *s, const double *q, const double *k, const double *v,
                     const double *dy, double *out) {
    double *p = calloc((size_t)s->length * 2, sizeof *p), *dp = p + s->length;
    int64_t q_apart = s->heads * s->dim, k_apart = s->kv_heads * s->dim, d = s->dim;
    for (int64_t i = 0; i < s->length; i++) {
        double most = -HUGE_VAL, sum = 0, mean = 0;
        for (int64_t t = 0; t <= i; t++) {
            p[t] = 0;
            for (int64_t c = 0; c < d; c++) p[t] += j->op->scale * q[i * q_apart + c] * k[t * k_apart + c];
            most = fmax(most, p[t]);
        }
        for (int64_t t = 0; t <= i; t++) sum += p[t] = exp(p[t] - most);
        for (int64_t t = 0; t <= i; t++) {
            p[t] /= sum;
            dp[t] = 0;
            for (int64_t c = 0; dy && c < d; c++) dp[t] += dy[i * q_apart + c] * v[t * k_apart + c];
            mean += p[t] * dp[t];
        }
        for (int64_t t = 0; t <= i; t++)
            for (int64_t c = 0; c < d; c++) {
                double ds = p[t] * (dp[t] - mean) * j->op->scale;
                if (!dy)
                    out[i * q_apart + c] += p[t] * v[t * k_apart + c];
                else if (j->op->which == 0)
                    out[i * q_apart + c] += ds * k[t * k_apart + c];
                else if (j->op->which == 1)
                    out[t * k_apart + c] += ds * q[i * q_apart + c];
                else
                    out[t * k_apart + c] += p[t] * dy[i * q_apart + c];
            }
    }
    free(p);
}

static void run_attention(const job *j) {
    const cria_tensor *q = j->tensor[0];
    int n = q->dims;
    attention_shape s = {.heads = q->dim[n - 2].extent, .kv_heads = j->op->kv_heads, .dim = q->dim[n - 1].extent};
    int64_t tokens = n == 3 ? q->dim[0].extent : q->dim[0].extent * q->dim[1].extent;
    s.length = n == 4 ? q->dim[1].extent : cria_graph_sequence(j->graph) > 0 ? cria_graph_sequence(j->graph) : tokens;
    s.sequences = tokens / s.length;
    interpret_range sequence = j->range[0], kv = j->range[n - 2];
    if (n == 3) sequence = (interpret_range){sequence.begin / s.length, (sequence.end + s.length - 1) / s.length};
    int64_t group = s.heads / s.kv_heads, q_size = s.length * s.heads * s.dim, k_size = s.length * s.kv_heads * s.dim;
    bool wide = j->op->kind == CRIA_OP_ATTENTION || j->op->which == 0; /* the output has the query heads */
    int64_t out_heads = wide ? s.heads : s.kv_heads, share = wide ? group : 1;
    for (int64_t b = sequence.begin; b < sequence.end; b++) {
        for (int64_t t = 0; t < s.length; t++)
            memset(j->out + ((b * s.length + t) * out_heads + kv.begin * share) * s.dim, 0,
                   (size_t)((kv.end - kv.begin) * share * s.dim) * sizeof(double));
        for (int64_t h = kv.begin * group; h < kv.end * group; h++) {
            int64_t at_q = b * q_size + h * s.dim, at_k = b * k_size + h / group * s.dim;
            run_head(j, &s, j->in[0] + at_q, j->in[1] + at_k, j->in[2] + at_k, j->in[3] ? j->in[3] + at_q : NULL,
                     j->out + (wide ? at_q : at_k));
        }
    }
}

/* ---- Windows over images. ---- */

/* The place in the image that a window at `place` reads with its element `inner`; -1: padding. */
static int64_t image_at(const cria_op *op, int64_t place, int64_t inner, int64_t extent) {
    int64_t at = place * op->stride + inner - op->pad;
    return at < 0 || at >= extent ? -1 : at;
}

/* All convolutions are sums over image, place, window and channels: x * kernel = y, y * kernel = x or x * y = kernel.
 */
static void run_conv(const job *j) {
    int x = 0, kernel = 1, y = OUT;
    if (j->op->kind == CRIA_OP_CONV_INPUT_GRADIENT) x = OUT, y = 0;
    if (j->op->kind == CRIA_OP_CONV_KERNEL_GRADIENT) kernel = OUT, y = 1;
    const cria_dim *xd = j->tensor[x]->dim, *kd = j->tensor[kernel]->dim, *yd = j->tensor[y]->dim;
    interpret_range n = j->range[index_of(j, x, 0)], in = j->range[index_of(j, x, 3)],
                    out = j->range[index_of(j, kernel, 0)];
    /* A window with a stride may pass over places of the image. */
    int64_t places = xd[1].extent * xd[2].extent;
    for (int64_t at = n.begin * places; x == OUT && at < n.end * places; at++)
        for (int64_t i = in.begin; i < in.end; i++) j->out[at * xd[3].extent + i] = 0;
    for (int pass = 0; pass < 2; pass++) /* zeros first, then sums */
        for (int64_t b = n.begin; b < n.end; b++)
            for (int64_t p = 0; p < yd[1].extent * yd[2].extent; p++)
                for (int64_t w = 0; w < kd[1].extent * kd[2].extent; w++) {
                    int64_t h = image_at(j->op, p / yd[2].extent, w / kd[2].extent, xd[1].extent),
                            v = image_at(j->op, p % yd[2].extent, w % kd[2].extent, xd[2].extent);
                    for (int64_t o = out.begin; o < out.end; o++)
                        for (int64_t i = in.begin; i < in.end; i++) {
                            int64_t at[OPERANDS] = {0};
                            at[x] = ((b * xd[1].extent + h) * xd[2].extent + v) * xd[3].extent + i;
                            at[kernel] = (o * kd[1].extent * kd[2].extent + w) * kd[3].extent + i;
                            at[y] = (b * yd[1].extent * yd[2].extent + p) * yd[3].extent + o;
                            bool padding = h < 0 || v < 0;
                            if (padding && (x == OUT || pass == 1)) continue;
                            if (pass == 0)
                                j->out[at[OUT]] = 0;
                            else
                                j->out[at[OUT]] += j->in[0][at[0]] * j->in[1][at[1]];
                        }
                }
}

/* The maximum of each window, or dy at the place of each (the first of equals). */
static void run_pool(const job *j) {
    bool back = j->op->kind == CRIA_OP_POOL_GRADIENT;
    const cria_dim *xd = j->tensor[0]->dim, *yd = back ? j->tensor[1]->dim : j->tensor[OUT]->dim;
    interpret_range n = j->range[index_of(j, 0, 0)], channel = j->range[index_of(j, 0, 3)];
    for (int64_t b = n.begin; b < n.end; b++)
        for (int64_t c = channel.begin; c < channel.end; c++) {
            const double *x = j->in[0] + b * xd[1].extent * xd[2].extent * xd[3].extent + c;
            double *dx = back ? j->out + (x - j->in[0]) : NULL;
            for (int64_t p = 0; back && p < xd[1].extent * xd[2].extent; p++) dx[p * xd[3].extent] = 0;
            for (int64_t p = 0; p < yd[1].extent * yd[2].extent; p++) {
                int64_t best = -1, y = (b * yd[1].extent * yd[2].extent + p) * yd[3].extent + c;
                for (int64_t w = 0; w < (int64_t)j->op->window * j->op->window; w++) {
                    int64_t h = image_at(j->op, p / yd[2].extent, w / j->op->window, xd[1].extent),
                            v = image_at(j->op, p % yd[2].extent, w % j->op->window, xd[2].extent);
                    if (h < 0 || v < 0) continue;
                    int64_t at = (h * xd[2].extent + v) * xd[3].extent;
                    if (best < 0 || x[at] > x[best]) best = at;
                }
                if (back)
                    dx[best] += j->in[1][y];
                else
                    j->out[y] = x[best];
            }
        }
}

/* ---- Others. ---- */

static void run_reshape(const job *j) {
    int64_t n = interpret_elements(j->tensor[OUT]);
    for (int64_t e = 0; e < n; e++) {
        bool mine = true;
        for (int i = 0; i < j->count; i++) {
            int d = j->index[i].output;
            if (d < 0) continue;
            int64_t extent = j->tensor[OUT]->dim[d].extent, at = e / dim_stride(j->tensor[OUT], d) % extent;
            at /= extent / j->index[i].dim.extent;
            mine = mine && at >= j->range[i].begin && at < j->range[i].end;
        }
        if (mine) j->out[e] = j->in[0][e];
    }
}

/* First choices of all tokens come before second choices; a full expert takes no more. */
static void route_group(const job *j, const double *gates, double *out, int64_t tokens, int64_t experts,
                        int64_t slots) {
    int64_t *taken = calloc((size_t)experts, sizeof *taken);
    memset(out, 0, (size_t)(tokens * experts * slots) * sizeof *out);
    for (int choice = 0; choice < j->op->top; choice++)
        for (int64_t t = 0; t < tokens; t++) {
            const double *row = gates + t * experts;
            for (int64_t e = 0; e < experts; e++) {
                int better = 0;
                for (int64_t f = 0; f < experts; f++) better += row[f] > row[e] || (row[f] == row[e] && f < e);
                if (better != choice || taken[e] >= slots) continue;
                out[(t * experts + e) * slots + taken[e]++] = 1;
            }
        }
    free(taken);
}

static void run_route(const job *j) {
    const cria_tensor *out = j->tensor[OUT];
    int n = out->dims;
    int64_t tokens = out->dim[n - 3].extent, experts = out->dim[n - 2].extent, slots = out->dim[n - 1].extent;
    int64_t at[MOST] = {0};
    unsigned groups = (1U << (n - 3)) - 1;
    if (!begin_walk(j, groups, j->range, at)) return;
    do route_group(j, j->in[0] + offset(j, 0, at), j->out + offset(j, OUT, at), tokens, experts, slots);
    while (step(j, groups, j->range, at));
}

static void run_sample(const job *j) {
    int64_t vocab = j->tensor[0]->dim[1].extent;
    for (int64_t r = j->range[0].begin; r < j->range[0].end; r++) {
        const double *row = j->in[0] + r * vocab;
        int64_t best = 0;
        for (int64_t i = 1; i < vocab; i++)
            if (row[i] > row[best]) best = i;
        j->out[r] = (double)best;
    }
}

static void fill_job(job *j, const cria_graph *graph, const cria_op *op, const double *const input[CRIA_MAX_INPUTS],
                     const interpret_range *range, double *output) {
    *j = (job){.graph = graph, .op = op, .out = output};
    j->count = cria_op_indices(graph, op, j->index);
    for (int k = 0; k < OPERANDS; k++) {
        int id = k == OUT ? op->output : op->input[k];
        j->tensor[k] = id < 0 ? NULL : cria_graph_tensor(graph, id);
        if (k != OUT) j->in[k] = id < 0 ? NULL : input[k];
        for (int i = 0; i < j->count; i++) {
            int d = k == OUT ? j->index[i].output : j->index[i].input[k];
            if (!j->tensor[k] || d < 0) continue;
            j->stride[k][i] = dim_stride(j->tensor[k], d) * (j->tensor[k]->dim[d].extent / j->index[i].dim.extent);
        }
    }
    for (int i = 0; i < j->count; i++) j->range[i] = range ? range[i] : whole(j->index[i].dim.extent);
}

void interpret_op(const cria_graph *graph, const cria_op *op, const double *const input[CRIA_MAX_INPUTS],
                  const interpret_range *range, double *output) {
    static void (*const special[CRIA_OP_COUNT])(const job *) = {
        [CRIA_OP_EMBED] = run_embed,
        [CRIA_OP_EMBED_GRADIENT] = run_embed_gradient,
        [CRIA_OP_NORM] = run_norm,
        [CRIA_OP_NORM_GRADIENT] = run_norm,
        [CRIA_OP_ROPE] = run_rope,
        [CRIA_OP_SOFTMAX] = run_rows,
        [CRIA_OP_SOFTMAX_GRADIENT] = run_rows,
        [CRIA_OP_CROSS_ENTROPY] = run_rows,
        [CRIA_OP_CROSS_ENTROPY_GRADIENT] = run_rows,
        [CRIA_OP_ATTENTION] = run_attention,
        [CRIA_OP_ATTENTION_GRADIENT] = run_attention,
        [CRIA_OP_CONV] = run_conv,
        [CRIA_OP_CONV_INPUT_GRADIENT] = run_conv,
        [CRIA_OP_CONV_KERNEL_GRADIENT] = run_conv,
        [CRIA_OP_POOL] = run_pool,
        [CRIA_OP_POOL_GRADIENT] = run_pool,
        [CRIA_OP_RESHAPE] = run_reshape,
        [CRIA_OP_ROUTE] = run_route,
        [CRIA_OP_SAMPLE] = run_sample,
    };
    job j;
    fill_job(&j, graph, op, input, range, output);
    if (special[op->kind])
        special[op->kind](&j);
    else
        run_points(&j);
}
