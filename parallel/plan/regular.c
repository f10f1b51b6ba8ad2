/* Tensor and pipeline parallelism by rule. */
#include "parallel/plan/regular.h"

#include <stdlib.h>

/* The index that a rank's part of the operator is cut along; -1: none. */
static int cut_index(const cria_graph *graph, const cria_op *op) {
    cria_op_index index[CRIA_MAX_INDICES];
    int count = cria_op_indices(graph, op, index);
    for (int i = 0; i < count; i++) {
        cria_dim_name name = index[i].dim.name;
        if (index[i].split != CRIA_SPLIT_NEVER &&
            (name == CRIA_DIM_HEAD || name == CRIA_DIM_KV_HEAD || name == CRIA_DIM_FFN || name == CRIA_DIM_VOCAB))
            return i;
    }
    return -1;
}

/* Sums are made where they arise; everything else is left as it was computed. */
static bool try_strategy(const cria_graph *graph, const cria_op *op, const cria_mesh *mesh, int first, int second,
                         cria_strategy *out) {
    cria_error ignored = {0};
    const int8_t index[CRIA_MESH_AXES] = {(int8_t)first, (int8_t)second};
    if (cria_strategy_derive(graph, op, mesh, index, out)) return false;
    for (int axis = 0; axis < CRIA_MESH_AXES; axis++)
        if (out->output.dim[axis] == CRIA_PARTIAL) out->output.dim[axis] = CRIA_REPLICATED;
    return cria_strategy_check(graph, op, mesh, out, &ignored) == CRIA_OK;
}

static void choose(const cria_graph *graph, const cria_op *op, const cria_mesh *mesh, cria_strategy *out) {
    int index = cut_index(graph, op);
    if (!try_strategy(graph, op, mesh, index, index, out) && !try_strategy(graph, op, mesh, CRIA_IDLE, index, out) &&
        !try_strategy(graph, op, mesh, index, CRIA_IDLE, out))
        try_strategy(graph, op, mesh, CRIA_IDLE, CRIA_IDLE, out);
}

/* Layers [stage * layers / stages, ...) and, on the first and the last, what comes before and after. */
static int first_op(const cria_graph *graph, int stage, int stages) {
    int layers = cria_graph_layers(graph), layer = (int)((int64_t)layers * stage / stages), op = 0;
    if (stage == stages) return cria_graph_ops(graph);
    while (stage > 0 && op < cria_graph_ops(graph) && cria_graph_op(graph, op)->layer < layer) op++;
    return op;
}

cria_status cria_plan_create_regular(const cria_graph *graph, int stages, int rows, int columns, cria_plan **out,
                                     cria_error *err) {
    *out = NULL;
    if (stages < 1 || stages > cria_graph_layers(graph) || rows < 1 || columns < 1)
        return cria_fail(err, CRIA_ERR_ARGUMENT, "%d stages of %d x %d ranks for a model of %d layers", stages, rows,
                         columns, cria_graph_layers(graph));
    cria_stage *stage = calloc((size_t)stages, sizeof *stage);
    cria_strategy *strategy = calloc((size_t)cria_graph_ops(graph) + 1, sizeof *strategy);
    cria_status status = stage && strategy ? CRIA_OK : cria_fail(err, CRIA_ERR_MEMORY, "no memory for the plan");
    for (int s = 0; s < stages && status == CRIA_OK; s++) {
        stage[s] = (cria_stage){.first_op = first_op(graph, s, stages),
                                .end_op = first_op(graph, s + 1, stages),
                                .mesh = {.size = {rows, columns}},
                                .first_rank = s * rows * columns};
        for (int i = stage[s].first_op; i < stage[s].end_op; i++)
            choose(graph, cria_graph_op(graph, i), &stage[s].mesh, &strategy[i]);
    }
    if (status == CRIA_OK) status = cria_plan_create(graph, stage, stages, strategy, out, err);
    free(stage);
    free(strategy);
    return status;
}
