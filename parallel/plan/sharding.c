/* Sharding: shards of tensors, and the cheapest way from one sharding to another. */
#include "parallel/plan/sharding.h"

#include "parallel/graph/index.h"

#include <math.h>
#include <stdio.h>

enum { DIMS = CRIA_MAX_DIMS + 2 }; /* what an axis can do: partial, replicated, or cut one of the dims */

bool cria_sharding_equal(cria_sharding a, cria_sharding b) {
    return a.dim[0] == b.dim[0] && a.dim[1] == b.dim[1];
}

int cria_sharding_code(cria_sharding sharding) {
    return (sharding.dim[0] + 2) * DIMS + sharding.dim[1] + 2;
}

cria_sharding cria_sharding_of(int code) {
    return (cria_sharding){{(int8_t)(code / DIMS - 2), (int8_t)(code % DIMS - 2)}};
}

cria_sharding cria_sharding_canonical(cria_sharding sharding, const cria_mesh *mesh) {
    for (int axis = 0; axis < CRIA_MESH_AXES; axis++)
        if (mesh->size[axis] < 2) sharding.dim[axis] = CRIA_REPLICATED;
    return sharding;
}

const char *cria_sharding_print(const cria_tensor *tensor, cria_sharding sharding, char text[32]) {
    int at = 0;
    for (int d = 0; d < tensor->dims; d++) {
        bool zero = sharding.dim[0] == d, one = sharding.dim[1] == d;
        at += snprintf(text + at, 32 - (size_t)at, "%s%s%s", zero || one ? "S" : "R", zero ? "0" : "", one ? "1" : "");
    }
    if (at == 0) at += snprintf(text, 32, "R");
    bool zero = sharding.dim[0] == CRIA_PARTIAL, one = sharding.dim[1] == CRIA_PARTIAL;
    if (zero || one) snprintf(text + at, 32 - (size_t)at, " P%s%s", zero ? "0" : "", one ? "1" : "");
    return text;
}

void cria_sharding_part(cria_sharding sharding, int dim, int64_t extent, int64_t unit, const cria_mesh *mesh,
                        const int position[CRIA_MESH_AXES], int64_t *begin, int64_t *end) {
    *begin = 0;
    *end = extent;
    for (int axis = 0; axis < CRIA_MESH_AXES; axis++) {
        if (sharding.dim[axis] != dim || mesh->size[axis] < 2) continue;
        int64_t first = *begin, length = *end - *begin;
        *begin = first + cria_cut(length, unit, mesh->size[axis], mesh->share[axis], position[axis]);
        *end = first + cria_cut(length, unit, mesh->size[axis], mesh->share[axis], position[axis] + 1);
    }
}

static double longest_part(cria_sharding sharding, int dim, int64_t extent, int64_t unit, const cria_mesh *mesh) {
    int64_t parts = 1;
    for (int axis = 0; axis < CRIA_MESH_AXES; axis++) {
        if (sharding.dim[axis] != dim || mesh->size[axis] < 2) continue;
        if (mesh->fractional)
            parts *= mesh->size[axis];
        else
            extent = cria_cut_longest(extent, unit, mesh->size[axis], mesh->share[axis]);
    }
    return (double)extent / (double)parts;
}

static int64_t extent_of(cria_dim dim, int64_t symbolic) {
    return dim.extent == CRIA_SYMBOLIC ? symbolic : dim.extent;
}

double cria_sharding_bytes(const cria_graph *graph, const cria_tensor *tensor, cria_sharding sharding,
                           const cria_mesh *mesh, int64_t symbolic, double element) {
    double bytes = element;
    for (int d = 0; d < tensor->dims; d++)
        bytes *= longest_part(sharding, d, extent_of(tensor->dim[d], symbolic), cria_graph_unit(graph, tensor->dim[d]),
                              mesh);
    return bytes;
}

/* Axis 0 is the outer one of a dim that both cut: while axis 1 cuts the dim, axis 0 can neither join nor leave it,
 * since the parts would not be contiguous. */
static bool may_change(cria_sharding sharding, int axis, int dim) {
    return axis == 1 || sharding.dim[1] != dim;
}

cria_sharding cria_reshard_apply(cria_sharding sharding, const cria_reshard_step *step) {
    static const int8_t whole = CRIA_REPLICATED;
    switch (step->kind) {
    case CRIA_RESHARD_SLICE:
    case CRIA_RESHARD_REDUCE_SCATTER:
        sharding.dim[step->axis] = (int8_t)step->dim;
        break;
    case CRIA_RESHARD_ALL_TO_ALL:
        sharding.dim[step->axis] = (int8_t)step->other_dim;
        break;
    case CRIA_RESHARD_ALL_GATHER:
    case CRIA_RESHARD_ALL_REDUCE:
        sharding.dim[step->axis] = whole;
        break;
    }
    return sharding;
}

static double step_cost(const cria_mesh *mesh, const cria_reshard_step *step) {
    switch (step->kind) {
    case CRIA_RESHARD_SLICE:
        return 0;
    case CRIA_RESHARD_ALL_GATHER:
        return cria_mesh_all_gather(mesh, step->axis, step->bytes);
    case CRIA_RESHARD_ALL_TO_ALL:
        return cria_mesh_all_to_all(mesh, step->axis, step->bytes);
    case CRIA_RESHARD_ALL_REDUCE:
        return cria_mesh_all_reduce(mesh, step->axis, step->bytes);
    case CRIA_RESHARD_REDUCE_SCATTER:
        return cria_mesh_reduce_scatter(mesh, step->axis, step->bytes);
    }
    return HUGE_VAL;
}

typedef struct {
    const cria_mesh *mesh;
    int dims;
    const double *bytes; /* of the largest shard, by code */
    /* The most of a dim that a device along the axis lacks when the axis cuts it: (n - 1) / n of it where parts are
     * equal. [1]: of what is left to it where the other axis cuts the dim too. */
    double lacking[CRIA_MAX_DIMS][CRIA_MESH_AXES][2];
} space;

/* Bytes of the whole array for an all-to-all: what the device that receives or sends most exchanges with the others
 * is (n - 1) / n^2 of it, as where parts are equal. */
static double exchanged(const space *s, cria_sharding before, cria_sharding after, int axis) {
    double n = s->mesh->size[axis];
    int from = before.dim[axis], to = after.dim[axis];
    double received = s->bytes[cria_sharding_code(after)] * s->lacking[from][axis][before.dim[1 - axis] == from],
           sent = s->bytes[cria_sharding_code(before)] * s->lacking[to][axis][after.dim[1 - axis] == to];
    return fmax(received, sent) * n / (n - 1) * n;
}

/* The step by which `axis` of sharding `from` comes to do `target` (a dim or CRIA_REPLICATED); false if none may. */
static bool make_step(const space *s, cria_sharding from, int axis, int target, cria_reshard_step *step) {
    int now = from.dim[axis];
    if (now == target || s->mesh->size[axis] < 2) return false;
    if ((now >= 0 && !may_change(from, axis, now)) || (target >= 0 && !may_change(from, axis, target))) return false;
    cria_sharding after = from;
    after.dim[axis] = (int8_t)target;
    double n = s->mesh->size[axis], before_bytes = s->bytes[cria_sharding_code(from)],
           after_bytes = s->bytes[cria_sharding_code(after)];
    *step = (cria_reshard_step){.axis = axis, .dim = target, .other_dim = CRIA_REPLICATED};
    if (now == CRIA_PARTIAL) {
        step->kind = target == CRIA_REPLICATED ? CRIA_RESHARD_ALL_REDUCE : CRIA_RESHARD_REDUCE_SCATTER;
        step->bytes = target == CRIA_REPLICATED ? before_bytes : n * after_bytes;
    } else if (now == CRIA_REPLICATED) {
        step->kind = CRIA_RESHARD_SLICE;
        step->bytes = before_bytes;
    } else if (target == CRIA_REPLICATED) {
        step->kind = CRIA_RESHARD_ALL_GATHER;
        step->dim = now;
        step->bytes = n * before_bytes;
    } else {
        step->kind = CRIA_RESHARD_ALL_TO_ALL;
        step->dim = now;
        step->other_dim = target;
        step->bytes = exchanged(s, from, after, axis);
    }
    return !(s->mesh->forbidden >> step->kind & 1);
}

typedef struct {
    double cost[CRIA_MAX_RESHARD_STEPS + 1][CRIA_SHARDINGS];
    int8_t from[CRIA_MAX_RESHARD_STEPS + 1][CRIA_SHARDINGS]; /* the code before the last step; -1: none */
    cria_reshard_step step[CRIA_MAX_RESHARD_STEPS + 1][CRIA_SHARDINGS];
} search;

/* Costs of the cheapest ways of exactly k steps from one sharding to every other (Bellman and Ford). */
static void search_from(const space *s, int from, search *out) {
    for (int k = 0; k <= CRIA_MAX_RESHARD_STEPS; k++)
        for (int c = 0; c < CRIA_SHARDINGS; c++) out->cost[k][c] = HUGE_VAL;
    out->cost[0][from] = 0;
    for (int k = 0; k < CRIA_MAX_RESHARD_STEPS; k++) {
        for (int c = 0; c < CRIA_SHARDINGS; c++) {
            if (out->cost[k][c] == HUGE_VAL) continue;
            cria_sharding now = cria_sharding_of(c);
            for (int axis = 0; axis < CRIA_MESH_AXES; axis++) {
                for (int target = CRIA_REPLICATED; target < s->dims; target++) {
                    cria_reshard_step step;
                    if (!make_step(s, now, axis, target, &step)) continue;
                    int next = cria_sharding_code(cria_reshard_apply(now, &step));
                    double cost = out->cost[k][c] + step_cost(s->mesh, &step);
                    if (cost >= out->cost[k + 1][next]) continue;
                    out->cost[k + 1][next] = cost;
                    out->from[k + 1][next] = (int8_t)c;
                    out->step[k + 1][next] = step;
                }
            }
        }
    }
}

/* The number of steps of the cheapest way to `to`, the fewest of equals; -1: none. */
static int fewest_steps(const search *found, int to) {
    int best = -1;
    for (int k = 0; k <= CRIA_MAX_RESHARD_STEPS; k++)
        if (found->cost[k][to] < (best < 0 ? HUGE_VAL : found->cost[best][to])) best = k;
    return best;
}

/* The part of an extent that the device with least of it lacks when the axis cuts it. */
static double most_lacking(const cria_mesh *mesh, int axis, int64_t extent, int64_t unit) {
    int n = mesh->size[axis];
    if (mesh->fractional || extent < 1 || (!mesh->share[axis] && extent % (unit * n) == 0)) return (n - 1) / (double)n;
    int64_t least = extent;
    for (int i = 0; i < n; i++) {
        int64_t part =
            cria_cut(extent, unit, n, mesh->share[axis], i + 1) - cria_cut(extent, unit, n, mesh->share[axis], i);
        if (part < least) least = part;
    }
    return 1 - (double)least / (double)extent;
}

static space make_space(const cria_graph *graph, const cria_tensor *tensor, const cria_mesh *mesh, int64_t symbolic,
                        double element, double bytes[CRIA_SHARDINGS]) {
    space s = {.mesh = mesh, .dims = tensor->dims, .bytes = bytes};
    double length[CRIA_MAX_DIMS][4]; /* by which axes cut the dim */
    for (int d = 0; d < tensor->dims; d++) {
        int64_t extent = extent_of(tensor->dim[d], symbolic), unit = cria_graph_unit(graph, tensor->dim[d]);
        for (int axes = 0; axes < 4; axes++) {
            cria_sharding sharding = {
                {(int8_t)(axes & 1 ? d : CRIA_REPLICATED), (int8_t)(axes & 2 ? d : CRIA_REPLICATED)}};
            length[d][axes] = longest_part(sharding, d, extent, unit, mesh);
        }
        for (int axis = 0; axis < CRIA_MESH_AXES; axis++) {
            s.lacking[d][axis][0] = most_lacking(mesh, axis, extent, unit);
            s.lacking[d][axis][1] = most_lacking(mesh, axis, (int64_t)length[d][2 >> axis], unit);
        }
    }
    for (int c = 0; c < CRIA_SHARDINGS; c++) {
        cria_sharding sharding = cria_sharding_of(c);
        bytes[c] = element;
        for (int d = 0; d < tensor->dims; d++)
            bytes[c] *= length[d][(sharding.dim[0] == d) | (sharding.dim[1] == d) << 1];
    }
    return s;
}

int cria_reshard(const cria_graph *graph, const cria_tensor *tensor, cria_sharding from, cria_sharding to,
                 const cria_mesh *mesh, int64_t symbolic, double element,
                 cria_reshard_step steps[CRIA_MAX_RESHARD_STEPS]) {
    double bytes[CRIA_SHARDINGS];
    space s = make_space(graph, tensor, mesh, symbolic, element, bytes);
    search found;
    int code = cria_sharding_code(cria_sharding_canonical(to, mesh));
    search_from(&s, cria_sharding_code(cria_sharding_canonical(from, mesh)), &found);
    int count = fewest_steps(&found, code);
    for (int k = count; k > 0; k--) {
        steps[k - 1] = found.step[k][code];
        code = found.from[k][code];
    }
    return count;
}

double cria_reshard_sent(const cria_mesh *mesh, const cria_reshard_step *step) {
    double n = mesh->size[step->axis];
    switch (step->kind) {
    case CRIA_RESHARD_ALL_REDUCE:
        return 2 * (n - 1) / n * step->bytes;
    case CRIA_RESHARD_ALL_GATHER:
    case CRIA_RESHARD_REDUCE_SCATTER:
        return (n - 1) / n * step->bytes;
    case CRIA_RESHARD_ALL_TO_ALL:
        return (n - 1) / n / n * step->bytes;
    default:
        return 0;
    }
}

double cria_reshard_cost(const cria_mesh *mesh, const cria_reshard_step *steps, int count) {
    double cost = 0;
    for (int i = 0; i < count; i++) cost += step_cost(mesh, &steps[i]);
    return cost;
}

void cria_reshard_fill(const cria_graph *graph, const cria_tensor *tensor, const cria_mesh *mesh, int64_t symbolic,
                       double element, cria_reshard_table *table) {
    space s = make_space(graph, tensor, mesh, symbolic, element, table->bytes);
    for (int from = 0; from < CRIA_SHARDINGS; from++) {
        cria_sharding sharding = cria_sharding_of(from);
        bool known = sharding.dim[0] < tensor->dims && sharding.dim[1] < tensor->dims;
        search found;
        if (known) search_from(&s, from, &found);
        for (int to = 0; to < CRIA_SHARDINGS; to++) {
            int count = known ? fewest_steps(&found, to) : -1;
            table->cost[from][to] = count < 0 ? HUGE_VAL : found.cost[count][to];
        }
    }
}

double cria_reshard_between(const cria_reshard_table *table, const cria_mesh *mesh, cria_sharding from,
                            cria_sharding to, bool parts) {
    from = cria_sharding_canonical(from, mesh);
    to = cria_sharding_canonical(to, mesh);
    double cost = 0, bytes = table->bytes[cria_sharding_code(from)];
    for (int axis = 0; axis < CRIA_MESH_AXES && !parts; axis++) {
        if (from.dim[axis] != CRIA_PARTIAL || to.dim[axis] == CRIA_PARTIAL) continue;
        if (mesh->forbidden >> CRIA_RESHARD_ALL_REDUCE & 1) return HUGE_VAL;
        cost += cria_mesh_all_reduce(mesh, axis, bytes);
        from.dim[axis] = CRIA_REPLICATED;
    }
    return cost + table->cost[cria_sharding_code(from)][cria_sharding_code(to)];
}

int cria_reshard_between_steps(const cria_graph *graph, const cria_tensor *tensor, cria_sharding from, cria_sharding to,
                               const cria_mesh *mesh, int64_t symbolic, double element, bool parts,
                               cria_reshard_step steps[CRIA_MAX_BETWEEN_STEPS]) {
    from = cria_sharding_canonical(from, mesh);
    to = cria_sharding_canonical(to, mesh);
    int count = 0;
    double bytes = cria_sharding_bytes(graph, tensor, from, mesh, symbolic, element);
    for (int axis = 0; axis < CRIA_MESH_AXES && !parts; axis++) {
        if (from.dim[axis] != CRIA_PARTIAL || to.dim[axis] == CRIA_PARTIAL) continue;
        if (mesh->forbidden >> CRIA_RESHARD_ALL_REDUCE & 1) return -1;
        steps[count++] = (cria_reshard_step){CRIA_RESHARD_ALL_REDUCE, axis, CRIA_REPLICATED, CRIA_REPLICATED, bytes};
        from.dim[axis] = CRIA_REPLICATED;
    }
    int rest = cria_reshard(graph, tensor, from, to, mesh, symbolic, element, steps + count);
    return rest < 0 ? -1 : count + rest;
}
