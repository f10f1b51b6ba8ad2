/* Exact: depth-first branch and bound from the costs that the dual leaves over. Only for this folder. */
#ifndef CRIA_PARALLEL_SOLVE_EXACT_H
#define CRIA_PARALLEL_SOLVE_EXACT_H

#include "parallel/solve/dual.h"
#include "parallel/solve/search.h"

/* Looks for an assignment that fits and costs less than *best; keeps it in x and *best. `most_steps`: assignments tried
 * before giving up. *complete: nothing better than *best exists. Call right after cria_dual_pass. */
cria_status cria_exact_search(const cria_dual *dual, double *best, int32_t *x, int64_t most_steps,
                              const cria_until *until, bool *found, bool *complete);

#endif
