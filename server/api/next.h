/* Alpa's /logprobs: {prompt, top_k, cache_id} -> the next token's log-probabilities. Only for generation.c. */
#ifndef CRIA_SERVER_API_NEXT_H
#define CRIA_SERVER_API_NEXT_H

#include "server/api/generation.h"

cria_status cria_next_read(cria_generation *generation, const cria_json_value *body, cria_api_error *err);
/* Takes the top entries of the one token. */
void cria_next_take(cria_choice *choice, const cria_event *event);

#endif
