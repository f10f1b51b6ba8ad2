/* Reading config.json as transformers 4 and 5 write it, for OPT and Llama, and the checks that every source shares. */
#include "models/config.h"

#include "base/file.h"
#include "models/config_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { CONFIG_LIMIT_BYTES = 8 << 20, PATH_BYTES = 4096 };

typedef struct {
    const char *name;
    cria_activation_name activation;
} activation_row;

/* The first row of an activation is its canonical name. */
static const activation_row ACTIVATIONS[] = {
    {"none", CRIA_ACT_NONE},
    {"relu", CRIA_ACT_RELU},
    {"gelu", CRIA_ACT_GELU},
    {"gelu_python", CRIA_ACT_GELU},
    {"gelu_pytorch_tanh", CRIA_ACT_GELU_TANH},
    {"gelu_new", CRIA_ACT_GELU_TANH},
    {"gelu_fast", CRIA_ACT_GELU_TANH},
    {"gelu_python_tanh", CRIA_ACT_GELU_TANH},
    {"silu", CRIA_ACT_SILU},
    {"swish", CRIA_ACT_SILU},
    {"quick_gelu", CRIA_ACT_QUICK_GELU},
    {"tanh", CRIA_ACT_TANH},
    {"sigmoid", CRIA_ACT_SIGMOID},
    {"relu2", CRIA_ACT_RELU2},
};
enum { ACTIVATION_COUNT = sizeof ACTIVATIONS / sizeof *ACTIVATIONS };

const char *cria_activation_to_name(cria_activation_name activation) {
    for (int i = 0; i < ACTIVATION_COUNT; i++) {
        if (ACTIVATIONS[i].activation == activation) return ACTIVATIONS[i].name;
    }
    return "unknown";
}

cria_status cria_activation_from_name(const char *name, cria_activation_name *out, cria_error *err) {
    for (int i = 1; i < ACTIVATION_COUNT; i++) { /* "none" is ours, no config may ask for it */
        if (strcmp(ACTIVATIONS[i].name, name) == 0) {
            *out = ACTIVATIONS[i].activation;
            return CRIA_OK;
        }
    }
    return cria_fail(err, CRIA_ERR_UNSUPPORTED, "the activation function \"%s\" is not supported", name);
}

void cria_config_init(cria_model_config *config, cria_family family) {
    *config = (cria_model_config){.family = family, .type = CRIA_F32, .bos = -1, .pad = -1};
    config->sampling = (cria_sampling_defaults){-1, -1, -1, -1, -1, -1};
    config->rope.kind = CRIA_ROPE_NONE;
    config->rope.factor = 1;
    config->rope.theta = 10000;
    config->norm_affine = config->norm_before = config->final_norm = true;
    config->norm_eps = 1e-5;
}

cria_status cria_config_add_eos(cria_model_config *config, int64_t id, cria_error *err) {
    const int most = (int)(sizeof config->eos / sizeof *config->eos);
    if (id < 0) return CRIA_OK;
    for (int i = 0; i < config->eos_count; i++) {
        if (config->eos[i] == id) return CRIA_OK;
    }
    if (config->eos_count == most) {
        return cria_fail(err, CRIA_ERR_UNSUPPORTED, "eos_token_id lists more than %d ids", most);
    }
    config->eos[config->eos_count++] = id;
    return CRIA_OK;
}

static cria_status check_id(const cria_model_config *config, const char *key, int64_t id, cria_error *err) {
    if (id < config->vocab) return CRIA_OK;
    return cria_fail(err, CRIA_ERR_FORMAT, "%s is %" PRId64 ", outside the vocabulary of %" PRId64, key, id,
                     config->vocab);
}

cria_status cria_config_check(const cria_model_config *config, cria_error *err) {
    if (config->heads % config->kv_heads != 0) {
        return cria_fail(err, CRIA_ERR_FORMAT, "%" PRId64 " attention heads cannot share %" PRId64 " key-value heads",
                         config->heads, config->kv_heads);
    }
    if (config->rope.kind != CRIA_ROPE_NONE && config->head_dim % 2 != 0) {
        return cria_fail(err, CRIA_ERR_FORMAT, "head_dim is %" PRId64 ", which rotary embeddings need to be even",
                         config->head_dim);
    }
    if (config->rope.kind == CRIA_ROPE_LLAMA3 && config->rope.high_freq_factor <= config->rope.low_freq_factor) {
        return cria_fail(err, CRIA_ERR_FORMAT, "rope high_freq_factor is %g, not over low_freq_factor %g",
                         config->rope.high_freq_factor, config->rope.low_freq_factor);
    }
    CRIA_TRY(check_id(config, "bos_token_id", config->bos, err));
    CRIA_TRY(check_id(config, "pad_token_id", config->pad, err));
    for (int i = 0; i < config->eos_count; i++) CRIA_TRY(check_id(config, "eos_token_id", config->eos[i], err));
    return CRIA_OK;
}

/* --- keys that change results and are not honoured ------------------------------------------------------------- */

typedef enum { IF_PRESENT, IF_TRUE, IF_FALSE, IF_NOT_ONE, IF_NOT_ZERO, IF_NOT_EMPTY } refusal;

typedef struct {
    const char *key;
    refusal when;
    unsigned families; /* bit set of 1 << family */
} refused_key;

enum { OPT = 1u << CRIA_FAMILY_OPT, LLAMA = 1u << CRIA_FAMILY_LLAMA, BOTH = OPT | LLAMA };

/* What other families' configs say in the same place is refused too: a checkpoint that carries it was not trained as
 * the architecture it names. */
static const refused_key REFUSED[] = {
    {"quantization_config", IF_PRESENT, BOTH},
    {"is_encoder_decoder", IF_TRUE, BOTH},
    {"add_cross_attention", IF_TRUE, BOTH},
    {"pruned_heads", IF_NOT_EMPTY, BOTH},
    {"alibi", IF_TRUE, BOTH},
    {"scale_embeddings", IF_TRUE, BOTH},
    {"learn_embeddings", IF_FALSE, OPT},
    {"learned_embeddings", IF_FALSE, OPT},
    {"rotary_pct", IF_NOT_ONE, BOTH},
    {"use_parallel_residual", IF_TRUE, BOTH},
    {"parallel_attn", IF_TRUE, BOTH},
    {"partial_rotary_factor", IF_NOT_ONE, LLAMA},
    {"rope_interleaved", IF_TRUE, LLAMA},
    {"no_rope_layers", IF_NOT_EMPTY, LLAMA},
    {"qk_layernorm", IF_TRUE, LLAMA},
    {"use_qk_norm", IF_TRUE, LLAMA},
    {"qk_norm", IF_TRUE, LLAMA},
    {"clip_qkv", IF_PRESENT, LLAMA},
    {"query_pre_attn_scalar", IF_PRESENT, LLAMA},
    {"attention_chunk_size", IF_PRESENT, LLAMA},
    {"no_rope_layer_interval", IF_PRESENT, LLAMA},
    {"rope_local_base_freq", IF_PRESENT, LLAMA},
    {"scale_emb", IF_NOT_ONE, LLAMA},
    {"scale_depth", IF_NOT_ONE, LLAMA},
    {"attn_logit_softcapping", IF_PRESENT, LLAMA},
    {"final_logit_softcapping", IF_PRESENT, LLAMA},
    {"attention_multiplier", IF_NOT_ONE, LLAMA},
    {"embedding_multiplier", IF_NOT_ONE, LLAMA},
    {"residual_multiplier", IF_NOT_ONE, LLAMA},
    {"logits_scaling", IF_NOT_ONE, LLAMA},
    {"logit_scale", IF_NOT_ONE, LLAMA},
    {"num_local_experts", IF_NOT_ZERO, LLAMA},
    {"num_experts", IF_NOT_ZERO, LLAMA},
};

static bool is_refused(const cria_json_value *value, refusal when) {
    cria_json_type type = cria_json_type_of(value);
    if (type == CRIA_JSON_NULL) return false;
    switch (when) {
    case IF_PRESENT:
        return true;
    case IF_TRUE:
        return type != CRIA_JSON_BOOL || cria_json_bool(value);
    case IF_FALSE:
        return type != CRIA_JSON_BOOL || !cria_json_bool(value);
    case IF_NOT_ONE:
        return type != CRIA_JSON_NUMBER || cria_json_number(value) != 1.0;
    case IF_NOT_ZERO:
        return type != CRIA_JSON_NUMBER || cria_json_number(value) != 0.0;
    case IF_NOT_EMPTY:
        return (type != CRIA_JSON_ARRAY && type != CRIA_JSON_OBJECT) || cria_json_size(value) > 0;
    }
    return true;
}

/* A value in a few words, for messages. */
static const char *describe(const cria_json_value *value, char *out, size_t size) {
    switch (cria_json_type_of(value)) {
    case CRIA_JSON_BOOL:
        return cria_json_bool(value) ? "true" : "false";
    case CRIA_JSON_NUMBER:
        snprintf(out, size, "%g", cria_json_number(value));
        return out;
    case CRIA_JSON_STRING: {
        size_t length;
        const char *text = cria_json_text(value, &length);
        snprintf(out, size, "\"%.*s\"", (int)(length < 60 ? length : 60), text);
        return out;
    }
    case CRIA_JSON_OBJECT: {
        const char *method = NULL;
        if (cria_json_get_string(value, "quant_method", NULL, &method, NULL) == CRIA_OK && method) {
            snprintf(out, size, "{\"quant_method\": \"%.60s\"}", method);
            return out;
        }
        return "an object";
    }
    default:
        return cria_json_type_name(cria_json_type_of(value));
    }
}

static cria_status refuse(const char *key, const cria_json_value *value, cria_error *err) {
    char text[128];
    return cria_fail(err, CRIA_ERR_UNSUPPORTED, "%s is %s, which is not supported", key,
                     describe(value, text, sizeof text));
}

static cria_status check_refused_keys(const cria_json_value *root, cria_family family, cria_error *err) {
    for (size_t i = 0; i < sizeof REFUSED / sizeof *REFUSED; i++) {
        if (!(REFUSED[i].families & (1u << family))) continue;
        const cria_json_value *value = cria_json_get(root, REFUSED[i].key);
        if (is_refused(value, REFUSED[i].when)) return refuse(REFUSED[i].key, value, err);
    }
    bool window;
    CRIA_TRY(cria_json_get_bool(root, "use_sliding_window", true, &window, err));
    const cria_json_value *sliding = cria_json_get(root, "sliding_window");
    if (window && sliding) return refuse("sliding_window", sliding, err);
    const cria_json_value *layers = cria_json_get(root, "layer_types");
    for (const cria_json_value *v = cria_json_first(layers); v; v = cria_json_next(v)) {
        size_t length;
        bool full =
            cria_json_type_of(v) == CRIA_JSON_STRING && strcmp(cria_json_text(v, &length), "full_attention") == 0;
        if (!full) return refuse("layer_types", v, err);
    }
    return CRIA_OK;
}

/* --- parts that both families have ----------------------------------------------------------------------------- */

/* A key that stands there as null is not the same as one left out: the former has no default. */
static bool stands_as_null(const cria_json_value *root, const char *key) {
    for (const cria_json_value *v = cria_json_first(root); v; v = cria_json_next(v)) {
        if (strcmp(cria_json_key(v), key) == 0) return cria_json_get(root, key) == NULL;
    }
    return false;
}

static cria_status read_id(const cria_json_value *root, const char *key, int64_t fallback, int64_t *out,
                           cria_error *err) {
    if (stands_as_null(root, key)) fallback = -1;
    CRIA_TRY(cria_json_get_int(root, key, fallback, INT32_MIN, INT32_MAX, out, err));
    if (*out < 0) *out = -1; /* older Llama configs write -1 for none */
    return CRIA_OK;
}

/* One id, a list of ids or null. */
static cria_status read_eos(const cria_json_value *root, int64_t fallback, cria_model_config *out, cria_error *err) {
    const cria_json_value *value = cria_json_get(root, "eos_token_id");
    out->eos_count = 0;
    if (cria_json_type_of(value) != CRIA_JSON_ARRAY) {
        int64_t id;
        CRIA_TRY(read_id(root, "eos_token_id", fallback, &id, err));
        return cria_config_add_eos(out, id, err);
    }
    for (const cria_json_value *v = cria_json_first(value); v; v = cria_json_next(v)) {
        int64_t id;
        if (cria_json_type_of(v) != CRIA_JSON_NUMBER || !cria_json_int(v, &id) || id > INT32_MAX) {
            return cria_fail(err, CRIA_ERR_FORMAT, "eos_token_id must be an id or a list of ids");
        }
        CRIA_TRY(cria_config_add_eos(out, id, err));
    }
    return CRIA_OK;
}

/* "float16" and "torch.float16", under `dtype` (transformers 5) or `torch_dtype`. */
static cria_status read_type(const cria_json_value *root, cria_model_config *out, cria_error *err) {
    const char *key = cria_json_get(root, "dtype") ? "dtype" : "torch_dtype", *name;
    CRIA_TRY(cria_json_get_string(root, key, "float32", &name, err));
    if (strncmp(name, "torch.", 6) == 0) name += 6;
    static const struct {
        const char *name;
        cria_type type;
    } types[] = {{"float32", CRIA_F32}, {"float16", CRIA_F16}, {"bfloat16", CRIA_BF16}, {"float64", CRIA_F64}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (strcmp(types[i].name, name) == 0) {
            out->type = types[i].type;
            return CRIA_OK;
        }
    }
    return cria_fail(err, CRIA_ERR_UNSUPPORTED, "%s is \"%s\", which is not supported", key, name);
}

/* hidden / heads unless the config says otherwise. */
static cria_status derive_head_dim(const cria_model_config *config, int64_t *out, cria_error *err) {
    if (config->hidden % config->heads != 0) {
        return cria_fail(err, CRIA_ERR_FORMAT,
                         "hidden_size %" PRId64 " is not a multiple of num_attention_heads %" PRId64, config->hidden,
                         config->heads);
    }
    *out = config->hidden / config->heads;
    return CRIA_OK;
}

/* --- OPT ------------------------------------------------------------------------------------------------------- */

static cria_status read_opt(const cria_json_value *root, cria_model_config *out, cria_error *err) {
    bool no_final_norm;
    const char *activation;
    CRIA_TRY(cria_json_get_int(root, "vocab_size", 50272, 1, CRIA_CONFIG_MAX_VOCAB, &out->vocab, err));
    CRIA_TRY(cria_json_get_int(root, "hidden_size", 768, 1, CRIA_CONFIG_MAX_HIDDEN, &out->hidden, err));
    CRIA_TRY(cria_json_get_int(root, "num_hidden_layers", 12, 1, CRIA_CONFIG_MAX_LAYERS, &out->layers, err));
    CRIA_TRY(cria_json_get_int(root, "num_attention_heads", 12, 1, CRIA_CONFIG_MAX_HEADS, &out->heads, err));
    CRIA_TRY(cria_json_get_int(root, "ffn_dim", 3072, 1, CRIA_CONFIG_MAX_FFN, &out->ffn, err));
    CRIA_TRY(cria_json_get_int(root, "max_position_embeddings", 2048, 1, CRIA_CONFIG_MAX_POSITIONS, &out->max_positions,
                               err));
    CRIA_TRY(
        cria_json_get_int(root, "word_embed_proj_dim", out->hidden, 1, CRIA_CONFIG_MAX_HIDDEN, &out->embed_dim, err));
    CRIA_TRY(cria_json_get_bool(root, "do_layer_norm_before", true, &out->norm_before, err));
    CRIA_TRY(cria_json_get_bool(root, "_remove_final_layer_norm", false, &no_final_norm, err));
    CRIA_TRY(cria_json_get_bool(root, "enable_bias", true, &out->bias, err));
    CRIA_TRY(cria_json_get_bool(root, "layer_norm_elementwise_affine", true, &out->norm_affine, err));
    CRIA_TRY(cria_json_get_bool(root, "tie_word_embeddings", true, &out->tied_embeddings, err));
    CRIA_TRY(cria_json_get_string(root, "activation_function", "relu", &activation, err));
    CRIA_TRY(cria_activation_from_name(activation, &out->activation, err));
    out->final_norm = out->norm_before && !no_final_norm;
    out->kv_heads = out->heads;
    out->position_offset = 2;
    CRIA_TRY(derive_head_dim(out, &out->head_dim, err));
    CRIA_TRY(read_id(root, "bos_token_id", 2, &out->bos, err));
    CRIA_TRY(read_id(root, "pad_token_id", 1, &out->pad, err));
    return read_eos(root, 2, out, err);
}

/* --- Llama ----------------------------------------------------------------------------------------------------- */

static cria_status read_rope_scaling(const cria_json_value *root, const char *key, const cria_json_value *scaling,
                                     cria_model_config *out, cria_error *err) {
    cria_rope_config *rope = &out->rope;
    const char *type_key = cria_json_get(scaling, "rope_type") ? "rope_type" : "type", *type;
    CRIA_TRY(cria_json_get_string(scaling, type_key, "default", &type, err));
    const cria_json_value *partial = cria_json_get(scaling, "partial_rotary_factor");
    if (is_refused(partial, IF_NOT_ONE)) return refuse("partial_rotary_factor", partial, err);
    if (strcmp(type, "default") == 0) return CRIA_OK;
    bool llama3 = strcmp(type, "llama3") == 0;
    if (!llama3 && strcmp(type, "linear") != 0) {
        return cria_fail(err, CRIA_ERR_UNSUPPORTED, "%s.%s is \"%s\", which is not supported", key, type_key, type);
    }
    static const char *const needed[] = {"factor", "low_freq_factor", "high_freq_factor"};
    for (int i = 0; i < (llama3 ? 3 : 1); i++) {
        if (!cria_json_get(scaling, needed[i])) {
            return cria_fail(err, CRIA_ERR_FORMAT, "%s of type \"%s\" has no %s", key, type, needed[i]);
        }
    }
    rope->kind = llama3 ? CRIA_ROPE_LLAMA3 : CRIA_ROPE_LINEAR;
    CRIA_TRY(cria_json_get_double(scaling, "factor", 1, 1, 1e6, &rope->factor, err));
    if (!llama3) return CRIA_OK;
    CRIA_TRY(cria_json_get_double(scaling, "low_freq_factor", 1, 1e-6, 1e6, &rope->low_freq_factor, err));
    CRIA_TRY(cria_json_get_double(scaling, "high_freq_factor", 4, 1e-6, 1e6, &rope->high_freq_factor, err));
    /* transformers 5 lets a key outside win over the one inside, and falls back on the context length. */
    const char *original = "original_max_position_embeddings";
    const cria_json_value *holder = cria_json_get(root, original) ? root : scaling;
    return cria_json_get_int(holder, original, out->max_positions, 1, CRIA_CONFIG_MAX_POSITIONS,
                             &rope->original_max_positions, err);
}

static cria_status read_rope(const cria_json_value *root, cria_model_config *out, cria_error *err) {
    /* As transformers 5 does: a rope_scaling that is not empty goes before rope_parameters. */
    const char *key = "rope_scaling";
    const cria_json_value *scaling = cria_json_get(root, key);
    if (!scaling || (cria_json_type_of(scaling) == CRIA_JSON_OBJECT && cria_json_size(scaling) == 0)) {
        key = "rope_parameters";
        scaling = cria_json_get(root, key);
    }
    out->rope.kind = CRIA_ROPE_DEFAULT;
    CRIA_TRY(cria_json_get_double(root, "rope_theta", 10000, 1, 1e12, &out->rope.theta, err));
    if (!scaling) return CRIA_OK;
    if (cria_json_type_of(scaling) != CRIA_JSON_OBJECT) {
        return cria_fail(err, CRIA_ERR_FORMAT, "%s is %s, not an object", key,
                         cria_json_type_name(cria_json_type_of(scaling)));
    }
    for (const cria_json_value *v = cria_json_first(scaling); v; v = cria_json_next(v)) {
        if (cria_json_type_of(v) != CRIA_JSON_OBJECT) continue; /* parameters per layer type */
        return cria_fail(err, CRIA_ERR_UNSUPPORTED, "%s.%s is an object, which is not supported", key,
                         cria_json_key(v));
    }
    CRIA_TRY(cria_json_get_double(scaling, "rope_theta", out->rope.theta, 1, 1e12, &out->rope.theta, err));
    return read_rope_scaling(root, key, scaling, out, err);
}

static cria_status read_llama(const cria_json_value *root, cria_model_config *out, cria_error *err) {
    const char *activation;
    CRIA_TRY(cria_json_get_int(root, "vocab_size", 32000, 1, CRIA_CONFIG_MAX_VOCAB, &out->vocab, err));
    CRIA_TRY(cria_json_get_int(root, "hidden_size", 4096, 1, CRIA_CONFIG_MAX_HIDDEN, &out->hidden, err));
    CRIA_TRY(cria_json_get_int(root, "intermediate_size", 11008, 1, CRIA_CONFIG_MAX_FFN, &out->ffn, err));
    CRIA_TRY(cria_json_get_int(root, "num_hidden_layers", 32, 1, CRIA_CONFIG_MAX_LAYERS, &out->layers, err));
    CRIA_TRY(cria_json_get_int(root, "num_attention_heads", 32, 1, CRIA_CONFIG_MAX_HEADS, &out->heads, err));
    CRIA_TRY(cria_json_get_int(root, "num_key_value_heads", out->heads, 1, out->heads, &out->kv_heads, err));
    CRIA_TRY(cria_json_get_int(root, "max_position_embeddings", 2048, 1, CRIA_CONFIG_MAX_POSITIONS, &out->max_positions,
                               err));
    CRIA_TRY(cria_json_get_double(root, "rms_norm_eps", 1e-6, 0, 1, &out->norm_eps, err));
    CRIA_TRY(cria_json_get_bool(root, "attention_bias", false, &out->attention_bias, err));
    CRIA_TRY(cria_json_get_bool(root, "mlp_bias", false, &out->mlp_bias, err));
    CRIA_TRY(cria_json_get_bool(root, "tie_word_embeddings", false, &out->tied_embeddings, err));
    CRIA_TRY(cria_json_get_string(root, "hidden_act", "silu", &activation, err));
    CRIA_TRY(cria_activation_from_name(activation, &out->activation, err));
    if (cria_json_get(root, "head_dim")) {
        CRIA_TRY(cria_json_get_int(root, "head_dim", 0, 1, CRIA_CONFIG_MAX_HIDDEN, &out->head_dim, err));
    } else {
        CRIA_TRY(derive_head_dim(out, &out->head_dim, err));
    }
    out->embed_dim = out->hidden;
    CRIA_TRY(read_rope(root, out, err));
    CRIA_TRY(read_id(root, "bos_token_id", 1, &out->bos, err));
    CRIA_TRY(read_id(root, "pad_token_id", -1, &out->pad, err));
    return read_eos(root, 2, out, err);
}

/* --- entry points ---------------------------------------------------------------------------------------------- */

static cria_status read_family(const cria_json_value *root, cria_family *family, const char **architecture,
                               cria_error *err) {
    static const struct {
        const char *architecture, *model_type;
    } families[] = {
        [CRIA_FAMILY_OPT] = {"OPTForCausalLM", "opt"},
        [CRIA_FAMILY_LLAMA] = {"LlamaForCausalLM", "llama"},
    };
    const char *model_type, *named = NULL;
    size_t length;
    CRIA_TRY(cria_json_get_string(root, "model_type", NULL, &model_type, err));
    const cria_json_value *first = cria_json_first(cria_json_get(root, "architectures"));
    if (cria_json_type_of(first) == CRIA_JSON_STRING) named = cria_json_text(first, &length);
    if (!named && !model_type) {
        return cria_fail(err, CRIA_ERR_FORMAT, "names no architecture: it has neither architectures nor model_type");
    }
    for (unsigned i = 0; i < sizeof families / sizeof *families; i++) {
        bool fits =
            named ? strcmp(named, families[i].architecture) == 0 : strcmp(model_type, families[i].model_type) == 0;
        if (!fits) continue;
        if (named && model_type && strcmp(model_type, families[i].model_type) != 0) {
            return cria_fail(err, CRIA_ERR_UNSUPPORTED, "architecture %s with model_type \"%s\" is not supported",
                             named, model_type);
        }
        *family = (cria_family)i;
        *architecture = families[i].architecture;
        return CRIA_OK;
    }
    return cria_fail(err, CRIA_ERR_UNSUPPORTED, "the architecture %s is not supported (OPT and Llama are)",
                     named ? named : model_type);
}

static cria_status read_root(const cria_json_value *root, cria_model_config *out, cria_error *err) {
    cria_family family = CRIA_FAMILY_OPT;
    const char *architecture = "";
    if (cria_json_type_of(root) != CRIA_JSON_OBJECT) {
        return cria_fail(err, CRIA_ERR_FORMAT, "is %s, not an object", cria_json_type_name(cria_json_type_of(root)));
    }
    CRIA_TRY(read_family(root, &family, &architecture, err));
    CRIA_TRY(check_refused_keys(root, family, err));
    cria_config_init(out, family);
    snprintf(out->architecture, sizeof out->architecture, "%s", architecture);
    CRIA_TRY(read_type(root, out, err));
    CRIA_TRY(family == CRIA_FAMILY_OPT ? read_opt(root, out, err) : read_llama(root, out, err));
    return cria_config_check(out, err);
}

cria_status cria_config_from_json(const cria_json_value *root, cria_model_config *out, cria_error *err) {
    cria_status status = read_root(root, out, err);
    /* The JSON getters blame the caller for a bad value; here the file is to blame. */
    if (status == CRIA_ERR_ARGUMENT) {
        status = CRIA_ERR_FORMAT;
        if (err) err->status = status;
    }
    return status;
}

/* The members that vLLM takes from the file too; do_sample counts for nothing there. */
static cria_status read_sampling(const cria_json_value *root, cria_sampling_defaults *out, cria_error *err) {
    CRIA_TRY(cria_json_get_double(root, "temperature", -1, 0, 1000, &out->temperature, err));
    CRIA_TRY(cria_json_get_double(root, "top_p", -1, 1e-6, 1, &out->top_p, err));
    CRIA_TRY(cria_json_get_double(root, "min_p", -1, 0, 1, &out->min_p, err));
    CRIA_TRY(cria_json_get_double(root, "repetition_penalty", -1, 1e-6, 1000, &out->repetition_penalty, err));
    CRIA_TRY(cria_json_get_int(root, "top_k", -1, -1, INT32_MAX, &out->top_k, err));
    return cria_json_get_int(root, "max_new_tokens", -1, 1, INT32_MAX, &out->max_new_tokens, err);
}

/* generate() of transformers stops at generation_config.json's ids alone where that file has any. */
static cria_status read_generation_config(const char *path, cria_model_config *out, cria_error *err) {
    cria_json *json = NULL;
    CRIA_TRY(cria_json_parse_file(path, CONFIG_LIMIT_BYTES, &json, err));
    const cria_json_value *root = cria_json_root(json);
    cria_status status = CRIA_OK;
    if (cria_json_get(root, "eos_token_id")) status = read_eos(root, -1, out, err);
    if (status == CRIA_OK) status = read_sampling(root, &out->sampling, err);
    if (status == CRIA_OK) status = cria_config_check(out, err);
    if (status != CRIA_OK) cria_fail_within(err, path);
    cria_json_destroy(json);
    return status == CRIA_ERR_ARGUMENT ? CRIA_ERR_FORMAT : status;
}

cria_status cria_config_read(const char *folder, cria_model_config *out, cria_error *err) {
    char path[PATH_BYTES], generation[PATH_BYTES];
    CRIA_TRY(cria_path_join(folder, "config.json", path, sizeof path, err));
    CRIA_TRY(cria_path_join(folder, "generation_config.json", generation, sizeof generation, err));
    if (!cria_path_is_file(path)) {
        char alpa[PATH_BYTES];
        CRIA_TRY(cria_path_join(folder, "decoder.embed_tokens.weight", alpa, sizeof alpa, err));
        if (cria_path_is_file(alpa)) return cria_config_from_alpa_name(folder, out, err);
        return cria_fail(err, CRIA_ERR_NOT_FOUND, "%s: has no config.json", folder);
    }
    cria_json *json = NULL;
    CRIA_TRY(cria_json_parse_file(path, CONFIG_LIMIT_BYTES, &json, err));
    cria_status status = cria_config_from_json(cria_json_root(json), out, err);
    if (status != CRIA_OK) cria_fail_within(err, path);
    cria_json_destroy(json);
    if (status == CRIA_OK && cria_path_is_file(generation)) status = read_generation_config(generation, out, err);
    return status;
}
