/* Chooses the graph builder of a configuration's family. */
#include "models/family.h"

cria_status cria_model_graph(const cria_model_config *config, cria_graph **out, cria_error *err) {
    cria_error built = {0};
    cria_graph *graph = cria_graph_create(config->architecture, (int)config->layers);
    if (!graph) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the graph");
    switch (config->family) {
    case CRIA_FAMILY_OPT:
        cria_opt_build(config, graph);
        break;
    case CRIA_FAMILY_LLAMA:
        cria_llama_build(config, graph, &built);
        break;
    }
    if (built.status != CRIA_OK || cria_graph_check(graph, &built) != CRIA_OK) {
        cria_graph_destroy(graph);
        return cria_fail(err, built.status, "%s", built.message);
    }
    *out = graph;
    return CRIA_OK;
}

/* What follows the last attention is per row, and only the rows that need logits are asked for: gathering them there is
 * exact, and a prompt is spared all but its last row of the last feed-forward layer. */
int cria_gather_logits_rows(const cria_model_config *config, cria_graph *graph, int layer, int x) {
    if (layer != config->layers - 1) return x;
    return cria_graph_add(graph, (cria_op){.kind = CRIA_OP_GATHER, .layer = layer, .input = {x}}, "logits rows");
}
