/* AVX2: dot products over the quantised panels.
 *
 * There is no instruction that adds products of bytes in 32 bits. vpmaddwd adds pairs of products of 16 bits there, 16
 * of them in one instruction, half of what vpmaddubsw does with bytes; but that saturates unless one side is small, and
 * 8 bits by 8 need its sign trick and vpmaddwd besides: two more instructions. So activations have 16 bits (the wide
 * types) at no cost, except that weights of 4 bits gain from bytes: Q4_COARSE. Both are one code here: a step
 * multiplies 32 bits of every row, two columns or four. */
#include "kernels/cpu/avx2/quantised.h"

#if defined(__AVX2__)
#include <immintrin.h>

enum {
    FEW_TOKENS = 4,  /* up to here weights go from the panel through registers, else through a buffer */
    TILE_TOKENS = 6, /* times two halves of a panel: twelve sums in registers */
    MOST_STEPS = CRIA_WIDE_RUN / 2
};

/* A type's numbers; `type` is a constant wherever these are used. */
CRIA_INLINE bool is_wide(const cria_panel_type type) {
    return type != CRIA_PANEL_Q4_COARSE && type != CRIA_PANEL_Q4_0_COARSE;
}
CRIA_INLINE bool has_minima(const cria_panel_type type) {
    return type == CRIA_PANEL_Q4_WIDE || type == CRIA_PANEL_Q4_COARSE;
}
CRIA_INLINE bool is_q4(const cria_panel_type type) {
    return has_minima(type) || type == CRIA_PANEL_Q4_0_WIDE || type == CRIA_PANEL_Q4_0_COARSE;
}
/* Bytes before a group's weights, and of all of it; of I8 the weights of a group. */
CRIA_INLINE int64_t head_bytes(const cria_panel_type type) {
    return type == CRIA_PANEL_I8_WIDE ? 0
           : has_minima(type)         ? CRIA_HEAD_Q4
           : is_q4(type)              ? CRIA_HEAD_Q4_0
                                      : CRIA_HEAD_Q8;
}
CRIA_INLINE int64_t group_bytes(const cria_panel_type type) {
    if (type == CRIA_PANEL_I8_WIDE) return CRIA_GROUP * CRIA_PANEL_ROWS;
    return has_minima(type) ? CRIA_GROUP_Q4 : is_q4(type) ? CRIA_GROUP_Q4_0 : CRIA_GROUP_Q8;
}
CRIA_INLINE int64_t group_steps(const cria_panel_type type) {
    return is_wide(type) ? CRIA_GROUP / 2 : CRIA_GROUP / 4;
}
/* Bytes of a panel's weights that a step takes. */
CRIA_INLINE int64_t step_bytes(const cria_panel_type type) {
    return is_q4(type) && is_wide(type) ? 16 : 32;
}
/* Groups whose integers are added before they become f32. */
CRIA_INLINE int64_t run_groups(const cria_panel_type type) {
    return type == CRIA_PANEL_I8_WIDE ? CRIA_CHUNK_GROUPS : 1;
}

CRIA_INLINE __m256i load(const uint8_t *at) {
    return _mm256_loadu_si256((const __m256i *)(const void *)at);
}

CRIA_INLINE __m256i broadcast_step(const uint8_t *at) {
    return _mm256_set1_epi32(*(const int *)(const void *)at);
}

CRIA_INLINE __m256 broadcast_f32(const uint8_t *at) {
    return _mm256_broadcast_ss((const float *)(const void *)at);
}

CRIA_INLINE __m256 load_halves(const uint8_t *at) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)at));
}

/* Step `step` of one half of a panel's rows, from the weights of a run: two columns as 16 bits, or four as bytes. */
CRIA_INLINE __m256i step_weights(const cria_panel_type type, const uint8_t *weights, int64_t step, int half) {
    if (!is_q4(type)) {
        __m256i quad = load(weights + step / 2 * 64 + 32 * half);
        return step % 2 ? _mm256_srli_epi16(quad, 8) : _mm256_and_si256(quad, _mm256_set1_epi16(255));
    }
    int64_t quad_steps = is_wide(type) ? 2 : 1, high = step / (4 * quad_steps), quad = step / quad_steps % 4;
    __m256i both = load(weights + quad * 64 + 32 * half);
    if (high) both = _mm256_srli_epi16(both, 4);
    if (!is_wide(type)) return _mm256_and_si256(both, _mm256_set1_epi8(15));
    if (step % 2) both = _mm256_srli_epi16(both, 8);
    return high && step % 2 ? both : _mm256_and_si256(both, _mm256_set1_epi16(15));
}

/* sum += the products of one step. Sixteen products of 4 bits by 8 fit 16 bits: 16 * 15 * 127. */
CRIA_INLINE __m256i add_step(const cria_panel_type type, __m256i sum, __m256i weights, __m256i values) {
    return is_wide(type) ? _mm256_add_epi32(sum, _mm256_madd_epi16(weights, values))
                         : _mm256_add_epi16(sum, _mm256_maddubs_epi16(weights, values));
}

/* What follows the columns of a prepared row. */
typedef struct {
    const uint8_t *sums, *scales; /* of the first group; scales of the coarse type only */
} row_tail;

CRIA_INLINE row_tail tail_of(const cria_panel_type type, const cria_dot *dot, const uint8_t *row) {
    int64_t groups = (dot->cols + CRIA_GROUP - 1) / CRIA_GROUP;
    const uint8_t *scales = row + groups * group_steps(type) * 4;
    return (row_tail){is_wide(type) ? scales : scales + groups * 4, scales};
}

/* What takes the 128 off 8 bits; of 4 bits it is 8, a sixteenth of it. */
CRIA_INLINE __m256i offset_of(const cria_panel_type type, const uint8_t *sum) {
    return is_q4(type) ? _mm256_srai_epi32(broadcast_step(sum), 4) : broadcast_step(sum);
}

/* What the products of a run begin with; sums of 16 bits have no room for an offset. */
CRIA_INLINE __m256i first_products(const cria_panel_type type, const uint8_t *sum) {
    return has_minima(type) || !is_wide(type) ? _mm256_setzero_si256() : offset_of(type, sum);
}

/* The products of a run join the sum of one half; `at` is where the group stands in the tail's arrays. */
CRIA_INLINE __m256 add_run(const cria_panel_type type, __m256i products, __m256 d, __m256 m, row_tail tail, size_t at,
                           __m256 sum) {
    if (!is_wide(type)) products = _mm256_madd_epi16(products, _mm256_set1_epi16(1));
    if (!is_wide(type) && !has_minima(type)) products = _mm256_add_epi32(products, offset_of(type, tail.sums + at));
    __m256 value = _mm256_cvtepi32_ps(products);
    if (type == CRIA_PANEL_I8_WIDE) return _mm256_add_ps(sum, value);
    if (has_minima(type)) sum = _mm256_fmadd_ps(m, broadcast_f32(tail.sums + at), sum);
    if (!is_wide(type)) d = _mm256_mul_ps(d, broadcast_f32(tail.scales + at));
    return _mm256_fmadd_ps(d, value, sum);
}

CRIA_INLINE const uint8_t *group_at(const cria_panel_type type, const uint8_t *panel, int64_t group) {
    return panel + (type == CRIA_PANEL_I8_WIDE ? CRIA_HEAD_I8 : 0) + group * group_bytes(type);
}

/* Steps of the run that starts at a group: those that the panel has. */
CRIA_INLINE int64_t run_steps(const cria_panel_type type, const cria_dot *dot, int64_t group) {
    if (type != CRIA_PANEL_I8_WIDE) return group_steps(type);
    int64_t left = (dot->cols + 3) / 4 * 2 - group * group_steps(type);
    return left < MOST_STEPS ? left : MOST_STEPS;
}

/* Few tokens: every weight goes from the panel through a register to all of them, and the sums stay in registers. */
CRIA_INLINE void few_tokens(const cria_panel_type type, const cria_dot *dot, const uint8_t *panel, float *sums,
                            const int tokens) {
    const int64_t run = run_groups(type), head = head_bytes(type);
    const int64_t together = type == CRIA_PANEL_I8_WIDE ? 2 : group_steps(type);
    const row_tail tail = tail_of(type, dot, dot->rows);
    const size_t row_bytes = dot->row_bytes;
    /* As for the wider registers (Q4_AHEAD of avx512vnni); with two tokens and more it costs a twentieth here. */
    const int64_t ahead = is_q4(type) && tokens == 1 ? 2 * CRIA_PREFETCH_BYTES : CRIA_PREFETCH_BYTES;
    __m256 sum[FEW_TOKENS][2];
    CRIA_UNROLL for (int i = 0; i < 2 * tokens; i++) sum[i / 2][i % 2] =
        dot->fresh ? _mm256_setzero_ps() : _mm256_load_ps(sums + 8 * i);
    for (int64_t g = dot->first; g < dot->first + dot->steps; g += run) {
        const uint8_t *weights = group_at(type, panel, g), *x = dot->rows + g * group_steps(type) * 4;
        const int64_t steps = run_steps(type, dot, g);
        if (head) _mm_prefetch((const char *)weights + ahead, _MM_HINT_T0);
        CRIA_UNROLL for (int half = 0; half < 2; half++) {
            __m256i products[FEW_TOKENS];
            CRIA_UNROLL for (int t = 0; t < tokens; t++) products[t] =
                first_products(type, tail.sums + g * 4 + (size_t)t * row_bytes);
            const uint8_t *w = weights + head, *values = x;
            for (int64_t step = 0; step < steps; step += together) {
                CRIA_UNROLL for (int s = 0; s < together; s++) {
                    if (half == 0 && s * step_bytes(type) % 64 == 0)
                        _mm_prefetch((const char *)w + s * step_bytes(type) + ahead, _MM_HINT_T0);
                    __m256i own = step_weights(type, w, s, half);
                    CRIA_UNROLL for (int t = 0; t < tokens; t++) products[t] =
                        add_step(type, products[t], own, broadcast_step(values + 4 * s + (size_t)t * row_bytes));
                }
                w += 64 * together / 2;
                values += 4 * together;
            }
            __m256 d = load_halves(weights + 16 * half), m = load_halves(weights + CRIA_HEAD_Q8 + 16 * half);
            CRIA_UNROLL for (int t = 0; t < tokens; t++) sum[t][half] =
                add_run(type, products[t], d, m, tail, (size_t)g * 4 + (size_t)t * row_bytes, sum[t][half]);
        }
    }
    CRIA_UNROLL for (int i = 0; i < 2 * tokens; i++) _mm256_store_ps(sums + 8 * i, sum[i / 2][i % 2]);
}

/* A chunk of a panel as add_step wants it. */
typedef struct {
    _Alignas(64) uint8_t weights[MOST_STEPS][64];
    _Alignas(64) float d[CRIA_CHUNK_GROUPS][CRIA_PANEL_ROWS], m[CRIA_CHUNK_GROUPS][CRIA_PANEL_ROWS];
} unpacked;

CRIA_INLINE void unpack(const cria_panel_type type, const cria_dot *dot, const uint8_t *panel, unpacked *out) {
    uint8_t *to = out->weights[0];
    const ptrdiff_t ahead = cria_next_read(dot, panel, group_bytes(type));
    if (type == CRIA_PANEL_I8_WIDE && dot->fresh) _mm_prefetch((const char *)panel, _MM_HINT_T0); /* the rows' scales */
    for (int64_t g = 0; g < dot->steps; g += run_groups(type)) {
        const uint8_t *group = group_at(type, panel, dot->first + g), *weights = group;
        const int64_t steps = run_steps(type, dot, dot->first + g);
        const int64_t together = type == CRIA_PANEL_I8_WIDE ? 2 : group_steps(type);
        if (type != CRIA_PANEL_I8_WIDE) {
            if (dot->prefetch) _mm_prefetch((const char *)group + ahead, _MM_HINT_T1);
            CRIA_UNROLL for (int half = 0; half < 2; half++) {
                _mm256_store_ps(out->d[g] + 8 * half, load_halves(group + 16 * half));
                if (has_minima(type))
                    _mm256_store_ps(out->m[g] + 8 * half, load_halves(group + CRIA_HEAD_Q8 + 16 * half));
            }
            weights += head_bytes(type);
        }
        for (int64_t step = 0; step < steps; step += together, weights += 32 * together) {
            CRIA_UNROLL for (int s = 0; s < together; s++, to += 64) {
                if (dot->prefetch && s * step_bytes(type) % 64 == 0)
                    _mm_prefetch((const char *)weights + s * step_bytes(type) + ahead, _MM_HINT_T1);
                CRIA_UNROLL for (int half = 0; half < 2; half++)
                    _mm256_store_si256((__m256i *)(void *)(to + 32 * half), step_weights(type, weights, s, half));
            }
        }
    }
}

/* A chunk against one tile of tokens. */
CRIA_INLINE void chunk_tile(const cria_panel_type type, const cria_dot *dot, const unpacked *chunk, const uint8_t *rows,
                            float *sums, const int tokens) {
    const size_t row_bytes = dot->row_bytes;
    const row_tail tail = tail_of(type, dot, rows);
    const uint8_t *w = chunk->weights[0];
    cria_tile_rows x = cria_rows_at(rows, row_bytes, (size_t)(dot->first * group_steps(type)) * 4);
    for (int64_t g = 0; g < dot->steps; g += run_groups(type)) {
        const size_t at = (size_t)(dot->first + g) * 4;
        const int64_t steps = run_steps(type, dot, dot->first + g);
        __m256i products[TILE_TOKENS][2];
        CRIA_UNROLL for (int t = 0; t < tokens; t++) products[t][0] = products[t][1] =
            first_products(type, tail.sums + at + (size_t)t * row_bytes);
        for (int64_t step = 0; step < steps; step += 2, w += 128) {
            CRIA_UNROLL for (int s = 0; s < 2; s++) {
                __m256i low = load(w + 64 * s), high = load(w + 64 * s + 32);
                CRIA_UNROLL for (int t = 0; t < tokens; t++) {
                    __m256i values = broadcast_step(cria_row_at(x, t) + 4 * s);
                    products[t][0] = add_step(type, products[t][0], low, values);
                    products[t][1] = add_step(type, products[t][1], high, values);
                }
            }
            x = cria_advance(x, 8);
        }
        CRIA_UNROLL for (int i = 0; i < 2 * tokens; i++) {
            __m256 d = _mm256_load_ps(chunk->d[g] + i % 2 * 8), m = _mm256_load_ps(chunk->m[g] + i % 2 * 8);
            __m256 sum = add_run(type, products[i / 2][i % 2], d, m, tail, at + (size_t)(i / 2) * row_bytes,
                                 _mm256_load_ps(sums + 8 * i));
            _mm256_store_ps(sums + 8 * i, sum);
        }
    }
}

CRIA_INLINE void many_tokens(const cria_panel_type type, const cria_dot *dot, const uint8_t *panel, float *sums) {
    unpacked chunk;
    const int64_t tiles = (dot->tokens + TILE_TOKENS - 1) / TILE_TOKENS;
    if (dot->fresh) memset(sums, 0, sizeof *sums * CRIA_PANEL_ROWS * (size_t)dot->tokens);
    unpack(type, dot, panel, &chunk);
    for (int64_t i = 0; i < tiles; i++) {
        int64_t first = dot->tokens * i / tiles, tokens = dot->tokens * (i + 1) / tiles - first;
        const uint8_t *rows = dot->rows + (size_t)first * dot->row_bytes;
        switch (tokens) {
#define CASE(n)                                                                                                        \
    case n:                                                                                                            \
        chunk_tile(type, dot, &chunk, rows, sums + first * CRIA_PANEL_ROWS, n);                                        \
        break;
            CRIA_TILES_6(CASE)
#undef CASE
        }
    }
}

CRIA_INLINE void dot_type(const cria_panel_type type, const cria_dot *dot) {
    for (int p = 0; p < dot->panels; p++) {
        switch (dot->tokens) {
#define CASE(n)                                                                                                        \
    case n:                                                                                                            \
        few_tokens(type, dot, dot->panel[p], dot->sums[p], n);                                                         \
        break;
            CRIA_TILES_4(CASE)
#undef CASE
        default:
            many_tokens(type, dot, dot->panel[p], dot->sums[p]);
        }
    }
}

void cria_dot_i8_avx2(const cria_dot *dot) {
    dot_type(CRIA_PANEL_I8_WIDE, dot);
}

void cria_dot_q8_avx2(const cria_dot *dot) {
    dot_type(CRIA_PANEL_Q8_WIDE, dot);
}

void cria_dot_q4_avx2(const cria_dot *dot) {
    dot_type(CRIA_PANEL_Q4_WIDE, dot);
}

void cria_dot_q4_coarse_avx2(const cria_dot *dot) {
    dot_type(CRIA_PANEL_Q4_COARSE, dot);
}

void cria_dot_q4_0_avx2(const cria_dot *dot) {
    dot_type(CRIA_PANEL_Q4_0_WIDE, dot);
}

void cria_dot_q4_0_coarse_avx2(const cria_dot *dot) {
    dot_type(CRIA_PANEL_Q4_0_COARSE, dot);
}

/* The scale of each token, and of each row where it has one. */
CRIA_INLINE void close_wide(const cria_dot *dot, bool scaled_rows) {
    const uint8_t *scale = dot->rows + (dot->cols + CRIA_GROUP - 1) / CRIA_GROUP * (2 * CRIA_GROUP + 4);
    for (int p = 0; p < dot->panels; p++) {
        const float *rows = (const float *)(const void *)dot->panel[p];
        for (int64_t i = 0; i < 2 * dot->tokens; i++) {
            float *sum = dot->sums[p] + 8 * i;
            __m256 all = broadcast_f32(scale + (size_t)(i / 2) * dot->row_bytes);
            if (scaled_rows) all = _mm256_mul_ps(all, _mm256_load_ps(rows + i % 2 * 8));
            _mm256_store_ps(sum, _mm256_mul_ps(all, _mm256_load_ps(sum)));
        }
    }
}

void cria_close_i8_avx2(const cria_dot *dot) {
    close_wide(dot, true);
}

void cria_close_grouped_avx2(const cria_dot *dot) {
    close_wide(dot, false);
}

#endif
