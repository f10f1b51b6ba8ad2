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
#define TILE_STEP(sum, weights, values) _mm512_dpbusd_epi32(sum, weights, values)
#include "kernels/cpu/avx512/tile.h"

enum { HEAD_I8 = 64, HEAD_Q8 = 32, HEAD_Q4 = 64, GROUP_Q8 = 544, GROUP_Q4 = 320, TOGETHER = 2, QUADS = CRIA_GROUP / 4 };
enum { ALL_STEPS = 1 << 20 }; /* no chunks: the weights of a group are in registers */

void cria_dot_i8_avx512vnni(const cria_dot *dot) {
    tile_tokens(dot, HEAD_I8);
}

void cria_close_i8_avx512vnni(const cria_dot *dot) {
    const uint8_t *tail = dot->rows + (dot->cols + 63) / 64 * 64;
    for (int p = 0; p < dot->panels; p++) {
        __m512 scales = _mm512_load_ps(dot->panel[p]);
        for (int64_t t = 0; t < dot->tokens; t++) {
            const uint8_t *own = tail + (size_t)t * dot->row_bytes;
            float *sum = dot->sums[p] + t * CRIA_PANEL_ROWS;
            __m512i exact = _mm512_add_epi32(_mm512_load_si512(sum), broadcast_quad(own + 4));
            __m512 scale = _mm512_mul_ps(scales, broadcast_f32(own));
            _mm512_store_ps(sum, _mm512_mul_ps(scale, _mm512_cvtepi32_ps(exact)));
        }
    }
}

/* One group of 32 columns of a panel: unsigned weights, scales and minima. */
typedef struct {
    __m512i weights[QUADS];
    __m512 d, m;
} group;

CRIA_INLINE group load_q8(const uint8_t *at, bool prefetch) {
    group g = {.d = load_halves(at), .m = _mm512_setzero_ps()};
    CRIA_UNROLL for (int j = 0; j < QUADS; j++) {
        if (prefetch) CRIA_PREFETCH(at + HEAD_Q8 + 64 * j);
        g.weights[j] = _mm512_loadu_si512(at + HEAD_Q8 + 64 * j);
    }
    return g;
}

CRIA_INLINE group load_q4(const uint8_t *at, bool prefetch) {
    const __m512i nibble = _mm512_set1_epi8(15);
    group g = {.d = load_halves(at), .m = load_halves(at + 32)};
    if (prefetch) CRIA_PREFETCH(at);
    CRIA_UNROLL for (int j = 0; j < QUADS / 2; j++) {
        if (prefetch) CRIA_PREFETCH(at + HEAD_Q4 + 64 * j);
        __m512i both = _mm512_load_si512(at + HEAD_Q4 + 64 * j);
        g.weights[j] = _mm512_and_si512(both, nibble);
        g.weights[j + QUADS / 2] = _mm512_and_si512(_mm512_srli_epi16(both, 4), nibble);
    }
    return g;
}

/* Per group and token: eight products, the scale of the weights times that of the activations, one multiply-add; of 4
 * bits also the minimum of the weights times the sum of the activations. `scale` is the group's; its sum stands
 * `groups` values later. */
CRIA_INLINE __m512 add_group(bool minima, const group *g, __m512i dot, const uint8_t *scale, int64_t groups,
                             __m512 sum) {
    if (minima) sum = _mm512_fmadd_ps(g->m, broadcast_f32(scale + groups * 4), sum);
    return _mm512_fmadd_ps(_mm512_mul_ps(g->d, broadcast_f32(scale)), _mm512_cvtepi32_ps(dot), sum);
}

/* One group of the panels against `tokens` neighbouring tokens, whose products go side by side: a chain of eight would
 * wait for itself. */
CRIA_INLINE void add_tokens(const group g[CRIA_DOT_PANELS], bool minima, const uint8_t *x, const uint8_t *scale,
                            size_t row_bytes, int64_t groups, float *const sum[CRIA_DOT_PANELS], const int panels,
                            const int tokens) {
    __m512i products[TOGETHER][CRIA_DOT_PANELS];
    CRIA_UNROLL for (int t = 0; t < tokens; t++) {
        const uint8_t *offset = scale + (size_t)t * row_bytes + groups * 4;
        products[t][0] = products[t][1] = minima ? _mm512_setzero_si512() : broadcast_quad(offset);
    }
    CRIA_UNROLL for (int j = 0; j < QUADS; j++) {
        CRIA_UNROLL for (int t = 0; t < tokens; t++) {
            __m512i values = broadcast_quad(x + (size_t)t * row_bytes + 4 * j);
            CRIA_UNROLL for (int p = 0; p < panels; p++) products[t][p] =
                _mm512_dpbusd_epi32(products[t][p], g[p].weights[j], values);
        }
    }
    CRIA_UNROLL for (int t = 0; t < tokens; t++) {
        CRIA_UNROLL for (int p = 0; p < panels; p++) {
            float *at = sum[p] + t * CRIA_PANEL_ROWS;
            const uint8_t *own = scale + (size_t)t * row_bytes;
            _mm512_store_ps(at, add_group(minima, &g[p], products[t][p], own, groups, _mm512_load_ps(at)));
        }
    }
}

/* Any number of tokens, whose sums stay in memory: a group of weights is unpacked once for all of them. */
CRIA_INLINE void group_many(const cria_dot *dot, bool minima, const int panels) {
    const int64_t groups = (dot->cols + CRIA_GROUP - 1) / CRIA_GROUP, tokens = dot->tokens;
    const size_t row_bytes = dot->row_bytes;
    for (int p = 0; dot->fresh && p < panels; p++)
        memset(dot->sums[p], 0, (size_t)tokens * CRIA_PANEL_ROWS * sizeof(float));
    for (int64_t at = dot->first; at < dot->first + dot->steps; at++) {
        group g[CRIA_DOT_PANELS];
        CRIA_UNROLL for (int p = 0; p < panels; p++) {
            g[p] = minima ? load_q4(dot->panel[p] + at * GROUP_Q4, dot->prefetch)
                          : load_q8(dot->panel[p] + at * GROUP_Q8, dot->prefetch);
        }
        const uint8_t *x = dot->rows + at * CRIA_GROUP, *scale = dot->rows + groups * CRIA_GROUP + at * 4;
        float *sum[CRIA_DOT_PANELS] = {dot->sums[0], dot->sums[panels - 1]};
        int64_t t = 0;
        for (; t + TOGETHER <= tokens; t += TOGETHER) {
            add_tokens(g, minima, x, scale, row_bytes, groups, sum, panels, TOGETHER);
            x += TOGETHER * row_bytes;
            scale += TOGETHER * row_bytes;
            for (int p = 0; p < panels; p++) sum[p] += TOGETHER * CRIA_PANEL_ROWS;
        }
        for (; t < tokens; t++, x += row_bytes, scale += row_bytes) {
            add_tokens(g, minima, x, scale, row_bytes, groups, sum, panels, 1);
            for (int p = 0; p < panels; p++) sum[p] += CRIA_PANEL_ROWS;
        }
    }
}

/* Few tokens and one panel: the sums stay in registers. */
CRIA_INLINE void group_few(const cria_dot *dot, bool minima, const int tokens) {
    int64_t groups = (dot->cols + CRIA_GROUP - 1) / CRIA_GROUP;
    const uint8_t *rows = dot->rows, *scales = rows + groups * CRIA_GROUP, *panel = dot->panel[0];
    __m512 sum[4];
    CRIA_UNROLL for (int t = 0; t < tokens; t++) sum[t] = _mm512_setzero_ps();
    for (int64_t at = 0; at < dot->steps; at++, rows += CRIA_GROUP, scales += 4) {
        group g = minima ? load_q4(panel, true) : load_q8(panel, true);
        panel += minima ? GROUP_Q4 : GROUP_Q8;
        CRIA_UNROLL for (int t = 0; t < tokens; t++) {
            const uint8_t *x = rows + (size_t)t * dot->row_bytes, *scale = scales + (size_t)t * dot->row_bytes;
            __m512i products = minima ? _mm512_setzero_si512() : broadcast_quad(scale + groups * 4);
            CRIA_UNROLL for (int j = 0; j < QUADS; j++) products =
                _mm512_dpbusd_epi32(products, g.weights[j], broadcast_quad(x + 4 * j));
            sum[t] = add_group(minima, &g, products, scale, groups, sum[t]);
        }
    }
    CRIA_UNROLL for (int t = 0; t < tokens; t++) _mm512_store_ps(dot->sums[0] + t * CRIA_PANEL_ROWS, sum[t]);
}

CRIA_INLINE void dot_groups(const cria_dot *dot, bool minima) {
    if (dot->panels == 2) {
        group_many(dot, minima, 2);
        return;
    }
    if (dot->fresh && dot->first == 0) {
        switch (dot->tokens) {
#define CASE(n)                                                                                                        \
    case n:                                                                                                            \
        group_few(dot, minima, n);                                                                                     \
        return;
            CRIA_TILES_4(CASE)
#undef CASE
        }
    }
    group_many(dot, minima, 1);
}

void cria_dot_q8_avx512vnni(const cria_dot *dot) {
    dot_groups(dot, false);
}

void cria_dot_q4_avx512vnni(const cria_dot *dot) {
    dot_groups(dot, true);
}

void cria_linear_avx512vnni(const cria_linear_args *args, cria_worker *worker) {
    static const cria_linear_kernel i8 = {
        cria_dot_i8_avx512vnni, cria_close_i8_avx512vnni, cria_finish_avx512, 4, 192, 1, 96, TILE_TOKENS};
    static const cria_linear_kernel q8 = {
        cria_dot_q8_avx512vnni, NULL, cria_finish_avx512, CRIA_GROUP, ALL_STEPS, 1, 64, 1};
    static const cria_linear_kernel q4 = {
        cria_dot_q4_avx512vnni, NULL, cria_finish_avx512, CRIA_GROUP, ALL_STEPS, 1, 64, 1};
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
