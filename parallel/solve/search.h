/* Search: an assignment that fits in memory, and simulated annealing around it (Kirkpatrick et al., Science 1983).
 *
 * A move changes one node, one node with its neighbours following, or a tree of nodes; windows of many are solved
 * exactly. The cost of every strategy given the others is kept up to date, so that a move that is refused costs almost
 * nothing; usage is kept in blocks of slices with their largest. Memory is a hard limit; its price from the dual is
 * part of what is minimised, so that a move which frees memory is worth something to the move that needs it. One thread
 * per object. Only for this folder. */
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
    struct cria_tree *tree;     /* of tree moves */
    struct cria_fusion *fusion; /* of cria_search_fuse */
    struct cria_window *window; /* of cria_search_window */
    uint64_t seed, drawn;
    cria_arena *arena;
} cria_search;

cria_status cria_search_create(const cria_net *net, uint64_t seed, cria_search *out);
void cria_search_deinit(cria_search *search);
void cria_search_set(cria_search *search, const int32_t *x, const double *price);
/* Other prices, the assignment as it is. */
void cria_search_price(cria_search *search, const double *price);
/* Raises prices where memory is short until x fits, then descends. True if it fits; best is kept up to date. */
bool cria_search_repair(cria_search *search, double scale, int rounds, const cria_until *until);
/* A run of annealing from temperature `hot` down to `cold`, the weight of the prices falling from `weight` to 0 at the
 * end: of `moves` proposals, or, where `end` is not 0, from `begin` to `end` by the clock, however many that are. */
typedef struct {
    int64_t moves, done;
    uint64_t begin, end; /* ns */
    double hot, cold, weight;
    double cool;     /* the part of the run that anneals; then it is cold, and windows improve it */
    double spent;    /* work that windows have had in advance */
    int64_t windows; /* that it has had */
    bool over;
} cria_anneal;

/* Goes on with the run for at most `chunk` proposals, or until `pause` is set (NULL: never); then, where it is over,
 * descends. x must fit. */
void cria_search_anneal(cria_search *search, cria_anneal *run, int64_t chunk, const atomic_bool *pause,
                        const cria_until *until);

bool cria_search_fits(const cria_search *search);

/* The state takes the best parts of itself and of `x`, which must fit; the best is kept up to date. */
void cria_search_fuse(cria_search *search, const int32_t *x);

/* For the files of the search. Strategy j of node v, whether it fits or not. */
void cria_search_move(cria_search *search, int v, int j);
/* May every slice of [begin, end) take so much more? */
bool cria_search_has_room(const cria_search *search, int begin, int end, double more);
/* The largest usage less room in [begin, end). */
double cria_search_most_over(const cria_search *search, int begin, int end);
/* May node v take strategy j, by the room there is? */
bool cria_search_may_take(const cria_search *search, int v, int j);
/* The state becomes the best if it is cheaper and allowed; it must fit. */
void cria_search_keep(cria_search *search);
int cria_search_below(cria_search *search, int n);
double cria_search_uniform(cria_search *search);

/* A random tree of nodes around `root`, at most `size` of them, takes new strategies together, drawn from their exact
 * joint distribution at this temperature while the rest stays as it is (blocked Gibbs sampling on trees; Hamze and de
 * Freitas, UAI'04); undone where it does not fit. */
void cria_search_tree_move(cria_search *search, int root, int size, double temperature, double weight);
cria_status cria_search_tree_create(const cria_net *net, cria_arena *arena, struct cria_tree **out);

/* A window: connected nodes around `root`, as many as have at most `most` pairs of strategies on the edges between
 * them, take the cheapest strategies there are for them while the rest stays as it is (large neighbourhood search;
 * Shaw, CP'98). `noise` > 0: of costs with Gumbel noise of that temperature (perturb and MAP; Papandreou and Yuille,
 * ICCV'11). x must fit. True if they have changed; the best is kept up to date. *work grows by what it took, in the
 * units of the dual: 4 per pair and pass. */
bool cria_search_window(cria_search *search, int root, double most, double noise, const cria_until *until,
                        double *work);
/* The same of the nodes given, of as many of them as a window may have. */
bool cria_search_window_of(cria_search *search, const int *node, int count, const cria_until *until, double *work);
/* A window with noise, then some without around it; undone if that is dearer than before. */
void cria_search_kick(cria_search *search, int root, double most, double noise, const cria_until *until, double *work);
cria_status cria_search_window_create(const cria_net *net, cria_arena *arena, struct cria_window **out);
void cria_search_window_destroy(struct cria_window *window);

cria_status cria_search_fusion_create(const cria_net *net, cria_arena *arena, struct cria_fusion **out);

#endif
