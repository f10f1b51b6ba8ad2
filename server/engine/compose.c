/* Composition of a batch, and preparation of its sampling rows. */
#include "server/engine/compose.h"

#include <assert.h>
#include <math.h>
#include <string.h>

static void ban(cria_batch *batch, int32_t token) {
    batch->biases[batch->bias_count++] = (cria_bias){.token = token, .bias = -INFINITY};
}

/* Until min_tokens are generated nothing may end the sequence. EOS counts even with ignore_eos, as in vLLM. */
static void ban_ends(const cria_engine_config *config, const cria_sequence *sequence, cria_batch *batch) {
    const cria_request *request = sequence->request;
    if (cria_sequence_generated(sequence) >= request->sampling.min_tokens) return;
    for (int i = 0; i < config->eos_count; i++) {
        if (config->eos[i] >= 0 && config->eos[i] < config->vocab) ban(batch, config->eos[i]);
    }
    for (size_t i = 0; i < request->stop_count; i++) {
        if (request->stop_ids[i] >= 0 && request->stop_ids[i] < config->vocab) ban(batch, request->stop_ids[i]);
    }
}

/* Bans the last token of every bad word whose other tokens are the last generated ones. */
static void ban_bad_words(const cria_sequence *sequence, cria_batch *batch) {
    const cria_request *request = sequence->request;
    const int32_t *word = request->bad_words, *end = cria_sequence_tokens(sequence) + sequence->count;
    for (size_t i = 0; i < request->bad_count; word += request->bad_lengths[i], i++) {
        int32_t before = request->bad_lengths[i] - 1;
        if (before > cria_sequence_generated(sequence)) continue;
        if (memcmp(end - before, word, (size_t)before * sizeof *word) == 0) ban(batch, word[before]);
    }
}

/* Bans every token that would repeat an n-gram of prompt or output (as transformers' no_repeat_ngram_size). */
static void ban_repeats(const cria_sequence *sequence, cria_batch *batch) {
    int32_t n = sequence->request->sampling.no_repeat_ngram_size;
    if (n < 1 || sequence->count < n) return;
    const int32_t *tokens = cria_sequence_tokens(sequence), *last = tokens + sequence->count - (n - 1);
    for (int32_t i = 0; i + n <= sequence->count; i++) {
        if (memcmp(tokens + i, last, (size_t)(n - 1) * sizeof *tokens) == 0) ban(batch, tokens[i + n - 1]);
    }
}

static cria_span fill_biases(const cria_engine_config *config, const cria_sequence *sequence, cria_batch *batch) {
    const cria_request *request = sequence->request;
    int32_t begin = batch->bias_count;
    if (request->bias_count) {
        memcpy(batch->biases + begin, request->biases, request->bias_count * sizeof *request->biases);
        batch->bias_count += (int32_t)request->bias_count;
    }
    ban_ends(config, sequence, batch);
    ban_bad_words(sequence, batch);
    ban_repeats(sequence, batch);
    assert(batch->bias_count - begin <= sequence->biases_most);
    return (cria_span){begin, batch->bias_count - begin};
}

static cria_span fill_history(const cria_sequence *sequence, cria_batch *batch) {
    cria_span span = {batch->history_count, sequence->history_count};
    if (span.count) {
        memcpy(batch->history + span.begin, sequence->history, (size_t)span.count * sizeof *sequence->history);
    }
    batch->history_count += span.count;
    return span;
}

static cria_span fill_allowed(const cria_sequence *sequence, cria_batch *batch) {
    const cria_request *request = sequence->request;
    cria_span span = {batch->allowed_count, (int32_t)request->allowed_count};
    if (span.count) memcpy(batch->allowed + span.begin, request->allowed, (size_t)span.count * sizeof(int32_t));
    batch->allowed_count += span.count;
    return span;
}

static cria_row *next_row(cria_batch *batch, int32_t token) {
    batch->row_token[batch->rows] = token;
    cria_row *row = &batch->row[batch->rows++];
    *row = (cria_row){.target = -1, .temperature = 1.0f, .top_p = 1.0f, .repetition_penalty = 1.0f};
    return row;
}

static void fill_sampling_row(const cria_engine_config *config, const cria_sequence *sequence, int32_t token,
                              cria_batch *batch) {
    const cria_sampling *sampling = &sequence->request->sampling;
    cria_row *row = next_row(batch, token);
    row->sample = 1;
    row->top_logprobs = sampling->logprobs > 0 ? sampling->logprobs : 0;
    row->temperature = sampling->temperature;
    row->top_k = sampling->top_k;
    row->top_p = sampling->top_p;
    row->min_p = sampling->min_p;
    row->repetition_penalty = sampling->repetition_penalty;
    row->presence_penalty = sampling->presence_penalty;
    row->frequency_penalty = sampling->frequency_penalty;
    row->seed = sampling->seed;
    row->counter = (uint64_t)cria_sequence_generated(sequence);
    row->history = fill_history(sequence, batch);
    row->biases = fill_biases(config, sequence, batch);
    row->allowed = fill_allowed(sequence, batch);
}

/* The row of position p tells about the token at p + 1. */
static void fill_prompt_rows(const cria_work *work, int32_t batch_begin, cria_batch *batch) {
    const cria_sequence *sequence = work->sequence;
    for (int32_t i = 0; i < work->prompt_rows; i++) {
        int32_t position = work->prompt_first + i;
        cria_row *row = next_row(batch, batch_begin + position - work->begin);
        row->target = cria_sequence_tokens(sequence)[position + 1];
        row->top_logprobs = sequence->request->sampling.prompt_logprobs;
    }
}

static void fill_tokens(const cria_engine_config *config, const cria_work *work, cria_batch *batch) {
    const cria_sequence *sequence = work->sequence;
    int32_t block_tokens = (int32_t)config->block_tokens;
    for (int32_t i = 0; i < work->count; i++) {
        int32_t position = work->begin + i, at = batch->tokens + i;
        batch->token_ids[at] = cria_sequence_tokens(sequence)[position];
        batch->positions[at] = position;
        batch->slots[at] = sequence->blocks[position / block_tokens] * block_tokens + position % block_tokens;
    }
    int32_t context = work->begin + work->count, used = (context + block_tokens - 1) / block_tokens;
    int32_t *table = batch->block_table + batch->sequences * batch->limits.blocks_per_sequence;
    memcpy(table, sequence->blocks, (size_t)used * sizeof *table);
    batch->context[batch->sequences] = context;
    batch->tokens += work->count;
    batch->query_begin[++batch->sequences] = batch->tokens;
}

void cria_compose(const cria_engine_config *config, cria_work *work, int32_t count, cria_batch *batch) {
    for (int32_t i = 0; i < count; i++) {
        int32_t begin = batch->tokens;
        fill_tokens(config, &work[i], batch);
        work[i].first_row = batch->rows;
        fill_prompt_rows(&work[i], begin, batch);
        if (work[i].samples) fill_sampling_row(config, work[i].sequence, batch->tokens - 1, batch);
    }
    assert(batch->tokens <= batch->limits.tokens && batch->rows <= batch->limits.rows);
}
