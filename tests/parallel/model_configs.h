/* Configurations of published checkpoints, for tests: OPT's of any size, SmolLM2-135M's with any number of layers. */
#ifndef CRIA_TESTS_PARALLEL_MODEL_CONFIGS_H
#define CRIA_TESTS_PARALLEL_MODEL_CONFIGS_H

#include "models/config.h"

static inline cria_model_config opt_config(int64_t hidden, int64_t layers, int64_t heads) {
    return (cria_model_config){.family = CRIA_FAMILY_OPT,
                               .architecture = "OPTForCausalLM",
                               .vocab = 50272,
                               .hidden = hidden,
                               .layers = layers,
                               .heads = heads,
                               .kv_heads = heads,
                               .head_dim = hidden / heads,
                               .ffn = 4 * hidden,
                               .max_positions = 2048,
                               .activation = CRIA_ACT_RELU,
                               .tied_embeddings = true,
                               .bias = true,
                               .norm_eps = 1e-5F,
                               .norm_before = true,
                               .norm_affine = true,
                               .final_norm = true,
                               .embed_dim = hidden,
                               .position_offset = 2};
}

static inline cria_model_config smollm2_config(int64_t layers) {
    return (cria_model_config){.family = CRIA_FAMILY_LLAMA,
                               .architecture = "LlamaForCausalLM",
                               .vocab = 49152,
                               .hidden = 576,
                               .layers = layers,
                               .heads = 9,
                               .kv_heads = 3,
                               .head_dim = 64,
                               .ffn = 1536,
                               .max_positions = 8192,
                               .activation = CRIA_ACT_SILU,
                               .tied_embeddings = true,
                               .norm_eps = 1e-5,
                               .rope = {.kind = CRIA_ROPE_DEFAULT, .theta = 1e5}};
}

#endif
