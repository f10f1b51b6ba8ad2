/* Eliminate: the exact optimum of a model without memory by bucket elimination. Only for this folder. */
#ifndef CRIA_PARALLEL_SOLVE_ELIMINATE_H
#define CRIA_PARALLEL_SOLVE_ELIMINATE_H

#include "parallel/solve/model.h"

/* Nodes are taken away one by one, each leaving a table of its cheapest strategy for every choice of its neighbours
 * (Bertele and Brioschi, "Nonserial Dynamic Programming", 1972; Dechter, "Bucket elimination", AIJ 1999); the graph of
 * a network is long and narrow, so that tables stay small however many layers it has.
 *
 * x: [nodes], gets the optimum if *work <= most_work; *work: the additions that it takes, HUGE_VAL where the model has
 * slices, or tables would take too much memory. CRIA_ERR_INFEASIBLE: there is no assignment. CRIA_ERR_CLOSED: `until`
 * was over. */
cria_status cria_eliminate(const cria_model *model, double most_work, const cria_until *until, int32_t *x,
                           double *work);

#endif
