/* AVX2: preparation of activations, the same bytes as the reference. Wider vectors gain nothing here. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/linear.h"
#include "kernels/quantise.h"

#if defined(__AVX2__)
#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

/* The bits of the largest magnitude of 32 values join those in `most`. */
INLINE __m256i join_largest(const float *x, __m256i most) {
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    for (int i = 0; i < 4; i++) {
        __m256i bits = _mm256_loadu_si256((const __m256i *)(const void *)(x + 8 * i));
        most = _mm256_max_epu32(most, _mm256_and_si256(bits, magnitude));
    }
    return most;
}

INLINE float largest_of(__m256i most) {
    __m128i four = _mm_max_epu32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
    __m128i two = _mm_max_epu32(four, _mm_unpackhi_epi64(four, four));
    __m128i one = _mm_max_epu32(two, _mm_shuffle_epi32(two, 1));
    return _mm_cvtss_f32(_mm_castsi128_ps(one));
}

INLINE void store_bytes(const __m256i value[4], uint8_t *out) {
    __m256i low = _mm256_packs_epi32(value[0], value[1]), high = _mm256_packs_epi32(value[2], value[3]);
    __m256i bytes = _mm256_packs_epi16(low, high); /* in the order of 128-bit lanes: 0 2 4 6, 1 3 5 7 */
    bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256((__m256i *)(void *)out, bytes);
}

/* Thirty-two values to s8; their eight partial sums join `sums`. */
INLINE __m256i quantise(const float *x, __m256 inverse, __m256i sums, uint8_t *out) {
    __m256i q[4];
    for (int i = 0; i < 4; i++) {
        q[i] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8 * i), inverse));
        sums = _mm256_add_epi32(sums, q[i]);
    }
    store_bytes(q, out);
    return sums;
}

/* Thirty-two values to two terms, as cria_quantise_fine; returns the sum of the values. */
INLINE __m256i quantise_fine(const float *x, __m256 inverse, uint8_t *out) {
    __m256i value[4], high[4], low[4], sums = _mm256_setzero_si256();
    for (int i = 0; i < 4; i++) {
        value[i] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8 * i), inverse));
        sums = _mm256_add_epi32(sums, value[i]);
        high[i] = _mm256_srai_epi32(_mm256_add_epi32(value[i], _mm256_set1_epi32(8)), 4);
        low[i] = _mm256_sub_epi32(value[i], _mm256_slli_epi32(high[i], 4));
    }
    store_bytes(high, out);
    store_bytes(low, out + CRIA_GROUP);
    return sums;
}

INLINE int32_t sum_of(__m256i sums) {
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    __m128i two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
    return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 1)));
}

/* The group that starts at column k: in place, or padded with zeros in `last`. */
INLINE const float *group_at(const float *in, int64_t cols, int64_t k, float last[CRIA_GROUP]) {
    if (cols - k >= CRIA_GROUP) return in + k;
    memset(last, 0, CRIA_GROUP * sizeof *last);
    memcpy(last, in + k, (size_t)(cols - k) * sizeof *last);
    return last;
}

static void prepare_i8(const float *in, int64_t cols, uint8_t *out) {
    _Alignas(32) float last[CRIA_GROUP];
    __m256i most = _mm256_setzero_si256(), sums = _mm256_setzero_si256();
    for (int64_t k = 0; k < cols; k += CRIA_GROUP) most = join_largest(group_at(in, cols, k, last), most);
    float inverse, scale = cria_quantise_scale(largest_of(most), &inverse);
    uint8_t *tail = out + (cols + 63) / 64 * 64;
    if (inverse == 0) {
        memset(out, 0, (size_t)(tail - out));
    } else {
        memset(tail - 64, 0, 64);
        for (int64_t k = 0; k < cols; k += CRIA_GROUP) {
            sums = quantise(group_at(in, cols, k, last), _mm256_set1_ps(inverse), sums, out + k);
        }
    }
    int32_t offset = (int32_t)((uint32_t)sum_of(sums) * (uint32_t)-128);
    memcpy(tail, &scale, sizeof scale);
    memcpy(tail + 4, &offset, sizeof offset);
}

static void prepare_groups(cria_panel_type type, const float *in, int64_t cols, uint8_t *out) {
    _Alignas(32) float last[CRIA_GROUP];
    int64_t groups = (cols + CRIA_GROUP - 1) / CRIA_GROUP;
    bool fine = cria_panel_fine(type), q4 = cria_panel_layout(type) == CRIA_PANEL_Q4;
    int64_t bytes = fine ? 2 * CRIA_GROUP : CRIA_GROUP;
    uint8_t *scales = out + groups * bytes, *offsets = scales + groups * 4;
    for (int64_t g = 0; g < groups; g++) {
        const float *x = group_at(in, cols, g * CRIA_GROUP, last);
        float inverse, largest = largest_of(join_largest(x, _mm256_setzero_si256()));
        float scale = cria_quantise_steps(largest, fine ? CRIA_FINE_STEPS : 127, &inverse);
        int32_t sum = 0;
        uint8_t *to = out + g * bytes;
        if (inverse == 0) {
            memset(to, 0, (size_t)bytes);
        } else if (fine) {
            sum = sum_of(quantise_fine(x, _mm256_set1_ps(inverse), to));
        } else {
            sum = sum_of(quantise(x, _mm256_set1_ps(inverse), _mm256_setzero_si256(), to));
        }
        float scaled_sum = scale * (float)sum;
        int32_t offset = sum * -128;
        memcpy(scales + g * 4, &scale, sizeof scale);
        memcpy(offsets + g * 4, q4 ? (const void *)&scaled_sum : (const void *)&offset, 4);
    }
}

/* Thirty-two values to s16 in the order of cria_wide_place; returns their sum. */
INLINE int32_t quantise_wide(const float *x, __m256 inverse, uint8_t *out) {
    const __m256i order = _mm256_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15, 0, 1, 4, 5, 2, 3, 6, 7,
                                           8, 9, 12, 13, 10, 11, 14, 15);
    __m256i sums = _mm256_setzero_si256();
    for (int i = 0; i < 2; i++) {
        __m256i low = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 16 * i), inverse));
        __m256i high = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 16 * i + 8), inverse));
        sums = _mm256_add_epi32(sums, _mm256_add_epi32(low, high));
        __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xd8);
        _mm256_storeu_si256((__m256i *)(void *)(out + 32 * i), _mm256_shuffle_epi8(words, order));
    }
    return sum_of(sums);
}

static void prepare_wide(cria_panel_type type, const float *in, int64_t cols, uint8_t *out) {
    _Alignas(32) float last[CRIA_GROUP];
    int64_t groups = (cols + CRIA_GROUP - 1) / CRIA_GROUP;
    int64_t run = type == CRIA_PANEL_I8_WIDE ? CRIA_WIDE_RUN / CRIA_GROUP : 1;
    uint8_t *sums = out + groups * 2 * CRIA_GROUP;
    __m256i most = _mm256_setzero_si256();
    for (int64_t g = 0; g < groups; g++) most = join_largest(group_at(in, cols, g * CRIA_GROUP, last), most);
    float inverse, scale = cria_quantise_steps(largest_of(most), CRIA_WIDE_STEPS, &inverse);
    memset(out, 0, (size_t)groups * (2 * CRIA_GROUP + 4));
    memcpy(sums + groups * 4, &scale, sizeof scale);
    if (inverse == 0) return;
    for (int64_t first = 0; first < groups; first += run) {
        int32_t sum = 0;
        for (int64_t g = first; g < groups && g < first + run; g++) {
            const float *x = group_at(in, cols, g * CRIA_GROUP, last);
            sum += quantise_wide(x, _mm256_set1_ps(inverse), out + g * 2 * CRIA_GROUP);
        }
        float plain = (float)sum;
        uint32_t offset = (uint32_t)sum * (uint32_t)-128;
        memcpy(sums + first * 4, type == CRIA_PANEL_Q4_WIDE ? (const void *)&plain : &offset, 4);
    }
}

/* Eight f32 to bf16 in the low halves of 32-bit lanes, to nearest even; NaN stays NaN. */
INLINE __m256i round_bf16(__m256i bits) {
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
    __m256i magnitude = _mm256_and_si256(bits, _mm256_set1_epi32(0x7fffffff));
    __m256i nan = _mm256_cmpgt_epi32(magnitude, _mm256_set1_epi32(0x7f800000));
    __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    return _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
}

static void prepare_bf16(const float *in, int64_t cols, uint16_t *out) {
    int64_t k = 0;
    for (; k + 16 <= cols; k += 16) {
        __m256i low = round_bf16(_mm256_loadu_si256((const __m256i *)(const void *)(in + k)));
        __m256i high = round_bf16(_mm256_loadu_si256((const __m256i *)(const void *)(in + k + 8)));
        __m256i both = _mm256_permute4x64_epi64(_mm256_packus_epi32(low, high), 0xd8);
        _mm256_storeu_si256((__m256i *)(void *)(out + k), both);
    }
    for (; k < cols; k++) out[k] = cria_f32_to_bf16(in[k]);
}

/* Zeroes a row from `used` bytes on. */
static void pad(uint8_t *row, size_t used, size_t row_bytes) {
    memset(row + used, 0, row_bytes - used);
}

static void prepare_row(cria_panel_type type, const float *in, int64_t cols, uint8_t *out, size_t row_bytes) {
    size_t groups = ((size_t)cols + CRIA_GROUP - 1) / CRIA_GROUP;
    switch (type) {
    case CRIA_PANEL_F32:
        memcpy(out, in, (size_t)cols * 4);
        pad(out, (size_t)cols * 4, row_bytes);
        return;
    case CRIA_PANEL_BF16:
        prepare_bf16(in, cols, (uint16_t *)(void *)out);
        pad(out, (size_t)cols * 2, row_bytes);
        return;
    case CRIA_PANEL_I8:
        prepare_i8(in, cols, out);
        pad(out, ((size_t)cols + 63) / 64 * 64 + 8, row_bytes);
        return;
    case CRIA_PANEL_Q8:
    case CRIA_PANEL_Q4_COARSE:
    case CRIA_PANEL_Q4_0_COARSE:
        prepare_groups(type, in, cols, out);
        pad(out, groups * (CRIA_GROUP + 8), row_bytes);
        return;
    case CRIA_PANEL_Q4:
    case CRIA_PANEL_Q4_0:
    case CRIA_PANEL_Q8_FINE:
        prepare_groups(type, in, cols, out);
        pad(out, groups * (2 * CRIA_GROUP + 8), row_bytes);
        return;
    case CRIA_PANEL_I8_WIDE:
    case CRIA_PANEL_Q8_WIDE:
    case CRIA_PANEL_Q4_WIDE:
    case CRIA_PANEL_Q4_0_WIDE:
        prepare_wide(type, in, cols, out);
        pad(out, groups * (2 * CRIA_GROUP + 4) + 4, row_bytes);
        return;
    case CRIA_PANEL_COUNT:
        return;
    }
}

static void prepare(const cria_prepare_args *args, cria_worker *worker) {
    size_t row_bytes = cria_prepared_row_bytes(args->type, args->cols);
    int64_t begin, end, chunk = cria_worker_chunk(worker, args->tokens, args->cols);
    while (cria_worker_take(worker, args->tokens, chunk, &begin, &end)) {
        for (int64_t t = begin; t < end; t++) {
            prepare_row(args->type, args->in + t * args->in_stride, args->cols,
                        (uint8_t *)args->out + (size_t)t * row_bytes, row_bytes);
        }
    }
}

void cria_overlay_avx2_linear(cria_kernels *table) {
    table->prepare = prepare;
    table->linear = cria_linear_avx2;
}

#endif
