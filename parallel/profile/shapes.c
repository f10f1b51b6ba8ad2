/* The list of shapes: a model's own, or a grid. */
#include "parallel/profile/shapes.h"

#include <stdlib.h>
#include <string.h>

static bool same(const cria_shape *a, const cria_shape *b) {
    const cria_sample *x = &a->sample, *y = &b->sample;
    return x->operator_kind == y->operator_kind && x->rate == y->rate && x->rows == y->rows &&
           x->columns == y->columns && x->depth == y->depth && x->sequences == y->sequences &&
           x->kv_columns == y->kv_columns && a->head_dim == b->head_dim;
}

static bool add(cria_shapes *s, cria_shape shape) {
    if (shape.sample.sequences == 0) shape.sample.sequences = 1;
    if (shape.sample.kv_columns == 0) shape.sample.kv_columns = shape.sample.columns;
    if (shape.sample.columns < 1 || shape.sample.depth < 1) return true;
    for (int i = 0; i < s->count; i++)
        if (same(&s->shape[i], &shape)) return true;
    if (s->count == s->capacity) {
        int capacity = s->capacity ? 2 * s->capacity : 256;
        cria_shape *bigger = realloc(s->shape, (size_t)capacity * sizeof *bigger);
        if (!bigger) return false;
        s->shape = bigger;
        s->capacity = capacity;
    }
    s->shape[s->count++] = shape;
    return true;
}

typedef struct {
    cria_shapes *out;
    const bool *rates;
    cria_profile_depth depth;
} finder;

/* Every number of rows at which an operator is timed. */
static bool add_rows(const finder *f, cria_op_kind kind, bool typed, int64_t columns, int64_t depth, int64_t head_dim) {
    static const int rows[][10] = {{1, 16, 256}, {1, 4, 16, 64, 512}, {1, 2, 4, 8, 16, 32, 64, 128, 256, 512}};
    static const int counts[] = {3, 5, 10};
    int count = counts[f->depth];
    for (int r = 0; r < CRIA_RATE_COUNT; r++) {
        if (typed ? !f->rates[r] || r == CRIA_RATE_F16 : r > 0) continue;
        for (int i = 0; i < count; i++)
            if (!add(f->out, (cria_shape){{.operator_kind = kind,
                                           .rate = (cria_rate)r,
                                           .rows = rows[f->depth][i],
                                           .columns = (double)columns,
                                           .depth = (double)depth},
                                          head_dim}))
                return false;
    }
    return true;
}

/* Decoding of several sequences, and chunks of one prompt, over contexts. */
static bool add_attention(const finder *f, int64_t heads, int64_t kv_heads, int64_t head_dim) {
    static const int batches[] = {1, 4, 16, 64}, chunks[] = {32, 128, 512};
    bool narrow = false;
    for (int r = 1; r < CRIA_RATE_COUNT; r++) narrow = narrow || f->rates[r];
    for (int type = 0; type < 2; type++) {
        if (type == 0 ? !f->rates[CRIA_RATE_F32] : !narrow) continue;
        cria_sample s = {.operator_kind = CRIA_OP_ATTENTION,
                         .rate = type ? CRIA_RATE_BF16 : CRIA_RATE_F32,
                         .columns = (double)(heads * head_dim),
                         .kv_columns = (double)(kv_heads * head_dim)};
        int first = f->depth == CRIA_PROFILE_BRIEF ? 256 : 32, step = f->depth == CRIA_PROFILE_FULL ? 4 : 8;
        int chunk = f->depth == CRIA_PROFILE_BRIEF ? 2 : 0, most = f->depth == CRIA_PROFILE_BRIEF ? 256 : 2048;
        for (int b = 0; b < 4; b++)
            for (int depth = first; depth <= most; depth *= step) {
                s.rows = s.sequences = batches[b];
                s.depth = depth;
                if (!add(f->out, (cria_shape){s, head_dim})) return false;
            }
        for (int c = chunk; c < 3; c++)
            for (int before = 0; before < most; before += 1024) {
                s.rows = chunks[c];
                s.sequences = 1;
                s.depth = chunks[c] / 2 + before;
                if (!add(f->out, (cria_shape){s, head_dim})) return false;
            }
    }
    return true;
}

static bool add_grid(const finder *f) {
    if (f->depth == CRIA_PROFILE_BRIEF)
        return add_rows(f, CRIA_OP_LINEAR, true, 1024, 1024, 0) && add_attention(f, 9, 3, 64);
    bool few = f->depth == CRIA_PROFILE_QUICK;
    static const int quick[][2] = {{768, 768}, {3072, 768}, {768, 3072}, {32768, 768}};
    static const int full[][2] = {{192, 576},   {768, 384},   {768, 768},   {3072, 768},  {768, 3072},
                                  {2048, 2048}, {8192, 2048}, {2048, 8192}, {32768, 768}, {32768, 2048}};
    static const int heads[][3] = {{12, 12, 64}, {9, 3, 64}, {32, 8, 64}, {32, 32, 64}, {32, 8, 128}};
    static const int widths[] = {576, 768, 2048, 8192};
    bool good = true;
    for (int i = 0; i < (few ? 4 : 10) && good; i++) {
        const int *s = few ? quick[i] : full[i];
        good = add_rows(f, CRIA_OP_LINEAR, true, s[0], s[1], 0);
    }
    for (int i = 0; i < (few ? 2 : 5) && good; i++) good = add_attention(f, heads[i][0], heads[i][1], heads[i][2]);
    for (int i = few ? 1 : 0; i < (few ? 3 : 4) && good; i++)
        good = add_rows(f, CRIA_OP_NORM, true, widths[i], 1, 0) &&
               add_rows(f, CRIA_OP_ACTIVATION, true, widths[i], 1, 0) &&
               add_rows(f, CRIA_OP_MUL, false, widths[i], 1, 0) && add_rows(f, CRIA_OP_ROPE, false, widths[i], 1, 64);
    return good && add_rows(f, CRIA_OP_SAMPLE, false, 32768, 1, 0) && add_rows(f, CRIA_OP_SAMPLE, false, 131072, 1, 0);
}

static int64_t part(int64_t whole, int64_t unit, int parts) {
    int64_t blocks = unit > 0 ? whole / unit : whole;
    return (blocks + parts - 1) / parts * (unit > 0 ? unit : 1);
}

/* The elements of a tensor's rows, without the symbolic dim; the size of its last dim. */
static int64_t width_of(const cria_graph *graph, int tensor, int64_t *last) {
    const cria_tensor *t = cria_graph_tensor(graph, tensor);
    int64_t width = 1;
    for (int d = 0; d < t->dims; d++)
        if (t->dim[d].extent != CRIA_SYMBOLIC) width *= t->dim[d].extent;
    *last = t->dims > 1 ? t->dim[t->dims - 1].extent : 1;
    return width;
}

/* One operator, cut in so many parts. */
static bool add_op(const finder *f, const cria_graph *graph, const cria_op *op, int parts) {
    int64_t last, in_last, width = width_of(graph, op->output, &last);
    bool heads = cria_graph_tensor(graph, op->output)->dims == 3;
    if (op->kind == CRIA_OP_LINEAR) {
        int64_t depth = width_of(graph, op->input[0], &in_last);
        bool in_heads = cria_graph_tensor(graph, op->input[0])->dims == 3;
        return add_rows(f, CRIA_OP_LINEAR, true, part(width, heads ? last : 0, parts), depth, 0) &&
               add_rows(f, CRIA_OP_LINEAR, true, width, part(depth, in_heads ? in_last : 0, parts), 0);
    }
    if (op->kind == CRIA_OP_ATTENTION) {
        int64_t kv = width_of(graph, op->input[1], &in_last) / in_last, group = width / last / kv;
        int64_t kv_part = (kv + parts - 1) / parts;
        return add_attention(f, kv_part * group, kv_part, last);
    }
    if (op->kind == CRIA_OP_ROPE) return add_rows(f, op->kind, false, part(width, last, parts), 1, last);
    if (op->kind == CRIA_OP_SAMPLE) {
        width = width_of(graph, op->input[0], &last);
        return add_rows(f, op->kind, false, part(width, 0, parts), 1, 0);
    }
    if (op->kind == CRIA_OP_NORM || op->kind == CRIA_OP_ACTIVATION)
        return add_rows(f, op->kind, true, part(width, 0, parts), 1, 0);
    return op->kind != CRIA_OP_MUL || add_rows(f, op->kind, false, part(width, 0, parts), 1, 0);
}

bool cria_shapes_find(const cria_graph *graph, const bool *rates, int parts, cria_profile_depth depth,
                      cria_shapes *out) {
    *out = (cria_shapes){0};
    finder f = {out, rates, depth};
    if (depth == CRIA_PROFILE_BRIEF) graph = NULL;
    bool good = graph ? true : add_grid(&f);
    for (int p = 1; graph && p <= parts && good; p *= 2)
        for (int i = 0; i < cria_graph_ops(graph) && good; i++) good = add_op(&f, graph, cria_graph_op(graph, i), p);
    if (graph && good && (parts & (parts - 1)))
        for (int i = 0; i < cria_graph_ops(graph) && good; i++)
            good = add_op(&f, graph, cria_graph_op(graph, i), parts);
    if (!good) cria_shapes_deinit(out);
    return good;
}

void cria_shapes_deinit(cria_shapes *shapes) {
    free(shapes->shape);
    *shapes = (cria_shapes){0};
}
