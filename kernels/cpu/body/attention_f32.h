/* Attention in f32, whatever type the cache has: several rows against the keys or the values of one page.
 *
 * Which rows are taken together changes nothing in a row's own order of additions: scores are added dimension by
 * dimension, values key by key. While one part of a page is read, another is asked for, a line for a line, so that the
 * memory has the same work all the time and never more requests than it can hold. */
#ifndef CRIA_KERNELS_CPU_BODY_ATTENTION_F32_H
#define CRIA_KERNELS_CPU_BODY_ATTENTION_F32_H

#include "kernels/cpu/body/attention_step.h"

#include <string.h>

enum { LANE_LINE = 64 / (LANES * KV_CELL_BYTES) }; /* vectors of cells in a cache line */

/* Elements that a turn of the inner loops takes: of bf16 both of a cell, so that which one it is need not be asked. */
VECTOR_INLINE int turn(cria_type type) {
    return type == CRIA_BF16 ? 2 : 1;
}

/* Element `index` of vectors of cells for `rows` rows. They are read anew for each, as registers are short. */
VECTOR_INLINE vf cell_element(cria_type type, const char *cells, int64_t lanes, int64_t index, const int rows) {
    vi x = lanes == LANES ? vi_read(cells) : vi_load_first(cells, lanes);
    const bool few = LANES == 16 && rows <= (type == CRIA_F32 ? FEW_ROWS : 1);
    UNROLL for (int i = 1; few && lanes == LANES && i < FEW_READS / kv_cell(type); i++) vi_keep(vi_read(cells));
    if (type == CRIA_F32) return vi_as_float(x);
    if (type == CRIA_BF16) return vi_as_float(index ? vi_and(x, vi_set((int)0xffff0000u)) : vi_shift_left(x, 16));
    return vi_to_float(vi_shift_right_arithmetic(vi_shift_left(x, (unsigned)(24 - 8 * (index % KV_CELL_BYTES))), 24));
}

/* sums[r] += factor of row r * element, for the elements i = index, index + 1, .. of a turn that are in begin .. end -
 * 1, two vectors at a time: that leaves registers for twelve sums. The last vector has `last` lanes. */
#define MULTIPLY_ADD(from, index, begin, end, factor, last, sums)                                                      \
    UNROLL for (int e = 0; e < turn(type); e++) {                                                                      \
        const int64_t i = (index) + e;                                                                                 \
        if (i < (begin) || i >= (end)) continue;                                                                       \
        UNROLL for (int v = 0; v < vectors; v += 2) {                                                                  \
            const int width = vectors - v < 2 ? vectors - v : 2;                                                       \
            vf x[2];                                                                                                   \
            UNROLL for (int w = 0; w < width; w++) {                                                                   \
                const char *cells = (from) + (v + w) * LANES * KV_CELL_BYTES;                                          \
                x[w] =                                                                                                 \
                    cell_element(type, cells, v + w == vectors - 1 ? last : LANES, type == CRIA_BF16 ? e : i, rows);   \
            }                                                                                                          \
            UNROLL for (int r = 0; r < rows; r++) {                                                                    \
                vf f = vf_read(&(factor));                                                                             \
                UNROLL for (int w = 0; w < width; w++) sums[r][v + w] = vf_fma(f, x[w], sums[r][v + w]);               \
            }                                                                                                          \
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
    for (int64_t d = 0; d < dim; d += turn(type)) {
        const char *from = keys + d / kv_cell(type) * block_tokens * KV_CELL_BYTES;
        if (d % kv_cell(type) == 0) {
            UNROLL for (int v = 0; v < vectors; v += LANE_LINE)
                _mm_prefetch(from + v * LANES * KV_CELL_BYTES + ahead, _MM_HINT_T1);
        }
        MULTIPLY_ADD(from, d, 0, dim, q[r * dim + i], LANES, sums)
    }
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int v = 0; v < vectors; v++) vf_store(scores + r * ATTENTION_STEP + v * LANES, sums[r][v]);
    }
}

/* Scores of `rows` rows against all keys of a page. */
VECTOR_INLINE void score_rows(cria_type type, const float *q, const int rows, const char *keys, int64_t dim,
                              int64_t block_tokens, int64_t ahead, float *scores) {
    const int most = rows <= FEW_ROWS ? 4 : 2;
    int64_t at = 0;
#define PIECE(vectors)                                                                                                 \
    score_vectors(type, q, rows, keys + at * KV_CELL_BYTES, dim, block_tokens, vectors, ahead, scores + at)
    for (; at + most * LANES <= block_tokens; at += most * LANES) PIECE(most);
    for (; at + 2 * LANES <= block_tokens; at += 2 * LANES) PIECE(2);
    for (; at < block_tokens; at += LANES) PIECE(1);
#undef PIECE
}

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

/* `vectors` vectors of the sums of `rows` rows, the last vector with `last` lanes of values; keys first .. end - 1.
 * With every row of cells `asked` bytes are asked for. */
VECTOR_INLINE void value_vectors(cria_type type, const float *weights, const int rows, int64_t first, int64_t end,
                                 const char *values, int64_t dim, const int vectors, int64_t last, int64_t ahead,
                                 int64_t asked, float *sums, int64_t record) {
    vf sum[GROUP_ROWS][MOST_VECTORS];
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int v = 0; v < vectors; v++) sum[r][v] = vf_load(sums + r * record + v * LANES);
    }
    for (int64_t key = first - first % turn(type); key < end; key += turn(type)) {
        const char *from = values + key / kv_cell(type) * dim * KV_CELL_BYTES;
        if (key % kv_cell(type) == 0) {
            for (int64_t line = 0; line < asked; line += 64) _mm_prefetch(from + ahead + line, _MM_HINT_T1);
        }
        MULTIPLY_ADD(from, key, first, end, weights[r * ATTENTION_STEP + i], last, sum)
    }
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int v = 0; v < vectors; v++) vf_store(sums + r * record + v * LANES, sum[r][v]);
    }
}

/* Adds weight * value of keys first .. end - 1 of a page to the sums of `rows` rows. */
VECTOR_INLINE void value_rows(cria_type type, const float *weights, const int rows, int64_t first, int64_t end,
                              const char *values, int64_t dim, int64_t ahead, float *sums, int64_t record) {
    const int most = rows == 1 ? 8 : rows <= FEW_ROWS ? 4 : 2;
    int64_t at = 0;
#define PIECE(vectors, last)                                                                                           \
    value_vectors(type, weights, rows, first, end, values + at * KV_CELL_BYTES, dim, vectors, last, ahead,             \
                  ahead && at == 0 ? dim * KV_CELL_BYTES : 0, sums + at, record)
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

static void f32_pack_query(const float *q, int64_t dim, float *packed) {
    memcpy(packed, q, (size_t)dim * sizeof *packed);
}

VECTOR_INLINE void f32_score(const head_step *s, int64_t page, line_stream *stream) {
    score_groups(s, page, stream, score_page);
}

VECTOR_INLINE void f32_soften(const head_step *s, int64_t row, int64_t keys) {
    const cria_kv_layer *layer = s->args->layer;
    vf weights[ATTENTION_STEP / LANES];
    float *scores = s->weights + row * ATTENTION_STEP;
    const step_scales *scales = layer->type == CRIA_I8 ? &s->scales : NULL;
    int64_t count = soften_scores(scores, keys, s->args->scale, scales, layer->head_dim, s->records[row], weights);
    for (int64_t v = 0; v < count; v++) vf_store(scores + v * LANES, weights[v]);
}

VECTOR_INLINE void f32_add_page(const head_step *s, int64_t page, line_stream *stream) {
    const cria_kv_layer *layer = s->args->layer;
    int64_t dim = layer->head_dim, record = attention_record(dim), at = page * layer->block_tokens;
    const char *values = step_keys(s, page) + kv_key_bytes(layer);
    int64_t ahead = next_lines(stream, page, kv_value_bytes(layer), values) - values;
    for (int64_t row = first_row(s, s->key + at); row < s->item->head_rows; row += GROUP_ROWS, ahead = 0) {
        int64_t rows = group_rows(s, row), shared = seen_keys(s, row) - at;
        const float *weights = s->weights + row * ATTENTION_STEP + at;
        if (shared > layer->block_tokens) shared = layer->block_tokens;
        value_page(layer->type, weights, rows, 0, shared, values, dim, ahead, s->records[row], record);
        for (int64_t r = 0; r < rows; r++) { /* keys that only the later queries of the group see */
            int64_t seen = seen_keys(s, row + r) - at;
            if (seen > layer->block_tokens) seen = layer->block_tokens;
            if (seen > shared)
                value_page(layer->type, weights + r * ATTENTION_STEP, 1, shared, seen, values, dim, 0,
                           s->records[row + r], record);
        }
    }
}

VECTOR_INLINE void f32_add_values(const head_step *s, line_stream *stream) {
    for (int64_t p = 0; p < s->pages; p++) f32_add_page(s, p, stream);
}

static const attention_way F32_WAY = {f32_pack_query, f32_score, f32_soften, f32_add_values};

#endif
