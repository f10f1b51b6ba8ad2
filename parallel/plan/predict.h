/* Prediction: what a step of a given plan takes on given devices, and what it holds, under the planner's own costs.
 *
 * Serving only. Start-up thread. */
#ifndef CRIA_PARALLEL_PLAN_PREDICT_H
#define CRIA_PARALLEL_PLAN_PREDICT_H

#include "parallel/plan/cost.h"
#include "parallel/plan/plan_file.h"

/* A plan on its devices. */
typedef struct {
    const cria_plan *plan;
    const cria_graph *graph;
    const cria_cluster *cluster;
    const int *device;        /* [ranks] of the cluster; NULL: rank r is device r */
    cria_rate rate;           /* of most weights */
    const cria_rate *rate_of; /* by tensor, of those that are of another type; NULL: none is */
    double kv;                /* bytes of an element of the KV cache */
} cria_predicted_plan;

/* Seconds; of a stage. */
typedef struct {
    double compute, collectives, resharding;
    double transfer; /* of values from the stage before, and on the first of batch and results */
} cria_stage_seconds;

typedef struct {
    double seconds;                        /* from the batch to the results: all stages, one after the other */
    double longest;                        /* of the slowest stage: what a full pipeline takes for each step */
    cria_stage_seconds sum;                /* over stages */
    cria_stage_seconds *stage;             /* [stages] */
    double weights, activations, kv_token; /* bytes of the rank that holds most; kv_token: for each token cached */
    int stages;
} cria_prediction;

/* CRIA_ERR_ARGUMENT: the cluster has fewer devices than the plan ranks. */
cria_status cria_predict_step(const cria_predicted_plan *plan, const cria_step_shape *step, cria_prediction *out,
                              cria_error *err);
/* Seconds of the same step by kind of operator, summed over stages. */
cria_status cria_predict_operators(const cria_predicted_plan *plan, const cria_step_shape *step,
                                   double seconds[CRIA_OP_COUNT], cria_error *err);
void cria_prediction_deinit(cria_prediction *prediction);

/* Notes for the plan file: one token of each of `batch` sequences that already have `context` tokens, after prompts of
 * `prompt` tokens in steps of at most `budget`. The caller deinits them. */
cria_status cria_predict_notes(const cria_predicted_plan *plan, int64_t batch, int64_t prompt, int64_t context,
                               int64_t budget, cria_plan_notes *out, cria_error *err);

#endif
