/* AVX2: dot products over the quantised panels. maddubs adds two products in 16 bits with saturation; what goes into it
 * is kept small enough that it never saturates. */
#include "kernels/cpu/avx2/quantised.h"

#if defined(__AVX2__)
#include <immintrin.h>

CRIA_INLINE __m256i load(const uint8_t *at) {
    return _mm256_loadu_si256((const __m256i *)(const void *)at);
}

CRIA_INLINE __m256i broadcast_quad(const uint8_t *at) {
    return _mm256_set1_epi32(*(const int *)(const void *)at);
}

CRIA_INLINE __m256 broadcast_f32(const uint8_t *at) {
    return _mm256_broadcast_ss((const float *)(const void *)at);
}

CRIA_INLINE __m256 load_halves(const uint8_t *at) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)at));
}

/* acc[t][half] += four columns of signed weights (stored + 128) times signed activations. |weight| <= 128 and
 * |activation| <= 127, so that a pair of products is at most 32512. */
CRIA_INLINE void add_signed_quad(const uint8_t *w, const uint8_t *x, size_t row_bytes, const int tokens,
                                 __m256i acc[4][2]) {
    const __m256i top_bit = _mm256_set1_epi8((char)0x80), ones = _mm256_set1_epi16(1);
    CRIA_UNROLL for (int half = 0; half < 2; half++) {
        __m256i weights = _mm256_xor_si256(load(w + 32 * half), top_bit), size = _mm256_abs_epi8(weights);
        CRIA_UNROLL for (int t = 0; t < tokens; t++) {
            __m256i value = _mm256_sign_epi8(broadcast_quad(x + (size_t)t * row_bytes), weights);
            __m256i pairs = _mm256_maddubs_epi16(size, value);
            acc[t][half] = _mm256_add_epi32(acc[t][half], _mm256_madd_epi16(pairs, ones));
        }
    }
}

CRIA_INLINE void i8_tile(const cria_dot *dot, const uint8_t *panel, const uint8_t *rows, float *sums,
                         const int tokens) {
    __m256i acc[4][2];
    const uint8_t *w = panel + 64 + dot->first * 64, *x = rows + dot->first * 4;
    __m256i *memory = (__m256i *)(void *)sums;
    CRIA_UNROLL for (int i = 0; i < 2 * tokens; i++) acc[i / 2][i % 2] =
        dot->fresh ? _mm256_setzero_si256() : _mm256_load_si256(memory + i);
    for (int64_t quads = dot->steps; quads > 0; quads--, w += 64, x += 4)
        add_signed_quad(w, x, dot->row_bytes, tokens, acc);
    CRIA_UNROLL for (int i = 0; i < 2 * tokens; i++) _mm256_store_si256(memory + i, acc[i / 2][i % 2]);
}

void cria_close_i8_avx2(const cria_dot *dot) {
    const uint8_t *tail = dot->rows + (dot->cols + 63) / 64 * 64;
    for (int p = 0; p < dot->panels; p++) {
        const float *scales = (const float *)(const void *)dot->panel[p];
        for (int64_t i = 0; i < 2 * dot->tokens; i++) {
            float *sum = dot->sums[p] + 8 * i;
            __m256 both = _mm256_mul_ps(_mm256_load_ps(scales + i % 2 * 8),
                                        broadcast_f32(tail + (size_t)(i / 2) * dot->row_bytes));
            __m256i exact = _mm256_load_si256((const __m256i *)(const void *)sum);
            _mm256_store_ps(sum, _mm256_mul_ps(both, _mm256_cvtepi32_ps(exact)));
        }
    }
}

/* The float sums stay in memory: once per group of 32 columns that costs little, and the registers hold integers. */
CRIA_INLINE void q8_groups(const cria_dot *dot, const uint8_t *panel, const uint8_t *rows, float *sums, bool fine,
                           const int tokens) {
    size_t row_bytes = dot->row_bytes;
    int64_t groups = (dot->cols + CRIA_GROUP - 1) / CRIA_GROUP, bytes = fine ? 2 * CRIA_GROUP : CRIA_GROUP;
    const uint8_t *scales = rows + groups * bytes + dot->first * 4;
    if (dot->fresh) memset(sums, 0, sizeof *sums * 16 * (size_t)tokens);
    panel += dot->first * 544;
    rows += dot->first * bytes;
    for (int64_t g = 0; g < dot->steps; g++, panel += 544, rows += bytes, scales += 4) {
        __m256i acc[4][2];
        CRIA_UNROLL for (int t = 0; t < tokens; t++) acc[t][0] = acc[t][1] = _mm256_setzero_si256();
        CRIA_UNROLL for (int j = 0; j < 8; j++)
            add_signed_quad(panel + 32 + 64 * j, rows + 4 * j, row_bytes, tokens, acc);
        if (fine) {
            CRIA_UNROLL for (int t = 0; t < tokens; t++) {
                acc[t][0] = _mm256_slli_epi32(acc[t][0], 4);
                acc[t][1] = _mm256_slli_epi32(acc[t][1], 4);
            }
            CRIA_UNROLL for (int j = 0; j < 8; j++)
                add_signed_quad(panel + 32 + 64 * j, rows + CRIA_GROUP + 4 * j, row_bytes, tokens, acc);
        }
        CRIA_UNROLL for (int t = 0; t < tokens; t++) {
            __m256 scale = broadcast_f32(scales + (size_t)t * row_bytes);
            CRIA_UNROLL for (int half = 0; half < 2; half++) {
                float *sum = sums + 16 * t + 8 * half;
                __m256 both = _mm256_mul_ps(load_halves(panel + 16 * half), scale);
                _mm256_store_ps(sum, _mm256_fmadd_ps(both, _mm256_cvtepi32_ps(acc[t][half]), _mm256_load_ps(sum)));
            }
        }
    }
}

CRIA_INLINE void q8_tile(const cria_dot *dot, const uint8_t *panel, const uint8_t *rows, float *sums,
                         const int tokens) {
    q8_groups(dot, panel, rows, sums, false, tokens);
}

CRIA_INLINE void q8_fine_tile(const cria_dot *dot, const uint8_t *panel, const uint8_t *rows, float *sums,
                              const int tokens) {
    q8_groups(dot, panel, rows, sums, true, tokens);
}

/* Weights of 0..15: the sixteen pair products that one 16-bit lane collects in a group are at most 16 * 15 * 127. */
CRIA_INLINE void q4_tile(const cria_dot *dot, const uint8_t *panel, const uint8_t *rows, float *sums,
                         const int tokens) {
    const __m256i nibble = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
    size_t row_bytes = dot->row_bytes;
    int64_t groups = (dot->cols + CRIA_GROUP - 1) / CRIA_GROUP;
    const uint8_t *scales = rows + groups * 2 * CRIA_GROUP + dot->first * 4;
    if (dot->fresh) memset(sums, 0, sizeof *sums * 16 * (size_t)tokens);
    panel += dot->first * 320;
    rows += dot->first * 2 * CRIA_GROUP;
    for (int64_t g = 0; g < dot->steps; g++, panel += 320, rows += 2 * CRIA_GROUP, scales += 4) {
        CRIA_UNROLL for (int half = 0; half < 2; half++) {
            __m256 d = load_halves(panel + 16 * half), m = load_halves(panel + 32 + 16 * half);
            __m256i acc[4], low_term[4];
            CRIA_UNROLL for (int t = 0; t < tokens; t++) acc[t] = low_term[t] = _mm256_setzero_si256();
            CRIA_UNROLL for (int j = 0; j < 4; j++) {
                __m256i both = load(panel + 64 + 64 * j + 32 * half);
                __m256i low = _mm256_and_si256(both, nibble);
                __m256i high = _mm256_and_si256(_mm256_srli_epi16(both, 4), nibble);
                CRIA_UNROLL for (int t = 0; t < tokens; t++) {
                    const uint8_t *x = rows + (size_t)t * row_bytes + 4 * j;
                    acc[t] = _mm256_add_epi16(acc[t], _mm256_maddubs_epi16(low, broadcast_quad(x)));
                    acc[t] = _mm256_add_epi16(acc[t], _mm256_maddubs_epi16(high, broadcast_quad(x + 16)));
                    x += CRIA_GROUP;
                    low_term[t] = _mm256_add_epi16(low_term[t], _mm256_maddubs_epi16(low, broadcast_quad(x)));
                    low_term[t] = _mm256_add_epi16(low_term[t], _mm256_maddubs_epi16(high, broadcast_quad(x + 16)));
                }
            }
            CRIA_UNROLL for (int t = 0; t < tokens; t++) {
                const uint8_t *scale = scales + (size_t)t * row_bytes;
                float *sum = sums + 16 * t + 8 * half;
                __m256i both_terms = _mm256_slli_epi32(_mm256_madd_epi16(acc[t], ones), 4);
                both_terms = _mm256_add_epi32(both_terms, _mm256_madd_epi16(low_term[t], ones));
                __m256 products = _mm256_cvtepi32_ps(both_terms);
                __m256 value = _mm256_fmadd_ps(m, broadcast_f32(scale + groups * 4), _mm256_load_ps(sum));
                value = _mm256_fmadd_ps(_mm256_mul_ps(d, broadcast_f32(scale)), products, value);
                _mm256_store_ps(sum, value);
            }
        }
    }
}

/* The switch over the tokens of a tile. */
#define TILES(type)                                                                                                    \
    static void type##_tile_of(const cria_dot *dot, const uint8_t *panel, const uint8_t *rows, int64_t tokens,         \
                               float *sums) {                                                                          \
        switch (tokens) {                                                                                              \
        case 1:                                                                                                        \
            type##_tile(dot, panel, rows, sums, 1);                                                                    \
            return;                                                                                                    \
        case 2:                                                                                                        \
            type##_tile(dot, panel, rows, sums, 2);                                                                    \
            return;                                                                                                    \
        case 3:                                                                                                        \
            type##_tile(dot, panel, rows, sums, 3);                                                                    \
            return;                                                                                                    \
        case 4:                                                                                                        \
            type##_tile(dot, panel, rows, sums, 4);                                                                    \
            return;                                                                                                    \
        }                                                                                                              \
    }                                                                                                                  \
    void cria_dot_##type##_avx2(const cria_dot *dot) {                                                                 \
        cria_each_tile(dot, 4, type##_tile_of);                                                                        \
    }
TILES(i8)
TILES(q8)
TILES(q8_fine)
TILES(q4)

#endif
