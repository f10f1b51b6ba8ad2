/* Intra: the intra-operator pass. Chooses a strategy for every operator of a range of the graph on one mesh, so that
 * computation, collectives and resharding together cost the least while memory stays within its limit (Alpa, OSDI'22,
 * section 4), with one call of the solver (parallel/solve). Any thread. */
#ifndef CRIA_PARALLEL_PLAN_INTRA_H
#define CRIA_PARALLEL_PLAN_INTRA_H

#include "parallel/plan/strategy.h"

typedef struct {
    cria_strategy_options strategies;
    int64_t memory_limit; /* bytes per device; < 0: none */
    /* Seconds that the operator takes on the slowest device of the mesh under a strategy; NULL: communication is the
     * only cost. */
    double (*compute)(void *context, const cria_graph *graph, const cria_op *op, const cria_mesh *mesh,
                      const cria_strategy *strategy);
    void *context;
    /* The sharding in which values that come from before first_op arrive, and those read after it are left; by tensor
     * id. NULL: free of choice and of cost. */
    const cria_sharding *boundary;
    double seconds; /* for the solver; <= 0: until proven optimal */
    int threads;
    uint64_t seed;
} cria_intra_options;

typedef struct {
    cria_strategy *strategy; /* [end_op - first_op]; owned: cria_intra_result_deinit */
    double objective, bound; /* in the units of mesh and compute */
    double compute, collectives, resharding;
    int64_t peak_bytes; /* per device, at the worst time */
    double seconds;     /* that the pass took */
} cria_intra_result;

cria_status cria_intra_solve(const cria_graph *graph, int first_op, int end_op, const cria_mesh *mesh,
                             const cria_intra_options *options, cria_intra_result *out, cria_error *err);
void cria_intra_result_deinit(cria_intra_result *result);

#endif
