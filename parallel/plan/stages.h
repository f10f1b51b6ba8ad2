/* Stages: the inter-operator pass. Cuts a graph into pipeline stages, gives each a mesh of the cluster's devices and a
 * way to run on it, and chooses the number of micro-batches, the schedule, recomputation and ZeRO (Alpa, OSDI'22,
 * section 5), with the transfers between stages, unequal devices and memory in the cost. Start-up thread. */
#ifndef CRIA_PARALLEL_PLAN_STAGES_H
#define CRIA_PARALLEL_PLAN_STAGES_H

#include "parallel/plan/cost.h"
#include "parallel/plan/plan_file.h"

typedef struct {
    cria_objective objective;
    cria_element element;
    /* Serving: `batch` requests at once, each of so many tokens in and out. */
    int64_t prompt_tokens, new_tokens, batch;
    /* Where lengths differ, those are means, and these are what a token of a prompt and a new token see on average; 0:
     * all requests are alike. */
    double prompt_context, new_context;
    double kv_budget; /* bytes of KV cache that a device may hold; 0: what is left of its memory */
    /* Training: sequences of one update, and tokens of a sequence. */
    int64_t global_batch, sequence;
    /* Bytes of state that the optimizer keeps beside each parameter: 8 for Adam's two moments in f32, 4 for a momentum,
     * 0 where there is none or only that of rows and columns (Adafactor). A master copy in f32 comes on top where
     * weights are narrower. */
    double optimizer_state;
    cria_schedule schedule; /* training: CRIA_SCHEDULE_INFERENCE: to be chosen */
    int64_t micro_batch;    /* training: sequences of a micro-batch; 0: to be chosen */
    bool search;            /* operators are cut by the intra-operator pass too, not only in the usual ways */
    /* What a plan must keep to. */
    int stages, per_stage; /* so many stages; so many devices in each; 0: free */
    bool all_devices;      /* none stays unused */
    bool in_order; /* stages, and copies of the plan, take devices in the order of the cluster: ranks are where they
                    * are */
    bool one_copy; /* throughput: one copy of the plan */
    /* The graph of a micro-batch of so many sequences, where its dims are not symbolic (borrowed, all of one
     * structure); NULL: the graph is the same for all. */
    const cria_graph *(*graph_of)(void *context, int64_t micro_batch, cria_error *err);
    void *context;
} cria_stages_options;

/* Latency of 1 request of 512 + 128 tokens, f16; Adam, 1024 sequences of 1024 tokens. */
void cria_stages_defaults(cria_stages_options *options);

/* Bytes beside each parameter and its gradient: state, and the master copy if there is one. */
double cria_stages_optimizer_bytes(const cria_stages_options *options);

/* A stage of a plan by hand: so many layers of the model on so many devices, cut as data x tensor. The operators before
 * the first layer belong to the first stage, those after the last to the last one. */
typedef struct {
    int layers, data, tensor;
} cria_hand_stage;

/* A plan as the table lists it. */
typedef struct {
    char name[48], why[200];  /* why: it cannot be; else what to know of it */
    bool feasible, ruled_out; /* ruled_out: by the options alone */
    double excess;  /* where memory is the reason: what the stage that lacks most needs, over what it has; else 0 */
    double seconds; /* what the objective minimises: of an update; of a request; of a token of every request at once */
    double tokens_per_second, first_token, latency;
    double longest; /* seconds of the slowest stage: of equal plans, the one that leaves it least is better */
    int stages, devices, replicas, micro_batches;
    int64_t micro_batch;
    double flops; /* training: of the model's operations per device and second, as Alpa counts (with recomputation) */
} cria_plan_summary;

/* Requests that come at a rate, and as many slots for them as the plan has requests at once. */
typedef struct {
    int64_t slots;
    double running; /* requests under way on average */
    double delayed; /* the part of requests that find no slot free */
    double wait;    /* seconds that a request waits for a slot, on average over all */
} cria_queue;

typedef struct {
    cria_plan *plan; /* of the first replica; borrows the graph */
    const cria_graph *graph;
    cria_plan_notes notes;
    cria_plan_summary chosen;
    cria_plan_summary *other; /* best first: the next-best of the search, then those made by hand */
    int others;
    char why[400];
    int layers;                    /* that stages were made of */
    int *layer_end;                /* [layers]: operators */
    double seconds;                /* that planning took */
    double request_rate, capacity; /* serving by a rate (parallel/plan/serving.h): requests a second; else 0 */
    cria_queue queue;
} cria_stages_result;

/* CRIA_ERR_INFEASIBLE: no plan fits into memory; the message says what is nearest. */
cria_status cria_stages_plan(const cria_graph *graph, const cria_cluster *cluster, const cria_stages_options *options,
                             cria_stages_result *out, cria_error *err);
void cria_stages_result_deinit(cria_stages_result *result);

/* What plans by hand may not choose. RECOMPUTE: activations are computed again everywhere but in the last operators, as
 * published; PLAIN: no ZeRO. */
enum { CRIA_HAND_FREE = 0, CRIA_HAND_RECOMPUTE = 1, CRIA_HAND_PLAIN = 2 };
/* The cost of a plan made by hand under the same model; options->micro_batch must be given. A plan that cannot be is
 * CRIA_OK with out->feasible false. */
cria_status cria_stages_by_hand(const cria_graph *graph, const cria_cluster *cluster,
                                const cria_stages_options *options, const cria_hand_stage *stages, int count,
                                unsigned flags, cria_plan_summary *out, cria_error *err);

#endif
