/* /tokenize and /detokenize. Each appends the answer, or fills the error. */
#ifndef CRIA_SERVER_API_TOKENIZE_H
#define CRIA_SERVER_API_TOKENIZE_H

#include "server/api/api.h"
#include "server/api/error.h"

cria_status cria_tokenize(const cria_api *api, const char *body, size_t length, cria_text *out, cria_api_error *err);
cria_status cria_detokenize(const cria_api *api, const char *body, size_t length, cria_text *out, cria_api_error *err);

#endif
