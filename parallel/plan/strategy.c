/* Strategies: every legal way to cut an operator's indices over the axes of a mesh, and what it communicates. */
#include "parallel/plan/strategy.h"

#include <stdio.h>
#include <string.h>

static const cria_sharding whole = {{CRIA_REPLICATED, CRIA_REPLICATED}};

/* Cuts (or hands partial sums through) one axis of an operator; NULL or why not. */
static const char *derive_axis(const cria_op *op, const cria_op_index *indices, int count, int axis, int choice,
                               cria_strategy *out) {
    if (choice == CRIA_IDLE) return NULL;
    if (choice == CRIA_PARTIAL) {
        if (!cria_op_passes_partial(op)) return "it cannot be computed on partial sums";
        for (int i = 0; i < CRIA_MAX_INPUTS; i++)
            if (op->input[i] >= 0) out->input[i].dim[axis] = CRIA_PARTIAL;
        out->raw.dim[axis] = CRIA_PARTIAL;
        return NULL;
    }
    if (choice < 0 || choice >= count) return "it has no such index";
    const cria_op_index *index = &indices[choice];
    if (index->split == CRIA_SPLIT_NEVER) return "the index may not be cut";
    for (int i = 0; i < CRIA_MAX_INPUTS; i++)
        if (op->input[i] >= 0) out->input[i].dim[axis] = index->input[i];
    out->raw.dim[axis] = index->split == CRIA_SPLIT_SUM ? CRIA_PARTIAL : index->output;
    return NULL;
}

const char *cria_strategy_derive(const cria_graph *graph, const cria_op *op, const cria_mesh *mesh,
                                 const int8_t index[CRIA_MESH_AXES], cria_strategy *out) {
    cria_op_index indices[CRIA_MAX_INDICES];
    int count = cria_op_indices(graph, op, indices);
    *out = (cria_strategy){.index = {CRIA_IDLE, CRIA_IDLE}, .raw = whole};
    for (int i = 0; i < CRIA_MAX_INPUTS; i++) out->input[i] = whole;
    for (int axis = 0; axis < CRIA_MESH_AXES; axis++) {
        if (mesh->size[axis] < 2) continue;
        const char *why = derive_axis(op, indices, count, axis, index[axis], out);
        if (why) return why;
        out->index[axis] = index[axis];
    }
    out->output = out->raw;
    return NULL;
}

static bool extent_divides(cria_dim dim, int64_t unit, const cria_mesh *mesh, cria_sharding cut, int64_t symbolic) {
    int64_t extent = dim.extent == CRIA_SYMBOLIC ? symbolic : dim.extent;
    int position[CRIA_MESH_AXES] = {0, 0};
    int64_t blocks = (extent + unit - 1) / unit, parts = 1;
    bool equal = true;
    for (int axis = 0; axis < CRIA_MESH_AXES; axis++) {
        if (cut.dim[axis] < 0) continue;
        parts *= mesh->size[axis];
        equal = equal && !mesh->share[axis];
    }
    if (blocks < parts) return false;
    if (equal) return true;
    for (position[0] = 0; position[0] < mesh->size[0]; position[0]++)
        for (position[1] = 0; position[1] < mesh->size[1]; position[1]++) {
            int64_t begin, end;
            cria_sharding_part(cut, 0, extent, unit, mesh, position, &begin, &end);
            if (begin == end) return false;
        }
    return true;
}

bool cria_dim_divides(const cria_graph *graph, cria_dim dim, const cria_mesh *mesh, const bool cut[CRIA_MESH_AXES],
                      int64_t symbolic) {
    cria_sharding sharding = {{cut[0] ? 0 : CRIA_REPLICATED, cut[1] ? 0 : CRIA_REPLICATED}};
    return extent_divides(dim, cria_graph_unit(graph, dim), mesh, sharding, symbolic);
}

/* The same of an index of an operator under a choice. */
static bool divides(const cria_op_index *index, const cria_mesh *mesh, const int8_t choice[CRIA_MESH_AXES], int which,
                    int64_t symbolic) {
    cria_sharding cut = {{choice[0] == which ? 0 : CRIA_REPLICATED, choice[1] == which ? 0 : CRIA_REPLICATED}};
    return extent_divides(index->dim, index->unit, mesh, cut, symbolic);
}

cria_status cria_strategy_check(const cria_graph *graph, const cria_op *op, const cria_mesh *mesh,
                                const cria_strategy *strategy, cria_error *err) {
    const cria_tensor *output = cria_graph_tensor(graph, op->output);
    cria_strategy expected;
    const char *why = cria_strategy_derive(graph, op, mesh, strategy->index, &expected);
    if (why)
        return cria_fail(err, CRIA_ERR_ARGUMENT, "operator \"%s\": strategy %d, %d: %s", output->name,
                         strategy->index[0], strategy->index[1], why);
    cria_op_index indices[CRIA_MAX_INDICES];
    cria_op_indices(graph, op, indices);
    for (int axis = 0; axis < CRIA_MESH_AXES; axis++) {
        int which = expected.index[axis];
        if (which < 0 || indices[which].dim.extent == CRIA_SYMBOLIC) continue;
        if (!divides(&indices[which], mesh, expected.index, which, 0))
            return cria_fail(err, CRIA_ERR_ARGUMENT,
                             "operator \"%s\": %s of %lld in units of %lld leaves a device of the %d x %d mesh nothing",
                             output->name, cria_dim_to_name(graph, indices[which].dim.name),
                             (long long)indices[which].dim.extent, (long long)indices[which].unit, mesh->size[0],
                             mesh->size[1]);
    }
    for (int i = 0; i < CRIA_MAX_INPUTS; i++)
        if (!cria_sharding_equal(cria_sharding_canonical(strategy->input[i], mesh), expected.input[i]))
            return cria_fail(err, CRIA_ERR_ARGUMENT, "operator \"%s\": the sharding of input %d does not follow",
                             output->name, i);
    if (!cria_sharding_equal(cria_sharding_canonical(strategy->raw, mesh), expected.raw))
        return cria_fail(err, CRIA_ERR_ARGUMENT, "operator \"%s\": the sharding of the output does not follow",
                         output->name);
    cria_reshard_step steps[CRIA_MAX_RESHARD_STEPS];
    for (int axis = 0; axis < CRIA_MESH_AXES; axis++)
        if (strategy->output.dim[axis] < CRIA_PARTIAL || strategy->output.dim[axis] >= output->dims)
            return cria_fail(err, CRIA_ERR_ARGUMENT, "operator \"%s\": the output has no dim %d", output->name,
                             strategy->output.dim[axis]);
    if (cria_reshard(graph, output, strategy->raw, strategy->output, mesh, 1, 1, steps) < 0) {
        char raw[32], left[32];
        return cria_fail(err, CRIA_ERR_ARGUMENT, "operator \"%s\": %s cannot be made of %s", output->name,
                         cria_sharding_print(output, strategy->output, left),
                         cria_sharding_print(output, strategy->raw, raw));
    }
    return CRIA_OK;
}

/* Batches that are made at run time are not cut: their rows see each other through the cache. */
static bool may_cut(const cria_graph *graph, const cria_op_index *index) {
    if (index->split == CRIA_SPLIT_NEVER) return false;
    return index->dim.extent != CRIA_SYMBOLIC || cria_graph_sequence(graph) > 0;
}

typedef struct {
    const cria_graph *graph;
    const cria_op *op;
    const cria_mesh *mesh;
    const cria_strategy_options *options;
    cria_op_index indices[CRIA_MAX_INDICES];
    int count, batch; /* batch: the index of the tokens; -1: none */
    bool idle;        /* axes may be idle */
} enumeration;

static bool allowed(const enumeration *e, const int8_t choice[CRIA_MESH_AXES]) {
    for (int axis = 0; axis < CRIA_MESH_AXES; axis++) {
        if (e->mesh->size[axis] < 2) {
            if (choice[axis] != CRIA_IDLE) return false; /* else every strategy would come once for each choice */
            continue;
        }
        bool batch = e->options->data_parallel_only || e->options->force_batch_axis == axis;
        if (batch && e->batch >= 0 && choice[axis] != e->batch && choice[axis] != CRIA_PARTIAL) return false;
        if (choice[axis] == CRIA_IDLE && !e->idle && !(batch && e->batch < 0)) return false;
        if (choice[axis] == CRIA_PARTIAL && (e->options->sum_where_made || !cria_op_passes_partial(e->op)))
            return false;
        if (choice[axis] < 0) continue;
        const cria_op_index *index = &e->indices[choice[axis]];
        if (!may_cut(e->graph, index) || !divides(index, e->mesh, choice, choice[axis], e->options->symbolic))
            return false;
    }
    return true;
}

static int enumerate(const enumeration *e, cria_strategy *out) {
    /* What an axis can do, in the order in which it is offered. */
    int8_t choices[CRIA_MAX_INDICES + 2];
    int count = 0, written = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < e->count; i++)
            if ((e->indices[i].split == CRIA_SPLIT_FREE) == (pass == 0)) choices[count++] = (int8_t)i;
    choices[count++] = CRIA_PARTIAL;
    choices[count++] = CRIA_IDLE;
    for (int a = 0; a < count; a++)
        for (int b = 0; b < count; b++) {
            const int8_t choice[CRIA_MESH_AXES] = {choices[a], choices[b]};
            if (allowed(e, choice) && !cria_strategy_derive(e->graph, e->op, e->mesh, choice, &out[written])) written++;
        }
    return written;
}

int cria_strategies(const cria_graph *graph, const cria_op *op, const cria_mesh *mesh,
                    const cria_strategy_options *options, cria_strategy out[CRIA_MAX_STRATEGIES]) {
    enumeration e = {.graph = graph, .op = op, .mesh = mesh, .options = options, .batch = -1};
    e.count = cria_op_indices(graph, op, e.indices);
    for (int i = 0; i < e.count; i++)
        if (cria_graph_is_batch(graph, e.indices[i].dim.name) && may_cut(graph, &e.indices[i])) e.batch = i;
    e.idle = options->allow_replicated || !cria_op_multiplies(graph, op);
    int written = enumerate(&e, out);
    if (written == 0 && !e.idle) {
        e.idle = true;
        written = enumerate(&e, out);
    }
    return written;
}

int cria_strategy_follows(const cria_graph *graph, const cria_op *op) {
    if (cria_op_multiplies(graph, op)) return -1;
    int best = -1;
    for (int k = 0; k < CRIA_MAX_INPUTS; k++) {
        const cria_tensor *tensor = op->input[k] >= 0 ? cria_graph_tensor(graph, op->input[k]) : NULL;
        if (!tensor || tensor->kind != CRIA_TENSOR_VALUE) continue;
        if (best < 0 || tensor->dims > cria_graph_tensor(graph, op->input[best])->dims) best = k;
    }
    return best;
}

/* The longest part of an index over its extent. */
static double longest_share(const cria_op_index *index, const cria_mesh *mesh, const int8_t choice[CRIA_MESH_AXES],
                            int which, int64_t symbolic) {
    int64_t extent = index->dim.extent == CRIA_SYMBOLIC ? symbolic : index->dim.extent, longest = extent;
    double parts = 1;
    for (int axis = 0; axis < CRIA_MESH_AXES; axis++)
        if (choice[axis] == which && mesh->size[axis] > 1 && mesh->fractional)
            parts *= mesh->size[axis];
        else if (choice[axis] == which && mesh->size[axis] > 1)
            longest = cria_cut_longest(longest, index->unit, mesh->size[axis], mesh->share[axis]);
    return extent > 0 ? (double)longest / (double)extent / parts : 1;
}

double cria_strategy_share(const cria_graph *graph, const cria_op *op, const cria_mesh *mesh, int64_t symbolic,
                           const cria_strategy *strategy) {
    cria_op_index indices[CRIA_MAX_INDICES];
    int count = cria_op_indices(graph, op, indices);
    double share = 1;
    for (int i = 0; i < count; i++) share *= longest_share(&indices[i], mesh, strategy->index, i, symbolic);
    return share;
}

double cria_strategy_stats_bytes(const cria_graph *graph, const cria_op *op, const cria_mesh *mesh,
                                 const cria_strategy_options *options, const cria_strategy *strategy, int axis) {
    cria_op_index indices[CRIA_MAX_INDICES];
    int which = strategy->index[axis];
    if (which < 0) return 0;
    int count = cria_op_indices(graph, op, indices);
    if (indices[which].split != CRIA_SPLIT_STATS) return 0;
    double bytes = cria_op_stats_bytes(graph, op, which, options->symbolic);
    for (int i = 0; i < count; i++)
        if (indices[i].split != CRIA_SPLIT_STATS)
            bytes *= longest_share(&indices[i], mesh, strategy->index, i, options->symbolic);
    return bytes;
}

double cria_strategy_stats(const cria_graph *graph, const cria_op *op, const cria_mesh *mesh,
                           const cria_strategy_options *options, const cria_strategy *strategy) {
    double cost = 0;
    for (int axis = 0; axis < CRIA_MESH_AXES; axis++) {
        double bytes = cria_strategy_stats_bytes(graph, op, mesh, options, strategy, axis);
        if (bytes > 0) cost += cria_mesh_all_reduce(mesh, axis, bytes);
    }
    return cost;
}

double cria_strategy_collectives(const cria_graph *graph, const cria_op *op, const cria_mesh *mesh,
                                 const cria_strategy_options *options, const cria_strategy *strategy) {
    double cost = cria_strategy_stats(graph, op, mesh, options, strategy);
    cria_reshard_step steps[CRIA_MAX_RESHARD_STEPS];
    int taken = cria_reshard(graph, cria_graph_tensor(graph, op->output), strategy->raw, strategy->output, mesh,
                             options->symbolic, options->element, steps);
    return cost + cria_reshard_cost(mesh, steps, taken);
}
