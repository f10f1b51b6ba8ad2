/* Sampling rows: what one row of logits is wanted for, and what comes back. Flat plain data that may be sent to a rank.
 */
#ifndef CRIA_KERNELS_ROW_H
#define CRIA_KERNELS_ROW_H

#include <stdint.h>

/* A range of one of the batch's side arrays. */
typedef struct {
    int32_t begin, count;
} cria_span;

/* A token that occurred in the sequence: for the penalties. Unique per row. */
typedef struct {
    int32_t token;
    int32_t output_count; /* how often it was generated; 0: it stands in the prompt only */
} cria_history;

typedef struct {
    int32_t token;
    float bias; /* added to the logit; -INFINITY bans the token */
} cria_bias;

typedef struct {
    int32_t sample; /* 1: choose a token; 0: only log-probabilities */
    int32_t target; /* a token whose log-probability and rank are wanted (prompt log-probabilities); -1: the chosen */
    int32_t top_logprobs; /* how many of the most likely tokens to report, 0 .. top stride */
    float temperature;    /* < 1e-5: greedy (the lowest id among equals) */
    int32_t top_k;        /* <= 0: all */
    float top_p, min_p;   /* 1 and 0: off */
    float repetition_penalty, presence_penalty, frequency_penalty; /* 1, 0, 0: off */
    uint64_t seed,
        counter;       /* the random number depends on these alone; counter: how many tokens were generated before */
    cria_span history; /* of cria_history; only filled where a penalty is on */
    cria_span biases;  /* of cria_bias: logit_bias, bad words, min_tokens, no_repeat_ngram */
    cria_span allowed; /* of int32_t ids: if count > 0 nothing else may be chosen */
} cria_row;

typedef struct {
    int32_t token; /* the chosen token; -1 where nothing was to be sampled */
    int32_t rank;  /* 1 + how many tokens have a larger raw logit than the reported one */
    float logprob; /* of the chosen token, or of `target` where that is >= 0; raw log-softmax, before any change */
    int32_t top_count;
} cria_row_result;

#endif
