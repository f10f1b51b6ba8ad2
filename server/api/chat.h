/* Chat: messages to a prompt, by the checkpoint's template. */
#ifndef CRIA_SERVER_API_CHAT_H
#define CRIA_SERVER_API_CHAT_H

#include "server/api/generation.h"

/* Reads body.messages into the generation's one prompt, its role and its prefix. */
cria_status cria_chat_read(cria_generation *generation, const cria_json_value *body, cria_api_error *err);

/* Renders body.messages (with add_generation_prompt and continue_final_message): for /tokenize. `role` may be NULL. */
cria_status cria_chat_render(const cria_api *api, const cria_json_value *body, cria_text *out, char role[16],
                             cria_text *last, cria_api_error *err);

#endif
