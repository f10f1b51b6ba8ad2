/* Executor: holds one rank's memory (weights, KV cache, workspace) and runs its program over batches.
 *
 * Created and loaded on the start-up thread; afterwards cria_executor_step is called by one thread at a time (the
 * engine's), which takes part as worker 0 of the pool. Nothing is allocated per step. */
#ifndef CRIA_PARALLEL_EXECUTE_EXECUTOR_H
#define CRIA_PARALLEL_EXECUTE_EXECUTOR_H

#include "base/error.h"
#include "base/pool.h"
#include "kernels/kernels.h"
#include "parallel/execute/batch.h"
#include "parallel/execute/ranks.h"
#include "parallel/graph/graph.h"
#include "parallel/lower/program.h"

/* Where a parameter's bytes come from. Rows are dense; row r of the view is row r of the parameter, unless the file
 * keeps query and key rows in pairs (interleaved_head_dim > 0): then parameter row h*d + s*d/2 + j is file row h*d +
 * 2*j + s. */
typedef struct {
    cria_type type;
    int64_t rows, cols;
    const void *data;
    int64_t interleaved_head_dim;
} cria_param_view;

typedef struct {
    void *self;
    cria_status (*find)(void *self, const cria_tensor *param, cria_param_view *out, cria_error *err);
    /* The parameter has been packed and will not be read again. Any worker; may be NULL. */
    void (*done)(void *self, const cria_tensor *param);
} cria_param_source;

typedef struct {
    cria_batch_limits limits;
    int64_t block_tokens, blocks; /* KV blocks per layer */
    cria_type kv_type;            /* CRIA_F32, CRIA_BF16 or CRIA_I8 */
    /* Told of every weight that is packed, on the thread that creates; may be NULL. */
    void (*loaded)(void *context, int64_t bytes);
    void *loaded_context;
    const cria_ranks *ranks; /* whom the program talks to; NULL: a program of one rank; borrowed */
} cria_executor_options;

typedef struct cria_executor cria_executor;

/* Bytes that a program needs for `blocks` KV blocks over all its layers. */
int64_t cria_executor_kv_bytes(const cria_program *program, cria_type kv_type, int64_t block_tokens, int64_t blocks);

/* Maps the memory and packs the weights on all threads of the pool. Everything but the memory is borrowed. */
cria_status cria_executor_create(const cria_graph *graph, const cria_program *program, const cria_kernels *kernels,
                                 cria_pool *pool, const cria_param_source *source, const cria_executor_options *options,
                                 cria_executor **out, cria_error *err);
void cria_executor_destroy(cria_executor *executor);

cria_status cria_executor_step(cria_executor *executor, const cria_batch *batch, cria_batch_result *result,
                               cria_error *err);
/* Bytes of values that this rank has sent to others in all steps so far. */
uint64_t cria_executor_sent(const cria_executor *executor);
/* What it did in the last step; the thread of cria_executor_step. */
cria_step_report cria_executor_report(const cria_executor *executor);
/* The same as the runner seam that the engine takes. */
cria_runner cria_executor_runner(cria_executor *executor);

/* Logits of the last step's rows are overwritten by sampling; with a sink set, each chunk of rows is handed out first
 * (worker 0, before sampling): those of this rank's part of the vocabulary, from the program's vocab_begin on. For
 * tests and comparisons; NULL: off. */
typedef void cria_logits_sink(void *context, int64_t first_row, int64_t rows, int64_t vocab, int64_t stride,
                              const float *logits);
void cria_executor_set_sink(cria_executor *executor, cria_logits_sink *sink, void *context);

/* Seconds spent per instruction since the last reset, measured by worker 0 while profiling is on. */
void cria_executor_profile(cria_executor *executor, bool on);
double cria_executor_seconds(const cria_executor *executor, int instruction);

#endif
