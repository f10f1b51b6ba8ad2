/* Sequences: admission checks, growth by one token, and ordered lists. */
#include "server/engine/sequence.h"

#include "base/clock.h"
#include "server/engine/events.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int64_t min64(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* The longest sequence the model, the block tables and the pool allow. */
static int64_t longest(const cria_engine_config *config) {
    int64_t blocks = min64(config->blocks, config->limits.blocks_per_sequence);
    return min64(config->max_model_len, blocks * config->block_tokens);
}

static cria_status check_ids(const cria_engine_config *config, const char *name, const int32_t *ids, size_t count,
                             cria_error *err) {
    for (size_t i = 0; i < count; i++) {
        if (ids[i] >= 0 && ids[i] < config->vocab) continue;
        return cria_fail(err, CRIA_ERR_ARGUMENT, "%s: token id %d is out of range, the vocabulary has %lld", name,
                         ids[i], (long long)config->vocab);
    }
    return CRIA_OK;
}

static cria_status check_length(const cria_engine_config *config, const cria_request *request, cria_error *err) {
    int64_t room = longest(config), reply = request->sampling.max_tokens > 0;
    if (request->prompt_count < 1) return cria_fail(err, CRIA_ERR_ARGUMENT, "the prompt is empty");
    if (request->prompt_count > INT32_MAX / 2 || (int64_t)request->prompt_count + reply > config->max_model_len) {
        return cria_fail(err, CRIA_ERR_ARGUMENT,
                         "the prompt has %zu tokens, the model's maximum length is %lld tokens with the reply",
                         request->prompt_count, (long long)config->max_model_len);
    }
    if ((int64_t)request->prompt_count + reply > room) {
        return cria_fail(err, CRIA_ERR_ARGUMENT, "the prompt has %zu tokens, the KV cache has room for %lld",
                         request->prompt_count, (long long)room);
    }
    if (request->sampling.max_tokens < 0) {
        return cria_fail(err, CRIA_ERR_ARGUMENT, "max_tokens is %d, must be at least 0", request->sampling.max_tokens);
    }
    return CRIA_OK;
}

static cria_status check_top(const cria_engine_config *config, const char *name, int32_t value, cria_error *err) {
    if (value <= config->limits.top_logprobs) return CRIA_OK;
    return cria_fail(err, CRIA_ERR_ARGUMENT, "%s is %d, the limit is %lld", name, value,
                     (long long)config->limits.top_logprobs);
}

static cria_status check_entries(const char *name, int64_t value, int64_t limit, cria_error *err) {
    if (value <= limit) return CRIA_OK;
    return cria_fail(err, CRIA_ERR_ARGUMENT, "%s may need %lld entries, the limit is %lld", name, (long long)value,
                     (long long)limit);
}

static cria_status check_bad_words(const cria_engine_config *config, const cria_request *request, cria_error *err) {
    size_t total = 0;
    for (size_t i = 0; i < request->bad_count; i++) {
        if (request->bad_lengths[i] < 1) return cria_fail(err, CRIA_ERR_ARGUMENT, "bad_words: entry %zu is empty", i);
        total += (size_t)request->bad_lengths[i];
    }
    return check_ids(config, "bad_words", request->bad_words, total, err);
}

static cria_status check_arrays(const cria_engine_config *config, const cria_request *request, cria_error *err) {
    CRIA_TRY(check_ids(config, "prompt", request->prompt, request->prompt_count, err));
    CRIA_TRY(check_ids(config, "allowed_token_ids", request->allowed, request->allowed_count, err));
    for (size_t i = 0; i < request->bias_count; i++) {
        float bias = request->biases[i].bias;
        CRIA_TRY(check_ids(config, "logit_bias", &request->biases[i].token, 1, err));
        if (isnan(bias) || bias == INFINITY) return cria_fail(err, CRIA_ERR_ARGUMENT, "logit_bias is not a number");
    }
    CRIA_TRY(check_bad_words(config, request, err));
    CRIA_TRY(check_top(config, "logprobs", request->sampling.logprobs, err));
    return check_top(config, "prompt_logprobs", request->sampling.prompt_logprobs, err);
}

static bool needs_history(const cria_sampling *sampling) {
    return sampling->repetition_penalty != 1.0f || sampling->presence_penalty != 0.0f ||
           sampling->frequency_penalty != 0.0f;
}

/* The most side-array entries of any row; a sequence is only admitted where they fit beside those of the others. */
static cria_status find_needs(const cria_engine_config *config, cria_sequence *sequence, cria_error *err) {
    const cria_request *request = sequence->request;
    const cria_batch_limits *limits = &config->limits;
    int64_t history = 0, biases = (int64_t)request->bias_count + (int64_t)request->bad_count;
    sequence->has_history = needs_history(&request->sampling);
    if (sequence->has_history) history = min64(sequence->max_count, config->vocab);
    if (request->sampling.min_tokens > 0) biases += config->eos_count + (int64_t)request->stop_count;
    if (request->sampling.no_repeat_ngram_size > 0) biases += sequence->max_count;
    CRIA_TRY(check_entries("penalties", history, limits->history, err));
    CRIA_TRY(check_entries("logit_bias, bad_words, min_tokens and no_repeat_ngram_size together", biases,
                           limits->biases, err));
    CRIA_TRY(check_entries("allowed_token_ids", (int64_t)request->allowed_count, limits->allowed, err));
    sequence->history_most = (int32_t)history;
    sequence->biases_most = (int32_t)biases;
    return CRIA_OK;
}

cria_status cria_sequence_create(const cria_engine_config *config, cria_request *request, cria_sequence **out,
                                 cria_error *err) {
    *out = NULL;
    CRIA_TRY(check_length(config, request, err));
    CRIA_TRY(check_arrays(config, request, err));
    cria_sequence *sequence = calloc(1, sizeof *sequence);
    cria_event *finish = cria_event_reserve_finish(request->user);
    if (!sequence || !finish) {
        free(sequence);
        free(finish);
        return cria_fail(err, CRIA_ERR_MEMORY, "no memory for a sequence");
    }
    int64_t room = longest(config) - (int64_t)request->prompt_count;
    if (request->sampling.max_tokens > room) request->sampling.max_tokens = (int32_t)room;
    sequence->request = request;
    sequence->finish_event = finish;
    sequence->prompt_count = sequence->count = (int32_t)request->prompt_count;
    sequence->max_count = sequence->prompt_count + request->sampling.max_tokens;
    cria_status status = find_needs(config, sequence, err);
    if (status != CRIA_OK) {
        free(sequence);
        free(finish);
        return status;
    }
    sequence->submit_ns = cria_clock_ns();
    *out = sequence;
    return CRIA_OK;
}

void cria_sequence_destroy(cria_sequence *sequence) {
    if (!sequence) return;
    cria_request_destroy(sequence->request);
    cria_event_destroy(sequence->finish_event);
    free(sequence->blocks);
    free(sequence->history);
    free(sequence->history_index);
    free(sequence);
}

/* Counts one token; `generated` 1 or 0. */
static void count_token(cria_sequence *sequence, int32_t token, int32_t generated) {
    uint32_t at = ((uint32_t)token * UINT32_C(2654435769)) & sequence->history_mask;
    for (; sequence->history_index[at] >= 0; at = (at + 1) & sequence->history_mask) {
        cria_history *known = &sequence->history[sequence->history_index[at]];
        if (known->token != token) continue;
        known->output_count += generated;
        return;
    }
    sequence->history_index[at] = sequence->history_count;
    sequence->history[sequence->history_count++] = (cria_history){.token = token, .output_count = generated};
}

static bool prepare_history(cria_sequence *sequence) {
    uint32_t slots = 16;
    while (slots < (uint32_t)sequence->history_most * 2) slots *= 2;
    sequence->history = malloc((size_t)sequence->history_most * sizeof *sequence->history);
    sequence->history_index = malloc(slots * sizeof *sequence->history_index);
    if (!sequence->history || !sequence->history_index) return false;
    sequence->history_mask = slots - 1;
    for (uint32_t i = 0; i < slots; i++) sequence->history_index[i] = -1;
    for (int32_t i = 0; i < sequence->prompt_count; i++) count_token(sequence, cria_sequence_tokens(sequence)[i], 0);
    return true;
}

bool cria_sequence_prepare(cria_sequence *sequence, int64_t block_tokens) {
    size_t blocks = ((size_t)sequence->max_count + (size_t)block_tokens - 1) / (size_t)block_tokens;
    int32_t *tokens = realloc(sequence->request->prompt, (size_t)sequence->max_count * sizeof *tokens);
    if (!tokens) return false;
    sequence->request->prompt = tokens;
    sequence->blocks = malloc(blocks * sizeof *sequence->blocks);
    if (!sequence->blocks) return false;
    return !sequence->has_history || prepare_history(sequence);
}

void cria_sequence_append(cria_sequence *sequence, int32_t token) {
    sequence->request->prompt[sequence->count++] = token;
    if (sequence->has_history) count_token(sequence, token, 1);
}

static bool before(const cria_sequence *a, const cria_sequence *b) {
    if (a->request->priority != b->request->priority) return a->request->priority < b->request->priority;
    return a->arrival < b->arrival;
}

void cria_sequence_list_insert(cria_sequence_list *list, cria_sequence *sequence) {
    cria_sequence *after = list->last, *next = NULL;
    /* New requests belong near the end, preempted ones near the start. */
    if (list->first && before(sequence, list->first)) after = NULL;
    while (after && before(sequence, after)) after = after->previous;
    next = after ? after->next : list->first;
    sequence->previous = after;
    sequence->next = next;
    *(after ? &after->next : &list->first) = sequence;
    *(next ? &next->previous : &list->last) = sequence;
    list->count++;
    list->prompt_tokens += sequence->prompt_count;
}

void cria_sequence_list_remove(cria_sequence_list *list, cria_sequence *sequence) {
    *(sequence->previous ? &sequence->previous->next : &list->first) = sequence->next;
    *(sequence->next ? &sequence->next->previous : &list->last) = sequence->previous;
    sequence->previous = sequence->next = NULL;
    list->count--;
    list->prompt_tokens -= sequence->prompt_count;
}
