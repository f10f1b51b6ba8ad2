/* The steps of `cria bench`: prompts and tokens of sequences that all have the same length, given to every replica of
 * the plan with as many steps under way as the engine would have. */
#ifndef CRIA_SERVER_COMMANDS_BENCH_STEPS_H
#define CRIA_SERVER_COMMANDS_BENCH_STEPS_H

#include "server/runtime.h"

typedef struct cria_bench_steps cria_bench_steps;

/* `sequences` of prompt + generated tokens; CRIA_ERR_ARGUMENT where the KV cache has no room for them. `under_way`: at
 * most so many steps at once; 0: one for each stage. The runtime is borrowed. */
cria_status cria_bench_steps_create(const cria_runtime *runtime, int64_t sequences, int64_t prompt, int64_t generated,
                                    int64_t under_way, cria_bench_steps **out, cria_error *err);
void cria_bench_steps_destroy(cria_bench_steps *steps);

/* Every sequence's prompt; its tokens one by one from position `first` on. Return when all results are there. */
cria_status cria_bench_prefill(cria_bench_steps *steps, cria_error *err);
cria_status cria_bench_decode(cria_bench_steps *steps, int64_t first, int64_t count, cria_error *err);

/* What such a phase asks of the ranks: how often a program runs, and how many keys are read from memory (once for all
 * queries of a step). */
void cria_bench_prefill_counts(const cria_bench_steps *steps, double *runs, double *keys);
double cria_bench_decode_runs(const cria_bench_steps *steps);

/* How the steps of one replica (the first) are cut. */
typedef struct {
    int64_t sequences, chunk; /* tokens of a prompt's step */
    int64_t groups;           /* of sequences that decode together */
    int under_way;
} cria_bench_shape;
cria_bench_shape cria_bench_shape_of(const cria_bench_steps *steps);

/* What the stages have done so far, over all replicas; gives how many there are. */
int cria_bench_stages(const cria_bench_steps *steps, cria_stage_figures *out, int most);

#endif
