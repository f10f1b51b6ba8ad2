/* The problem behind the intra-operator pass: nodes with choices, edges with costs, in floating point. Only for the
 * intra-operator pass.
 *
 * Nodes [0, ops) are the operators of the range: their choices are their strategies. One more node per tensor that they
 * touch: its choices are the shardings in which it may be kept between operators. An operator is joined to its output's
 * node by what its output collectives cost, and to its inputs' nodes by what resharding costs, so that a conversion at
 * the operator that makes a value is paid once for all that read it. */
#ifndef CRIA_PARALLEL_PLAN_INTRA_PROBLEM_H
#define CRIA_PARALLEL_PLAN_INTRA_PROBLEM_H

#include "base/arena.h"
#include "parallel/plan/intra.h"

typedef struct {
    int choices;
    double *cost;            /* [choices]; HUGE_VAL: forbidden */
    cria_strategy *strategy; /* operators */
    cria_sharding *sharding; /* tensors */
    double *bytes;           /* tensors: of the largest shard; NULL: it needs no memory of its own */
    int tensor;              /* operators: -1 */
    int begin, end;          /* in use at operators begin <= i < end, counted from the first of the range */
} cria_intra_node;

typedef enum { CRIA_INTRA_OUTPUT, CRIA_INTRA_INPUT, CRIA_INTRA_ALIAS } cria_intra_edge_kind;

typedef struct {
    int a, b;
    cria_intra_edge_kind kind;
    const double *cost; /* [choices of a][choices of b]; HUGE_VAL: forbidden */
} cria_intra_edge;

typedef struct {
    const cria_graph *graph;
    int first, ops;
    cria_mesh mesh; /* with what the options forbid */
    const cria_intra_options *options;
    int nodes, edges;
    cria_intra_node *node;
    cria_intra_edge *edge;
    int *node_of; /* [tensors of the graph]; -1: the range does not touch it */
    cria_arena *arena;
} cria_intra_problem;

/* `fixed`: [ops] only these indices per operator, and only this output where it is not CRIA_ANY; NULL: free. */
cria_status cria_intra_problem_create(const cria_graph *graph, int first_op, int end_op, const cria_mesh *mesh,
                                      const cria_intra_options *options, const cria_strategy *fixed,
                                      cria_intra_problem *out, cria_error *err);
void cria_intra_problem_deinit(cria_intra_problem *problem);

/* The mesh with what the options forbid, and the bytes of an element of a tensor. */
cria_mesh cria_intra_mesh(const cria_mesh *mesh, const cria_intra_options *options);
double cria_intra_element(const cria_tensor *tensor, const cria_intra_options *options);

/* Fills everything of the result but bound, optimal and seconds; choice[nodes]. */
cria_status cria_intra_report(const cria_intra_problem *problem, const int32_t *choice, cria_intra_result *out,
                              cria_error *err);
/* Most bytes in use at any time. */
double cria_intra_peak(const cria_intra_problem *problem, const int32_t *choice);
double cria_intra_cost(const cria_intra_problem *problem, const int32_t *choice);

/* The cheapest choices. `limited`: within the memory limit. */
typedef struct {
    int32_t *choice; /* [nodes], owned */
    double bound;
    bool optimal;
} cria_intra_answer;
cria_status cria_intra_search(const cria_intra_problem *problem, bool limited, double seconds, cria_intra_answer *out,
                              cria_error *err);

#endif
