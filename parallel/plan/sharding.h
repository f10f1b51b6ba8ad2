/* Sharding: how a tensor lies on a mesh. For each mesh axis: which dim of the tensor it cuts, or that every position
 * along it holds the whole, or a partial sum of it. Plain data; any thread. */
#ifndef CRIA_PARALLEL_PLAN_SHARDING_H
#define CRIA_PARALLEL_PLAN_SHARDING_H

#include "parallel/graph/graph.h"
#include "parallel/plan/mesh.h"

#include <stdbool.h>

enum { CRIA_REPLICATED = -1, CRIA_PARTIAL = -2 };

/* Both axes may cut the same dim: axis 0 is then the outer one. */
typedef struct {
    int8_t dim[CRIA_MESH_AXES];
} cria_sharding;

bool cria_sharding_equal(cria_sharding a, cria_sharding b);
/* "S0R", "RS1", "S01R", "P": letters per tensor dim as Alpa writes them. Returns text. */
const char *cria_sharding_print(const cria_tensor *tensor, cria_sharding sharding, char text[32]);
/* Bytes of the largest shard; symbolic dims count as `symbolic`, elements as `element` bytes. */
double cria_sharding_bytes(const cria_tensor *tensor, cria_sharding sharding, const cria_mesh *mesh, int64_t symbolic,
                           double element);

/* One step of bringing a tensor from one sharding to another. */
typedef enum {
    CRIA_RESHARD_SLICE, /* no communication */
    CRIA_RESHARD_ALL_GATHER,
    CRIA_RESHARD_ALL_TO_ALL, /* the axis moves from dim to other_dim */
    CRIA_RESHARD_ALL_REDUCE,
    CRIA_RESHARD_REDUCE_SCATTER
} cria_reshard_kind;

typedef struct {
    cria_reshard_kind kind;
    int axis;
    int dim, other_dim;
    double bytes; /* of the whole array along the axis, as the cost functions of mesh.h take it */
} cria_reshard_step;

#define CRIA_MAX_RESHARD_STEPS 4

/* The cheapest sequence of steps, the same that the lowering will write; returns their number, -1 where there is none
 * (a partial sum that is wanted as a partial sum of something else). */
int cria_reshard(const cria_tensor *tensor, cria_sharding from, cria_sharding to, const cria_mesh *mesh,
                 int64_t symbolic, double element, cria_reshard_step steps[CRIA_MAX_RESHARD_STEPS]);
double cria_reshard_cost(const cria_mesh *mesh, const cria_reshard_step *steps, int count);

#endif
