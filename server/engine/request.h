/* Request: one sequence to generate, as the engine takes it. Plain data that owns its arrays.
 *
 * An HTTP request with n choices or several prompts is several of these. Made by the API layer on the HTTP thread;
 * ownership moves to the engine with cria_engine_submit. */
#ifndef CRIA_SERVER_ENGINE_REQUEST_H
#define CRIA_SERVER_ENGINE_REQUEST_H

#include "kernels/row.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Per-request sampling parameters, every one freely mixed in a batch. Names and meanings are vLLM's. */
typedef struct {
    float temperature, top_p, min_p;
    int32_t top_k; /* <= 0: all */
    float presence_penalty, frequency_penalty, repetition_penalty;
    int32_t no_repeat_ngram_size; /* 0: off */
    uint64_t seed;                /* always set: the API layer draws one where the client gave none */
    int32_t min_tokens, max_tokens;
    bool ignore_eos;
    int32_t logprobs;        /* top entries per generated token; -1: no log-probabilities at all */
    int32_t prompt_logprobs; /* top entries per prompt token; -1: none */
} cria_sampling;

typedef struct {
    uint64_t id;     /* 0: the engine gives one at submission (cria_engine_submit returns it) */
    void *user;      /* comes back in every event */
    int32_t *prompt; /* [prompt_count], >= 1 */
    size_t prompt_count;
    cria_sampling sampling;
    int32_t *stop_ids; /* end the sequence like EOS; the id itself is reported */
    size_t stop_count;
    cria_bias *biases; /* logit_bias */
    size_t bias_count;
    int32_t *allowed; /* allowed_token_ids; count 0: all */
    size_t allowed_count;
    int32_t *bad_words; /* concatenated id sequences */
    int32_t *bad_lengths;
    size_t bad_count;
    int32_t priority;    /* smaller runs first; 0 by default */
    uint64_t cache_salt; /* prefix-cache entries are shared only between equal salts */
} cria_request;

/* All zero but for neutral sampling values; NULL if memory is out. */
cria_request *cria_request_create(void);
/* Frees the arrays too (they come from malloc). */
void cria_request_destroy(cria_request *request);

typedef enum {
    CRIA_FINISH_NONE,
    CRIA_FINISH_STOP,   /* EOS or a stop id */
    CRIA_FINISH_LENGTH, /* max_tokens, or the model's length */
    CRIA_FINISH_ABORT,  /* cancelled */
    CRIA_FINISH_ERROR   /* the engine failed; `error` says why */
} cria_finish;

typedef struct {
    int32_t token, rank;
    float logprob;
    int32_t top_count;
} cria_token_logprob;

typedef enum {
    CRIA_EVENT_PROMPT, /* prompt log-probabilities of positions [first, first + count); position 0 has none */
    CRIA_EVENT_TOKEN,  /* one generated token; EOS or a stop id that ends the sequence has its own too */
    CRIA_EVENT_FINISH  /* the last event of every request, exactly once */
} cria_event_kind;

/* What the engine tells: owned by the receiver, free with cria_event_destroy. One allocation, the arrays included. */
typedef struct {
    cria_event_kind kind;
    uint64_t id;
    void *user;
    int32_t token; /* TOKEN; for FINISH with STOP: the id that ended it */
    bool has_logprobs;
    int32_t first, count;         /* PROMPT: positions; TOKEN: 0, 1 */
    cria_token_logprob *logprobs; /* [count] */
    int32_t top_stride;
    int32_t *top_ids; /* [count][top_stride] */
    float *top_logprobs;
    cria_finish finish;
    const char *error;                                      /* FINISH with ERROR: why; "" otherwise */
    int32_t prompt_tokens, cached_tokens, generated_tokens; /* FINISH */
    double queue_seconds, prefill_seconds, decode_seconds;  /* FINISH: for metrics and timings */
    uint64_t time_ns;                                       /* when the step that made it ended */
} cria_event;
void cria_event_destroy(cria_event *event);

#endif
