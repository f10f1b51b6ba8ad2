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

enum { TOGETHER = 2, QUADS = CRIA_GROUP / 4 };
enum { ALL_STEPS = 1 << 20 }; /* no chunks: the weights of a group are in registers */

void cria_dot_i8_avx512vnni(const cria_dot *dot) {
    tile_tokens(dot, CRIA_HEAD_I8);
}

void cria_listed_i8_avx512vnni(const cria_dot *dot) {
    tile_listed(dot, CRIA_HEAD_I8);
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

/* Asks for a group that is to be read later; NULL: for none. */
CRIA_INLINE void ask_for(const uint8_t *later, const int bytes, const int hint) {
    if (!later) return;
    CRIA_UNROLL for (int line = 0; line < bytes; line += 64) {
        if (hint == _MM_HINT_T1)
            _mm_prefetch((const char *)later + line, _MM_HINT_T1);
        else
            _mm_prefetch((const char *)later + line, _MM_HINT_T0);
    }
}

CRIA_INLINE group load_q8(const uint8_t *at, const uint8_t *later, const int hint) {
    group g = {.d = load_halves(at), .m = _mm512_setzero_ps()};
    ask_for(later, CRIA_GROUP_Q8, hint);
    CRIA_UNROLL for (int j = 0; j < QUADS; j++) {
        g.weights[j] = _mm512_loadu_si512(at + CRIA_HEAD_Q8 + 64 * j);
    }
    return g;
}

CRIA_INLINE group load_q4(const uint8_t *at, const uint8_t *later, const int hint) {
    const __m512i nibble = _mm512_set1_epi8(15);
    group g = {.d = load_halves(at), .m = load_halves(at + 32)};
    ask_for(later, CRIA_GROUP_Q4, hint);
    CRIA_UNROLL for (int j = 0; j < QUADS / 2; j++) {
        __m512i both = _mm512_load_si512(at + CRIA_HEAD_Q4 + 64 * j);
        g.weights[j] = _mm512_and_si512(both, nibble);
        g.weights[j + QUADS / 2] = _mm512_and_si512(_mm512_srli_epi16(both, 4), nibble);
    }
    return g;
}

/* 16 times the weights: the activations take 128 off, which is 16 times 8, and d makes up for it. */
CRIA_INLINE group load_q4_0(const uint8_t *at, const uint8_t *later, const int hint) {
    const __m512i nibble = _mm512_set1_epi8((char)0xf0);
    group g = {.d = _mm512_mul_ps(load_halves(at), _mm512_set1_ps(0x1p-4f)), .m = _mm512_setzero_ps()};
    ask_for(later, CRIA_GROUP_Q4_0, hint);
    CRIA_UNROLL for (int j = 0; j < QUADS / 2; j++) {
        __m512i both = _mm512_loadu_si512(at + CRIA_HEAD_Q4_0 + 64 * j);
        g.weights[j] = _mm512_and_si512(_mm512_slli_epi16(both, 4), nibble);
        g.weights[j + QUADS / 2] = _mm512_and_si512(both, nibble);
    }
    return g;
}

/* The grouped types: of weights of 8 or 4 bits, Q4 with minima; the activations of 4 bits, unless they are coarse, and
 * those of Q8_FINE are of two terms. */
enum { BITS_4 = 1, MINIMA = 2, FINE = 4 };

/* Bytes of a panel's group. */
CRIA_INLINE ptrdiff_t panel_bytes(const int form) {
    return form & MINIMA ? CRIA_GROUP_Q4 : form & BITS_4 ? CRIA_GROUP_Q4_0 : CRIA_GROUP_Q8;
}

CRIA_INLINE group load_group(const int form, const uint8_t *at, const uint8_t *later, const int hint) {
    if (form & MINIMA) return load_q4(at, later, hint);
    return form & BITS_4 ? load_q4_0(at, later, hint) : load_q8(at, later, hint);
}

/* Per group and token: the products, the scale of the weights times that of the activations, one multiply-add; with
 * minima also the minimum of the weights times the sum of the activations. `scale` is the group's; its sum stands
 * `groups` values later. */
CRIA_INLINE __m512 add_group(const int form, const group *g, __m512i dot, const uint8_t *scale, int64_t groups,
                             __m512 sum) {
    if (form & MINIMA) sum = _mm512_fmadd_ps(g->m, broadcast_f32(scale + groups * 4), sum);
    return _mm512_fmadd_ps(_mm512_mul_ps(g->d, broadcast_f32(scale)), _mm512_cvtepi32_ps(dot), sum);
}

CRIA_INLINE int64_t group_bytes(const int form) {
    return form & FINE ? 2 * CRIA_GROUP : CRIA_GROUP;
}

/* What the products begin with: what takes the 128 off weights without minima. */
CRIA_INLINE __m512i first_products(const int form, const uint8_t *scale, int64_t groups) {
    return form & MINIMA ? _mm512_setzero_si512() : broadcast_quad(scale + groups * 4);
}

/* One group of the panels against `tokens` neighbouring tokens, whose products go side by side, and so do the terms: a
 * chain of eight would wait for itself. */
CRIA_INLINE void add_tokens(const group g[CRIA_DOT_PANELS], const int form, const uint8_t *x, const uint8_t *scale,
                            size_t row_bytes, int64_t groups, float *const sum[CRIA_DOT_PANELS], const int panels,
                            const int tokens) {
    __m512i high[TOGETHER][CRIA_DOT_PANELS], low[TOGETHER][CRIA_DOT_PANELS];
    CRIA_UNROLL for (int t = 0; t < tokens; t++) {
        low[t][0] = low[t][1] = first_products(form, scale + (size_t)t * row_bytes, groups);
        high[t][0] = high[t][1] = _mm512_setzero_si512();
    }
    CRIA_UNROLL for (int j = 0; j < QUADS; j++) {
        CRIA_UNROLL for (int t = 0; t < tokens; t++) {
            const uint8_t *at = x + (size_t)t * row_bytes + 4 * j;
            __m512i values = broadcast_quad(form & FINE ? at + CRIA_GROUP : at);
            CRIA_UNROLL for (int p = 0; p < panels; p++) low[t][p] =
                _mm512_dpbusd_epi32(low[t][p], g[p].weights[j], values);
            if (!(form & FINE)) continue;
            values = broadcast_quad(at);
            CRIA_UNROLL for (int p = 0; p < panels; p++) high[t][p] =
                _mm512_dpbusd_epi32(high[t][p], g[p].weights[j], values);
        }
    }
    CRIA_UNROLL for (int t = 0; t < tokens; t++) {
        CRIA_UNROLL for (int p = 0; p < panels; p++) {
            float *at = sum[p] + t * CRIA_PANEL_ROWS;
            const uint8_t *own = scale + (size_t)t * row_bytes;
            __m512i dot = form & FINE ? _mm512_add_epi32(_mm512_slli_epi32(high[t][p], 4), low[t][p]) : low[t][p];
            _mm512_store_ps(at, add_group(form, &g[p], dot, own, groups, _mm512_load_ps(at)));
        }
    }
}

/* Any number of tokens, whose sums stay in memory: a group of weights is unpacked once for all of them. */
CRIA_INLINE void group_many(const cria_dot *dot, const int form, const int panels) {
    const int64_t groups = (dot->cols + CRIA_GROUP - 1) / CRIA_GROUP, tokens = dot->tokens, bytes = group_bytes(form);
    const size_t row_bytes = dot->row_bytes;
    for (int p = 0; dot->fresh && p < panels; p++)
        memset(dot->sums[p], 0, (size_t)tokens * CRIA_PANEL_ROWS * sizeof(float));
    const ptrdiff_t each = panel_bytes(form), skip = cria_skip(dot, each);
    for (int64_t at = dot->first; at < dot->first + dot->steps; at++) {
        const ptrdiff_t ahead = cria_ahead((dot->first + dot->steps - at) * each, skip);
        group g[CRIA_DOT_PANELS];
        CRIA_UNROLL for (int p = 0; p < panels; p++) {
            const uint8_t *from = dot->panel[p] + at * each, *later = dot->prefetch ? from + ahead : NULL;
            g[p] = load_group(form, from, later, _MM_HINT_T1);
        }
        const uint8_t *x = dot->rows + at * bytes, *scale = dot->rows + groups * bytes + at * 4;
        float *sum[CRIA_DOT_PANELS] = {dot->sums[0], dot->sums[panels - 1]};
        int64_t t = 0;
        for (; t + TOGETHER <= tokens; t += TOGETHER) {
            add_tokens(g, form, x, scale, row_bytes, groups, sum, panels, TOGETHER);
            x += TOGETHER * row_bytes;
            scale += TOGETHER * row_bytes;
            for (int p = 0; p < panels; p++) sum[p] += TOGETHER * CRIA_PANEL_ROWS;
        }
        for (; t < tokens; t++, x += row_bytes, scale += row_bytes) {
            add_tokens(g, form, x, scale, row_bytes, groups, sum, panels, 1);
            for (int p = 0; p < panels; p++) sum[p] += CRIA_PANEL_ROWS;
        }
    }
}

/* Few tokens and one panel: the sums stay in registers. 4 bits are asked for further ahead than other types: where
 * memory is slow to answer, half of that cost a fifth (docs/benchmarks.md, "Further ahead for 4 bits"). */
enum { Q4_AHEAD = 8192 };
CRIA_INLINE void group_few(const cria_dot *dot, const int form, const int tokens) {
    int64_t groups = (dot->cols + CRIA_GROUP - 1) / CRIA_GROUP, bytes = group_bytes(form);
    const uint8_t *rows = dot->rows, *scales = rows + groups * bytes, *panel = dot->panel[0];
    __m512 sum[4];
    CRIA_UNROLL for (int t = 0; t < tokens; t++) sum[t] = _mm512_setzero_ps();
    for (int64_t at = 0; at < dot->steps; at++, rows += bytes, scales += 4) {
        group g = load_group(form, panel, panel + (form & BITS_4 ? Q4_AHEAD : CRIA_PREFETCH_BYTES), _MM_HINT_T0);
        panel += panel_bytes(form);
        CRIA_UNROLL for (int t = 0; t < tokens; t++) {
            const uint8_t *x = rows + (size_t)t * dot->row_bytes, *scale = scales + (size_t)t * dot->row_bytes;
            __m512i high = _mm512_setzero_si512(), low = first_products(form, scale, groups);
            CRIA_UNROLL for (int j = 0; j < QUADS; j++) {
                low = _mm512_dpbusd_epi32(low, g.weights[j], broadcast_quad(x + bytes - CRIA_GROUP + 4 * j));
                if (form & FINE) high = _mm512_dpbusd_epi32(high, g.weights[j], broadcast_quad(x + 4 * j));
            }
            if (form & FINE) low = _mm512_add_epi32(_mm512_slli_epi32(high, 4), low);
            sum[t] = add_group(form, &g, low, scale, groups, sum[t]);
        }
    }
    CRIA_UNROLL for (int t = 0; t < tokens; t++) _mm512_store_ps(dot->sums[0] + t * CRIA_PANEL_ROWS, sum[t]);
}

CRIA_INLINE void dot_groups(const cria_dot *dot, const int form) {
    if (dot->panels == 2) {
        group_many(dot, form, 2);
        return;
    }
    if (dot->fresh && dot->first == 0) {
        switch (dot->tokens) {
#define CASE(n)                                                                                                        \
    case n:                                                                                                            \
        group_few(dot, form, n);                                                                                       \
        return;
            CRIA_TILES_4(CASE)
#undef CASE
        }
    }
    group_many(dot, form, 1);
}

void cria_dot_q8_avx512vnni(const cria_dot *dot) {
    dot_groups(dot, 0);
}

void cria_dot_q8_fine_avx512vnni(const cria_dot *dot) {
    dot_groups(dot, FINE);
}

void cria_dot_q4_avx512vnni(const cria_dot *dot) {
    dot_groups(dot, BITS_4 | MINIMA | FINE);
}

static void dot_q4_coarse(const cria_dot *dot) {
    dot_groups(dot, BITS_4 | MINIMA);
}

static void dot_q4_0(const cria_dot *dot) {
    dot_groups(dot, BITS_4 | FINE);
}

static void dot_q4_0_coarse(const cria_dot *dot) {
    dot_groups(dot, BITS_4);
}

#define GROUPED(dot, own)                                                                                              \
    { dot, NULL, cria_finish_avx512, CRIA_GROUP, ALL_STEPS, 1, 64, 1, NULL, 0, own }

void cria_linear_avx512vnni(const cria_linear_args *args, cria_worker *worker) {
    static const cria_linear_kernel kernels[CRIA_PANEL_COUNT] = {
        [CRIA_PANEL_I8] = {cria_dot_i8_avx512vnni, cria_close_i8_avx512vnni, cria_finish_avx512, 4, 192, 1, 96,
                           TILE_TOKENS, cria_listed_i8_avx512vnni, TILE_TOKENS, 24},
        [CRIA_PANEL_Q8] = GROUPED(cria_dot_q8_avx512vnni, 16),
        [CRIA_PANEL_Q8_FINE] = GROUPED(cria_dot_q8_fine_avx512vnni, 16),
        [CRIA_PANEL_Q4] = GROUPED(cria_dot_q4_avx512vnni, 8),
        [CRIA_PANEL_Q4_COARSE] = GROUPED(dot_q4_coarse, 8),
        [CRIA_PANEL_Q4_0] = GROUPED(dot_q4_0, 8),
        [CRIA_PANEL_Q4_0_COARSE] = GROUPED(dot_q4_0_coarse, 8),
    };
    if (!kernels[args->weight->type].dot) {
        cria_linear_avx512(args, worker);
        return;
    }
    cria_linear_run(args, worker, &kernels[args->weight->type]);
}

void cria_overlay_avx512vnni_linear(cria_kernels *table) {
    table->linear = cria_linear_avx512vnni;
}

#endif
