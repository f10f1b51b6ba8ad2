/* Traffic: what the ranks of a plan will send, found by lowering the plan for each of them. */
#ifndef CRIA_PARALLEL_LOWER_TRAFFIC_H
#define CRIA_PARALLEL_LOWER_TRAFFIC_H

#include "parallel/plan/plan.h"

/* bytes[r], [ranks of the plan]: bytes of array data that rank r sends in one pass of `tokens` tokens of which `rows`
 * have logits, in collectives and to later stages, as cria_comm_sent counts them. Not in it: the batch that rank 0
 * hands out and the results that come back, and the candidate lists that some sampled requests ask for. Takes as long
 * as starting the ranks without their weights; fails where the plan cannot be run. Any thread. */
cria_status cria_plan_traffic(const cria_graph *graph, const cria_plan *plan, int64_t tokens, int64_t rows,
                              int64_t *bytes, cria_error *err);

#endif
