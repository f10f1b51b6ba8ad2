/* Windows against brute force over their nodes, and what a kick may not do. */
#include "parallel/solve/search.h"

#include "tests/solve/random_problem.h"

#include <math.h>
#include <string.h>

enum { CASES = 6000 };

typedef struct {
    cria_problem *problem;
    cria_reduction reduction;
    cria_net net;
    cria_search search;
    int32_t x[MOST_NODES];
    double over[64];
} fixture;

static bool allowed(fixture *f, const int32_t *x) {
    return cria_net_usage(&f->net, x, f->over) <= 0 && cria_net_cost(&f->net, x) < f->net.constant + f->net.forbidden;
}

/* A search at an assignment that is allowed; false if none was drawn. */
static bool open_case(fixture *f, dice *d, int shape) {
    static const atomic_bool over = true;
    static const double prices[64] = {0};
    const cria_until at_once = {.stop = &over};
    bool found = false;
    *f = (fixture){.problem = make_problem(d, shape)};
    if (cria_reduce(f->problem, &at_once, &f->reduction) == CRIA_OK && f->reduction.model.nodes > 0) {
        assert_int_equal(cria_net_create(&f->reduction.model, 2000, &f->net), CRIA_OK);
        assert_int_equal(cria_search_create(&f->net, 1 + d->key, &f->search), CRIA_OK);
        assert_true(f->net.slices < 64);
        for (int round = 0; round < 40 && !found; round++) {
            for (int v = 0; v < f->net.nodes; v++) f->x[v] = (int32_t)roll(d, f->net.n[v]);
            found = allowed(f, f->x);
        }
        if (found) cria_search_set(&f->search, f->x, prices);
    }
    return found;
}

static void close_case(fixture *f) {
    if (f->net.arena) {
        cria_search_deinit(&f->search);
        cria_net_deinit(&f->net);
    }
    cria_reduction_deinit(&f->reduction);
    cria_problem_destroy(f->problem);
}

/* The least cost of all assignments that differ from x in the given nodes only. */
static double least_cost(fixture *f, const int *node, int count) {
    int32_t x[MOST_NODES];
    double best = INFINITY;
    int k;
    memcpy(x, f->x, sizeof x);
    for (k = 0; k < count; k++) x[node[k]] = 0;
    do {
        if (allowed(f, x)) best = fmin(best, cria_net_cost(&f->net, x));
        for (k = 0; k < count && ++x[node[k]] == f->net.n[node[k]]; k++) x[node[k]] = 0;
    } while (k < count);
    return best;
}

static void a_window_takes_the_cheapest_strategies_that_fit_while_the_rest_stays(void **state) {
    (void)state;
    int solved = 0, better = 0, bound_by_memory = 0;
    for (int c = 0; c < CASES; c++) {
        dice d = {.key = 88000 + (uint64_t)c};
        fixture f;
        if (open_case(&f, &d, c % 30)) {
            int node[MOST_NODES], count = 0;
            double work = 0, before = f.search.cost, room[64] = {0};
            for (int v = 0; v < f.net.nodes; v++)
                if (roll(&d, 3) > 0) node[count++] = v;
            double least = least_cost(&f, node, count);
            bool changed = cria_search_window_of(&f.search, node, count, NULL, &work);
            if (f.search.cost != least) fail_msg("case %d: %f, not %f", c, f.search.cost, least);
            assert_int_equal(changed, least < before);
            assert_true(allowed(&f, f.search.x) && cria_search_fits(&f.search));
            assert_true(work > 0);
            for (int v = 0, k = 0; v < f.net.nodes; v++)
                if (k < count && node[k] == v)
                    k++;
                else
                    assert_int_equal(f.search.x[v], f.x[v]);
            solved++;
            better += changed;
            memcpy(room, f.net.room, (size_t)f.net.slices * sizeof *room);
            for (int t = 0; t < f.net.slices; t++) f.net.room[t] = 1e9;
            bound_by_memory += least_cost(&f, node, count) < least;
            memcpy(f.net.room, room, (size_t)f.net.slices * sizeof *room);
        }
        close_case(&f);
    }
    assert_true(solved > CASES / 4);
    assert_true(better > CASES / 10);
    assert_true(bound_by_memory > CASES / 50);
}

static void a_kick_fits_and_is_never_dearer(void **state) {
    (void)state;
    int kicked = 0, better = 0;
    for (int c = 0; c < CASES / 2; c++) {
        dice d = {.key = 99000 + (uint64_t)c};
        fixture f;
        if (open_case(&f, &d, c % 30)) {
            for (int k = 0; k < 4; k++) {
                double work = 0, before = f.search.cost;
                cria_search_kick(&f.search, (int)roll(&d, f.net.nodes), (double)roll(&d, 60), 10, NULL, &work);
                assert_true(f.search.cost <= before);
                assert_true(fabs(f.search.cost - cria_net_cost(&f.net, f.search.x)) < 1e-6);
                assert_true(allowed(&f, f.search.x) && cria_search_fits(&f.search));
                kicked++;
                better += f.search.cost < before;
            }
        }
        close_case(&f);
    }
    assert_true(kicked > CASES / 2);
    assert_true(better > kicked / 50);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_window_takes_the_cheapest_strategies_that_fit_while_the_rest_stays),
        cmocka_unit_test(a_kick_fits_and_is_never_dearer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
