/* From what a user calls a model to the path of its files. Reads the file system, no environment: main passes that in.
 * Any thread. */
#ifndef CRIA_MODELS_RESOLVE_H
#define CRIA_MODELS_RESOLVE_H

#include "base/error.h"

#include <stddef.h>

/* Where models may lie. Each member is the environment variable's value; NULL or empty where it is not set. */
typedef struct {
    const char *home;           /* HOME */
    const char *xdg_cache_home; /* XDG_CACHE_HOME; default $HOME/.cache */
    const char *hf_home;        /* HF_HOME; default <cache>/huggingface */
    const char *hf_hub_cache;   /* HF_HUB_CACHE; default <hf home>/hub */
    const char *models_file;    /* a models.json whose names go before the built-in ones; NULL for none */
} cria_model_places;

/* A name that Cria knows: either a file in <cache>/cria or an id of the Hugging Face hub. */
typedef struct {
    const char *name;
    const char *file, *hub; /* one of them is NULL */
} cria_known_model;

/* The table built in, equal to configs/models.json. The first row is the default model. */
const cria_known_model *cria_known_models(size_t *count);

/* MODEL is tried as: an existing folder or .gguf file, a name from models.json or the table, and a hub id "org/name"
 * whose snapshot of refs/main lies in the local Hugging Face cache. The path goes into out[size]. CRIA_ERR_NOT_FOUND
 * names the places that were looked at; a file that is no .gguf is CRIA_ERR_ARGUMENT. */
cria_status cria_model_resolve(const char *model, const cria_model_places *places, char *out, size_t size,
                               cria_error *err);

#endif
