/* Transfer: how a value gets from the ranks of one stage to those of a later one. Internal to parallel/lower.
 *
 * Each byte crosses once: what every rank of the later stage wants whole is cut over them on the way and gathered among
 * them afterwards, since ranks of one stage are better connected than stages are (Zhuang et al. 2022, "On Optimizing
 * the Communication of Model Parallelism", do the same). Where several ranks hold the same part, they share the work.
 */
#ifndef CRIA_PARALLEL_LOWER_TRANSFER_H
#define CRIA_PARALLEL_LOWER_TRANSFER_H

#include "parallel/lower/lowering.h"

typedef struct {
    int from, to; /* ranks of the plan */
    cria_box box;
} cria_piece;

/* In which sharding the earlier stage sends a value, and the later one receives it. */
cria_sharding cria_transfer_departure(const cria_plan *plan, int stage, int tensor);
cria_sharding cria_transfer_arrival(const cria_graph *graph, const cria_plan *plan, int stage, int tensor);
/* The pieces, ordered by sender and receiver; *out is the caller's to free. */
cria_status cria_transfer_pieces(const cria_graph *graph, const cria_plan *plan, int tensor, int from_stage,
                                 int to_stage, cria_piece **out, int *count, cria_error *err);
/* True if an operator of the stage reads the value. */
bool cria_stage_reads(const cria_graph *graph, const cria_stage *stage, int tensor);

#endif
