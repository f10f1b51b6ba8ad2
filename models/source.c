/* Names and shapes of parameters in checkpoints: Hugging Face's (old and new), Alpa's and GGUF's. */
#include "models/source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* GGUF's name of a Llama parameter; false if it has none. */
static bool gguf_name(const char *name, char *out, size_t size) {
    static const char *const whole[][2] = {{"model.embed_tokens.weight", "token_embd.weight"},
                                           {"model.norm.weight", "output_norm.weight"},
                                           {"lm_head.weight", "output.weight"}};
    static const char *const inner[][2] = {{"self_attn.q_proj", "attn_q"},          {"self_attn.k_proj", "attn_k"},
                                           {"self_attn.v_proj", "attn_v"},          {"self_attn.o_proj", "attn_output"},
                                           {"mlp.gate_proj", "ffn_gate"},           {"mlp.up_proj", "ffn_up"},
                                           {"mlp.down_proj", "ffn_down"},           {"input_layernorm", "attn_norm"},
                                           {"post_attention_layernorm", "ffn_norm"}};
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++)
        if (strcmp(name, whole[i][0]) == 0) return snprintf(out, size, "%s", whole[i][1]) < (int)size;
    int layer, used = 0;
    if (sscanf(name, "model.layers.%d.%n", &layer, &used) != 1 || used == 0) return false;
    const char *rest = name + used, *dot = strrchr(rest, '.');
    if (!dot) return false;
    for (size_t i = 0; i < sizeof inner / sizeof *inner; i++)
        if (strlen(inner[i][0]) == (size_t)(dot - rest) && strncmp(rest, inner[i][0], (size_t)(dot - rest)) == 0)
            return snprintf(out, size, "blk.%d.%s%s", layer, inner[i][1], dot) < (int)size;
    return false;
}

const cria_weight_view *cria_checkpoint_find(const cria_checkpoint *checkpoint, const char *param) {
    char name[160];
    const cria_weight_view *view = cria_weights_find(checkpoint->weights, param);
    if (!view && strncmp(param, "model.", 6) == 0) view = cria_weights_find(checkpoint->weights, param + 6);
    /* What transformers now calls the decoder's final norm was "layer_norm" at first, and is in Alpa's folders. */
    static const char old_norm[] = "model.decoder.final_layer_norm.";
    if (!view && strncmp(param, old_norm, sizeof old_norm - 1) == 0) {
        snprintf(name, sizeof name, "model.decoder.layer_norm.%s", param + sizeof old_norm - 1);
        view = cria_weights_find(checkpoint->weights, name);
        if (!view) view = cria_weights_find(checkpoint->weights, name + 6);
    }
    if (!view && gguf_name(param, name, sizeof name)) view = cria_weights_find(checkpoint->weights, name);
    return view;
}

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static bool is_position_table(const cria_tensor *param) {
    return param->dims == 2 && param->dim[0].name == CRIA_DIM_POSITION;
}

/* Or the embedding, which may be the same matrix. */
static bool is_head(const cria_tensor *param) {
    return param->dims == 2 && param->dim[0].name == CRIA_DIM_VOCAB;
}

/* The layer of the operator that reads the parameter. */
static int layer_of(const cria_graph *graph, int param) {
    for (int i = 0; i < cria_graph_ops(graph); i++) {
        const cria_op *op = cria_graph_op(graph, i);
        for (int k = 0; k < CRIA_MAX_INPUTS; k++)
            if (op->input[k] == param) return op->layer;
    }
    return -1;
}

/* Whether the matrix bears activations of 8 bits: those of feed-forward layers and the one that ends attention, but not
 * in the first layer, whose errors go through all others, nor in the last, which made half of the divergence of a model
 * of thirty layers (docs/benchmarks.md, "Quality"). */
static bool bears_coarse(const cria_graph *graph, int param, bool outputs) {
    const cria_tensor *tensor = cria_graph_tensor(graph, param);
    bool bears = outputs && tensor->dim[tensor->dims - 1].name == CRIA_DIM_HEAD_DIM;
    for (int d = 0; d < tensor->dims; d++) bears |= tensor->dim[d].name == CRIA_DIM_FFN;
    int layer = bears ? layer_of(graph, param) : 0;
    return layer > 0 && layer < cria_graph_layers(graph) - 1;
}

static int64_t view_extent(const cria_weight_view *view, int first) {
    int64_t extent = 1;
    for (int i = first; i < view->dims; i++) extent *= view->shape[i];
    return extent;
}

static bool numeric(cria_type type) {
    return type == CRIA_F32 || type == CRIA_F16 || type == CRIA_BF16 || type == CRIA_F64 || cria_type_is_block(type);
}

static cria_status find(void *self, const cria_tensor *param, cria_param_view *out, cria_error *err) {
    const cria_checkpoint *checkpoint = self;
    const cria_weight_view *view = cria_checkpoint_find(checkpoint, param->name);
    if (!view) return cria_fail(err, CRIA_ERR_FORMAT, "the checkpoint lacks the tensor %s", param->name);
    if (!numeric(view->type))
        return cria_fail(err, CRIA_ERR_UNSUPPORTED, "%s: type %s", view->name, cria_type_name(view->type));
    int64_t elements = cria_tensor_extent(param, 0), cols = view->dims > 1 ? view->shape[view->dims - 1] : 1;
    int64_t rows = cols > 0 ? view_extent(view, 0) / cols : 0, expected_cols = param->dims > 1 ? cols : 1;
    /* The parameter's trailing dims multiply to the file's columns ([hidden, head, head_dim] is stored as [out, in]).
     */
    bool fits = view->dims <= 2 && view_extent(view, 0) == elements && cols == expected_cols;
    if (param->dims > 1) {
        int64_t tail = 1;
        bool aligned = false;
        for (int d = param->dims - 1; d >= 1; d--) {
            tail *= param->dim[d].extent;
            aligned |= tail == cols;
        }
        fits = fits && (view->dims == 1 || aligned); /* a bias of [head, head_dim] is one vector */
    }
    if (is_position_table(param))
        fits = view->dims == 2 && cols == param->dim[1].extent && rows >= param->dim[0].extent;
    if (!fits)
        return cria_fail(err, CRIA_ERR_FORMAT,
                         "%s: shape [%lld, %lld], but the configuration gives %lld elements as %s", view->name,
                         (long long)view->shape[0], (long long)(view->dims > 1 ? view->shape[1] : 1),
                         (long long)elements, param->name);
    bool permuted = param->param == CRIA_PARAM_QK_ROWS && checkpoint->config->rope_interleaved_rows;
    *out = (cria_param_view){.type = view->type,
                             .rows = rows,
                             .cols = cols,
                             .data = view->data,
                             .interleaved_head_dim = permuted ? checkpoint->config->head_dim : 0};
    return CRIA_OK;
}

static void done(void *self, const cria_tensor *param) {
    const cria_checkpoint *checkpoint = self;
    const cria_weight_view *view = cria_checkpoint_find(checkpoint, param->name);
    if (view) cria_weights_drop(checkpoint->weights, view);
}

cria_param_source cria_checkpoint_source(cria_checkpoint *checkpoint) {
    return (cria_param_source){checkpoint, find, done};
}

static cria_status check_unused(const cria_checkpoint *checkpoint, const cria_graph *graph, cria_error *err) {
    size_t count = cria_weights_count(checkpoint->weights);
    bool *used = calloc(count + 1, sizeof *used);
    if (!used) return cria_fail(err, CRIA_ERR_MEMORY, "no memory to check %zu tensors", count);
    const cria_weight_view *first = count ? cria_weights_at(checkpoint->weights, 0) : NULL;
    for (int t = 0; t < cria_graph_tensors(graph); t++) {
        const cria_tensor *tensor = cria_graph_tensor(graph, t);
        if (tensor->kind != CRIA_TENSOR_PARAM) continue;
        const cria_weight_view *view = cria_checkpoint_find(checkpoint, tensor->name);
        if (view) used[view - first] = true;
    }
    char names[200] = "";
    int extra = 0;
    for (size_t i = 0; i < count; i++) {
        const char *name = cria_weights_at(checkpoint->weights, i)->name;
        bool harmless = ends_with(name, "rotary_emb.inv_freq") || ends_with(name, "decoder.version") ||
                        ends_with(name, "position_ids") || ends_with(name, "rope_freqs.weight") ||
                        /* a tied head that was saved all the same */
                        (strcmp(name, "lm_head.weight") == 0 && checkpoint->config->tied_embeddings);
        if (used[i] || harmless) continue;
        if (extra++ < 3)
            snprintf(names + strlen(names), sizeof names - strlen(names), "%s%.50s", extra > 1 ? ", " : "", name);
    }
    free(used);
    if (extra == 0) return CRIA_OK;
    return cria_fail(err, CRIA_ERR_FORMAT, "the checkpoint holds %d tensors that the model has no place for: %s%s",
                     extra, names, extra > 3 ? ", ..." : "");
}

cria_status cria_checkpoint_check(const cria_checkpoint *checkpoint, const cria_graph *graph, cria_error *err) {
    for (int t = 0; t < cria_graph_tensors(graph); t++) {
        const cria_tensor *tensor = cria_graph_tensor(graph, t);
        cria_param_view view;
        if (tensor->kind != CRIA_TENSOR_PARAM || tensor->param == CRIA_PARAM_ROPE_TABLE) continue;
        CRIA_TRY(find((void *)checkpoint, tensor, &view, err));
    }
    return check_unused(checkpoint, graph, err);
}

static bool type_to_panel(cria_type type, cria_panel_type *out) {
    switch (type) {
    case CRIA_F32:
    case CRIA_F64:
        *out = CRIA_PANEL_F32;
        return true;
    case CRIA_F16:
    case CRIA_BF16:
        *out = CRIA_PANEL_BF16;
        return true;
    case CRIA_Q8_0:
        *out = CRIA_PANEL_Q8;
        return true;
    case CRIA_Q4_0:
        *out = CRIA_PANEL_Q4_0;
        return true;
    case CRIA_Q4_1:
        *out = CRIA_PANEL_Q4;
        return true;
    default:
        return false;
    }
}

cria_status cria_choose_panels(const cria_checkpoint *checkpoint, const cria_graph *graph, const char *dtype,
                               bool coarse_outputs, cria_panel_type *panel, cria_error *err) {
    static const struct {
        const char *name;
        cria_panel_type panel;
    } named[] = {{"f32", CRIA_PANEL_F32},   {"float32", CRIA_PANEL_F32},   {"float", CRIA_PANEL_F32},
                 {"bf16", CRIA_PANEL_BF16}, {"bfloat16", CRIA_PANEL_BF16}, {"int8", CRIA_PANEL_I8},
                 {"q8", CRIA_PANEL_Q8},     {"int4", CRIA_PANEL_Q4}};
    cria_panel_type forced = CRIA_PANEL_COUNT;
    for (size_t i = 0; i < sizeof named / sizeof *named; i++)
        if (strcmp(dtype, named[i].name) == 0) forced = named[i].panel;
    if (forced == CRIA_PANEL_COUNT && strcmp(dtype, "auto") != 0)
        return cria_fail(err, CRIA_ERR_ARGUMENT, "dtype: \"%s\" is none of auto, f32, bf16, int8, q8, int4", dtype);
    for (int t = 0; t < cria_graph_tensors(graph); t++) {
        const cria_tensor *tensor = cria_graph_tensor(graph, t);
        panel[t] = CRIA_PANEL_F32;
        if (tensor->kind != CRIA_TENSOR_PARAM || tensor->param == CRIA_PARAM_ROPE_TABLE || tensor->dims < 2) continue;
        panel[t] = forced == CRIA_PANEL_Q4 && bears_coarse(graph, t, coarse_outputs) ? CRIA_PANEL_Q4_COARSE : forced;
        bool quantised = forced == CRIA_PANEL_I8 || forced == CRIA_PANEL_Q8 || forced == CRIA_PANEL_Q4;
        if (is_position_table(tensor) && quantised) panel[t] = CRIA_PANEL_F32;
        if (forced != CRIA_PANEL_COUNT) continue;
        cria_param_view view;
        CRIA_TRY(find((void *)checkpoint, tensor, &view, err));
        bool known = type_to_panel(view.type, &panel[t]);
        /* The head's sums are the logits: there 8 bits of activations show most. The feed-forward layers are the most
         * work and bear 8 bits well, the attention's output best (docs/benchmarks.md, "Quality"). */
        if (panel[t] == CRIA_PANEL_Q8 && is_head(tensor)) panel[t] = CRIA_PANEL_Q8_FINE;
        if (panel[t] == CRIA_PANEL_Q4 && bears_coarse(graph, t, coarse_outputs)) panel[t] = CRIA_PANEL_Q4_COARSE;
        if (panel[t] == CRIA_PANEL_Q4_0 && bears_coarse(graph, t, coarse_outputs)) panel[t] = CRIA_PANEL_Q4_0_COARSE;
        if (!known) return cria_fail(err, CRIA_ERR_UNSUPPORTED, "%s: type %s", tensor->name, cria_type_name(view.type));
    }
    return CRIA_OK;
}
