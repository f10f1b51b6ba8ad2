/* Solve: the one solver behind everything the planner decides per operator, and behind `cria solve`.
 *
 * Exact reductions first (arc consistency, contraction of edges that force their ends, dominated strategies,
 * elimination of nodes of degree <= 2), exact search where the rest is small (branch and bound, with GLPK's multipliers
 * and integer program where that is not enough), otherwise message passing with Lagrange multipliers on the memory of
 * every time for a lower bound, beside it annealing whose runs are fused with the best answer. Every answer comes with
 * a proven lower bound. With a time limit, the last run of annealing ends, cold, just before it. Deterministic for a
 * given seed, thread count and `iterations`; with a time limit the answer depends on how far it came. Called by one
 * thread; starts `threads` - 1 more for its own time. */
#ifndef CRIA_PARALLEL_SOLVE_SOLVE_H
#define CRIA_PARALLEL_SOLVE_SOLVE_H

#include "parallel/solve/problem.h"

#include <stdatomic.h>
#include <stdbool.h>

typedef struct {
    double seconds;     /* wall clock from the call; <= 0: until proven optimal or `iterations` are done */
    int64_t iterations; /* rounds of the inexact phase; <= 0: no limit but the time */
    int threads;        /* >= 1 */
    uint64_t seed;
    /* Set by another thread or a signal handler: the best answer so far is returned. NULL: never. */
    const atomic_bool *stop;
    /* Each improvement as it comes, on the calling thread or with the solver's lock held: (seconds since the call,
     * cost, bound). NULL: nobody listens. */
    void (*improved)(void *context, double seconds, int64_t cost, int64_t bound);
    /* Each better answer, strategy[nodes], under the same conditions and before `improved`. NULL: nobody listens. */
    void (*answer)(void *context, const int32_t *strategy);
    void *context;
} cria_solve_options;

typedef struct {
    int32_t *strategy; /* [nodes]; owned: cria_solution_deinit */
    int64_t cost, bound;
    bool optimal; /* cost == bound was proven */
    double seconds;
} cria_solution;

/* CRIA_ERR_INFEASIBLE: proven that no assignment exists (the message says which nodes or which time), or none was found
 * within the limits (the message says so). */
cria_status cria_solve(const cria_problem *problem, const cria_solve_options *options, cria_solution *out,
                       cria_error *err);
void cria_solution_deinit(cria_solution *solution);

#endif
