/* Dual: a lower bound by message passing with a price on the memory of every slice, and assignments read off it.
 *
 * For fixed prices the memory limits are part of the costs of strategies, and sequential tree-reweighted message
 * passing (TRW-S; Kolmogorov, PAMI 2006) bounds the rest. Prices climb by a deflected subgradient with Polyak's step,
 * with the messages kept from step to step. One thread at a time per object. Only for this folder. */
#ifndef CRIA_PARALLEL_SOLVE_DUAL_H
#define CRIA_PARALLEL_SOLVE_DUAL_H

#include "parallel/solve/net.h"

typedef struct {
    const cria_net *net;
    double *to_b, *to_a; /* messages of every edge, at message_b[e], message_a[e] */
    size_t *message_b, *message_a;
    double *price, *best_price; /* [slices] */
    double *unary;              /* [at[nodes]]: with prices */
    double *belief;             /* [at[nodes]]: after a backward pass, reduced costs of the strategies */
    double *direction, *over, *work;
    double bound;   /* of the last backward pass, without safety */
    double best;    /* proven */
    double forward; /* of the last forward pass */
    double step;    /* factor of Polyak's step */
    int since_better, rounds;
    int32_t *x;   /* the assignment read off in the last forward pass */
    double worst; /* its largest usage less room */
    cria_arena *arena;
} cria_dual;

cria_status cria_dual_create(const cria_net *net, cria_dual *out);
void cria_dual_deinit(cria_dual *dual);

/* One forward and one backward pass at the prices as they are. */
void cria_dual_pass(cria_dual *dual);
/* After `price` was changed: the costs with it. */
void cria_dual_price(cria_dual *dual);
/* Moves the prices along the subgradient at x; `target`: the cost of the best answer known. */
void cria_dual_climb(cria_dual *dual, double target);

#endif
