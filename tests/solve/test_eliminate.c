/* Bucket elimination against brute force: optimum, work and what it refuses. */
#include "parallel/solve/eliminate.h"

#include "tests/solve/random_problem.h"

#include <math.h>
#include <string.h>

enum { CASES = 6000 };

/* Without memory, and after one round of reductions, none of them an elimination: most nodes are left. */
static cria_status make_model(const cria_problem *p, cria_reduction *reduction) {
    static const atomic_bool over = true;
    const cria_until at_once = {.stop = &over};
    return cria_reduce(p, &at_once, reduction);
}

/* Every shape without a limit, and wheels, whose hub is in a bucket with all that is left of the rim. */
static cria_problem *draw_problem(dice *d, int k) {
    if (k % 3) return make_problem(d, k % 5 * 3 % 15 * 2);
    cria_problem *p;
    int64_t cost[16];
    assert_int_equal(cria_problem_create(-1, &p, NULL), CRIA_OK);
    for (int v = 0; v < MOST_NODES; v++) {
        for (int i = 0; i < 4; i++) cost[i] = roll(d, 30) - 10;
        assert_int_equal(cria_problem_node(p, 2 + v % 3, cost, NULL, 0, 0, NULL), v);
    }
    for (int v = 1; v < MOST_NODES; v++)
        for (int to = 0; to < 3; to++) {
            int w = to == 0 ? 0 : 1 + (v - 1 + to) % (MOST_NODES - 1);
            for (int i = 0; i < 16; i++) cost[i] = roll(d, 9) ? roll(d, 25) - 5 : CRIA_COST_FORBIDDEN;
            if (w != v) assert_int_equal(cria_problem_edge(p, v, w, cost, NULL), CRIA_OK);
        }
    return p;
}

static void the_optimum_is_brute_forces(void **state) {
    (void)state;
    int solved = 0, impossible = 0, largest = 0;
    for (int k = 0; k < CASES; k++) {
        dice d = {.key = 33000 + (uint64_t)k};
        cria_problem *p = draw_problem(&d, k);
        cria_reduction reduction = {0};
        int64_t best, cost, peak;
        bool possible = brute_force(p, &best);
        cria_status status = make_model(p, &reduction);
        if (status == CRIA_OK) {
            int32_t x[MOST_NODES] = {0}, answer[MOST_NODES] = {0};
            double work = 0;
            assert_int_equal(reduction.model.slices, 0);
            status = cria_eliminate(&reduction.model, 1e9, NULL, x, &work);
            assert_true(work < 1e9);
            if (reduction.model.nodes > largest) largest = reduction.model.nodes;
            if (status == CRIA_OK) {
                assert_int_equal(cria_reduction_expand(&reduction, x, answer), CRIA_OK);
                assert_int_equal(cria_problem_cost(p, answer, &cost, &peak, NULL), CRIA_OK);
                if (cost != best) fail_msg("case %d: %lld, not %lld", k, (long long)cost, (long long)best);
                solved++;
            }
        }
        assert_int_equal(status, possible ? CRIA_OK : CRIA_ERR_INFEASIBLE);
        impossible += !possible && reduction.model.nodes > 1;
        cria_reduction_deinit(&reduction);
        cria_problem_destroy(p);
    }
    assert_int_equal(largest, MOST_NODES);
    assert_true(solved > CASES / 2);
    assert_true(impossible > 0);
}

/* A chain of n nodes with s strategies: each but the last costs s * s additions or a few times as many. */
static cria_problem *make_chain(int nodes, int strategies, int64_t limit) {
    cria_problem *p;
    int64_t cost[64];
    assert_int_equal(cria_problem_create(limit, &p, NULL), CRIA_OK);
    for (int i = 0; i < 64; i++) cost[i] = i * 7 % 13;
    for (int v = 0; v < nodes; v++)
        assert_int_equal(cria_problem_node(p, strategies, cost + v % 9, cost, 0, 5, NULL), v);
    for (int v = 1; v < nodes; v++) assert_int_equal(cria_problem_edge(p, v - 1, v, cost, NULL), CRIA_OK);
    return p;
}

static void work_is_told_before_it_is_done_and_grows_with_the_chain_alone(void **state) {
    (void)state;
    double work[2];
    for (int k = 0; k < 2; k++) {
        cria_problem *p = make_chain(100 << k, 8, -1);
        cria_reduction reduction = {0};
        int32_t x[200];
        memset(x, 0x55, sizeof x);
        assert_int_equal(make_model(p, &reduction), CRIA_OK);
        assert_int_equal(cria_eliminate(&reduction.model, 10, NULL, x, &work[k]), CRIA_OK);
        assert_true(work[k] > 10 && work[k] < 200 * 8 * 8 * 8);
        assert_int_equal(x[0], 0x55555555);
        cria_reduction_deinit(&reduction);
        cria_problem_destroy(p);
    }
    assert_true(work[1] > 1.9 * work[0] && work[1] < 2.1 * work[0]);
}

static void a_model_with_memory_is_refused(void **state) {
    (void)state;
    cria_problem *p = make_chain(5, 8, 40);
    cria_reduction reduction = {0};
    int32_t x[8];
    double work = 0;
    assert_int_equal(make_model(p, &reduction), CRIA_OK);
    assert_true(reduction.model.slices > 0);
    assert_int_equal(cria_eliminate(&reduction.model, 1e9, NULL, x, &work), CRIA_OK);
    assert_true(work == HUGE_VAL);
    cria_reduction_deinit(&reduction);
    cria_problem_destroy(p);
}

static void a_stop_ends_it(void **state) {
    (void)state;
    static const atomic_bool over = true;
    const cria_until at_once = {.stop = &over};
    cria_problem *p;
    cria_reduction reduction = {0};
    int64_t cost[576];
    int32_t x[8];
    double work = 0;
    for (int i = 0; i < 576; i++) cost[i] = i * 7 % 31;
    assert_int_equal(cria_problem_create(-1, &p, NULL), CRIA_OK);
    for (int v = 0; v < 5; v++) assert_int_equal(cria_problem_node(p, 24, cost + v, NULL, 0, 0, NULL), v);
    for (int v = 0; v < 5; v++)
        for (int w = v + 1; w < 5; w++) assert_int_equal(cria_problem_edge(p, v, w, cost, NULL), CRIA_OK);
    assert_int_equal(make_model(p, &reduction), CRIA_OK);
    assert_int_equal(cria_eliminate(&reduction.model, 1e9, &at_once, x, &work), CRIA_ERR_CLOSED);
    cria_reduction_deinit(&reduction);
    cria_problem_destroy(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_optimum_is_brute_forces),
        cmocka_unit_test(work_is_told_before_it_is_done_and_grows_with_the_chain_alone),
        cmocka_unit_test(a_model_with_memory_is_refused),
        cmocka_unit_test(a_stop_ends_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
