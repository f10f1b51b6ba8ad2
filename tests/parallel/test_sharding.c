/* Resharding: every sequence of steps does to numbers what it says, and none is dearer than need be. */
#include "parallel/plan/sharding.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define R CRIA_REPLICATED
#define P CRIA_PARTIAL

static cria_graph *graph;
static const cria_tensor matrix = {.name = "matrix", .dims = 2, .dim = {{CRIA_DIM_VOCAB, 10}, {CRIA_DIM_POSITION, 7}}};

static cria_mesh mesh_of(int rows, int columns) {
    return (cria_mesh){.size = {rows, columns}, .alpha = {1, 1}, .beta = {1, 0.1}, .tie = 1};
}

static cria_sharding sharding(int a, int b) {
    return (cria_sharding){{(int8_t)a, (int8_t)b}};
}

static void shardings_are_written_as_alpa_writes_them(void **state) {
    (void)state;
    char text[32];
    assert_string_equal(cria_sharding_print(&matrix, sharding(0, R), text), "S0R");
    assert_string_equal(cria_sharding_print(&matrix, sharding(R, 1), text), "RS1");
    assert_string_equal(cria_sharding_print(&matrix, sharding(1, 0), text), "S1S0");
    assert_string_equal(cria_sharding_print(&matrix, sharding(0, 0), text), "S01R");
    assert_string_equal(cria_sharding_print(&matrix, sharding(P, 0), text), "S1R P0");
    assert_string_equal(cria_sharding_print(&matrix, sharding(P, P), text), "RR P01");
}

static void the_largest_shard_counts(void **state) {
    (void)state;
    cria_mesh mesh = mesh_of(3, 2);
    assert_true(cria_sharding_bytes(graph, &matrix, sharding(0, R), &mesh, 1, 4) == 4 * 7 * 4);
    assert_true(cria_sharding_bytes(graph, &matrix, sharding(0, 1), &mesh, 1, 4) == 4 * 4 * 4);
    assert_true(cria_sharding_bytes(graph, &matrix, sharding(0, 0), &mesh, 1, 4) == 2 * 7 * 4);
    assert_true(cria_sharding_bytes(graph, &matrix, sharding(P, P), &mesh, 1, 4) == 10 * 7 * 4);
    const double share[3] = {3, 1, 1};
    mesh.share[0] = share;
    assert_true(cria_sharding_bytes(graph, &matrix, sharding(0, R), &mesh, 1, 4) == 6 * 7 * 4);
}

/* What one device holds: for every element whether it has it, and the set of addends in it. Devices that differ only
 * along axes without partial sums have the same addend. */
enum { ROWS = 10, COLUMNS = 7, DEVICES = 6 };
typedef struct {
    bool has[DEVICES][ROWS][COLUMNS];
    unsigned sum[DEVICES][ROWS][COLUMNS];
} machine;

static int addend(const cria_mesh *mesh, cria_sharding s, int device) {
    int row = device / mesh->size[1], column = device % mesh->size[1];
    return (s.dim[0] == P ? row : 0) * mesh->size[1] + (s.dim[1] == P ? column : 0);
}

static void hold(machine *m, const cria_mesh *mesh, cria_sharding s, bool fresh) {
    for (int d = 0; d < mesh->size[0] * mesh->size[1]; d++) {
        const int position[2] = {d / mesh->size[1], d % mesh->size[1]};
        int64_t r0, r1, c0, c1;
        cria_sharding_part(s, 0, ROWS, 1, mesh, position, &r0, &r1);
        cria_sharding_part(s, 1, COLUMNS, 1, mesh, position, &c0, &c1);
        for (int r = 0; r < ROWS; r++)
            for (int c = 0; c < COLUMNS; c++) {
                m->has[d][r][c] = r >= r0 && r < r1 && c >= c0 && c < c1;
                if (fresh) m->sum[d][r][c] = 1u << addend(mesh, s, d);
            }
    }
}

static bool same_group(const cria_mesh *mesh, int axis, int a, int b) {
    return axis == 0 ? a % mesh->size[1] == b % mesh->size[1] : a / mesh->size[1] == b / mesh->size[1];
}

/* One step as devices would do it: with data of their group along the axis only. False where a device would need what
 * its group does not have. */
static bool act(machine *m, const cria_mesh *mesh, const cria_reshard_step *step, cria_sharding after) {
    static machine next;
    next = *m;
    hold(&next, mesh, after, false);
    int devices = mesh->size[0] * mesh->size[1];
    bool sums = step->kind == CRIA_RESHARD_ALL_REDUCE || step->kind == CRIA_RESHARD_REDUCE_SCATTER;
    for (int d = 0; d < devices; d++)
        for (int r = 0; r < ROWS; r++)
            for (int c = 0; c < COLUMNS; c++) {
                if (!next.has[d][r][c]) continue;
                unsigned sum = 0;
                bool found = false;
                for (int e = 0; e < devices; e++) {
                    if (!same_group(mesh, step->axis, d, e) || !m->has[e][r][c]) continue;
                    if (step->kind == CRIA_RESHARD_SLICE && e != d) continue;
                    if (sums)
                        sum |= m->sum[e][r][c];
                    else
                        sum = m->sum[e][r][c];
                    found = true;
                }
                if (!found) return false;
                next.sum[d][r][c] = sum;
            }
    *m = next;
    return true;
}

/* What an all-to-all brings to a device or takes from it is no more than its bytes say, uneven parts or not. */
static void check_exchange(const machine *before, const machine *after, const cria_mesh *mesh,
                           const cria_reshard_step *step) {
    double n = mesh->size[step->axis], planned = (n - 1) / n / n * step->bytes;
    for (int d = 0; d < mesh->size[0] * mesh->size[1]; d++) {
        double received = 0, sent = 0;
        for (int r = 0; r < ROWS; r++)
            for (int c = 0; c < COLUMNS; c++) {
                received += 4 * (after->has[d][r][c] && !before->has[d][r][c]);
                sent += 4 * (before->has[d][r][c] && !after->has[d][r][c]);
            }
        if (fmax(received, sent) > planned * (1 + 1e-9))
            fail_msg("device %d receives %g bytes and sends %g, planned %g", d, received, sent, planned);
    }
}

/* For all pairs of shardings on several meshes, even and uneven: the steps chain, every device gets its part from its
 * own group, and sums that are whole at the end hold the addends of all devices along the axes that had partial ones.
 */
static void every_way_from_one_sharding_to_another_moves_the_right_numbers(void **state) {
    (void)state;
    const int sizes[][2] = {{1, 4}, {4, 1}, {2, 2}, {2, 3}, {3, 2}};
    int ways = 0;
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        cria_mesh mesh = mesh_of(sizes[k][0], sizes[k][1]);
        static cria_reshard_table table;
        cria_reshard_fill(graph, &matrix, &mesh, 1, 4, &table);
        for (int f = 0; f < 16; f++)
            for (int t = 0; t < 16; t++) {
                cria_sharding from = cria_sharding_canonical(sharding(f / 4 - 2, f % 4 - 2), &mesh),
                              to = cria_sharding_canonical(sharding(t / 4 - 2, t % 4 - 2), &mesh), now = from;
                cria_reshard_step steps[CRIA_MAX_RESHARD_STEPS];
                int count = cria_reshard(graph, &matrix, from, to, &mesh, 1, 4, steps);
                bool makes_partial = (to.dim[0] == P && from.dim[0] != P) || (to.dim[1] == P && from.dim[1] != P);
                assert_int_equal(count < 0, makes_partial);
                double cost = table.cost[cria_sharding_code(from)][cria_sharding_code(to)];
                assert_true(count < 0 ? cost == HUGE_VAL : cost == cria_reshard_cost(&mesh, steps, count));
                if (count < 0) continue;
                static machine m;
                hold(&m, &mesh, from, true);
                for (int i = 0; i < count; i++) {
                    now = cria_reshard_apply(now, &steps[i]);
                    static machine then;
                    then = m;
                    assert_true(act(&m, &mesh, &steps[i], now));
                    if (steps[i].kind == CRIA_RESHARD_ALL_TO_ALL) check_exchange(&then, &m, &mesh, &steps[i]);
                }
                assert_true(cria_sharding_equal(now, to));
                for (int d = 0; d < mesh.size[0] * mesh.size[1]; d++)
                    for (int e = 0; e < mesh.size[0] * mesh.size[1]; e++) {
                        /* e differs from d only along axes whose sums were made: its addend is in. */
                        bool summed = true;
                        for (int axis = 0; axis < 2; axis++)
                            if (!same_group(&mesh, 1 - axis, d, e) && !(from.dim[axis] == P && to.dim[axis] != P))
                                summed = false;
                        bool partial = from.dim[0] == P || from.dim[1] == P;
                        for (int r = 0; partial && summed && r < ROWS; r++)
                            for (int c = 0; c < COLUMNS; c++)
                                if (m.has[d][r][c]) assert_true(m.sum[d][r][c] >> addend(&mesh, from, e) & 1);
                    }
                ways++;
            }
    }
    assert_true(ways > 500);
}

static void known_ways_cost_what_they_should(void **state) {
    (void)state;
    const cria_tensor square = {.dims = 2, .dim = {{CRIA_DIM_VOCAB, 64}, {CRIA_DIM_POSITION, 64}}};
    cria_mesh mesh = mesh_of(4, 1);
    cria_reshard_step steps[CRIA_MAX_RESHARD_STEPS];
    double bytes = 64 * 64 * 4;
    assert_int_equal(cria_reshard(graph, &square, sharding(0, R), sharding(1, R), &mesh, 1, 4, steps), 1);
    assert_int_equal(steps[0].kind, CRIA_RESHARD_ALL_TO_ALL);
    assert_true(cria_reshard_cost(&mesh, steps, 1) == cria_mesh_all_to_all(&mesh, 0, bytes));
    assert_int_equal(cria_reshard(graph, &square, sharding(P, R), sharding(R, R), &mesh, 1, 4, steps), 1);
    assert_true(cria_reshard_cost(&mesh, steps, 1) == cria_mesh_all_reduce(&mesh, 0, bytes));
    assert_int_equal(cria_reshard(graph, &square, sharding(P, R), sharding(1, R), &mesh, 1, 4, steps), 1);
    assert_int_equal(steps[0].kind, CRIA_RESHARD_REDUCE_SCATTER);
    assert_int_equal(cria_reshard(graph, &square, sharding(R, R), sharding(1, R), &mesh, 1, 4, steps), 1);
    assert_int_equal(steps[0].kind, CRIA_RESHARD_SLICE);
    /* Over a fast and a slow axis: scatter along the fast one, sum a part along the slow one, gather. */
    mesh = (cria_mesh){.size = {4, 4}, .alpha = {1, 1}, .beta = {1, 0.01}};
    assert_int_equal(cria_reshard(graph, &square, sharding(P, P), sharding(R, R), &mesh, 1, 4, steps), 3);
    assert_int_equal(steps[0].kind, CRIA_RESHARD_REDUCE_SCATTER);
    assert_int_equal(steps[1].kind, CRIA_RESHARD_ALL_REDUCE);
    assert_int_equal(steps[1].axis, 0);
    assert_int_equal(steps[2].kind, CRIA_RESHARD_ALL_GATHER);
    double cost = cria_mesh_reduce_scatter(&mesh, 1, bytes) + cria_mesh_all_reduce(&mesh, 0, bytes / 4) +
                  cria_mesh_all_gather(&mesh, 1, bytes);
    assert_true(fabs(cria_reshard_cost(&mesh, steps, 3) - cost) < 1e-9);
}

static void what_a_mesh_forbids_is_never_a_step(void **state) {
    (void)state;
    cria_mesh mesh = mesh_of(4, 1);
    cria_reshard_step steps[CRIA_MAX_RESHARD_STEPS];
    mesh.forbidden = 1u << CRIA_RESHARD_ALL_GATHER;
    assert_int_equal(cria_reshard(graph, &matrix, sharding(0, R), sharding(R, R), &mesh, 1, 4, steps), -1);
    mesh.forbidden = 1u << CRIA_RESHARD_ALL_TO_ALL;
    assert_int_equal(cria_reshard(graph, &matrix, sharding(0, R), sharding(1, R), &mesh, 1, 4, steps), 2);
    assert_int_equal(steps[0].kind, CRIA_RESHARD_ALL_GATHER);
    mesh.forbidden = 1u << CRIA_RESHARD_REDUCE_SCATTER;
    assert_int_equal(cria_reshard(graph, &matrix, sharding(P, R), sharding(1, R), &mesh, 1, 4, steps), 2);
    assert_int_equal(steps[0].kind, CRIA_RESHARD_ALL_REDUCE);
}

int main(void) {
    graph = cria_graph_create("test", 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shardings_are_written_as_alpa_writes_them),
        cmocka_unit_test(the_largest_shard_counts),
        cmocka_unit_test(every_way_from_one_sharding_to_another_moves_the_right_numbers),
        cmocka_unit_test(known_ways_cost_what_they_should),
        cmocka_unit_test(what_a_mesh_forbids_is_never_a_step),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    cria_graph_destroy(graph);
    return failed;
}
