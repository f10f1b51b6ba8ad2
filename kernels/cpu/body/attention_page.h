/* The inner loops of attention: several rows against the keys or the values of one page.
 *
 * Which rows are taken together changes nothing in a row's own order of additions: scores are added dimension by
 * dimension, values key by key. */
#ifndef CRIA_KERNELS_CPU_BODY_ATTENTION_PAGE_H
#define CRIA_KERNELS_CPU_BODY_ATTENTION_PAGE_H

#include "kernels/attention.h"
#include "kernels/cpu/row_vector.h"

enum {
    GROUP_ROWS = LANES == 16 ? 8 : 4, /* rows taken together: with two vectors each, half of the registers */
    MOST_GROUP_ROWS = 8,
    SCORE_VECTORS = 2,
    VALUE_VECTORS = 4,
    FEW_VALUE_ROWS = LANES == 16 ? 4 : 2 /* up to here all of VALUE_VECTORS fit, beyond it half of them */
};

#define UNROLL _Pragma("clang loop unroll(full)")

/* `vectors` vectors of a page's elements, from element `at`; of the last only `last` lanes. */
VECTOR_INLINE void load_page(cria_type type, const void *page, int64_t at, const int vectors, int64_t last, vf *out) {
    UNROLL for (int v = 0; v < vectors; v++) {
        int64_t count = v == vectors - 1 ? last : LANES, from = at + v * LANES;
        if (type == CRIA_BF16) {
            const uint16_t *p = (const uint16_t *)page + from;
            out[v] = count == LANES ? vf_load_bf16(p) : vf_load_bf16_first(p, count);
        } else {
            const float *p = (const float *)page + from;
            out[v] = count == LANES ? vf_load(p) : vf_load_first(p, count);
        }
    }
}

/* Scores of `rows` rows against `vectors` vectors of keys, in one pass over the page. */
VECTOR_INLINE void score_vectors(cria_type type, const float *const *q, const int rows, const void *keys, int64_t dim,
                                 int64_t block_tokens, const int vectors, float *scores) {
    vf sums[MOST_GROUP_ROWS][SCORE_VECTORS], k[SCORE_VECTORS];
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int v = 0; v < vectors; v++) sums[r][v] = vf_set(0);
    }
    for (int64_t d = 0; d < dim; d++) {
        load_page(type, keys, d * block_tokens, vectors, LANES, k);
        UNROLL for (int r = 0; r < rows; r++) {
            vf x = vf_set(q[r][d]);
            UNROLL for (int v = 0; v < vectors; v++) sums[r][v] = vf_fma(x, k[v], sums[r][v]);
        }
    }
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int v = 0; v < vectors; v++) vf_store(scores + r * ATTENTION_STEP + v * LANES, sums[r][v]);
    }
}

/* CASE for every number of rows below a whole group. */
#if defined(__AVX512F__)
#define FEWER_ROWS(CASE) CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7)
#else
#define FEWER_ROWS(CASE) CASE(1) CASE(2) CASE(3)
#endif

/* Scores of `rows` rows against all keys of a page. */
VECTOR_INLINE void score_rows(cria_type type, const float *const *q, int64_t rows, const void *keys, int64_t dim,
                              int64_t block_tokens, const int vectors, float *scores) {
    const size_t size = type == CRIA_BF16 ? sizeof(uint16_t) : sizeof(float);
    for (int64_t first = 0; first < block_tokens; first += vectors * LANES) {
        const void *at = (const char *)keys + (size_t)first * size;
        float *to = scores + first;
        int64_t r = 0;
        for (; r + GROUP_ROWS <= rows; r += GROUP_ROWS)
            score_vectors(type, q + r, GROUP_ROWS, at, dim, block_tokens, vectors, to + r * ATTENTION_STEP);
        switch (rows - r) {
#define CASE(n)                                                                                                        \
    case n:                                                                                                            \
        score_vectors(type, q + r, n, at, dim, block_tokens, vectors, to + r * ATTENTION_STEP);                        \
        break;
            FEWER_ROWS(CASE)
#undef CASE
        }
    }
}

static void score_page(cria_type type, const float *const *q, int64_t rows, const void *keys, int64_t dim,
                       int64_t block_tokens, float *scores) {
    bool two = block_tokens % (2 * LANES) == 0;
    if (type == CRIA_BF16) {
        if (two) {
            score_rows(CRIA_BF16, q, rows, keys, dim, block_tokens, 2, scores);
        } else {
            score_rows(CRIA_BF16, q, rows, keys, dim, block_tokens, 1, scores);
        }
    } else if (two) {
        score_rows(CRIA_F32, q, rows, keys, dim, block_tokens, 2, scores);
    } else {
        score_rows(CRIA_F32, q, rows, keys, dim, block_tokens, 1, scores);
    }
}

/* `vectors` vectors of the sums of `rows` rows, the last vector with `last` lanes of values. */
VECTOR_INLINE void value_vectors(cria_type type, const float *weights, const int rows, int64_t keys, const void *values,
                                 int64_t dim, int64_t at, const int vectors, int64_t last, float *sums,
                                 int64_t record) {
    vf sum[MOST_GROUP_ROWS][VALUE_VECTORS], value[VALUE_VECTORS];
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int v = 0; v < vectors; v++) sum[r][v] = vf_load(sums + r * record + at + v * LANES);
    }
    for (int64_t key = 0; key < keys; key++) {
        load_page(type, values, key * dim + at, vectors, last, value);
        UNROLL for (int r = 0; r < rows; r++) {
            vf weight = vf_set(weights[r * ATTENTION_STEP + key]);
            UNROLL for (int v = 0; v < vectors; v++) sum[r][v] = vf_fma(weight, value[v], sum[r][v]);
        }
    }
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int v = 0; v < vectors; v++) vf_store(sums + r * record + at + v * LANES, sum[r][v]);
    }
}

/* Adds weight * value of the first `keys` keys of a page to the sums of `rows` rows. */
VECTOR_INLINE void value_rows(cria_type type, const float *weights, const int rows, int64_t keys, const void *values,
                              int64_t dim, float *sums, int64_t record) {
    const int most = rows <= FEW_VALUE_ROWS ? VALUE_VECTORS : VALUE_VECTORS / 2;
    int64_t at = 0;
    for (; at + most * LANES <= dim; at += most * LANES)
        value_vectors(type, weights, rows, keys, values, dim, at, most, LANES, sums, record);
    for (; at + 2 * LANES <= dim; at += 2 * LANES)
        value_vectors(type, weights, rows, keys, values, dim, at, 2, LANES, sums, record);
    for (; at + LANES <= dim; at += LANES)
        value_vectors(type, weights, rows, keys, values, dim, at, 1, LANES, sums, record);
    if (at < dim) value_vectors(type, weights, rows, keys, values, dim, at, 1, dim - at, sums, record);
}

VECTOR_INLINE void value_count(cria_type type, const float *weights, int64_t rows, int64_t keys, const void *values,
                               int64_t dim, float *sums, int64_t record) {
    switch (rows) {
#define CASE(n)                                                                                                        \
    case n:                                                                                                            \
        value_rows(type, weights, n, keys, values, dim, sums, record);                                                 \
        break;
        FEWER_ROWS(CASE)
#undef CASE
    default:
        value_rows(type, weights, GROUP_ROWS, keys, values, dim, sums, record);
        break;
    }
}

/* Up to GROUP_ROWS rows. */
static void value_page(cria_type type, const float *weights, int64_t rows, int64_t keys, const void *values,
                       int64_t dim, float *sums, int64_t record) {
    if (type == CRIA_BF16) {
        value_count(CRIA_BF16, weights, rows, keys, values, dim, sums, record);
    } else {
        value_count(CRIA_F32, weights, rows, keys, values, dim, sums, record);
    }
}

#endif
