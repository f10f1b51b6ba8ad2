/* AVX-512 with VNNI: linear layers over the quantised panels, four columns to an instruction, unsigned weights times
 * signed activations. */
#include "kernels/cpu/linear.h"
#include "kernels/cpu/cpu.h"

#if defined(__AVX512VNNI__)
#include <immintrin.h>

CRIA_INLINE __m512i broadcast_quad(const uint8_t *at) {
    return _mm512_set1_epi32(*(const int *)(const void *)at);
}

CRIA_INLINE __m512 broadcast_f32(const uint8_t *at) {
    return _mm512_set1_ps(*(const float *)(const void *)at);
}

CRIA_INLINE __m512 load_halves(const uint8_t *at) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)at));
}

/* The integers are exact (they may wrap on the way; the true sum fits for up to 133,000 columns). */
CRIA_INLINE void i8_tile(const uint8_t *panel, const uint8_t *rows, size_t row_bytes, int64_t cols, float *sums,
                         const int tokens) {
    __m512i acc[24];
    __m512 scales = _mm512_load_ps(panel);
    const uint8_t *w = panel + 64, *x = rows, *tail = rows + (cols + 63) / 64 * 64;
    CRIA_UNROLL for (int t = 0; t < tokens; t++) acc[t] = _mm512_setzero_si512();
    for (int64_t quads = (cols + 3) / 4; quads > 0; quads--, w += 64, x += 4) {
        CRIA_PREFETCH(w);
        __m512i weights = _mm512_load_si512(w);
        CRIA_UNROLL for (int t = 0; t < tokens; t++) {
            acc[t] = _mm512_dpbusd_epi32(acc[t], weights, broadcast_quad(x + (size_t)t * row_bytes));
        }
    }
    CRIA_UNROLL for (int t = 0; t < tokens; t++) {
        const uint8_t *own = tail + (size_t)t * row_bytes;
        __m512i dot = _mm512_add_epi32(acc[t], broadcast_quad(own + 4));
        __m512 scale = _mm512_mul_ps(scales, broadcast_f32(own));
        _mm512_store_ps(sums + 16 * t, _mm512_mul_ps(scale, _mm512_cvtepi32_ps(dot)));
    }
}

/* Per group and token: eight products, the scale of the weights times that of the activations, one multiply-add. */
CRIA_INLINE void q8_tile(const uint8_t *panel, const uint8_t *rows, size_t row_bytes, int64_t cols, float *sums,
                         const int tokens) {
    int64_t groups = (cols + CRIA_GROUP - 1) / CRIA_GROUP;
    const uint8_t *scales = rows + groups * CRIA_GROUP;
    __m512 acc[16];
    CRIA_UNROLL for (int t = 0; t < tokens; t++) acc[t] = _mm512_setzero_ps();
    for (int64_t g = 0; g < groups; g++, panel += 544, rows += CRIA_GROUP, scales += 4) {
        __m512 d = load_halves(panel);
        __m512i w[8];
        CRIA_UNROLL for (int j = 0; j < 8; j++) {
            CRIA_PREFETCH(panel + 32 + 64 * j);
            w[j] = _mm512_loadu_si512(panel + 32 + 64 * j);
        }
        CRIA_UNROLL for (int t = 0; t < tokens; t++) {
            const uint8_t *x = rows + (size_t)t * row_bytes, *scale = scales + (size_t)t * row_bytes;
            __m512i dot = broadcast_quad(scale + groups * 4);
            CRIA_UNROLL for (int j = 0; j < 8; j++) dot = _mm512_dpbusd_epi32(dot, w[j], broadcast_quad(x + 4 * j));
            acc[t] = _mm512_fmadd_ps(_mm512_mul_ps(d, broadcast_f32(scale)), _mm512_cvtepi32_ps(dot), acc[t]);
        }
    }
    CRIA_UNROLL for (int t = 0; t < tokens; t++) _mm512_store_ps(sums + 16 * t, acc[t]);
}

/* As q8, and the minimum of the weights times the sum of the activations. */
CRIA_INLINE void q4_tile(const uint8_t *panel, const uint8_t *rows, size_t row_bytes, int64_t cols, float *sums,
                         const int tokens) {
    const __m512i nibble = _mm512_set1_epi8(15);
    int64_t groups = (cols + CRIA_GROUP - 1) / CRIA_GROUP;
    const uint8_t *scales = rows + groups * CRIA_GROUP;
    __m512 acc[16];
    CRIA_UNROLL for (int t = 0; t < tokens; t++) acc[t] = _mm512_setzero_ps();
    for (int64_t g = 0; g < groups; g++, panel += 320, rows += CRIA_GROUP, scales += 4) {
        CRIA_PREFETCH(panel);
        __m512 d = load_halves(panel), m = load_halves(panel + 32);
        __m512i w[8];
        CRIA_UNROLL for (int j = 0; j < 4; j++) {
            CRIA_PREFETCH(panel + 64 + 64 * j);
            __m512i both = _mm512_load_si512(panel + 64 + 64 * j);
            w[j] = _mm512_and_si512(both, nibble);
            w[j + 4] = _mm512_and_si512(_mm512_srli_epi16(both, 4), nibble);
        }
        CRIA_UNROLL for (int t = 0; t < tokens; t++) {
            const uint8_t *x = rows + (size_t)t * row_bytes, *scale = scales + (size_t)t * row_bytes;
            __m512i dot = _mm512_setzero_si512();
            CRIA_UNROLL for (int j = 0; j < 8; j++) dot = _mm512_dpbusd_epi32(dot, w[j], broadcast_quad(x + 4 * j));
            acc[t] = _mm512_fmadd_ps(m, broadcast_f32(scale + groups * 4), acc[t]);
            acc[t] = _mm512_fmadd_ps(_mm512_mul_ps(d, broadcast_f32(scale)), _mm512_cvtepi32_ps(dot), acc[t]);
        }
    }
    CRIA_UNROLL for (int t = 0; t < tokens; t++) _mm512_store_ps(sums + 16 * t, acc[t]);
}

#define TILE(n)                                                                                                        \
    case n:                                                                                                            \
        TILE_FUNCTION(panel, rows, row_bytes, cols, sums, n);                                                          \
        return;

static void dot_i8(const uint8_t *panel, const uint8_t *rows, size_t row_bytes, int64_t tokens, int64_t cols,
                   float *sums) {
#define TILE_FUNCTION i8_tile
    switch (tokens) { CRIA_TILES_24(TILE) }
#undef TILE_FUNCTION
}

static void dot_q8(const uint8_t *panel, const uint8_t *rows, size_t row_bytes, int64_t tokens, int64_t cols,
                   float *sums) {
#define TILE_FUNCTION q8_tile
    switch (tokens) { CRIA_TILES_16(TILE) }
#undef TILE_FUNCTION
}

static void dot_q4(const uint8_t *panel, const uint8_t *rows, size_t row_bytes, int64_t tokens, int64_t cols,
                   float *sums) {
#define TILE_FUNCTION q4_tile
    switch (tokens) { CRIA_TILES_16(TILE) }
#undef TILE_FUNCTION
}

void cria_linear_avx512vnni(const cria_linear_args *args, cria_worker *worker) {
    static const cria_linear_kernel i8 = {dot_i8, 24, cria_finish_avx512};
    static const cria_linear_kernel q8 = {dot_q8, 16, cria_finish_avx512};
    static const cria_linear_kernel q4 = {dot_q4, 16, cria_finish_avx512};
    switch (args->weight->type) {
    case CRIA_PANEL_I8:
        cria_linear_run(args, worker, &i8);
        return;
    case CRIA_PANEL_Q8:
        cria_linear_run(args, worker, &q8);
        return;
    case CRIA_PANEL_Q4:
        cria_linear_run(args, worker, &q4);
        return;
    default:
        cria_linear_avx512(args, worker);
    }
}

void cria_overlay_avx512vnni_linear(cria_kernels *table) {
    table->linear = cria_linear_avx512vnni;
}

#endif
