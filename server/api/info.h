/* What the server says about itself. Each appends one JSON object. */
#ifndef CRIA_SERVER_API_INFO_H
#define CRIA_SERVER_API_INFO_H

#include "server/api/api.h"

void cria_info_models(const cria_api *api, cria_text *out);
void cria_info_version(const cria_api *api, cria_text *out);
void cria_info_tokenizer(const cria_api *api, cria_text *out);

#endif
