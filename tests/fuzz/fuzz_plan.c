/* Fuzzing plan files: any JSON is an error with a message or a plan whose parts lie inside the model. */
#include "parallel/plan/plan_file.h"

#include <stdlib.h>

static cria_graph *make_graph(void) {
    cria_graph *g = cria_graph_create("chain", 1);
    cria_dim token = {CRIA_DIM_TOKEN, CRIA_SYMBOLIC}, h = {CRIA_DIM_HIDDEN, 8}, v = {CRIA_DIM_VOCAB, 100};
    cria_graph_set_group(g, 1);
    int ids = cria_graph_input(g, "token_ids", token);
    int table = cria_graph_param(g, CRIA_PARAM_PLAIN, 2, (cria_dim[]){v, h}, "table");
    int x = cria_graph_add(g, (cria_op){.kind = CRIA_OP_EMBED, .layer = -1, .input = {ids, table, -1, -1}}, "x");
    cria_graph_add(g, (cria_op){.kind = CRIA_OP_LINEAR, .layer = 1, .input = {x, table, -1, -1}}, "y");
    return g;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cria_json *json = NULL;
    cria_error err = {0};
    if (cria_json_parse((const char *)data, size, &json, &err) != CRIA_OK) return 0;
    cria_graph *graph = make_graph();
    cria_plan *plan = NULL;
    cria_plan_notes notes;
    cria_status status = cria_plan_from_json(cria_json_root(json), graph, &plan, &notes, &err);
    if (status != CRIA_OK && (status != err.status || !err.message[0])) abort();
    if (status == CRIA_OK) {
        for (int r = 0; r < cria_plan_ranks(plan) && r < 64; r++)
            for (int t = 0; t < cria_graph_tensors(graph); t++) {
                const cria_tensor *tensor = cria_graph_tensor(graph, t);
                for (int d = 0; d < tensor->dims; d++) {
                    cria_extent part = cria_plan_extent(plan, r, t, d);
                    if (tensor->dim[d].extent != CRIA_SYMBOLIC &&
                        (part.begin < 0 || part.begin > part.end || part.end > tensor->dim[d].extent))
                        abort();
                }
            }
        cria_plan_notes_deinit(&notes);
        cria_plan_destroy(plan);
    }
    if (cria_plan_check_json(cria_json_root(json), NULL, &err) == CRIA_OK && status == CRIA_ERR_MEMORY) abort();
    cria_graph_destroy(graph);
    cria_json_destroy(json);
    return 0;
}
