/* The plan's storage: stages, a strategy per operator, and in which sharding the ranks of a stage hold each tensor. */
#include "parallel/plan/plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct cria_plan {
    const cria_graph *graph;
    int stages, ops, tensors, ranks;
    cria_stage *stage;
    cria_strategy *strategy; /* [ops] */
    int *stage_of_op;        /* [ops] */
    int *stage_of_rank;      /* [ranks] */
    cria_sharding *held;     /* [stages][tensors] */
    double *shares;          /* what the stages' meshes point to */
};

static int mesh_devices(const cria_mesh *mesh) {
    return mesh->size[0] * mesh->size[1];
}

static cria_status check_stages(const cria_graph *graph, const cria_stage *stages, int count, cria_error *err) {
    int op = 0, rank = 0;
    for (int s = 0; s < count; s++) {
        const cria_stage *stage = &stages[s];
        if (stage->first_op != op || stage->end_op <= op)
            return cria_fail(err, CRIA_ERR_ARGUMENT, "stage %d has operators [%d, %d), but must begin at %d", s,
                             stage->first_op, stage->end_op, op);
        for (int axis = 0; axis < CRIA_MESH_AXES; axis++)
            if (stage->mesh.size[axis] < 1 || stage->mesh.size[axis] > CRIA_MAX_RANKS)
                return cria_fail(err, CRIA_ERR_ARGUMENT, "stage %d: mesh axis %d has size %d, not 1 to %d", s, axis,
                                 stage->mesh.size[axis], CRIA_MAX_RANKS);
        if ((int64_t)stage->mesh.size[0] * stage->mesh.size[1] > CRIA_MAX_RANKS - rank)
            return cria_fail(err, CRIA_ERR_ARGUMENT, "stage %d: more than %d ranks", s, CRIA_MAX_RANKS);
        if (stage->first_rank != rank)
            return cria_fail(err, CRIA_ERR_ARGUMENT, "stage %d begins at rank %d, but must begin at %d", s,
                             stage->first_rank, rank);
        op = stage->end_op;
        rank += mesh_devices(&stage->mesh);
    }
    if (count < 1 || op != cria_graph_ops(graph))
        return cria_fail(err, CRIA_ERR_ARGUMENT, "%d stages cover %d of %d operators", count, op,
                         cria_graph_ops(graph));
    return CRIA_OK;
}

static cria_status copy_stages(cria_plan *plan, const cria_stage *stages, cria_error *err) {
    size_t shares = 0;
    for (int s = 0; s < plan->stages; s++)
        for (int axis = 0; axis < CRIA_MESH_AXES; axis++)
            if (stages[s].mesh.share[axis]) shares += (size_t)stages[s].mesh.size[axis];
    plan->shares = malloc((shares + 1) * sizeof *plan->shares);
    if (!plan->shares) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the plan");
    double *at = plan->shares;
    for (int s = 0; s < plan->stages; s++) {
        cria_stage *stage = &plan->stage[s];
        *stage = stages[s];
        for (int axis = 0; axis < CRIA_MESH_AXES; axis++) {
            if (!stage->mesh.share[axis]) continue;
            memcpy(at, stages[s].mesh.share[axis], (size_t)stage->mesh.size[axis] * sizeof *at);
            stage->mesh.share[axis] = at;
            at += stage->mesh.size[axis];
        }
        for (int i = stage->first_op; i < stage->end_op; i++) plan->stage_of_op[i] = s;
        for (int r = 0; r < mesh_devices(&stage->mesh); r++) plan->stage_of_rank[stage->first_rank + r] = s;
    }
    return CRIA_OK;
}

/* Values are held as their operator leaves them; what a stage only reads, as its first reader wants it. */
static void find_held(cria_plan *plan) {
    static const cria_sharding whole = {{CRIA_REPLICATED, CRIA_REPLICATED}};
    for (int s = 0; s < plan->stages; s++) {
        cria_sharding *held = plan->held + (int64_t)s * plan->tensors;
        for (int t = 0; t < plan->tensors; t++) held[t] = whole;
        for (int i = plan->stage[s].end_op - 1; i >= plan->stage[s].first_op; i--) {
            const cria_op *op = cria_graph_op(plan->graph, i);
            for (int k = 0; k < CRIA_MAX_INPUTS; k++)
                if (op->input[k] >= 0) held[op->input[k]] = plan->strategy[i].input[k];
        }
        for (int i = plan->stage[s].first_op; i < plan->stage[s].end_op; i++)
            held[cria_graph_op(plan->graph, i)->output] = plan->strategy[i].output;
    }
}

static cria_status fill(cria_plan *plan, const cria_stage *stages, const cria_strategy *strategies, cria_error *err) {
    CRIA_TRY(copy_stages(plan, stages, err));
    memcpy(plan->strategy, strategies, (size_t)plan->ops * sizeof *strategies);
    for (int i = 0; i < plan->ops; i++) {
        const cria_mesh *mesh = &plan->stage[plan->stage_of_op[i]].mesh;
        CRIA_TRY(cria_strategy_check(plan->graph, cria_graph_op(plan->graph, i), mesh, &strategies[i], err));
    }
    find_held(plan);
    return CRIA_OK;
}

cria_status cria_plan_create(const cria_graph *graph, const cria_stage *stages, int count,
                             const cria_strategy *strategies, cria_plan **out, cria_error *err) {
    CRIA_TRY(check_stages(graph, stages, count, err));
    cria_plan *plan = calloc(1, sizeof *plan);
    if (!plan) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the plan");
    plan->graph = graph;
    plan->stages = count;
    plan->ops = cria_graph_ops(graph);
    plan->tensors = cria_graph_tensors(graph);
    plan->ranks = stages[count - 1].first_rank + mesh_devices(&stages[count - 1].mesh);
    plan->stage = calloc((size_t)count, sizeof *plan->stage);
    plan->strategy = calloc((size_t)plan->ops, sizeof *plan->strategy);
    plan->stage_of_op = calloc((size_t)plan->ops, sizeof *plan->stage_of_op);
    plan->stage_of_rank = calloc((size_t)plan->ranks, sizeof *plan->stage_of_rank);
    plan->held = calloc((size_t)count * (size_t)plan->tensors, sizeof *plan->held);
    cria_status status = CRIA_OK;
    if (!plan->stage || !plan->strategy || !plan->stage_of_op || !plan->stage_of_rank || !plan->held)
        status = cria_fail(err, CRIA_ERR_MEMORY, "no memory for the plan");
    if (status == CRIA_OK) status = fill(plan, stages, strategies, err);
    if (status != CRIA_OK) {
        cria_plan_destroy(plan);
        return status;
    }
    *out = plan;
    return CRIA_OK;
}

cria_status cria_plan_create_single(const cria_graph *graph, cria_plan **out, cria_error *err) {
    int ops = cria_graph_ops(graph);
    cria_strategy *strategies = calloc((size_t)ops + 1, sizeof *strategies);
    if (!strategies) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the plan");
    cria_stage stage = {.end_op = ops, .mesh = {.size = {1, 1}}};
    for (int i = 0; i < ops; i++)
        cria_strategy_derive(graph, cria_graph_op(graph, i), &stage.mesh, (const int8_t[]){-1, -1}, &strategies[i]);
    cria_status status = cria_plan_create(graph, &stage, 1, strategies, out, err);
    free(strategies);
    return status;
}

void cria_plan_destroy(cria_plan *plan) {
    if (!plan) return;
    free(plan->stage);
    free(plan->strategy);
    free(plan->stage_of_op);
    free(plan->stage_of_rank);
    free(plan->held);
    free(plan->shares);
    free(plan);
}

int cria_plan_ranks(const cria_plan *plan) {
    return plan->ranks;
}
int cria_plan_stages(const cria_plan *plan) {
    return plan->stages;
}
const cria_stage *cria_plan_stage(const cria_plan *plan, int stage) {
    return &plan->stage[stage];
}
int cria_plan_stage_of_rank(const cria_plan *plan, int rank) {
    return plan->stage_of_rank[rank];
}
int cria_plan_stage_of_op(const cria_plan *plan, int op) {
    return plan->stage_of_op[op];
}
const cria_strategy *cria_plan_strategy(const cria_plan *plan, int op) {
    return &plan->strategy[op];
}

bool cria_plan_runs(const cria_plan *plan, int rank, int op) {
    return plan->stage_of_rank[rank] == plan->stage_of_op[op];
}

cria_sharding cria_plan_held(const cria_plan *plan, int stage, int tensor) {
    return plan->held[(int64_t)stage * plan->tensors + tensor];
}

cria_extent cria_plan_part(const cria_plan *plan, int rank, const cria_tensor *tensor, cria_sharding sharding,
                           int dim) {
    cria_dim cut = tensor->dim[dim];
    cria_extent part = {0, cut.extent};
    if (cut.extent == CRIA_SYMBOLIC) return part;
    const cria_stage *stage = &plan->stage[plan->stage_of_rank[rank]];
    int place = rank - stage->first_rank, columns = stage->mesh.size[1];
    int position[CRIA_MESH_AXES] = {place / columns, place % columns};
    cria_sharding_part(sharding, dim, cut.extent, cria_graph_unit(plan->graph, cut), &stage->mesh, position,
                       &part.begin, &part.end);
    return part;
}

cria_extent cria_plan_extent(const cria_plan *plan, int rank, int tensor, int dim) {
    cria_sharding held = cria_plan_held(plan, plan->stage_of_rank[rank], tensor);
    return cria_plan_part(plan, rank, cria_graph_tensor(plan->graph, tensor), held, dim);
}
