/* Choice: what one sequence has produced so far: text behind its stop strings, ids, log-probabilities, how it ended.
 * Owned by its generation; only the HTTP thread. */
#ifndef CRIA_SERVER_API_CHOICE_H
#define CRIA_SERVER_API_CHOICE_H

#include "base/text.h"
#include "server/api/api.h"
#include "server/api/params.h"
#include "server/api/prompt.h"
#include "server/engine/request.h"

typedef struct {
    /* JSON list items, comma after comma, since the last chunk (or since the start where nothing is streamed). Chat
     * uses `tokens` alone, for whole entries. */
    cria_text tokens, offsets, values, tops;
} cria_logprob_lists;

typedef struct cria_choice {
    size_t prompt; /* which of the prompts */
    size_t index;  /* in the response */
    void *owner;   /* the generation's user: what an engine event leads back to */

    /* Kept by http/: where the sequence is. */
    uint64_t engine_id;
    bool submitted, released; /* the engine took it; the engine sent its FINISH */
    uint64_t last_ns;         /* when the last token came; 0: none yet */

    cria_detokenizer *detokenizer;
    int32_t stop_state;
    cria_text held;       /* certain text that may yet turn out to be the start of a stop string */
    cria_text text;       /* free to go out and not yet gone */
    size_t code_points;   /* of the echoed prompt and all text so far: the next token's text_offset */
    int32_t generated;    /* tokens that count */
    cria_text ids;        /* JSON list items, as in cria_logprob_lists */
    cria_text incomplete; /* bytes of an unfinished code point at the end, for naming the next token */
    cria_logprob_lists logprobs;
    cria_text prompt_logprobs; /* JSON list items of the `prompt_logprobs` field */
    cria_detokenizer *prompt_detokenizer;
    size_t prompt_code_points;
    double logprob_sum; /* for best_of */
    bool begun;         /* a chunk went out */
    bool last_token;    /* the engine's FINISH should follow: the chunk waits for it */
    bool pending;       /* a token came whose chunk has not gone out */
    bool done;
    const char *finish_reason; /* static */
    int stop_string;           /* -1: none */
    int32_t stop_id;           /* -1: none */
} cria_choice;

/* `chat` decides the shape of the log-probabilities. */
cria_status cria_choice_init(cria_choice *choice, const cria_api *api, const cria_params *params,
                             const cria_prompt *prompt, bool chat, cria_api_error *err);
void cria_choice_deinit(cria_choice *choice);

/* Prompt log-probabilities. */
void cria_choice_prompt_event(cria_choice *choice, const cria_api *api, const cria_params *params,
                              const cria_prompt *prompt, const cria_event *event, bool chat);
/* A token. Afterwards `done` may be set by a stop string: then the engine is to be told. */
void cria_choice_token(cria_choice *choice, const cria_api *api, const cria_params *params, const cria_prompt *prompt,
                       const cria_event *event, bool chat);
/* The engine's last word. */
void cria_choice_finish(cria_choice *choice, const cria_api *api, const cria_params *params, const cria_event *event);

#endif
