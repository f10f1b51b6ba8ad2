/* What one layer costs on one mesh when its operators are cut in a given way. Private to the inter-operator pass.
 *
 * Serving: forward only, over the phases of a request. Training: the backward pass is derived from the forward
 * strategies: an input that lacks an index of the output which is cut gets partial gradients that must be summed (of a
 * parameter: once in a step, over all micro-batches); what was sliced is gathered on the way back. */
#ifndef CRIA_PARALLEL_PLAN_STAGES_LAYER_H
#define CRIA_PARALLEL_PLAN_STAGES_LAYER_H

#include "parallel/plan/cost.h"

enum { CRIA_PHASES = 2 };

/* What is planned for. Training has one phase, a micro-batch; its cost goes to [0] forward and [1] backward. */
typedef struct {
    const cria_graph *graph;
    const cria_cluster *cluster;
    const int *last_use; /* [tensors]: the last operator that reads it; -1: none */
    /* [tensors]: the first one; NULL: no layer shares parameters with others, as far as is asked. */
    const int *first_use;
    bool train;
    cria_step_shape phase[CRIA_PHASES];
    cria_element element;
    double optimizer; /* bytes per parameter beside weights and gradients */
} cria_layer_task;

enum { CRIA_SHARED_TABLE, CRIA_SHARED_ANGLES, CRIA_SHARED };

/* Seconds of one phase. */
typedef struct {
    double compute, collectives, resharding;
} cria_seconds;

/* Per device; bytes where nothing else is said. */
typedef struct {
    cria_seconds phase[CRIA_PHASES];
    double sync;    /* training: seconds of summing gradients, once in a step */
    double update;  /* training: seconds of the optimizer */
    double gather;  /* training: seconds in every micro-batch if parameters are cut over the batch axes (ZeRO-3) */
    double scatter; /* the same of their gradients, takes the place of sync */
    double sent[CRIA_PHASES];                    /* bytes that a device sends in collectives of a phase */
    double sync_sent, gather_sent, scatter_sent; /* bytes of what takes those seconds */
    double parameters;                           /* elements held */
    double cut_parameters;                       /* elements held if they are cut over the batch axes too */
    /* The same of parameters that other layers read too, a tied embedding and tables of angles: a stage has them once.
     * Not among those above. */
    double shared[CRIA_SHARED], cut_shared[CRIA_SHARED];
    double saved; /* training: kept of a micro-batch for the backward pass, if nothing is computed again */
    double input; /* of the values that come in: what is kept if all is computed again */
    double work;  /* the most that is live inside an operator */
    double kv;    /* of a token in the KV cache */
} cria_layer_cost;

/* Which mesh axes cut the batch where layers meet; the others hold all of it. */
cria_sharding cria_layer_boundary(const cria_tensor *tensor, unsigned batch_axes);

/* strategies[end_op - first_op]. type: of each device of the mesh. False: the strategies do not fit together. */
bool cria_layer_evaluate(const cria_layer_task *task, int first_op, int end_op, const cria_mesh *mesh, const int *type,
                         unsigned batch_axes, const cria_strategy *strategies, cria_layer_cost *out);

/* How a mesh axis is used by the hand-made ways. */
typedef enum { CRIA_AXIS_IDLE, CRIA_AXIS_BATCH, CRIA_AXIS_TENSOR } cria_axis_use;
/* The usual way (Megatron-LM's, wherever it applies): operators follow their inputs; where nothing is cut yet, products
 * cut the largest output index, embeddings of a vocabulary their rows; partial sums are summed where they are made.
 * What cannot be cut stays whole. `experts`: products that have a matrix of parameters for each expert cut experts over
 * the axes of the batch, so that tokens travel and parameters do not (GShard, Lepikhin et al. 2020).
 * strategies[end_op - first_op]. */
void cria_layer_usual_way(const cria_layer_task *task, int first_op, int end_op, const cria_mesh *mesh,
                          const cria_axis_use use[CRIA_MESH_AXES], bool experts, cria_strategy *strategies);
/* Whether that makes a difference. */
bool cria_layer_has_experts(const cria_graph *graph, int first_op, int end_op);

#endif
