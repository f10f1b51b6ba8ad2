/* Handmade: strategies by rule, as engines without a planner have them, to compare plans with. Any thread. */
#ifndef CRIA_PARALLEL_PLAN_HANDMADE_H
#define CRIA_PARALLEL_PLAN_HANDMADE_H

#include "parallel/plan/intra.h"

typedef enum {
    CRIA_HAND_ONE_DEVICE,    /* nothing is cut: every device does it all */
    CRIA_HAND_DATA_PARALLEL, /* the batch is cut over the whole mesh, parameters are whole */
    CRIA_HAND_MEGATRON, /* batch over axis 0, heads, inner widths and vocabulary over axis 1 (over the only axis of a
                         * line), as Shoeybi et al. 2019 */
    CRIA_HAND_ZERO2,    /* data parallel; gradients are scattered, updates cut, new parameters gathered
                         * (Rajbhandari et al. 2020) */
    CRIA_HAND_ZERO3,    /* parameters too stay cut, and are gathered where they are used */
    /* Alpa's heuristic: all that comes from outside, data too, is cut along its largest dim, and operators follow their
     * largest operand, as XLA's propagation of shardings has it (Xu et al. 2021) */
    CRIA_HAND_LARGEST_DIM,
    CRIA_HAND_COUNT
} cria_hand;

const char *cria_hand_name(cria_hand hand);
/* Strategies of operators [first_op, end_op) for cria_intra_fixed, whose `output` is CRIA_ANY where the rule leaves it
 * open. What does not divide is left whole. CRIA_HAND_ZERO3 wants options->gather_parameters. */
cria_status cria_handmade(cria_hand hand, const cria_graph *graph, int first_op, int end_op, const cria_mesh *mesh,
                          const cria_intra_options *options, cria_strategy *strategies, cria_error *err);

#endif
