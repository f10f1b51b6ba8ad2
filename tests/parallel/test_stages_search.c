/* The dynamic program over stages finds what trying every plan finds. */
#include "parallel/plan/stages_search.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LAYERS = 5, MESHES = 4, DEVICES = 6, INSTANCES = 10000 };

typedef struct {
    cria_stage_search search;
    int size[MESHES];
    double cost[MESHES][LAYERS][LAYERS + 1][DEVICES];
    bool allowed[MESHES][DEVICES + 1];
} instance;

static bool allowed(void *context, int mesh, int position) {
    return ((const instance *)context)->allowed[mesh][position];
}

static double cost(void *context, int first, int end, int mesh, int after) {
    return ((const instance *)context)->cost[mesh][first][end][after];
}

static uint64_t state;
static uint32_t draw(uint32_t below) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % below;
}

/* Costs are small whole numbers, so that sums are exact and ties are common. */
static void fill(instance *x, bool holes) {
    memset(x, 0, sizeof *x);
    x->search = (cria_stage_search){.layers = 1 + (int)draw(LAYERS),
                                    .devices = 1 + (int)draw(DEVICES),
                                    .meshes = 1 + (int)draw(MESHES),
                                    .size = x->size,
                                    .most_stages = DEVICES,
                                    .allowed = allowed,
                                    .cost = cost,
                                    .context = x,
                                    .upper = HUGE_VAL,
                                    .goal = (cria_search_goal)draw(3),
                                    .micro_batches = 1 + draw(9)};
    for (int m = 0; m < MESHES; m++) {
        x->size[m] = 1 + (int)draw(3);
        for (int p = 0; p <= DEVICES; p++) x->allowed[m][p] = !holes || draw(4) > 0;
        for (int a = 0; a < LAYERS; a++)
            for (int b = a + 1; b <= LAYERS; b++) {
                double seconds = 1 + draw(30);
                for (int after = 0; after < DEVICES; after++) {
                    if (draw(4) == 0) seconds += draw(3);
                    if (holes && draw(12) == 0) seconds = HUGE_VAL;
                    x->cost[m][a][b][after] = seconds;
                }
            }
    }
}

typedef struct {
    double value, longest; /* longest: the least of those that have the value */
} answer;

/* Every sequence of stages; `left` must still follow. */
static void try_all(const instance *x, int layer, int position, int left, double sum, double longest, answer *best) {
    if (layer == x->search.layers || left == 0) {
        if (layer < x->search.layers || left > 0) return;
        double value = cria_search_finish(x->search.goal, x->search.micro_batches, sum, longest);
        if (value < best->value || (value == best->value && longest < best->longest)) *best = (answer){value, longest};
        return;
    }
    for (int m = 0; m < x->search.meshes; m++) {
        if (position + x->size[m] > x->search.devices || !x->allowed[m][position]) continue;
        for (int end = layer + 1; end <= x->search.layers; end++) {
            double seconds = x->cost[m][layer][end][left - 1];
            if (seconds < HUGE_VAL)
                try_all(x, end, position + x->size[m], left - 1, sum + seconds, fmax(longest, seconds), best);
        }
    }
}

static answer brute_force(const instance *x) {
    answer best = {HUGE_VAL, HUGE_VAL};
    for (int stages = 1; stages <= x->search.layers; stages++) try_all(x, 0, 0, stages, 0, 0, &best);
    return best;
}

/* What the chosen stages cost, found from scratch. */
static answer price(const instance *x, const cria_stage_choice *stage, int count) {
    double sum = 0, longest = 0;
    int layer = 0, position = 0;
    for (int s = 0; s < count; s++) {
        assert_int_equal(stage[s].first, layer);
        assert_true(stage[s].position >= position && x->allowed[stage[s].mesh][stage[s].position]);
        double seconds = x->cost[stage[s].mesh][layer][stage[s].end][count - 1 - s];
        layer = stage[s].end;
        position = stage[s].position + x->size[stage[s].mesh];
        sum += seconds;
        longest = fmax(longest, seconds);
    }
    assert_int_equal(layer, x->search.layers);
    assert_true(position <= x->search.devices);
    return (answer){cria_search_finish(x->search.goal, x->search.micro_batches, sum, longest), longest};
}

static void every_small_problem_is_solved_as_trying_all_plans_does(void **unused) {
    (void)unused;
    static instance x;
    state = 1;
    int feasible = 0;
    for (int i = 0; i < INSTANCES; i++) {
        fill(&x, i % 2 == 0);
        cria_stage_choice stage[LAYERS];
        int count;
        answer least = brute_force(&x);
        double best, expected = least.value;
        assert_int_equal(cria_stage_search_run(&x.search, stage, &count, &best, NULL), CRIA_OK);
        if (expected == HUGE_VAL) {
            assert_int_equal(count, 0);
            continue;
        }
        feasible++;
        if (best != expected) fail_msg("instance %d: %g, but %g is possible", i, best, expected);
        answer found = price(&x, stage, count);
        if (found.value != best) fail_msg("instance %d: the stages do not cost what was said", i);
        if (x.search.goal == CRIA_GOAL_SUM && found.longest != least.longest)
            fail_msg("instance %d: the longest stage takes %g, but %g is possible in the same time", i, found.longest,
                     least.longest);
    }
    assert_true(feasible > INSTANCES / 2);
}

static void with_slack_the_answer_is_no_further_from_the_best_than_the_slack(void **unused) {
    (void)unused;
    static instance x;
    state = 2;
    for (int i = 0; i < 2000; i++) {
        fill(&x, false);
        x.search.slack = 0.1;
        cria_stage_choice stage[LAYERS];
        int count;
        double best, expected = brute_force(&x).value;
        assert_int_equal(cria_stage_search_run(&x.search, stage, &count, &best, NULL), CRIA_OK);
        if (expected < HUGE_VAL) assert_true(count > 0 && best <= expected * 1.1 + 1e-9);
    }
}

static void nothing_is_answered_that_is_no_better_than_what_is_known(void **unused) {
    (void)unused;
    static instance x;
    state = 3;
    for (int i = 0; i < 1000; i++) {
        fill(&x, false);
        cria_stage_choice stage[LAYERS];
        int count;
        double best, expected = brute_force(&x).value;
        x.search.upper = expected;
        assert_int_equal(cria_stage_search_run(&x.search, stage, &count, &best, NULL), CRIA_OK);
        assert_int_equal(count, 0);
        x.search.upper = expected + 0.5;
        assert_int_equal(cria_stage_search_run(&x.search, stage, &count, &best, NULL), CRIA_OK);
        assert_true(expected == HUGE_VAL || (count > 0 && best == expected));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_small_problem_is_solved_as_trying_all_plans_does),
        cmocka_unit_test(with_slack_the_answer_is_no_further_from_the_best_than_the_slack),
        cmocka_unit_test(nothing_is_answered_that_is_no_better_than_what_is_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
