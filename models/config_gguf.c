/* Model configuration from the metadata of a GGUF file of architecture "llama". */
#include "models/config.h"
#include "models/config_internal.h"
#include "models/gguf.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* A key that has no default: absent is an error that names it. */
static cria_status need_int(const cria_gguf *gguf, const char *key, int64_t max, int64_t *out, cria_error *err) {
    if (cria_gguf_type_of(gguf, key) == CRIA_GGUF_ABSENT) {
        return cria_fail(err, CRIA_ERR_FORMAT, "the GGUF metadata has no %s", key);
    }
    if (cria_gguf_type_of(gguf, key) == CRIA_GGUF_ARRAY) {
        return cria_fail(err, CRIA_ERR_UNSUPPORTED, "%s differs from layer to layer, which is not supported", key);
    }
    return cria_gguf_get_int(gguf, key, 0, 1, max, out, err);
}

static cria_status read_sizes(const cria_gguf *gguf, cria_model_config *out, cria_error *err) {
    int64_t tokens = (int64_t)cria_gguf_array_count(gguf, "tokenizer.ggml.tokens");
    CRIA_TRY(need_int(gguf, "llama.embedding_length", CRIA_CONFIG_MAX_HIDDEN, &out->hidden, err));
    CRIA_TRY(need_int(gguf, "llama.block_count", CRIA_CONFIG_MAX_LAYERS, &out->layers, err));
    CRIA_TRY(need_int(gguf, "llama.feed_forward_length", CRIA_CONFIG_MAX_FFN, &out->ffn, err));
    CRIA_TRY(need_int(gguf, "llama.attention.head_count", CRIA_CONFIG_MAX_HEADS, &out->heads, err));
    CRIA_TRY(need_int(gguf, "llama.context_length", CRIA_CONFIG_MAX_POSITIONS, &out->max_positions, err));
    out->kv_heads = out->heads;
    if (cria_gguf_type_of(gguf, "llama.attention.head_count_kv") != CRIA_GGUF_ABSENT) {
        CRIA_TRY(need_int(gguf, "llama.attention.head_count_kv", out->heads, &out->kv_heads, err));
    }
    /* The rows of the embedding decide: vocab_size is not always written, and padding rows are not always counted. */
    const cria_gguf_tensor *embedding = cria_gguf_tensor_find(gguf, "token_embd.weight");
    if (embedding && embedding->dims == 2) tokens = embedding->shape[0];
    if (tokens == 0) CRIA_TRY(need_int(gguf, "llama.vocab_size", CRIA_CONFIG_MAX_VOCAB, &tokens, err));
    if (tokens < 1 || tokens > CRIA_CONFIG_MAX_VOCAB) {
        return cria_fail(err, CRIA_ERR_FORMAT, "the vocabulary has %" PRId64 " tokens, outside 1 to %d", tokens,
                         CRIA_CONFIG_MAX_VOCAB);
    }
    out->vocab = tokens;
    int64_t value_length;
    CRIA_TRY(cria_gguf_get_int(gguf, "llama.attention.key_length", 0, 1, CRIA_CONFIG_MAX_HIDDEN, &out->head_dim, err));
    if (out->head_dim == 0 && out->hidden % out->heads != 0) {
        return cria_fail(err, CRIA_ERR_FORMAT,
                         "llama.embedding_length %" PRId64 " is not a multiple of llama.attention.head_count %" PRId64,
                         out->hidden, out->heads);
    }
    if (out->head_dim == 0) out->head_dim = out->hidden / out->heads;
    CRIA_TRY(cria_gguf_get_int(gguf, "llama.attention.value_length", out->head_dim, 1, CRIA_CONFIG_MAX_HIDDEN,
                               &value_length, err));
    if (value_length != out->head_dim) {
        return cria_fail(err, CRIA_ERR_UNSUPPORTED,
                         "llama.attention.value_length is %" PRId64 ", which is not supported beside keys of %" PRId64,
                         value_length, out->head_dim);
    }
    out->embed_dim = out->hidden;
    return CRIA_OK;
}

/* Converters bake Llama 3's scaling into a tensor of divisors, one per pair of a head, and drop its four parameters.
 * The first divisor is 1 and the last is the factor; the other three have had one value in every published model. If
 * these give the tensor back, they are what it was made of. */
static cria_status read_rope_freqs(const cria_gguf_tensor *tensor, cria_model_config *out, cria_error *err) {
    cria_rope_config *rope = &out->rope;
    int64_t pairs = out->head_dim / 2;
    if (tensor->type != CRIA_F32 || tensor->dims != 1 || tensor->shape[0] != pairs || pairs < 1) {
        return cria_fail(err, CRIA_ERR_FORMAT, "tensor rope_freqs.weight: is not %" PRId64 " values of f32", pairs);
    }
    float last;
    cria_to_f32(tensor->type, tensor->data, pairs - 1, 1, &last);
    bool fits = last >= 1.0f && last <= 1e6f;
    const double low = 1, high = 4, original = 8192;
    for (int64_t i = 0; fits && i < pairs; i++) {
        float divisor;
        cria_to_f32(tensor->type, tensor->data, i, 1, &divisor);
        double wavelength = 2 * M_PI * pow(rope->theta, (double)(2 * i) / (double)out->head_dim);
        double smooth = (original / wavelength - low) / (high - low), factor = (double)last, expected;
        if (wavelength < original / high)
            expected = 1;
        else if (wavelength > original / low)
            expected = factor;
        else
            expected = 1 / ((1 - smooth) / factor + smooth);
        fits = fabs((double)divisor - expected) <= 1e-3 * expected;
    }
    if (!fits) {
        return cria_fail(err, CRIA_ERR_UNSUPPORTED,
                         "tensor rope_freqs.weight: is not the scaling of Llama 3, no other is supported");
    }
    rope->kind = last > 1.0f ? CRIA_ROPE_LLAMA3 : CRIA_ROPE_DEFAULT;
    rope->factor = (double)last;
    rope->low_freq_factor = low;
    rope->high_freq_factor = high;
    rope->original_max_positions = (int64_t)original;
    return CRIA_OK;
}

static cria_status read_rope(const cria_gguf *gguf, cria_model_config *out, cria_error *err) {
    cria_rope_config *rope = &out->rope;
    const char *type;
    int64_t rotated;
    double linear;
    rope->kind = CRIA_ROPE_DEFAULT;
    CRIA_TRY(cria_gguf_get_double(gguf, "llama.rope.freq_base", 10000, 1, 1e12, &rope->theta, err));
    CRIA_TRY(
        cria_gguf_get_int(gguf, "llama.rope.dimension_count", out->head_dim, 0, CRIA_CONFIG_MAX_HIDDEN, &rotated, err));
    if (rotated != out->head_dim) {
        return cria_fail(err, CRIA_ERR_UNSUPPORTED,
                         "llama.rope.dimension_count is %" PRId64 " of a head's %" PRId64 ", which is not supported",
                         rotated, out->head_dim);
    }
    CRIA_TRY(cria_gguf_get_double(gguf, "llama.rope.scale_linear", 1, 1, 1e6, &linear, err)); /* of older converters */
    CRIA_TRY(cria_gguf_get_string(gguf, "llama.rope.scaling.type", linear != 1 ? "linear" : "none", &type, err));
    if (strcmp(type, "linear") == 0) {
        CRIA_TRY(cria_gguf_get_double(gguf, "llama.rope.scaling.factor", linear, 1, 1e6, &rope->factor, err));
        rope->kind = rope->factor != 1 ? CRIA_ROPE_LINEAR : CRIA_ROPE_DEFAULT;
    } else if (strcmp(type, "none") != 0) {
        return cria_fail(err, CRIA_ERR_UNSUPPORTED, "llama.rope.scaling.type is \"%s\", which is not supported", type);
    }
    const cria_gguf_tensor *divisors = cria_gguf_tensor_find(gguf, "rope_freqs.weight");
    if (!divisors) return CRIA_OK;
    if (rope->kind == CRIA_ROPE_LINEAR) {
        return cria_fail(err, CRIA_ERR_UNSUPPORTED, "rope_freqs.weight together with linear scaling is not supported");
    }
    return read_rope_freqs(divisors, out, err);
}

/* Ends of text: the eos token and, of chat models, the end of a turn and of a message. */
static cria_status read_tokens(const cria_gguf *gguf, cria_model_config *out, cria_error *err) {
    static const char *const ends[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    CRIA_TRY(cria_gguf_get_int(gguf, "tokenizer.ggml.bos_token_id", -1, 0, out->vocab - 1, &out->bos, err));
    CRIA_TRY(cria_gguf_get_int(gguf, "tokenizer.ggml.padding_token_id", -1, 0, out->vocab - 1, &out->pad, err));
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        int64_t id;
        CRIA_TRY(cria_gguf_get_int(gguf, ends[i], -1, 0, out->vocab - 1, &id, err));
        CRIA_TRY(cria_config_add_eos(out, id, err));
    }
    return CRIA_OK;
}

cria_status cria_config_from_gguf(const struct cria_gguf *gguf, cria_model_config *out, cria_error *err) {
    const char *architecture;
    int64_t experts;
    CRIA_TRY(cria_gguf_get_string(gguf, "general.architecture", "", &architecture, err));
    if (strcmp(architecture, "llama") != 0) {
        return cria_fail(err, CRIA_ERR_UNSUPPORTED, "the GGUF architecture \"%s\" is not supported (llama is)",
                         architecture);
    }
    cria_config_init(out, CRIA_FAMILY_LLAMA);
    memcpy(out->architecture, "LlamaForCausalLM", sizeof "LlamaForCausalLM");
    CRIA_TRY(cria_gguf_get_int(gguf, "llama.expert_count", 0, 0, INT32_MAX, &experts, err));
    if (experts > 0) {
        return cria_fail(err, CRIA_ERR_UNSUPPORTED, "llama.expert_count is %" PRId64 ", which is not supported",
                         experts);
    }
    CRIA_TRY(read_sizes(gguf, out, err));
    CRIA_TRY(read_rope(gguf, out, err));
    CRIA_TRY(cria_gguf_get_double(gguf, "llama.attention.layer_norm_rms_epsilon", 1e-5, 0, 1, &out->norm_eps, err));
    CRIA_TRY(read_tokens(gguf, out, err));
    /* The metadata says nothing of these; the tensors do. */
    const cria_gguf_tensor *weight = cria_gguf_tensor_find(gguf, "blk.0.attn_q.weight");
    if (weight) out->type = weight->type;
    out->activation = CRIA_ACT_SILU;
    out->tied_embeddings = cria_gguf_tensor_find(gguf, "output.weight") == NULL;
    out->attention_bias = cria_gguf_tensor_find(gguf, "blk.0.attn_q.bias") != NULL;
    out->mlp_bias = cria_gguf_tensor_find(gguf, "blk.0.ffn_up.bias") != NULL;
    out->rope_interleaved_rows = true;
    return cria_config_check(out, err);
}
