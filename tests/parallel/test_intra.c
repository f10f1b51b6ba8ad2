/* The intra-operator pass: never dearer than the best of all combinations, and never cheaper than they say. */
#include "parallel/plan/intra.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define R CRIA_REPLICATED
#define P CRIA_PARTIAL

/* Small random graphs */

static uint64_t seed = 1;

static int draw(int below) {
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    return (int)((seed >> 33) % (uint64_t)below);
}

enum { MOST_OPS = 4, MOST_TENSORS = 16 };

/* Values [token, one of three dims]: products, sums, activations and norms of what was made before. */
static cria_graph *random_graph(int ops) {
    static const int64_t extents[] = {2, 3, 4, 6, 8};
    cria_graph *g = cria_graph_create("random", 1);
    cria_graph_set_group(g, 1);
    cria_graph_set_sequence(g, 1);
    const cria_dim dims[3] = {
        {CRIA_DIM_HIDDEN, extents[draw(5)]}, {CRIA_DIM_FFN, extents[draw(5)]}, {CRIA_DIM_VOCAB, extents[draw(5)]}};
    const cria_dim token = {CRIA_DIM_TOKEN, CRIA_SYMBOLIC};
    int ids = cria_graph_input(g, "ids", token), value[MOST_OPS + 1], dim[MOST_OPS + 1], made = 0;
    int table = cria_graph_param(g, CRIA_PARAM_PLAIN, 2, (cria_dim[]){{CRIA_DIM_POSITION, 5}, dims[0]}, "table");
    value[made] = cria_graph_add(g, (cria_op){.kind = CRIA_OP_EMBED, .input = {ids, table, -1, -1}}, "x");
    dim[made++] = 0;
    for (int i = 1; i < ops; i++) {
        int a = draw(made), kind = draw(5), d = dim[a];
        cria_op op = {.input = {value[a], -1, -1, -1}};
        if (kind == 0) op.kind = CRIA_OP_ACTIVATION;
        if (kind == 1) op.kind = CRIA_OP_NORM;
        if (kind == 2) { /* add to itself where there is no other */
            int b = draw(made);
            op.kind = CRIA_OP_ADD;
            op.input[1] = dim[b] == d ? value[b] : value[a];
        }
        if (kind >= 3) {
            int to = (d + 1 + draw(2)) % 3;
            op.kind = CRIA_OP_LINEAR;
            op.input[1] = cria_graph_param(g, CRIA_PARAM_PLAIN, 2, (cria_dim[]){dims[to], dims[d]}, "w%d%d%d", to, d,
                                           draw(2)); /* sometimes the same weight again */
            if (draw(3) == 0) op.input[2] = cria_graph_param(g, CRIA_PARAM_PLAIN, 1, &dims[to], "b%d%d", to, i);
            d = to;
        }
        value[made] = cria_graph_add(g, op, "v%d", i);
        dim[made++] = d;
    }
    cria_error err = {0};
    if (cria_graph_check(g, &err) != CRIA_OK) fail_msg("%s", err.message);
    return g;
}

/* All combinations, found without the pass's tables */

typedef struct {
    const cria_graph *g;
    cria_mesh mesh;
    const cria_intra_options *o;
    int ops, tensors;
    cria_strategy list[MOST_OPS][CRIA_MAX_STRATEGIES];
    int count[MOST_OPS];
    int first[MOST_TENSORS], last[MOST_TENSORS], maker[MOST_TENSORS];
    cria_sharding held[MOST_TENSORS][CRIA_SHARDINGS];
    double bytes[MOST_TENSORS][CRIA_SHARDINGS];
    int shardings[MOST_TENSORS];
    const cria_strategy *chosen[MOST_OPS];
    double best;
    double used[MOST_OPS];
} everything;

static double element_of(const everything *e, int t) {
    bool param = cria_graph_tensor(e->g, t)->kind == CRIA_TENSOR_PARAM;
    return param && e->o->param_element > 0 ? e->o->param_element : e->o->strategies.element;
}

static double between(const everything *e, int t, cria_sharding from, cria_sharding to) {
    const cria_tensor *tensor = cria_graph_tensor(e->g, t);
    cria_reshard_step steps[CRIA_MAX_RESHARD_STEPS];
    double cost = 0,
           whole = cria_sharding_bytes(e->g, tensor, from, &e->mesh, e->o->strategies.symbolic, element_of(e, t));
    for (int axis = 0; axis < 2 && !e->o->strategies.reduce_scatter; axis++)
        if (from.dim[axis] == P && to.dim[axis] != P) {
            cost += cria_mesh_all_reduce(&e->mesh, axis, whole);
            from.dim[axis] = R;
        }
    int count = cria_reshard(e->g, tensor, from, to, &e->mesh, e->o->strategies.symbolic, element_of(e, t), steps);
    return count < 0 ? HUGE_VAL : cost + cria_reshard_cost(&e->mesh, steps, count);
}

static bool has_parts(const everything *e, const cria_tensor *tensor, cria_sharding s) {
    for (int d = 0; d < tensor->dims; d++) {
        int64_t parts = 1, extent = tensor->dim[d].extent;
        if (extent == CRIA_SYMBOLIC) extent = e->o->strategies.symbolic;
        for (int axis = 0; axis < 2; axis++)
            if (s.dim[axis] == d) parts *= e->mesh.size[axis];
        if (extent < parts) return false;
    }
    return true;
}

/* Whether an axis does to a tensor what it does for its maker or a reader under some strategy. Only memory makes other
 * shardings worth having; of them, the pass offers those of parameters that are gathered at every step. */
static bool is_seen(const everything *e, int t, int axis, int dim) {
    if (dim == R || e->o->memory_limit < 0) return true;
    if (cria_graph_tensor(e->g, t)->kind == CRIA_TENSOR_PARAM && e->o->gather_parameters) return true;
    for (int i = 0; i < e->ops; i++)
        for (int s = 0; s < e->count[i]; s++) {
            if (e->maker[t] == i && e->list[i][s].raw.dim[axis] == dim) return true;
            for (int k = 0; k < CRIA_MAX_INPUTS; k++)
                if (cria_graph_op(e->g, i)->input[k] == t && e->list[i][s].input[k].dim[axis] == dim) return true;
        }
    return false;
}

static void list_everything(everything *e) {
    for (int t = 0; t < e->tensors; t++) e->first[t] = e->last[t] = e->maker[t] = -1;
    for (int i = 0; i < e->ops; i++) {
        const cria_op *op = cria_graph_op(e->g, i);
        e->maker[op->output] = i;
        for (int k = 0; k < CRIA_MAX_INPUTS; k++) {
            if (op->input[k] < 0) continue;
            if (e->first[op->input[k]] < 0) e->first[op->input[k]] = i;
            e->last[op->input[k]] = i;
        }
        e->count[i] = cria_strategies(e->g, op, &e->mesh, &e->o->strategies, e->list[i]);
    }
    for (int t = 0; t < e->tensors; t++)
        for (int x = P; x < 2; x++)
            for (int y = P; y < 2; y++) {
                const cria_tensor *tensor = cria_graph_tensor(e->g, t);
                cria_sharding s = {{(int8_t)x, (int8_t)y}};
                if (x >= tensor->dims || y >= tensor->dims || !has_parts(e, tensor, s)) continue;
                if ((e->mesh.size[0] < 2 && x != R) || (e->mesh.size[1] < 2 && y != R)) continue;
                if ((x == P || y == P) && (e->maker[t] < 0 || e->last[t] < 0)) continue;
                if (!is_seen(e, t, 0, x) || !is_seen(e, t, 1, y)) continue;
                e->bytes[t][e->shardings[t]] =
                    cria_sharding_bytes(e->g, tensor, s, &e->mesh, e->o->strategies.symbolic, element_of(e, t));
                e->held[t][e->shardings[t]++] = s;
            }
}

/* What everybody pays for a tensor that is held so. */
static double tensor_cost(const everything *e, int t, cria_sharding held) {
    double cost = e->maker[t] >= 0 ? between(e, t, e->chosen[e->maker[t]]->raw, held) : 0;
    for (int i = 0; i < e->ops; i++)
        for (int k = 0; k < CRIA_MAX_INPUTS; k++) {
            if (cria_graph_op(e->g, i)->input[k] != t) continue;
            double read = between(e, t, held, e->chosen[i]->input[k]);
            bool param = cria_graph_tensor(e->g, t)->kind == CRIA_TENSOR_PARAM && !e->o->gather_parameters;
            if (param && i == e->first[t] && !cria_sharding_equal(held, e->chosen[i]->input[k])) return HUGE_VAL;
            if (param && read > 0) return HUGE_VAL;
            cost += read;
        }
    return cost;
}

static void try_tensors(everything *e, int t, double cost) {
    if (cost >= e->best) return;
    if (t == e->tensors) {
        e->best = cost;
        return;
    }
    int begin = e->maker[t] >= 0 ? e->maker[t] : 0;
    bool param = cria_graph_tensor(e->g, t)->kind == CRIA_TENSOR_PARAM;
    int end = param || e->last[t] < 0 ? e->ops : e->last[t] + 1;
    double least = HUGE_VAL;
    for (int c = 0; c < e->shardings[t]; c++) {
        double here = tensor_cost(e, t, e->held[t][c]);
        if (e->o->memory_limit < 0) { /* tensors do not compete */
            if (here < least) least = here;
            continue;
        }
        bool fits = true;
        for (int i = begin; i < end; i++) {
            e->used[i] += e->bytes[t][c];
            fits = fits && e->used[i] <= (double)e->o->memory_limit;
        }
        if (fits) try_tensors(e, t + 1, cost + here);
        for (int i = begin; i < end; i++) e->used[i] -= e->bytes[t][c];
    }
    if (e->o->memory_limit < 0) try_tensors(e, t + 1, cost + least);
}

static double price(void *context, const cria_graph *g, const cria_op *op, const cria_mesh *mesh,
                    const cria_strategy *strategy) {
    double work = op->kind == CRIA_OP_LINEAR ? *(double *)context : 1;
    return work * cria_strategy_share(g, op, mesh, 6, strategy);
}

static void try_ops(everything *e, int i, double cost) {
    if (cost >= e->best) return;
    if (i == e->ops) {
        try_tensors(e, 0, cost);
        return;
    }
    const cria_op *op = cria_graph_op(e->g, i);
    for (int s = 0; s < e->count[i]; s++) {
        cria_strategy bare = e->list[i][s];
        double own = cria_strategy_collectives(e->g, op, &e->mesh, &e->o->strategies, &bare);
        if (e->o->compute) own += e->o->compute(e->o->context, e->g, op, &e->mesh, &bare);
        e->chosen[i] = &e->list[i][s];
        try_ops(e, i + 1, cost + own);
    }
}

static double best_of_everything(const cria_graph *g, const cria_mesh *mesh, const cria_intra_options *o) {
    everything *e = calloc(1, sizeof *e);
    *e = (everything){.g = g, .mesh = *mesh, .o = o, .best = HUGE_VAL};
    e->ops = cria_graph_ops(g);
    e->tensors = cria_graph_tensors(g);
    assert_true(e->tensors <= MOST_TENSORS && e->ops <= MOST_OPS);
    if (o->strategies.forbid_all_gather) e->mesh.forbidden |= 1u << CRIA_RESHARD_ALL_GATHER;
    if (o->strategies.forbid_all_to_all) e->mesh.forbidden |= 1u << CRIA_RESHARD_ALL_TO_ALL;
    if (!o->strategies.reduce_scatter) e->mesh.forbidden |= 1u << CRIA_RESHARD_REDUCE_SCATTER;
    list_everything(e);
    try_ops(e, 0, 0);
    double best = e->best;
    free(e);
    return best;
}

static void random_options(cria_intra_options *o, cria_mesh *mesh, bool grid, double *work) {
    static const double betas[] = {0, 0.01, 1};
    static const int sizes[] = {2, 3, 4};
    cria_intra_defaults(o);
    *mesh = (cria_mesh){.size = {1, sizes[draw(3)]}, .alpha = {draw(3), draw(3)}, .tie = draw(2)};
    if (grid)
        mesh->size[0] = 2, mesh->size[1] = sizes[draw(2)];
    else if (draw(2))
        mesh->size[0] = mesh->size[1], mesh->size[1] = 1;
    for (int axis = 0; axis < 2; axis++) mesh->beta[axis] = betas[draw(3)];
    mesh->fractional = draw(4) == 0;
    o->strategies.reduce_scatter = draw(2);
    o->strategies.sum_where_made = draw(2);
    o->strategies.allow_replicated = draw(2);
    o->strategies.forbid_all_gather = draw(4) == 0;
    o->strategies.forbid_all_to_all = draw(4) == 0;
    o->strategies.force_batch_axis = draw(4) == 0 ? draw(2) : -1;
    o->strategies.data_parallel_only = draw(6) == 0;
    o->strategies.symbolic = 6;
    o->gather_parameters = draw(2);
    if (draw(3) == 0) o->param_element = 2;
    if (draw(2)) {
        *work = draw(200);
        o->compute = price;
        o->context = work;
    }
}

static void check_against_everything(int rounds, int ops, bool grid, bool limited) {
    int feasible = 0, bound = 0;
    for (int round = 0; round < rounds; round++) {
        cria_graph *g = random_graph(ops);
        cria_intra_options o;
        cria_mesh mesh;
        double work;
        random_options(&o, &mesh, grid, &work);
        cria_error err = {0};
        cria_intra_result result;
        if (limited && cria_intra_solve(g, 0, ops, &mesh, &o, &result, &err) == CRIA_OK) {
            o.memory_limit = result.peak_bytes * (4 + draw(7)) / 10;
            cria_intra_result_deinit(&result);
        }
        double expected = best_of_everything(g, &mesh, &o);
        cria_status status = cria_intra_solve(g, 0, ops, &mesh, &o, &result, &err);
        if (expected == HUGE_VAL) {
            assert_int_equal(status, CRIA_ERR_INFEASIBLE);
        } else {
            if (status != CRIA_OK) fail_msg("round %d: %s, but %g is possible", round, err.message, expected);
            feasible++;
            bound += limited && result.peak_bytes * 10 > o.memory_limit * 9;
            if (fabs(result.objective - expected) > 1e-7 * (1 + expected))
                fail_msg("round %d: %.9g, best %.9g", round, result.objective, expected);
            assert_true(result.optimal);
            assert_true(result.bound <= result.objective);
            if (o.memory_limit >= 0) assert_true(result.peak_bytes <= o.memory_limit);
            double sum = result.compute + result.collectives + result.resharding;
            assert_true(fabs(sum - result.objective) <= 1e-9 * (1 + sum));
            for (int i = 0; i < ops; i++)
                if (cria_strategy_check(g, cria_graph_op(g, i), &mesh, &result.strategy[i], &err) != CRIA_OK)
                    fail_msg("round %d: %s", round, err.message);
        }
        cria_intra_result_deinit(&result);
        cria_graph_destroy(g);
    }
    assert_true(feasible > rounds / 2);
    if (limited) assert_true(bound > rounds / 8);
}

static void the_best_of_all_combinations_is_found_on_a_line_of_devices(void **state) {
    (void)state;
    check_against_everything(400, 4, false, false);
}

static void the_best_of_all_combinations_is_found_on_a_grid(void **state) {
    (void)state;
    check_against_everything(60, 3, true, false);
}

static void the_best_of_all_combinations_that_fit_in_memory_is_found(void **state) {
    (void)state;
    check_against_everything(200, 3, false, true);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_best_of_all_combinations_is_found_on_a_line_of_devices),
        cmocka_unit_test(the_best_of_all_combinations_is_found_on_a_grid),
        cmocka_unit_test(the_best_of_all_combinations_that_fit_in_memory_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
