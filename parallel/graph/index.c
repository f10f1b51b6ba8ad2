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
    set_split(list, x->dim[x->dims - 1].name, CRIA_SPLIT_STATS);
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
    bool sequences = cria_graph_sequence(list->graph) > 0;
    const cria_dim dim[3] = {q->dim[0], k->dim[1], q->dim[2]};
    const cria_split split[3] = {sequences ? CRIA_SPLIT_FREE : CRIA_SPLIT_NEVER, CRIA_SPLIT_FREE, CRIA_SPLIT_NEVER};
    for (int d = 0; d < 3; d++) {
        cria_op_index *index = append(list, dim[d], split[d]);
        index->input[0] = index->input[1] = index->input[2] = index->output = (int8_t)d;
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

void cria_indices_sample(cria_index_list *list) {
    cria_indices_by_name(list);
    const cria_tensor *logits = cria_op_input(list->graph, list->op, 0);
    set_split(list, logits->dim[1].name, CRIA_SPLIT_STATS);
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
int64_t cria_graph_unit(const cria_graph *graph, cria_dim dim) {
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

double cria_op_stats_bytes(const cria_graph *graph, const cria_op *op, int index, int64_t symbolic) {
    cria_op_index indices[CRIA_MAX_INDICES];
    int count = cria_op_indices(graph, op, indices);
    if (index < 0 || index >= count || indices[index].split != CRIA_SPLIT_STATS) return 0;
    double rows = 1;
    for (int i = 0; i < count; i++)
        if (indices[i].split != CRIA_SPLIT_STATS)
            rows *= (double)(indices[i].dim.extent == CRIA_SYMBOLIC ? symbolic : indices[i].dim.extent);
    switch (op->kind) {
    case CRIA_OP_NORM:
        return rows * (op->rms ? 4 : 8);
    case CRIA_OP_SAMPLE:
        return rows * (8 + 8 * SAMPLE_CANDIDATES);
    default:
        return 0;
    }
}

bool cria_op_passes_partial(const cria_op *op) {
    return op->kind == CRIA_OP_ADD || op->kind == CRIA_OP_GATHER;
}
