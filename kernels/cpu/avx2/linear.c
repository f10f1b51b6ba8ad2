/* AVX2: linear layers over f32 panels, and over bf16 panels by widening. */
#include "kernels/cpu/linear.h"
#include "kernels/cpu/cpu.h"

#if defined(__AVX2__)
#include "kernels/cpu/avx2/quantised.h"
#include "kernels/cpu/finish.h"
#include "kernels/ref/ref.h"

#include <immintrin.h>

enum { TILE_TOKENS = 6 };

/* The sums of a tile: two halves of a panel for each token. */
CRIA_INLINE void load_sums(const float *from, bool fresh, __m256 acc[TILE_TOKENS][2], const int tokens) {
    CRIA_UNROLL for (int t = 0; t < tokens; t++) {
        acc[t][0] = fresh ? _mm256_setzero_ps() : _mm256_load_ps(from + 16 * t);
        acc[t][1] = fresh ? _mm256_setzero_ps() : _mm256_load_ps(from + 16 * t + 8);
    }
}

CRIA_INLINE void store_sums(__m256 acc[TILE_TOKENS][2], float *to, const int tokens) {
    CRIA_UNROLL for (int t = 0; t < tokens; t++) {
        _mm256_store_ps(to + 16 * t, acc[t][0]);
        _mm256_store_ps(to + 16 * t + 8, acc[t][1]);
    }
}

/* The weights come from memory for the first tile of tokens only. Of few tokens the processor sees the next ones by
 * itself (f32), or sees most of them (bf16). */
typedef struct {
    bool first;
    ptrdiff_t skip;
} prefetching;

CRIA_INLINE prefetching prefetching_of(const cria_dot *dot, const uint8_t *panel, const uint8_t *rows) {
    ptrdiff_t skip = cria_next_read(dot, panel, CRIA_STEP_BYTES) - dot->steps * CRIA_STEP_BYTES;
    return (prefetching){rows == dot->rows && dot->tokens > CRIA_LISTED_TOKENS, skip};
}

CRIA_INLINE void prefetch_ahead(prefetching p, const uint8_t *weights, int64_t steps) {
    if (p.first) _mm_prefetch((const char *)weights + cria_ahead(steps * CRIA_STEP_BYTES, p.skip), _MM_HINT_T1);
}

CRIA_INLINE void f32_tile(const cria_dot *dot, const uint8_t *panel, const uint8_t *rows, float *sums,
                          const int tokens) {
    const float *w = (const float *)(const void *)panel + dot->first * 16;
    __m256 acc[TILE_TOKENS][2];
    load_sums(sums, dot->fresh, acc, tokens);
    cria_tile_rows values = cria_rows_at(rows, dot->row_bytes, (size_t)dot->first * 4);
    const prefetching asked = prefetching_of(dot, panel, rows);
    for (int64_t k = 0; k < dot->steps; k++, w += 16, values = cria_advance(values, 4)) {
        prefetch_ahead(asked, (const uint8_t *)w, dot->steps - k);
        __m256 low = _mm256_load_ps(w), high = _mm256_load_ps(w + 8);
        CRIA_UNROLL for (int t = 0; t < tokens; t++) {
            __m256 x = _mm256_broadcast_ss((const float *)(const void *)cria_row_at(values, t));
            acc[t][0] = _mm256_fmadd_ps(x, low, acc[t][0]);
            acc[t][1] = _mm256_fmadd_ps(x, high, acc[t][1]);
        }
    }
    store_sums(acc, sums, tokens);
}

/* Thirty-two columns of the tokens are widened once and then broadcast from the stack. */
enum { WIDE = 32 };

CRIA_INLINE void widen(const uint8_t *row, float *out) {
    for (int part = 0; part < 4; part++) {
        __m128i bf16 = _mm_loadu_si128((const __m128i *)(const void *)(row + 16 * part));
        _mm256_store_si256((__m256i *)(void *)(out + 8 * part), _mm256_slli_epi32(_mm256_cvtepu16_epi32(bf16), 16));
    }
}

CRIA_INLINE void bf16_tile(const cria_dot *dot, const uint8_t *panel, const uint8_t *rows, float *sums,
                           const int tokens) {
    const __m256i high_half = _mm256_set1_epi32((int)0xffff0000u);
    _Alignas(32) float x[TILE_TOKENS][WIDE];
    __m256 acc[TILE_TOKENS][2];
    load_sums(sums, dot->fresh, acc, tokens);
    const prefetching asked = prefetching_of(dot, panel, rows);
    panel += dot->first * 64;
    rows += dot->first * 4;
    for (int64_t step = 0; step < dot->steps; step += WIDE / 2, rows += WIDE * 2) {
        int64_t pairs = dot->steps - step < WIDE / 2 ? dot->steps - step : WIDE / 2;
        for (int t = 0; t < tokens; t++) widen(rows + (size_t)t * dot->row_bytes, x[t]);
        for (int64_t i = 0; i < pairs; i++, panel += 64) {
            if (dot->tokens <= CRIA_LISTED_TOKENS) CRIA_PREFETCH(panel);
            prefetch_ahead(asked, panel, dot->steps - step - i);
            CRIA_UNROLL for (int odd = 0; odd < 2; odd++) { /* a pair of columns shares a vector */
                const uint8_t *pair = panel;
                /* Read twice: kept in registers, it would drive sums out of theirs. */
                __asm__ volatile("" : "+r"(pair));
                __m256i low = _mm256_load_si256((const __m256i *)(const void *)pair);
                __m256i high = _mm256_load_si256((const __m256i *)(const void *)(pair + 32));
                low = odd ? _mm256_and_si256(low, high_half) : _mm256_slli_epi32(low, 16);
                high = odd ? _mm256_and_si256(high, high_half) : _mm256_slli_epi32(high, 16);
                CRIA_UNROLL for (int t = 0; t < tokens; t++) {
                    __m256 value = _mm256_broadcast_ss(&x[t][2 * i + odd]);
                    acc[t][0] = _mm256_fmadd_ps(value, _mm256_castsi256_ps(low), acc[t][0]);
                    acc[t][1] = _mm256_fmadd_ps(value, _mm256_castsi256_ps(high), acc[t][1]);
                }
            }
        }
    }
    store_sums(acc, sums, tokens);
}

static void f32_tile_of(const cria_dot *dot, const uint8_t *panel, const uint8_t *rows, int64_t tokens, float *sums) {
    switch (tokens) {
#define CASE(n)                                                                                                        \
    case n:                                                                                                            \
        f32_tile(dot, panel, rows, sums, n);                                                                           \
        return;
        CRIA_TILES_6(CASE)
#undef CASE
    }
}

static void bf16_tile_of(const cria_dot *dot, const uint8_t *panel, const uint8_t *rows, int64_t tokens, float *sums) {
    switch (tokens) {
#define CASE(n)                                                                                                        \
    case n:                                                                                                            \
        bf16_tile(dot, panel, rows, sums, n);                                                                          \
        return;
        CRIA_TILES_6(CASE)
#undef CASE
    }
}

static void dot_f32(const cria_dot *dot) {
    cria_each_tile(dot, TILE_TOKENS, f32_tile_of);
}

static void dot_bf16(const cria_dot *dot) {
    cria_each_tile(dot, TILE_TOKENS, bf16_tile_of);
}

/* A step's column of f32 (`columns` 1) or its two of bf16, of the listed steps of one panel. */
CRIA_INLINE void listed(const cria_dot *dot, const int columns, const int tokens) {
    const __m256i high_half = _mm256_set1_epi32((int)0xffff0000u);
    __m256 acc[TILE_TOKENS][2];
    load_sums(NULL, true, acc, tokens);
    for (const int32_t *at = dot->list, *end = at + dot->steps; at < end; at++) {
        _mm_prefetch((const char *)dot->panel[0] + (size_t)at[CRIA_LIST_AHEAD] * CRIA_STEP_BYTES, _MM_HINT_T0);
        const __m256i *w = (const __m256i *)(const void *)(dot->panel[0] + (size_t)*at * CRIA_STEP_BYTES);
        const uint8_t *values = dot->rows + (size_t)*at * 4;
        CRIA_UNROLL for (int t = 0; t < tokens; t++) {
            __m256i x = _mm256_set1_epi32(*(const int *)(const void *)(values + (size_t)t * dot->row_bytes));
            CRIA_UNROLL for (int half = 0; half < 2; half++) {
                CRIA_UNROLL for (int column = 0; column < columns; column++) {
                    __m256i own = _mm256_load_si256(w + half), value = x;
                    if (columns == 2) {
                        own = column ? _mm256_and_si256(own, high_half) : _mm256_slli_epi32(own, 16);
                        value = column ? _mm256_and_si256(value, high_half) : _mm256_slli_epi32(value, 16);
                    }
                    acc[t][half] = _mm256_fmadd_ps(_mm256_castsi256_ps(value), _mm256_castsi256_ps(own), acc[t][half]);
                }
            }
        }
    }
    store_sums(acc, dot->sums[0], tokens);
}

static void listed_f32(const cria_dot *dot) {
    switch (dot->tokens) {
#define CASE(n)                                                                                                        \
    case n:                                                                                                            \
        listed(dot, 1, n);                                                                                             \
        return;
        CRIA_TILES_4(CASE)
#undef CASE
    }
}

static void listed_bf16(const cria_dot *dot) {
    switch (dot->tokens) {
#define CASE(n)                                                                                                        \
    case n:                                                                                                            \
        listed(dot, 2, n);                                                                                             \
        return;
        CRIA_TILES_4(CASE)
#undef CASE
    }
}

static void finish(const cria_linear_args *args, int64_t first_row, int64_t first_token, int64_t tokens,
                   const float *sums) {
    finish_panel(args, first_row, first_token, tokens, sums);
}

void cria_linear_avx2(const cria_linear_args *args, cria_worker *worker) {
    enum { CHUNK = CRIA_CHUNK_GROUPS };
    static const cria_linear_kernel kernels[CRIA_PANEL_COUNT] = {
        [CRIA_PANEL_F32] = {dot_f32, NULL, finish, 1, 192, 1, 96, TILE_TOKENS, listed_f32, TILE_TOKENS, 24},
        [CRIA_PANEL_BF16] = {dot_bf16, NULL, finish, 2, 192, WIDE / 2, 96, TILE_TOKENS, listed_bf16, TILE_TOKENS, 24},
        [CRIA_PANEL_I8_WIDE] = {cria_dot_i8_avx2, cria_close_i8_avx2, finish, CRIA_GROUP, CHUNK, CHUNK, 96, 6, NULL, 0,
                                24},
        [CRIA_PANEL_Q8_WIDE] = {cria_dot_q8_avx2, cria_close_grouped_avx2, finish, CRIA_GROUP, CHUNK, CHUNK, 96, 6,
                                NULL, 0, 24},
        [CRIA_PANEL_Q4_WIDE] = {cria_dot_q4_avx2, cria_close_grouped_avx2, finish, CRIA_GROUP, CHUNK, CHUNK, 96, 6,
                                NULL, 0, 24},
        [CRIA_PANEL_Q4_0_WIDE] = {cria_dot_q4_0_avx2, cria_close_grouped_avx2, finish, CRIA_GROUP, CHUNK, CHUNK, 96, 6,
                                  NULL, 0, 24},
        [CRIA_PANEL_Q4_COARSE] = {cria_dot_q4_coarse_avx2, NULL, finish, CRIA_GROUP, CHUNK, CHUNK, 96, 6, NULL, 0, 24},
        [CRIA_PANEL_Q4_0_COARSE] = {cria_dot_q4_0_coarse_avx2, NULL, finish, CRIA_GROUP, CHUNK, CHUNK, 96, 6, NULL, 0,
                                    24},
    };
    if (!kernels[args->weight->type].dot) { /* cria_kernels.panel never asks for these */
        cria_ref_linear(args, worker);
        return;
    }
    cria_linear_run(args, worker, &kernels[args->weight->type]);
}

#endif
