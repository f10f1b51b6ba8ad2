/* Plan: which ranks run which operators, and which part of every tensor each rank holds. Plain data; immutable once
 * made. Any thread.
 *
 * A plan cuts the graph's operators into stages that follow each other; each stage has a mesh of ranks and one strategy
 * per operator. Ranks are numbered over all stages. With one rank the plan is trivial and every part is the whole; the
 * lowering knows no other way to ask. Written and read as JSON by parallel/plan/plan_file.h. */
#ifndef CRIA_PARALLEL_PLAN_PLAN_H
#define CRIA_PARALLEL_PLAN_PLAN_H

#include "base/error.h"
#include "parallel/graph/graph.h"
#include "parallel/plan/strategy.h"

#include <stdint.h>

typedef struct {
    int64_t begin, end;
} cria_extent;

typedef struct {
    int first_op, end_op; /* operators [first_op, end_op) of the graph */
    cria_mesh mesh;       /* share pointers are owned by the plan */
    int first_rank;       /* ranks [first_rank, first_rank + size[0] * size[1]), row-major over the mesh */
} cria_stage;

typedef struct cria_plan cria_plan;

#define CRIA_MAX_RANKS 65536

/* Everything on one device. The graph is borrowed and must outlive the plan. */
cria_status cria_plan_create_single(const cria_graph *graph, cria_plan **out, cria_error *err);
/* Copies stages and strategies ([ops of the graph]); checks that stages cover the operators, and the ranks, one after
 * the other without gap or overlap, and that every strategy is legal: an error names the operator and why. The graph is
 * borrowed. */
cria_status cria_plan_create(const cria_graph *graph, const cria_stage *stages, int count,
                             const cria_strategy *strategies, cria_plan **out, cria_error *err);
void cria_plan_destroy(cria_plan *plan);

int cria_plan_ranks(const cria_plan *plan);
int cria_plan_stages(const cria_plan *plan);
const cria_stage *cria_plan_stage(const cria_plan *plan, int stage);
int cria_plan_stage_of_rank(const cria_plan *plan, int rank);
int cria_plan_stage_of_op(const cria_plan *plan, int op);
const cria_strategy *cria_plan_strategy(const cria_plan *plan, int op);
/* True if the rank executes this operator of the graph. */
bool cria_plan_runs(const cria_plan *plan, int rank, int op);
/* In which sharding the ranks of a stage hold a tensor: values as their operator leaves them, parameters and inputs as
 * their first reader in the stage wants them; whole where the stage does not know the tensor. */
cria_sharding cria_plan_held(const cria_plan *plan, int stage, int tensor);
/* The part of a tensor's dim that the rank holds under a sharding of its stage's mesh; symbolic dims give
 * [0, CRIA_SYMBOLIC), cut or not: where they are cut, the parts are found with the step's value and cria_cut. */
cria_extent cria_plan_part(const cria_plan *plan, int rank, const cria_tensor *tensor, cria_sharding sharding, int dim);
/* The same under the sharding in which the rank's stage holds the tensor. */
cria_extent cria_plan_extent(const cria_plan *plan, int rank, int tensor, int dim);

#endif
