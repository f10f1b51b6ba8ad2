/* Problem: what the planner's solver is asked. Nodes (operators) with strategies, edges (tensors) with a cost for every
 * pair of strategies, and memory: at every time the usages of the nodes alive then stay within a limit.
 *
 * The formulation is Alpa's intra-operator ILP (Zheng et al., OSDI'22, section 4) with its memory constraint, in the
 * form of the ASPLOS/EuroSys 2025 contest on intra-operator parallelism. Built by parallel/plan and by the instance
 * reader, immutable while it is solved; any thread may read it. Costs and usages are whole numbers: sums are exact, so
 * that two routes to one answer agree, and a bound can be proven. */
#ifndef CRIA_PARALLEL_SOLVE_PROBLEM_H
#define CRIA_PARALLEL_SOLVE_PROBLEM_H

#include "base/error.h"

#include <stdint.h>

/* A cost that forbids: at or above this a choice is infeasible, never merely dear. */
#define CRIA_COST_FORBIDDEN INT64_C(1000000000000000000)

typedef struct cria_problem cria_problem;

/* usage_limit < 0: no memory limit. */
cria_status cria_problem_create(int64_t usage_limit, cria_problem **out, cria_error *err);
void cria_problem_destroy(cria_problem *problem);

/* Adds a node with `strategies` >= 1 choices, alive at begin <= t < end (begin == end: never). costs, usages:
 * [strategies], copied; usages may be NULL (0). A node may be alive in further intervals (cria_problem_interval).
 * Returns its number, counted from 0, or -1 with the reason (range, overflow, memory). */
int cria_problem_node(cria_problem *problem, int strategies, const int64_t *costs, const int64_t *usages, int64_t begin,
                      int64_t end, cria_error *err);
cria_status cria_problem_interval(cria_problem *problem, int node, int64_t begin, int64_t end, cria_error *err);
/* costs: [strategies of a][strategies of b], row-major, copied. Parallel edges add up. a != b. */
cria_status cria_problem_edge(cria_problem *problem, int a, int b, const int64_t *costs, cria_error *err);

int cria_problem_nodes(const cria_problem *problem);
int cria_problem_edges(const cria_problem *problem);
int cria_problem_strategies(const cria_problem *problem, int node);

/* The judge: the exact cost of an assignment (strategy[nodes]), and its largest usage over time. Status
 * CRIA_ERR_INFEASIBLE (naming the node, edge or time) where something forbidden is chosen or the limit is exceeded. */
cria_status cria_problem_cost(const cria_problem *problem, const int32_t *strategy, int64_t *cost, int64_t *peak,
                              cria_error *err);

#endif
