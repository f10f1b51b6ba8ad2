/* Events in one allocation: the struct, then its arrays. */
#include "server/engine/events.h"

#include "base/clock.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { ERROR_BYTES = 256 };

/* With log-probabilities of `count` rows from `row` on, `top` entries each. */
static cria_event *make(cria_event_kind kind, const cria_sequence *sequence, int32_t count, int32_t top) {
    size_t tops = (size_t)count * (size_t)top;
    size_t bytes = (size_t)count * sizeof(cria_token_logprob) + tops * (sizeof(int32_t) + sizeof(float));
    cria_event *event = malloc(sizeof *event + bytes);
    if (!event) return NULL;
    memset(event, 0, sizeof *event);
    event->error = "";
    event->kind = kind;
    event->id = sequence->id;
    event->user = sequence->request->user;
    event->count = count;
    if (!count) return event;
    event->has_logprobs = true;
    event->logprobs = (cria_token_logprob *)(void *)(event + 1);
    event->top_stride = top;
    event->top_ids = (int32_t *)(void *)(event->logprobs + count);
    event->top_logprobs = (float *)(void *)(event->top_ids + tops);
    return event;
}

static void fill_logprobs(cria_event *event, int32_t i, int32_t token, const cria_batch_result *result, int32_t row,
                          int64_t stride) {
    const cria_row_result *from = &result->result[row];
    int32_t top = from->top_count < event->top_stride ? from->top_count : event->top_stride;
    event->logprobs[i] = (cria_token_logprob){token, from->rank, from->logprob, top};
    int32_t *ids = event->top_ids + (size_t)i * (size_t)event->top_stride;
    float *logprobs = event->top_logprobs + (size_t)i * (size_t)event->top_stride;
    for (int32_t k = 0; k < event->top_stride; k++) {
        ids[k] = k < top ? result->top_ids[row * stride + k] : -1;
        logprobs[k] = k < top ? result->top_logprobs[row * stride + k] : 0.0f;
    }
}

cria_event *cria_event_prompt(const cria_work *work, const cria_batch_result *result, int64_t stride, uint64_t now_ns) {
    const cria_sequence *sequence = work->sequence;
    int32_t top = sequence->request->sampling.prompt_logprobs;
    cria_event *event = make(CRIA_EVENT_PROMPT, sequence, work->prompt_rows, top);
    if (!event) return NULL;
    event->first = work->prompt_first + 1;
    event->time_ns = now_ns;
    for (int32_t i = 0; i < work->prompt_rows; i++) {
        fill_logprobs(event, i, cria_sequence_tokens(sequence)[event->first + i], result, work->first_row + i, stride);
    }
    return event;
}

cria_event *cria_event_token(const cria_work *work, const cria_batch_result *result, int64_t stride, uint64_t now_ns) {
    int32_t row = work->first_row + work->prompt_rows, top = work->sequence->request->sampling.logprobs;
    cria_event *event = make(CRIA_EVENT_TOKEN, work->sequence, top >= 0 ? 1 : 0, top >= 0 ? top : 0);
    if (!event) return NULL;
    event->token = result->result[row].token;
    event->count = 1;
    event->time_ns = now_ns;
    if (top >= 0) fill_logprobs(event, 0, event->token, result, row, stride);
    return event;
}

cria_event *cria_event_reserve_finish(void *user) {
    cria_event *event = calloc(1, sizeof *event + ERROR_BYTES);
    if (!event) return NULL;
    event->kind = CRIA_EVENT_FINISH;
    event->user = user;
    event->error = "";
    return event;
}

cria_event *cria_event_finish(cria_sequence *sequence, cria_finish finish, int32_t token, const char *error,
                              uint64_t now_ns) {
    cria_event *event = sequence->finish_event;
    assert(event);
    sequence->finish_event = NULL;
    event->finish = finish;
    event->token = token;
    if (error) {
        char *text = (char *)(event + 1);
        strncpy(text, error, ERROR_BYTES - 1);
        event->error = text;
    }
    event->prompt_tokens = sequence->prompt_count;
    event->cached_tokens = sequence->cached_tokens;
    event->generated_tokens = cria_sequence_generated(sequence);
    event->time_ns = now_ns;
    uint64_t start = sequence->start_ns ? sequence->start_ns : now_ns;
    uint64_t first = sequence->first_token_ns ? sequence->first_token_ns : now_ns;
    event->queue_seconds = cria_seconds_between(sequence->submit_ns, start);
    event->prefill_seconds = cria_seconds_between(start, first);
    event->decode_seconds = cria_seconds_between(first, now_ns);
    return event;
}
