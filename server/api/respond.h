/* Response objects of the generating routes. Only for generation.c. */
#ifndef CRIA_SERVER_API_RESPOND_H
#define CRIA_SERVER_API_RESPOND_H

#include "server/api/generation.h"

/* The whole body of a completion, a chat completion, an answer to Alpa's /logprobs. */
void cria_respond_completion(cria_generation *generation, cria_text *out);
void cria_respond_chat(cria_generation *generation, cria_text *out);
void cria_respond_next(cria_generation *generation, cria_text *out);

/* One chunk of a stream with what the choice has ready. */
void cria_respond_completion_chunk(cria_generation *generation, cria_choice *choice, cria_text *out);
void cria_respond_chat_chunk(cria_generation *generation, cria_choice *choice, cria_text *out);
/* The chunks that say who speaks, before the first chat chunk. */
void cria_respond_chat_begin(cria_generation *generation, cria_text *out);
/* The last chunk, where usage was asked for. */
void cria_respond_usage_chunk(cria_generation *generation, cria_text *out);

#endif
