/* Training steps of whole models of both families: gradients of everything against central differences, updates of
 * every parameter, and the life of every tensor. */
#include "parallel/graph/language.h"

#include "models/family.h"
#include "parallel/graph/gradient.h"
#include "parallel/graph/liveness.h"
#include "tests/parallel/interpret.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static cria_model_config tiny_opt(void) {
    return (cria_model_config){.family = CRIA_FAMILY_OPT,
                               .architecture = "OPTForCausalLM",
                               .vocab = 11,
                               .hidden = 8,
                               .embed_dim = 8,
                               .layers = 2,
                               .heads = 2,
                               .kv_heads = 2,
                               .head_dim = 4,
                               .ffn = 12,
                               .max_positions = 6,
                               .position_offset = 2,
                               .activation = CRIA_ACT_RELU,
                               .bias = true,
                               .norm_before = true,
                               .norm_affine = true,
                               .final_norm = true,
                               .tied_embeddings = true,
                               .norm_eps = 1e-5};
}

static cria_model_config tiny_llama(void) {
    return (cria_model_config){.family = CRIA_FAMILY_LLAMA,
                               .architecture = "LlamaForCausalLM",
                               .vocab = 11,
                               .hidden = 8,
                               .embed_dim = 8,
                               .layers = 2,
                               .heads = 4,
                               .kv_heads = 2,
                               .head_dim = 4,
                               .ffn = 12,
                               .max_positions = 6,
                               .activation = CRIA_ACT_SILU,
                               .norm_eps = 1e-5,
                               .rope = {.theta = 10000}};
}

static cria_graph *trainable(cria_model_config config, int64_t sequences, int64_t length, int *loss) {
    cria_graph *graph;
    cria_error err = {0};
    if (cria_model_graph(&config, &graph, &err) != CRIA_OK) fail_msg("%s", err.message);
    if (cria_graph_add_language_loss(graph, sequences, length, loss, &err) != CRIA_OK) fail_msg("%s", err.message);
    return graph;
}

/* Some elements of every parameter. */
static void check_gradients(cria_model_config config) {
    int loss;
    cria_graph *g = trainable(config, 2, 4, &loss);
    int count = cria_graph_tensors(g), forward = cria_graph_ops(g), checked = 0;
    int *gradient = malloc((size_t)count * sizeof *gradient);
    cria_error err = {0};
    if (cria_graph_gradient(g, loss, gradient, &err) != CRIA_OK) fail_msg("%s", err.message);
    double **value = interpret_create(g);
    interpret_fill(g, value, 0.5, 11);
    interpret_run(g, value, 0, cria_graph_ops(g));
    for (int t = 0; t < count; t++) {
        const cria_tensor *tensor = cria_graph_tensor(g, t);
        if (tensor->kind != CRIA_TENSOR_PARAM || tensor->param == CRIA_PARAM_ROPE_TABLE) continue;
        if (gradient[t] < 0) fail_msg("%s has no gradient", tensor->name);
        int64_t elements = interpret_elements(tensor);
        for (int64_t e = 0; e < elements; e += elements / 7 + 1) {
            double kept = value[t][e], side[2];
            for (int s = 0; s < 2; s++) {
                value[t][e] = kept + (s ? 1e-5 : -1e-5);
                interpret_run(g, value, 0, forward);
                side[s] = *value[loss];
            }
            value[t][e] = kept;
            double numeric = (side[1] - side[0]) / 2e-5;
            if (!(fabs(numeric - value[gradient[t]][e]) < 1e-8 + 1e-6 * fabs(numeric)))
                fail_msg("%s, element %lld: %.10g by differences, %.10g by gradient", tensor->name, (long long)e,
                         numeric, value[gradient[t]][e]);
            checked++;
        }
    }
    assert_true(checked > 100);
    interpret_destroy(g, value);
    free(gradient);
    cria_graph_destroy(g);
}

static void opt_with_tied_embeddings_has_right_gradients(void **state) {
    (void)state;
    check_gradients(tiny_opt());
}

static void opt_350m_with_projections_and_norms_after_has_right_gradients(void **state) {
    (void)state;
    cria_model_config config = tiny_opt();
    config.embed_dim = 6;
    config.norm_before = config.final_norm = config.tied_embeddings = false;
    check_gradients(config);
}

static void llama_with_grouped_heads_has_right_gradients(void **state) {
    (void)state;
    check_gradients(tiny_llama());
    cria_model_config config = tiny_llama();
    config.attention_bias = config.mlp_bias = config.tied_embeddings = true;
    check_gradients(config);
}

static void a_training_step_updates_every_parameter_once(void **state) {
    (void)state;
    int loss;
    cria_graph *g = trainable(tiny_llama(), 3, 5, &loss);
    const cria_optimizer adam = {CRIA_OPTIMIZER_ADAM, 1e-3F, 0.9F, 0.999F, 1e-8F};
    cria_error err = {0};
    if (cria_graph_train(g, loss, &adam, &err) != CRIA_OK) fail_msg("%s", err.message);
    for (int t = 0; t < cria_graph_tensors(g); t++) {
        const cria_tensor *tensor = cria_graph_tensor(g, t);
        int updates = 0;
        for (int i = 0; i < cria_graph_ops(g); i++)
            updates += cria_op_alias(cria_graph_op(g, i)) == 0 && cria_graph_op(g, i)->input[0] == t;
        bool kept = tensor->kind == CRIA_TENSOR_STATE ||
                    (tensor->kind == CRIA_TENSOR_PARAM && tensor->param != CRIA_PARAM_ROPE_TABLE);
        assert_int_equal(updates, kept);
    }
    cria_graph_destroy(g);
}

static void what_cannot_be_trained_on_is_refused(void **state) {
    (void)state;
    cria_model_config config = tiny_opt();
    cria_graph *g;
    cria_error err = {0};
    int loss;
    assert_int_equal(cria_model_graph(&config, &g, &err), CRIA_OK);
    assert_int_equal(cria_graph_add_language_loss(g, 1, 7, &loss, &err), CRIA_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "2 to 6"));
    assert_int_equal(cria_graph_add_language_loss(g, 1, 1, &loss, &err), CRIA_ERR_ARGUMENT);
    assert_int_equal(cria_graph_add_language_loss(g, INT64_MAX, 6, &loss, &err), CRIA_ERR_ARGUMENT);
    assert_int_equal(cria_graph_add_language_loss(g, (int64_t)1 << 45, 6, &loss, &err), CRIA_ERR_INTERNAL);
    cria_graph_destroy(g);
    assert_int_equal(cria_model_graph(&config, &g, &err), CRIA_OK);
    assert_int_equal(cria_graph_add_language_loss(g, 1, 6, &loss, &err), CRIA_OK);
    assert_int_equal(cria_graph_add_language_loss(g, 1, 6, &loss, &err), CRIA_ERR_ARGUMENT); /* no sampler any more */
    cria_graph_destroy(g);
}

/* At every operator its operands are alive, and memory is never given back before the last of them has read it. */
static void every_operand_is_alive_when_it_is_read(void **state) {
    (void)state;
    int loss;
    cria_graph *g = trainable(tiny_opt(), 2, 4, &loss);
    const cria_optimizer adam = {CRIA_OPTIMIZER_ADAM, 1e-3F, 0.9F, 0.999F, 1e-8F};
    cria_error err = {0};
    assert_int_equal(cria_graph_train(g, loss, &adam, &err), CRIA_OK);
    int tensors = cria_graph_tensors(g), ops = cria_graph_ops(g);
    int *storage = malloc((size_t)tensors * sizeof *storage);
    cria_span *span = malloc((size_t)tensors * sizeof *span);
    const int ranges[][2] = {{0, ops}, {0, ops / 3}, {ops / 3, ops / 2}, {ops - 5, ops}};
    for (size_t r = 0; r < sizeof ranges / sizeof *ranges; r++) {
        int first = ranges[r][0], end = ranges[r][1];
        cria_graph_liveness(g, first, end, storage, span);
        for (int i = first; i < end; i++) {
            const cria_op *op = cria_graph_op(g, i);
            for (int k = 0; k <= CRIA_MAX_INPUTS; k++) {
                int t = k < CRIA_MAX_INPUTS ? op->input[k] : op->output;
                if (t < 0) continue;
                assert_true(storage[t] >= 0 && storage[storage[t]] == storage[t]);
                assert_true(span[storage[t]].first <= i && i <= span[storage[t]].last);
            }
            if (cria_op_alias(op) >= 0) assert_int_equal(storage[op->output], op->input[0]);
        }
        for (int t = 0; t < tensors; t++) {
            assert_true(span[t].last < span[t].first || (span[t].first >= first && span[t].last < end));
            if (storage[t] == t && cria_graph_tensor(g, t)->kind == CRIA_TENSOR_PARAM)
                assert_true(span[t].first == first && span[t].last == end - 1);
        }
    }
    cria_graph_liveness(g, 0, ops, storage, span);
    assert_int_equal(span[loss].last, ops - 1); /* a result; the logits are not */
    for (int t = 0; t < tensors; t++)
        if (strcmp(cria_graph_tensor(g, t)->name, "token embedding") == 0) assert_int_equal(span[t].last, 2);
    free(storage);
    free(span);
    cria_graph_destroy(g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opt_with_tied_embeddings_has_right_gradients),
        cmocka_unit_test(opt_350m_with_projections_and_norms_after_has_right_gradients),
        cmocka_unit_test(llama_with_grouped_heads_has_right_gradients),
        cmocka_unit_test(a_training_step_updates_every_parameter_once),
        cmocka_unit_test(what_cannot_be_trained_on_is_refused),
        cmocka_unit_test(every_operand_is_alive_when_it_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
