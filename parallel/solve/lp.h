/* Lp: the integer program of a small net and its linear relaxation, by GLPK.
 *
 * The formulation is Alpa's (Zheng et al., OSDI'22, section 4): one-hot strategies of nodes, one-hot pairs of edges
 * that agree with them, usage within the room of every slice. GLPK's numbers are floating point, so its bounds are not
 * taken at its word: the multipliers of the relaxation become messages and prices of the dual, whose passes prove a
 * bound. One thread at a time per net. Only for this folder. */
#ifndef CRIA_PARALLEL_SOLVE_LP_H
#define CRIA_PARALLEL_SOLVE_LP_H

#include "parallel/solve/dual.h"

/* Is the net small enough for GLPK to be of use? */
bool cria_lp_suits(const cria_net *net);

/* Solves the relaxation with at most so many pivots, and gives its multipliers to the dual; the next passes bound with
 * them. *optimum (NULL: not wanted): the relaxation's value by GLPK's account, NAN where it was not reached. */
cria_status cria_lp_relax(cria_dual *dual, int most_pivots, const cria_until *until, double *optimum);

/* Looks for an assignment that fits and costs less than *best, in at most so many steps of GLPK's search; keeps it in x
 * and *best. *complete: nothing better than *best exists, where costs are so small that GLPK's tolerances hide no whole
 * number. */
cria_status cria_lp_search(const cria_net *net, double *best, int32_t *x, int64_t most_steps, const cria_until *until,
                           bool *found, bool *complete);

#endif
