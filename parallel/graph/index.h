/* Index: the loop indices of an operator, which is all that the planner and the lowering know of how it may be cut.
 *
 * An operator is seen as a loop nest over named indices; every dim of every operand is one of them (a dim that operands
 * share by name is the same index). Cutting an index over devices cuts the operands that have it and leaves the others
 * whole on every device. What that means for the result is the index's `split`. Strategies, their collectives and the
 * shards of the lowering all follow from this, for every operator alike; an operator kind only states its indices
 * (one function in its row of parallel/graph/ops.c). Any thread. */
#ifndef CRIA_PARALLEL_GRAPH_INDEX_H
#define CRIA_PARALLEL_GRAPH_INDEX_H

#include "parallel/graph/graph.h"

typedef enum {
    CRIA_SPLIT_FREE,  /* each device computes its part of the output */
    CRIA_SPLIT_SUM,   /* contracted: each device has a partial sum of the whole output (of an embedding: its rows, else
                       * zero); a sum over the devices must follow */
    CRIA_SPLIT_STATS, /* possible with a small all-reduce inside the operator: a norm's moments, a softmax's maximum and
                       * sum, a sampler's maximum, sum and candidates; cria_op_stats_bytes says how much */
    CRIA_SPLIT_NEVER  /* may not be cut (head_dim under rope, the keys that a causal query walks over) */
} cria_split;

/* A dim that several operands know under different names (attention: `head` of q and out, `kv_head` of k and v) is one
 * index with the extent of the smaller; the others are cut in proportion. */
typedef struct {
    cria_dim dim; /* name and extent; CRIA_SYMBOLIC where known at run time */
    int64_t unit; /* cut only at multiples of this: a group of query heads, 32 columns of a quantised group */
    int8_t input[CRIA_MAX_INPUTS]; /* which dim of the input it is; -1: the input does not have it */
    int8_t output;                 /* -1: the output does not have it */
    cria_split split;
} cria_op_index;

#define CRIA_MAX_INDICES 8

/* Writes the indices of an operator, ordered: output dims first, then contracted ones. Returns how many. */
int cria_op_indices(const cria_graph *graph, const cria_op *op, cria_op_index out[CRIA_MAX_INDICES]);
/* How finely a dim may be cut, 1 or more: the unit of every index that has its name. */
int64_t cria_graph_unit(const cria_graph *graph, cria_dim dim);
/* Bytes that each device puts into the small all-reduce when index `index` of kind CRIA_SPLIT_STATS is cut. `symbolic`:
 * the value of symbolic dims. */
double cria_op_stats_bytes(const cria_graph *graph, const cria_op *op, int index, int64_t symbolic);
/* Floating-point operations, and bytes read and written where every operand is `element` bytes wide; `symbolic`: the
 * value of symbolic dims, `context`: the keys that a token meets where the graph has no sequence length. */
double cria_op_flops(const cria_graph *graph, const cria_op *op, int64_t symbolic, int64_t context);
double cria_op_bytes(const cria_graph *graph, const cria_op *op, int64_t symbolic, double element);
/* The output is a linear function of its inputs taken together, so that partial sums may go in and come out (add,
 * reshape, gather; scale by a constant). */
bool cria_op_passes_partial(const cria_op *op);
/* Its gradient is found from its output (ReLU: where it is positive), not from its input. */
bool cria_op_gradient_of_output(const cria_op *op);
/* Its computation is worth cutting: matrix products, convolutions, attention. Others only move or look at elements. */
bool cria_op_multiplies(const cria_graph *graph, const cria_op *op);

#endif
