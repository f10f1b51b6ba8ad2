/* Solver: what the files of cria_solve share. Only for this folder. */
#ifndef CRIA_PARALLEL_SOLVE_SOLVER_H
#define CRIA_PARALLEL_SOLVE_SOLVER_H

#include "parallel/solve/dual.h"
#include "parallel/solve/model.h"
#include "parallel/solve/search.h"
#include "parallel/solve/solve.h"

/* A thread's annealing, kept while the problem is reduced further. */
typedef struct {
    int32_t *x; /* [nodes of the problem]; NULL: nothing is kept */
    cria_anneal run;
    int runs, idle;
    double factor;
    int64_t before;
} cria_kept_run;

typedef struct {
    const cria_problem *problem;
    const cria_solve_options *options;
    uint64_t start;
    cria_until until;
    cria_reduction reduction;
    int32_t *best, *candidate; /* [nodes of the problem] */
    int64_t cost, bound;
    bool found, proven;
    int64_t rounds;      /* done, of options->iterations */
    int64_t steps;       /* of the next exact search */
    double *price;       /* [slices of the first model]: where the next epoch's prices begin; NULL: at 0 */
    int slices;          /* of the first model */
    double step;         /* of the dual when the last epoch ended */
    double heat;         /* of annealing, as a factor; what has been best so far */
    cria_kept_run *kept; /* [threads] */
} cria_solver;

/* Judges an assignment of the reduced problem by the problem itself, and keeps it if it is the best. */
cria_status cria_solver_offer(cria_solver *solver, const int32_t *x);
/* A proven bound. */
void cria_solver_raise(cria_solver *solver, double bound);
/* Nothing better than the best answer exists. */
void cria_solver_close(cria_solver *solver);
/* Proven, or out of time, rounds or patience. */
bool cria_solver_over(const cria_solver *solver);

/* Searches the reduced problem until the solver is over, or until enough strategies have been ruled out to reduce it
 * further, which is then done. */
cria_status cria_epoch(cria_solver *solver);

#endif
