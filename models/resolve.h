/* Resolve: what the user wrote as MODEL to a folder or file. Start-up thread. */
#ifndef CRIA_MODELS_RESOLVE_H
#define CRIA_MODELS_RESOLVE_H

#include "base/error.h"

#include <stddef.h>

/* Values of the environment, read by main; each may be NULL. */
typedef struct {
    const char *home, *xdg_cache_home, *hf_home, *hf_hub_cache;
} cria_model_places;

/* A folder, a .gguf file, a name from configs/models.json, or a hub id found in the local Hugging Face cache. The error
 * lists where it was looked for. */
cria_status cria_model_resolve(const char *model, const cria_model_places *places, char *out, size_t size,
                               cria_error *err);

#endif
