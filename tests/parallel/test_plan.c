/* Plans say which rank runs what and holds which part, and refuse what cannot be run. */
#include "parallel/plan/plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/parallel/block.h"

static int index_of(const cria_graph *g, int op, cria_dim_name name) {
    cria_op_index indices[CRIA_MAX_INDICES];
    int count = cria_op_indices(g, cria_graph_op(g, op), indices);
    for (int i = 0; i < count; i++)
        if (indices[i].dim.name == name) return i;
    return CRIA_IDLE;
}

/* Megatron's way along axis 1: vocabulary, ffn and ffn are cut; sums are made by an all-reduce. */
static void megatron(const cria_graph *g, const cria_mesh *mesh, cria_strategy *out) {
    const cria_dim_name cut[] = {CRIA_DIM_VOCAB, CRIA_DIM_FFN,     CRIA_DIM_FFN,
                                 CRIA_DIM_FFN,   CRIA_DIM_KV_HEAD, CRIA_DIM_KV_HEAD};
    for (int i = 0; i < cria_graph_ops(g); i++) {
        int8_t index[2] = {CRIA_IDLE, (int8_t)index_of(g, i, cut[i])};
        assert_null(cria_strategy_derive(g, cria_graph_op(g, i), mesh, index, &out[i]));
        if (out[i].output.dim[1] == CRIA_PARTIAL) out[i].output.dim[1] = CRIA_REPLICATED;
    }
}

static int tensor_named(const cria_graph *g, const char *name) {
    for (int t = 0; t < cria_graph_tensors(g); t++)
        if (strcmp(cria_graph_tensor(g, t)->name, name) == 0) return t;
    fail_msg("no tensor %s", name);
    return -1;
}

static void assert_extent(const cria_plan *plan, int rank, int tensor, int dim, int64_t begin, int64_t end) {
    cria_extent e = cria_plan_extent(plan, rank, tensor, dim);
    assert_int_equal(e.begin, begin);
    assert_int_equal(e.end, end);
}

static void one_device_runs_everything_and_holds_the_whole(void **state) {
    (void)state;
    cria_graph *g = block(8, 12, 0);
    cria_plan *plan;
    assert_int_equal(cria_plan_create_single(g, &plan, NULL), CRIA_OK);
    assert_int_equal(cria_plan_ranks(plan), 1);
    for (int i = 0; i < cria_graph_ops(g); i++) assert_true(cria_plan_runs(plan, 0, i));
    assert_extent(plan, 0, tensor_named(g, "up"), 0, 0, 12);
    assert_extent(plan, 0, tensor_named(g, "x"), 0, 0, CRIA_SYMBOLIC);
    cria_plan_destroy(plan);
    cria_graph_destroy(g);
}

static void weights_are_held_as_their_reader_wants_them_even_where_they_do_not_divide(void **state) {
    (void)state;
    cria_graph *g = block(8, 14, 0);
    cria_stage stage = {.end_op = cria_graph_ops(g), .mesh = {.size = {1, 4}}};
    cria_strategy strategies[8];
    megatron(g, &stage.mesh, strategies);
    cria_plan *plan;
    cria_error err = {0};
    if (cria_plan_create(g, &stage, 1, strategies, &plan, &err) != CRIA_OK) fail_msg("%s", err.message);
    assert_int_equal(cria_plan_ranks(plan), 4);
    const int64_t at[] = {0, 3, 7, 10, 14};
    for (int rank = 0; rank < 4; rank++) {
        assert_extent(plan, rank, tensor_named(g, "up"), 0, at[rank], at[rank + 1]);
        assert_extent(plan, rank, tensor_named(g, "up"), 1, 0, 8);
        assert_extent(plan, rank, tensor_named(g, "down"), 1, at[rank], at[rank + 1]);
        assert_extent(plan, rank, tensor_named(g, "b"), 1, at[rank], at[rank + 1]);
        assert_extent(plan, rank, tensor_named(g, "table"), 0, 25 * rank, 25 * rank + 25);
        assert_extent(plan, rank, tensor_named(g, "c"), 1, 0, 8);
    }
    cria_plan_destroy(plan);
    cria_graph_destroy(g);
}

static void stages_have_ranks_and_meshes_of_their_own(void **state) {
    (void)state;
    cria_graph *g = block(8, 16, 0);
    double share[] = {3, 1};
    cria_stage stages[] = {
        {.end_op = 2, .mesh = {.size = {1, 1}}},
        {.first_op = 2, .end_op = 6, .mesh = {.size = {1, 2}, .share = {NULL, share}}, .first_rank = 1}};
    cria_strategy strategies[8];
    megatron(g, &stages[1].mesh, strategies);
    cria_mesh one = {.size = {1, 1}};
    const int8_t idle[2] = {CRIA_IDLE, CRIA_IDLE};
    for (int i = 0; i < 2; i++) assert_null(cria_strategy_derive(g, cria_graph_op(g, i), &one, idle, &strategies[i]));
    cria_plan *plan;
    cria_error err = {0};
    if (cria_plan_create(g, stages, 2, strategies, &plan, &err) != CRIA_OK) fail_msg("%s", err.message);
    share[0] = 1; /* the plan has its own */
    assert_int_equal(cria_plan_ranks(plan), 3);
    assert_int_equal(cria_plan_stage_of_rank(plan, 2), 1);
    assert_int_equal(cria_plan_stage_of_op(plan, 1), 0);
    assert_true(cria_plan_runs(plan, 0, 1) && !cria_plan_runs(plan, 1, 1) && cria_plan_runs(plan, 2, 5));
    assert_extent(plan, 1, tensor_named(g, "down"), 1, 0, 12);
    assert_extent(plan, 2, tensor_named(g, "down"), 1, 12, 16);
    assert_extent(plan, 0, tensor_named(g, "up"), 0, 0, 16);
    cria_plan_destroy(plan);
    cria_graph_destroy(g);
}

static void assert_refused(const cria_graph *g, const cria_stage *stages, int count, const cria_strategy *strategies,
                           const char *word) {
    cria_plan *plan = NULL;
    cria_error err = {0};
    assert_int_equal(cria_plan_create(g, stages, count, strategies, &plan, &err), CRIA_ERR_ARGUMENT);
    if (!strstr(err.message, word)) fail_msg("\"%s\" does not say \"%s\"", err.message, word);
}

static void what_cannot_be_run_is_refused_by_name(void **state) {
    (void)state;
    cria_graph *g = block(8, 16, 0);
    cria_stage stage = {.end_op = cria_graph_ops(g), .mesh = {.size = {1, 4}}}, bad;
    cria_strategy good[8], s[8];
    megatron(g, &stage.mesh, good);
    bad = stage, bad.end_op = 5;
    assert_refused(g, &bad, 1, good, "5 of 6 operators");
    bad = stage, bad.first_op = 1;
    assert_refused(g, &bad, 1, good, "must begin at 0");
    bad = stage, bad.first_rank = 1;
    assert_refused(g, &bad, 1, good, "rank 1");
    bad = stage, bad.mesh.size[0] = 0;
    assert_refused(g, &bad, 1, good, "axis 0 has size 0");
    bad = stage, bad.mesh.size[0] = 65536;
    assert_refused(g, &bad, 1, good, "ranks");
    memcpy(s, good, sizeof s);
    s[2].index[1] = 7;
    assert_refused(g, &stage, 1, s, "\"b\"");
    memcpy(s, good, sizeof s);
    s[2].index[1] = CRIA_PARTIAL; /* an activation of a partial sum is not a part of the activation */
    assert_refused(g, &stage, 1, s, "partial sums");
    memcpy(s, good, sizeof s);
    s[1].input[1].dim[1] = CRIA_REPLICATED;
    assert_refused(g, &stage, 1, s, "input 1");
    memcpy(s, good, sizeof s);
    s[3].raw.dim[1] = CRIA_REPLICATED;
    assert_refused(g, &stage, 1, s, "\"c\"");
    memcpy(s, good, sizeof s);
    s[5].output.dim[1] = CRIA_PARTIAL; /* nothing makes a partial sum of a whole */
    assert_refused(g, &stage, 1, s, "cannot be made");
    memcpy(s, good, sizeof s);
    s[5].output.dim[1] = 2;
    assert_refused(g, &stage, 1, s, "no dim 2");
    cria_graph_destroy(g);
    g = block(8, 3, 0);
    assert_refused(g, &stage, 1, good, "ffn of 3");
    cria_graph_destroy(g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_device_runs_everything_and_holds_the_whole),
        cmocka_unit_test(weights_are_held_as_their_reader_wants_them_even_where_they_do_not_divide),
        cmocka_unit_test(stages_have_ranks_and_meshes_of_their_own),
        cmocka_unit_test(what_cannot_be_run_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
