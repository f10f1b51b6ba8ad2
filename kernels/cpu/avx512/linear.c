/* AVX-512: linear layers over f32 panels, and over bf16 panels by widening. */
#include "kernels/cpu/linear.h"
#include "kernels/cpu/cpu.h"

#if defined(__AVX512F__)
#include "kernels/cpu/finish.h"

#include <immintrin.h>

void cria_finish_avx512(const cria_linear_args *args, int64_t first_row, int64_t first_token, int64_t tokens,
                        const float *sums) {
    finish_panel(args, first_row, first_token, tokens, sums);
}

CRIA_INLINE void f32_tile(const float *w, const uint8_t *rows, size_t row_bytes, int64_t cols, float *sums,
                          const int tokens) {
    __m512 acc[24];
    CRIA_UNROLL for (int t = 0; t < tokens; t++) acc[t] = _mm512_setzero_ps();
    for (int64_t k = 0; k < cols; k++, w += 16, rows += 4) {
        CRIA_PREFETCH(w);
        __m512 weights = _mm512_load_ps(w);
        CRIA_UNROLL for (int t = 0; t < tokens; t++) {
            float x = *(const float *)(const void *)(rows + (size_t)t * row_bytes);
            acc[t] = _mm512_fmadd_ps(_mm512_set1_ps(x), weights, acc[t]);
        }
    }
    CRIA_UNROLL for (int t = 0; t < tokens; t++) _mm512_store_ps(sums + 16 * t, acc[t]);
}

static void dot_f32(const uint8_t *panel, const uint8_t *rows, size_t row_bytes, int64_t tokens, int64_t cols,
                    float *sums) {
    const float *w = (const float *)(const void *)panel;
    switch (tokens) {
#define TILE(n)                                                                                                        \
    case n:                                                                                                            \
        f32_tile(w, rows, row_bytes, cols, sums, n);                                                                   \
        return;
        CRIA_TILES_24(TILE)
#undef TILE
    }
}

/* Thirty-two columns of the tokens are widened once and then broadcast from the stack, so that the inner loop is that
 * of f32: one multiply-add per load. */
enum { WIDE = 32 };

CRIA_INLINE void widen(const uint8_t *row, float *out) {
    for (int half = 0; half < 2; half++) {
        __m256i bf16 = _mm256_loadu_si256((const __m256i *)(const void *)(row + 32 * half));
        __m512i bits = _mm512_slli_epi32(_mm512_cvtepu16_epi32(bf16), 16);
        _mm512_store_si512(out + 16 * half, bits);
    }
}

CRIA_INLINE void bf16_tile(const uint8_t *panel, const uint8_t *rows, size_t row_bytes, int64_t cols, float *sums,
                           const int tokens) {
    _Alignas(64) float x[24][WIDE];
    __m512 acc[24];
    CRIA_UNROLL for (int t = 0; t < tokens; t++) acc[t] = _mm512_setzero_ps();
    for (int64_t k = 0; k < cols; k += WIDE, rows += WIDE * 2) {
        int64_t pairs = cols - k < WIDE ? (cols - k + 1) / 2 : WIDE / 2;
        for (int t = 0; t < tokens; t++) widen(rows + (size_t)t * row_bytes, x[t]);
        for (int64_t pair = 0; pair < pairs; pair++, panel += 64) {
            CRIA_PREFETCH(panel);
            __m512i both = _mm512_load_si512(panel);
            __m512 even = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16));
            __m512 odd = _mm512_castsi512_ps(_mm512_and_si512(both, _mm512_set1_epi32((int)0xffff0000u)));
            CRIA_UNROLL for (int t = 0; t < tokens; t++) {
                acc[t] = _mm512_fmadd_ps(_mm512_set1_ps(x[t][2 * pair]), even, acc[t]);
            }
            CRIA_UNROLL for (int t = 0; t < tokens; t++) {
                acc[t] = _mm512_fmadd_ps(_mm512_set1_ps(x[t][2 * pair + 1]), odd, acc[t]);
            }
        }
    }
    CRIA_UNROLL for (int t = 0; t < tokens; t++) _mm512_store_ps(sums + 16 * t, acc[t]);
}

static void dot_bf16(const uint8_t *panel, const uint8_t *rows, size_t row_bytes, int64_t tokens, int64_t cols,
                     float *sums) {
    switch (tokens) {
#define TILE(n)                                                                                                        \
    case n:                                                                                                            \
        bf16_tile(panel, rows, row_bytes, cols, sums, n);                                                              \
        return;
        CRIA_TILES_24(TILE)
#undef TILE
    }
}

void cria_linear_avx512(const cria_linear_args *args, cria_worker *worker) {
    static const cria_linear_kernel f32 = {dot_f32, 24, cria_finish_avx512};
    static const cria_linear_kernel bf16 = {dot_bf16, 24, cria_finish_avx512};
    switch (args->weight->type) {
    case CRIA_PANEL_F32:
        cria_linear_run(args, worker, &f32);
        return;
    case CRIA_PANEL_BF16:
        cria_linear_run(args, worker, &bf16);
        return;
    default: /* without VNNI 512-bit integers gain nothing over AVX2 */
        cria_linear_avx2(args, worker);
    }
}

void cria_overlay_avx512_linear(cria_kernels *table) {
    table->linear = cria_linear_avx512;
}

#endif
