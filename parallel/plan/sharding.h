/* Sharding: how a tensor lies on a mesh. For each mesh axis: which dim of the tensor it cuts, or that every position
 * along it holds the whole, or a partial sum of it. Plain data; any thread. */
#ifndef CRIA_PARALLEL_PLAN_SHARDING_H
#define CRIA_PARALLEL_PLAN_SHARDING_H

#include "parallel/graph/graph.h"
#include "parallel/plan/mesh.h"

#include <stdbool.h>

/* CRIA_ANY: no wish; only in what is asked of a planner. */
enum { CRIA_REPLICATED = -1, CRIA_PARTIAL = -2, CRIA_ANY = -3 };

/* Both axes may cut the same dim: axis 0 is then the outer one. */
typedef struct {
    int8_t dim[CRIA_MESH_AXES];
} cria_sharding;

bool cria_sharding_equal(cria_sharding a, cria_sharding b);
/* "S0R", "RS1", "S01R": letters per tensor dim as Alpa writes them; " P0" or " P01" follows where axes hold partial
 * sums. Returns text. */
const char *cria_sharding_print(const cria_tensor *tensor, cria_sharding sharding, char text[32]);
/* The part [begin, end) of a dim of `extent`, cut at multiples of `unit`, at a position of the mesh. */
void cria_sharding_part(cria_sharding sharding, int dim, int64_t extent, int64_t unit, const cria_mesh *mesh,
                        const int position[CRIA_MESH_AXES], int64_t *begin, int64_t *end);
/* Bytes of the largest shard; symbolic dims count as `symbolic`, elements as `element` bytes. The graph says how finely
 * a dim may be cut (cria_graph_unit). */
double cria_sharding_bytes(const cria_graph *graph, const cria_tensor *tensor, cria_sharding sharding,
                           const cria_mesh *mesh, int64_t symbolic, double element);

/* Every sharding of a tensor has a number, for tables. */
#define CRIA_SHARDINGS ((CRIA_MAX_DIMS + 2) * (CRIA_MAX_DIMS + 2))
int cria_sharding_code(cria_sharding sharding);
cria_sharding cria_sharding_of(int code);
/* Axes of one device hold the whole, whatever they are said to cut. */
cria_sharding cria_sharding_canonical(cria_sharding sharding, const cria_mesh *mesh);

/* One step of bringing a tensor from one sharding to another. */
typedef enum {
    CRIA_RESHARD_SLICE, /* no communication */
    CRIA_RESHARD_ALL_GATHER,
    CRIA_RESHARD_ALL_TO_ALL, /* the axis moves from dim to other_dim */
    CRIA_RESHARD_ALL_REDUCE,
    CRIA_RESHARD_REDUCE_SCATTER
} cria_reshard_kind;

/* `dim`: what the step cuts or uncuts; CRIA_REPLICATED for an all-reduce. other_dim: all-to-all only. */
typedef struct {
    cria_reshard_kind kind;
    int axis;
    int dim, other_dim;
    double bytes; /* of the whole array along the axis, as the cost functions of mesh.h take it */
} cria_reshard_step;

#define CRIA_MAX_RESHARD_STEPS 4

/* The cheapest sequence of steps, the same that the lowering will write; returns their number, -1 where there is none
 * (a partial sum that is wanted as a partial sum of something else, or a kind that the mesh forbids). A partial sum
 * over both axes may be scattered along one, summed along the other and gathered again, which moves less over the slow
 * axis than two all-reduces. */
int cria_reshard(const cria_graph *graph, const cria_tensor *tensor, cria_sharding from, cria_sharding to,
                 const cria_mesh *mesh, int64_t symbolic, double element,
                 cria_reshard_step steps[CRIA_MAX_RESHARD_STEPS]);
/* Bytes that each device sends for a step, in rings. */
double cria_reshard_sent(const cria_mesh *mesh, const cria_reshard_step *step);
double cria_reshard_cost(const cria_mesh *mesh, const cria_reshard_step *steps, int count);
/* The sharding after one step. */
cria_sharding cria_reshard_apply(cria_sharding sharding, const cria_reshard_step *step);

/* cost[from][to] of every pair by code, HUGE_VAL where there is no way: what cria_reshard finds, found for all pairs at
 * once. */
typedef struct {
    double cost[CRIA_SHARDINGS][CRIA_SHARDINGS];
    double bytes[CRIA_SHARDINGS]; /* of the largest shard */
} cria_reshard_table;
void cria_reshard_fill(const cria_graph *graph, const cria_tensor *tensor, const cria_mesh *mesh, int64_t symbolic,
                       double element, cria_reshard_table *table);
/* What it costs to bring the tensor of the table from one sharding to another, HUGE_VAL where there is no way. `parts`:
 * sums may be made of parts; else every sum is an all-reduce of all that each device has, before anything is cut off.
 */
double cria_reshard_between(const cria_reshard_table *table, const cria_mesh *mesh, cria_sharding from,
                            cria_sharding to, bool parts);
/* The steps of that; returns their number, -1 where there is no way. */
#define CRIA_MAX_BETWEEN_STEPS (CRIA_MAX_RESHARD_STEPS + CRIA_MESH_AXES)
int cria_reshard_between_steps(const cria_graph *graph, const cria_tensor *tensor, cria_sharding from, cria_sharding to,
                               const cria_mesh *mesh, int64_t symbolic, double element, bool parts,
                               cria_reshard_step steps[CRIA_MAX_BETWEEN_STEPS]);

#endif
