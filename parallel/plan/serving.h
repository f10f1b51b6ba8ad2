/* Serving: plans for requests of different lengths that come at a rate, instead of so many at once. Start-up thread. */
#ifndef CRIA_PARALLEL_PLAN_SERVING_H
#define CRIA_PARALLEL_PLAN_SERVING_H

#include "parallel/plan/stages.h"

/* "P:N*W,P:N*W,...": prompts of P tokens with answers of N, W of them (1 where it is left out). Sets the means and what
 * tokens see on average, in options. */
cria_status cria_serving_lengths(const char *text, cria_stages_options *options, cria_error *err);

/* The plan for the fewest requests at once (a power of two) that keeps up
 * with so many requests a second; out->capacity says how many it could serve. CRIA_ERR_INFEASIBLE: none keeps up; the
 * message says how far plans go. */
cria_status cria_serving_plan(const cria_graph *graph, const cria_cluster *cluster, const cria_stages_options *options,
                              double request_rate, cria_stages_result *out, cria_error *err);

#endif
