/* Fuzzing specifications of nets: any text is an error with a message or a graph without a mistake. */
#include "parallel/nets/network.h"
#include "tests/fuzz/require.h"

#include <string.h>

/* Nets of many layers are right as well, but slow to build. */
static bool is_large(const char *spec) {
    const char *layers = strstr(spec, "layers=");
    while (layers) {
        if (atoi(layers + 7) > 20) return true;
        layers = strstr(layers + 1, "layers=");
    }
    return strncmp(spec, "graph:", 6) == 0; /* would read files */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char spec[256] = "";
    if (size >= sizeof spec) return 0;
    memcpy(spec, data, size);
    if (is_large(spec)) return 0;
    cria_graph *graph = NULL;
    cria_error err = {0};
    cria_status status = cria_network_create(spec, &graph, &err);
    if (status != CRIA_OK) {
        require(status == err.status && err.message[0] && status != CRIA_ERR_INTERNAL);
        return 0;
    }
    require(cria_graph_check(graph, &err) == CRIA_OK && cria_graph_ops(graph) > 0);
    cria_graph_destroy(graph);
    return 0;
}
