/* AMX: linear layers over bf16, int8 and 4-bit panels by tile multiplications, 16 tokens times 16 rows times 64 bytes
 * of K to an instruction. A panel's 64-byte steps are what a tile of weights wants.
 *
 * The integers are exact, so that few tokens go to VNNI with the same result; groups are scaled in VNNI's order. Groups
 * of 8 bits stay with VNNI: their products are too few for the way of a tile through memory. bf16 has an order of its
 * own and uses tiles for every number of tokens. */
#include "kernels/cpu/linear.h"
#include "kernels/cpu/cpu.h"

#if defined(__AMX_INT8__) || defined(__AMXINT8__) /* the second: clang before 16 */
#include <immintrin.h>

enum {
    TILE_TOKENS = 16,
    TILE_STEPS = 16, /* of 64 bytes of weights */
    FEW_TOKENS = 4,  /* up to here VNNI is as fast */
    CHUNK_STEPS = 192,
    CHUNK_GROUPS = 16,
    GROUP_STEPS = CRIA_GROUP / 4
};

/* Palette 1: bytes and rows of each of the eight tiles. */
typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

/* Tiles 0..3: sums of (panel, tile of tokens); 4, 5: tokens; 6, 7: weights. */
static void configure(int64_t tokens0, int64_t tokens1, int value_bytes) {
    tile_config c = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        c.row_bytes[i] = i == 4 || i == 5 ? (uint16_t)value_bytes : 64;
        c.rows[i] = (uint8_t)(i >= 6 ? value_bytes / 4 : i % 2 == 0 ? tokens0 : tokens1);
    }
    _tile_loadconfig(&c);
}

/* What a call needs at every step. */
typedef struct {
    const uint8_t *panel[CRIA_DOT_PANELS];
    const uint8_t *rows[2];
    size_t row_bytes;
    float *sums[CRIA_DOT_PANELS][2];
    int64_t steps;
    bool fresh, prefetch;
} tile_run;

/* The last tile of weights, with zeros beyond the last step: what follows in memory may be infinite in bf16. */
CRIA_INLINE void copy_tail(const uint8_t *from, int64_t steps, uint8_t out[TILE_STEPS * 64]) {
    memset(out, 0, TILE_STEPS * 64);
    memcpy(out, from, (size_t)steps * 64);
}

CRIA_INLINE void prefetch_tile(const uint8_t *weights) {
    for (int i = 0; i < TILE_STEPS; i++) CRIA_PREFETCH(weights + 64 * i);
}

#define MULTIPLY(integers, sum, values, weights)                                                                       \
    do {                                                                                                               \
        if (integers)                                                                                                  \
            _tile_dpbsud(sum, values, weights);                                                                        \
        else                                                                                                           \
            _tile_dpbf16ps(sum, values, weights);                                                                      \
    } while (0)

CRIA_INLINE void tile_step(const uint8_t *w0, const uint8_t *w1, const tile_run *r, int64_t step, bool integers,
                           const int panels, const int tiles) {
    _tile_loadd(4, r->rows[0] + step * 4, (int)r->row_bytes);
    _tile_loadd(6, w0, 64);
    MULTIPLY(integers, 0, 4, 6);
    if (tiles > 1) {
        _tile_loadd(5, r->rows[1] + step * 4, (int)r->row_bytes);
        MULTIPLY(integers, 1, 5, 6);
    }
    if (panels > 1) {
        _tile_loadd(7, w1, 64);
        MULTIPLY(integers, 2, 4, 7);
        if (tiles > 1) MULTIPLY(integers, 3, 5, 7);
    }
}

CRIA_INLINE void run_tiles(const tile_run *r, bool integers, const int panels, const int tiles) {
    if (r->fresh) {
        _tile_zero(0);
        if (tiles > 1) _tile_zero(1);
        if (panels > 1) _tile_zero(2);
        if (panels > 1 && tiles > 1) _tile_zero(3);
    } else {
        _tile_loadd(0, r->sums[0][0], 64);
        if (tiles > 1) _tile_loadd(1, r->sums[0][1], 64);
        if (panels > 1) _tile_loadd(2, r->sums[1][0], 64);
        if (panels > 1 && tiles > 1) _tile_loadd(3, r->sums[1][1], 64);
    }
    const uint8_t *w0 = r->panel[0], *w1 = r->panel[panels - 1];
    int64_t step = 0;
    for (; step + TILE_STEPS <= r->steps; step += TILE_STEPS, w0 += TILE_STEPS * 64, w1 += TILE_STEPS * 64) {
        if (r->prefetch) {
            prefetch_tile(w0);
            if (panels > 1) prefetch_tile(w1);
        }
        tile_step(w0, w1, r, step, integers, panels, tiles);
    }
    if (step < r->steps) {
        _Alignas(64) uint8_t tail[CRIA_DOT_PANELS][TILE_STEPS * 64];
        copy_tail(w0, r->steps - step, tail[0]);
        if (panels > 1) copy_tail(w1, r->steps - step, tail[1]);
        tile_step(tail[0], tail[panels - 1], r, step, integers, panels, tiles);
    }
    _tile_stored(0, r->sums[0][0], 64);
    if (tiles > 1) _tile_stored(1, r->sums[0][1], 64);
    if (panels > 1) _tile_stored(2, r->sums[1][0], 64);
    if (panels > 1 && tiles > 1) _tile_stored(3, r->sums[1][1], 64);
}

CRIA_INLINE void run_pair(const cria_dot *dot, size_t head, bool integers, int64_t first, const int tiles) {
    tile_run r = {.row_bytes = dot->row_bytes, .steps = dot->steps, .fresh = dot->fresh};
    r.prefetch = dot->prefetch || first == 0;
    for (int p = 0; p < dot->panels; p++) r.panel[p] = dot->panel[p] + head + (size_t)dot->first * 64;
    for (int i = 0; i < tiles; i++) {
        int64_t token = first + i * TILE_TOKENS;
        r.rows[i] = dot->rows + (size_t)token * dot->row_bytes + (size_t)dot->first * 4;
        for (int p = 0; p < dot->panels; p++) r.sums[p][i] = dot->sums[p] + token * CRIA_PANEL_ROWS;
    }
    if (dot->panels > 1)
        run_tiles(&r, integers, 2, tiles);
    else
        run_tiles(&r, integers, 1, tiles);
}

CRIA_INLINE void dot_tiles(const cria_dot *dot, size_t head, bool integers) {
    int64_t first = 0, tokens = dot->tokens;
    if (tokens >= 2 * TILE_TOKENS) configure(TILE_TOKENS, TILE_TOKENS, 64);
    for (; first + 2 * TILE_TOKENS <= tokens; first += 2 * TILE_TOKENS) run_pair(dot, head, integers, first, 2);
    int64_t rest = tokens - first;
    if (rest > TILE_TOKENS) {
        configure(TILE_TOKENS, rest - TILE_TOKENS, 64);
        run_pair(dot, head, integers, first, 2);
    } else if (rest > 0) {
        configure(rest, rest, 64);
        run_pair(dot, head, integers, first, 1);
    }
}

static void dot_bf16(const cria_dot *dot) {
    dot_tiles(dot, 0, false);
}

static void dot_i8(const cria_dot *dot) {
    if (dot->tokens <= FEW_TOKENS)
        cria_dot_i8_avx512vnni(dot);
    else
        dot_tiles(dot, CRIA_HEAD_I8, true);
}

/* A chunk of a panel's groups of 4 bits: the weights as tiles, and what scales them. The two terms of the activations
 * lie in a row as 32 high and 32 low bytes, so that the weights times 16 and the weights are one tile of the whole
 * depth. */
typedef struct {
    _Alignas(64) uint8_t weights[CHUNK_GROUPS][2 * GROUP_STEPS * 64];
    _Alignas(64) float d[CHUNK_GROUPS][CRIA_PANEL_ROWS], m[CHUNK_GROUPS][CRIA_PANEL_ROWS];
} unpacked;

static void unpack_halves(const uint8_t *at, float *out) {
    _mm512_store_ps(out, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)at)));
}

static void unpack_q4(const uint8_t *panel, int64_t groups, bool prefetch, unpacked *out) {
    const __m512i low = _mm512_set1_epi8(15), high = _mm512_set1_epi8((char)0xf0);
    for (int64_t g = 0; g < groups; g++, panel += CRIA_GROUP_Q4) {
        uint8_t *to = out->weights[g];
        if (prefetch) CRIA_PREFETCH(panel);
        unpack_halves(panel, out->d[g]);
        unpack_halves(panel + 32, out->m[g]);
        for (int j = 0; j < GROUP_STEPS / 2; j++) {
            if (prefetch) CRIA_PREFETCH(panel + CRIA_HEAD_Q4 + 64 * j);
            __m512i both = _mm512_load_si512(panel + CRIA_HEAD_Q4 + 64 * j);
            __m512i up = _mm512_slli_epi16(both, 4), down = _mm512_srli_epi16(both, 4);
            _mm512_store_si512(to + 64 * j, _mm512_and_si512(up, high));
            _mm512_store_si512(to + 64 * (j + GROUP_STEPS / 2), _mm512_and_si512(both, high));
            _mm512_store_si512(to + 64 * (j + GROUP_STEPS), _mm512_and_si512(both, low));
            _mm512_store_si512(to + 64 * (j + 3 * GROUP_STEPS / 2), _mm512_and_si512(down, low));
        }
    }
}

CRIA_INLINE __m512 broadcast_f32(const uint8_t *at) {
    return _mm512_set1_ps(*(const float *)(const void *)at);
}

enum { AHEAD = 4, PRODUCTS = TILE_TOKENS * CRIA_PANEL_ROWS };

/* As in avx512vnni: bit for bit. */
CRIA_INLINE __m512 add_group(__m512 d, __m512 m, const int32_t *products, const uint8_t *scale, int64_t groups,
                             __m512 sum) {
    __m512 dot = _mm512_cvtepi32_ps(_mm512_load_si512(products));
    sum = _mm512_fmadd_ps(m, broadcast_f32(scale + groups * 4), sum);
    return _mm512_fmadd_ps(_mm512_mul_ps(d, broadcast_f32(scale)), dot, sum);
}

/* The products of one group with a tile of tokens, into memory; consecutive groups use different tiles. */
#define GROUP_TILE(sum, values, tile_of_weights)                                                                       \
    do {                                                                                                               \
        _tile_zero(sum);                                                                                               \
        _tile_loadd(values, x, (int)row_bytes);                                                                        \
        _tile_loadd(tile_of_weights, weights, 64);                                                                     \
        _tile_dpbsud(sum, values, tile_of_weights);                                                                    \
        _tile_stored(sum, out, 64);                                                                                    \
    } while (0)

CRIA_INLINE void multiply_group(int64_t g, const uint8_t *x, size_t row_bytes, const uint8_t *weights, int32_t *out) {
    switch (g & 3) {
    case 0:
        GROUP_TILE(0, 4, 6);
        return;
    case 1:
        GROUP_TILE(1, 5, 7);
        return;
    case 2:
        GROUP_TILE(2, 4, 6);
        return;
    default:
        GROUP_TILE(3, 5, 7);
    }
}

/* Some tokens of a chunk's groups. */
typedef struct {
    const unpacked *w;
    const uint8_t *x, *scale; /* of the chunk's first group */
    size_t row_bytes;
    int64_t groups, count; /* of a row, of the chunk */
} group_run;

CRIA_INLINE void multiply_next(const group_run *r, int64_t g, int32_t products[][PRODUCTS]) {
    multiply_group(g, r->x + g * 2 * CRIA_GROUP, r->row_bytes, r->w->weights[g], products[g % (2 * AHEAD)]);
}

/* A chunk's groups against one tile of tokens. The multiplications run ahead of the scaling, so that neither waits. */
CRIA_INLINE void run_groups(const group_run *r, float *sums, const int tokens, int64_t some) {
    _Alignas(64) int32_t products[2 * AHEAD][PRODUCTS];
    __m512 sum[TILE_TOKENS];
    CRIA_UNROLL for (int t = 0; t < tokens; t++) sum[t] = _mm512_load_ps(sums + t * CRIA_PANEL_ROWS);
    for (int64_t g = 0; g < r->count && g < AHEAD; g++) multiply_next(r, g, products);
    for (int64_t g = 0; g < r->count; g++) {
        if (g + AHEAD < r->count) multiply_next(r, g + AHEAD, products);
        __m512 d = _mm512_load_ps(r->w->d[g]), m = _mm512_load_ps(r->w->m[g]);
        const int32_t *found = products[g % (2 * AHEAD)];
        const uint8_t *own = r->scale + g * 4;
        CRIA_UNROLL for (int t = 0; t < tokens; t++) sum[t] =
            add_group(d, m, found + t * CRIA_PANEL_ROWS, own + (size_t)t * r->row_bytes, r->groups, sum[t]);
        for (int64_t t = tokens; t < tokens + some; t++) {
            float *at = sums + t * CRIA_PANEL_ROWS;
            __m512 value = _mm512_load_ps(at);
            value = add_group(d, m, found + t * CRIA_PANEL_ROWS, own + (size_t)t * r->row_bytes, r->groups, value);
            _mm512_store_ps(at, value);
        }
    }
    CRIA_UNROLL for (int t = 0; t < tokens; t++) _mm512_store_ps(sums + t * CRIA_PANEL_ROWS, sum[t]);
}

/* As many tokens as can be in registers, the last few in memory. */
CRIA_INLINE void run_tokens(const group_run *r, float *sums, int64_t tokens) {
    switch (tokens / 4) {
    case 0:
        run_groups(r, sums, 0, tokens);
        return;
    case 1:
        run_groups(r, sums, 4, tokens - 4);
        return;
    case 2:
        run_groups(r, sums, 8, tokens - 8);
        return;
    case 3:
        run_groups(r, sums, 12, tokens - 12);
        return;
    default:
        run_groups(r, sums, TILE_TOKENS, 0);
    }
}

static void dot_q4(const cria_dot *dot) {
    if (dot->tokens <= FEW_TOKENS) {
        cria_dot_q4_avx512vnni(dot);
        return;
    }
    int64_t tokens = dot->tokens, full = tokens / TILE_TOKENS, rest = tokens % TILE_TOKENS;
    const size_t tile_bytes = TILE_TOKENS * dot->row_bytes;
    unpacked w;
    for (int p = 0; p < dot->panels; p++) {
        group_run r = {.w = &w, .row_bytes = dot->row_bytes, .count = dot->steps};
        r.groups = (dot->cols + CRIA_GROUP - 1) / CRIA_GROUP;
        r.x = dot->rows + dot->first * 2 * CRIA_GROUP;
        r.scale = dot->rows + r.groups * 2 * CRIA_GROUP + dot->first * 4;
        if (dot->fresh) memset(dot->sums[p], 0, (size_t)tokens * CRIA_PANEL_ROWS * sizeof(float));
        unpack_q4(dot->panel[p] + dot->first * CRIA_GROUP_Q4, dot->steps, dot->prefetch, &w);
        float *sums = dot->sums[p];
        if (full && (p == 0 || rest)) configure(TILE_TOKENS, TILE_TOKENS, 2 * CRIA_GROUP);
        for (int64_t i = 0; i < full; i++, r.x += tile_bytes, r.scale += tile_bytes, sums += PRODUCTS)
            run_groups(&r, sums, TILE_TOKENS, 0);
        if (rest == 0) continue;
        if (full || p == 0) configure(rest, rest, 2 * CRIA_GROUP);
        run_tokens(&r, sums, rest);
    }
}

static void linear(const cria_linear_args *args, cria_worker *worker) {
    static const cria_linear_kernel kernels[CRIA_PANEL_COUNT] = {
        [CRIA_PANEL_BF16] = {dot_bf16, NULL, cria_finish_avx512, 2, CHUNK_STEPS, TILE_STEPS, CRIA_MOST_TOKENS,
                             2 * TILE_TOKENS, NULL, 0, 64},
        [CRIA_PANEL_I8] = {dot_i8, cria_close_i8_avx512vnni, cria_finish_avx512, 4, CHUNK_STEPS, TILE_STEPS,
                           CRIA_MOST_TOKENS, 2 * TILE_TOKENS, NULL, 0, 64},
        [CRIA_PANEL_Q4] = {dot_q4, NULL, cria_finish_avx512, CRIA_GROUP, CHUNK_GROUPS, 1, CRIA_MOST_TOKENS, TILE_TOKENS,
                           NULL, 0, 64},
    };
    if (!kernels[args->weight->type].dot) {
        cria_linear_avx512vnni(args, worker);
        return;
    }
    cria_linear_run(args, worker, &kernels[args->weight->type]);
    _tile_release();
}

void cria_overlay_amx_linear(cria_kernels *table) {
    table->linear = linear;
}

#endif
