/* Lowering: (graph, plan, rank) to that rank's program.
 *
 * Decides what the model file does not know: which projections are fused into one matrix, what rides in a linear
 * layer's epilogue (bias, activation, residual), where activations are prepared, and where every buffer lies. Start-up
 * thread. */
#ifndef CRIA_PARALLEL_LOWER_LOWER_H
#define CRIA_PARALLEL_LOWER_LOWER_H

#include "parallel/graph/graph.h"
#include "parallel/lower/program.h"
#include "parallel/plan/plan.h"

typedef struct {
    int64_t max_tokens;    /* tokens of a step */
    int64_t max_rows;      /* logits rows of a step; the head's chunk is at most 64 of them */
    int64_t max_positions; /* rows of the rope table */
    /* The panel type of each parameter with two or more dims, by tensor id. */
    const cria_panel_type *panel;
} cria_lower_options;

cria_status cria_lower(const cria_graph *graph, const cria_plan *plan, int rank, const cria_lower_options *options,
                       cria_program **out, cria_error *err);

#endif
