/* Which panels the matrices of a model want. */
#include "models/source.h"
#include "tests/parallel/model_configs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/parallel/planning.h"

/* Feed-forward matrices, and with `outputs` those that end attention, but for the first and the last layer's. */
static bool wants_coarse(const char *name, int layers, bool outputs) {
    const char *at = strstr(name, "layers.");
    int layer = at ? atoi(at + strlen("layers.")) : 0;
    if (layer == 0 || layer == layers - 1) return false;
    return strstr(name, ".mlp.") || strstr(name, ".fc1.") || strstr(name, ".fc2.") ||
           (outputs && (strstr(name, ".o_proj.") || strstr(name, ".out_proj.")));
}

static void four_bits_have_coarse_activations_where_models_bear_them(void **state) {
    (void)state;
    cria_model_config configs[] = {opt_config(768, 12, 12), smollm2_config(30), opt_config(768, 2, 12)};
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
        cria_graph *graph = graph_of(configs[i]);
        cria_panel_type *panel = calloc((size_t)cria_graph_tensors(graph), sizeof *panel);
        for (int outputs = 0; outputs < 2; outputs++) {
            cria_error err = {0};
            if (cria_choose_panels(NULL, graph, "int4", outputs, panel, &err) != CRIA_OK) fail_msg("%s", err.message);
            for (int t = 0; t < cria_graph_tensors(graph); t++) {
                const cria_tensor *tensor = cria_graph_tensor(graph, t);
                if (tensor->kind != CRIA_TENSOR_PARAM || tensor->dims < 2 || strstr(tensor->name, ".bias")) continue;
                bool coarse = wants_coarse(tensor->name, (int)configs[i].layers, outputs);
                if ((panel[t] == CRIA_PANEL_Q4_COARSE) != coarse)
                    fail_msg("%s: %s", tensor->name, cria_panel_type_name(panel[t]));
            }
        }
        free(panel);
        cria_graph_destroy(graph);
    }
}

/* What a file holds is held as it is: without minima where it has none, whose bytes would be read for every token. */
static void files_of_4_bits_keep_their_form(void **state) {
    (void)state;
    static const struct {
        const char *file;
        cria_panel_type layout;
    } cases[] = {{"llama-q4_0.gguf", CRIA_PANEL_Q4_0}, {"llama-q4_1.gguf", CRIA_PANEL_Q4}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char path[512];
        snprintf(path, sizeof path, CRIA_SOURCE_DIR "/tests/fixtures/gguf/%s", cases[i].file);
        cria_weights *weights;
        cria_model_config config;
        cria_error err = {0};
        if (cria_weights_open(path, &weights, &err) != CRIA_OK) fail_msg("%s", err.message);
        if (cria_config_from_gguf(cria_weights_gguf(weights), &config, &err) != CRIA_OK) fail_msg("%s", err.message);
        cria_graph *graph = graph_of(config);
        cria_checkpoint checkpoint = {weights, &config};
        cria_panel_type *panel = calloc((size_t)cria_graph_tensors(graph), sizeof *panel);
        if (cria_choose_panels(&checkpoint, graph, "auto", true, panel, &err) != CRIA_OK) fail_msg("%s", err.message);
        int layers = 0;
        for (int t = 0; t < cria_graph_tensors(graph); t++) {
            const cria_tensor *tensor = cria_graph_tensor(graph, t);
            if (tensor->kind != CRIA_TENSOR_PARAM || tensor->dims < 2 || !strstr(tensor->name, "_proj.")) continue;
            if (cria_panel_layout(panel[t]) != cases[i].layout)
                fail_msg("%s: %s: %s", cases[i].file, tensor->name, cria_panel_type_name(panel[t]));
            layers++;
        }
        assert_true(layers >= 7);
        free(panel);
        cria_graph_destroy(graph);
        cria_weights_close(weights);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(four_bits_have_coarse_activations_where_models_bear_them),
                                       cmocka_unit_test(files_of_4_bits_keep_their_form)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
