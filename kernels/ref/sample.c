/* Reference sampling: every step by its definition, thresholds by bisection over the ordered bits of a float. */
#include "kernels/ref/ref.h"
#include "kernels/sampling.h"

#include <float.h>
#include <math.h>

/* What top-k, top-p and min-p leave: logits above `least`, and those equal to it up to token `last`. */
typedef struct {
    float least;
    int64_t last;
} support;

static bool in_support(const support *kept, float logit, int64_t token) {
    return logit > kept->least || (logit == kept->least && token <= kept->last);
}

/* The largest logit, +infinity made finite; NaN where there is no distribution. */
static float prepare_row(float *logits, int64_t vocab) {
    float most = -INFINITY;
    for (int64_t i = 0; i < vocab; i++) {
        if (isnan(logits[i])) return NAN;
        if (logits[i] > FLT_MAX) logits[i] = FLT_MAX;
        if (logits[i] > most) most = logits[i];
    }
    return isinf(most) ? NAN : most;
}

static double log_sum_of(const float *logits, int64_t vocab, float most) {
    double sum = 0;
    for (int64_t i = 0; i < vocab; i++) sum += exp((double)logits[i] - most);
    return most + log(sum);
}

/* Inserts every logit into a sorted list. */
static int32_t fill_top(const cria_sample_args *args, int64_t index, const float *logits, double log_sum) {
    int64_t room = args->row[index].top_logprobs, count = 0;
    if (room > args->top_stride) room = args->top_stride;
    if (room <= 0) return 0;
    int32_t *ids = args->top_ids + index * args->top_stride;
    float *values = args->top_logprobs + index * args->top_stride;
    for (int64_t i = 0; i < args->vocab; i++) {
        if (count == room && logits[i] <= values[count - 1]) continue;
        int64_t at = count < room ? count++ : count - 1;
        for (; at > 0 && values[at - 1] < logits[i]; at--) {
            values[at] = values[at - 1];
            ids[at] = ids[at - 1];
        }
        values[at] = logits[i];
        ids[at] = (int32_t)i;
    }
    for (int64_t i = 0; i < count; i++) values[i] = cria_sample_logprob(values[i], log_sum);
    return (int32_t)count;
}

static float kth_largest(const float *logits, int64_t vocab, int64_t k) {
    uint32_t low = 0, high = UINT32_MAX; /* at least k keys are >= low; fewer are > high */
    while (low < high) {
        uint32_t middle = low + (high - low) / 2 + 1;
        int64_t count = 0;
        for (int64_t i = 0; i < vocab; i++) count += cria_order_key(logits[i]) >= middle;
        if (count >= k) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    return cria_order_value(low);
}

/* The probability mass, not normalised, of the kept logits above a key. */
static double mass_above(const float *logits, int64_t vocab, float least, uint32_t key, float most, double scale) {
    double mass = 0;
    for (int64_t i = 0; i < vocab; i++) {
        if (logits[i] >= least && cria_order_key(logits[i]) > key) mass += exp(((double)logits[i] - most) * scale);
    }
    return mass;
}

static support nucleus(const float *logits, int64_t vocab, float least, float most, double scale, double top_p) {
    uint32_t low = cria_order_key(least), high = cria_order_key(most); /* the least key with too little mass above it */
    double wanted = mass_above(logits, vocab, least, low - 1, most, scale) * top_p;
    if (wanted <= 0) wanted = DBL_MIN;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (mass_above(logits, vocab, least, middle, most, scale) < wanted) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    support kept = {cria_order_value(low), -1};
    double mass = mass_above(logits, vocab, least, low, most, scale);
    for (int64_t i = 0; i < vocab && mass < wanted; i++) {
        if (logits[i] != kept.least) continue;
        mass += exp(((double)logits[i] - most) * scale);
        kept.last = i;
    }
    return kept;
}

static support support_of(const cria_row *row, const float *logits, int64_t vocab, float most) {
    double scale = 1 / (double)row->temperature;
    support kept = {-FLT_MAX, vocab};
    if (row->min_p > 0) {
        float least = (float)(most + (double)row->temperature * log(row->min_p));
        kept.least = fmaxf(kept.least, fminf(least, most));
    }
    if (row->top_k > 0 && row->top_k < vocab) kept.least = fmaxf(kept.least, kth_largest(logits, vocab, row->top_k));
    return row->top_p < 1 ? nucleus(logits, vocab, kept.least, most, scale, row->top_p) : kept;
}

static int64_t draw(const cria_row *row, const float *logits, int64_t vocab, float most) {
    support kept = support_of(row, logits, vocab, most);
    double best = -INFINITY;
    int64_t token = -1;
    for (int64_t i = 0; i < vocab; i++) {
        if (!in_support(&kept, logits[i], i)) continue;
        uint32_t words[4];
        cria_philox(row->seed, row->counter, (uint64_t)i / 4, words);
        double uniform = (words[i % 4] + 0.5) / 4294967296.0;
        double score = ((double)logits[i] - most) / row->temperature - log(-log1p(-uniform));
        if (token < 0 || score > best) {
            best = score;
            token = i;
        }
    }
    return token;
}

static int64_t choose(const cria_row *row, const float *logits, int64_t vocab) {
    float most = -INFINITY;
    int64_t token = -1;
    for (int64_t i = 0; i < vocab; i++) {
        if (logits[i] > most) {
            most = logits[i];
            token = i;
        }
    }
    if (token < 0 || row->temperature < CRIA_GREEDY_TEMPERATURE) return token;
    return draw(row, logits, vocab, most);
}

static void sample_row(const cria_sample_args *args, int64_t index, int worker) {
    const cria_row *row = &args->row[index];
    float *raw = cria_sample_logits(args, index);
    float most = prepare_row(raw, args->vocab);
    if (isnan(most)) {
        cria_sample_broken(args, index);
        return;
    }
    double log_sum = log_sum_of(raw, args->vocab, most);
    cria_row_result *result = &args->result[index];
    *result = (cria_row_result){.token = -1, .top_count = fill_top(args, index, raw, log_sum)};
    float reported = row->target >= 0 && row->target < args->vocab ? raw[row->target] : -INFINITY;
    if (row->sample) {
        const float *logits = cria_sample_is_edited(row) ? cria_sample_edit(args, index, worker) : raw;
        int64_t token = choose(row, logits, args->vocab);
        result->token = token >= 0 ? (int32_t)token : cria_sample_fallback(args, row);
        if (row->target < 0) reported = raw[result->token];
    }
    if (!row->sample && row->target < 0) return;
    result->logprob = cria_sample_logprob(reported, log_sum);
    result->rank = 1;
    for (int64_t i = 0; i < args->vocab; i++) result->rank += raw[i] > reported;
}

void cria_ref_sample(const cria_sample_args *args, cria_worker *worker) {
    int64_t begin, end;
    while (cria_worker_take(worker, args->rows, 1, &begin, &end)) sample_row(args, begin, worker->index);
}
