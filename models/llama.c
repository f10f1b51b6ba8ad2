/* The Llama family as a graph (Touvron et al. 2023; transformers' LlamaForCausalLM), with its rotary frequencies. */
#include "models/family.h"

#include <math.h>
#include <stdio.h>

typedef struct {
    const cria_model_config *config;
    cria_graph *graph;
    cria_dim token, hidden, head, kv_head, head_dim, ffn;
    int rope_table;
    int layer;
} builder;

static int add_norm(builder *b, int x, const char *name) {
    cria_op op = {.kind = CRIA_OP_NORM,
                  .layer = b->layer,
                  .input = {x, CRIA_NO_TENSOR, CRIA_NO_TENSOR},
                  .rms = true,
                  .eps = (float)b->config->norm_eps};
    op.input[1] = cria_graph_param(b->graph, CRIA_PARAM_PLAIN, 1, &b->hidden, "%s.weight", name);
    return cria_graph_add(b->graph, op, "%s", name);
}

static int add_linear(builder *b, int x, cria_param_kind kind, int kept, int dims, const cria_dim *dim, bool bias,
                      const char *name) {
    cria_op op = {.kind = CRIA_OP_LINEAR, .layer = b->layer, .input = {x, CRIA_NO_TENSOR, CRIA_NO_TENSOR}};
    op.input[1] = cria_graph_param(b->graph, kind, dims, dim, "model.layers.%d.%s.weight", b->layer, name);
    if (bias) op.input[2] = cria_graph_param(b->graph, kind, kept, dim, "model.layers.%d.%s.bias", b->layer, name);
    return cria_graph_add(b->graph, op, "layer %d %s", b->layer, name);
}

static int add_rope(builder *b, int x, const char *what) {
    cria_op op = {.kind = CRIA_OP_ROPE, .layer = b->layer, .input = {x, b->rope_table, CRIA_NO_TENSOR}};
    return cria_graph_add(b->graph, op, "layer %d rotated %s", b->layer, what);
}

static int add_pair(builder *b, cria_op_kind kind, int x, int y, const char *what) {
    cria_op op = {.kind = kind, .layer = b->layer, .input = {x, y, CRIA_NO_TENSOR}};
    return cria_graph_add(b->graph, op, "layer %d %s", b->layer, what);
}

static int add_attention(builder *b, int x) {
    bool bias = b->config->attention_bias;
    const cria_dim in[] = {b->head, b->head_dim, b->hidden}, kv[] = {b->kv_head, b->head_dim, b->hidden},
                   out[] = {b->hidden, b->head, b->head_dim};
    int q = add_linear(b, x, CRIA_PARAM_QK_ROWS, 2, 3, in, bias, "self_attn.q_proj");
    int k = add_linear(b, x, CRIA_PARAM_QK_ROWS, 2, 3, kv, bias, "self_attn.k_proj");
    int v = add_linear(b, x, CRIA_PARAM_PLAIN, 2, 3, kv, bias, "self_attn.v_proj");
    q = add_rope(b, q, "q");
    k = add_rope(b, k, "k");
    cria_op attention = {.kind = CRIA_OP_ATTENTION,
                         .layer = b->layer,
                         .input = {q, k, v},
                         .scale = (float)(1.0 / sqrt((double)b->config->head_dim)),
                         .kv_heads = b->config->kv_heads};
    int mixed = cria_graph_add(b->graph, attention, "layer %d attention", b->layer);
    return add_linear(b, mixed, CRIA_PARAM_PLAIN, 1, 3, out, bias, "self_attn.o_proj");
}

static int add_layer(builder *b, int x) {
    char name[64];
    snprintf(name, sizeof name, "model.layers.%d.input_layernorm", b->layer);
    int h = add_attention(b, add_norm(b, x, name));
    x = add_pair(b, CRIA_OP_ADD, x, h, "attention residual");
    x = cria_gather_logits_rows(b->config, b->graph, b->layer, x);
    snprintf(name, sizeof name, "model.layers.%d.post_attention_layernorm", b->layer);
    h = add_norm(b, x, name);
    const cria_dim wide[] = {b->ffn, b->hidden}, narrow[] = {b->hidden, b->ffn};
    bool bias = b->config->mlp_bias;
    int gate = add_linear(b, h, CRIA_PARAM_PLAIN, 1, 2, wide, bias, "mlp.gate_proj");
    int up = add_linear(b, h, CRIA_PARAM_PLAIN, 1, 2, wide, bias, "mlp.up_proj");
    cria_op act = {.kind = CRIA_OP_ACTIVATION, .layer = b->layer, .input = {gate}, .activation = b->config->activation};
    gate = cria_graph_add(b->graph, act, "layer %d activation", b->layer);
    h = add_pair(b, CRIA_OP_MUL, gate, up, "gated");
    h = add_linear(b, h, CRIA_PARAM_PLAIN, 1, 2, narrow, bias, "mlp.down_proj");
    return add_pair(b, CRIA_OP_ADD, x, h, "ffn residual");
}

/* Inverse frequencies as transformers computes them (modeling_rope_utils: default, linear, llama3). */
static cria_status set_rope(const cria_model_config *config, cria_graph *graph, cria_error *err) {
    const cria_rope_config *rope = &config->rope;
    double frequency[512];
    int half = (int)(config->head_dim / 2);
    if (half > 512)
        return cria_fail(err, CRIA_ERR_UNSUPPORTED, "head_dim %lld is over 1024", (long long)config->head_dim);
    for (int i = 0; i < half; i++) {
        double f = pow(rope->theta, -2.0 * i / (double)config->head_dim);
        if (rope->kind == CRIA_ROPE_LINEAR) f /= rope->factor;
        if (rope->kind == CRIA_ROPE_LLAMA3) {
            double wavelength = 2 * 3.14159265358979323846 / f, original = (double)rope->original_max_positions;
            double smooth =
                (original / wavelength - rope->low_freq_factor) / (rope->high_freq_factor - rope->low_freq_factor);
            if (wavelength > original / rope->low_freq_factor)
                f /= rope->factor;
            else if (wavelength >= original / rope->high_freq_factor)
                f = (1 - smooth) * f / rope->factor + smooth * f;
        }
        frequency[i] = f;
    }
    return cria_graph_set_rope(graph, frequency, half, err);
}

void cria_llama_build(const cria_model_config *config, cria_graph *graph, cria_error *err) {
    builder b = {.config = config,
                 .graph = graph,
                 .token = {CRIA_DIM_TOKEN, CRIA_SYMBOLIC},
                 .hidden = {CRIA_DIM_HIDDEN, config->hidden},
                 .head = {CRIA_DIM_HEAD, config->heads},
                 .kv_head = {CRIA_DIM_KV_HEAD, config->kv_heads},
                 .head_dim = {CRIA_DIM_HEAD_DIM, config->head_dim},
                 .ffn = {CRIA_DIM_FFN, config->ffn},
                 .layer = -1};
    if (set_rope(config, graph, err) != CRIA_OK) return;
    cria_dim vocab = {CRIA_DIM_VOCAB, config->vocab}, position = {CRIA_DIM_POSITION, config->max_positions};
    int ids = cria_graph_input(graph, "token_ids", b.token);
    b.rope_table = cria_graph_param(graph, CRIA_PARAM_ROPE_TABLE, 2, (cria_dim[]){position, b.head_dim}, "rope table");
    int table =
        cria_graph_param(graph, CRIA_PARAM_PLAIN, 2, (cria_dim[]){vocab, b.hidden}, "model.embed_tokens.weight");
    cria_op op = {.kind = CRIA_OP_EMBED, .layer = -1, .input = {ids, table}};
    int x = cria_graph_add(graph, op, "token embedding");
    for (b.layer = 0; b.layer < config->layers; b.layer++) x = add_layer(&b, x);
    x = add_norm(&b, x, "model.norm");
    int head = config->tied_embeddings
                   ? table
                   : cria_graph_param(graph, CRIA_PARAM_PLAIN, 2, (cria_dim[]){vocab, b.hidden}, "lm_head.weight");
    op = (cria_op){.kind = CRIA_OP_LINEAR, .layer = b.layer, .input = {x, head, CRIA_NO_TENSOR}};
    x = cria_graph_add(graph, op, "logits");
    op = (cria_op){.kind = CRIA_OP_SAMPLE, .layer = b.layer, .input = {x}};
    cria_graph_add(graph, op, "sample");
}
