/* The inner loops of attention: several rows against the keys or the values of one page.
 *
 * Which rows are taken together changes nothing in a row's own order of additions: scores are four partial sums over
 * the dimensions d = 0, 1, 2, 3 (mod 4) added in that order; values are added key by key. */
#ifndef CRIA_KERNELS_CPU_BODY_ATTENTION_PAGE_H
#define CRIA_KERNELS_CPU_BODY_ATTENTION_PAGE_H

#include "kernels/attention.h"
#include "kernels/cpu/row_vector.h"

enum {
    GROUP_ROWS = 4, /* rows taken together */
    SCORE_VECTORS = 2,
    VALUE_VECTORS = LANES == 16 ? 4 : 2, /* registers: GROUP_ROWS * VALUE_VECTORS sums */
    PARTS = 4
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

/* One row: all partial sums at once, since nothing else would hide the latency of the additions. */
VECTOR_INLINE void score_row(cria_type type, const float *q, const void *keys, int64_t dim, int64_t block_tokens,
                             const int vectors, float *scores) {
    vf sums[PARTS][SCORE_VECTORS], k[SCORE_VECTORS];
    UNROLL for (int part = 0; part < PARTS; part++) {
        UNROLL for (int v = 0; v < vectors; v++) sums[part][v] = vf_set(0);
    }
    int64_t d = 0;
    for (; d + PARTS <= dim; d += PARTS) {
        UNROLL for (int part = 0; part < PARTS; part++) {
            load_page(type, keys, (d + part) * block_tokens, vectors, LANES, k);
            vf x = vf_set(q[d + part]);
            UNROLL for (int v = 0; v < vectors; v++) sums[part][v] = vf_fma(x, k[v], sums[part][v]);
        }
    }
    UNROLL for (int part = 0; part < PARTS - 1; part++) {
        if (d + part >= dim) continue;
        load_page(type, keys, (d + part) * block_tokens, vectors, LANES, k);
        vf x = vf_set(q[d + part]);
        UNROLL for (int v = 0; v < vectors; v++) sums[part][v] = vf_fma(x, k[v], sums[part][v]);
    }
    UNROLL for (int v = 0; v < vectors; v++) {
        vf_store(scores + v * LANES, ((sums[0][v] + sums[1][v]) + sums[2][v]) + sums[3][v]);
    }
}

/* GROUP_ROWS rows: one partial sum after the other, so that all rows' sums stay in registers. */
VECTOR_INLINE void score_group(cria_type type, const float *const *q, const void *keys, int64_t dim,
                               int64_t block_tokens, const int vectors, float *scores) {
    for (int part = 0; part < PARTS; part++) {
        vf sums[GROUP_ROWS][SCORE_VECTORS], k[SCORE_VECTORS];
        UNROLL for (int r = 0; r < GROUP_ROWS; r++) {
            UNROLL for (int v = 0; v < vectors; v++) sums[r][v] = vf_set(0);
        }
        for (int64_t d = part; d < dim; d += PARTS) {
            load_page(type, keys, d * block_tokens, vectors, LANES, k);
            UNROLL for (int r = 0; r < GROUP_ROWS; r++) {
                vf x = vf_set(q[r][d]);
                UNROLL for (int v = 0; v < vectors; v++) sums[r][v] = vf_fma(x, k[v], sums[r][v]);
            }
        }
        UNROLL for (int r = 0; r < GROUP_ROWS; r++) {
            UNROLL for (int v = 0; v < vectors; v++) {
                float *at = scores + r * ATTENTION_STEP + v * LANES;
                vf_store(at, part == 0 ? sums[r][v] : vf_load(at) + sums[r][v]);
            }
        }
    }
}

/* Scores of `rows` rows against all keys of a page. */
VECTOR_INLINE void score_rows(cria_type type, const float *const *q, int64_t rows, const void *keys, int64_t dim,
                              int64_t block_tokens, const int vectors, float *scores) {
    const size_t size = type == CRIA_BF16 ? sizeof(uint16_t) : sizeof(float);
    for (int64_t first = 0; first < block_tokens; first += vectors * LANES) {
        const void *at = (const char *)keys + (size_t)first * size;
        int64_t r = 0;
        for (; r + GROUP_ROWS <= rows; r += GROUP_ROWS) {
            score_group(type, q + r, at, dim, block_tokens, vectors, scores + r * ATTENTION_STEP + first);
        }
        for (; r < rows; r++)
            score_row(type, q[r], at, dim, block_tokens, vectors, scores + r * ATTENTION_STEP + first);
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
    vf sum[GROUP_ROWS][2 * VALUE_VECTORS], value[2 * VALUE_VECTORS];
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
    const int most = rows == 1 ? 2 * VALUE_VECTORS : VALUE_VECTORS;
    int64_t at = 0;
    for (; at + most * LANES <= dim; at += most * LANES) {
        value_vectors(type, weights, rows, keys, values, dim, at, most, LANES, sums, record);
    }
    for (; at + 2 * LANES <= dim; at += 2 * LANES) {
        value_vectors(type, weights, rows, keys, values, dim, at, 2, LANES, sums, record);
    }
    for (; at + LANES <= dim; at += LANES) {
        value_vectors(type, weights, rows, keys, values, dim, at, 1, LANES, sums, record);
    }
    if (at < dim) value_vectors(type, weights, rows, keys, values, dim, at, 1, dim - at, sums, record);
}

static void value_row(cria_type type, const float *weights, int64_t keys, const void *values, int64_t dim, float *sums,
                      int64_t record) {
    if (type == CRIA_BF16) {
        value_rows(CRIA_BF16, weights, 1, keys, values, dim, sums, record);
    } else {
        value_rows(CRIA_F32, weights, 1, keys, values, dim, sums, record);
    }
}

static void value_group(cria_type type, const float *weights, int64_t keys, const void *values, int64_t dim,
                        float *sums, int64_t record) {
    if (type == CRIA_BF16) {
        value_rows(CRIA_BF16, weights, GROUP_ROWS, keys, values, dim, sums, record);
    } else {
        value_rows(CRIA_F32, weights, GROUP_ROWS, keys, values, dim, sums, record);
    }
}

#endif
