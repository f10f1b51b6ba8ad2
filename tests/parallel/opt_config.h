/* The configuration that OPT's published checkpoints share, of any size, for tests. */
#ifndef CRIA_TESTS_PARALLEL_OPT_CONFIG_H
#define CRIA_TESTS_PARALLEL_OPT_CONFIG_H

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

#endif
