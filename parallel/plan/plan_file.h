/* Plan file: a plan with what was predicted of it, as versioned JSON (docs/plan.schema.json).
 *
 * Written by `cria plan --out`, read back by the lowering. A file names the graph that it cuts (name, number of
 * operators, hash of the structure), and every operator by the name of its output: a plan for another model, or for
 * another version of it, is refused with the place where they differ. Start-up thread. */
#ifndef CRIA_PARALLEL_PLAN_PLAN_FILE_H
#define CRIA_PARALLEL_PLAN_PLAN_FILE_H

#include "base/json.h"
#include "base/text.h"
#include "parallel/plan/plan.h"

#define CRIA_PLAN_VERSION 1

typedef enum { CRIA_OBJECTIVE_LATENCY, CRIA_OBJECTIVE_THROUGHPUT, CRIA_OBJECTIVE_TRAIN } cria_objective;
/* How micro-batches go through the stages. */
typedef enum { CRIA_SCHEDULE_INFERENCE, CRIA_SCHEDULE_GPIPE, CRIA_SCHEDULE_1F1B } cria_schedule;

const char *cria_objective_name(cria_objective objective); /* "latency", "throughput", "train" */
const char *cria_schedule_name(cria_schedule schedule);    /* "inference", "gpipe", "1f1b" */

/* What is predicted of one stage: seconds of one step of the whole plan (training: one update; serving: one token of
 * every sequence of the batch), bytes of the device that holds most. */
typedef struct {
    double compute, collectives, resharding; /* over all micro-batches of the step */
    double transfer;                         /* sending to and from the neighbouring stages */
    double bubble;                           /* waiting for other stages */
    double update;                           /* training: sums of gradients and the optimizer */
    int64_t weights, optimizer, activations, kv, memory, memory_limit; /* memory: the sum of the four before it */
    int64_t kv_blocks;                                                 /* serving: of the KV cache, per device */
    bool recompute; /* training: activations are made again in the backward pass */
    int zero;       /* training: 0; 1: the optimizer's state is cut over the batch axis; 3: parameters too */
} cria_plan_stage_notes;

/* What a plan says beside how operators are cut. */
typedef struct {
    char cluster[64];
    cria_objective objective;
    cria_schedule schedule;
    int micro_batches;    /* of one step */
    int replicas;         /* throughput: this many copies of the plan run beside each other on devices of their own */
    int64_t tokens;       /* tokens of one micro-batch (the value of symbolic dims) */
    int64_t block_tokens; /* of one KV block */
    double step_seconds;
    double tokens_per_second;     /* of all replicas */
    double first_token, latency;  /* serving: seconds until the first and the last token of a request */
    int ranks;                    /* 0: device and bytes are NULL */
    int *device;                  /* [ranks]: which device of the cluster, in the order of its file */
    int64_t *bytes;               /* [ranks]: of array data that the rank sends in one micro-batch of `tokens`, or
                                   * training in one update */
    int stages;                   /* 0: stage is NULL */
    cria_plan_stage_notes *stage; /* [stages] */
} cria_plan_notes;

/* Zeros with room for so many ranks and stages. */
cria_status cria_plan_notes_init(cria_plan_notes *notes, int ranks, int stages, cria_error *err);
void cria_plan_notes_deinit(cria_plan_notes *notes);

/* A hash of the structure of operators [first_op, end_op): kinds, shapes, attributes and which feeds which, not names;
 * what comes from before the range counts by its shape. Ranges with one hash are planned alike. */
uint64_t cria_graph_hash(const cria_graph *graph, int first_op, int end_op);

/* Appends the JSON text. `notes` may be NULL. */
void cria_plan_print(const cria_plan *plan, const cria_graph *graph, const cria_plan_notes *notes, cria_text *out);
cria_status cria_plan_write(const char *path, const cria_plan *plan, const cria_graph *graph,
                            const cria_plan_notes *notes, cria_error *err);

/* Reads what was written for `graph` (borrowed by the plan, which must not outlive it). `notes` may be NULL; else the
 * caller deinits it. Errors name the stage, the operator or the key. */
cria_status cria_plan_from_json(const cria_json_value *root, const cria_graph *graph, cria_plan **out,
                                cria_plan_notes *notes, cria_error *err);
cria_status cria_plan_read(const char *path, const cria_graph *graph, cria_plan **out, cria_plan_notes *notes,
                           cria_error *err);
/* Checks all that can be checked without the graph. */
cria_status cria_plan_check_json(const cria_json_value *root, cria_plan_notes *notes, cria_error *err);

#endif
