/* What the row operators need of vectors beyond kernels/cpu/vector.h: comparisons, horizontal results, bf16, integers,
 * the logarithm. */
#ifndef CRIA_KERNELS_CPU_ROW_VECTOR_H
#define CRIA_KERNELS_CPU_ROW_VECTOR_H

#include "kernels/cpu/activation.h"
#include "kernels/cpu/vector.h"

#include <string.h>

#if defined(__AVX512F__)

typedef __m512i vi;

/* The lanes below n, n <= LANES. */
VECTOR_INLINE vmask vf_first(int64_t n) {
    return (vmask)((1u << n) - 1);
}
VECTOR_INLINE unsigned vf_bits(vmask m) {
    return m;
}

VECTOR_INLINE vmask vf_greater(vf a, vf b) {
    return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ);
}
VECTOR_INLINE vmask vf_at_least(vf a, vf b) {
    return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ);
}
VECTOR_INLINE vmask vf_equal(vf a, vf b) {
    return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ);
}
VECTOR_INLINE vmask vf_nan(vf a) {
    return _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
}
VECTOR_INLINE vmask vf_and(vmask a, vmask b) {
    return (vmask)(a & b);
}
VECTOR_INLINE vmask vf_or(vmask a, vmask b) {
    return (vmask)(a | b);
}
VECTOR_INLINE vi vi_select(vmask m, vi yes, vi no) {
    return _mm512_mask_blend_epi32(m, no, yes);
}

/* Horizontal, always in the same order. */
VECTOR_INLINE float vf_hmax(vf x) {
    return _mm512_reduce_max_ps(x);
}
VECTOR_INLINE float vf_hmin(vf x) {
    return _mm512_reduce_min_ps(x);
}
VECTOR_INLINE float vf_hsum(vf x) {
    __m256 y = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    __m128 z = _mm_add_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
    z = _mm_add_ps(z, _mm_movehl_ps(z, z));
    return _mm_cvtss_f32(_mm_add_ss(z, _mm_movehdup_ps(z)));
}

/* bf16, rounded to the nearest even; "first": the lanes below n, no memory beyond is touched. */
VECTOR_INLINE vi vf_round_bf16(vf x) { /* in the low halves of the lanes */
    vi bits = _mm512_castps_si512(x);
    vi odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    vi rounded = _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
    vi quiet = _mm512_or_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(0x40));
    return _mm512_mask_blend_epi32(vf_nan(x), rounded, quiet);
}
VECTOR_INLINE void vf_store_bf16(uint16_t *p, vf x) {
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(vf_round_bf16(x)));
}
VECTOR_INLINE void vf_store_bf16_first(uint16_t *p, int64_t n, vf x) {
    _mm256_mask_storeu_epi16(p, vf_first(n), _mm512_cvtepi32_epi16(vf_round_bf16(x)));
}

/* Whole numbers of -127 .. 127 as int8, to the nearest even. */
VECTOR_INLINE void vf_store_i8(int8_t *p, vf x) {
    _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x)));
}
VECTOR_INLINE void vf_store_i8_first(int8_t *p, int64_t n, vf x) {
    _mm_mask_storeu_epi8(p, vf_first(n), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x)));
}

/* 32-bit integers. */
VECTOR_INLINE vi vi_set(int32_t x) {
    return _mm512_set1_epi32(x);
}
VECTOR_INLINE vi vi_load(const void *p) {
    return _mm512_loadu_si512(p);
}
/* Read anew each time, as vf_read. */
VECTOR_INLINE vi vi_read(const void *p) {
    vi x;
    __asm__ volatile("vmovdqu32 %1, %0" : "=v"(x) : "m"(*(const vi *)p));
    return x;
}
/* The lanes below n, the others zero; no memory beyond is touched. */
VECTOR_INLINE vi vi_load_first(const void *p, int64_t n) {
    return _mm512_maskz_loadu_epi32(vf_first(n), p);
}
VECTOR_INLINE void vi_store(int32_t *p, vi x) {
    _mm512_storeu_si512(p, x);
}
VECTOR_INLINE vi vi_add(vi a, vi b) {
    return _mm512_add_epi32(a, b);
}
VECTOR_INLINE vi vi_sub(vi a, vi b) {
    return _mm512_sub_epi32(a, b);
}
VECTOR_INLINE vi vi_xor(vi a, vi b) {
    return _mm512_xor_si512(a, b);
}
VECTOR_INLINE vi vi_or(vi a, vi b) {
    return _mm512_or_si512(a, b);
}
VECTOR_INLINE vi vi_and(vi a, vi b) {
    return _mm512_and_si512(a, b);
}
#define vi_shift_left(a, n) _mm512_slli_epi32(a, n)
#define vi_shift_right_arithmetic(a, n) _mm512_srai_epi32(a, n)
VECTOR_INLINE vi vf_as_int(vf x) {
    return _mm512_castps_si512(x);
}
VECTOR_INLINE vf vi_as_float(vi x) {
    return _mm512_castsi512_ps(x);
}
VECTOR_INLINE vf vi_to_float(vi x) {
    return _mm512_cvtepi32_ps(x);
}
VECTOR_INLINE vf vi_unsigned_to_float(vi x) {
    return _mm512_cvtepu32_ps(x);
}
VECTOR_INLINE vi vf_truncate(vf x) {
    return _mm512_cvttps_epi32(x);
}
/* The high and the low halves of the 64-bit products. */
VECTOR_INLINE void vi_multiply_wide(vi a, vi b, vi *high, vi *low) {
    vi even = _mm512_mul_epu32(a, b);
    vi odd = _mm512_mul_epu32(_mm512_srli_epi64(a, 32), _mm512_srli_epi64(b, 32));
    *high = _mm512_mask_blend_epi32(0xaaaa, _mm512_srli_epi64(even, 32), odd);
    *low = _mm512_mask_blend_epi32(0xaaaa, even, _mm512_slli_epi64(odd, 32));
}
VECTOR_INLINE vi vi_unpack_low(vi a, vi b) {
    return _mm512_unpacklo_epi32(a, b);
}
VECTOR_INLINE vi vi_unpack_high(vi a, vi b) {
    return _mm512_unpackhi_epi32(a, b);
}
VECTOR_INLINE vi vi_unpack_low_pairs(vi a, vi b) {
    return _mm512_unpacklo_epi64(a, b);
}
VECTOR_INLINE vi vi_unpack_high_pairs(vi a, vi b) {
    return _mm512_unpackhi_epi64(a, b);
}

/* Splits 2 * LANES interleaved floats into the even and the odd ones. */
VECTOR_INLINE void vf_load_pairs(const float *p, vf *even, vf *odd) {
    const vi evens = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const vi odds = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    vf low = vf_load(p), high = vf_load(p + LANES);
    *even = _mm512_permutex2var_ps(low, evens, high);
    *odd = _mm512_permutex2var_ps(low, odds, high);
}

#else

typedef __m256i vi;

/* The lanes below n, n <= LANES. */
VECTOR_INLINE vmask vf_first(int64_t n) {
    return _mm256_castsi256_ps(first_lanes(n));
}
VECTOR_INLINE unsigned vf_bits(vmask m) {
    return (unsigned)_mm256_movemask_ps(m);
}

VECTOR_INLINE vmask vf_greater(vf a, vf b) {
    return _mm256_cmp_ps(a, b, _CMP_GT_OQ);
}
VECTOR_INLINE vmask vf_at_least(vf a, vf b) {
    return _mm256_cmp_ps(a, b, _CMP_GE_OQ);
}
VECTOR_INLINE vmask vf_equal(vf a, vf b) {
    return _mm256_cmp_ps(a, b, _CMP_EQ_OQ);
}
VECTOR_INLINE vmask vf_nan(vf a) {
    return _mm256_cmp_ps(a, a, _CMP_UNORD_Q);
}
VECTOR_INLINE vmask vf_and(vmask a, vmask b) {
    return _mm256_and_ps(a, b);
}
VECTOR_INLINE vmask vf_or(vmask a, vmask b) {
    return _mm256_or_ps(a, b);
}
VECTOR_INLINE vi vi_select(vmask m, vi yes, vi no) {
    return _mm256_blendv_epi8(no, yes, _mm256_castps_si256(m));
}

/* Horizontal, always in the same order. */
VECTOR_INLINE float vf_hmax(vf x) {
    __m128 y = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    y = _mm_max_ps(y, _mm_movehl_ps(y, y));
    return _mm_cvtss_f32(_mm_max_ss(y, _mm_movehdup_ps(y)));
}
VECTOR_INLINE float vf_hmin(vf x) {
    __m128 y = _mm_min_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    y = _mm_min_ps(y, _mm_movehl_ps(y, y));
    return _mm_cvtss_f32(_mm_min_ss(y, _mm_movehdup_ps(y)));
}
VECTOR_INLINE float vf_hsum(vf x) {
    __m128 y = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    y = _mm_add_ps(y, _mm_movehl_ps(y, y));
    return _mm_cvtss_f32(_mm_add_ss(y, _mm_movehdup_ps(y)));
}

/* bf16, rounded to the nearest even; "first": the lanes below n, no memory beyond is touched. */
VECTOR_INLINE vi vf_round_bf16(vf x) { /* in the low halves of the lanes */
    vi bits = _mm256_castps_si256(x);
    vi odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    vi rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
    vi quiet = _mm256_or_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(0x40));
    return _mm256_blendv_epi8(rounded, quiet, _mm256_castps_si256(vf_nan(x)));
}
VECTOR_INLINE void vf_store_bf16(uint16_t *p, vf x) {
    vi out = vf_round_bf16(x);
    __m128i packed = _mm_packus_epi32(_mm256_castsi256_si128(out), _mm256_extracti128_si256(out, 1));
    _mm_storeu_si128((__m128i *)p, packed);
}
VECTOR_INLINE void vf_store_bf16_first(uint16_t *p, int64_t n, vf x) {
    uint16_t copy[LANES];
    vf_store_bf16(copy, x);
    memcpy(p, copy, (size_t)n * sizeof *copy);
}

/* Whole numbers of -127 .. 127 as int8, to the nearest even. */
VECTOR_INLINE void vf_store_i8(int8_t *p, vf x) {
    __m256i whole = _mm256_cvtps_epi32(x);
    __m128i half = _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
    _mm_storel_epi64((__m128i *)p, _mm_packs_epi16(half, half));
}
VECTOR_INLINE void vf_store_i8_first(int8_t *p, int64_t n, vf x) {
    int8_t copy[LANES];
    vf_store_i8(copy, x);
    memcpy(p, copy, (size_t)n);
}

/* 32-bit integers. */
VECTOR_INLINE vi vi_set(int32_t x) {
    return _mm256_set1_epi32(x);
}
VECTOR_INLINE vi vi_load(const void *p) {
    return _mm256_loadu_si256((const __m256i *)p);
}
/* Read anew each time, as vf_read. */
VECTOR_INLINE vi vi_read(const void *p) {
    vi x;
    __asm__ volatile("vmovdqu %1, %0" : "=x"(x) : "m"(*(const vi *)p));
    return x;
}
/* The lanes below n, the others zero; no memory beyond is touched. */
VECTOR_INLINE vi vi_load_first(const void *p, int64_t n) {
    return _mm256_maskload_epi32((const int *)p, first_lanes(n));
}
VECTOR_INLINE void vi_store(int32_t *p, vi x) {
    _mm256_storeu_si256((__m256i *)p, x);
}
VECTOR_INLINE vi vi_add(vi a, vi b) {
    return _mm256_add_epi32(a, b);
}
VECTOR_INLINE vi vi_sub(vi a, vi b) {
    return _mm256_sub_epi32(a, b);
}
VECTOR_INLINE vi vi_xor(vi a, vi b) {
    return _mm256_xor_si256(a, b);
}
VECTOR_INLINE vi vi_or(vi a, vi b) {
    return _mm256_or_si256(a, b);
}
VECTOR_INLINE vi vi_and(vi a, vi b) {
    return _mm256_and_si256(a, b);
}
#define vi_shift_left(a, n) _mm256_slli_epi32(a, n)
#define vi_shift_right_arithmetic(a, n) _mm256_srai_epi32(a, n)
VECTOR_INLINE vi vf_as_int(vf x) {
    return _mm256_castps_si256(x);
}
VECTOR_INLINE vf vi_as_float(vi x) {
    return _mm256_castsi256_ps(x);
}
VECTOR_INLINE vf vi_to_float(vi x) {
    return _mm256_cvtepi32_ps(x);
}
/* Both halves are exact, so that their sum is rounded once. */
VECTOR_INLINE vf vi_unsigned_to_float(vi x) {
    vf high = _mm256_cvtepi32_ps(_mm256_srli_epi32(x, 16));
    vf low = _mm256_cvtepi32_ps(_mm256_and_si256(x, _mm256_set1_epi32(0xffff)));
    return _mm256_fmadd_ps(high, _mm256_set1_ps(65536), low);
}
VECTOR_INLINE vi vf_truncate(vf x) {
    return _mm256_cvttps_epi32(x);
}
/* The high and the low halves of the 64-bit products. */
VECTOR_INLINE void vi_multiply_wide(vi a, vi b, vi *high, vi *low) {
    vi even = _mm256_mul_epu32(a, b);
    vi odd = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), _mm256_srli_epi64(b, 32));
    *high = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
    *low = _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
}
VECTOR_INLINE vi vi_unpack_low(vi a, vi b) {
    return _mm256_unpacklo_epi32(a, b);
}
VECTOR_INLINE vi vi_unpack_high(vi a, vi b) {
    return _mm256_unpackhi_epi32(a, b);
}
VECTOR_INLINE vi vi_unpack_low_pairs(vi a, vi b) {
    return _mm256_unpacklo_epi64(a, b);
}
VECTOR_INLINE vi vi_unpack_high_pairs(vi a, vi b) {
    return _mm256_unpackhi_epi64(a, b);
}

/* Splits 2 * LANES interleaved floats into the even and the odd ones. */
VECTOR_INLINE void vf_load_pairs(const float *p, vf *even, vf *odd) {
    vf a = vf_load(p), b = vf_load(p + LANES);
    vf low = _mm256_permute2f128_ps(a, b, 0x20), high = _mm256_permute2f128_ps(a, b, 0x31);
    *even = _mm256_shuffle_ps(low, high, 0x88);
    *odd = _mm256_shuffle_ps(low, high, 0xdd);
}

#endif

/* A row rounded to bf16. */
static inline void vf_round_row_bf16(const float *in, int64_t count, uint16_t *out) {
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) vf_store_bf16(out + i, vf_load(in + i));
    if (i < count) vf_store_bf16_first(out + i, count - i, vf_load_first(in + i, count - i));
}

/* Has x computed, or read, though nothing comes of it. */
VECTOR_INLINE void vi_keep(vi x) {
    __asm__ volatile("" ::"x"(x));
}

/* For positive normal x; relative error about 1e-7, around 1 too. */
VECTOR_INLINE vf vf_log(vf x) {
    vi bits = vf_as_int(x);
    vi exponent = vi_shift_right_arithmetic(vi_sub(bits, vi_set(0x3f3504f3)), 23); /* of sqrt(1/2) */
    vf n = vi_to_float(exponent);
    vf f = vi_as_float(vi_sub(bits, vi_shift_left(exponent, 23))) - vf_set(1);
    vf q = vf_fma(f, vf_set(6.915378467e-02f), vf_set(-1.178982578e-01f));
    q = vf_fma(q, f, vf_set(1.187298130e-01f));
    q = vf_fma(q, f, vf_set(-1.238434593e-01f));
    q = vf_fma(q, f, vf_set(1.421865714e-01f));
    q = vf_fma(q, f, vf_set(-1.666925092e-01f));
    q = vf_fma(q, f, vf_set(2.000222666e-01f));
    q = vf_fma(q, f, vf_set(-2.499998660e-01f));
    q = vf_fma(q, f, vf_set(3.333331044e-01f));
    vf square = f * f;
    vf rest = vf_fma(q * f, square, n * vf_set(1.42860677e-6f)); /* ln 2 in two pieces, the first of 16 bits */
    return vf_fma(n, vf_set(0.693145752f), vf_fma(square, vf_set(-0.5f), rest) + f);
}

#endif
