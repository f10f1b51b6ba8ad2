/* Plan: which part of every tensor each rank holds. Plain data; immutable once made. Any thread.
 *
 * With one rank the plan is trivial and every part is the whole; the lowering knows no other way to ask. */
#ifndef CRIA_PARALLEL_PLAN_PLAN_H
#define CRIA_PARALLEL_PLAN_PLAN_H

#include "base/error.h"
#include "parallel/graph/graph.h"

#include <stdint.h>

typedef struct {
    int64_t begin, end;
} cria_extent;

typedef struct cria_plan cria_plan;

/* Everything on one device. */
cria_status cria_plan_create_single(const cria_graph *graph, cria_plan **out, cria_error *err);
void cria_plan_destroy(cria_plan *plan);
int cria_plan_ranks(const cria_plan *plan);
/* True if the rank executes this operator of the graph. */
bool cria_plan_runs(const cria_plan *plan, int rank, int op);
/* The part of a tensor's dim that the rank holds; symbolic dims give [0, CRIA_SYMBOLIC). */
cria_extent cria_plan_extent(const cria_plan *plan, int rank, int tensor, int dim);

#endif
