/* Model: a problem in the form that the solver transforms. Exact reductions turn one model into a smaller one with the
 * same optimum; what they did is kept as a list of stages, so that an answer of the small one becomes an answer of the
 * problem. One thread builds; afterwards any may read. Only for this folder. */
#ifndef CRIA_PARALLEL_SOLVE_MODEL_H
#define CRIA_PARALLEL_SOLVE_MODEL_H

#include "base/arena.h"
#include "parallel/solve/problem.h"
#include "parallel/solve/until.h"

#include <stdbool.h>
#include <stddef.h>

/* Forbidden inside a model, and everything above it: finite sums stay below 2^59, so that none is taken for it. */
#define CRIA_MODEL_FORBIDDEN CRIA_COST_FORBIDDEN

/* ptr = zeroed memory for `count` of it, or the calling function fails. */
#define CRIA_MODEL_NEW(arena, ptr, count)                                                                              \
    do {                                                                                                               \
        (ptr) = cria_arena_alloc_array((arena), (size_t)(count) + 1, sizeof *(ptr));                                   \
        if (!(ptr)) return CRIA_ERR_MEMORY;                                                                            \
    } while (0)

/* Usage of one node over slices begin <= t < end: usage[strategies], the least of them 0. */
typedef struct {
    int begin, end;
    int64_t *usage;
} cria_segment;

typedef struct {
    int strategies;
    int64_t *cost; /* [strategies] */
    int segments;
    cria_segment *segment; /* ascending, disjoint */
    int edges;
    int *edge; /* the edges at this node */
} cria_model_node;

/* cost[i * strategies of b + j]. At most one edge joins two nodes. */
typedef struct {
    int a, b;
    int64_t *cost;
} cria_model_edge;

/* Slices are the times at which usage can be largest. */
typedef struct {
    int nodes, edges, slices;
    cria_model_node *node;
    cria_model_edge *edge;
    int64_t *room;    /* [slices]: the limit less the usage that no choice avoids */
    int *origin;      /* [slices]: their numbers in the first model made of the problem */
    int *heir;        /* [slices of the first model]: the slice that made this one needless; itself; or -1 */
    int64_t constant; /* cost of what is decided */
    cria_arena *arena;
} cria_model;

/* How an answer of the model after a step becomes one of the model before. */
typedef struct cria_stage cria_stage;
struct cria_stage {
    const cria_stage *before; /* the stage that was done earlier */
    int nodes;                /* of the model before */
    /* A contraction: node v of the model before takes table[v][strategy of node into[v]]; into[v] < 0: see eliminated.
     */
    const int *into;
    int32_t *const *table;
    const int *sizes; /* strategies of the nodes of the model after */
    /* Eliminated nodes, in order: node[k]'s best strategy for those of its neighbours, all numbered as before. */
    int eliminated;
    const struct cria_elimination *elimination;
};

typedef struct cria_elimination {
    int node, a, b, strategies_b; /* a, b: neighbours, -1: none */
    const int32_t *best;          /* [strategies of a][strategies of b] */
} cria_elimination;

typedef struct {
    cria_model model;
    const cria_stage *stages;
    cria_arena *arena;    /* of the stages */
    char infeasible[160]; /* why there is no answer, where reduce returned CRIA_ERR_INFEASIBLE */
} cria_reduction;

/* The problem as a model, with times compressed to maximal live sets; `heirs` outlives all models made of it. */
cria_status cria_model_create(const cria_problem *problem, cria_arena *arena, cria_arena *heirs, cria_model *out);

/* Reduces; stops early, with what was reduced so far, once `until` is over. On CRIA_ERR_INFEASIBLE there is no
 * assignment. */
cria_status cria_reduce(const cria_problem *problem, const cria_until *until, cria_reduction *out);
/* Reduces further with only the strategies keep[first[v] + i] of every node of the model; first[v]: the sum of the
 * strategies before it. */
cria_status cria_reduction_restrict(cria_reduction *reduction, const bool *keep, const cria_until *until);
void cria_reduction_deinit(cria_reduction *reduction);

/* strategy[model.nodes] to problem_strategy[nodes of the problem]. */
cria_status cria_reduction_expand(const cria_reduction *reduction, const int32_t *strategy, int32_t *problem_strategy);

/* The other way; false where the reductions have dropped what it takes (there is an answer as good without it): then
 * `strategy` is near it. */
bool cria_reduction_project(const cria_reduction *reduction, const int32_t *problem_strategy, int32_t *strategy);

/* Contraction of `from` (contract.c): parent[v] < 0 keeps node v, otherwise node v follows table[v][strategy of
 * parent[v]]
 * (-1: none); keep[v][i] says which strategies remain; dead[v]: it was eliminated. Makes the model `to` and a stage.
 * On CRIA_ERR_INFEASIBLE, node *empty of `from` and its followers have no strategy in common. */
typedef struct {
    int *parent;
    int32_t **table;
    bool **keep;
    bool *dead;
    cria_elimination *elimination;
    int eliminated;
} cria_change;

cria_status cria_contract(const cria_model *from, const cria_change *change, cria_model *to, cria_arena *stage_arena,
                          const cria_stage **stages, int *empty);

/* Drops the slices that can never bind and those that a neighbour is at least as tight as. */
cria_status cria_model_drop_slices(cria_model *model);

#endif
