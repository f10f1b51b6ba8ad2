/* Strategy: one way to run one operator on a mesh: which index each mesh axis cuts, and in which sharding the output is
 * left. Everything else follows from the operator's indices (parallel/graph/index.h). Plain data; any thread. */
#ifndef CRIA_PARALLEL_PLAN_STRATEGY_H
#define CRIA_PARALLEL_PLAN_STRATEGY_H

#include "parallel/graph/index.h"
#include "parallel/plan/sharding.h"

/* What the enumeration may offer: Alpa's options. */
typedef struct {
    int force_batch_axis;  /* the batch (token) index must be cut by this mesh axis; -1: free */
    bool allow_replicated; /* an axis may stay idle (always for operators without work, such as element-wise) */
    bool forbid_all_gather, forbid_all_to_all;
    bool prefer_reduce_scatter; /* ZeRO: parameters' updates are sharded */
    bool data_parallel_only;
    int64_t symbolic; /* the value of symbolic dims */
    double element;   /* bytes per element of activations */
} cria_strategy_options;

typedef struct {
    int8_t index[CRIA_MESH_AXES]; /* into cria_op_indices; -1: the axis is idle (every position does the same) */
    cria_sharding input[CRIA_MAX_INPUTS];
    cria_sharding raw;    /* of the output as computed: CRIA_PARTIAL where a contracted index is cut */
    cria_sharding output; /* as left for the readers, after the output's own collectives (raw -> output) */
} cria_strategy;

/* The legal strategies of an operator, cheapest kinds first, none twice. Returns how many were written (at most
 * `capacity`); 0 where none is legal. */
int cria_strategies(const cria_graph *graph, const cria_op *op, const cria_mesh *mesh,
                    const cria_strategy_options *options, cria_strategy *out, int capacity);
/* Communication inside the operator: statistics, and output collectives from `raw` to `output`. */
double cria_strategy_collectives(const cria_graph *graph, const cria_op *op, const cria_mesh *mesh,
                                 const cria_strategy_options *options, const cria_strategy *strategy);

#endif
