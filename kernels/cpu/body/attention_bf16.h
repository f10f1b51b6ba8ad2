/* Attention over a cache of bf16 by products of pairs of bf16 (AVX512_BF16), at twice the rate of f32.
 *
 * Queries and weights are rounded to bf16, as keys and values are; sums are f32, and a row is divided by the sum of its
 * rounded weights. A key that a row does not see is not multiplied even with a weight of zero: its place may hold what
 * another sequence has left, and 0 * NaN is NaN. */
#ifndef CRIA_KERNELS_CPU_BODY_ATTENTION_BF16_H
#define CRIA_KERNELS_CPU_BODY_ATTENTION_BF16_H

#include "kernels/cpu/body/attention_step.h"

#include <string.h>

enum { BF16_PAIR = 2 };

/* The row's pairs lie in the memory of as many floats. */
VECTOR_INLINE const uint16_t *bf16_row(const float *memory) {
    return (const uint16_t *)memory;
}

/* One pair in all lanes. */
VECTOR_INLINE vi bf16_pair(const uint16_t *p) {
    return _mm512_castps_si512(vf_read((const float *)(const void *)p));
}

VECTOR_INLINE vf bf16_multiply_add(vf sum, vi cells, vi pair) {
    return _mm512_dpbf16_ps(sum, (__m512bh)cells, (__m512bh)pair);
}

/* sums[r] += the cells * pair `at` of row r; rows are row_stride floats apart. */
#define BF16_MULTIPLY_ADD(load, rows_from, row_stride, at, sums)                                                       \
    vi cells[MOST_VECTORS];                                                                                            \
    UNROLL for (int v = 0; v < vectors; v++) cells[v] = load(v);                                                       \
    UNROLL for (int i = 1; rows <= FEW_ROWS && i < FEW_READS; i++) {                                                   \
        UNROLL for (int v = 0; v < vectors; v++) vi_keep(load(v));                                                     \
    }                                                                                                                  \
    UNROLL for (int r = 0; r < rows; r++) {                                                                            \
        vi pair = bf16_pair(bf16_row((rows_from) + r * (row_stride)) + (at));                                          \
        UNROLL for (int v = 0; v < vectors; v++) sums[r][v] = bf16_multiply_add(sums[r][v], cells[v], pair);           \
    }

/* Scores of `rows` rows, q[rows] of dim floats' memory, against `vectors` vectors of keys. What lies `ahead` bytes
 * further is asked for. */
VECTOR_INLINE void bf16_score_vectors(const float *q, const int rows, const char *keys, int64_t dim,
                                      int64_t block_tokens, const int vectors, int64_t ahead, float *scores) {
    vf sums[GROUP_ROWS][MOST_VECTORS];
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int v = 0; v < vectors; v++) sums[r][v] = vf_set(0);
    }
    for (int64_t d = 0; d < dim; d += BF16_PAIR, keys += block_tokens * KV_CELL_BYTES) {
        UNROLL for (int v = 0; v < vectors; v++) _mm_prefetch(keys + v * 64 + ahead, _MM_HINT_T1);
#define LOAD(v) vi_read(keys + (v)*64)
        BF16_MULTIPLY_ADD(LOAD, q, dim, d, sums)
#undef LOAD
    }
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int v = 0; v < vectors; v++) vf_store(scores + r * ATTENTION_STEP + v * LANES, sums[r][v]);
    }
}

VECTOR_INLINE void bf16_score_rows(const float *q, const int rows, const char *keys, int64_t dim, int64_t block_tokens,
                                   int64_t ahead, float *scores) {
    const int most = rows <= FEW_ROWS ? 4 : 2;
    int64_t at = 0;
#define PIECE(vectors)                                                                                                 \
    bf16_score_vectors(q, rows, keys + at * KV_CELL_BYTES, dim, block_tokens, vectors, ahead, scores + at)
    for (; at + most * LANES <= block_tokens; at += most * LANES) PIECE(most);
    for (; at + 2 * LANES <= block_tokens; at += 2 * LANES) PIECE(2);
    for (; at < block_tokens; at += LANES) PIECE(1);
#undef PIECE
}

/* Adds `vectors` vectors of dimensions from `at` on, the last of them with `last` lanes, of the keys first .. end - 1
 * of the step, which are whole pairs. */
VECTOR_INLINE void bf16_value_vectors(const float *weights, const int rows, int64_t first, int64_t end,
                                      step_values *values, int64_t at, const int vectors, int64_t last,
                                      float *const *records) {
    vf sums[GROUP_ROWS][MOST_VECTORS];
    int64_t block_tokens = values->block_tokens, line = values->dim * KV_CELL_BYTES;
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int v = 0; v < vectors; v++) sums[r][v] = vf_load(records[r] + at + v * LANES);
    }
    for (int64_t p = first / block_tokens; p * block_tokens < end; p++) {
        int64_t key = p * block_tokens > first ? p * block_tokens : first;
        int64_t page_end = (p + 1) * block_tokens < end ? (p + 1) * block_tokens : end;
        const char *from = values->page[p] + at * KV_CELL_BYTES + (key - p * block_tokens) / BF16_PAIR * line;
        const char *later = values->later[p];
        for (; key < page_end; key += BF16_PAIR, from += line) {
            UNROLL for (int v = 0; v < vectors; v++) _mm_prefetch(later + v * 64, _MM_HINT_T1);
            later += vectors * 64;
#define LOAD(v) ((v) == vectors - 1 && last != LANES ? vi_load_first(from + (v)*64, last) : vi_read(from + (v)*64))
            BF16_MULTIPLY_ADD(LOAD, weights, ATTENTION_STEP, key, sums)
#undef LOAD
        }
        values->later[p] = later;
    }
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int v = 0; v < vectors; v++) vf_store(records[r] + at + v * LANES, sums[r][v]);
    }
}

/* Adds one key's values, which stand in the low halves of their cells: a row's last key, whose partner it does not see.
 */
static void bf16_add_last(const float *weights, int64_t key, const step_values *values, float *record) {
    const char *from = values->page[key / values->block_tokens];
    from += key % values->block_tokens / BF16_PAIR * values->dim * KV_CELL_BYTES;
    vf weight = vf_set(cria_bf16_to_f32(bf16_row(weights)[key]));
    for (int64_t d = 0; d < values->dim; d += LANES) {
        vi cells = vi_load_first(from + d * KV_CELL_BYTES, values->dim - d < LANES ? values->dim - d : LANES);
        vf_store(record + d, vf_fma(weight, vi_as_float(vi_shift_left(cells, 16)), vf_load(record + d)));
    }
}

VECTOR_INLINE void bf16_value_rows(const float *weights, const int rows, int64_t first, int64_t end,
                                   step_values *values, float *const *records) {
    const int most = rows == 1 ? 8 : rows <= FEW_ROWS ? 4 : 2;
    int64_t at = 0, dim = values->dim;
#define PIECE(vectors, last) bf16_value_vectors(weights, rows, first, end, values, at, vectors, last, records)
    for (; at + most * LANES <= dim; at += most * LANES) PIECE(most, LANES);
    if (most > 4 && at + 4 * LANES <= dim) {
        PIECE(4, LANES);
        at += 4 * LANES;
    }
    for (; at + 2 * LANES <= dim; at += 2 * LANES) PIECE(2, LANES);
    for (; at < dim; at += LANES) PIECE(1, dim - at < LANES ? dim - at : LANES);
#undef PIECE
}

/* Up to GROUP_ROWS rows. */
static void bf16_score_page(cria_type type, const float *q, int64_t rows, const char *keys, int64_t dim,
                            int64_t block_tokens, int64_t ahead, float *scores) {
    (void)type;
    switch (rows) {
#define CASE(n)                                                                                                        \
    case n:                                                                                                            \
        bf16_score_rows(q, n, keys, dim, block_tokens, ahead, scores);                                                 \
        break;
        GROUP_SIZES(CASE)
#undef CASE
    }
}

static void bf16_add_keys(const float *weights, int64_t rows, int64_t first, int64_t end, step_values *values,
                          float *const *records) {
    switch (rows) {
#define CASE(n)                                                                                                        \
    case n:                                                                                                            \
        bf16_value_rows(weights, n, first, end, values, records);                                                      \
        break;
        GROUP_SIZES(CASE)
#undef CASE
    }
}

static void bf16_pack_query(const float *q, int64_t dim, float *packed) {
    uint16_t *pairs = (uint16_t *)packed, zero = 0;
    vf_round_row_bf16(q, dim, pairs);
    if (dim % BF16_PAIR) memcpy(pairs + dim, &zero, sizeof zero);
}

VECTOR_INLINE void bf16_score(const head_step *s, int64_t page, line_stream *stream) {
    score_groups(s, page, stream, bf16_score_page);
}

/* 2^t for t <= 0, to 0.8e-4 of itself, a twenty-sixth of the rounding to bf16 that follows, which makes 0 of what is
 * below the normal numbers: the fraction of t by a polynomial, its floor by the exponent. */
VECTOR_INLINE vf bf16_power(vf t) {
    vf f = _mm512_reduce_ps(vf_max(vf_set(-127), t), _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    vf p = vf_fma(vf_set(0.0780245225f), f, vf_set(0.226067155f));
    p = vf_fma(vf_fma(p, f, vf_set(0.695833540f)), f, vf_set(0.999925219f));
    return _mm512_scalef_ps(p, vf_max(vf_set(-127), t));
}

/* The weights in the place of the scores; what stands beside the last key is 0, as the power of what is least. Their
 * sum is that of the rounded ones. */
VECTOR_INLINE void bf16_soften(const head_step *s, int64_t row, int64_t keys) {
    enum { MOST = ATTENTION_STEP / LANES };
    const float log2e = 1.44269504f, scale = s->args->scale;
    float *scores = s->weights + row * ATTENTION_STEP, *record = s->records[row];
    int64_t dim = attention_dim(s->args->layer->head_dim), count = (keys + LANES - 1) / LANES;
    vf x[MOST], most = vf_set(-INFINITY), total = vf_set(0), factor = vf_set(scale * log2e);
    for (int64_t v = 0; v < count; v++) {
        x[v] = vf_load(scores + v * LANES);
        if (v == count - 1) x[v] = vf_choose(vf_first(keys - v * LANES), x[v], vf_set(-INFINITY));
        most = vf_max(most, x[v]);
    }
    float new_most = fmaxf(record[dim], vf_hmax(most) * scale);
    vf highest = vf_set(-new_most * log2e);
    for (int64_t v = 0; v < count; v += 2) {
        vf low = bf16_power(vf_fma(x[v], factor, highest)), high = vf_set(0);
        if (v + 1 < count) high = bf16_power(vf_fma(x[v + 1], factor, highest));
        __m512bh both = _mm512_cvtne2ps_pbh(high, low);
        total = _mm512_dpbf16_ps(total, both, (__m512bh)vi_set(0x3f803f80)); /* times one */
        vi_store((int32_t *)(void *)(scores + v / 2 * LANES), (vi)both);
    }
    if (new_most > record[dim]) raise_record(record, dim, new_most);
    record[dim + 1] += vf_hsum(total);
}

/* A group takes the pairs that all its rows see whole together; what a row sees beyond, it takes alone. */
VECTOR_INLINE void bf16_add_step(const head_step *s, line_stream *stream) {
    step_values values = find_values(s, stream);
    for (int64_t row = first_row(s, s->key); row < s->item->head_rows; row += GROUP_ROWS) {
        int64_t rows = group_rows(s, row), shared = seen_keys(s, row) / BF16_PAIR * BF16_PAIR;
        const float *weights = s->weights + row * ATTENTION_STEP;
        bf16_add_keys(weights, rows, 0, shared, &values, s->records + row);
        stop_asking(&values);
        for (int64_t r = 0; r < rows; r++) {
            int64_t seen = seen_keys(s, row + r), whole = seen / BF16_PAIR * BF16_PAIR;
            const float *own = weights + r * ATTENTION_STEP;
            if (whole > shared) bf16_add_keys(own, 1, shared, whole, &values, s->records + row + r);
            if (seen > whole) bf16_add_last(own, whole, &values, s->records[row + r]);
        }
    }
}

static const attention_way BF16_WAY = {bf16_pack_query, bf16_score, bf16_soften, bf16_add_step};

#endif
