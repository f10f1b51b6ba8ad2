/* Liveness: which operators need each tensor's memory, when operators run in the graph's order. Any thread. */
#ifndef CRIA_PARALLEL_GRAPH_LIVENESS_H
#define CRIA_PARALLEL_GRAPH_LIVENESS_H

#include "parallel/graph/graph.h"

/* Operators [first, last]; last < first where there is none. */
typedef struct {
    int first, last;
} cria_span;

/* For operators [first_op, end_op). Writes to storage[t] the tensor whose memory t is kept in: t itself or, for the
 * output of an update, what it takes the place of (CRIA_NO_TENSOR: the range does not touch t). span[t] is of the
 * memory where storage[t] == t, else empty:
 * - parameters and states that the range touches live through all of it;
 * - a value lives from the operator that makes it (from the first, if that comes before the range) to the last that
 *   reads it, to the end if something after the range does or nothing at all: it is a result;
 * - an input lives from the first operator to the last that reads it.
 * Arrays have one entry per tensor of the graph. */
void cria_graph_liveness(const cria_graph *graph, int first_op, int end_op, int *storage, cria_span *span);

#endif
