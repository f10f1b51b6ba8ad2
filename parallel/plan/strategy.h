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
    /* Updates of parameters are cut over the whole mesh, their gradients scattered and the new parameters gathered
     * (ZeRO); implies `reduce_scatter`. */
    bool prefer_reduce_scatter;
    /* Sums may be scattered, or made over one axis after the other of parts, where that is cheaper. Without it every
     * sum is an all-reduce of all that the operator computed, as Alpa counts. */
    bool reduce_scatter;
    bool sum_where_made; /* no operator hands partial sums on, as in Alpa */
    /* Operators without work worth cutting take the operand that they follow as it lies, none cuts its output further
     * than it was computed, and what must be whole must have been computed so, as in Alpa. Otherwise a slice may be
     * taken anywhere, e.g. of a gradient that is to be summed, so that smaller parts are summed and the results
     * gathered. */
    bool follow;
    bool data_parallel_only;
    int64_t symbolic; /* the value of symbolic dims */
    double element;   /* bytes per element */
} cria_strategy_options;

typedef struct {
    /* Into cria_op_indices; -1: the axis is idle (every position does the same); CRIA_PARTIAL: every position along the
     * axis has a partial sum of all inputs and makes one of the output. */
    int8_t index[CRIA_MESH_AXES];
    cria_sharding input[CRIA_MAX_INPUTS]; /* replicated where the operator has no such input */
    cria_sharding raw;                    /* of the output as computed: CRIA_PARTIAL where a contracted index is cut */
    cria_sharding output; /* as left for the readers, after the output's own collectives (raw -> output) */
} cria_strategy;

#define CRIA_IDLE (-1)
#define CRIA_MAX_STRATEGIES ((CRIA_MAX_INDICES + 2) * (CRIA_MAX_INDICES + 2))

/* Shardings of inputs and output that follow from which index each axis cuts; output == raw. Axes of one device are
 * idle. Returns NULL, or why that is not legal. */
const char *cria_strategy_derive(const cria_graph *graph, const cria_op *op, const cria_mesh *mesh,
                                 const int8_t index[CRIA_MESH_AXES], cria_strategy *out);
/* Checks that a strategy from outside is the one that its indices give and that `output` can be reached. */
cria_status cria_strategy_check(const cria_graph *graph, const cria_op *op, const cria_mesh *mesh,
                                const cria_strategy *strategy, cria_error *err);

/* The legal strategies of an operator, each with output == raw, cuts of what is free before cuts of what is summed,
 * none twice. Returns how many were written (at most CRIA_MAX_STRATEGIES); 0 where none is legal. Where the options
 * leave nothing, allow_replicated is dropped: an operator too small for the mesh leaves an axis idle. */
int cria_strategies(const cria_graph *graph, const cria_op *op, const cria_mesh *mesh,
                    const cria_strategy_options *options, cria_strategy out[CRIA_MAX_STRATEGIES]);
/* Whether every device gets something of a dim that the axes in `cut` cut. */
bool cria_dim_divides(const cria_graph *graph, cria_dim dim, const cria_mesh *mesh, const bool cut[CRIA_MESH_AXES],
                      int64_t symbolic);
/* The part of cria_strategy_collectives that does not depend on how the output is left: statistics. */
double cria_strategy_stats(const cria_graph *graph, const cria_op *op, const cria_mesh *mesh,
                           const cria_strategy_options *options, const cria_strategy *strategy);
/* Bytes that each device puts into its small all-reduce along an axis; 0: there is none. */
double cria_strategy_stats_bytes(const cria_graph *graph, const cria_op *op, const cria_mesh *mesh,
                                 const cria_strategy_options *options, const cria_strategy *strategy, int axis);
/* The operand that an operator without work of its own follows; -1: it is free. */
int cria_strategy_follows(const cria_graph *graph, const cria_op *op);
/* Communication inside the operator: statistics, and output collectives from `raw` to `output`. */
double cria_strategy_collectives(const cria_graph *graph, const cria_op *op, const cria_mesh *mesh,
                                 const cria_strategy_options *options, const cria_strategy *strategy);
/* The part of the operator's work that the device with most of it does: 1 where nothing is cut. */
double cria_strategy_share(const cria_graph *graph, const cria_op *op, const cria_mesh *mesh, int64_t symbolic,
                           const cria_strategy *strategy);

#endif
