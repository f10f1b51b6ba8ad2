/* The indices of every operator of both families: every dim of every operand is one, with the split, unit and operands
 * that the planner and the lowering rely on. */
#include "models/family.h"
#include "parallel/graph/index.h"
#include "tests/parallel/model_configs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "tests/parallel/planning.h"

/* The first operator whose output's name contains `name`. */
static const cria_op *op_named(const cria_graph *graph, const char *name) {
    for (int i = 0; i < cria_graph_ops(graph); i++)
        if (strstr(cria_graph_tensor(graph, cria_graph_op(graph, i)->output)->name, name))
            return cria_graph_op(graph, i);
    fail_msg("no operator %s", name);
    return NULL;
}

static void check_index(const cria_graph *graph, const char *op, cria_op_index expected) {
    cria_op_index index[CRIA_MAX_INDICES];
    int count = cria_op_indices(graph, op_named(graph, op), index);
    for (int i = 0; i < count; i++) {
        if (index[i].dim.name != expected.dim.name) continue;
        assert_int_equal(index[i].dim.extent, expected.dim.extent);
        assert_int_equal(index[i].unit, expected.unit);
        assert_int_equal(index[i].split, expected.split);
        assert_int_equal(index[i].output, expected.output);
        for (int k = 0; k < 3; k++) assert_int_equal(index[i].input[k], expected.input[k]);
        assert_int_equal(index[i].input[3], -1);
        return;
    }
    fail_msg("%s has no such index", op);
}

enum { FREE = CRIA_SPLIT_FREE, SUM = CRIA_SPLIT_SUM, STATS = CRIA_SPLIT_STATS, NEVER = CRIA_SPLIT_NEVER };

static void the_indices_of_opt_say_how_each_operator_may_be_cut(void **state) {
    (void)state;
    cria_graph *g = graph_of(opt_config(768, 2, 12));
    const cria_dim token = {CRIA_DIM_TOKEN, CRIA_SYMBOLIC}, hidden = {CRIA_DIM_HIDDEN, 768}, ffn = {CRIA_DIM_FFN, 3072},
                   vocab = {CRIA_DIM_VOCAB, 50272}, head = {CRIA_DIM_HEAD, 12}, kv_head = {CRIA_DIM_KV_HEAD, 12},
                   head_dim = {CRIA_DIM_HEAD_DIM, 64}, row = {CRIA_DIM_ROW, CRIA_SYMBOLIC};
    check_index(g, "token embedding", (cria_op_index){token, 1, {0, -1, -1}, 0, FREE});
    check_index(g, "token embedding", (cria_op_index){hidden, 32, {-1, 1, -1}, 1, FREE});
    check_index(g, "token embedding", (cria_op_index){vocab, 1, {-1, 0, -1}, -1, SUM});
    check_index(g, "self_attn_layer_norm", (cria_op_index){token, 1, {0, -1, -1}, 0, FREE});
    check_index(g, "self_attn_layer_norm", (cria_op_index){hidden, 32, {1, 0, 0}, 1, STATS});
    check_index(g, "q_proj", (cria_op_index){head, 1, {-1, 0, 0}, 1, FREE});
    check_index(g, "q_proj", (cria_op_index){head_dim, 1, {-1, 1, 1}, 2, FREE});
    check_index(g, "q_proj", (cria_op_index){hidden, 32, {1, 2, -1}, -1, SUM});
    check_index(g, "layer 0 attention", (cria_op_index){kv_head, 1, {1, 1, 1}, 1, FREE});
    check_index(g, "layer 0 attention", (cria_op_index){token, 1, {0, 0, 0}, 0, NEVER});
    check_index(g, "layer 0 attention", (cria_op_index){head_dim, 1, {2, 2, 2}, 2, NEVER});
    check_index(g, "out_proj", (cria_op_index){head, 1, {1, 1, -1}, -1, SUM});
    check_index(g, "fc1", (cria_op_index){ffn, 32, {-1, 0, 0}, 1, FREE});
    check_index(g, "fc2", (cria_op_index){ffn, 32, {1, 1, -1}, -1, SUM});
    check_index(g, "fc2", (cria_op_index){hidden, 32, {-1, 0, 0}, 1, FREE});
    check_index(g, "layer 0 activation", (cria_op_index){ffn, 32, {1, -1, -1}, 1, FREE});
    check_index(g, "ffn residual", (cria_op_index){hidden, 32, {1, 1, -1}, 1, FREE});
    check_index(g, "logits rows", (cria_op_index){token, 1, {0, -1, -1}, 0, FREE});
    check_index(g, "logits rows", (cria_op_index){hidden, 32, {1, -1, -1}, 1, FREE});
    check_index(g, "sample", (cria_op_index){row, 1, {0, -1, -1}, 0, FREE});
    check_index(g, "sample", (cria_op_index){vocab, 1, {1, -1, -1}, -1, STATS});
    cria_graph_destroy(g);
}

static void query_heads_are_cut_with_their_kv_head(void **state) {
    (void)state;
    cria_graph *g = graph_of(smollm2_config(2));
    const cria_dim head = {CRIA_DIM_HEAD, 9}, kv_head = {CRIA_DIM_KV_HEAD, 3}, head_dim = {CRIA_DIM_HEAD_DIM, 64},
                   position = {CRIA_DIM_POSITION, 8192}, ffn = {CRIA_DIM_FFN, 1536};
    check_index(g, "q_proj", (cria_op_index){head, 3, {-1, 0, -1}, 1, FREE});
    check_index(g, "k_proj", (cria_op_index){kv_head, 1, {-1, 0, -1}, 1, FREE});
    check_index(g, "rotated q", (cria_op_index){head, 3, {1, -1, -1}, 1, FREE});
    check_index(g, "rotated k", (cria_op_index){head_dim, 1, {2, 1, -1}, 2, NEVER});
    check_index(g, "rotated k", (cria_op_index){position, 1, {-1, 0, -1}, -1, NEVER});
    check_index(g, "layer 0 attention", (cria_op_index){kv_head, 1, {1, 1, 1}, 1, FREE});
    check_index(g, "o_proj", (cria_op_index){head, 3, {1, 1, -1}, -1, SUM});
    check_index(g, "gated", (cria_op_index){ffn, 32, {1, 1, -1}, 1, FREE});
    cria_graph_destroy(g);
}

/* OPT-2.7B: a head is 80 columns of the output projection, no whole number of groups of 32; two heads are. */
static void heads_are_cut_between_quantised_groups(void **state) {
    (void)state;
    cria_graph *g = graph_of(opt_config(2560, 2, 32));
    check_index(g, "q_proj", (cria_op_index){{CRIA_DIM_HEAD, 32}, 2, {-1, 0, 0}, 1, FREE});
    check_index(g, "layer 0 attention", (cria_op_index){{CRIA_DIM_KV_HEAD, 32}, 2, {1, 1, 1}, 1, FREE});
    cria_graph_set_group(g, 1);
    check_index(g, "q_proj", (cria_op_index){{CRIA_DIM_HEAD, 32}, 1, {-1, 0, 0}, 1, FREE});
    check_index(g, "fc2", (cria_op_index){{CRIA_DIM_FFN, 10240}, 1, {1, 1, -1}, -1, SUM});
    cria_graph_destroy(g);
}

static void extents_that_are_no_whole_number_of_groups_are_cut_anywhere(void **state) {
    (void)state;
    cria_model_config config = opt_config(768, 2, 12);
    config.ffn = 1000;
    cria_graph *g = graph_of(config);
    check_index(g, "fc1", (cria_op_index){{CRIA_DIM_FFN, 1000}, 1, {-1, 0, 0}, 1, FREE});
    cria_graph_destroy(g);
}

static void whole_sequences_may_be_cut_apart_in_training(void **state) {
    (void)state;
    cria_graph *g = graph_of(opt_config(768, 2, 12));
    cria_graph_set_sequence(g, 128);
    const cria_dim token = {CRIA_DIM_TOKEN, CRIA_SYMBOLIC};
    check_index(g, "layer 0 attention", (cria_op_index){token, 128, {0, 0, 0}, 0, FREE});
    check_index(g, "fc1", (cria_op_index){token, 128, {0, -1, -1}, 0, FREE});
    cria_graph_destroy(g);
}

/* Every dim of every operand is exactly one index; output dims come first. */
static void every_dim_of_every_operand_is_one_index(void **state) {
    (void)state;
    cria_graph *graphs[] = {graph_of(opt_config(768, 2, 12)), graph_of(smollm2_config(2))};
    for (int g = 0; g < 2; g++) {
        for (int i = 0; i < cria_graph_ops(graphs[g]); i++) {
            const cria_op *op = cria_graph_op(graphs[g], i);
            cria_op_index index[CRIA_MAX_INDICES];
            int count = cria_op_indices(graphs[g], op, index);
            const cria_tensor *out = cria_graph_tensor(graphs[g], op->output);
            for (int d = 0; d < out->dims; d++) assert_int_equal(index[d].output, d);
            for (int k = out->dims; k < count; k++) assert_int_equal(index[k].output, -1);
            for (int j = 0; j < CRIA_MAX_INPUTS; j++) {
                int dims = op->input[j] < 0 ? 0 : cria_graph_tensor(graphs[g], op->input[j])->dims, seen = 0;
                for (int k = 0; k < count; k++) {
                    assert_true(index[k].input[j] < dims);
                    if (index[k].input[j] >= 0) seen |= 1 << index[k].input[j];
                }
                assert_int_equal(seen, (1 << dims) - 1);
            }
        }
        cria_graph_destroy(graphs[g]);
    }
}

static void split_statistics_are_a_few_numbers_per_row(void **state) {
    (void)state;
    cria_graph *opt = graph_of(opt_config(768, 2, 12)), *llama = graph_of(smollm2_config(2));
    assert_true(cria_op_stats_bytes(opt, op_named(opt, "self_attn_layer_norm"), 1, 10) == 80);
    assert_true(cria_op_stats_bytes(opt, op_named(opt, "self_attn_layer_norm"), 0, 10) == 0);
    assert_true(cria_op_stats_bytes(llama, op_named(llama, "input_layernorm"), 1, 10) == 40);
    double sample = cria_op_stats_bytes(opt, op_named(opt, "sample"), 1, 10);
    assert_true(sample >= 10 * 8 && sample < 10 * 50272);
    cria_graph_destroy(opt);
    cria_graph_destroy(llama);
}

static void only_sums_and_moves_pass_partial_sums(void **state) {
    (void)state;
    assert_true(cria_op_passes_partial(&(cria_op){.kind = CRIA_OP_ADD}));
    assert_true(cria_op_passes_partial(&(cria_op){.kind = CRIA_OP_GATHER}));
    assert_false(cria_op_passes_partial(&(cria_op){.kind = CRIA_OP_MUL}));
    assert_false(cria_op_passes_partial(&(cria_op){.kind = CRIA_OP_NORM}));
    assert_false(cria_op_passes_partial(&(cria_op){.kind = CRIA_OP_ACTIVATION}));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_indices_of_opt_say_how_each_operator_may_be_cut),
        cmocka_unit_test(query_heads_are_cut_with_their_kv_head),
        cmocka_unit_test(heads_are_cut_between_quantised_groups),
        cmocka_unit_test(extents_that_are_no_whole_number_of_groups_are_cut_anywhere),
        cmocka_unit_test(whole_sequences_may_be_cut_apart_in_training),
        cmocka_unit_test(every_dim_of_every_operand_is_one_index),
        cmocka_unit_test(split_statistics_are_a_few_numbers_per_row),
        cmocka_unit_test(only_sums_and_moves_pass_partial_sums),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
