/* Strategies: every legal one is offered once, none that is not, and the options leave out what they say. */
#include "parallel/plan/strategy.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/parallel/block.h"

static const cria_strategy_options free_choice = {
    .force_batch_axis = -1, .allow_replicated = true, .symbolic = 64, .element = 4};

static int offered(const cria_graph *g, int op, const cria_mesh *mesh, const cria_strategy_options *options,
                   cria_strategy *list) {
    int count = cria_strategies(g, cria_graph_op(g, op), mesh, options, list);
    for (int i = 0; i < count; i++) {
        cria_error err = {0};
        if (cria_strategy_check(g, cria_graph_op(g, op), mesh, &list[i], &err) != CRIA_OK) fail_msg("%s", err.message);
        for (int k = 0; k < i; k++) assert_memory_not_equal(list[i].index, list[k].index, sizeof list[i].index);
    }
    return count;
}

/* token x ffn x (hidden summed), each axis one of the three or idle. */
static void every_index_of_a_product_may_be_cut_by_every_axis(void **state) {
    (void)state;
    cria_graph *g = block(8, 16, 1);
    cria_strategy list[CRIA_MAX_STRATEGIES];
    cria_mesh line = {.size = {1, 4}}, grid = {.size = {2, 2}};
    cria_strategy_options busy = free_choice;
    busy.allow_replicated = false;
    assert_int_equal(offered(g, UP, &line, &free_choice, list), 4);
    assert_int_equal(offered(g, UP, &line, &busy, list), 3);
    assert_int_equal(offered(g, UP, &grid, &free_choice, list), 16);
    assert_int_equal(offered(g, UP, &grid, &busy, list), 9);
    /* The last cuts the sum by both axes: inputs in parts, the whole output as partial sums. */
    char text[32];
    assert_string_equal(cria_sharding_print(cria_graph_tensor(g, 1), list[8].input[1], text), "RS01");
    assert_string_equal(cria_sharding_print(cria_graph_tensor(g, 1), list[8].raw, text), "RR P01");
    /* Element-wise operators do no work worth cutting: they may always be idle; none sums. */
    assert_int_equal(offered(g, ACT, &line, &busy, list), 3);
    assert_int_equal(offered(g, EMBED, &line, &busy, list), 4); /* token, hidden, vocabulary, idle */
    cria_graph_destroy(g);
}

static void partial_sums_go_through_an_addition_but_not_an_activation(void **state) {
    (void)state;
    cria_graph *g = block(8, 16, 1);
    cria_strategy list[CRIA_MAX_STRATEGIES];
    cria_mesh line = {.size = {4, 1}};
    cria_strategy_options alpa = free_choice;
    alpa.sum_where_made = true;
    assert_int_equal(offered(g, ADD, &line, &alpa, list), 3);
    assert_int_equal(offered(g, ADD, &line, &free_choice, list), 4);
    int partial = 0;
    for (int i = 0; i < 4; i++) {
        if (list[i].index[0] != CRIA_PARTIAL) continue;
        partial++;
        for (int k = 0; k < 2; k++) assert_int_equal(list[i].input[k].dim[0], CRIA_PARTIAL);
        assert_int_equal(list[i].raw.dim[0], CRIA_PARTIAL);
    }
    assert_int_equal(partial, 1);
    assert_int_equal(offered(g, ACT, &line, &free_choice, list), 3);
    cria_graph_destroy(g);
}

static void dims_that_do_not_divide_are_cut_but_no_device_is_left_without(void **state) {
    (void)state;
    cria_graph *g = block(8, 7, 1);
    cria_strategy list[CRIA_MAX_STRATEGIES];
    cria_mesh four = {.size = {4, 1}}, eight = {.size = {8, 1}}, grid = {.size = {3, 4}};
    cria_strategy_options busy = free_choice;
    busy.allow_replicated = false;
    assert_int_equal(offered(g, UP, &four, &busy, list), 3);
    assert_true(fabs(cria_strategy_share(g, cria_graph_op(g, UP), &four, 64, &list[1]) - 2.0 / 7) < 1e-12);
    assert_int_equal(offered(g, UP, &eight, &busy, list), 2); /* not ffn */
    /* Neither 7 nor 8 can be cut into twelve. */
    assert_int_equal(offered(g, UP, &grid, &busy, list), 7);
    const double share[4] = {1, 1, 1, 0.01};
    four.share[0] = share; /* so little that the last gets nothing of 7 or 8, but of 64 tokens 0.2: nothing either */
    busy.allow_replicated = true;
    assert_int_equal(offered(g, UP, &four, &busy, list), 1);
    cria_graph_destroy(g);
}

static void batches_made_at_run_time_are_not_cut_and_sequences_stay_whole(void **state) {
    (void)state;
    cria_graph *g = block(8, 16, 0);
    cria_strategy list[CRIA_MAX_STRATEGIES];
    cria_mesh line = {.size = {4, 1}};
    assert_int_equal(offered(g, UP, &line, &free_choice, list), 3);
    cria_graph_destroy(g);
    g = block(8, 16, 32); /* 64 tokens are two sequences */
    assert_int_equal(offered(g, UP, &line, &free_choice, list), 3);
    line.size[0] = 2;
    assert_int_equal(offered(g, UP, &line, &free_choice, list), 4);
    cria_graph_destroy(g);
}

static void options_leave_out_what_they_say(void **state) {
    (void)state;
    cria_graph *g = block(8, 16, 1);
    cria_strategy list[CRIA_MAX_STRATEGIES];
    cria_mesh grid = {.size = {2, 2}};
    cria_strategy_options o = free_choice;
    o.force_batch_axis = 0;
    int count = offered(g, UP, &grid, &o, list);
    assert_int_equal(count, 4);
    for (int i = 0; i < count; i++) assert_int_equal(list[i].raw.dim[0], 0);
    o = free_choice;
    o.data_parallel_only = true;
    assert_int_equal(offered(g, UP, &grid, &o, list), 1);
    assert_int_equal(list[0].raw.dim[0] + list[0].raw.dim[1], 0);
    /* What has too few of everything for the mesh leaves an axis idle, even where that is not wished. */
    cria_mesh wide = {.size = {1, 128}};
    o = free_choice;
    o.allow_replicated = false;
    assert_int_equal(offered(g, UP, &wide, &o, list), 1);
    assert_int_equal(list[0].index[1], CRIA_IDLE);
    cria_graph_destroy(g);
}

/* A norm over a cut dim exchanges its moments: two f32 for each of the 64 tokens. */
static void statistics_and_output_collectives_are_paid(void **state) {
    (void)state;
    cria_graph *g = block(8, 16, 1);
    cria_mesh line = {.size = {4, 1}, .alpha = {1, 1}, .beta = {1, 1}, .tie = 1};
    cria_strategy s;
    const int8_t hidden[2] = {1, CRIA_IDLE};
    assert_null(cria_strategy_derive(g, cria_graph_op(g, NORM), &line, hidden, &s));
    assert_true(cria_strategy_collectives(g, cria_graph_op(g, NORM), &line, &free_choice, &s) ==
                cria_mesh_all_reduce(&line, 0, 64 * 8));
    const int8_t summed[2] = {2, CRIA_IDLE};
    assert_null(cria_strategy_derive(g, cria_graph_op(g, DOWN), &line, summed, &s));
    assert_true(cria_strategy_collectives(g, cria_graph_op(g, DOWN), &line, &free_choice, &s) == 0);
    s.output.dim[0] = CRIA_REPLICATED;
    assert_true(cria_strategy_collectives(g, cria_graph_op(g, DOWN), &line, &free_choice, &s) ==
                cria_mesh_all_reduce(&line, 0, 64 * 8 * 4));
    cria_graph_destroy(g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_index_of_a_product_may_be_cut_by_every_axis),
        cmocka_unit_test(partial_sums_go_through_an_addition_but_not_an_activation),
        cmocka_unit_test(dims_that_do_not_divide_are_cut_but_no_device_is_left_without),
        cmocka_unit_test(batches_made_at_run_time_are_not_cut_and_sequences_stay_whole),
        cmocka_unit_test(options_leave_out_what_they_say),
        cmocka_unit_test(statistics_and_output_collectives_are_paid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
