/* Parts of a row of logits: how each is made, and what all of them together say. */
#include "kernels/split.h"

#include "kernels/sampling.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The head of a part; lists follow: top entries, then candidates. */
typedef struct {
    double raw_sum;    /* of exp(logit - raw_most) */
    double edited_sum; /* of exp((logit - edited_most) / temperature), where the support is cut */
    double score;      /* of the best token: its logit, or with Gumbel's noise */
    float raw_most, edited_most, target, best_raw;
    int32_t best; /* -1: none may be chosen */
    int32_t broken;
} part_head;
static_assert(sizeof(part_head) == CRIA_SPLIT_PART_BYTES, "the size is what plans count with");

typedef struct {
    int32_t token; /* -1: the part has no more */
    float value;
} top_entry;

typedef struct {
    int32_t token;
    float value, raw;
    int32_t unused;
} candidate;

static bool is_random(const cria_row *row) {
    return row->sample && row->temperature >= CRIA_GREEDY_TEMPERATURE;
}

static bool cuts_support(const cria_row *row) {
    return is_random(row) && (row->top_k > 0 || row->top_p < 1 || row->min_p > 0);
}

static int64_t top_room(const cria_row *row, int64_t limit) {
    int64_t room = row->top_logprobs < limit ? row->top_logprobs : limit;
    return room > 0 ? room : 0;
}

size_t cria_split_bytes(const cria_row *row, int64_t top_limit) {
    return sizeof(part_head) + (size_t)top_room(row, top_limit) * sizeof(top_entry) +
           (cuts_support(row) ? CRIA_SPLIT_CANDIDATES * sizeof(candidate) : 0);
}

size_t cria_split_most_bytes(int64_t top_limit) {
    return sizeof(part_head) + (size_t)top_limit * sizeof(top_entry) + CRIA_SPLIT_CANDIDATES * sizeof(candidate);
}

static const top_entry *tops_of(const void *part) {
    return (const top_entry *)((const part_head *)part + 1);
}

static const candidate *candidates_of(const void *part, int64_t tops) {
    return (const candidate *)(const void *)(tops_of(part) + tops);
}

/* The largest logit, +infinity made finite; NaN where there is none to speak of. As the whole row's sampler does. */
static float prepare(float *logits, int64_t count, bool *nan) {
    float most = -INFINITY;
    *nan = false;
    for (int64_t i = 0; i < count; i++) {
        if (logits[i] != logits[i]) *nan = true;
        if (logits[i] > FLT_MAX) logits[i] = FLT_MAX;
        if (logits[i] > most) most = logits[i];
    }
    return most;
}

static double sum_exp(const float *logits, int64_t count, float most, float scale) {
    double sum = 0;
    if (most == -INFINITY) return 0;
    for (int64_t i = 0; i < count; i += 256) { /* short sums in single precision, long ones in double */
        int64_t end = i + 256 < count ? i + 256 : count;
        float part = 0;
        for (int64_t k = i; k < end; k++) part += expf((logits[k] - most) * scale);
        sum += part;
    }
    return sum;
}

static double gumbel_score(const cria_row *row, int64_t token, float logit) {
    uint32_t words[4];
    cria_philox(row->seed, row->counter, (uint64_t)token / 4, words);
    double uniform = (words[token % 4] + 0.5) / 4294967296.0;
    return (double)logit / row->temperature - log(-log1p(-uniform));
}

static void find_best(const cria_row *row, const float *logits, int64_t count, int64_t first, part_head *head) {
    head->best = -1;
    bool random = is_random(row);
    for (int64_t i = 0; i < count; i++) {
        if (logits[i] < -FLT_MAX) continue;
        /* Gumbel noise of 32 random bits is at most log(2^33) = 22.9: most tokens cannot win. */
        if (random && head->best >= 0 && (double)logits[i] / row->temperature + 23 <= head->score) continue;
        double score = random ? gumbel_score(row, first + i, logits[i]) : logits[i];
        if (head->best >= 0 && score <= head->score) continue;
        head->best = (int32_t)(first + i);
        head->score = score;
    }
}

/* Inserts into a list sorted by value, the lower token first among equals; tokens come in rising order. */
static int64_t insert(candidate *list, int64_t count, int64_t room, candidate entry) {
    if (count == room && entry.value <= list[count - 1].value) return count;
    int64_t at = count < room ? count++ : count - 1;
    for (; at > 0 && list[at - 1].value < entry.value; at--) list[at] = list[at - 1];
    list[at] = entry;
    return count;
}

static void list_candidates(const float *logits, const float *raw, int64_t count, int64_t first, candidate *list) {
    int64_t n = 0;
    float least = -INFINITY;
    for (int64_t i = 0; i < count; i++) {
        if (n == CRIA_SPLIT_CANDIDATES && logits[i] <= least) continue;
        n = insert(list, n, CRIA_SPLIT_CANDIDATES, (candidate){(int32_t)(first + i), logits[i], raw[i], 0});
        least = list[n - 1].value;
    }
    for (; n < CRIA_SPLIT_CANDIDATES; n++) list[n] = (candidate){.token = -1, .value = -INFINITY};
}

static void list_top(const float *raw, int64_t count, int64_t first, top_entry *list, int64_t room) {
    int64_t n = 0;
    for (int64_t i = 0; i < count && room > 0; i++) {
        if (n == room && raw[i] <= list[n - 1].value) continue;
        int64_t at = n < room ? n++ : n - 1;
        for (; at > 0 && list[at - 1].value < raw[i]; at--) list[at] = list[at - 1];
        list[at] = (top_entry){(int32_t)(first + i), raw[i]};
    }
    for (; n < room; n++) list[n] = (top_entry){-1, -INFINITY};
}

void cria_split_reduce(const cria_sample_args *args, int64_t index, int worker, void *part) {
    const cria_row *row = &args->row[index];
    part_head *head = part;
    float *raw = cria_sample_logits(args, index);
    int64_t tops = top_room(row, args->top_stride), target = row->target - args->first;
    memset(head, 0, sizeof *head);
    bool nan;
    head->raw_most = prepare(raw, args->vocab, &nan);
    head->broken = nan;
    head->best = -1;
    head->raw_sum = sum_exp(raw, args->vocab, head->raw_most, 1);
    head->target = row->target >= 0 && target >= 0 && target < args->vocab ? raw[target] : -INFINITY;
    list_top(raw, args->vocab, args->first, (top_entry *)(head + 1), tops);
    if (!row->sample) return;
    const float *logits = cria_sample_is_edited(row) ? cria_sample_edit(args, index, worker) : raw;
    head->edited_most = -INFINITY;
    for (int64_t i = 0; i < args->vocab; i++)
        if (logits[i] > head->edited_most) head->edited_most = logits[i];
    if (!cuts_support(row)) {
        find_best(row, logits, args->vocab, args->first, head);
        /* Scratch or not, the raw logit is needed; where the row was edited in place it is what the edit left. */
        if (head->best >= 0) head->best_raw = raw[head->best - args->first];
        return;
    }
    head->edited_sum = sum_exp(logits, args->vocab, head->edited_most, 1 / row->temperature);
    list_candidates(logits, raw, args->vocab, args->first, (candidate *)((top_entry *)(head + 1) + tops));
}

int32_t cria_split_count_above(const cria_sample_args *args, int64_t index, float reported) {
    const float *raw = cria_sample_logits(args, index);
    int32_t count = 0;
    for (int64_t i = 0; i < args->vocab; i++) count += raw[i] > reported;
    return count;
}

/* ---- all parts together ---- */

typedef struct {
    const cria_row *row;
    const void *const *parts;
    int count;
    int64_t tops;
} merge;

static const part_head *head_of(const merge *m, int part) {
    return m->parts[part];
}

/* Merges sorted lists: always the largest head, of the earlier part (its ids are lower) among equals. */
static int32_t merge_tops(const merge *m, int32_t *ids, float *values, double log_sum) {
    int64_t at[256] = {0}, n = 0;
    for (; n < m->tops; n++) {
        int best = -1;
        for (int p = 0; p < m->count; p++) {
            if (at[p] == m->tops || tops_of(m->parts[p])[at[p]].token < 0) continue;
            if (best < 0 || tops_of(m->parts[p])[at[p]].value > tops_of(m->parts[best])[at[best]].value) best = p;
        }
        if (best < 0) break;
        const top_entry *entry = &tops_of(m->parts[best])[at[best]++];
        ids[n] = entry->token;
        values[n] = cria_sample_logprob(entry->value, log_sum);
    }
    return (int32_t)n;
}

/* Walks all candidates from the largest down. */
typedef struct {
    const merge *m;
    int64_t at[256];
} walk;

static const candidate *next_candidate(walk *w) {
    const candidate *best = NULL;
    int from = -1;
    for (int p = 0; p < w->m->count; p++) {
        if (w->at[p] == CRIA_SPLIT_CANDIDATES) continue;
        const candidate *c = &candidates_of(w->m->parts[p], w->m->tops)[w->at[p]];
        if (c->token < 0 || (best && c->value <= best->value)) continue;
        best = c;
        from = p;
    }
    if (best) w->at[from]++;
    return best;
}

/* Below this no list is complete; -infinity where all are. */
static float complete_above(const merge *m) {
    float level = -INFINITY;
    for (int p = 0; p < m->count; p++) {
        const candidate *last = &candidates_of(m->parts[p], m->tops)[CRIA_SPLIT_CANDIDATES - 1];
        if (last->token >= 0 && last->value > level) level = last->value;
    }
    return level;
}

/* The probability mass that top-p counts in units of, and how low min-p and top-k let it go; false: cannot be told. */
static bool find_bounds(const merge *m, float most, float level, float *least, double *mass) {
    const cria_row *row = m->row;
    *least = -FLT_MAX;
    if (row->min_p > 0) *least = fmaxf(*least, fminf((float)(most + (double)row->temperature * log(row->min_p)), most));
    if (row->top_k > 0) {
        walk w = {.m = m};
        const candidate *c = NULL;
        for (int32_t k = 0; k < row->top_k; k++) {
            const candidate *next = next_candidate(&w);
            if (!next && level > -INFINITY) return false;
            if (!next) break;
            c = next;
        }
        if (c) *least = fmaxf(*least, c->value);
    }
    double scale = 1 / (double)row->temperature;
    *mass = 0;
    if (*least > -FLT_MAX) {
        if (level > -INFINITY && *least <= level) return false;
        walk w = {.m = m};
        for (const candidate *c; (c = next_candidate(&w)) && c->value >= *least;)
            *mass += exp(((double)c->value - most) * scale);
        return true;
    }
    for (int p = 0; p < m->count; p++)
        if (head_of(m, p)->edited_most > -INFINITY)
            *mass += head_of(m, p)->edited_sum * exp(((double)head_of(m, p)->edited_most - most) * scale);
    return true;
}

/* Chooses among what top-k, top-p and min-p leave; 1: done, 0: nothing may be chosen, -1: cannot be told. */
static int draw(const merge *m, float most, candidate *chosen) {
    float least, level = complete_above(m);
    double mass, seen = 0, best = 0, scale = 1 / (double)m->row->temperature;
    if (most == -INFINITY) return 0;
    if (!find_bounds(m, most, level, &least, &mass)) return -1;
    double wanted = m->row->top_p < 1 ? mass * m->row->top_p : INFINITY;
    if (wanted <= 0) wanted = DBL_MIN;
    if (m->row->top_p >= 1 && level > -INFINITY && least <= level) return -1;
    walk w = {.m = m};
    int found = 0;
    for (const candidate *c; seen < wanted && (c = next_candidate(&w)) != NULL;) {
        if (c->value < least || c->value < -FLT_MAX) return found;
        if (level > -INFINITY && c->value <= level) return -1;
        seen += exp(((double)c->value - most) * scale);
        double score = gumbel_score(m->row, c->token, c->value);
        if (found && (score < best || (score == best && c->token > chosen->token))) continue;
        best = score;
        *chosen = *c;
        found = 1;
    }
    return seen < wanted && level > -INFINITY && m->row->top_p < 1 ? -1 : found;
}

/* The best of all parts' best tokens, the earlier among equals. */
static int best_of(const merge *m, candidate *chosen) {
    int best = -1;
    for (int p = 0; p < m->count; p++)
        if (head_of(m, p)->best >= 0 && (best < 0 || head_of(m, p)->score > head_of(m, best)->score)) best = p;
    if (best >= 0) *chosen = (candidate){.token = head_of(m, best)->best, .raw = head_of(m, best)->best_raw};
    return best >= 0;
}

bool cria_split_choose(const cria_sample_args *args, int64_t index, int64_t vocab_all, const void *const *parts,
                       int count, float *reported) {
    const cria_row *row = &args->row[index];
    merge m = {.row = row, .parts = parts, .count = count, .tops = top_room(row, args->top_stride)};
    float raw_most = -INFINITY, edited_most = -INFINITY, target = -INFINITY;
    bool broken = count > 256;
    double sum = 0;
    for (int p = 0; p < count; p++) {
        const part_head *head = head_of(&m, p);
        broken |= head->broken != 0;
        raw_most = fmaxf(raw_most, head->raw_most);
        edited_most = fmaxf(edited_most, head->edited_most);
        target = fmaxf(target, head->target);
    }
    *reported = NAN;
    if (broken || raw_most == -INFINITY) {
        cria_sample_args whole = *args;
        whole.vocab = vocab_all;
        cria_sample_broken(&whole, index);
        return true;
    }
    for (int p = 0; p < count; p++)
        if (head_of(&m, p)->raw_most > -INFINITY)
            sum += head_of(&m, p)->raw_sum * exp((double)head_of(&m, p)->raw_most - raw_most);
    double log_sum = raw_most + log(sum);
    cria_row_result *result = &args->result[index];
    *result = (cria_row_result){.token = -1};
    candidate chosen = {.token = -1};
    if (row->sample) {
        int found = cuts_support(row) ? draw(&m, edited_most, &chosen) : best_of(&m, &chosen);
        if (found <= 0) return false; /* where every token is banned, the whole row's sampler knows what to do */
        result->token = chosen.token;
    }
    result->top_count = merge_tops(&m, args->top_ids + index * args->top_stride,
                                   args->top_logprobs + index * args->top_stride, log_sum);
    if (!row->sample && row->target < 0) return true;
    *reported = row->target >= 0 ? target : chosen.raw;
    result->logprob = cria_sample_logprob(*reported, log_sum);
    result->rank = 1;
    return true;
}
