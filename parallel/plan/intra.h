/* Intra: the intra-operator pass. Chooses a strategy for every operator of a range of the graph on one mesh, so that
 * computation, collectives and resharding together cost the least while memory stays within its limit (Alpa, OSDI'22,
 * section 4), with one call of the solver (parallel/solve). Any thread. */
#ifndef CRIA_PARALLEL_PLAN_INTRA_H
#define CRIA_PARALLEL_PLAN_INTRA_H

#include "parallel/plan/strategy.h"

typedef struct {
    cria_strategy_options strategies;
    int64_t memory_limit; /* bytes per device; < 0: none */
    double param_element; /* bytes per element of parameters; 0: as strategies.element */
    /* Bytes per element of state, such as Adam's moments, which stay in f32 where weights are narrower; 0: as
     * strategies.element. */
    double state_element;
    /* Parameters may be kept in other parts than their readers want, and be gathered at every step (ZeRO-3). Else every
     * reader takes what is held or a slice of it, and the first reader all of it (as cria_plan_held says). */
    bool gather_parameters;
    /* Seconds that the operator takes on the slowest device of the mesh under a strategy; NULL: communication is the
     * only cost. */
    double (*compute)(void *context, const cria_graph *graph, const cria_op *op, const cria_mesh *mesh,
                      const cria_strategy *strategy);
    void *context;
    /* The sharding in which values that come from before first_op arrive, and those read behind the range or by nobody
     * are left; by tensor id, CRIA_ANY where there is no wish. NULL: free of choice and of cost. */
    const cria_sharding *boundary;
    double seconds;     /* for the solver; <= 0: until proven optimal or `iterations` are done */
    int64_t iterations; /* of the solver instead of time, so that the answer is always the same; <= 0: no limit */
    int threads;
    uint64_t seed;
} cria_intra_options;

/* Free of any wish: one thread, f32, no memory limit, axes may idle, sums may be scattered. */
void cria_intra_defaults(cria_intra_options *options);

/* Alpa's setting, in which its published optima hold (docs/planning.md): costs without unit by its formulas, on parts
 * of equal length, every product on the whole mesh, sums by all-reduces of all that was computed, followers as they
 * lie, all-to-alls on one axis only. */
void cria_intra_as_alpa(cria_mesh *mesh, cria_intra_options *options);
/* A boundary that leaves results as a layer behind them would want them: whole along the last axis that has devices,
 * along the other as they come (without one, a forward pass is free under data parallelism). [tensors] */
void cria_intra_whole_results(const cria_graph *graph, const cria_mesh *mesh, cria_sharding *boundary);

typedef struct {
    cria_strategy *strategy; /* [end_op - first_op] */
    /* In which sharding each tensor is kept between operators: [tensors of the graph]; whole where the range does not
     * know it. A tensor converted to it once serves every reader. */
    cria_sharding *held;
    double objective, bound; /* in the units of mesh and compute */
    double compute, collectives, resharding;
    int64_t peak_bytes; /* per device, at the worst time: what is kept between operators */
    int nodes, edges;   /* of the problem that was solved */
    bool optimal;
    double seconds;  /* that the pass took */
} cria_intra_result; /* arrays owned: cria_intra_result_deinit */

cria_status cria_intra_solve(const cria_graph *graph, int first_op, int end_op, const cria_mesh *mesh,
                             const cria_intra_options *options, cria_intra_result *out, cria_error *err);
/* The cost of given strategies under the same model: strategies[end_op - first_op] name the indices, and in `output`
 * how the output is kept (CRIA_ANY: as is best, as for parameters and inputs). A plan over the memory limit is reported
 * with its peak. CRIA_ERR_INFEASIBLE: the strategies do not fit each other. */
cria_status cria_intra_fixed(const cria_graph *graph, int first_op, int end_op, const cria_mesh *mesh,
                             const cria_intra_options *options, const cria_strategy *strategies, cria_intra_result *out,
                             cria_error *err);
/* What is communicated for an operator: for bringing an input to where the operator wants it (operand: which input),
 * for statistics inside it, for leaving its output as it is kept, and for handing a result on as the boundary wants it.
 */
enum { CRIA_INTRA_OUTPUT_STEP = -1, CRIA_INTRA_STATS_STEP = -2, CRIA_INTRA_RESULT_STEP = -3 };
typedef struct {
    int operand;
    cria_reshard_step step;
    double cost;
} cria_intra_step;
#define CRIA_MAX_INTRA_STEPS (CRIA_MESH_AXES + (CRIA_MAX_INPUTS + 2) * CRIA_MAX_BETWEEN_STEPS)
/* The steps of operator `op` of the graph under a result's strategy for it and `held`, where the range ends at end_op;
 * slices are left out. Their costs over all operators add up to collectives + resharding. */
int cria_intra_steps(const cria_graph *graph, int op, int end_op, const cria_mesh *mesh,
                     const cria_intra_options *options, const cria_strategy *strategy, const cria_sharding *held,
                     cria_intra_step steps[CRIA_MAX_INTRA_STEPS]);
void cria_intra_result_deinit(cria_intra_result *result);

#endif
