/* The OPT family as a graph (Zhang et al. 2022; transformers' OPTForCausalLM): 125M to 175B, 350M and Galactica
 * included. */
#include "models/family.h"

#include <math.h>
#include <stdio.h>

/* What every layer of one model shares. */
typedef struct {
    const cria_model_config *config;
    cria_graph *graph;
    cria_dim token, hidden, head, kv_head, head_dim, ffn;
    int layer;
} builder;

static int add_norm(builder *b, int x, const char *name) {
    cria_op op = {.kind = CRIA_OP_NORM,
                  .layer = b->layer,
                  .input = {x, CRIA_NO_TENSOR, CRIA_NO_TENSOR},
                  .eps = (float)b->config->norm_eps};
    if (b->config->norm_affine) {
        op.input[1] = cria_graph_param(b->graph, CRIA_PARAM_PLAIN, 1, &b->hidden, "%s.weight", name);
        op.input[2] = cria_graph_param(b->graph, CRIA_PARAM_PLAIN, 1, &b->hidden, "%s.bias", name);
    }
    return cria_graph_add(b->graph, op, "%s", name);
}

/* `dim` lists the weight's dims, `kept` of them are the output's. */
static int add_linear(builder *b, int x, int kept, int dims, const cria_dim *dim, bool bias, const char *name) {
    cria_op op = {.kind = CRIA_OP_LINEAR, .layer = b->layer, .input = {x, CRIA_NO_TENSOR, CRIA_NO_TENSOR}};
    op.input[1] = cria_graph_param(b->graph, CRIA_PARAM_PLAIN, dims, dim, "%s.weight", name);
    if (bias) op.input[2] = cria_graph_param(b->graph, CRIA_PARAM_PLAIN, kept, dim, "%s.bias", name);
    return cria_graph_add(b->graph, op, "%s", name);
}

static int add_pair(builder *b, cria_op_kind kind, int x, int y, const char *what) {
    cria_op op = {.kind = kind, .layer = b->layer, .input = {x, y, CRIA_NO_TENSOR}};
    return cria_graph_add(b->graph, op, "layer %d %s", b->layer, what);
}

static int add_attention(builder *b, int x) {
    char name[80];
    const cria_dim in[] = {b->head, b->head_dim, b->hidden}, kv[] = {b->kv_head, b->head_dim, b->hidden},
                   out[] = {b->hidden, b->head, b->head_dim};
    static const char *const projections[3] = {"q_proj", "k_proj", "v_proj"};
    int qkv[3];
    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "model.decoder.layers.%d.self_attn.%s", b->layer, projections[i]);
        qkv[i] = add_linear(b, x, 2, 3, i ? kv : in, b->config->bias, name);
    }
    cria_op attention = {.kind = CRIA_OP_ATTENTION,
                         .layer = b->layer,
                         .input = {qkv[0], qkv[1], qkv[2]},
                         .scale = (float)(1.0 / sqrt((double)b->config->head_dim)),
                         .kv_heads = b->config->kv_heads};
    int mixed = cria_graph_add(b->graph, attention, "layer %d attention", b->layer);
    snprintf(name, sizeof name, "model.decoder.layers.%d.self_attn.out_proj", b->layer);
    return add_linear(b, mixed, 1, 3, out, b->config->bias, name);
}

static int add_layer(builder *b, int x) {
    char name[80];
    bool before = b->config->norm_before;
    snprintf(name, sizeof name, "model.decoder.layers.%d.self_attn_layer_norm", b->layer);
    int attention = add_attention(b, before ? add_norm(b, x, name) : x);
    x = add_pair(b, CRIA_OP_ADD, x, attention, "attention residual");
    x = cria_gather_logits_rows(b->config, b->graph, b->layer, x);
    if (!before) x = add_norm(b, x, name);

    snprintf(name, sizeof name, "model.decoder.layers.%d.final_layer_norm", b->layer);
    int h = before ? add_norm(b, x, name) : x;
    char fc[80];
    snprintf(fc, sizeof fc, "model.decoder.layers.%d.fc1", b->layer);
    h = add_linear(b, h, 1, 2, (cria_dim[]){b->ffn, b->hidden}, b->config->bias, fc);
    cria_op act = {.kind = CRIA_OP_ACTIVATION, .layer = b->layer, .input = {h}, .activation = b->config->activation};
    h = cria_graph_add(b->graph, act, "layer %d activation", b->layer);
    snprintf(fc, sizeof fc, "model.decoder.layers.%d.fc2", b->layer);
    h = add_linear(b, h, 1, 2, (cria_dim[]){b->hidden, b->ffn}, b->config->bias, fc);
    x = add_pair(b, CRIA_OP_ADD, x, h, "ffn residual");
    return before ? x : add_norm(b, x, name);
}

void cria_opt_build(const cria_model_config *config, cria_graph *graph) {
    builder b = {.config = config,
                 .graph = graph,
                 .token = {CRIA_DIM_TOKEN, CRIA_SYMBOLIC},
                 .hidden = {CRIA_DIM_HIDDEN, config->hidden},
                 .head = {CRIA_DIM_HEAD, config->heads},
                 .kv_head = {CRIA_DIM_KV_HEAD, config->kv_heads},
                 .head_dim = {CRIA_DIM_HEAD_DIM, config->head_dim},
                 .ffn = {CRIA_DIM_FFN, config->ffn},
                 .layer = -1};
    bool projected = config->embed_dim != config->hidden;
    cria_dim vocab = {CRIA_DIM_VOCAB, config->vocab};
    cria_dim embed = projected ? (cria_dim){CRIA_DIM_EMBED, config->embed_dim} : b.hidden;
    cria_dim position = {CRIA_DIM_POSITION, config->max_positions + config->position_offset};

    int ids = cria_graph_input(graph, "token_ids", b.token), positions = cria_graph_input(graph, "positions", b.token);
    int table =
        cria_graph_param(graph, CRIA_PARAM_PLAIN, 2, (cria_dim[]){vocab, embed}, "model.decoder.embed_tokens.weight");
    cria_op op = {.kind = CRIA_OP_EMBED, .layer = -1, .input = {ids, table}};
    int x = cria_graph_add(graph, op, "token embedding");
    if (projected) x = add_linear(&b, x, 1, 2, (cria_dim[]){b.hidden, embed}, false, "model.decoder.project_in");
    int rows = cria_graph_param(graph, CRIA_PARAM_PLAIN, 2, (cria_dim[]){position, b.hidden},
                                "model.decoder.embed_positions.weight");
    op = (cria_op){
        .kind = CRIA_OP_EMBED, .layer = -1, .input = {positions, rows}, .row_offset = config->position_offset};
    int p = cria_graph_add(graph, op, "position embedding");
    x = add_pair(&b, CRIA_OP_ADD, x, p, "embedding");
    for (b.layer = 0; b.layer < config->layers; b.layer++) x = add_layer(&b, x);

    if (config->final_norm) x = add_norm(&b, x, "model.decoder.final_layer_norm");
    if (projected) x = add_linear(&b, x, 1, 2, (cria_dim[]){embed, b.hidden}, false, "model.decoder.project_out");
    int head = config->tied_embeddings
                   ? table
                   : cria_graph_param(graph, CRIA_PARAM_PLAIN, 2, (cria_dim[]){vocab, embed}, "lm_head.weight");
    op = (cria_op){.kind = CRIA_OP_LINEAR, .layer = b.layer, .input = {x, head, CRIA_NO_TENSOR}};
    x = cria_graph_add(graph, op, "logits");
    op = (cria_op){.kind = CRIA_OP_SAMPLE, .layer = b.layer, .input = {x}};
    cria_graph_add(graph, op, "sample");
}
