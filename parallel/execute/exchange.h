/* Exchange: the instructions that are no kernels: copies, collectives, sends, receives, and operators whose rows lie on
 * several ranks. Also what the files of the executor share. Internal to parallel/execute. */
#ifndef CRIA_PARALLEL_EXECUTE_EXCHANGE_H
#define CRIA_PARALLEL_EXECUTE_EXCHANGE_H

#include "parallel/execute/executor.h"
#include "parallel/execute/memory.h"

struct cria_executor {
    const cria_graph *graph;
    const cria_program *program;
    const cria_kernels *kernels;
    cria_pool *pool;
    cria_executor_options options;
    cria_memory weights, kv, workspace, scratch;
    cria_memory split;        /* what a split sampler sends, receives and counts */
    cria_panels *panels;      /* by weight index; vectors have only data */
    cria_kv_layer *kv_layers; /* by KV index */
    cria_logits_sink *sink;
    void *sink_context;
    bool profiling;
    double *seconds;
    uint64_t sent;           /* bytes, in all steps so far */
    uint64_t transfer_ns;    /* of the present step; written by worker 0 */
    cria_step_report report; /* of the last step */
    cria_stage_counters counters;
    cria_error error; /* of communication in the present step; written by worker 0 before a barrier */
};

/* One step as the workers see it. */
typedef struct {
    cria_executor *executor;
    const cria_batch *batch;
    cria_batch_result *result;
    int64_t first_row, rows; /* the head's chunk */
} cria_step;

static inline float *cria_work(const cria_executor *e, const cria_operand *operand) {
    return operand->space == CRIA_SPACE_WORK ? (float *)(void *)((uint8_t *)e->workspace.data + operand->offset) : NULL;
}

static inline const float *cria_vector(const cria_executor *e, const cria_operand *operand) {
    return operand->space == CRIA_SPACE_WEIGHT ? e->panels[operand->index].data : NULL;
}

/* Memory for the exchanges of the program; checks that the ranks are those that it was written for. */
cria_status cria_exchange_create(cria_executor *executor, cria_error *err);
/* Runs an instruction on all workers; worker 0 communicates, and leaves what failed in executor->error. */
void cria_exchange(const cria_step *step, const cria_instruction *instruction, cria_worker *worker);

#endif
