/* Building the problem of the intra-operator pass: choices of every operator and tensor, and what pairs of them cost.
 */
#include "parallel/plan/intra_problem.h"

#include "parallel/plan/cost.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define NEW(problem, ptr, count)                                                                                       \
    do {                                                                                                               \
        (ptr) = cria_arena_alloc_array((problem)->arena, (size_t)(count) + 1, sizeof *(ptr));                          \
        if (!(ptr)) return CRIA_ERR_MEMORY;                                                                            \
    } while (0)

/* Tensors of equal dims share their table. */
typedef struct {
    int dims;
    cria_dim dim[CRIA_MAX_DIMS];
    double element;
    cria_reshard_table *table;
} table_entry;

/* How the range uses a tensor. */
typedef struct {
    int first_reader, last_reader; /* in the range, from 0; -1: none */
    int producer;                  /* in the range; -1: none */
    bool after;                    /* read behind the range, or by nobody: a result */
    unsigned seen[CRIA_MESH_AXES]; /* bits 1 << (dim + 2) that an axis does for its producer or a reader */
    unsigned wanted_partial;       /* bits of axes */
    int alias;                     /* the tensor whose place it takes; -1: none */
    const cria_reshard_table *table;
} usage;

typedef struct {
    cria_intra_problem *problem;
    const cria_strategy *fixed;
    usage *use; /* [tensors] */
    table_entry *table;
    int tables, table_room, edge_room;
} builder;

/* Kept from step to step. */
static bool is_kept(const cria_tensor *tensor) {
    return tensor->kind == CRIA_TENSOR_PARAM || tensor->kind == CRIA_TENSOR_STATE;
}

static cria_status find_table(builder *b, const cria_tensor *tensor, const cria_reshard_table **out) {
    cria_intra_problem *p = b->problem;
    double element = cria_intra_element(tensor, p->options);
    for (int i = 0; i < b->tables; i++) {
        const table_entry *entry = &b->table[i];
        if (entry->dims != tensor->dims || entry->element != element) continue;
        bool same = true;
        for (int d = 0; d < tensor->dims; d++)
            same = same && entry->dim[d].extent == tensor->dim[d].extent &&
                   cria_graph_unit(p->graph, entry->dim[d]) == cria_graph_unit(p->graph, tensor->dim[d]);
        if (!same) continue;
        *out = entry->table;
        return CRIA_OK;
    }
    if (b->tables == b->table_room) {
        int room = b->table_room ? b->table_room * 2 : 32;
        table_entry *bigger;
        NEW(p, bigger, room);
        if (b->tables) memcpy(bigger, b->table, (size_t)b->tables * sizeof *bigger);
        b->table = bigger;
        b->table_room = room;
    }
    table_entry *entry = &b->table[b->tables];
    entry->dims = tensor->dims;
    memcpy(entry->dim, tensor->dim, sizeof entry->dim);
    entry->element = element;
    NEW(p, entry->table, 1);
    cria_reshard_fill(p->graph, tensor, &p->mesh, p->options->strategies.symbolic, element, entry->table);
    b->tables++;
    *out = entry->table;
    return CRIA_OK;
}

static void see(usage *use, cria_sharding sharding, bool reader) {
    for (int axis = 0; axis < CRIA_MESH_AXES; axis++) {
        if (sharding.dim[axis] == CRIA_PARTIAL) {
            if (reader) use->wanted_partial |= 1u << axis;
        } else {
            use->seen[axis] |= 1u << (sharding.dim[axis] + 2);
        }
    }
}

/* Only what is asked of the batch can leave an operator nothing. */
static cria_status fail_without_strategies(const cria_intra_problem *p, const cria_op *op, cria_error *err) {
    const char *name = cria_graph_tensor(p->graph, op->output)->name;
    const cria_strategy_options *o = &p->options->strategies;
    int axis = o->force_batch_axis, count;
    cria_op_index index[CRIA_MAX_INDICES];
    count = cria_op_indices(p->graph, op, index);
    for (int i = 0; i < count; i++) {
        if (!cria_graph_is_batch(p->graph, index[i].dim.name) || !(o->data_parallel_only || axis >= 0)) continue;
        int64_t extent = index[i].dim.extent == CRIA_SYMBOLIC ? o->symbolic : index[i].dim.extent;
        int parts = o->data_parallel_only ? p->mesh.size[0] * p->mesh.size[1] : p->mesh.size[axis];
        if ((extent + index[i].unit - 1) / index[i].unit < parts)
            return cria_fail(
                err, CRIA_ERR_INFEASIBLE,
                "operator \"%s\": %s of %lld, in units of %lld, cannot be cut over %d devices, as is asked for", name,
                cria_dim_to_name(p->graph, index[i].dim.name), (long long)extent, (long long)index[i].unit, parts);
    }
    return cria_fail(err, CRIA_ERR_INFEASIBLE, "operator \"%s\": no strategy is legal on a %d x %d mesh%s", name,
                     p->mesh.size[0], p->mesh.size[1],
                     o->data_parallel_only || axis >= 0 ? " with its batch cut as is asked for" : "");
}

/* The choices of operator i of the range. */
static cria_status add_op(builder *b, int i, cria_error *err) {
    cria_intra_problem *p = b->problem;
    const cria_op *op = cria_graph_op(p->graph, p->first + i);
    const char *name = cria_graph_tensor(p->graph, op->output)->name;
    cria_strategy list[CRIA_MAX_STRATEGIES];
    int count;
    if (b->fixed) {
        const char *why = cria_strategy_derive(p->graph, op, &p->mesh, b->fixed[i].index, &list[0]);
        if (why)
            return cria_fail(err, CRIA_ERR_ARGUMENT, "operator \"%s\": strategy %d, %d: %s", name, b->fixed[i].index[0],
                             b->fixed[i].index[1], why);
        count = 1;
    } else {
        count = cria_strategies(p->graph, op, &p->mesh, &p->options->strategies, list);
        if (count == 0) return fail_without_strategies(p, op, err);
    }
    cria_intra_node *node = &p->node[i];
    node->choices = count;
    node->tensor = -1;
    NEW(p, node->strategy, count);
    NEW(p, node->cost, count);
    memcpy(node->strategy, list, (size_t)count * sizeof *list);
    for (int s = 0; s < count; s++) {
        node->cost[s] = cria_strategy_stats(p->graph, op, &p->mesh, &p->options->strategies, &list[s]);
        if (p->options->compute)
            node->cost[s] += p->options->compute(p->options->context, p->graph, op, &p->mesh, &list[s]);
        for (int k = 0; k < CRIA_MAX_INPUTS; k++)
            if (op->input[k] >= 0) see(&b->use[op->input[k]], list[s].input[k], true);
        see(&b->use[op->output], list[s].raw, false);
    }
    return CRIA_OK;
}

static cria_status find_usage(builder *b) {
    cria_intra_problem *p = b->problem;
    int tensors = cria_graph_tensors(p->graph), end = p->first + p->ops;
    NEW(p, b->use, tensors);
    for (int t = 0; t < tensors; t++)
        b->use[t] = (usage){.first_reader = -1, .last_reader = -1, .producer = -1, .after = true, .alias = -1};
    for (int i = 0; i < end; i++) {
        const cria_op *op = cria_graph_op(p->graph, i);
        for (int k = 0; k < CRIA_MAX_INPUTS; k++)
            if (op->input[k] >= 0) b->use[op->input[k]].after = false;
        if (i < p->first) continue;
        for (int k = 0; k < CRIA_MAX_INPUTS; k++) {
            if (op->input[k] < 0) continue;
            usage *use = &b->use[op->input[k]];
            if (use->first_reader < 0) use->first_reader = i - p->first;
            use->last_reader = i - p->first;
        }
        b->use[op->output].producer = i - p->first;
        if (cria_op_alias(op) >= 0) b->use[op->output].alias = op->input[cria_op_alias(op)];
    }
    for (int i = end; i < cria_graph_ops(p->graph); i++) {
        const cria_op *op = cria_graph_op(p->graph, i);
        for (int k = 0; k < CRIA_MAX_INPUTS; k++)
            if (op->input[k] >= 0) b->use[op->input[k]].after = true;
    }
    return CRIA_OK;
}

/* Whether every device gets something of a tensor that is cut so. */
static bool leaves_none_empty(const cria_intra_problem *p, const cria_tensor *tensor, cria_sharding sharding) {
    for (int axis = 0; axis < CRIA_MESH_AXES; axis++) {
        int d = sharding.dim[axis];
        if (d < 0) continue;
        if (!cria_dim_divides(p->graph, tensor->dim[d], &p->mesh, (bool[]){sharding.dim[0] == d, sharding.dim[1] == d},
                              p->options->strategies.symbolic))
            return false;
    }
    return true;
}

/* The shardings in which a tensor may be kept: every axis does what it does for its producer or some reader. Parameters
 * that are gathered at every step may be cut along any dim, for memory's sake. */
static int list_shardings(const builder *b, int t, cria_sharding out[CRIA_SHARDINGS]) {
    const cria_intra_problem *p = b->problem;
    const cria_tensor *tensor = cria_graph_tensor(p->graph, t);
    const usage *use = &b->use[t];
    unsigned seen[CRIA_MESH_AXES];
    bool given = use->producer < 0 && p->options->boundary && tensor->kind == CRIA_TENSOR_VALUE;
    for (int axis = 0; axis < CRIA_MESH_AXES; axis++) {
        seen[axis] = use->seen[axis] | 1u << (CRIA_REPLICATED + 2);
        if (is_kept(tensor) && p->options->gather_parameters) seen[axis] |= ~0u << 2;
        if (!use->after && use->producer >= 0 && use->wanted_partial >> axis & 1)
            seen[axis] |= 1u << (CRIA_PARTIAL + 2);
        if (use->producer >= 0 && b->fixed && b->fixed[use->producer].output.dim[axis] != CRIA_ANY)
            seen[axis] = 1u << (b->fixed[use->producer].output.dim[axis] + 2);
        if (given && p->options->boundary[t].dim[axis] != CRIA_ANY)
            seen[axis] = 1u << (p->options->boundary[t].dim[axis] + 2);
        if (p->mesh.size[axis] < 2) seen[axis] = 1u << (CRIA_REPLICATED + 2);
    }
    int count = 0;
    for (int x = CRIA_PARTIAL; x < tensor->dims; x++)
        for (int y = CRIA_PARTIAL; y < tensor->dims; y++) {
            cria_sharding sharding = {{(int8_t)x, (int8_t)y}};
            if ((seen[0] >> (x + 2) & 1) && (seen[1] >> (y + 2) & 1) && leaves_none_empty(p, tensor, sharding))
                out[count++] = sharding;
        }
    return count;
}

static double conversion(const builder *b, int t, cria_sharding from, cria_sharding to) {
    return cria_reshard_between(b->use[t].table, &b->problem->mesh, from, to,
                                b->problem->options->strategies.reduce_scatter);
}

/* Partial sums summed, and nothing else changed. */
static bool only_summed(cria_sharding from, cria_sharding to) {
    for (int axis = 0; axis < CRIA_MESH_AXES; axis++)
        if (from.dim[axis] != to.dim[axis] && !(from.dim[axis] == CRIA_PARTIAL && to.dim[axis] == CRIA_REPLICATED))
            return false;
    return true;
}

/* Bringing a result into the sharding in which it must be left. */
static double leaving_cost(const builder *b, int t, cria_sharding held) {
    const cria_intra_problem *p = b->problem;
    const usage *use = &b->use[t];
    if (!p->options->boundary || use->producer < 0 || !use->after || use->alias >= 0) return 0;
    cria_sharding wanted = p->options->boundary[t];
    for (int axis = 0; axis < CRIA_MESH_AXES; axis++)
        if (wanted.dim[axis] == CRIA_ANY) wanted.dim[axis] = held.dim[axis];
    if (p->options->strategies.follow && !only_summed(held, wanted)) return HUGE_VAL;
    return conversion(b, t, held, wanted);
}

static cria_status add_tensor(builder *b, int t, cria_error *err) {
    cria_intra_problem *p = b->problem;
    const cria_tensor *tensor = cria_graph_tensor(p->graph, t);
    usage *use = &b->use[t];
    cria_sharding list[CRIA_SHARDINGS];
    if (find_table(b, tensor, &use->table) != CRIA_OK) return CRIA_ERR_MEMORY;
    int count = list_shardings(b, t, list);
    if (count == 0)
        return cria_fail(err, CRIA_ERR_INFEASIBLE,
                         "tensor \"%s\": no sharding leaves every device of the mesh some of it", tensor->name);
    p->node_of[t] = p->nodes;
    cria_intra_node *node = &p->node[p->nodes++];
    node->choices = count;
    node->tensor = t;
    node->begin = use->producer >= 0 ? use->producer : 0;
    node->end = is_kept(tensor) || use->after ? p->ops : use->last_reader + 1;
    NEW(p, node->sharding, count);
    NEW(p, node->cost, count);
    if (use->alias < 0) NEW(p, node->bytes, count);
    memcpy(node->sharding, list, (size_t)count * sizeof *list);
    for (int c = 0; c < count; c++) {
        node->cost[c] = leaving_cost(b, t, list[c]);
        if (node->bytes) node->bytes[c] = use->table->bytes[cria_sharding_code(list[c])];
    }
    return CRIA_OK;
}

/* What a reader pays for an input. Parameters that are not gathered at every step are held as their first reader wants
 * them, and the others want that or slices of it. */
static double reading_cost(const builder *b, int i, int t, cria_sharding held, cria_sharding wanted) {
    const cria_intra_problem *p = b->problem;
    const usage *use = &b->use[t];
    double cost = conversion(b, t, held, wanted);
    if (!is_kept(cria_graph_tensor(p->graph, t)) || p->options->gather_parameters) return cost;
    bool first = use->first_reader == i;
    return (first ? cria_sharding_equal(held, wanted) : cost == 0) ? 0 : HUGE_VAL;
}

static cria_status add_edge(builder *b, int a, int c, cria_intra_edge_kind kind, double **cost) {
    cria_intra_problem *p = b->problem;
    NEW(p, *cost, (size_t)p->node[a].choices * (size_t)p->node[c].choices);
    p->edge[p->edges++] = (cria_intra_edge){a, c, kind, *cost};
    return CRIA_OK;
}

static cria_status add_op_edges(builder *b, int i) {
    cria_intra_problem *p = b->problem;
    const cria_op *op = cria_graph_op(p->graph, p->first + i);
    const cria_intra_node *node = &p->node[i];
    bool follow = p->options->strategies.follow;
    int followed = follow ? cria_strategy_follows(p->graph, op) : -1;
    for (int k = -1; k < CRIA_MAX_INPUTS; k++) {
        int t = k < 0 ? op->output : op->input[k];
        if (t < 0) continue;
        int h = p->node_of[t];
        const cria_intra_node *held = &p->node[h];
        double *cost;
        if (add_edge(b, i, h, k < 0 ? CRIA_INTRA_OUTPUT : CRIA_INTRA_INPUT, &cost) != CRIA_OK) return CRIA_ERR_MEMORY;
        for (int s = 0; s < node->choices; s++)
            for (int c = 0; c < held->choices; c++) {
                cria_sharding from = k < 0 ? node->strategy[s].raw : held->sharding[c],
                              to = k < 0 ? held->sharding[c] : node->strategy[s].input[k];
                bool as_it_lies = k < 0 ? follow : k == followed;
                if (as_it_lies && !only_summed(from, to))
                    *cost++ = HUGE_VAL;
                else
                    *cost++ = k < 0 ? conversion(b, t, from, to) : reading_cost(b, i, t, from, to);
            }
    }
    return CRIA_OK;
}

/* What takes another tensor's place lives in the same sharding. */
static cria_status add_alias(builder *b, int t) {
    cria_intra_problem *p = b->problem;
    int a = p->node_of[t], c = p->node_of[b->use[t].alias];
    double *cost;
    if (add_edge(b, a, c, CRIA_INTRA_ALIAS, &cost) != CRIA_OK) return CRIA_ERR_MEMORY;
    for (int x = 0; x < p->node[a].choices; x++)
        for (int y = 0; y < p->node[c].choices; y++)
            *cost++ = cria_sharding_equal(p->node[a].sharding[x], p->node[c].sharding[y]) ? 0 : HUGE_VAL;
    return CRIA_OK;
}

static cria_status build(builder *b, cria_error *err) {
    cria_intra_problem *p = b->problem;
    int tensors = cria_graph_tensors(p->graph);
    if (find_usage(b) != CRIA_OK) return CRIA_ERR_MEMORY;
    NEW(p, p->node, (size_t)p->ops * (CRIA_MAX_INPUTS + 2));
    NEW(p, p->edge, (size_t)p->ops * (CRIA_MAX_INPUTS + 2));
    NEW(p, p->node_of, tensors);
    for (int t = 0; t < tensors; t++) p->node_of[t] = -1;
    p->nodes = p->ops;
    for (int i = 0; i < p->ops; i++) CRIA_TRY(add_op(b, i, err));
    for (int i = 0; i < p->ops; i++) {
        const cria_op *op = cria_graph_op(p->graph, p->first + i);
        for (int k = 0; k < CRIA_MAX_INPUTS; k++)
            if (op->input[k] >= 0 && p->node_of[op->input[k]] < 0) CRIA_TRY(add_tensor(b, op->input[k], err));
        CRIA_TRY(add_tensor(b, op->output, err));
    }
    for (int i = 0; i < p->ops; i++)
        if (add_op_edges(b, i) != CRIA_OK) return CRIA_ERR_MEMORY;
    for (int i = 0; i < p->ops; i++) {
        int t = cria_graph_op(p->graph, p->first + i)->output;
        if (b->use[t].alias >= 0 && add_alias(b, t) != CRIA_OK) return CRIA_ERR_MEMORY;
    }
    return CRIA_OK;
}

cria_status cria_intra_problem_create(const cria_graph *graph, int first_op, int end_op, const cria_mesh *mesh,
                                      const cria_intra_options *options, const cria_strategy *fixed,
                                      cria_intra_problem *out, cria_error *err) {
    *out = (cria_intra_problem){.graph = graph,
                                .first = first_op,
                                .ops = end_op - first_op,
                                .mesh = cria_intra_mesh(mesh, options),
                                .options = options};
    if (first_op < 0 || end_op <= first_op || end_op > cria_graph_ops(graph))
        return cria_fail(err, CRIA_ERR_ARGUMENT, "operators [%d, %d) of a graph of %d", first_op, end_op,
                         cria_graph_ops(graph));
    out->arena = cria_arena_create(1 << 20, 0);
    if (!out->arena) return cria_fail(err, CRIA_ERR_MEMORY, "no memory to plan");
    builder b = {.problem = out, .fixed = fixed};
    cria_status status = build(&b, err);
    if (status == CRIA_ERR_MEMORY)
        cria_fail(err, status, "no memory to plan %d operators on a %d x %d mesh", out->ops, mesh->size[0],
                  mesh->size[1]);
    if (status != CRIA_OK) cria_intra_problem_deinit(out);
    return status;
}

void cria_intra_problem_deinit(cria_intra_problem *problem) {
    cria_arena_destroy(problem->arena);
    *problem = (cria_intra_problem){0};
}
