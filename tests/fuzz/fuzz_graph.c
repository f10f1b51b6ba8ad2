/* Fuzzing graph files: any JSON is an error with a message or a graph that can be planned, differentiated and written.
 */
#include "parallel/graph/gradient.h"
#include "parallel/graph/graph_file.h"
#include "parallel/graph/liveness.h"
#include "parallel/plan/plan_file.h"
#include "parallel/plan/strategy.h"
#include "tests/fuzz/require.h"

static cria_graph *read_back(const char *bytes, size_t size) {
    cria_json *json = NULL;
    cria_graph *graph = NULL;
    cria_error err = {0};
    if (cria_json_parse(bytes, size, &json, &err) != CRIA_OK) return NULL;
    cria_status status = cria_graph_read(cria_json_root(json), &graph, &err);
    cria_json_destroy(json);
    require(status == CRIA_OK ? graph != NULL : status == err.status && err.message[0]);
    return graph;
}

/* Every index says which dims it is; every operator has a strategy; costs are numbers. */
static void check_op(const cria_graph *graph, const cria_op *op) {
    static cria_strategy strategy[CRIA_MAX_STRATEGIES];
    const cria_mesh mesh = {.size = {2, 3}, .alpha = {1, 1}, .beta = {1, 1}};
    const cria_strategy_options options = {
        .force_batch_axis = -1, .allow_replicated = true, .symbolic = 6, .element = 4};
    cria_op_index index[CRIA_MAX_INDICES];
    int count = cria_op_indices(graph, op, index);
    require(count >= 0 && count <= CRIA_MAX_INDICES);
    for (int i = 0; i < count; i++) {
        require(index[i].unit >= 1);
        for (int k = 0; k < CRIA_MAX_INPUTS; k++) {
            int dims = op->input[k] < 0 ? 0 : cria_graph_tensor(graph, op->input[k])->dims;
            require(index[i].input[k] < dims);
        }
        require(index[i].output < cria_graph_tensor(graph, op->output)->dims);
        require(cria_op_stats_bytes(graph, op, i, 6) >= 0);
    }
    require(cria_op_flops(graph, op, 6, 6) >= 0 && cria_op_bytes(graph, op, 6, 4) >= 0);
    int strategies = cria_strategies(graph, op, &mesh, &options, strategy);
    require(strategies >= 1 && strategies <= CRIA_MAX_STRATEGIES);
    for (int i = 0; i < strategies; i++)
        require(cria_strategy_collectives(graph, op, &mesh, &options, &strategy[i]) >= 0);
}

static void check_lives(const cria_graph *graph) {
    size_t tensors = (size_t)cria_graph_tensors(graph);
    int *storage = malloc(tensors * sizeof *storage), ops = cria_graph_ops(graph);
    cria_span *span = malloc(tensors * sizeof *span);
    cria_graph_liveness(graph, 0, ops, storage, span);
    for (int i = 0; i < ops; i++) {
        int kept = storage[cria_graph_op(graph, i)->output];
        require(kept >= 0 && span[kept].first <= i && span[kept].last >= i);
    }
    free(storage);
    free(span);
}

static void differentiate(cria_graph *graph) {
    const cria_optimizer adam = {CRIA_OPTIMIZER_ADAM, 1e-3F, 0.9F, 0.999F, 1e-8F};
    int last = cria_graph_op(graph, cria_graph_ops(graph) - 1)->output;
    if (cria_graph_tensor(graph, last)->dims > 0) return;
    cria_error err = {0};
    if (cria_graph_train(graph, last, &adam, &err) != CRIA_OK) return;
    for (int i = 0; i < cria_graph_ops(graph); i++) check_op(graph, cria_graph_op(graph, i));
    check_lives(graph);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cria_graph *graph = read_back((const char *)data, size);
    if (!graph) return 0;
    for (int i = 0; i < cria_graph_ops(graph); i++) check_op(graph, cria_graph_op(graph, i));
    check_lives(graph);
    for (int pass = 0; pass < 2; pass++) {
        cria_text text;
        cria_text_init(&text);
        cria_graph_write(graph, &text);
        cria_graph *again = read_back(text.data, text.length);
        require(again);
        require(cria_graph_hash(graph, 0, cria_graph_ops(graph)) == cria_graph_hash(again, 0, cria_graph_ops(again)));
        cria_graph_destroy(again);
        cria_text_deinit(&text);
        if (pass == 0) differentiate(graph);
        cria_error err;
        if (cria_graph_check(graph, &err) != CRIA_OK) break; /* a gradient that could not be built */
    }
    cria_graph_destroy(graph);
    return 0;
}
