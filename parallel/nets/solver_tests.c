/* attention, chain, sum: the other networks of Alpa's solver tests (playground/auto_sharding_solver), forward only. */
#include "parallel/nets/table.h"

#include <math.h>
#include <stdio.h>

/* What a reader wants whole on every device, or what cannot take a partial sum. */
static void finish(cria_network *net, int out, bool whole) {
    if (whole)
        cria_network_unary(net, CRIA_OP_WHOLE, out, "whole output");
    else
        cria_network_activation(net, out, CRIA_ACT_TANH, "output");
}

enum { BATCH, SEQUENCE, HIDDEN, HEADS, ATTENTION_WHOLE };

static int split_heads(cria_network *net, int x, const cria_dim head[2], const char *name) {
    return cria_network_linear(net, x, 1, head, 2, true, name);
}

/* Keys are the tokens of the sequence under another name, since a query meets all of them. */
static cria_status build_attention(const int64_t *value, cria_graph *graph, cria_error *err) {
    cria_network net = {.graph = graph};
    if (value[HIDDEN] % value[HEADS] != 0)
        return cria_fail(err, CRIA_ERR_ARGUMENT, "net attention: hidden=%lld is no multiple of heads=%lld",
                         (long long)value[HIDDEN], (long long)value[HEADS]);
    const cria_dim batch = {CRIA_DIM_BATCH, value[BATCH]}, sequence = {CRIA_DIM_SEQUENCE, value[SEQUENCE]},
                   hidden = {CRIA_DIM_HIDDEN, value[HIDDEN]}, head = {CRIA_DIM_HEAD, value[HEADS]},
                   width = {CRIA_DIM_HEAD_DIM, value[HIDDEN] / value[HEADS]},
                   key = cria_network_dim(&net, "key", value[SEQUENCE]);
    const cria_dim x_dim[] = {batch, sequence, hidden}, split[] = {head, width}, keys[] = {batch, key, head, width},
                   scores_dim[] = {batch, head, sequence, key}, mixed_dim[] = {batch, sequence, head, width},
                   mask_dim[] = {batch, key};
    int x = cria_network_input(&net, 3, x_dim, "x");
    int q = split_heads(&net, x, split, "query");
    int k = cria_network_reshape(&net, split_heads(&net, x, split, "key"), 4, keys, "keys");
    int v = cria_network_reshape(&net, split_heads(&net, x, split, "value"), 4, keys, "values");
    float scale = (float)(1 / sqrt((double)width.extent));
    int scores = cria_network_einsum(&net, q, k, scale, 4, scores_dim, "scores");
    scores = cria_network_binary(&net, CRIA_OP_ADD, scores, cria_network_input(&net, 2, mask_dim, "mask"), "masked");
    scores = cria_network_unary(&net, CRIA_OP_SOFTMAX, scores, "probabilities");
    int mixed = cria_network_einsum(&net, scores, v, 1, 4, mixed_dim, "mixed");
    finish(&net, cria_network_linear(&net, mixed, 2, &hidden, 1, true, "projection"), value[ATTENTION_WHOLE]);
    return CRIA_OK;
}

const cria_network_info cria_network_attention = {
    .name = "attention",
    .help = "one attention layer as batched dots, forward only",
    .key = {[BATCH] = {"batch", 4, 1, 1 << 20, "sequences"},
            [SEQUENCE] = {"seq", 128, 1, 1 << 20, "tokens of a sequence"},
            [HIDDEN] = {"hidden", 512, 1, 1 << 20, "width"},
            [HEADS] = {"heads", 16, 1, 1 << 16, "heads; they divide hidden"},
            [ATTENTION_WHOLE] = {"whole", 0, 0, 1, "every device gets the whole output; 0: a tanh follows"}},
    .build = build_attention,
};

enum { STEPS, FORM, ROWS, SUMMED };
enum { TRANSPOSE, RESHAPE };

/* An operand of the dot comes as [first, second], turned or reshaped `steps` times on its way. */
static int operand(cria_network *net, const int64_t *value, cria_dim first, cria_dim second, const char *name) {
    char text[48];
    const cria_dim flat[] = {first, second}, turned[] = {second, first};
    if (value[FORM] == TRANSPOSE) {
        bool odd = value[STEPS] % 2;
        int x = cria_network_param(net, 2, odd ? turned : flat, name);
        for (int i = 0; i < value[STEPS]; i++, odd = !odd) {
            snprintf(text, sizeof text, "%s transposed %d", name, i + 1);
            x = cria_network_einsum(net, x, CRIA_NO_TENSOR, 1, 2, odd ? flat : turned, text);
        }
        return x;
    }
    /* Alternately the first and the second dim are split in two, and joined again. */
    int x = CRIA_NO_TENSOR;
    for (int i = 0; i < value[STEPS]; i++) {
        bool cut_first = i % 2 == 1;
        cria_dim cut = cut_first ? first : second, part[2];
        int64_t inner = cut.extent % 2 == 0 ? 2 : 1;
        snprintf(text, sizeof text, "%s outer", cria_dim_to_name(net->graph, cut.name));
        part[0] = cria_network_dim(net, text, cut.extent / inner);
        snprintf(text, sizeof text, "%s inner", cria_dim_to_name(net->graph, cut.name));
        part[1] = cria_network_dim(net, text, inner);
        const cria_dim split[] = {cut_first ? part[0] : first, cut_first ? part[1] : part[0],
                                  cut_first ? second : part[1]};
        snprintf(text, sizeof text, "%s split %d", name, i);
        x = x < 0 ? cria_network_param(net, 3, split, name) : cria_network_reshape(net, x, 3, split, text);
        snprintf(text, sizeof text, "%s joined %d", name, i + 1);
        x = cria_network_reshape(net, x, 2, flat, text);
    }
    return x;
}

static cria_status build_chain(const int64_t *value, cria_graph *graph, cria_error *err) {
    (void)err;
    cria_network net = {.graph = graph};
    const cria_dim left = cria_network_dim(&net, "left", value[ROWS]),
                   right = cria_network_dim(&net, "right", value[ROWS]),
                   summed = cria_network_dim(&net, "summed", value[SUMMED]), out[] = {left, right};
    int x = operand(&net, value, left, summed, "x"), y = operand(&net, value, summed, right, "y");
    finish(&net, cria_network_einsum(&net, x, y, 1, 2, out, "dot"), true);
    return CRIA_OK;
}

const cria_network_info cria_network_chain = {
    .name = "chain",
    .help =
        "two operands that are transposed or reshaped on their way into a dot, whose output every device gets whole",
    .key = {[STEPS] = {"steps", 1, 1, 1000, "transposes, or pairs of reshapes, of each operand"},
            [FORM] = {"reshape", 0, 0, 1, "reshapes instead of transposes"},
            [ROWS] = {"rows", 128, 1, 1 << 20, "rows and columns of the output"},
            [SUMMED] = {"summed", 2048, 1, 1 << 20, "extent of what is contracted"}},
    .build = build_chain,
};

enum { DOTS, SUM_ROWS, SUM_SUMMED, READERS, SUM_WHOLE };

static cria_status build_sum(const int64_t *value, cria_graph *graph, cria_error *err) {
    (void)err;
    cria_network net = {.graph = graph};
    char text[32];
    const cria_dim left = cria_network_dim(&net, "left", value[SUM_ROWS]),
                   right = cria_network_dim(&net, "right", value[SUM_ROWS]),
                   summed = cria_network_dim(&net, "summed", value[SUM_SUMMED]), x_dim[] = {left, summed},
                   y_dim[] = {summed, right}, out[] = {left, right};
    int x = cria_network_param(&net, 2, x_dim, "x"), y = cria_network_param(&net, 2, y_dim, "y"), sum = CRIA_NO_TENSOR;
    for (int i = 0; i < value[DOTS]; i++) {
        snprintf(text, sizeof text, "dot %d", i);
        int dot = cria_network_einsum(&net, x, y, 1, 2, out, text);
        snprintf(text, sizeof text, "sum %d", i);
        sum = sum < 0 ? dot : cria_network_binary(&net, CRIA_OP_ADD, sum, dot, text);
    }
    if (value[SUM_WHOLE]) sum = cria_network_unary(&net, CRIA_OP_WHOLE, sum, "whole output");
    for (int i = 0; i < value[READERS]; i++) {
        snprintf(text, sizeof text, "reader %d", i);
        cria_network_activation(&net, sum, CRIA_ACT_TANH, text);
    }
    return CRIA_OK;
}

const cria_network_info cria_network_sum = {
    .name = "sum",
    .help = "the sum of several dots, which other operators read",
    .key = {[DOTS] = {"dots", 2, 1, 1000, "dots"},
            [SUM_ROWS] = {"rows", 128, 1, 1 << 20, "rows and columns of the output"},
            [SUM_SUMMED] = {"summed", 2048, 1, 1 << 20, "extent of what is contracted"},
            [READERS] = {"readers", 0, 0, 100, "operators that read the sum (tanh)"},
            [SUM_WHOLE] = {"whole", 1, 0, 1, "every device gets the whole sum"}},
    .build = build_sum,
};
