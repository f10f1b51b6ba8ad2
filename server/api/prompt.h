/* Prompts: the four forms of `prompt` (text, texts, ids, lists of ids) become lists of ids. */
#ifndef CRIA_SERVER_API_PROMPT_H
#define CRIA_SERVER_API_PROMPT_H

#include "server/api/params.h"

typedef struct {
    int32_t *ids;
    size_t count;
    char *text; /* what `echo` shows; NULL where it was not asked for */
    size_t text_length;
    int32_t max_tokens; /* what this prompt leaves of the context, at most what was asked for */
} cria_prompt;

typedef struct {
    cria_prompt *items;
    size_t count;
} cria_prompts;

/* Reads body.prompt, tokenizes, truncates, and checks that each prompt fits. */
cria_status cria_prompts_read(const cria_api *api, const cria_json_value *body, const cria_params *params,
                              cria_prompts *out, cria_api_error *err);
/* One prompt from a chat template's text. */
cria_status cria_prompts_from_chat(const cria_api *api, const char *text, size_t length, const cria_params *params,
                                   cria_prompts *out, cria_api_error *err);
void cria_prompts_deinit(cria_prompts *prompts);

/* CRIA_OK unless so many bytes are certainly more ids than the model takes; to be asked before tokenizing. */
cria_status cria_prompt_check_bytes(const cria_api *api, size_t bytes, cria_api_error *err);

#endif
