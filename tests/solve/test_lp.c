/* Bounds: the dual's at any prices, and GLPK's relaxation and integer program, against brute force and each other. */
#include "parallel/solve/lp.h"
#include "parallel/solve/solve.h"

#include "tests/solve/random_problem.h"

#include <math.h>
#include <string.h>

/* The problem as a net, almost as it is: one round of reductions, none of them an elimination. */
static cria_status make_net(const cria_problem *p, cria_reduction *reduction, cria_net *net) {
    static const atomic_bool over = true;
    const cria_until at_once = {.stop = &over};
    cria_status status = cria_reduce(p, &at_once, reduction);
    return status == CRIA_OK ? cria_net_create(&reduction->model, 2000, net) : status;
}

static void the_dual_never_bounds_above_the_optimum_whatever_the_prices(void **state) {
    (void)state;
    int bounded = 0;
    for (int k = 0; k < 3000; k++) {
        dice d = {.key = 77000 + (uint64_t)k};
        cria_problem *p = make_problem(&d, k % 30);
        cria_reduction reduction = {0};
        cria_net net;
        cria_dual dual;
        int64_t best;
        if (brute_force(p, &best) && make_net(p, &reduction, &net) == CRIA_OK) {
            assert_int_equal(cria_dual_create(&net, &dual), CRIA_OK);
            for (int pass = 0; pass < 12; pass++) {
                for (int t = 0; t < net.slices && pass % 3 == 2; t++) dual.price[t] = (double)roll(&d, 9) / 4;
                cria_dual_price(&dual);
                cria_dual_pass(&dual);
                if (dual.best > (double)best) fail_msg("case %d: %f above %lld", k, dual.best, (long long)best);
            }
            bounded += dual.best > (double)best - 1;
            cria_dual_deinit(&dual);
            cria_net_deinit(&net);
        }
        cria_reduction_deinit(&reduction);
        cria_problem_destroy(p);
    }
    assert_true(bounded > 500); /* most are not so hard */
}

static void multipliers_of_the_relaxation_prove_its_value(void **state) {
    (void)state;
    int relaxed = 0, tight = 0;
    for (int k = 0; k < 600; k++) {
        dice d = {.key = 88000 + (uint64_t)k};
        cria_problem *p = make_problem(&d, k % 30);
        cria_reduction reduction = {0};
        cria_net net;
        cria_dual dual;
        int64_t best;
        double optimum = 0;
        if (brute_force(p, &best) && make_net(p, &reduction, &net) == CRIA_OK) {
            assert_int_equal(cria_dual_create(&net, &dual), CRIA_OK);
            assert_true(net.nodes == 0 || cria_lp_suits(&net));
            if (net.nodes > 0) {
                assert_int_equal(cria_lp_relax(&dual, 100000, NULL, &optimum), CRIA_OK);
                assert_false(isnan(optimum));
                cria_dual_pass(&dual);
                assert_true(optimum <= (double)best + 1e-6 * net.magnitude);
                if (fabs(dual.best - optimum) > 1e-6 * net.magnitude)
                    fail_msg("case %d: proven %f, relaxed %f, best %lld", k, dual.best, optimum, (long long)best);
                relaxed++;
                tight += optimum > (double)best - 1e-3;
            }
            cria_dual_deinit(&dual);
            cria_net_deinit(&net);
        }
        cria_reduction_deinit(&reduction);
        cria_problem_destroy(p);
    }
    assert_true(relaxed > 200);
    assert_true(tight > 50 && tight < relaxed);
}

/* Larger than brute force allows: nodes on a cycle with chords, half of them alive at once. */
static cria_problem *make_larger(dice *d, int nodes, int64_t limit) {
    cria_problem *p;
    int64_t cost[16], usage[4];
    assert_int_equal(cria_problem_create(limit, &p, NULL), CRIA_OK);
    for (int v = 0; v < nodes; v++) {
        for (int i = 0; i < 4; i++) {
            cost[i] = roll(d, 30);
            usage[i] = roll(d, 16);
        }
        assert_int_equal(cria_problem_node(p, 4, cost, usage, v, v + nodes / 2, NULL), v);
    }
    for (int e = 0; e < 2 * nodes; e++) {
        int a = e % nodes, b = e < nodes ? (e + 1) % nodes : (int)roll(d, nodes);
        for (int i = 0; i < 16; i++) cost[i] = roll(d, 20) ? roll(d, 25) : CRIA_COST_FORBIDDEN;
        if (a != b) assert_int_equal(cria_problem_edge(p, a, b, cost, NULL), CRIA_OK);
    }
    return p;
}

static void the_integer_program_has_the_solvers_optimum(void **state) {
    (void)state;
    int solved = 0, infeasible = 0;
    for (int k = 0; k < 40; k++) {
        dice d = {.key = 99000 + (uint64_t)k};
        cria_problem *p = k % 4 == 3 ? make_problem(&d, k % 30) : make_larger(&d, 14, 224 / (3 + k % 7));
        cria_reduction reduction = {0};
        cria_net net;
        const cria_solve_options options = {.threads = 1, .seconds = 60};
        cria_solution s = {0};
        cria_status judged = cria_solve(p, &options, &s, NULL), status = make_net(p, &reduction, &net);
        if (status == CRIA_OK) {
            int32_t x[32] = {0};
            double best = net.constant + net.forbidden;
            bool found = false, complete = true;
            if (net.nodes > 0)
                assert_int_equal(cria_lp_search(&net, &best, x, 10000000, NULL, &found, &complete), CRIA_OK);
            else
                best = net.constant;
            assert_true(complete);
            assert_int_equal(judged == CRIA_OK, found || net.nodes == 0);
            if (judged == CRIA_OK) assert_true(fabs(best - (double)s.cost) < 0.5);
            solved += judged == CRIA_OK;
            infeasible += judged != CRIA_OK;
            cria_net_deinit(&net);
        } else {
            assert_int_equal(judged, status);
        }
        cria_solution_deinit(&s);
        cria_reduction_deinit(&reduction);
        cria_problem_destroy(p);
    }
    assert_true(solved > 20);
    assert_true(infeasible > 0);
}

/* Too large for branch and bound alone, reduced several times on the way; nothing but the proof ends it. */
static void without_a_limit_a_proof_ends_it_whatever_the_seed(void **state) {
    (void)state;
    for (int k = 0; k < 4; k++) {
        dice d = {.key = 4000 + (uint64_t)k};
        cria_problem *p = make_larger(&d, 40, 16 * 40 / (4 + k % 3));
        int64_t cost = 0;
        for (int threads = 1; threads <= 2; threads++) {
            const cria_solve_options options = {.threads = threads, .seed = (uint64_t)threads};
            cria_solution s;
            assert_int_equal(cria_solve(p, &options, &s, NULL), CRIA_OK);
            assert_true(s.optimal && s.bound == s.cost);
            if (threads > 1) assert_int_equal(s.cost, cost);
            cost = s.cost;
            cria_solution_deinit(&s);
        }
        cria_problem_destroy(p);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_dual_never_bounds_above_the_optimum_whatever_the_prices),
        cmocka_unit_test(multipliers_of_the_relaxation_prove_its_value),
        cmocka_unit_test(the_integer_program_has_the_solvers_optimum),
        cmocka_unit_test(without_a_limit_a_proof_ends_it_whatever_the_seed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
