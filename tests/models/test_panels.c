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

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(four_bits_have_coarse_activations_where_models_bear_them)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
