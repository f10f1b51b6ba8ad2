/* What `cria bench` measured, as plain data between the running of cases (bench.c) and their tables (bench_report.c).
 */
#ifndef CRIA_SERVER_COMMANDS_BENCH_H
#define CRIA_SERVER_COMMANDS_BENCH_H

#include "base/text.h"
#include "kernels/calibrate.h"
#include "parallel/execute/figures.h"
#include "server/commands/commands.h"

#include <stdint.h>

enum { CRIA_BENCH_MAX_CASES = 32, CRIA_BENCH_MAX_REPEAT = 1000, CRIA_BENCH_MAX_STAGES = 32 };

/* One operator kind within a phase. Bytes (weights, KV cache) and operations are of the whole phase; 0 where they do
 * not limit it (norms, rotations, sampling). */
typedef struct {
    double seconds, bytes, operations;
    double predicted; /* seconds under the planner's model; 0: not predicted, or counted with another */
} cria_bench_operator;

/* One phase of a case: prefill, or all decode steps together. */
typedef struct {
    double seconds;   /* median of the repeats */
    double steps;     /* batches given to the runner */
    double predicted; /* seconds under the planner's model; 0: not predicted */
    double tokens, bytes, operations;
    cria_bench_operator operators[CRIA_KERNEL_COUNT]; /* of the last repeat; seconds are 0 without --profile */
    cria_stage_figures stage[CRIA_BENCH_MAX_STAGES];  /* of the last repeat; [stages] */
    int stages;
} cria_bench_phase;

/* Bytes, each of the rank that holds most; KV: as many tokens as the cache has. */
typedef struct {
    double weights, kv, workspace;
} cria_bench_memory;

typedef struct {
    int64_t threads, batch, prompt, generated; /* threads: of each rank */
    cria_bench_phase prefill, decode;
    int ranks, stages, replicas;
    cria_bench_memory held, predicted; /* predicted.weights is 0 where nothing is */
    cria_rates rates;   /* the best of the calibrations around the repeats, over as many bytes as a step reads; several
                         * ranks: all at once, before */
    double peak_gflops; /* of the instruction that multiplies this model's weights */
} cria_bench_case;

void cria_bench_print(const cria_command *command, const cria_bench_case *cases, size_t count, cria_text *out);
void cria_bench_print_rates(bool json, const int64_t *threads, const cria_rates *rates, size_t count, cria_text *out);

#endif
