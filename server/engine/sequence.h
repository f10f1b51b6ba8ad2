/* Sequence: one request on its way through the engine: its tokens, its KV blocks, its sampling history.
 *
 * Born on the submitting thread, owned by the engine thread from then on; only the fields named so are shared, under
 * the inbox's lock. */
#ifndef CRIA_SERVER_ENGINE_SEQUENCE_H
#define CRIA_SERVER_ENGINE_SEQUENCE_H

#include "base/error.h"
#include "server/engine/engine.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct cria_sequence {
    cria_request *request;    /* owned; request->prompt grows to hold the generated tokens too */
    cria_event *finish_event; /* made at submission, so that the end can always be told */
    uint64_t id;

    /* Under the inbox's lock. */
    bool cancel_wanted, pause_wanted, signalled;
    struct cria_sequence *same_bucket, *inbox_next, *signal_previous, *signal_next;

    /* Engine thread only from here on. */
    bool queued, running; /* in the scheduler's waiting list; in its running list */
    bool paused, cancelled;
    struct cria_sequence *cancelled_next;
    struct cria_sequence *previous, *next; /* in one of these lists */
    uint64_t arrival;                      /* order of arrival */
    int lane;                              /* which of the engine's replicas it runs on */

    int32_t prompt_count;
    int32_t count;     /* tokens known: prompt and generated */
    int32_t max_count; /* prompt + max_tokens */
    int32_t computed;  /* tokens whose keys and values are in the blocks, or will be by a step that is under way */
    int32_t rows_done; /* prompt positions whose log-probability rows are done, or under way */
    int32_t under_way; /* steps with work of this sequence whose results are not there yet */
    int32_t *blocks;   /* [ceil(max_count / block_tokens)] */
    int32_t block_count;
    int32_t chained; /* how many of the blocks were entered into the prefix cache */
    uint64_t chain;  /* serial of the last of them; 0: none */

    bool has_history;
    cria_history *history; /* [history_most] each token once, in order of first occurrence */
    int32_t history_count;
    int32_t *history_index; /* open addressing: token -> its place in history; -1: empty */
    uint32_t history_mask;
    int32_t history_most, biases_most; /* the most entries that a row of this sequence may ever need */

    bool admitted_once, prompt_counted;
    int32_t cached_tokens; /* prompt tokens found in the prefix cache at the first admission */
    uint64_t submit_ns, start_ns, first_token_ns;
} cria_sequence;

/* Checks the request against the configuration (see cria_engine_submit), cuts its max_tokens, and makes a sequence that
 * owns it; on failure the request stays the caller's. Any thread. */
cria_status cria_sequence_create(const cria_engine_config *config, cria_request *request, cria_sequence **out,
                                 cria_error *err);
void cria_sequence_destroy(cria_sequence *sequence);

/* Allocates what the sequence needs while it runs: once, before it is first scheduled. False if memory is out. */
bool cria_sequence_prepare(cria_sequence *sequence, int64_t block_tokens);

static inline const int32_t *cria_sequence_tokens(const cria_sequence *sequence) {
    return sequence->request->prompt;
}
static inline int32_t cria_sequence_generated(const cria_sequence *sequence) {
    return sequence->count - sequence->prompt_count;
}
/* How many tokens are to be computed before the sequence can go on or end. Without generation the last prompt token is
 * not needed: its successor is nobody's target. */
static inline int32_t cria_sequence_wanted(const cria_sequence *sequence) {
    return sequence->max_count > sequence->prompt_count ? sequence->count : sequence->prompt_count - 1;
}
/* True while rows for prompt log-probabilities are still to be computed. */
static inline bool cria_sequence_wants_prompt_rows(const cria_sequence *sequence) {
    return sequence->request->sampling.prompt_logprobs >= 0 && sequence->rows_done < sequence->prompt_count - 1;
}
/* Appends a generated token and counts it in the history. */
void cria_sequence_append(cria_sequence *sequence, int32_t token);

/* A doubly linked list ordered by (priority, arrival). */
typedef struct {
    cria_sequence *first, *last;
    int64_t count, prompt_tokens;
} cria_sequence_list;
void cria_sequence_list_insert(cria_sequence_list *list, cria_sequence *sequence);
void cria_sequence_list_remove(cria_sequence_list *list, cria_sequence *sequence);

#endif
