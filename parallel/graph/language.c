/* The loss of a language model, added to the graph that serves it. */
#include "parallel/graph/language.h"

/* The longest sequence that tables of positions, learned or rotary, have rows for. */
static int64_t longest_sequence(const cria_graph *graph) {
    int64_t longest = INT64_MAX;
    for (int i = 0; i < cria_graph_ops(graph); i++) {
        const cria_op *op = cria_graph_op(graph, i);
        if (op->kind != CRIA_OP_EMBED && op->kind != CRIA_OP_ROPE) continue;
        cria_dim rows = cria_graph_tensor(graph, op->input[1])->dim[0];
        if (rows.name == CRIA_DIM_POSITION && rows.extent - op->row_offset < longest)
            longest = rows.extent - op->row_offset;
    }
    return longest;
}

cria_status cria_graph_add_language_loss(cria_graph *graph, int64_t sequences, int64_t length, int *loss,
                                         cria_error *err) {
    CRIA_TRY(cria_graph_check(graph, err));
    const char *name = cria_graph_name(graph);
    int last = cria_graph_ops(graph) - 1;
    if (last < 0 || cria_graph_op(graph, last)->kind != CRIA_OP_SAMPLE)
        return cria_fail(err, CRIA_ERR_ARGUMENT, "%s does not end with a sampler: it is no language model", name);
    int64_t longest = longest_sequence(graph), tokens;
    if (length < 2 || length > longest)
        return cria_fail(err, CRIA_ERR_ARGUMENT, "sequences of %lld tokens; %s takes 2 to %lld", (long long)length,
                         name, (long long)longest);
    if (sequences < 1 || __builtin_mul_overflow(sequences, length, &tokens) || tokens > CRIA_MAX_ELEMENTS)
        return cria_fail(err, CRIA_ERR_ARGUMENT, "%lld sequences of %lld tokens", (long long)sequences,
                         (long long)length);
    int logits = cria_graph_op(graph, last)->input[0];
    cria_graph_drop_last(graph);
    cria_graph_set_group(graph, 1);
    cria_graph_set_sequence(graph, length);
    cria_graph_bind(graph, CRIA_DIM_TOKEN, tokens);
    cria_graph_bind(graph, CRIA_DIM_ROW, tokens);
    const cria_dim row = cria_graph_tensor(graph, logits)->dim[0];
    int labels = cria_graph_tensor_add(graph, CRIA_TENSOR_INPUT, 1, &row, "labels");
    const cria_op each = {.kind = CRIA_OP_CROSS_ENTROPY,
                          .layer = cria_graph_layers(graph),
                          .input = {logits, labels, CRIA_NO_TENSOR, CRIA_NO_TENSOR}},
                  mean = {.kind = CRIA_OP_EINSUM,
                          .layer = cria_graph_layers(graph),
                          .input = {cria_graph_add(graph, each, "cross entropy"), CRIA_NO_TENSOR, CRIA_NO_TENSOR,
                                    CRIA_NO_TENSOR},
                          .scale = 1.0F / (float)(sequences * (length - 1))};
    *loss = cria_graph_add(graph, mean, "loss");
    return cria_graph_check(graph, err);
}
