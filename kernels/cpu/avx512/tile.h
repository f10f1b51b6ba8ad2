/* Dot products of one or two panels with up to twelve tokens, in registers, for the types whose step is 64 bytes of
 * weights and 4 bytes of activations. The including file defines TILE_STEP(sum, weights, values): a vector of sums plus
 * the products of 16 rows' weights with four bytes of a token in every lane.
 *
 * Two panels times twelve tokens are 24 sums: 24 multiplications for 14 loads, so that the two multipliers, not the two
 * load ports, are the limit. */
#ifndef CRIA_KERNELS_CPU_AVX512_TILE_H
#define CRIA_KERNELS_CPU_AVX512_TILE_H

#include "kernels/cpu/linear.h"

#include <immintrin.h>

enum { TILE_TOKENS = 12 };

CRIA_INLINE void tile_steps(const uint8_t *const panel[CRIA_DOT_PANELS], const uint8_t *rows, size_t row_bytes,
                            int64_t steps, bool prefetch, ptrdiff_t skip, __m512i sum[CRIA_DOT_PANELS][TILE_TOKENS],
                            const int panels, const int tokens) {
    const uint8_t *w0 = panel[0], *w1 = panel[panels - 1];
    for (; steps > 0; steps--, w0 += 64, w1 += 64, rows += 4) {
        if (panels == 1 && tokens == 1) {
            CRIA_PREFETCH_FAR(w0);
        } else if (prefetch && panels == 1) {
            CRIA_PREFETCH(w0);
        } else if (prefetch) {
            ptrdiff_t ahead = cria_ahead(steps * CRIA_STEP_BYTES, skip);
            _mm_prefetch((const char *)w0 + ahead, _MM_HINT_T1);
            _mm_prefetch((const char *)w1 + ahead, _MM_HINT_T1);
        }
        __m512i weights[CRIA_DOT_PANELS] = {_mm512_load_si512(w0)};
        if (panels > 1) weights[1] = _mm512_load_si512(w1);
        CRIA_UNROLL for (int t = 0; t < tokens; t++) {
            __m512i values = _mm512_set1_epi32(*(const int *)(const void *)(rows + (size_t)t * row_bytes));
            CRIA_UNROLL for (int p = 0; p < panels; p++) sum[p][t] = TILE_STEP(sum[p][t], weights[p], values);
        }
    }
}

CRIA_INLINE void tile(const cria_dot *dot, size_t head, int64_t first_token, const int panels, const int tokens) {
    __m512i sum[CRIA_DOT_PANELS][TILE_TOKENS];
    const uint8_t *panel[CRIA_DOT_PANELS];
    for (int p = 0; p < panels; p++) {
        float *from = dot->sums[p] + first_token * CRIA_PANEL_ROWS;
        panel[p] = dot->panel[p] + head + (size_t)dot->first * 64;
        if (head && dot->fresh) _mm_prefetch((const char *)dot->panel[p], _MM_HINT_T0); /* for when all is added */
        if (dot->fresh) {
            CRIA_UNROLL for (int t = 0; t < tokens; t++) sum[p][t] = _mm512_setzero_si512();
        } else {
            CRIA_UNROLL for (int t = 0; t < tokens; t++) sum[p][t] = _mm512_load_si512(from + t * CRIA_PANEL_ROWS);
        }
    }
    const uint8_t *rows = dot->rows + (size_t)first_token * dot->row_bytes + (size_t)dot->first * 4;
    tile_steps(panel, rows, dot->row_bytes, dot->steps, first_token == 0, cria_skip(dot, CRIA_STEP_BYTES), sum, panels,
               tokens);
    for (int p = 0; p < panels; p++) {
        float *to = dot->sums[p] + first_token * CRIA_PANEL_ROWS;
        CRIA_UNROLL for (int t = 0; t < tokens; t++) _mm512_store_si512(to + t * CRIA_PANEL_ROWS, sum[p][t]);
    }
}

static void tile_one_panel(const cria_dot *dot, size_t head, int64_t first_token, int64_t tokens) {
    switch (tokens) {
#define CASE(n)                                                                                                        \
    case n:                                                                                                            \
        tile(dot, head, first_token, 1, n);                                                                            \
        return;
        CRIA_TILES_12(CASE)
#undef CASE
    }
}

static void tile_two_panels(const cria_dot *dot, size_t head, int64_t first_token, int64_t tokens) {
    switch (tokens) {
#define CASE(n)                                                                                                        \
    case n:                                                                                                            \
        tile(dot, head, first_token, 2, n);                                                                            \
        return;
        CRIA_TILES_12(CASE)
#undef CASE
    }
}

/* The listed steps of one panel; what lies between is not read. */
CRIA_INLINE void tile_list(const cria_dot *dot, size_t head, const int tokens) {
    __m512i sum[CRIA_LISTED_TOKENS];
    CRIA_UNROLL for (int t = 0; t < tokens; t++) sum[t] = _mm512_setzero_si512();
    const uint8_t *panel = dot->panel[0] + head;
    for (const int32_t *at = dot->list, *end = at + dot->steps; at < end; at++) {
        _mm_prefetch((const char *)panel + (size_t)at[CRIA_LIST_AHEAD] * CRIA_STEP_BYTES, _MM_HINT_T0);
        __m512i weights = _mm512_load_si512(panel + (size_t)*at * CRIA_STEP_BYTES);
        const uint8_t *values = dot->rows + (size_t)*at * 4;
        CRIA_UNROLL for (int t = 0; t < tokens; t++) {
            __m512i value = _mm512_set1_epi32(*(const int *)(const void *)(values + (size_t)t * dot->row_bytes));
            sum[t] = TILE_STEP(sum[t], weights, value);
        }
    }
    CRIA_UNROLL for (int t = 0; t < tokens; t++) _mm512_store_si512(dot->sums[0] + t * CRIA_PANEL_ROWS, sum[t]);
}

static void tile_listed(const cria_dot *dot, size_t head) {
    switch (dot->tokens) {
#define CASE(n)                                                                                                        \
    case n:                                                                                                            \
        tile_list(dot, head, n);                                                                                       \
        return;
        CRIA_TILES_4(CASE)
#undef CASE
    }
}

/* All tokens, in tiles as even as can be; `head`: bytes of a panel before its first step. */
static void tile_tokens(const cria_dot *dot, size_t head) {
    int64_t tiles = (dot->tokens + TILE_TOKENS - 1) / TILE_TOKENS;
    for (int64_t i = 0; i < tiles; i++) {
        int64_t first = dot->tokens * i / tiles, tokens = dot->tokens * (i + 1) / tiles - first;
        if (dot->panels == 1)
            tile_one_panel(dot, head, first, tokens);
        else
            tile_two_panels(dot, head, first, tokens);
    }
}

#endif
