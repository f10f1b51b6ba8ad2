/* Log-probabilities as JSON, in the two shapes that OpenAI has: parallel lists, and a list of entries. */
#ifndef CRIA_SERVER_API_LOGPROB_H
#define CRIA_SERVER_API_LOGPROB_H

#include "server/api/choice.h"

/* JSON has no infinities; clients take -9999 for "impossible". */
double cria_logprob_finite(float logprob);

/* How a token is shown after text whose last, unfinished code point has the bytes in `incomplete`: "" where the code
 * point is still unfinished, the whole code point with the token that completes it; special tokens as they are stored;
 * "token_id:5" where the request asks for that. Appends to *out, valid UTF-8. */
void cria_token_text(const cria_api *api, bool as_ids, const cria_text *incomplete, int32_t id, cria_text *out);
/* What `incomplete` becomes after this token. */
void cria_token_advance(const cria_api *api, int32_t id, cria_text *incomplete);

/* One position of an event: which entry, and how many of its alternatives were asked for. */
typedef struct {
    const cria_event *event;
    int entry;
    int32_t token, top;
} cria_logprob_at;

/* Appends the position to the lists (parallel ones, or chat entries). */
void cria_logprob_add(const cria_api *api, const cria_params *params, const cria_text *incomplete, cria_logprob_at at,
                      size_t text_offset, bool chat, cria_logprob_lists *lists);
/* The first position of an echoed prompt: it has no log-probability. */
void cria_logprob_add_null(const cria_api *api, const cria_params *params, int32_t token, cria_logprob_lists *lists);
/* {"133":{"logprob":...,"rank":...,"decoded_token":...},...}: a position as the `prompt_logprobs` field has it. */
void cria_logprob_prompt_entry(const cria_api *api, const cria_text *incomplete, cria_logprob_at at, cria_text *out);

/* Writes `"logprobs":` with its value and empties the lists; null where `wanted` is false. */
void cria_logprob_write(cria_logprob_lists *lists, bool wanted, bool chat, cria_text *out);

#endif
