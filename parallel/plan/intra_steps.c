/* What the chosen strategies communicate, step by step. */
#include "parallel/plan/intra_problem.h"

cria_mesh cria_intra_mesh(const cria_mesh *mesh, const cria_intra_options *options) {
    cria_mesh own = *mesh;
    if (options->strategies.forbid_all_gather) own.forbidden |= 1u << CRIA_RESHARD_ALL_GATHER;
    if (options->strategies.forbid_all_to_all) own.forbidden |= 1u << CRIA_RESHARD_ALL_TO_ALL;
    if (!options->strategies.reduce_scatter) own.forbidden |= 1u << CRIA_RESHARD_REDUCE_SCATTER;
    return own;
}

double cria_intra_element(const cria_tensor *tensor, const cria_intra_options *options) {
    if (tensor->kind == CRIA_TENSOR_PARAM && options->param_element > 0) return options->param_element;
    if (tensor->kind == CRIA_TENSOR_STATE && options->state_element > 0) return options->state_element;
    return options->strategies.element;
}

typedef struct {
    const cria_graph *graph;
    cria_mesh mesh;
    const cria_intra_options *options;
    cria_intra_step *out;
    int count;
} listing;

static void list_way(listing *l, int operand, int t, cria_sharding from, cria_sharding to) {
    const cria_strategy_options *o = &l->options->strategies;
    const cria_tensor *tensor = cria_graph_tensor(l->graph, t);
    cria_reshard_step steps[CRIA_MAX_BETWEEN_STEPS];
    int count = cria_reshard_between_steps(l->graph, tensor, from, to, &l->mesh, o->symbolic,
                                           cria_intra_element(tensor, l->options), o->reduce_scatter, steps);
    for (int i = 0; i < count; i++)
        if (steps[i].kind != CRIA_RESHARD_SLICE)
            l->out[l->count++] = (cria_intra_step){operand, steps[i], cria_reshard_cost(&l->mesh, &steps[i], 1)};
}

/* Read behind the range, or by nobody. */
static bool is_result(const cria_graph *graph, const cria_op *op, int end_op) {
    int last;
    int uses = cria_graph_uses(graph, op->output, &last);
    return cria_op_alias(op) < 0 && (uses == 0 || last >= end_op);
}

int cria_intra_steps(const cria_graph *graph, int op, int end_op, const cria_mesh *mesh,
                     const cria_intra_options *options, const cria_strategy *strategy, const cria_sharding *held,
                     cria_intra_step steps[CRIA_MAX_INTRA_STEPS]) {
    const cria_op *row = cria_graph_op(graph, op);
    listing l = {graph, cria_intra_mesh(mesh, options), options, steps, 0};
    for (int k = 0; k < CRIA_MAX_INPUTS; k++)
        if (row->input[k] >= 0) list_way(&l, k, row->input[k], held[row->input[k]], strategy->input[k]);
    for (int axis = 0; axis < CRIA_MESH_AXES; axis++) {
        double bytes = cria_strategy_stats_bytes(graph, row, mesh, &options->strategies, strategy, axis);
        cria_reshard_step sum = {CRIA_RESHARD_ALL_REDUCE, axis, CRIA_REPLICATED, CRIA_REPLICATED, bytes};
        if (bytes > 0)
            steps[l.count++] = (cria_intra_step){CRIA_INTRA_STATS_STEP, sum, cria_reshard_cost(mesh, &sum, 1)};
    }
    list_way(&l, CRIA_INTRA_OUTPUT_STEP, row->output, strategy->raw, held[row->output]);
    if (options->boundary && is_result(graph, row, end_op)) {
        cria_sharding wanted = options->boundary[row->output];
        for (int axis = 0; axis < CRIA_MESH_AXES; axis++)
            if (wanted.dim[axis] == CRIA_ANY) wanted.dim[axis] = held[row->output].dim[axis];
        list_way(&l, CRIA_INTRA_RESULT_STEP, row->output, held[row->output], wanted);
    }
    return l.count;
}
