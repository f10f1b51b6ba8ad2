/* The indices of every operator kind: found by the names of dims, then corrected where names do not say it all. */
#include "parallel/graph/index.h"

#include "parallel/graph/rules.h"

#include <assert.h>
#include <string.h>

/* A split sampler exchanges this many candidates of each row (logit and id), its maximum and its sum. */
enum { SAMPLE_CANDIDATES = 64 };

static int64_t gcd(int64_t a, int64_t b) {
    while (b) {
        int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

static cria_op_index *append(cria_index_list *list, cria_dim dim, cria_split split) {
    assert(list->count < CRIA_MAX_INDICES);
    cria_op_index *index = &list->index[list->count++];
    *index = (cria_op_index){.dim = dim, .unit = 1, .output = -1, .split = split};
    memset(index->input, -1, sizeof index->input);
    return index;
}

static cria_op_index *find(cria_index_list *list, cria_dim_name name) {
    for (int i = 0; i < list->count; i++)
        if (list->index[i].dim.name == name) return &list->index[i];
    return NULL;
}

static void set_split(cria_index_list *list, cria_dim_name name, cria_split split) {
    cria_op_index *index = find(list, name);
    if (index) index->split = split;
}

void cria_indices_by_name(cria_index_list *list) {
    const cria_tensor *out = cria_graph_tensor(list->graph, list->op->output);
    for (int d = 0; d < out->dims; d++) append(list, out->dim[d], CRIA_SPLIT_FREE)->output = (int8_t)d;
    for (int i = 0; i < CRIA_MAX_INPUTS; i++) {
        const cria_tensor *in = cria_op_input(list->graph, list->op, i);
        for (int d = 0; in && d < in->dims; d++) {
            cria_op_index *index = find(list, in->dim[d].name);
            if (!index) index = append(list, in->dim[d], CRIA_SPLIT_SUM);
            index->input[i] = (int8_t)d;
        }
    }
}

void cria_indices_norm(cria_index_list *list) {
    cria_indices_by_name(list);
    const cria_tensor *x = cria_op_input(list->graph, list->op, 0);
    for (int d = 0; d < x->dims; d++)
        if (cria_norm_over(list->op, x->dims, d)) set_split(list, x->dim[d].name, CRIA_SPLIT_STATS);
}

void cria_indices_last(cria_index_list *list) {
    cria_indices_by_name(list);
    const cria_tensor *x = cria_op_input(list->graph, list->op, 0);
    set_split(list, x->dim[x->dims - 1].name, CRIA_SPLIT_STATS);
}

void cria_indices_whole(cria_index_list *list) {
    cria_indices_by_name(list);
    for (int i = 0; i < list->count; i++) list->index[i].split = CRIA_SPLIT_NEVER;
}

void cria_indices_rope(cria_index_list *list) {
    cria_indices_by_name(list);
    const cria_tensor *table = cria_op_input(list->graph, list->op, 1);
    for (int d = 0; d < table->dims; d++) set_split(list, table->dim[d].name, CRIA_SPLIT_NEVER);
}

/* The query heads of one KV head move with it, so both are one index. Tokens see each other: they may be cut only
 * between sequences, of which a graph whose batch is made at run time knows nothing. */
void cria_indices_attention(cria_index_list *list) {
    const cria_tensor *q = cria_op_input(list->graph, list->op, 0), *k = cria_op_input(list->graph, list->op, 1);
    bool apart = q->dims == 4 || cria_graph_sequence(list->graph) > 0;
    for (int d = 0; d < q->dims; d++) {
        bool head = d == q->dims - 2, first = d == 0;
        cria_op_index *index =
            append(list, head ? k->dim[d] : q->dim[d], head || (first && apart) ? CRIA_SPLIT_FREE : CRIA_SPLIT_NEVER);
        for (int i = 0; i < CRIA_MAX_INPUTS; i++)
            if (list->op->input[i] >= 0) index->input[i] = (int8_t)d;
        index->output = (int8_t)d;
    }
}

/* Rows go with their tokens: where tokens are cut, each device takes the rows of its own. */
void cria_indices_gather(cria_index_list *list) {
    const cria_tensor *x = cria_op_input(list->graph, list->op, 0);
    for (int d = 0; d < x->dims; d++) {
        cria_op_index *index = append(list, x->dim[d], CRIA_SPLIT_FREE);
        index->input[0] = index->output = (int8_t)d;
    }
}

/* In every run of dims that keeps its elements the outermost dim of both sides is one index, where one of them is a
 * multiple of the other: the parts of the larger follow those of the smaller. What is inside a run stays whole. Output
 * dims come first, as everywhere. */
void cria_indices_reshape(cria_index_list *list) {
    const cria_tensor *in = cria_op_input(list->graph, list->op, 0),
                      *out = cria_graph_tensor(list->graph, list->op->output);
    int8_t partner[CRIA_MAX_DIMS];
    memset(partner, -1, sizeof partner);
    bool joined[CRIA_MAX_DIMS] = {false};
    for (cria_reshape_run run = {0}; cria_reshape_next(in, out, &run);) {
        if (run.in == run.in_end || run.out == run.out_end) continue;
        int64_t a = in->dim[run.in].extent, b = out->dim[run.out].extent;
        if (a % b != 0 && b % a != 0) continue;
        partner[run.out] = (int8_t)run.in;
        joined[run.in] = true;
    }
    for (int d = 0; d < out->dims; d++) {
        int from = partner[d];
        bool smaller = from >= 0 && in->dim[from].extent < out->dim[d].extent;
        cria_op_index *index =
            append(list, smaller ? in->dim[from] : out->dim[d], from >= 0 ? CRIA_SPLIT_FREE : CRIA_SPLIT_NEVER);
        index->output = (int8_t)d;
        index->input[0] = (int8_t)from;
    }
    for (int d = 0; d < in->dims; d++)
        if (!joined[d]) append(list, in->dim[d], CRIA_SPLIT_NEVER)->input[0] = (int8_t)d;
}

/* Convolutions and pools, forward and backward: images and channels may be cut, what a window moves over may not. The
 * places of a window are one index with what it moves over. */
void cria_indices_window(cria_index_list *list) {
    const cria_op *op = list->op;
    const cria_tensor *operand[CRIA_MAX_INPUTS + 1] = {NULL};
    for (int i = 0; i < CRIA_MAX_INPUTS; i++) operand[i] = cria_op_input(list->graph, op, i);
    operand[CRIA_MAX_INPUTS] = cria_graph_tensor(list->graph, op->output);
    bool kernel[CRIA_MAX_INPUTS + 1] = {false};
    kernel[1] = op->kind == CRIA_OP_CONV || op->kind == CRIA_OP_CONV_INPUT_GRADIENT;
    kernel[CRIA_MAX_INPUTS] = op->kind == CRIA_OP_CONV_KERNEL_GRADIENT;
    /* Of the images, the one with the smaller extents names the places. */
    const cria_tensor *places = NULL;
    for (int i = 0; i <= CRIA_MAX_INPUTS; i++)
        if (operand[i] && !kernel[i] && (!places || operand[i]->dim[1].extent < places->dim[1].extent))
            places = operand[i];
    for (int pass = 0; pass < 2; pass++) /* output dims first */
        for (int i = CRIA_MAX_INPUTS; i >= 0; i--) {
            if ((i == CRIA_MAX_INPUTS) != (pass == 0) || !operand[i]) continue;
            for (int d = 0; d < 4; d++) {
                bool inner = d == 1 || d == 2;
                cria_dim dim = inner && !kernel[i] ? places->dim[d] : operand[i]->dim[d];
                cria_op_index *index = find(list, dim.name);
                if (!index)
                    index = append(list, dim, inner ? CRIA_SPLIT_NEVER : pass == 0 ? CRIA_SPLIT_FREE : CRIA_SPLIT_SUM);
                if (i == CRIA_MAX_INPUTS)
                    index->output = (int8_t)d;
                else
                    index->input[i] = (int8_t)d;
            }
        }
}

/* Slots are given in the order of the tokens, and to the best experts of each. */
void cria_indices_route(cria_index_list *list) {
    cria_indices_by_name(list);
    const cria_tensor *gates = cria_op_input(list->graph, list->op, 0);
    for (int d = gates->dims - 2; d <= gates->dims; d++) list->index[d].split = CRIA_SPLIT_NEVER;
}

int cria_op_indices(const cria_graph *graph, const cria_op *op, cria_op_index out[CRIA_MAX_INDICES]) {
    cria_index_list list = {.graph = graph, .op = op, .index = out};
    cria_op_info_of(op->kind)->indices(&list);
    for (int i = 0; i < list.count; i++) out[i].unit = cria_graph_unit(graph, out[i].dim);
    return list.count;
}

/* Heads are cut so that a KV head stays with its query heads and, where that is possible, so that the columns of the
 * output projection are cut between quantised groups. Extents that are no whole number of groups are never quantised in
 * groups: they may be cut anywhere. */
static int64_t own_unit(const cria_graph *graph, cria_dim dim) {
    int64_t group = cria_graph_group(graph), heads, kv_heads, head_dim;
    switch (dim.name) {
    case CRIA_DIM_TOKEN:
    case CRIA_DIM_ROW:
        return cria_graph_sequence(graph) > 0 ? cria_graph_sequence(graph) : 1;
    case CRIA_DIM_HEAD:
    case CRIA_DIM_KV_HEAD:
        if (!cria_graph_heads(graph, &heads, &kv_heads, &head_dim)) return 1;
        int64_t queries = heads / kv_heads, aligned = group / gcd(group, head_dim);
        int64_t unit = queries / gcd(queries, aligned) * aligned;
        if (heads % unit != 0) unit = queries;
        return dim.name == CRIA_DIM_HEAD ? unit : unit / queries;
    case CRIA_DIM_HIDDEN:
    case CRIA_DIM_EMBED:
    case CRIA_DIM_FFN:
        return dim.extent % group == 0 ? group : 1;
    default:
        return 1;
    }
}

int64_t cria_graph_unit(const cria_graph *graph, cria_dim dim) {
    int64_t own = own_unit(graph, dim), named = cria_graph_named_unit(graph, dim.name);
    int64_t common;
    if (__builtin_mul_overflow(own / gcd(own, named), named, &common) || common > CRIA_MAX_ELEMENTS)
        return CRIA_MAX_ELEMENTS;
    return common;
}

/* Bytes that one statistic of the operator exchanges: f32 of a norm's moments (in its gradient: also of two sums over
 * dy), of a softmax's maximum and sum, of a loss's label. */
static double stats_row(const cria_op *op) {
    switch (op->kind) {
    case CRIA_OP_NORM:
        return op->rms ? 4 : 8;
    case CRIA_OP_NORM_GRADIENT:
        return op->rms ? 8 : 16;
    case CRIA_OP_SOFTMAX:
    case CRIA_OP_CROSS_ENTROPY_GRADIENT:
        return 8;
    case CRIA_OP_SOFTMAX_GRADIENT:
        return 4;
    case CRIA_OP_CROSS_ENTROPY:
        return 12;
    case CRIA_OP_SAMPLE:
        return 8 + 8 * SAMPLE_CANDIDATES;
    default:
        return 0;
    }
}

double cria_op_stats_bytes(const cria_graph *graph, const cria_op *op, int index, int64_t symbolic) {
    cria_op_index indices[CRIA_MAX_INDICES];
    int count = cria_op_indices(graph, op, indices);
    if (index < 0 || index >= count || indices[index].split != CRIA_SPLIT_STATS) return 0;
    double rows = 1;
    for (int i = 0; i < count; i++)
        if (indices[i].split != CRIA_SPLIT_STATS)
            rows *= (double)(indices[i].dim.extent == CRIA_SYMBOLIC ? symbolic : indices[i].dim.extent);
    return rows * stats_row(op);
}

bool cria_op_gradient_of_output(const cria_op *op) {
    return op->kind == CRIA_OP_ACTIVATION && op->activation == CRIA_ACT_RELU;
}

bool cria_op_passes_partial(const cria_op *op) {
    switch (op->kind) {
    case CRIA_OP_ADD:
    case CRIA_OP_SUB:
    case CRIA_OP_GATHER:
    case CRIA_OP_SCATTER:
    case CRIA_OP_RESHAPE:
        return true;
    case CRIA_OP_EINSUM:
        return op->input[1] < 0;
    default:
        return false;
    }
}

/* A product contracts an index of both operands and has one that only one of them has: else it is element-wise. */
static bool is_product(const cria_graph *graph, const cria_op *op) {
    cria_op_index index[CRIA_MAX_INDICES];
    int count = cria_op_indices(graph, op, index);
    bool contracts = false, spans = false;
    for (int i = 0; i < count; i++) {
        bool both = index[i].input[0] >= 0 && index[i].input[1] >= 0;
        contracts = contracts || (both && index[i].output < 0);
        spans = spans || (!both && index[i].output >= 0);
    }
    return contracts && spans;
}

bool cria_op_multiplies(const cria_graph *graph, const cria_op *op) {
    switch (op->kind) {
    case CRIA_OP_LINEAR:
    case CRIA_OP_ATTENTION:
    case CRIA_OP_ATTENTION_GRADIENT:
    case CRIA_OP_CONV:
    case CRIA_OP_CONV_INPUT_GRADIENT:
    case CRIA_OP_CONV_KERNEL_GRADIENT:
        return true;
    case CRIA_OP_EINSUM:
        return op->input[1] >= 0 && is_product(graph, op);
    default:
        return false;
    }
}
