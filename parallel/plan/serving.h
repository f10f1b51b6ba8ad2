/* Serving: plans for requests of different lengths that come at a rate, instead of so many at once. Start-up thread. */
#ifndef CRIA_PARALLEL_PLAN_SERVING_H
#define CRIA_PARALLEL_PLAN_SERVING_H

#include "parallel/plan/stages.h"

/* "P:N*W,P:N*W,...": prompts of P tokens with answers of N, W of them (1 where it is left out). Sets the means and what
 * tokens see on average, in options. */
cria_status cria_serving_lengths(const char *text, cria_stages_options *options, cria_error *err);

/* What becomes of `rate` requests a second that come independently of each other (a Poisson process) where `slots`
 * of them are served at once, `capacity` a second at most: all take the same time, as with all slots in use. Waiting
 * times are half of those of the M/M/c queue (Erlang C), as service times do not vary (Allen and Cunneen's
 * approximation of M/D/c). rate < capacity. */
cria_queue cria_serving_queue(double rate, int64_t slots, double capacity);

/* The plan whose requests at once (a power of two) make the time from a request's coming to its answer's end shortest,
 * of those that keep up with so many requests a second; out->capacity says how many it could serve, out->queue how long
 * they wait. CRIA_ERR_INFEASIBLE: none keeps up; the message says how far plans go. */
cria_status cria_serving_plan(const cria_graph *graph, const cria_cluster *cluster, const cria_stages_options *options,
                              double request_rate, cria_stages_result *out, cria_error *err);

#endif
