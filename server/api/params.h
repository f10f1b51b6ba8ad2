/* Sampling parameters of a request, read, checked and kept in the form that every choice's cria_request is made from.
 */
#ifndef CRIA_SERVER_API_PARAMS_H
#define CRIA_SERVER_API_PARAMS_H

#include "base/json.h"
#include "server/api/api.h"
#include "server/api/error.h"
#include "server/api/stop.h"
#include "server/engine/request.h"

typedef struct {
    cria_sampling sampling; /* max_tokens is checked against each prompt later; see has_max_tokens */
    bool has_max_tokens;
    int64_t max_tokens; /* as asked for; 0 only with echo */
    bool has_seed;
    int64_t n, best_of;
    int32_t *stop_ids, *allowed;
    size_t stop_id_count, allowed_count;
    cria_bias *biases;
    size_t bias_count;
    int32_t *bad_words, *bad_lengths;
    size_t bad_count;
    cria_stops *stops; /* NULL: none */
    int32_t priority;
    uint64_t cache_salt;
    bool show_logprobs; /* asked for, not only needed to rank best_of */
    bool include_stop, skip_special, echo, stream, include_usage, continuous_usage;
    bool token_ids_as_text; /* return_tokens_as_token_ids */
    bool return_ids;        /* return_token_ids */
    int64_t truncate;       /* truncate_prompt_tokens: -1 off, else the last so many ids */
    bool add_special;       /* add_special_tokens */
    const char *label;      /* request_id, borrowed from the body; NULL: none */
} cria_params;

/* `chat`: the chat route's spellings (max_completion_tokens; logprobs true + top_logprobs). */
cria_status cria_params_read(const cria_api *api, const cria_json_value *body, bool chat, cria_params *out,
                             cria_api_error *err);
void cria_params_deinit(cria_params *params);

/* CRIA_OK where `model` is absent or known, else 404. */
cria_status cria_params_check_model(const cria_api *api, const cria_json_value *body, cria_api_error *err);

/* Fills sampling.max_tokens for a prompt of so many ids, or says that they do not fit. */
cria_status cria_params_fit(const cria_api *api, const cria_params *params, size_t prompt_count, int32_t *max_tokens,
                            cria_api_error *err);

#endif
