/* Word lists of a request: stop strings, logit_bias and bad_words. Only for params.c. */
#ifndef CRIA_SERVER_API_WORDS_H
#define CRIA_SERVER_API_WORDS_H

#include "server/api/params.h"

cria_status cria_words_read_stops(const cria_api *api, const cria_json_value *body, cria_params *p,
                                  cria_api_error *err);
cria_status cria_words_read_biases(const cria_api *api, const cria_json_value *body, cria_params *p,
                                   cria_api_error *err);
cria_status cria_words_read_bad(const cria_api *api, const cria_json_value *body, cria_params *p, cria_api_error *err);

#endif
