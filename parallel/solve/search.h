/* Search: an assignment that fits in memory, and simulated annealing around it (Kirkpatrick et al., Science 1983).
 *
 * A move changes one node, or one node with its neighbours following. The cost of every strategy given the others is
 * kept up to date, so that a move that is refused costs almost nothing; usage is kept in blocks of slices with their
 * largest. Memory is a hard limit; its price from the dual is part of what is minimised, so that a move which frees
 * memory is worth something to the move that needs it. One thread per object. Only for this folder. */
#ifndef CRIA_PARALLEL_SOLVE_SEARCH_H
#define CRIA_PARALLEL_SOLVE_SEARCH_H

#include "parallel/solve/net.h"
#include "parallel/solve/until.h"

typedef struct {
    const cria_net *net;
    int32_t *x, *best;
    double cost, best_cost; /* best_cost: INFINITY before anything fits */
    double *local;          /* [at[nodes]]: cost of every strategy while the others stay */
    double *price, *priced; /* [slices], and what it makes of every strategy */
    double *over;           /* usage less room, without the lift of its block */
    double *block_most, *block_lift;
    double *work;
    int *undo_node;
    int32_t *undo_strategy;
    uint64_t seed, drawn;
    cria_arena *arena;
} cria_search;

cria_status cria_search_create(const cria_net *net, uint64_t seed, cria_search *out);
void cria_search_deinit(cria_search *search);
void cria_search_set(cria_search *search, const int32_t *x, const double *price);
/* Raises prices where memory is short until x fits, then descends. True if it fits; best is kept up to date. */
bool cria_search_repair(cria_search *search, double scale, int rounds, const cria_until *until);
/* `moves` proposals from temperature `hot` down to `cold`, the weight of the prices falling from `weight` to 0 at the
 * end. x must fit. */
void cria_search_anneal(cria_search *search, int64_t moves, double hot, double cold, double weight,
                        const cria_until *until);

#endif
