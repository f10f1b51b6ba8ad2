/* The plan's storage: explicit extents per rank, tensor and dim, so that unequal parts are nothing special. */
#include "parallel/plan/plan.h"

#include <stdlib.h>

struct cria_plan {
    int ranks, tensors, ops;
    cria_extent *extents; /* [rank][tensor][CRIA_MAX_DIMS] */
    bool *runs;           /* [rank][op] */
};

cria_status cria_plan_create_single(const cria_graph *graph, cria_plan **out, cria_error *err) {
    cria_plan *plan = calloc(1, sizeof *plan);
    if (!plan) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the plan");
    plan->ranks = 1;
    plan->tensors = cria_graph_tensors(graph);
    plan->ops = cria_graph_ops(graph);
    plan->extents = calloc((size_t)plan->tensors * CRIA_MAX_DIMS, sizeof *plan->extents);
    plan->runs = malloc((size_t)plan->ops * sizeof *plan->runs);
    if (!plan->extents || !plan->runs) {
        cria_plan_destroy(plan);
        return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the plan");
    }
    for (int t = 0; t < plan->tensors; t++) {
        const cria_tensor *tensor = cria_graph_tensor(graph, t);
        for (int d = 0; d < tensor->dims; d++)
            plan->extents[t * CRIA_MAX_DIMS + d] = (cria_extent){0, tensor->dim[d].extent};
    }
    for (int i = 0; i < plan->ops; i++) plan->runs[i] = true;
    *out = plan;
    return CRIA_OK;
}

void cria_plan_destroy(cria_plan *plan) {
    if (!plan) return;
    free(plan->extents);
    free(plan->runs);
    free(plan);
}

int cria_plan_ranks(const cria_plan *plan) {
    return plan->ranks;
}

bool cria_plan_runs(const cria_plan *plan, int rank, int op) {
    return plan->runs[(int64_t)rank * plan->ops + op];
}

cria_extent cria_plan_extent(const cria_plan *plan, int rank, int tensor, int dim) {
    return plan->extents[((int64_t)rank * plan->tensors + tensor) * CRIA_MAX_DIMS + dim];
}
