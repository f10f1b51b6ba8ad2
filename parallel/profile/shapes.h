/* Shapes: which kernels a profile times. Pure functions; any thread. */
#ifndef CRIA_PARALLEL_PROFILE_SHAPES_H
#define CRIA_PARALLEL_PROFILE_SHAPES_H

#include "parallel/graph/graph.h"
#include "parallel/plan/cluster.h"

/* BRIEF: a handful of shapes, so that efficiencies are not guessed; QUICK: few rows and contexts; FULL: all. */
typedef enum { CRIA_PROFILE_BRIEF, CRIA_PROFILE_QUICK, CRIA_PROFILE_FULL } cria_profile_depth;

/* A sample to be, and the size of a head where it has heads. */
typedef struct {
    cria_sample sample;
    int64_t head_dim;
} cria_shape;

typedef struct {
    cria_shape *shape;
    int count, capacity;
} cria_shapes;

/* The shapes of a model's operators, whole and cut over `parts` devices along either side; graph NULL, or BRIEF: a grid
 * of usual ones. rates[CRIA_RATE_COUNT]: which types of weights. False: no memory. */
bool cria_shapes_find(const cria_graph *graph, const bool *rates, int parts, cria_profile_depth depth,
                      cria_shapes *out);
void cria_shapes_deinit(cria_shapes *shapes);

#endif
