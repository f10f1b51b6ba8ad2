/* Sampling over vectors: one row from logits to a token and its log-probability. */
#include "kernels/cpu/body/sample_support.h"

/* 4 * LANES random words for consecutive tokens from `token` on, a multiple of 4 * LANES: Philox4x32-10 as in
 * base/random.c, whose call for block token / 4 gives the words of four tokens. */
static void random_words(uint64_t seed, uint64_t counter, int64_t token, vi words[4]) {
    int32_t blocks[LANES];
    /* Lane l of each 128-bit quarter computes the block whose words land in quarter order after the transposition. */
    for (int i = 0; i < LANES; i++) blocks[i] = (int32_t)(token / 4) + i % 4 * (LANES / 4) + i / 4;
    vi c0 = vi_set((int32_t)counter), c1 = vi_set((int32_t)(counter >> 32)), c2 = vi_load(blocks), c3 = vi_set(0);
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    vi m0 = vi_set((int32_t)0xD2511F53u), m1 = vi_set((int32_t)0xCD9E8D57u);
    for (int round = 0; round < 10; round++) {
        vi high0, low0, high1, low1;
        vi_multiply_wide(c0, m0, &high0, &low0);
        vi_multiply_wide(c2, m1, &high1, &low1);
        c0 = vi_xor(vi_xor(high1, c1), vi_set((int32_t)k0));
        c2 = vi_xor(vi_xor(high0, c3), vi_set((int32_t)k1));
        c1 = low1;
        c3 = low0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    vi a = vi_unpack_low(c0, c1), b = vi_unpack_low(c2, c3), c = vi_unpack_high(c0, c1), d = vi_unpack_high(c2, c3);
    words[0] = vi_unpack_low_pairs(a, b);
    words[1] = vi_unpack_high_pairs(a, b);
    words[2] = vi_unpack_low_pairs(c, d);
    words[3] = vi_unpack_high_pairs(c, d);
}

/* -log(-log(1 - u)), u = (word + 1/2) / 2^32. Small u, which decide, keep their full precision: 1 - u is rounded, and
 * what that lost is added to the logarithm. */
VECTOR_INLINE vf gumbel_of(vi word) {
    vf u = (vi_unsigned_to_float(word) + vf_set(0.5f)) * vf_set(0x1p-32f);
    vf rest = vf_max(vf_set(1) - u, vf_set(0x1p-32f));
    vf lost = (vf_set(1) - rest) - u;
    return vf_set(0) - vf_log(vf_set(0) - (vf_log(rest) + lost));
}

/* The best token so far in each lane. */
typedef struct {
    vf scores;
    vi tokens;
} lane_best;

static int64_t best_of(const lane_best *best, float *score) {
    float scores[LANES];
    int32_t tokens[LANES];
    vf_store(scores, best->scores);
    vi_store(tokens, best->tokens);
    int at = 0;
    for (int i = 1; i < LANES; i++) {
        if (scores[i] > scores[at] || (scores[i] == scores[at] && tokens[i] < tokens[at])) at = i;
    }
    *score = scores[at];
    return tokens[at];
}

/* Scores 4 * LANES tokens from `token` on. */
static void score_tokens(const cria_row *row, const float *logits, int64_t vocab, int64_t token, float most,
                         const support *kept, lane_best *best) {
    vi words[4];
    int32_t ids[LANES];
    random_words(row->seed, row->counter, token, words);
    for (int v = 0; v < 4; v++) {
        int64_t first = token + v * LANES;
        if (first >= vocab) return;
        vf x = load_logits(logits + first, vocab - first);
        /* Of the logits equal to the least only those up to token `last` count. */
        vmask inside = vf_greater(x, vf_set(kept->least));
        if (kept->last >= first) {
            int64_t equal = kept->last - first + 1;
            vmask early = vf_first(equal < LANES ? equal : LANES);
            inside = vf_or(inside, vf_and(early, vf_equal(x, vf_set(kept->least))));
        }
        if (!vf_bits(inside)) continue;
        for (int i = 0; i < LANES; i++) ids[i] = (int32_t)first + i;
        vf score = (x - vf_set(most)) * vf_set(1 / row->temperature) + gumbel_of(words[v]);
        vmask better = vf_and(inside, vf_greater(score, best->scores));
        best->scores = vf_choose(better, score, best->scores);
        best->tokens = vi_select(better, vi_load(ids), best->tokens);
    }
}

/* True if any of the 4 * LANES logits from `token` on is at least `least`. */
static bool any_at_least(const float *logits, int64_t vocab, int64_t token, float least) {
    vf most = vf_set(-INFINITY);
    for (int v = 0; v < 4; v++) {
        if (token + v * LANES >= vocab) break;
        most = vf_max(most, load_logits(logits + token + v * LANES, vocab - token - v * LANES));
    }
    return vf_bits(vf_at_least(most, vf_set(least))) != 0;
}

/* The least logit that can still be chosen: -log(-log(1 - u)) is never above 22.9. */
static float least_to_win(const cria_row *row, const row_scan *scan, const support *kept, const lane_best *best) {
    float score;
    best_of(best, &score);
    double least = scan->most + ((double)score - 23) * row->temperature;
    return fmaxf(kept->least, nextafterf((float)least, -INFINITY));
}

/* The token with the best score. Where none can win no random numbers are drawn: that changes nothing but the time. */
static int64_t draw(const cria_row *row, const float *logits, int64_t vocab, const row_scan *scan) {
    const int64_t group = 4 * LANES, favourite = scan->token / group * group;
    support kept = find_support(row, logits, vocab, scan->most);
    lane_best best = {vf_set(-INFINITY), vi_set(INT32_MAX)};
    score_tokens(row, logits, vocab, favourite, scan->most, &kept, &best);
    float least = least_to_win(row, scan, &kept, &best);
    for (int64_t first = 0; first < vocab; first += group) {
        if (first == favourite || !any_at_least(logits, vocab, first, least)) continue;
        score_tokens(row, logits, vocab, first, scan->most, &kept, &best);
        least = least_to_win(row, scan, &kept, &best);
    }
    float score;
    return best_of(&best, &score);
}

static int64_t choose(const cria_row *row, const float *logits, int64_t vocab, const row_scan *scan) {
    if (scan->token < 0 || row->temperature < CRIA_GREEDY_TEMPERATURE) return scan->token;
    return draw(row, logits, vocab, scan);
}

static int32_t fill_top(const cria_sample_args *args, int64_t index, const float *logits, double log_sum) {
    int64_t room = args->row[index].top_logprobs;
    if (room > args->top_stride) room = args->top_stride;
    if (room > args->vocab) room = args->vocab;
    if (room <= 0) return 0;
    top_heap heap = {args->top_logprobs + index * args->top_stride, args->top_ids + index * args->top_stride, 0};
    collect_top(logits, args->vocab, room, &heap);
    sort_top(&heap);
    for (int64_t i = 0; i < room; i++) heap.values[i] = cria_sample_logprob(heap.values[i], log_sum);
    return (int32_t)room;
}

/* Maximum and sum of the raw logits, +infinity made finite. */
static row_scan scan_raw(float *logits, int64_t vocab) {
    row_scan scan = scan_row(logits, vocab, true);
    if (scan.nan || scan.most <= FLT_MAX) return scan;
    for (int64_t i = 0; i < vocab; i++) {
        if (logits[i] > FLT_MAX) logits[i] = FLT_MAX;
    }
    return scan_row(logits, vocab, true);
}

static void sample_row(const cria_sample_args *args, int64_t index, int worker) {
    const cria_row *row = &args->row[index];
    float *raw = cria_sample_logits(args, index);
    row_scan scan = scan_raw(raw, args->vocab);
    if (scan.nan || scan.token < 0) {
        cria_sample_broken(args, index);
        return;
    }
    double log_sum = scan.most + log(scan.sum);
    cria_row_result *result = &args->result[index];
    *result = (cria_row_result){.token = -1, .top_count = fill_top(args, index, raw, log_sum)};
    float most = scan.most, reported = -INFINITY;
    if (row->target >= 0 && row->target < args->vocab) reported = raw[row->target];
    if (row->sample) {
        const float *logits = raw;
        if (cria_sample_is_edited(row)) {
            logits = cria_sample_edit(args, index, worker);
            scan = scan_row(logits, args->vocab, false);
        }
        int64_t token = choose(row, logits, args->vocab, &scan);
        result->token = token >= 0 ? (int32_t)token : cria_sample_fallback(args, row);
        if (row->target < 0) reported = raw[result->token];
    }
    if (!row->sample && row->target < 0) return;
    result->logprob = cria_sample_logprob(reported, log_sum);
    result->rank = reported == most ? 1 : 1 + (int32_t)count_greater(raw, args->vocab, reported);
}

static void sample_rows(const cria_sample_args *args, cria_worker *worker) {
    int64_t begin, end;
    while (cria_worker_take(worker, args->rows, 1, &begin, &end)) sample_row(args, begin, worker->index);
}
