/* The inner loops of attention: several rows against the keys or the values of one page.
 *
 * Which rows are taken together changes nothing in a row's own order of additions: scores are added dimension by
 * dimension, values key by key. While one part of a page is read, another is asked for, a line for a line, so that the
 * memory has the same work all the time and never more requests than it can hold. */
#ifndef CRIA_KERNELS_CPU_BODY_ATTENTION_PAGE_H
#define CRIA_KERNELS_CPU_BODY_ATTENTION_PAGE_H

#include "kernels/attention.h"
#include "kernels/cpu/row_vector.h"
#include "kernels/kv.h"

enum {
    GROUP_ROWS = LANES == 16 ? 8 : 6, /* rows taken together, with two vectors each */
    FEW_ROWS = LANES == 16 ? 4 : 3,   /* up to here four vectors each fit into the registers */
    MOST_VECTORS = 8                  /* of a single row */
};

#define UNROLL _Pragma("clang loop unroll(full)")

/* Bytes from a lane's element to the next lane's: int8 lies in quads, of which one element each is wanted. */
VECTOR_INLINE int64_t lane_bytes(cria_type type) {
    return type == CRIA_I8 ? KV_QUAD : kv_element_bytes(type);
}

/* Where row `index` (a dimension of the keys, a key of the values) of `width` lanes begins. */
VECTOR_INLINE const char *row_at(cria_type type, const char *from, int64_t index, int64_t width) {
    return from + (type == CRIA_I8 ? index / KV_QUAD : index) * width * lane_bytes(type);
}

/* A row of int8 asks for its quarter of what the four rows of its quads are to ask for. */
VECTOR_INLINE int64_t part_of_quad(cria_type type, int64_t index, int64_t width) {
    return type == CRIA_I8 ? index % KV_QUAD * width : 0;
}

/* `vectors` vectors of elements of row `index`; of the last only `last` lanes. Whole pairs of vectors of bf16 come as
 * their even and odd elements, which takes half the instructions: arrange_pairs has them in order. */
VECTOR_INLINE void load_elements(cria_type type, const char *from, int64_t index, const int vectors, int64_t last,
                                 vf *out) {
    if (type == CRIA_BF16 && vectors % 2 == 0) {
        UNROLL for (int v = 0; v < vectors; v += 2) {
            vf_load_bf16_pairs((const uint16_t *)from + v * LANES, &out[v], &out[v + 1]);
        }
        return;
    }
    UNROLL for (int v = 0; v < vectors; v++) {
        int64_t count = v == vectors - 1 ? last : LANES;
        if (type == CRIA_I8) {
            out[v] = vf_load_i8_quads((const int8_t *)from + v * LANES * KV_QUAD, count, (int)(index % KV_QUAD));
        } else if (type == CRIA_BF16) {
            const uint16_t *p = (const uint16_t *)from + v * LANES;
            out[v] = count == LANES ? vf_load_bf16(p) : vf_load_bf16_first(p, count);
        } else {
            const float *p = (const float *)from + v * LANES;
            out[v] = count == LANES ? vf_load(p) : vf_load_first(p, count);
        }
    }
}

/* Sums in memory are in order, in registers as load_elements has their elements. */
VECTOR_INLINE void load_sums(cria_type type, const float *from, const int vectors, vf *sums) {
    if (type == CRIA_BF16 && vectors % 2 == 0) {
        UNROLL for (int v = 0; v < vectors; v += 2) vf_load_pairs(from + v * LANES, &sums[v], &sums[v + 1]);
    } else {
        UNROLL for (int v = 0; v < vectors; v++) sums[v] = vf_load(from + v * LANES);
    }
}
VECTOR_INLINE void store_sums(cria_type type, float *to, const int vectors, const vf *sums) {
    if (type == CRIA_BF16 && vectors % 2 == 0) {
        UNROLL for (int v = 0; v < vectors; v += 2) vf_store_pairs(to + v * LANES, sums[v], sums[v + 1]);
    } else {
        UNROLL for (int v = 0; v < vectors; v++) vf_store(to + v * LANES, sums[v]);
    }
}

/* sums[r] += factor of row r * the elements, two vectors at a time: that leaves registers for twelve sums. */
#define MULTIPLY_ADD(elements, index, factor, last, sums)                                                              \
    UNROLL for (int v = 0; v < vectors; v += 2) {                                                                      \
        const int width = vectors - v < 2 ? vectors - v : 2;                                                           \
        vf x[2];                                                                                                       \
        load_elements(type, (elements) + v * LANES * lane_bytes(type), index, width, last, x);                         \
        UNROLL for (int r = 0; r < rows; r++) {                                                                        \
            vf f = vf_read(&(factor));                                                                                 \
            UNROLL for (int w = 0; w < width; w++) sums[r][v + w] = vf_fma(f, x[w], sums[r][v + w]);                   \
        }                                                                                                              \
    }

/* Scores of `rows` rows, q[rows][dim], without the scales of int8, against `vectors` vectors of keys. What lies `ahead`
 * bytes further is asked for on the way. */
VECTOR_INLINE void score_vectors(cria_type type, const float *q, const int rows, const char *keys, int64_t dim,
                                 int64_t block_tokens, const int vectors, int64_t ahead, float *scores) {
    vf sums[GROUP_ROWS][MOST_VECTORS];
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int v = 0; v < vectors; v++) sums[r][v] = vf_set(0);
    }
    for (int64_t d = 0; d < dim; d++) {
        const char *from = row_at(type, keys, d, block_tokens);
        _mm_prefetch(from + ahead + part_of_quad(type, d, block_tokens), _MM_HINT_T1);
        MULTIPLY_ADD(from, d, q[r * dim + d], LANES, sums)
    }
    UNROLL for (int r = 0; r < rows; r++) store_sums(type, scores + r * ATTENTION_STEP, vectors, sums[r]);
}

/* Scores of `rows` rows against all keys of a page. */
VECTOR_INLINE void score_rows(cria_type type, const float *q, const int rows, const char *keys, int64_t dim,
                              int64_t block_tokens, int64_t ahead, float *scores) {
    const int most = rows <= FEW_ROWS ? 4 : 2;
    const int64_t size = lane_bytes(type);
    int64_t at = 0;
    for (; at + most * LANES <= block_tokens; at += most * LANES)
        score_vectors(type, q, rows, keys + at * size, dim, block_tokens, most, ahead, scores + at);
    for (; at + 2 * LANES <= block_tokens; at += 2 * LANES)
        score_vectors(type, q, rows, keys + at * size, dim, block_tokens, 2, ahead, scores + at);
    for (; at < block_tokens; at += LANES)
        score_vectors(type, q, rows, keys + at * size, dim, block_tokens, 1, ahead, scores + at);
}

/* CASE for every number of rows that are taken together. */
#if defined(__AVX512F__)
#define GROUP_SIZES(CASE) CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8)
#else
#define GROUP_SIZES(CASE) CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
#endif

VECTOR_INLINE void score_group(cria_type type, const float *q, int64_t rows, const char *keys, int64_t dim,
                               int64_t block_tokens, int64_t ahead, float *scores) {
    switch (rows) {
#define CASE(n)                                                                                                        \
    case n:                                                                                                            \
        score_rows(type, q, n, keys, dim, block_tokens, ahead, scores);                                                \
        break;
        GROUP_SIZES(CASE)
#undef CASE
    }
}

/* Up to GROUP_ROWS rows. */
static void score_page(cria_type type, const float *q, int64_t rows, const char *keys, int64_t dim,
                       int64_t block_tokens, int64_t ahead, float *scores) {
    if (type == CRIA_I8) {
        score_group(CRIA_I8, q, rows, keys, dim, block_tokens, ahead, scores);
    } else if (type == CRIA_BF16) {
        score_group(CRIA_BF16, q, rows, keys, dim, block_tokens, ahead, scores);
    } else {
        score_group(CRIA_F32, q, rows, keys, dim, block_tokens, ahead, scores);
    }
}

/* `vectors` vectors of the sums of `rows` rows, the last vector with `last` lanes of values; keys first .. end - 1. */
VECTOR_INLINE void value_vectors(cria_type type, const float *weights, const int rows, int64_t first, int64_t end,
                                 const char *values, int64_t dim, const int vectors, int64_t last, int64_t ahead,
                                 int64_t asked, float *sums, int64_t record) {
    vf sum[GROUP_ROWS][MOST_VECTORS];
    UNROLL for (int r = 0; r < rows; r++) load_sums(type, sums + r * record, vectors, sum[r]);
    for (int64_t key = first; key < end; key++) {
        const char *from = row_at(type, values, key, dim);
        const char *later = from + ahead + part_of_quad(type, key, dim);
        for (int64_t line = 0; line < asked; line += 64) _mm_prefetch(later + line, _MM_HINT_T1);
        MULTIPLY_ADD(from, key, weights[r * ATTENTION_STEP + key], last, sum)
    }
    UNROLL for (int r = 0; r < rows; r++) store_sums(type, sums + r * record, vectors, sum[r]);
}

/* Adds weight * value of keys first .. end - 1 of a page to the sums of `rows` rows. */
VECTOR_INLINE void value_rows(cria_type type, const float *weights, const int rows, int64_t first, int64_t end,
                              const char *values, int64_t dim, int64_t ahead, float *sums, int64_t record) {
    const int most = rows == 1 ? 8 : rows <= FEW_ROWS ? 4 : 2;
    const int64_t size = lane_bytes(type);
    int64_t at = 0;
#define PIECE(vectors, last)                                                                                           \
    value_vectors(type, weights, rows, first, end, values + at * size, dim, vectors, last, ahead,                      \
                  ahead && at == 0 ? dim * kv_element_bytes(type) : 0, sums + at, record)
    for (; at + most * LANES <= dim; at += most * LANES) PIECE(most, LANES);
    if (most > 4 && at + 4 * LANES <= dim) {
        PIECE(4, LANES);
        at += 4 * LANES;
    }
    for (; at + 2 * LANES <= dim; at += 2 * LANES) PIECE(2, LANES);
    for (; at + LANES <= dim; at += LANES) PIECE(1, LANES);
    if (at < dim) PIECE(1, dim - at);
#undef PIECE
}

VECTOR_INLINE void value_group(cria_type type, const float *weights, int64_t rows, int64_t first, int64_t end,
                               const char *values, int64_t dim, int64_t ahead, float *sums, int64_t record) {
    switch (rows) {
#define CASE(n)                                                                                                        \
    case n:                                                                                                            \
        value_rows(type, weights, n, first, end, values, dim, ahead, sums, record);                                    \
        break;
        GROUP_SIZES(CASE)
#undef CASE
    }
}

/* Up to GROUP_ROWS rows. */
static void value_page(cria_type type, const float *weights, int64_t rows, int64_t first, int64_t end,
                       const char *values, int64_t dim, int64_t ahead, float *sums, int64_t record) {
    if (type == CRIA_I8) {
        value_group(CRIA_I8, weights, rows, first, end, values, dim, ahead, sums, record);
    } else if (type == CRIA_BF16) {
        value_group(CRIA_BF16, weights, rows, first, end, values, dim, ahead, sums, record);
    } else {
        value_group(CRIA_F32, weights, rows, first, end, values, dim, ahead, sums, record);
    }
}

#endif
