/* Model configuration: what a checkpoint says about its architecture, from config.json or GGUF metadata, checked.
 *
 * Plain data, made on the start-up thread. A key that changes results and that Cria does not honour is
 * CRIA_ERR_UNSUPPORTED and is named. Sources: transformers' OPTConfig and LlamaConfig (versions 4 and 5), gguf's
 * "llama" architecture. */
#ifndef CRIA_MODELS_CONFIG_H
#define CRIA_MODELS_CONFIG_H

#include "base/error.h"
#include "base/json.h"
#include "kernels/activation.h"
#include "kernels/tensor.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum { CRIA_FAMILY_OPT, CRIA_FAMILY_LLAMA } cria_family;

typedef enum { CRIA_ROPE_NONE, CRIA_ROPE_DEFAULT, CRIA_ROPE_LINEAR, CRIA_ROPE_LLAMA3 } cria_rope_kind;

typedef struct {
    cria_rope_kind kind;
    double theta;
    double factor;                            /* linear, llama3 */
    double low_freq_factor, high_freq_factor; /* llama3 */
    int64_t original_max_positions;           /* llama3 */
} cria_rope_config;

/* How the checkpoint wants to be sampled where a request does not say (generation_config.json); a negative number: it
 * has no wish. */
typedef struct {
    double temperature, top_p, min_p, repetition_penalty;
    int64_t top_k; /* 0: all */
    int64_t max_new_tokens;
} cria_sampling_defaults;

typedef struct {
    cria_family family;
    char architecture[64]; /* "OPTForCausalLM", "LlamaForCausalLM" */
    cria_type type;        /* the checkpoint's own numeric type (torch_dtype / dtype); F32 if it does not say */
    int64_t vocab, hidden, layers, heads, kv_heads, head_dim, ffn;
    int64_t max_positions; /* how many positions the model can address */
    cria_activation_name activation;
    bool tied_embeddings;
    bool bias;           /* OPT: enable_bias */
    bool attention_bias; /* Llama: on q, k, v and o */
    bool mlp_bias;       /* Llama */
    double norm_eps;
    /* OPT */
    bool norm_before;        /* do_layer_norm_before; false for 350M */
    bool norm_affine;        /* layer_norm_elementwise_affine */
    bool final_norm;         /* norm_before and not _remove_final_layer_norm */
    int64_t embed_dim;       /* word_embed_proj_dim; equal to hidden where there is no projection */
    int64_t position_offset; /* 2 for OPT */
    /* Llama */
    cria_rope_config rope;
    /* Tokens; -1 where absent. eos may be several (generation_config.json or a list in config.json). */
    int64_t bos, pad;
    int eos_count;
    int64_t eos[8];
    cria_sampling_defaults sampling;
    bool
        rope_interleaved_rows; /* GGUF llama stores q and k rows permuted for pairwise rotation; the loader undoes it */
} cria_model_config;

/* Reads folder/config.json (and generation_config.json for eos ids and sampling defaults if there is one). A folder of
 * Alpa's NPY files without a config.json is read by its name. */
cria_status cria_config_read(const char *folder, cria_model_config *out, cria_error *err);
/* From a parsed config.json object. */
cria_status cria_config_from_json(const cria_json_value *root, cria_model_config *out, cria_error *err);
/* From GGUF metadata ("llama"). Tied if the file has no output.weight; `type` is that of the first layer's query
 * weights. */
struct cria_gguf;
cria_status cria_config_from_gguf(const struct cria_gguf *gguf, cria_model_config *out, cria_error *err);
/* From the name of an Alpa weight folder: "125M_np", "opt-2.7b-np", ... */
cria_status cria_config_from_alpa_name(const char *folder, cria_model_config *out, cria_error *err);

const char *cria_activation_to_name(cria_activation_name activation);
/* CRIA_ERR_UNSUPPORTED for a name Cria does not know. */
cria_status cria_activation_from_name(const char *name, cria_activation_name *out, cria_error *err);

#endif
