/* Regular plans: the same cut everywhere, as engines without a planner offer it. */
#ifndef CRIA_PARALLEL_PLAN_REGULAR_H
#define CRIA_PARALLEL_PLAN_REGULAR_H

#include "parallel/plan/plan.h"

/* Layers in `stages` groups as equal as can be, each on a mesh of rows x columns ranks: heads, feed-forward columns and
 * the vocabulary are cut over it (Megatron-LM, Shoeybi et al. 2019), over one axis where they are too few for both, and
 * whole where they are too few for any. */
cria_status cria_plan_create_regular(const cria_graph *graph, int stages, int rows, int columns, cria_plan **out,
                                     cria_error *err);

#endif
