/* Attention over a cache of int8 by products of bytes that are added in 32 bits (VNNI).
 *
 * A query is rounded to whole numbers of 16 bits with one scale, a step's weights (each times its value's scale) to 15
 * bits with another: two bytes each, high and low. What is multiplied and added are whole numbers, so that no order of
 * additions changes a score or the sum of a step. Elements of the cache become unsigned by adding 128, which comes off
 * with the sum of what they are multiplied with. */
#ifndef CRIA_KERNELS_CPU_BODY_ATTENTION_I8_H
#define CRIA_KERNELS_CPU_BODY_ATTENTION_I8_H

#include "kernels/cpu/body/attention_step.h"

#include <string.h>

enum {
    KV_QUAD = KV_CELL_BYTES,
    I8_ROWS = 6,       /* taken together, with two vectors of two sums each */
    I8_MOST = 32639,   /* 127 * 256 + 127: the largest that two signed bytes can say */
    I8_MOST_DIM = 256, /* a sum of more products of 8 and 16 bits may leave 32 bits */
    I8_UNSIGNED = 128  /* what is added to elements of the cache */
};

/* Whole numbers as two signed bytes each, in the memory of as many floats; value = scale * (256 * high + low). */
typedef struct {
    const int8_t *high, *low;
    float scale;
    int32_t sum; /* of all, times I8_UNSIGNED */
} i8_row;

static inline i8_row i8_row_of(const float *memory, int64_t count) {
    const int8_t *bytes = (const int8_t *)memory;
    i8_row row = {.high = bytes, .low = bytes + count};
    memcpy(&row.scale, bytes + 2 * count, sizeof row.scale);
    memcpy(&row.sum, bytes + 2 * count + sizeof row.scale, sizeof row.sum);
    return row;
}

/* Masked stores are slow: for the last vector alone. */
VECTOR_INLINE void i8_store(int8_t *p, vmask lanes, vi x) {
    __m128i bytes = _mm512_cvtepi32_epi8(x);
    if (lanes == 0xffff) {
        _mm_storeu_si128((__m128i *)p, bytes);
    } else {
        _mm_mask_storeu_epi8(p, lanes, bytes);
    }
}

/* Writes `vectors` vectors, whose largest magnitude is `most`, of which the last has `last` lanes. */
VECTOR_INLINE void i8_write_row(const vf *x, int64_t vectors, int64_t last, float most, bool finite, float *memory) {
    int64_t count = (vectors - 1) * LANES + last;
    int8_t *bytes = (int8_t *)memory;
    bool zero = !finite || most < KV_LEAST;
    float scale = !finite ? NAN : zero ? 0 : most / I8_MOST;
    vf factor = vf_set(zero ? 0 : I8_MOST / most);
    vi sum = vi_set(0);
    for (int64_t v = 0; v < vectors; v++) {
        vmask lanes = vf_first(v == vectors - 1 ? last : LANES);
        vi whole = _mm512_maskz_cvtps_epi32(lanes, x[v] * factor);
        vi high = vi_shift_right_arithmetic(vi_add(whole, vi_set(128)), 8);
        vi low = vi_sub(whole, vi_shift_left(high, 8));
        sum = vi_add(sum, whole);
        i8_store(bytes + v * LANES, lanes, high);
        i8_store(bytes + count + v * LANES, lanes, low);
    }
    int32_t all = I8_UNSIGNED * _mm512_reduce_add_epi32(sum);
    memcpy(bytes + 2 * count, &scale, sizeof scale);
    memcpy(bytes + 2 * count + sizeof scale, &all, sizeof all);
}

/* A query of `dim` values, dim a multiple of 4. */
static void i8_write_query(const float *q, int64_t dim, float *memory) {
    vf x[I8_MOST_DIM / LANES], most = vf_set(0), infinity = vf_set(INFINITY);
    vmask bad = 0;
    int64_t vectors = (dim + LANES - 1) / LANES, last = dim - (vectors - 1) * LANES;
    for (int64_t v = 0; v < vectors; v++) {
        x[v] = vf_load_first(q + v * LANES, v == vectors - 1 ? last : LANES);
        bad = vf_or(bad, vf_or(vf_nan(x[v]), vf_equal(vf_abs(x[v]), infinity)));
        most = vf_max(most, vf_abs(x[v]));
    }
    i8_write_row(x, vectors, last, vf_hmax(most), bad == 0, memory);
}

VECTOR_INLINE vi i8_load_unsigned(const char *p, int64_t lanes) {
    vi quads = lanes == LANES ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi32(vf_first(lanes), p);
    return vi_xor(quads, _mm512_set1_epi8((char)I8_UNSIGNED));
}

/* One quad of bytes in all lanes. */
VECTOR_INLINE vi i8_quad(const int8_t *p) {
    int32_t quad;
    memcpy(&quad, p, sizeof quad);
    return vi_set(quad);
}

/* sums[r][w][0 and 1] += quad * the high and the low bytes of the row. */
#define I8_MULTIPLY_ADD(quad, row, at)                                                                                 \
    UNROLL for (int r = 0; r < rows; r++) {                                                                            \
        vi high = i8_quad((row)[r].high + (at)), low = i8_quad((row)[r].low + (at));                                   \
        UNROLL for (int w = 0; w < width; w++) {                                                                       \
            sums[r][w][0] = _mm512_dpbusd_epi32(sums[r][w][0], (quad)[w], high);                                       \
            sums[r][w][1] = _mm512_dpbusd_epi32(sums[r][w][1], (quad)[w], low);                                        \
        }                                                                                                              \
    }

VECTOR_INLINE vf i8_whole(const vi sums[2], int32_t sum) {
    return vi_to_float(vi_sub(vi_add(vi_shift_left(sums[0], 8), sums[1]), vi_set(sum)));
}

/* Scores, without the keys' scales, of `width` vectors of keys. What lies `ahead` bytes further is asked for. */
VECTOR_INLINE void i8_score_vectors(const i8_row *q, const int rows, const char *keys, int64_t dim,
                                    int64_t block_tokens, const int width, int64_t ahead, float *scores) {
    vi sums[I8_ROWS][2][2] = {{{{0}}}};
    for (int64_t d = 0; d < dim; d += KV_QUAD, keys += block_tokens * KV_QUAD) {
        vi quad[2];
        UNROLL for (int w = 0; w < width; w++) {
            quad[w] = i8_load_unsigned(keys + w * 64, LANES);
            UNROLL for (int i = 1; rows == 1 && i < FEW_READS; i++) vi_keep(vi_read(keys + w * 64));
            _mm_prefetch(keys + w * 64 + ahead, _MM_HINT_T1);
        }
        I8_MULTIPLY_ADD(quad, q, d)
    }
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int w = 0; w < width; w++)
            vf_store(scores + r * ATTENTION_STEP + w * LANES, i8_whole(sums[r][w], q[r].sum) * vf_set(q[r].scale));
    }
}

VECTOR_INLINE void i8_score_rows(const i8_row *q, const int rows, const char *keys, int64_t dim, int64_t block_tokens,
                                 int64_t ahead, float *scores) {
    int64_t at = 0;
    for (; at + 2 * LANES <= block_tokens; at += 2 * LANES)
        i8_score_vectors(q, rows, keys + at * KV_QUAD, dim, block_tokens, 2, ahead, scores + at);
    for (; at < block_tokens; at += LANES)
        i8_score_vectors(q, rows, keys + at * KV_QUAD, dim, block_tokens, 1, ahead, scores + at);
}

/* Asks for what comes later line by line, in the order in which it lies.
 *
 * Adds `width` vectors of dimensions from `at` on, the last of them with `last` lanes. */
VECTOR_INLINE void i8_value_vectors(const i8_row *weights, const int rows, step_values *values, int64_t at,
                                    const int width, int64_t last, float *const *records) {
    vi sums[I8_ROWS][2][2] = {{{{0}}}};
    for (int64_t p = 0; p < values->pages; p++) {
        const char *from = values->page[p] + at * KV_QUAD, *later = values->later[p];
        int64_t first = p * values->block_tokens;
        for (int64_t key = 0; key < values->block_tokens; key += KV_QUAD, from += values->dim * KV_QUAD) {
            vi quad[2];
            UNROLL for (int w = 0; w < width; w++) {
                const int64_t lanes = w == width - 1 ? last : LANES;
                quad[w] = i8_load_unsigned(from + w * 64, lanes);
                UNROLL for (int i = 1; rows == 1 && i < FEW_READS; i++)
                    vi_keep(lanes == LANES ? vi_read(from + w * 64) : vi_load_first(from + w * 64, lanes));
                _mm_prefetch(later, _MM_HINT_T1);
                later += 64;
            }
            I8_MULTIPLY_ADD(quad, weights, first + key)
        }
        values->later[p] = later;
    }
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int w = 0; w < width; w++) {
            float *sum = records[r] + at + w * LANES;
            vf_store(sum, vf_fma(i8_whole(sums[r][w], weights[r].sum), vf_set(weights[r].scale), vf_load(sum)));
        }
    }
}

VECTOR_INLINE void i8_value_rows(const i8_row *weights, const int rows, step_values *values, float *const *records) {
    int64_t at = 0, dim = values->dim;
    for (; at + 2 * LANES <= dim; at += 2 * LANES) i8_value_vectors(weights, rows, values, at, 2, LANES, records);
    for (; at < dim; at += LANES)
        i8_value_vectors(weights, rows, values, at, 1, dim - at < LANES ? dim - at : LANES, records);
}

#define I8_SIZES(CASE) CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)

/* Up to I8_ROWS rows. */
static void i8_score_page(const i8_row *q, int64_t rows, const char *keys, int64_t dim, int64_t block_tokens,
                          int64_t ahead, float *scores) {
    switch (rows) {
#define CASE(n)                                                                                                        \
    case n:                                                                                                            \
        i8_score_rows(q, n, keys, dim, block_tokens, ahead, scores);                                                   \
        break;
        I8_SIZES(CASE)
#undef CASE
    }
}

static void i8_add_values(const i8_row *weights, int64_t rows, step_values *values, float *const *records) {
    switch (rows) {
#define CASE(n)                                                                                                        \
    case n:                                                                                                            \
        i8_value_rows(weights, n, values, records);                                                                    \
        break;
        I8_SIZES(CASE)
#undef CASE
    }
}

/* Of `left` rows, how many to take together, so that all groups are alike. */
static inline int64_t i8_group(int64_t left) {
    int64_t groups = divide_up(left, I8_ROWS);
    return divide_up(left, groups);
}

VECTOR_INLINE void i8_score(const head_step *s, int64_t page, line_stream *stream) {
    const cria_kv_layer *layer = s->args->layer;
    const char *keys = step_keys(s, page);
    int64_t dim = layer->head_dim, at = page * layer->block_tokens, rows;
    int64_t ahead = next_lines(stream, page, kv_key_bytes(layer), keys) - keys;
    for (int64_t row = first_row(s, s->key + at); row < s->item->head_rows; row += rows, ahead = 0) {
        i8_row q[I8_ROWS];
        rows = i8_group(s->item->head_rows - row);
        for (int64_t r = 0; r < rows; r++) q[r] = i8_row_of(s->q + (row + r) * dim, dim);
        i8_score_page(q, rows, keys, dim, layer->block_tokens, ahead, s->weights + row * ATTENTION_STEP + at);
    }
}

/* The weights of the whole step as bytes in the place of the scores; keys that are not seen weigh 0. */
VECTOR_INLINE void i8_soften(const head_step *s, int64_t row, int64_t keys) {
    vf weights[ATTENTION_STEP / LANES], most = vf_set(0);
    vmask bad = 0;
    float *scores = s->weights + row * ATTENTION_STEP;
    int64_t count =
        soften_scores(scores, keys, s->args->scale, &s->scales, s->args->layer->head_dim, s->records[row], weights);
    weights[count - 1] = vf_choose(vf_first(keys - (count - 1) * LANES), weights[count - 1], vf_set(0));
    for (int64_t v = 0; v < count; v++) {
        bad = vf_or(bad, vf_nan(weights[v]));
        most = vf_max(most, weights[v]);
    }
    for (int64_t v = count; v < ATTENTION_STEP / LANES; v++) weights[v] = vf_set(0);
    i8_write_row(weights, ATTENTION_STEP / LANES, LANES, vf_hmax(most), bad == 0, scores);
}

VECTOR_INLINE void i8_add_step(const head_step *s, line_stream *stream) {
    step_values values = find_values(s, stream);
    int64_t rows;
    for (int64_t row = first_row(s, s->key); row < s->item->head_rows; row += rows) {
        i8_row weights[I8_ROWS];
        rows = i8_group(s->item->head_rows - row);
        for (int64_t r = 0; r < rows; r++)
            weights[r] = i8_row_of(s->weights + (row + r) * ATTENTION_STEP, ATTENTION_STEP);
        i8_add_values(weights, rows, &values, s->records + row);
        stop_asking(&values);
    }
}

static inline bool i8_fits(const cria_kv_layer *layer) {
    return layer->type == CRIA_I8 && layer->head_dim % KV_QUAD == 0 && layer->head_dim <= I8_MOST_DIM;
}

static const attention_way I8_WAY = {i8_write_query, i8_score, i8_soften, i8_add_step};

#endif
