/* The rows of a problem, for the files of this folder. */
#ifndef CRIA_PARALLEL_SOLVE_PROBLEM_ROWS_H
#define CRIA_PARALLEL_SOLVE_PROBLEM_ROWS_H

#include "parallel/solve/problem.h"

#include <stddef.h>

typedef struct {
    int32_t strategies;
    int32_t interval; /* the first of a list of intervals, -1: none */
    size_t cost;      /* index of its costs in `values` */
    size_t usage;     /* index of its usages in `values`; SIZE_MAX: all 0 */
} cria_problem_node_row;

typedef struct {
    int64_t begin, end;
    int32_t next; /* -1: the last one of its node */
} cria_problem_interval_row;

typedef struct {
    int32_t a, b;
    size_t cost;
} cria_problem_edge_row;

struct cria_problem {
    int64_t usage_limit;
    int nodes, edges, intervals;
    size_t values_used;
    int nodes_room, edges_room, intervals_room;
    size_t values_room;
    cria_problem_node_row *node;
    cria_problem_edge_row *edge;
    cria_problem_interval_row *interval;
    int64_t *values;
    int64_t cost_total, usage_total; /* of the largest magnitude of every node and edge: no sum can pass it */
};

/* The largest usage over time where every node takes its least, that time, and the node that uses most of it then. */
cria_status cria_problem_least_peak(const cria_problem *problem, int64_t *peak, int64_t *when, int *largest);

#endif
