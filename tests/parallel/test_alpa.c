/* The optima of Alpa's own solver tests, in closed form, on its shapes and meshes and on many others. */
#include "parallel/nets/network.h"
#include "parallel/plan/intra.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static cria_mesh mesh_of(int rows, int columns, double beta0, double beta1) {
    return (cria_mesh){.size = {rows, columns}, .alpha = {1, 1}, .beta = {beta0, beta1}};
}

/* The all-reduce of so many bytes over an axis, written out. */
static double all_reduce(const cria_mesh *mesh, int axis, double bytes) {
    double n = mesh->size[axis];
    return n < 2 ? 0 : mesh->alpha[axis] + mesh->beta[axis] * 2 * (n - 1) / n * bytes + 0.01;
}

enum { NO_ALL_GATHER = 1, SUM_WHERE_MADE = 2, FREE = 4, BATCH_ONLY = 8 };

static double objective(const cria_graph *g, cria_mesh mesh, unsigned flags) {
    cria_intra_options o;
    cria_error err = {0};
    cria_intra_result result;
    cria_intra_defaults(&o);
    cria_intra_as_alpa(&mesh, &o);
    if (flags & FREE) {
        o.strategies.reduce_scatter = true;
        o.strategies.follow = o.strategies.forbid_all_to_all = false;
    }
    o.strategies.forbid_all_gather = flags & NO_ALL_GATHER;
    o.strategies.sum_where_made = flags & SUM_WHERE_MADE;
    o.strategies.data_parallel_only = flags & BATCH_ONLY;
    cria_sharding *boundary = calloc((size_t)cria_graph_tensors(g), sizeof *boundary);
    cria_intra_whole_results(g, &mesh, boundary);
    o.boundary = flags & BATCH_ONLY ? NULL : boundary; /* results lie as the batch is cut */
    if (cria_intra_solve(g, 0, cria_graph_ops(g), &mesh, &o, &result, &err) != CRIA_OK) fail_msg("%s", err.message);
    assert_true(result.optimal);
    double found = result.objective;
    cria_intra_result_deinit(&result);
    free(boundary);
    return found;
}

static void expect(const char *what, const cria_mesh *mesh, double found, double closed) {
    if (fabs(found - closed) > 1e-9 * closed)
        fail_msg("%s on %d x %d: %.9g, closed form %.9g", what, mesh->size[0], mesh->size[1], found, closed);
}

static cria_graph *network(const char *spec) {
    cria_graph *g;
    cria_error err = {0};
    if (cria_network_create(spec, &g, &err) != CRIA_OK) fail_msg("%s", err.message);
    return g;
}

static double mlp(int layers, int hidden, int batch, int bias, cria_mesh mesh, unsigned flags) {
    char spec[96];
    snprintf(spec, sizeof spec, "mlp:layers=%d,hidden=%d,batch=%d,bias=%d,train=1", layers, hidden, batch, bias);
    cria_graph *g = network(spec);
    double found = objective(g, mesh, flags);
    cria_graph_destroy(g);
    return found;
}

/* One gradient of each weight and bias is summed. */
static double data_parallel(int layers, double hidden, int bias, const cria_mesh *mesh, int axis) {
    return layers * (all_reduce(mesh, axis, hidden * hidden * 4) + bias * all_reduce(mesh, axis, hidden * 4));
}

/* Layers are cut by columns and rows in turn: sums forward after rows, backward before columns, but not of x. */
static double model_parallel(int layers, double hidden, double batch, const cria_mesh *mesh, int axis) {
    return (layers - 1) * all_reduce(mesh, axis, hidden * batch * 4);
}

/* Batch along axis 0, columns and rows along axis 1. A bias behind rows is whole along axis 1. */
static double grid(int layers, double hidden, double batch, int bias, const cria_mesh *mesh) {
    int m0 = mesh->size[0], m1 = mesh->size[1];
    double weights = layers * all_reduce(mesh, 0, hidden * hidden * 4 / m1);
    double biases =
        (layers + 1) / 2 * all_reduce(mesh, 0, hidden * 4 / m1) + layers / 2 * all_reduce(mesh, 0, hidden * 4);
    return weights + bias * biases + (layers - 1) * all_reduce(mesh, 1, hidden * batch * 4 / m0);
}

static void the_rows_of_the_table_hold(void **state) {
    (void)state;
    for (int axis = 0; axis < 2; axis++) {
        cria_mesh mesh = mesh_of(axis ? 1 : 4, axis ? 4 : 1, 1, 1);
        for (int bias = 0; bias < 2; bias++)
            for (int layers = 2; layers <= 12; layers += 10) {
                expect("data parallel", &mesh, mlp(layers, 128, 1024, bias, mesh, 0),
                       layers * all_reduce(&mesh, axis, 65536) + bias * layers * all_reduce(&mesh, axis, 512));
                expect("model parallel", &mesh, mlp(layers, 1024, 128, bias, mesh, 0),
                       (layers - 1) * all_reduce(&mesh, axis, 524288));
            }
    }
    static const int grids[3][2] = {{4, 8}, {8, 4}, {3, 4}};
    for (int i = 0; i < 3; i++) {
        cria_mesh mesh = mesh_of(grids[i][0], grids[i][1], 1, 0.01);
        double m0 = grids[i][0], m1 = grids[i][1];
        double plain = 2 * all_reduce(&mesh, 0, 65536 / m1) + all_reduce(&mesh, 1, 524288 / m0);
        expect("grid", &mesh, mlp(2, 128, 1024, 0, mesh, 0), plain);
        expect("grid with biases", &mesh, mlp(2, 128, 1024, 1, mesh, 0),
               plain + all_reduce(&mesh, 0, 512) + all_reduce(&mesh, 0, 512 / m1));
        expect("12 layers on a grid", &mesh, mlp(12, 128, 1024, 0, mesh, 0),
               12 * all_reduce(&mesh, 0, 65536 / m1) + 11 * all_reduce(&mesh, 1, 524288 / m0));
    }
}

static void the_closed_forms_hold_for_other_shapes_and_lines_of_devices(void **state) {
    (void)state;
    static const int hidden[] = {64, 96, 100, 250}, devices[] = {2, 3, 5, 8, 16}, layers[] = {1, 2, 3, 5, 8};
    for (int h = 0; h < 4; h++)
        for (int d = 0; d < 5; d++)
            for (int axis = 0; axis < 2; axis++) {
                int n = devices[d], l = layers[(h + d) % 5];
                cria_mesh mesh = mesh_of(axis ? 1 : n, axis ? n : 1, 1, 1);
                int large = hidden[h] * 8 + d;
                for (int bias = 0; bias < 2; bias++) {
                    double some = data_parallel(l, hidden[h], bias, &mesh, axis);
                    expect("data parallel", &mesh, mlp(l, hidden[h], large, bias, mesh, 0), l == 1 ? 0 : some);
                    expect("model parallel", &mesh, mlp(l, large, hidden[h], bias, mesh, 0),
                           model_parallel(l, large, hidden[h], &mesh, axis));
                }
            }
}

static void the_closed_forms_hold_for_other_shapes_and_grids(void **state) {
    (void)state;
    static const int grids[][2] = {{2, 2}, {2, 4}, {4, 2}, {4, 4}, {3, 4}, {4, 3}, {5, 3}, {2, 16}, {6, 4}};
    static const int hidden[] = {96, 128, 200};
    for (int m = 0; m < 9; m++)
        for (int h = 0; h < 3; h++)
            for (int bias = 0; bias < 2; bias++) {
                int l = 2 + (m + h) % 4, batch = hidden[h] * (4 + m % 5);
                cria_mesh mesh = mesh_of(grids[m][0], grids[m][1], 1, 0.01);
                expect("grid", &mesh, mlp(l, hidden[h], batch, bias, mesh, 0), grid(l, hidden[h], batch, bias, &mesh));
            }
}

/* What every parameter's gradient costs if it is summed once, whole. */
static double sums_of_all_gradients(const cria_graph *g, const cria_mesh *mesh, int axis) {
    double sum = 0;
    for (int t = 0; t < cria_graph_tensors(g); t++) {
        const cria_tensor *tensor = cria_graph_tensor(g, t);
        if (tensor->kind == CRIA_TENSOR_PARAM) sum += all_reduce(mesh, axis, (double)cria_tensor_extent(tensor, 0) * 4);
    }
    return sum;
}

static void with_the_batch_alone_cut_every_gradient_is_summed_once_and_nothing_else(void **state) {
    (void)state;
    static const struct {
        const char *net;
        int devices;
    } cases[] = {{"gpt:layers=2,hidden=24,heads=3,seq=7,batch=12,vocab=50", 4},
                 {"gpt:layers=1,hidden=32,heads=4,seq=8,batch=10,vocab=64,tied=1,adam=0", 5},
                 {"moe:layers=1,hidden=16,heads=2,seq=8,batch=6,vocab=64,experts=4,group=8,adam=0", 3},
                 {"moe:layers=3,hidden=16,heads=4,seq=8,batch=16,vocab=30,experts=2,group=16", 8}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int axis = 0; axis < 2; axis++) {
            cria_mesh mesh = mesh_of(axis ? 1 : cases[i].devices, axis ? cases[i].devices : 1, 1, 1);
            cria_graph *g = network(cases[i].net);
            /* The loss is a mean: one number is summed for it. */
            expect(cases[i].net, &mesh, objective(g, mesh, BATCH_ONLY),
                   sums_of_all_gradients(g, &mesh, axis) + all_reduce(&mesh, axis, 4));
            cria_graph_destroy(g);
        }
}

static double found(const char *spec, cria_mesh mesh, unsigned flags) {
    cria_graph *g = network(spec);
    double value = objective(g, mesh, flags);
    cria_graph_destroy(g);
    return value;
}

/* What must be whole must have been computed so: a gather behind a cut dim would be cheaper, but is not what Alpa's
 * tests allow. */
static void chains_of_transposes_and_reshapes_cost_one_sum(void **state) {
    (void)state;
    static const int rows[] = {128, 64, 100}, summed[] = {2048, 512, 1001};
    for (int i = 0; i < 3; i++)
        for (int form = 0; form < 2; form++)
            for (int axis = 0; axis < 2; axis++) {
                char spec[96];
                snprintf(spec, sizeof spec, "chain:steps=%d,reshape=%d,rows=%d,summed=%d", i + 1, form, rows[i],
                         summed[i]);
                cria_mesh mesh = mesh_of(axis ? 1 : 2 + i, axis ? 2 + i : 1, 1, 1);
                double one = all_reduce(&mesh, axis, (double)(rows[i] * rows[i] * 4));
                expect(spec, &mesh, found(spec, mesh, 0), one);
                expect(spec, &mesh, found(spec, mesh, NO_ALL_GATHER), one);
                assert_true(found(spec, mesh, FREE) < one);
            }
}

static void a_sum_of_sums_costs_one_all_reduce_and_in_alpa_one_for_each(void **state) {
    (void)state;
    for (int dots = 2; dots < 6; dots++)
        for (int axis = 0; axis < 2; axis++)
            for (int readers = 0; readers < 3; readers += 2) {
                char spec[96];
                int rows = 64 + 37 * dots;
                snprintf(spec, sizeof spec, "sum:dots=%d,rows=%d,summed=%d,readers=%d", dots, rows, 1000 * dots,
                         readers);
                cria_mesh mesh = mesh_of(axis ? 1 : dots, axis ? dots : 1, 1, 1);
                double one = all_reduce(&mesh, axis, (double)(rows * rows * 4));
                expect(spec, &mesh, found(spec, mesh, 0), one);
                expect(spec, &mesh, found(spec, mesh, SUM_WHERE_MADE), dots * one);
            }
}

static void check_attention(int batch, int sequence, int hidden, int heads, const cria_mesh *mesh, double expected) {
    char spec[96];
    snprintf(spec, sizeof spec, "attention:batch=%d,seq=%d,hidden=%d,heads=%d", batch, sequence, hidden, heads);
    expect(spec, mesh, found(spec, *mesh, NO_ALL_GATHER), expected);
}

static void attention_costs_the_sum_of_its_output_projection(void **state) {
    (void)state;
    static const int lines[] = {4, 2, 3, 8, 16};
    for (int i = 0; i < 5; i++)
        for (int axis = 0; axis < 2; axis++) {
            int batch = 4 + i, sequence = 128 - 9 * i, heads = 16 + 8 * i, hidden = heads * 32;
            cria_mesh mesh = mesh_of(axis ? 1 : lines[i], axis ? lines[i] : 1, 1, 1);
            check_attention(batch, sequence, hidden, heads, &mesh,
                            all_reduce(&mesh, axis, (double)(batch * sequence * hidden * 4)));
        }
    static const int grids[][2] = {{4, 4}, {2, 4}, {4, 2}, {2, 8}, {3, 4}, {8, 2}};
    for (int i = 0; i < 6; i++)
        for (int slow = 0; slow < 2; slow++) {
            int m0 = grids[i][0], m1 = grids[i][1];
            cria_mesh mesh = mesh_of(m0, m1, 1, slow ? 0.01 : 1);
            int batch = m0 * (1 + i % 3), sequence = 128, heads = 16, hidden = i ? 512 : 2048;
            check_attention(batch, sequence, hidden, heads, &mesh,
                            all_reduce(&mesh, 1, (double)(batch * sequence * hidden * 4) / m0));
        }
}

/* With more freedom than Alpa's, nothing may get dearer. */
static void freedom_is_never_dearer(void **state) {
    (void)state;
    static const int meshes[][2] = {{1, 4}, {4, 1}, {4, 8}, {3, 4}, {2, 2}};
    for (int m = 0; m < 5; m++)
        for (int bias = 0; bias < 2; bias++) {
            cria_mesh mesh = mesh_of(meshes[m][0], meshes[m][1], 1, 0.01);
            double alpa = mlp(3, 128, 512, bias, mesh, 0), most = mlp(3, 128, 512, bias, mesh, FREE);
            assert_true(most <= alpa * (1 + 1e-9));
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_rows_of_the_table_hold),
        cmocka_unit_test(the_closed_forms_hold_for_other_shapes_and_lines_of_devices),
        cmocka_unit_test(the_closed_forms_hold_for_other_shapes_and_grids),
        cmocka_unit_test(with_the_batch_alone_cut_every_gradient_is_summed_once_and_nothing_else),
        cmocka_unit_test(chains_of_transposes_and_reshapes_cost_one_sum),
        cmocka_unit_test(a_sum_of_sums_costs_one_all_reduce_and_in_alpa_one_for_each),
        cmocka_unit_test(attention_costs_the_sum_of_its_output_projection),
        cmocka_unit_test(freedom_is_never_dearer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
