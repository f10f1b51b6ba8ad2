/* Transformers: what gpt and moe share, with gpt itself. Pre-norm blocks as in GPT-2 (Radford et al. 2019). */
#include "parallel/nets/table.h"

#include <math.h>
#include <stdio.h>

cria_status cria_transformer_init(cria_transformer *t, cria_graph *graph, int64_t batch, int64_t sequence,
                                  int64_t hidden, int64_t heads, int64_t ffn, int64_t vocab, cria_error *err) {
    if (hidden % heads != 0)
        return cria_fail(err, CRIA_ERR_ARGUMENT, "net %s: hidden=%lld is no multiple of heads=%lld",
                         cria_graph_name(graph), (long long)hidden, (long long)heads);
    *t = (cria_transformer){.net = {.graph = graph, .layer = -1},
                            .batch = {CRIA_DIM_BATCH, batch},
                            .sequence = {CRIA_DIM_SEQUENCE, sequence},
                            .hidden = {CRIA_DIM_HIDDEN, hidden},
                            .head = {CRIA_DIM_HEAD, heads},
                            .head_dim = {CRIA_DIM_HEAD_DIM, hidden / heads},
                            .ffn = {CRIA_DIM_FFN, ffn},
                            .vocab = {CRIA_DIM_VOCAB, vocab}};
    return CRIA_OK;
}

/* A name within the layer. */
typedef struct {
    char text[64];
} layer_name;

static layer_name name_of(const cria_transformer *t, const char *what) {
    layer_name name;
    snprintf(name.text, sizeof name.text, "layer %d %s", t->net.layer, what);
    return name;
}

static int add_to(cria_transformer *t, int x, int y, const char *what) {
    return cria_network_binary(&t->net, CRIA_OP_ADD, x, y, name_of(t, what).text);
}

int cria_transformer_embed(cria_transformer *t, int *table) {
    const cria_dim ids_dim[] = {t->batch, t->sequence}, table_dim[] = {t->vocab, t->hidden},
                   place_dim[] = {t->sequence, t->hidden};
    int ids = cria_network_input(&t->net, 2, ids_dim, "token_ids");
    *table = cria_network_param(&t->net, 2, table_dim, "token embedding.weight");
    int x = cria_network_binary(&t->net, CRIA_OP_EMBED, ids, *table, "token embedding");
    int places = cria_network_param(&t->net, 2, place_dim, "position embedding.weight");
    return cria_network_binary(&t->net, CRIA_OP_ADD, x, places, "embedding");
}

int cria_transformer_attention(cria_transformer *t, int x) {
    static const char *const projections[3] = {"q", "k", "v"};
    const cria_dim split[] = {t->head, t->head_dim};
    int h = cria_network_norm(&t->net, x, false, name_of(t, "attention norm").text);
    cria_op attention = {.kind = CRIA_OP_ATTENTION,
                         .input = {0, 0, 0, CRIA_NO_TENSOR},
                         .scale = (float)(1 / sqrt((double)t->head_dim.extent)),
                         .kv_heads = t->head.extent};
    for (int i = 0; i < 3; i++)
        attention.input[i] = cria_network_linear(&t->net, h, 1, split, 2, true, name_of(t, projections[i]).text);
    h = cria_network_op(&t->net, attention, name_of(t, "attention").text);
    h = cria_network_linear(&t->net, h, 2, &t->hidden, 1, true, name_of(t, "attention output").text);
    return add_to(t, x, h, "attention residual");
}

int cria_transformer_ffn(cria_transformer *t, int x, cria_activation_name activation) {
    int h = cria_network_norm(&t->net, x, false, name_of(t, "ffn norm").text);
    h = cria_network_linear(&t->net, h, 1, &t->ffn, 1, true, name_of(t, "fc1").text);
    h = cria_network_activation(&t->net, h, activation, name_of(t, "activation").text);
    h = cria_network_linear(&t->net, h, 1, &t->hidden, 1, true, name_of(t, "fc2").text);
    return add_to(t, x, h, "ffn residual");
}

int cria_transformer_head(cria_transformer *t, int x, int table) {
    x = cria_network_norm(&t->net, x, false, "final norm");
    if (table < 0) return cria_network_linear(&t->net, x, 1, &t->vocab, 1, false, "logits");
    const cria_dim out[] = {t->batch, t->sequence, t->vocab};
    return cria_network_einsum(&t->net, x, table, 1, 3, out, "logits");
}

enum { LAYERS, HIDDEN, HEADS, SEQUENCE, BATCH, VOCAB, TIED, LOSS, TRAIN, ADAM };

static cria_status build(const int64_t *value, cria_graph *graph, cria_error *err) {
    cria_transformer t;
    CRIA_TRY(cria_transformer_init(&t, graph, value[BATCH], value[SEQUENCE], value[HIDDEN], value[HEADS],
                                   4 * value[HIDDEN], value[VOCAB], err));
    int table, x = cria_transformer_embed(&t, &table);
    for (t.net.layer = 0; t.net.layer < value[LAYERS]; t.net.layer++) {
        x = cria_transformer_attention(&t, x);
        x = cria_transformer_ffn(&t, x, CRIA_ACT_GELU_TANH);
    }
    x = cria_transformer_head(&t, x, value[TIED] ? table : CRIA_NO_TENSOR);
    if (!value[LOSS] && !value[TRAIN]) return CRIA_OK;
    int loss = cria_network_loss(&t.net, x);
    return value[TRAIN] ? cria_network_train(&t.net, loss, value[ADAM], err) : CRIA_OK;
}

/* Table 5 of the Alpa paper; 175B is GPT-3 (Brown et al. 2020). */
static const cria_network_size sizes[] = {{"350m", {24, 1024, 16}}, {"760m", {24, 1536, 16}},  {"1.3b", {24, 2048, 32}},
                                          {"2.6b", {32, 2560, 32}}, {"6.7b", {32, 4096, 32}},  {"15b", {48, 5120, 40}},
                                          {"39b", {48, 8192, 64}},  {"175b", {96, 12288, 96}}, {NULL, {0}}};

const cria_network_info cria_network_gpt = {
    .name = "gpt",
    .help = "GPT with learned positions and a mean cross entropy",
    .key = {[LAYERS] = {"layers", 24, 1, 1000, "transformer blocks"},
            [HIDDEN] = {"hidden", 1024, 1, 1 << 20, "width; the ffn has four times as much"},
            [HEADS] = {"heads", 16, 1, 1 << 16, "attention heads; they divide hidden"},
            [SEQUENCE] = {"seq", 1024, 1, 1 << 20, "tokens of a sequence"},
            [BATCH] = {"batch", 8, 1, 1 << 20, "sequences of a step (of a micro-batch, where there are several)"},
            [VOCAB] = {"vocab", 51200, 1, 1 << 24, "size of the vocabulary"},
            [TIED] = {"tied", 0, 0, 1, "the LM head is the token embedding"},
            [LOSS] = {"loss", 0, 0, 1, "the loss, where train=0"},
            [TRAIN] = {"train", 1, 0, 1, "a whole training step instead of the forward pass"},
            [ADAM] = {"adam", 1, 0, 1, "Adam; 0: plain gradient descent"}},
    .sizes = sizes,
    .build = build,
};
