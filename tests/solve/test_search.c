/* The search's state against the net's own evaluation, and fusion. */
#include "parallel/solve/search.h"

#include "tests/solve/random_problem.h"

#include <math.h>
#include <string.h>

enum { MOST_STRATEGIES = 4 };

/* The problem as a net, almost as it is; false where no assignment is allowed. */
static bool make_net(const cria_problem *p, cria_reduction *reduction, cria_net *net) {
    static const atomic_bool over = true;
    const cria_until at_once = {.stop = &over};
    if (cria_reduce(p, &at_once, reduction) != CRIA_OK) return false;
    assert_int_equal(cria_net_create(&reduction->model, 2000, net), CRIA_OK);
    return true;
}

static void draw_assignment(dice *d, const cria_net *net, int32_t *x) {
    for (int v = 0; v < net->nodes; v++) x[v] = (int32_t)roll(d, net->n[v]);
}

static bool allowed(const cria_net *net, const int32_t *x, double *over) {
    return cria_net_usage(net, x, over) <= 0 && cria_net_cost(net, x) < net->constant + net->forbidden;
}

static void moves_keep_cost_and_usage_as_they_are_computed_anew(void **state) {
    (void)state;
    int moves = 0;
    for (int k = 0; k < 300; k++) {
        dice d = {.key = 55000 + (uint64_t)k};
        cria_problem *p = make_problem(&d, k % 30);
        cria_reduction reduction = {0};
        cria_net net;
        cria_search s;
        int32_t x[MOST_NODES];
        double over[64] = {0}, prices[64] = {0};
        if (make_net(p, &reduction, &net)) {
            assert_int_equal(cria_search_create(&net, 1, &s), CRIA_OK);
            assert_true(net.slices < 64);
            draw_assignment(&d, &net, x);
            cria_search_set(&s, x, prices);
            for (int step = 0; step < 50 && net.nodes > 0; step++, moves++) {
                int v = (int)roll(&d, net.nodes), j = (int)roll(&d, net.n[v]);
                bool may = cria_search_may_take(&s, v, j), worse = cria_net_usage(&net, s.x, over) > 0;
                cria_search_move(&s, v, j);
                assert_true(fabs(s.cost - cria_net_cost(&net, s.x)) < 1e-6);
                assert_int_equal(cria_search_fits(&s), cria_net_usage(&net, s.x, over) <= 0);
                if (may && !worse) assert_true(cria_search_fits(&s));
            }
            cria_search_deinit(&s);
            cria_net_deinit(&net);
        }
        cria_reduction_deinit(&reduction);
        cria_problem_destroy(p);
    }
    assert_true(moves > 5000);
}

static void fusion_is_no_worse_than_either_and_fits(void **state) {
    (void)state;
    int fused = 0, better = 0;
    for (int k = 0; k < 3000; k++) {
        dice d = {.key = 66000 + (uint64_t)k};
        cria_problem *p = make_problem(&d, k % 30);
        cria_reduction reduction = {0};
        cria_net net;
        cria_search s;
        int32_t x[MOST_NODES], y[MOST_NODES];
        double over[64], prices[64] = {0};
        if (make_net(p, &reduction, &net)) {
            assert_int_equal(cria_search_create(&net, 1, &s), CRIA_OK);
            for (int t = 0; t < net.slices; t++) prices[t] = (double)roll(&d, 3);
            bool found = false;
            for (int round = 0; round < 40 && !found; round++) {
                draw_assignment(&d, &net, x);
                draw_assignment(&d, &net, y);
                found = allowed(&net, x, over) && allowed(&net, y, over);
            }
            if (found) {
                double least = fmin(cria_net_cost(&net, x), cria_net_cost(&net, y));
                cria_search_set(&s, y, prices);
                cria_search_keep(&s);
                cria_search_fuse(&s, x);
                if (s.best_cost > least) fail_msg("case %d: %f, though one costs %f", k, s.best_cost, least);
                assert_true(allowed(&net, s.best, over));
                assert_true(fabs(s.best_cost - cria_net_cost(&net, s.best)) < 1e-6);
                fused++;
                better += s.best_cost < least;
            }
            cria_search_deinit(&s);
            cria_net_deinit(&net);
        }
        cria_reduction_deinit(&reduction);
        cria_problem_destroy(p);
    }
    assert_true(fused > 1000);
    assert_true(better > 200);
}

/* Two pairs of nodes that only memory ties together: the best pair of each side, unless both do not fit. */
static void fusion_takes_the_best_part_of_each_side_within_the_limit(void **state) {
    (void)state;
    for (int limit = 40; limit >= 30; limit -= 10) {
        cria_problem *p;
        cria_reduction reduction = {0};
        cria_net net;
        cria_search s;
        double prices[8] = {0};
        assert_int_equal(cria_problem_create(limit, &p, NULL), CRIA_OK);
        for (int v = 0; v < 4; v++)
            cria_problem_node(p, 2, (int64_t[]){2, v < 2 ? 4 : 5}, (int64_t[]){10, 5}, 0, 9, NULL);
        cria_problem_edge(p, 0, 1, (int64_t[]){0, 50, 50, 0}, NULL);
        cria_problem_edge(p, 2, 3, (int64_t[]){0, 50, 50, 0}, NULL);
        assert_true(make_net(p, &reduction, &net));
        assert_int_equal(net.nodes, 4);
        assert_int_equal(cria_search_create(&net, 1, &s), CRIA_OK);
        cria_search_set(&s, (int32_t[]){0, 0, 1, 1}, prices);
        cria_search_fuse(&s, (int32_t[]){1, 1, 0, 0});
        assert_int_equal((int)s.best_cost, limit == 40 ? 8 : 12);
        cria_search_deinit(&s);
        cria_net_deinit(&net);
        cria_reduction_deinit(&reduction);
        cria_problem_destroy(p);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(moves_keep_cost_and_usage_as_they_are_computed_anew),
        cmocka_unit_test(fusion_is_no_worse_than_either_and_fits),
        cmocka_unit_test(fusion_takes_the_best_part_of_each_side_within_the_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
