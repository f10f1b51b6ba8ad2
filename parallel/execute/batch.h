/* Batch: one step's work as flat arrays in one block of memory, token-packed: no padding, ever.
 *
 * The engine writes it, every rank reads it; since arrays lie at offsets that follow from the limits alone, a batch can
 * be sent to another rank as it is. Owned by the engine thread; a rank reads it during its step. */
#ifndef CRIA_PARALLEL_EXECUTE_BATCH_H
#define CRIA_PARALLEL_EXECUTE_BATCH_H

#include "base/error.h"
#include "kernels/row.h"
#include "parallel/execute/figures.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The most that a step may hold; programs and buffers are planned for it. */
typedef struct {
    int64_t tokens;    /* max_num_batched_tokens */
    int64_t sequences; /* max_num_seqs */
    int64_t rows;      /* logits rows of a step: <= tokens; the head runs over chunks of them in bounded memory */
    int64_t blocks_per_sequence;      /* ceil(max_model_len / block_tokens) */
    int64_t history, biases, allowed; /* entries of the sampling side arrays, over all rows */
    int64_t top_logprobs;             /* entries of each row's top list */
} cria_batch_limits;

/* Plain data: counts of this step and pointers into the batch's own memory. */
typedef struct {
    cria_batch_limits limits;
    int32_t tokens, sequences, rows, history_count, bias_count, allowed_count;
    int32_t *token_ids, *positions, *slots; /* [tokens]; slot = block * block_tokens + offset */
    int32_t *query_begin;                   /* [sequences + 1], into the tokens */
    int32_t *context;                       /* [sequences]: keys visible to the sequence's last token of this step */
    int32_t *block_table;                   /* [sequences][limits.blocks_per_sequence] */
    int32_t *row_token; /* [rows]: which token's hidden state each logits row is made of, ascending */
    cria_row *row;      /* [rows] */
    cria_history *history;
    cria_bias *biases;
    int32_t *allowed;
} cria_batch;

/* What a step gave: one entry per logits row. */
typedef struct {
    cria_row_result *result; /* [limits.rows] */
    int32_t *top_ids;        /* [limits.rows][limits.top_logprobs] */
    float *top_logprobs;
} cria_batch_result;

cria_status cria_batch_create(const cria_batch_limits *limits, cria_batch **out, cria_error *err);
void cria_batch_destroy(cria_batch *batch);
void cria_batch_clear(cria_batch *batch); /* all counts 0 */
cria_status cria_batch_result_create(const cria_batch_limits *limits, cria_batch_result **out, cria_error *err);
void cria_batch_result_destroy(cria_batch_result *result);

/* Who runs batches: the executor of one rank, the group of all ranks, in tests a model made of arithmetic.
 * `step` runs on the engine thread and returns when the results are there; a failure is final for the engine.
 *
 * Where `start` is given, `depth` steps may be under way at once; every rank runs them in the order in which they were
 * started. `start` returns when this rank is done with its part of the batch, `finish` when the results of the oldest
 * step under way are there; its batch must stay as it was until then. After a failure, what was started is still to be
 * finished, which fails at once: nobody reads the batches any more then. */
typedef struct {
    void *self;
    cria_status (*step)(void *self, const cria_batch *batch, cria_batch_result *result, cria_error *err);
    int depth;                                              /* 0 as 1 */
    bool (*may_start)(void *self, const cria_batch *batch); /* else the oldest step must be finished first */
    cria_status (*start)(void *self, const cria_batch *batch, cria_error *err);
    bool (*ready)(void *self); /* finish need not wait, or something has failed; NULL: it may always be called */
    cria_status (*finish)(void *self, cria_batch_result *result, cria_error *err);
    /* Adds what its stages have done so far to sums[most]; gives how many stages there are. Any thread; may be NULL. */
    int (*stages)(void *self, cria_stage_figures *sums, int most);
} cria_runner;

#endif
