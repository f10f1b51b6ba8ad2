/* Graphs have the published sizes and legal shapes; programs fuse what they should and never overlap live buffers. */
#include "models/family.h"
#include "parallel/lower/buffers.h"
#include "parallel/lower/lower.h"
#include "tests/parallel/model_configs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/parallel/planning.h"

/* What transformers counts for facebook/opt-125m, opt-1.3b and SmolLM2-135M. */
static void graphs_have_the_published_parameter_counts(void **state) {
    (void)state;
    const struct {
        cria_model_config config;
        int64_t parameters;
    } rows[] = {
        {opt_config(768, 12, 12), 125239296}, {opt_config(2048, 24, 32), 1315758080}, {smollm2_config(30), 134515008}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cria_graph *graph = graph_of(rows[i].config);
        assert_int_equal(cria_graph_param_count(graph), rows[i].parameters);
        cria_graph_destroy(graph);
    }
}

static void a_graph_of_175_billion_parameters_is_built_in_little_memory(void **state) {
    (void)state;
    cria_model_config config = opt_config(12288, 96, 96);
    cria_graph *graph = graph_of(config);
    assert_true(cria_graph_param_count(graph) > 174000000000);
    assert_true(cria_graph_tensors(graph) < 5000);
    cria_graph_destroy(graph);
}

static void shapes_that_do_not_fit_are_an_error_that_names_the_value(void **state) {
    (void)state;
    cria_graph *graph = cria_graph_create("test", 1);
    cria_dim token = {CRIA_DIM_TOKEN, CRIA_SYMBOLIC}, hidden = {CRIA_DIM_HIDDEN, 8}, ffn = {CRIA_DIM_FFN, 16};
    int ids = cria_graph_input(graph, "token_ids", token);
    int table = cria_graph_param(graph, CRIA_PARAM_PLAIN, 2, (cria_dim[]){ffn, hidden}, "table");
    int x = cria_graph_add(graph, (cria_op){.kind = CRIA_OP_EMBED, .input = {ids, table}}, "x");
    int w = cria_graph_param(graph, CRIA_PARAM_PLAIN, 2, (cria_dim[]){hidden, ffn}, "w");
    cria_op op = {.kind = CRIA_OP_LINEAR, .input = {x, w, CRIA_NO_TENSOR}};
    assert_int_equal(cria_graph_add(graph, op, "bad projection"), CRIA_NO_TENSOR);
    cria_error err = {0};
    assert_int_not_equal(cria_graph_check(graph, &err), CRIA_OK);
    assert_non_null(strstr(err.message, "bad projection"));
    cria_graph_destroy(graph);
}

static cria_program *lower(const cria_graph *graph) {
    cria_plan *plan;
    cria_program *program;
    cria_error err = {0};
    cria_panel_type *panel = calloc((size_t)cria_graph_tensors(graph), sizeof *panel);
    assert_int_equal(cria_plan_create_single(graph, &plan, &err), CRIA_OK);
    cria_lower_options options = {.max_tokens = 16, .max_rows = 16, .max_positions = 64, .panel = panel};
    if (cria_lower(graph, plan, 0, &options, &program, &err) != CRIA_OK) fail_msg("%s", err.message);
    cria_plan_destroy(plan);
    free(panel);
    return program;
}

static int count_kernel(const cria_program *program, cria_kernel_id kernel) {
    int count = 0;
    for (int i = 0; i < program->instruction_count; i++) count += program->instructions[i].kernel == kernel;
    return count;
}

static void projections_biases_activations_and_residuals_are_fused(void **state) {
    (void)state;
    cria_model_config configs[] = {opt_config(768, 12, 12), smollm2_config(30)};
    for (int i = 0; i < 2; i++) {
        cria_graph *graph = graph_of(configs[i]);
        cria_program *program = lower(graph);
        int64_t layers = configs[i].layers;
        assert_int_equal(count_kernel(program, CRIA_KERNEL_linear),
                         4 * layers + 1); /* qkv, out, two of the ffn; head */
        assert_int_equal(count_kernel(program, CRIA_KERNEL_attention), layers);
        assert_int_equal(count_kernel(program, CRIA_KERNEL_glu), i ? layers : 0);
        assert_int_equal(program->kv_count, layers);
        /* Every parameter is packed once; the tied head reads the embedding's panels. */
        int64_t elements = 0;
        for (int w = 0; w < program->weight_count; w++)
            if (program->weights[w].kind != CRIA_WEIGHT_ROPE)
                elements += program->weights[w].rows * program->weights[w].cols;
        assert_int_equal(elements, cria_graph_param_count(graph));
        cria_program_destroy(program);
        cria_graph_destroy(graph);
    }
}

/* The head: two (OPT) or two fused (Llama: gate and up, down) layers of feed-forward, and the logits. */
static void the_last_feed_forward_layer_runs_over_the_rows_that_need_logits(void **state) {
    (void)state;
    cria_model_config configs[] = {opt_config(768, 12, 12), smollm2_config(30)};
    for (int i = 0; i < 2; i++) {
        cria_graph *graph = graph_of(configs[i]);
        cria_program *program = lower(graph);
        int linears = 0, gathers = 0, last = 0;
        for (int k = 0; k < program->instruction_count; k++) {
            const cria_instruction *ins = &program->instructions[k];
            gathers += ins->kernel == CRIA_KERNEL_gather;
            linears += ins->kernel == CRIA_KERNEL_linear && ins->phase == CRIA_PHASE_HEAD;
            if (ins->kernel == CRIA_KERNEL_attention) last = k;
            assert_true(ins->kernel != CRIA_KERNEL_attention || ins->phase == CRIA_PHASE_BODY);
        }
        assert_int_equal(gathers, 1);
        assert_int_equal(linears, 3);
        int body = 0; /* after the last attention: its output's projection, with what that needs */
        for (int k = last; k < program->instruction_count; k++)
            body += program->instructions[k].kernel == CRIA_KERNEL_linear &&
                    program->instructions[k].phase == CRIA_PHASE_BODY;
        assert_int_equal(body, 1);
        cria_program_destroy(program);
        cria_graph_destroy(graph);
    }
}

static void live_buffers_never_overlap_and_dead_ones_are_reused(void **state) {
    (void)state;
    enum { VALUES = 400 };
    cria_buffers buffers = {0};
    int64_t offset[VALUES], bytes[VALUES], total = 0;
    int last[VALUES];
    unsigned random = 1;
    for (int i = 0; i < VALUES; i++) {
        random = random * 1664525u + 1013904223u;
        bytes[i] = 1 + (random >> 16) % 5000;
        last[i] = i + (int)((random >> 8) % 9);
        offset[i] = cria_buffers_place(&buffers, bytes[i], i, last[i]);
        assert_int_equal(offset[i] % 64, 0);
        total += bytes[i];
        for (int k = 0; k < i; k++)
            if (last[k] >= i) assert_true(offset[k] + bytes[k] <= offset[i] || offset[i] + bytes[i] <= offset[k]);
    }
    assert_true(buffers.high_water < total / 10);
    cria_buffers_deinit(&buffers);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(graphs_have_the_published_parameter_counts),
        cmocka_unit_test(a_graph_of_175_billion_parameters_is_built_in_little_memory),
        cmocka_unit_test(shapes_that_do_not_fit_are_an_error_that_names_the_value),
        cmocka_unit_test(projections_biases_activations_and_residuals_are_fused),
        cmocka_unit_test(the_last_feed_forward_layer_runs_over_the_rows_that_need_logits),
        cmocka_unit_test(live_buffers_never_overlap_and_dead_ones_are_reused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
