/* A model made of arithmetic: the next token is a hash of what can be reached through slots and block tables, so that
 * any wrong slot, table, position or span changes the output; and what a request must give when it runs alone. */
#ifndef CRIA_TESTS_ENGINE_ARITHMETIC_H
#define CRIA_TESTS_ENGINE_ARITHMETIC_H

#include "server/engine/engine.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { VOCAB = 61, MOST_TOP = 5, MOST_DEPTH = 4 };

static inline uint64_t mix(uint64_t a, uint64_t b) {
    uint64_t x = (a ^ (b * UINT64_C(0x9E3779B97F4A7C15))) + UINT64_C(0x632BE59BD9B4E019);
    x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
    return x ^ (x >> 31);
}

/* What the cache holds for one token: it depends on all tokens before it, as real keys and values do. */
static inline uint64_t cell(uint64_t before, int32_t token, int32_t position) {
    return mix(mix(before, (uint64_t)token + 1), (uint64_t)position + 7);
}

static inline double logit(uint64_t state, int32_t token) {
    return (double)(mix(state, (uint64_t)token) >> 40) * (8.0 / (1 << 24));
}

/* The sampling state of one row, spread over the vocabulary. */
typedef struct {
    bool known[VOCAB];
    int32_t generated[VOCAB];
    double bias[VOCAB];
    bool allowed[VOCAB];
} spread;

static inline int32_t choose(uint64_t state, const cria_row *row, const spread *s) {
    int32_t best = 0;
    double best_value = -INFINITY;
    for (int32_t t = 0; t < VOCAB; t++) {
        double value = logit(state, t);
        if (s->known[t]) value /= (double)row->repetition_penalty;
        value -= (double)row->presence_penalty * (s->generated[t] > 0);
        value -= (double)row->frequency_penalty * s->generated[t];
        value += s->bias[t];
        if (row->temperature >= 1e-5f) {
            uint64_t noise = mix(mix(row->seed, row->counter), (uint64_t)t);
            value += (double)row->temperature * (double)(noise >> 40) / (1 << 22);
        }
        if (!s->allowed[t]) value = -INFINITY;
        if (value > best_value) {
            best_value = value;
            best = t;
        }
    }
    return best;
}

/* Raw log-probability (here: the logit), rank and top list of a row. */
static inline void report(uint64_t state, int32_t token, int32_t top, cria_row_result *result, int32_t *ids,
                          float *logprobs) {
    result->logprob = (float)logit(state, token);
    result->rank = 1;
    result->top_count = top;
    for (int32_t t = 0; t < VOCAB; t++) result->rank += logit(state, t) > logit(state, token);
    for (int32_t k = 0; k < top; k++) {
        ids[k] = -1;
        for (int32_t t = 0; t < VOCAB; t++) {
            bool taken = false;
            for (int32_t j = 0; j < k; j++) taken = taken || ids[j] == t;
            if (!taken && (ids[k] < 0 || logit(state, t) > logit(state, ids[k]))) ids[k] = t;
        }
        logprobs[k] = (float)logit(state, ids[k]);
    }
}

/* ---- the runner ---- */

typedef struct {
    uint64_t *cells; /* [slots] */
    int64_t block_tokens;
    atomic_int faults;   /* batches that were not as they should be */
    atomic_int fail_in;  /* the step after that many fails; < 0: none */
    atomic_int wrong_in; /* the step after that many chooses a token that does not exist */
    atomic_int hold;     /* while 1, steps do not end */
    atomic_int most_tokens, most_sequences;
    atomic_llong computed;                   /* tokens */
    const cria_batch *under_way[MOST_DEPTH]; /* oldest first */
    int depth, count;
    atomic_int most_under_way;
    atomic_int never_ready; /* while 1 */
    uint64_t moods;         /* of may_start and ready */
} model;

static inline void model_init(model *m, const cria_engine_config *config) {
    memset(m, 0, sizeof *m);
    m->block_tokens = config->block_tokens;
    m->cells = calloc((size_t)(config->blocks * config->block_tokens), sizeof *m->cells);
    m->fail_in = m->wrong_in = -1;
}

static inline uint64_t *cell_at(const model *m, const int32_t *table, int32_t position) {
    return &m->cells[(int64_t)table[position / m->block_tokens] * m->block_tokens + position % m->block_tokens];
}

static inline bool in_batch(cria_span span, int32_t count) {
    return span.begin >= 0 && span.count >= 0 && span.begin + span.count <= count;
}

static inline bool spread_row(const cria_batch *batch, const cria_row *row, spread *s) {
    memset(s, 0, sizeof *s);
    if (!in_batch(row->history, batch->history_count) || !in_batch(row->biases, batch->bias_count) ||
        !in_batch(row->allowed, batch->allowed_count)) {
        return false;
    }
    for (int32_t i = 0; i < row->history.count; i++) {
        const cria_history *h = &batch->history[row->history.begin + i];
        if (s->known[h->token]) return false; /* each token once */
        s->known[h->token] = true;
        s->generated[h->token] = h->output_count;
    }
    for (int32_t i = 0; i < row->biases.count; i++) {
        const cria_bias *b = &batch->biases[row->biases.begin + i];
        s->bias[b->token] += (double)b->bias;
    }
    for (int32_t t = 0; t < VOCAB; t++) s->allowed[t] = row->allowed.count == 0;
    for (int32_t i = 0; i < row->allowed.count; i++) s->allowed[batch->allowed[row->allowed.begin + i]] = true;
    return true;
}

static inline void model_write(model *m, const cria_batch *batch) {
    for (int32_t s = 0; s < batch->sequences; s++) {
        const int32_t *table = batch->block_table + s * batch->limits.blocks_per_sequence;
        int32_t first = batch->context[s] - (batch->query_begin[s + 1] - batch->query_begin[s]);
        for (int32_t i = batch->query_begin[s]; i < batch->query_begin[s + 1]; i++) {
            int32_t position = first + i - batch->query_begin[s];
            if (batch->positions[i] != position || &m->cells[batch->slots[i]] != cell_at(m, table, position)) {
                m->faults++;
            }
            uint64_t before = position ? *cell_at(m, table, position - 1) : 0;
            m->cells[batch->slots[i]] = cell(before, batch->token_ids[i], position);
        }
    }
}

static inline void model_row(model *m, const cria_batch *batch, int32_t r, cria_batch_result *result) {
    int32_t token = batch->row_token[r], s = 0;
    if (token < 0 || token >= batch->tokens || (r && token <= batch->row_token[r - 1])) m->faults++;
    while (batch->query_begin[s + 1] <= token) s++;
    const int32_t *table = batch->block_table + s * batch->limits.blocks_per_sequence;
    uint64_t state = 0;
    for (int32_t p = 0; p <= batch->positions[token]; p++) state = mix(state, *cell_at(m, table, p));
    const cria_row *row = &batch->row[r];
    spread spread_out;
    if (!spread_row(batch, row, &spread_out)) m->faults++;
    result->result[r].token = row->sample ? choose(state, row, &spread_out) : -1;
    if (row->sample && !m->wrong_in) result->result[r].token = VOCAB;
    int64_t stride = batch->limits.top_logprobs;
    report(state, row->target >= 0 ? row->target : result->result[r].token, row->top_logprobs, &result->result[r],
           result->top_ids + r * stride, result->top_logprobs + r * stride);
}

static inline cria_status model_step(void *self, const cria_batch *batch, cria_batch_result *result, cria_error *err) {
    model *m = self;
    while (m->hold) usleep(100);
    const cria_batch_limits *l = &batch->limits;
    if (batch->tokens < 1 || batch->tokens > l->tokens || batch->sequences < 1 || batch->sequences > l->sequences ||
        batch->rows > l->rows || batch->history_count > l->history || batch->bias_count > l->biases ||
        batch->allowed_count > l->allowed || batch->query_begin[batch->sequences] != batch->tokens) {
        m->faults++;
    }
    if (m->fail_in >= 0 && m->fail_in-- == 0) return cria_fail(err, CRIA_ERR_IO, "the device is gone");
    if (batch->tokens > m->most_tokens) m->most_tokens = batch->tokens;
    if (batch->sequences > m->most_sequences) m->most_sequences = batch->sequences;
    m->computed += batch->tokens;
    model_write(m, batch);
    for (int32_t r = 0; r < batch->rows; r++) model_row(m, batch, r, result);
    return CRIA_OK;
}

/* Several steps under way: each is run as late as possible, so that a batch that does not stay as it was is seen. */
static inline cria_status model_start(void *self, const cria_batch *batch, cria_error *err) {
    model *m = self;
    if (m->count == m->depth) return cria_fail(err, CRIA_ERR_INTERNAL, "%d steps are under way", m->count);
    m->under_way[m->count++] = batch;
    if (m->count > m->most_under_way) m->most_under_way = m->count;
    return CRIA_OK;
}

static inline cria_status model_finish(void *self, cria_batch_result *result, cria_error *err) {
    model *m = self;
    if (m->count == 0) return cria_fail(err, CRIA_ERR_INTERNAL, "no step is under way");
    cria_status status = model_step(m, m->under_way[0], result, err);
    for (int i = 1; i < m->count; i++) m->under_way[i - 1] = m->under_way[i];
    m->count--;
    return status;
}

static inline bool model_may_start(void *self, const cria_batch *batch) {
    model *m = self;
    (void)batch;
    return m->count == 0 || m->never_ready || mix(m->moods++, 1) % 4 != 0;
}

static inline bool model_ready(void *self) {
    model *m = self;
    return !m->never_ready && mix(m->moods++, 2) % 2;
}

static inline cria_runner model_runner(model *m, int depth) {
    m->depth = depth;
    if (depth == 1) return (cria_runner){.self = m, .step = model_step};
    return (cria_runner){.self = m,
                         .depth = depth,
                         .may_start = model_may_start,
                         .start = model_start,
                         .ready = model_ready,
                         .finish = model_finish};
}

/* ---- what comes back ---- */

enum { MOST_TOKENS = 256 };

typedef struct {
    int32_t tokens[MOST_TOKENS], count;
    float logprobs[MOST_TOKENS];
    uint64_t tops; /* hash of ranks and top lists */
    float prompt_logprobs[MOST_TOKENS];
    int32_t prompt_told; /* positions 1 .. told - 1 came */
    uint64_t prompt_tops;
    cria_finish finish;
    int32_t finish_token, cached;
    char error[256];
    int faults; /* events out of order */
    atomic_int finished;
} answer;

static inline uint64_t hash_top(uint64_t hash, int32_t rank, int32_t count, const int32_t *ids, const float *logprobs) {
    hash = mix(hash, (uint64_t)rank);
    for (int32_t k = 0; k < count; k++) {
        hash = mix(hash, (uint64_t)ids[k]);
        hash = mix(hash, (uint64_t)(logprobs[k] * 65536.0f));
    }
    return hash;
}

static inline void hear_prompt(answer *a, const cria_event *event) {
    if (a->prompt_told == 0) a->prompt_told = 1;
    if (event->first != a->prompt_told) a->faults++;
    for (int32_t i = 0; i < event->count; i++) {
        const cria_token_logprob *l = &event->logprobs[i];
        a->prompt_logprobs[a->prompt_told++] = l->logprob;
        a->prompt_tops = hash_top(mix(a->prompt_tops, (uint64_t)l->token), l->rank, l->top_count,
                                  event->top_ids + i * event->top_stride, event->top_logprobs + i * event->top_stride);
    }
}

static inline void hear_token(answer *a, const cria_event *event) {
    if (event->has_logprobs) {
        const cria_token_logprob *l = event->logprobs;
        if (event->count != 1 || l->token != event->token) a->faults++;
        a->logprobs[a->count] = l->logprob;
        a->tops = hash_top(a->tops, l->rank, l->top_count, event->top_ids, event->top_logprobs);
    }
    a->tokens[a->count++] = event->token;
}

/* A cria_deliver; requests carry their answer as `user`. */
static inline void hear(void *context, cria_event *event) {
    (void)context;
    answer *a = event->user;
    if (a->finished) a->faults++;
    if (event->kind == CRIA_EVENT_PROMPT) hear_prompt(a, event);
    if (event->kind == CRIA_EVENT_TOKEN) hear_token(a, event);
    if (event->kind == CRIA_EVENT_FINISH) {
        if (event->generated_tokens != a->count) a->faults++;
        a->finish = event->finish;
        a->finish_token = event->token;
        a->cached = event->cached_tokens;
        snprintf(a->error, sizeof a->error, "%s", event->error);
        a->finished++;
    }
    cria_event_destroy(event);
}

/* ---- what must come ---- */

static inline bool is_stop(const cria_engine_config *config, const cria_request *r, int32_t token) {
    for (int i = 0; i < config->eos_count; i++) {
        if (!r->sampling.ignore_eos && config->eos[i] == token) return true;
    }
    for (size_t i = 0; i < r->stop_count; i++) {
        if (r->stop_ids[i] == token) return true;
    }
    return false;
}

static inline void spread_alone(const cria_engine_config *config, const cria_request *r, const int32_t *tokens,
                                int32_t count, spread *s) {
    int32_t prompt = (int32_t)r->prompt_count, generated = count - prompt, n = r->sampling.no_repeat_ngram_size;
    memset(s, 0, sizeof *s);
    for (int32_t i = 0; i < count; i++) {
        s->known[tokens[i]] = true;
        if (i >= prompt) s->generated[tokens[i]]++;
    }
    for (size_t i = 0; i < r->bias_count; i++) s->bias[r->biases[i].token] += (double)r->biases[i].bias;
    for (int32_t t = 0; t < VOCAB; t++) {
        s->allowed[t] = r->allowed_count == 0;
        for (size_t i = 0; i < r->allowed_count; i++) s->allowed[t] = s->allowed[t] || r->allowed[i] == t;
        if (generated >= r->sampling.min_tokens) continue;
        for (int i = 0; i < config->eos_count; i++) {
            if (config->eos[i] == t) s->bias[t] = -INFINITY;
        }
        for (size_t i = 0; i < r->stop_count; i++) {
            if (r->stop_ids[i] == t) s->bias[t] = -INFINITY;
        }
    }
    const int32_t *word = r->bad_words;
    for (size_t i = 0; i < r->bad_count; word += r->bad_lengths[i++]) {
        int32_t length = r->bad_lengths[i], k = 1;
        if (generated < length - 1) continue;
        while (k < length && tokens[count - k] == word[length - 1 - k]) k++;
        if (k == length) s->bias[word[length - 1]] = -INFINITY;
    }
    for (int32_t t = 0; n > 0 && t < VOCAB; t++) {
        for (int32_t i = 0; i + n <= count; i++) { /* would the n-gram that t completes be one that stands at i? */
            int32_t k = 1;
            while (k < n && tokens[count - k] == tokens[i + n - 1 - k]) k++;
            if (k == n && tokens[i + n - 1] == t) s->bias[t] = -INFINITY;
        }
    }
}

/* Runs the request by itself, without engine, batch or cache. `room`: the longest sequence. */
static inline void alone(const cria_engine_config *config, const cria_request *r, int64_t room, answer *a) {
    static _Thread_local int32_t tokens[2 * MOST_TOKENS];
    static _Thread_local uint64_t cells[2 * MOST_TOKENS];
    int32_t count = (int32_t)r->prompt_count, ids[MOST_TOP];
    float logprobs[MOST_TOP];
    memcpy(tokens, r->prompt, r->prompt_count * sizeof *tokens);
    a->finish = CRIA_FINISH_LENGTH;
    a->finish_token = -1;
    if (r->sampling.prompt_logprobs >= 0 && count > 1) a->prompt_told = 1;
    for (int32_t p = 0; p < count && (p < (int32_t)r->prompt_count - 1 || r->sampling.max_tokens > 0); p++) {
        cells[p] = cell(p ? cells[p - 1] : 0, tokens[p], p);
        uint64_t state = 0;
        for (int32_t i = 0; i <= p; i++) state = mix(state, cells[i]);
        cria_row_result result;
        if (p < (int32_t)r->prompt_count - 1) {
            if (r->sampling.prompt_logprobs < 0) continue;
            report(state, tokens[p + 1], r->sampling.prompt_logprobs, &result, ids, logprobs);
            a->prompt_logprobs[a->prompt_told++] = result.logprob;
            a->prompt_tops =
                hash_top(mix(a->prompt_tops, (uint64_t)tokens[p + 1]), result.rank, result.top_count, ids, logprobs);
            continue;
        }
        const cria_sampling *sampling = &r->sampling;
        cria_row row = {.temperature = sampling->temperature,
                        .repetition_penalty = sampling->repetition_penalty,
                        .presence_penalty = sampling->presence_penalty,
                        .frequency_penalty = sampling->frequency_penalty,
                        .seed = sampling->seed,
                        .counter = (uint64_t)a->count};
        spread s;
        spread_alone(config, r, tokens, count, &s);
        int32_t token = choose(state, &row, &s);
        if (sampling->logprobs >= 0) {
            report(state, token, sampling->logprobs, &result, ids, logprobs);
            a->logprobs[a->count] = result.logprob;
            a->tops = hash_top(a->tops, result.rank, result.top_count, ids, logprobs);
        }
        a->tokens[a->count++] = tokens[count++] = token;
        if (is_stop(config, r, token)) {
            a->finish = CRIA_FINISH_STOP;
            a->finish_token = token;
            return;
        }
        if (a->count >= sampling->max_tokens || count >= room) return;
    }
}

#endif
