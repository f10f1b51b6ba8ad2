/* What the readers of model configurations share; for models/config*.c only. */
#ifndef CRIA_MODELS_CONFIG_INTERNAL_H
#define CRIA_MODELS_CONFIG_INTERNAL_H

#include "models/config.h"

/* The limits of every count a configuration names: far over what exists, low enough that products fit int64. */
enum {
    CRIA_CONFIG_MAX_VOCAB = 1 << 24,
    CRIA_CONFIG_MAX_HIDDEN = 1 << 18,
    CRIA_CONFIG_MAX_LAYERS = 1 << 12,
    CRIA_CONFIG_MAX_HEADS = 1 << 12,
    CRIA_CONFIG_MAX_FFN = 1 << 22,
    CRIA_CONFIG_MAX_POSITIONS = 1 << 28
};

/* What both families start from: no special tokens, no rotation. */
void cria_config_init(cria_model_config *config, cria_family family);
/* Relations between the numbers (heads divide, head_dim even where it rotates, ids inside the vocabulary). */
cria_status cria_config_check(const cria_model_config *config, cria_error *err);
/* Adds an id unless it is negative or already there; more than eight are CRIA_ERR_UNSUPPORTED. */
cria_status cria_config_add_eos(cria_model_config *config, int64_t id, cria_error *err);

#endif
