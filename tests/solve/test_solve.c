/* The solver against brute force on small random problems, the judge by hand, and readers' errors. */
#include "parallel/solve/instance.h"
#include "parallel/solve/solve.h"

#include "tests/solve/random_problem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { CASES = 10000 };

static void ten_thousand_random_problems_are_solved_as_by_brute_force(void **state) {
    (void)state;
    int infeasible = 0;
    for (int k = 0; k < CASES; k++) {
        dice d = {.key = (uint64_t)k};
        cria_problem *p = make_problem(&d, k % 30);
        cria_solve_options options = {.threads = 1, .seconds = 20};
        cria_solution s;
        cria_error err = {0};
        int64_t best = 0, cost, peak;
        bool found = brute_force(p, &best);
        cria_status status = cria_solve(p, &options, &s, &err);
        if (status != (found ? CRIA_OK : CRIA_ERR_INFEASIBLE) || (found && s.cost != best))
            fail_msg("case %d: %d, cost %lld, not %lld: %s", k, status, (long long)s.cost, (long long)best,
                     err.message);
        if (found) {
            assert_int_equal(cria_problem_cost(p, s.strategy, &cost, &peak, NULL), CRIA_OK);
            assert_int_equal(cost, s.cost);
            assert_true(s.optimal && s.bound == best);
        } else {
            assert_non_null(strstr(err.message, "infeasible: "));
            infeasible++;
        }
        cria_solution_deinit(&s);
        cria_problem_destroy(p);
    }
    assert_in_range(infeasible, CASES / 50, CASES / 2);
}

static const char example[] =
    "{\"problem\": {\"name\": \"example\", \"nodes\": {\"intervals\": [[30,70],[40,70],[50,120],[110,140],[110,150]],"
    "\"costs\": [[15],[55,65],[25,45,35],[85,75],[95]], \"usages\": [[10],[25,25],[15,20,15],[10,10],[15]]},"
    "\"edges\": {\"nodes\": [[0,1],[0,2],[1,3],[2,4],[3,4]],"
    "\"costs\": [[30,40],[50,10,40],[90,10,20,80],[60,20,30],[70,60]]}, \"usage_limit\": 50}}";

static void the_judge_adds_costs_and_finds_the_peak(void **state) {
    (void)state;
    cria_problem *p;
    int64_t cost, peak;
    cria_error err = {0};
    assert_int_equal(cria_instance_read((const uint8_t *)example, strlen(example), NULL, &p, NULL), CRIA_OK);
    assert_int_equal(cria_problem_cost(p, (int32_t[]){0, 0, 2, 1, 0}, &cost, &peak, NULL), CRIA_OK);
    assert_int_equal(cost, 15 + 55 + 35 + 75 + 95 + 30 + 40 + 10 + 30 + 60);
    assert_int_equal(peak, 50);
    assert_int_equal(cria_problem_cost(p, (int32_t[]){0, 0, 1, 1, 0}, &cost, &peak, &err), CRIA_ERR_INFEASIBLE);
    assert_non_null(strstr(err.message, "55 at time 50, over the limit of 50"));
    cria_problem_destroy(p);
}

static void refuse(const char *text, const char *message) {
    cria_problem *p = NULL;
    cria_error err = {0};
    assert_int_not_equal(cria_instance_read((const uint8_t *)text, strlen(text), NULL, &p, &err), CRIA_OK);
    if (!strstr(err.message, message)) fail_msg("\"%s\" does not say \"%s\"", err.message, message);
}

static void bad_instances_name_the_node_or_edge(void **state) {
    (void)state;
#define NODES(i, c, u) "{\"problem\":{\"nodes\":{\"intervals\":" i ",\"costs\":" c ",\"usages\":" u "},"
    refuse("", "ends at byte 0");
    refuse(NODES("[[5,3]]", "[[1]]", "[[1]]") "\"usage_limit\":9}}", "node 0: its interval ends at 3");
    refuse(NODES("[[0,1],[0,1]]", "[[1],[1,2]]", "[[1],[1]]") "\"usage_limit\":9}}",
           "node 1: has 2 costs, but 1 usages");
    refuse(NODES("[[0,1]]", "[[1]]", "[[-4]]") "\"usage_limit\":9}}", "node 0: usage 0 is -4");
    refuse(NODES("[[0,1]]", "[[99999999999999999999]]", "[[1]]") "\"usage_limit\":9}}", "node 0: costs: a number");
    refuse(NODES("[[0,1]]", "[[900000000000000000]]", "[[1]]") "\"usage_limit\":9}}", "node 0: with its cost");
    refuse(NODES("[[0,1]]", "[[1]]", "[[1]]") "\"edges\":{\"nodes\":[[0,7]],\"costs\":[[1]]},\"usage_limit\":9}}",
           "edge 0: names node 7");
    refuse(NODES("[[0,1]]", "[[1]]", "[[1]]") "\"edges\":{\"nodes\":[[0,0]],\"costs\":[[1]]},\"usage_limit\":9}}",
           "edge 0: joins node 0 with itself");
#undef NODES
}

static void infeasible(const char *nodes, const char *rest, const char *message) {
    char text[512];
    cria_problem *p;
    cria_error err = {0};
    cria_solution s;
    const cria_solve_options options = {.threads = 1};
    snprintf(text, sizeof text, "{\"problem\":{\"nodes\":{%s},%s}}", nodes, rest);
    assert_int_equal(cria_instance_read((const uint8_t *)text, strlen(text), NULL, &p, NULL), CRIA_OK);
    assert_int_equal(cria_solve(p, &options, &s, &err), CRIA_ERR_INFEASIBLE);
    if (!strstr(err.message, message)) fail_msg("\"%s\" does not say \"%s\"", err.message, message);
    cria_problem_destroy(p);
}

static void infeasible_problems_name_the_node_or_the_time(void **state) {
    (void)state;
    infeasible("\"intervals\":[[0,9],[4,9]],\"costs\":[[1,1],[1]],\"usages\":[[7,6],[5]]", "\"usage_limit\":9",
               "at time 4 the least usages add up to 11, over the limit of 9; node 0 has the largest");
    infeasible("\"intervals\":[[0,0],[0,0],[0,9]],\"costs\":[[1,1],[1,2],[3]],\"usages\":[[0,0],[0,0],[5]]",
               "\"edges\":{\"nodes\":[[1,0]],\"costs\":[[1000000000000000000,1000000000000000000,"
               "1000000000000000000,1000000000000000000]]},\"usage_limit\":9",
               "node 1: none of its strategies");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_judge_adds_costs_and_finds_the_peak),
        cmocka_unit_test(bad_instances_name_the_node_or_edge),
        cmocka_unit_test(infeasible_problems_name_the_node_or_the_time),
        cmocka_unit_test(ten_thousand_random_problems_are_solved_as_by_brute_force),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
