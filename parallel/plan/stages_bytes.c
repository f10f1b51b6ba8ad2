/* Bytes that a rank sends in the collectives of a plan, in the order and with the steps that the lowering writes. */
#include "parallel/plan/stages_choose.h"

#include <math.h>
#include <stdlib.h>

static double way_bytes(const cria_graph *graph, const cria_tensor *tensor, cria_sharding from, cria_sharding to,
                        const cria_mesh *mesh, int64_t symbolic, double element) {
    cria_reshard_step steps[CRIA_MAX_RESHARD_STEPS];
    int count = cria_reshard(graph, tensor, from, to, mesh, symbolic, element, steps);
    double bytes = 0;
    for (int i = 0; i < count; i++) bytes += cria_reshard_sent(mesh, &steps[i]);
    return bytes;
}

int64_t cria_plan_collective_bytes(const cria_plan *plan, const cria_graph *graph, int rank, int64_t tokens,
                                   int64_t rows, double element) {
    int s = cria_plan_stage_of_rank(plan, rank);
    const cria_stage *stage = cria_plan_stage(plan, s);
    if (stage->mesh.size[0] * stage->mesh.size[1] < 2) return 0;
    cria_step_shape phase = {.tokens = tokens, .rows = rows, .sequences = rows, .context = 1};
    double bytes = 0;
    for (int i = stage->first_op; i < stage->end_op; i++) {
        const cria_op *op = cria_graph_op(graph, i);
        const cria_strategy *strategy = cria_plan_strategy(plan, i);
        int64_t symbolic = cria_phase_symbolic(graph, op, &phase);
        const cria_tensor *output = cria_graph_tensor(graph, op->output);
        bytes += way_bytes(graph, output, strategy->raw, strategy->output, &stage->mesh, symbolic, element);
        cria_op_index indices[CRIA_MAX_INDICES];
        int count = cria_op_indices(graph, op, indices);
        for (int axis = 0; axis < CRIA_MESH_AXES; axis++)
            for (int k = 0; k < count; k++)
                if (strategy->index[axis] == k && indices[k].split == CRIA_SPLIT_STATS)
                    bytes += 2.0 * (stage->mesh.size[axis] - 1) / stage->mesh.size[axis] *
                             cria_op_stats_bytes(graph, op, k, symbolic);
        for (int k = 0; k < CRIA_MAX_INPUTS; k++) {
            if (op->input[k] < 0) continue;
            const cria_tensor *tensor = cria_graph_tensor(graph, op->input[k]);
            if (tensor->kind != CRIA_TENSOR_VALUE) continue;
            bytes += way_bytes(graph, tensor, cria_plan_held(plan, s, op->input[k]), strategy->input[k], &stage->mesh,
                               tensor->dims > 0 && tensor->dim[0].name == CRIA_DIM_ROW ? rows : tokens, element);
        }
    }
    return (int64_t)llround(bytes);
}
