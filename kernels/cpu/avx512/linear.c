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

#define TILE_STEP(sum, weights, values)                                                                                \
    _mm512_castps_si512(                                                                                               \
        _mm512_fmadd_ps(_mm512_castsi512_ps(values), _mm512_castsi512_ps(weights), _mm512_castsi512_ps(sum)))
#include "kernels/cpu/avx512/tile.h"

static void dot_f32(const cria_dot *dot) {
    tile_tokens(dot, 0);
}

static void listed_f32(const cria_dot *dot) {
    tile_listed(dot, 0);
}

/* Thirty-two columns of the tokens are widened once and then broadcast from the stack, so that the inner loop is that
 * of f32. */
enum { WIDE = 32 };

CRIA_INLINE void widen(const uint8_t *row, float *out) {
    for (int half = 0; half < 2; half++) {
        __m256i bf16 = _mm256_loadu_si256((const __m256i *)(const void *)(row + 32 * half));
        __m512i bits = _mm512_slli_epi32(_mm512_cvtepu16_epi32(bf16), 16);
        _mm512_store_si512(out + 16 * half, bits);
    }
}

/* One column of the panels: the even or the odd one of the pair that a step holds. */
CRIA_INLINE void bf16_column(const __m512i pair[CRIA_DOT_PANELS], bool odd, const float *values,
                             __m512 sum[CRIA_DOT_PANELS][TILE_TOKENS], const int panels, const int tokens) {
    __m512 weights[CRIA_DOT_PANELS];
    CRIA_UNROLL for (int p = 0; p < panels; p++) {
        __m512i bits =
            odd ? _mm512_and_si512(pair[p], _mm512_set1_epi32((int)0xffff0000u)) : _mm512_slli_epi32(pair[p], 16);
        weights[p] = _mm512_castsi512_ps(bits);
    }
    CRIA_UNROLL for (int t = 0; t < tokens; t++) {
        __m512 value = _mm512_set1_ps(values[t * WIDE]);
        CRIA_UNROLL for (int p = 0; p < panels; p++) sum[p][t] = _mm512_fmadd_ps(value, weights[p], sum[p][t]);
    }
}

CRIA_INLINE void bf16_tile(const cria_dot *dot, int64_t first_token, const int panels, const int tokens) {
    _Alignas(64) float x[TILE_TOKENS * WIDE];
    __m512 sum[CRIA_DOT_PANELS][TILE_TOKENS];
    for (int p = 0; p < panels; p++) {
        CRIA_UNROLL for (int t = 0; t < tokens; t++) {
            const float *from = dot->sums[p] + (first_token + t) * CRIA_PANEL_ROWS;
            sum[p][t] = dot->fresh ? _mm512_setzero_ps() : _mm512_load_ps(from);
        }
    }
    const uint8_t *rows = dot->rows + (size_t)first_token * dot->row_bytes + (size_t)dot->first * 4;
    const uint8_t *w0 = dot->panel[0] + (size_t)dot->first * 64, *w1 = dot->panel[panels - 1] + (size_t)dot->first * 64;
    for (int64_t step = 0; step < dot->steps; step += WIDE / 2, rows += WIDE * 2) {
        int64_t count = dot->steps - step < WIDE / 2 ? dot->steps - step : WIDE / 2;
        for (int t = 0; t < tokens; t++) widen(rows + (size_t)t * dot->row_bytes, x + t * WIDE);
        for (int64_t i = 0; i < count; i++, w0 += 64, w1 += 64) {
            if (dot->prefetch) {
                CRIA_PREFETCH(w0);
                if (panels > 1) CRIA_PREFETCH(w1);
            }
            __m512i pair[CRIA_DOT_PANELS] = {_mm512_load_si512(w0)};
            if (panels > 1) pair[1] = _mm512_load_si512(w1);
            bf16_column(pair, false, x + 2 * i, sum, panels, tokens);
            bf16_column(pair, true, x + 2 * i + 1, sum, panels, tokens);
        }
    }
    for (int p = 0; p < panels; p++) {
        CRIA_UNROLL for (int t = 0; t < tokens; t++)
            _mm512_store_ps(dot->sums[p] + (first_token + t) * CRIA_PANEL_ROWS, sum[p][t]);
    }
}

static void bf16_tile_of(const cria_dot *dot, int64_t first, int64_t tokens) {
    switch (tokens) {
#define CASE(n)                                                                                                        \
    case n:                                                                                                            \
        if (dot->panels == 1)                                                                                          \
            bf16_tile(dot, first, 1, n);                                                                               \
        else                                                                                                           \
            bf16_tile(dot, first, 2, n);                                                                               \
        return;
        CRIA_TILES_12(CASE)
#undef CASE
    }
}

static void dot_bf16(const cria_dot *dot) {
    int64_t tiles = (dot->tokens + TILE_TOKENS - 1) / TILE_TOKENS;
    for (int64_t i = 0; i < tiles; i++) {
        int64_t first = dot->tokens * i / tiles;
        bf16_tile_of(dot, first, dot->tokens * (i + 1) / tiles - first);
    }
}

void cria_linear_avx512(const cria_linear_args *args, cria_worker *worker) {
    static const cria_linear_kernel f32 = {dot_f32, NULL,        cria_finish_avx512, 1,           192, 1,
                                           96,      TILE_TOKENS, listed_f32,         TILE_TOKENS, 24};
    static const cria_linear_kernel bf16 = {dot_bf16, NULL, cria_finish_avx512, 2, 192, WIDE / 2, 96, TILE_TOKENS, NULL,
                                            0,        24};
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
