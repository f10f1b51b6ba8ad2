/* Net: a reduced model laid out for speed: what the bound and the search read in their inner loops. Costs are doubles,
 * which hold every sum below 2^53 exactly; what is forbidden is a finite cost that no answer worth having can contain.
 * Immutable once made; any thread reads it. Only for this folder. */
#ifndef CRIA_PARALLEL_SOLVE_NET_H
#define CRIA_PARALLEL_SOLVE_NET_H

#include "parallel/solve/model.h"

#include <stdint.h>

typedef struct {
    int begin, end;
    const double *usage; /* [strategies] */
} cria_net_segment;

typedef struct {
    int a, b;         /* a < b */
    const double *ab; /* [strategies of a][strategies of b] */
    const double *ba; /* the same, transposed */
} cria_net_edge;

typedef struct {
    int edge, other;
    const double *cost; /* [strategies of other][strategies of this node] */
} cria_net_half;

typedef struct {
    int nodes, edges, slices;
    const int *n;     /* [nodes] strategies */
    const size_t *at; /* [nodes + 1] where a node's strategies begin in arrays over all of them */
    double *unary;    /* [at[nodes]] */
    cria_net_edge *edge;
    const int *half_at; /* [nodes + 1] */
    cria_net_half *half;
    const int *segment_at; /* [nodes + 1] */
    cria_net_segment *segment;
    double *room; /* [slices] */
    double constant, forbidden;
    double magnitude; /* no sum of costs that the bound forms is larger: what rounding is measured by */
    size_t entries;   /* of all edges */
    cria_arena *arena;
} cria_net;

/* `most`: an answer dearer than this is of no interest (forbidden costs become a little more than it). */
cria_status cria_net_create(const cria_model *model, double most, cria_net *out);
void cria_net_deinit(cria_net *net);

/* Cost of an assignment without its usage; at least `forbidden` where something forbidden is chosen. */
double cria_net_cost(const cria_net *net, const int32_t *x);
/* over[slices]: usage less room. Returns the largest. */
double cria_net_usage(const cria_net *net, const int32_t *x, double *over);
/* out[at[nodes]]: what every strategy's usage costs at `price` per unit and slice; work[slices + 1]. */
void cria_net_price(const cria_net *net, const double *price, double *work, double *out);

#endif
