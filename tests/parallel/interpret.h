/* Interpret: evaluates the operators of a graph in double precision, each from its definition, as slowly as it takes.
 *
 * A test library: the judge of gradients, and of plans. An operator may be evaluated on a part of its indices: what it
 * then writes is what the device with that part computes (partial sums where contracted indices are cut), so that a
 * sharded execution can be played through. Tensors are whole arrays, row-major; a test that wants to see that a device
 * reads no more than it holds fills the rest with NaN. Statistics (CRIA_SPLIT_STATS) are taken over the whole index,
 * whatever its part, since devices exchange them. */
#ifndef CRIA_TESTS_PARALLEL_INTERPRET_H
#define CRIA_TESTS_PARALLEL_INTERPRET_H

#include "parallel/graph/index.h"

typedef struct {
    int64_t begin, end;
} interpret_range;

/* Elements of a tensor without symbolic dims. */
int64_t interpret_elements(const cria_tensor *tensor);
/* Writes the part of `output` (the whole array) that belongs to `range`, one per index of cria_op_indices; NULL:
 * everything. A bias is added where every contracted index begins at 0. An index that stands for dims of several
 * extents (heads) counts in its own. Tokens of whole sequences are cut between them. */
void interpret_op(const cria_graph *graph, const cria_op *op, const double *const input[CRIA_MAX_INPUTS],
                  const interpret_range *range, double *output);

/* An array per tensor of the graph, zeroed but for rotary tables. Nothing may be symbolic (cria_graph_bind). */
double **interpret_create(const cria_graph *graph);
void interpret_destroy(const cria_graph *graph, double **value);
/* Fills parameters, states and inputs: normal numbers of the given width, ids and labels in their range (some labels
 * -1), "step" 1; norms' weights and variances are positive. */
void interpret_fill(const cria_graph *graph, double **value, double width, uint64_t seed);
/* Runs operators [first_op, end_op) in order. */
void interpret_run(const cria_graph *graph, double **value, int first_op, int end_op);

#endif
