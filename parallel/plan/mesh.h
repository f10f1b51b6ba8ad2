/* Mesh: the devices of a stage as a grid of one or two axes, and what communication along each axis costs.
 *
 * Cost functions are Alpa's (alpa/shard_parallel, device_mesh.hpp): a time of alpha + beta * bytes moved, in seconds
 * where alpha and beta are measured, without unit where they are given on the command line. `bytes` is always the size
 * of the whole array on the participating devices before the operation is applied to it along the axis (all-gather:
 * the gathered result); where parts are unequal, the largest part times their number, since a ring waits for its
 * slowest link. Plain data; any thread. */
#ifndef CRIA_PARALLEL_PLAN_MESH_H
#define CRIA_PARALLEL_PLAN_MESH_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

#define CRIA_MESH_AXES 2

typedef struct {
    int size[CRIA_MESH_AXES]; /* size[0] * size[1] devices, row-major; 1 where an axis is not used */
    double alpha[CRIA_MESH_AXES], beta[CRIA_MESH_AXES];
    /* What each position of an axis should get of what is cut along it, e.g. by speed; NULL: equal shares. Borrowed. */
    const double *share[CRIA_MESH_AXES];
    /* Alpa adds 0.1 to an all-gather, 0.01 to an all-reduce and 0.001 to the others, which breaks ties between plans of
     * equal cost. They are multiplied by this: 1 where costs have no unit, 0 where they are seconds. */
    double tie;
    /* Parts count as equally long, to fractions of an element, where costs are reckoned: as Alpa's formulas do. */
    bool fractional;
    unsigned forbidden; /* kinds of step that may not be used: bits 1 << cria_reshard_kind */
} cria_mesh;

/* All are 0 on an axis of one device. */
double cria_mesh_all_gather(const cria_mesh *mesh, int axis, double bytes);
double cria_mesh_all_reduce(const cria_mesh *mesh, int axis, double bytes);
double cria_mesh_reduce_scatter(const cria_mesh *mesh, int axis, double bytes);
double cria_mesh_all_to_all(const cria_mesh *mesh, int axis, double bytes);

/* Where part `index` of `parts` begins when `extent` is cut at multiples of `unit` in proportion to `share` (NULL:
 * equally): the one rule by which the planner, the lowering and the loader cut, so that they agree without talking.
 * Parts may be empty. index == parts gives extent. */
int64_t cria_cut(int64_t extent, int64_t unit, int parts, const double *share, int index);
/* The longest of those parts. */
int64_t cria_cut_longest(int64_t extent, int64_t unit, int parts, const double *share);

#endif
