/* One vector of f32 in the width of the instruction set that a file is compiled for, so that what is not worth writing
 * twice is written once. Plain + - * / are the compiler's own on these types. */
#ifndef CRIA_KERNELS_CPU_VECTOR_H
#define CRIA_KERNELS_CPU_VECTOR_H

#include <immintrin.h>
#include <stdint.h>

#define VECTOR_INLINE static inline __attribute__((always_inline))

#if defined(__AVX512F__)

enum { LANES = 16 };
typedef __m512 vf;
typedef __mmask16 vmask;

VECTOR_INLINE vf vf_set(float x) {
    return _mm512_set1_ps(x);
}
/* One value in all lanes, read anew each time: where registers are short, the compiler must not keep it. */
VECTOR_INLINE vf vf_read(const float *p) {
    vf x;
    __asm__ volatile("vbroadcastss %1, %0" : "=v"(x) : "m"(*p));
    return x;
}
VECTOR_INLINE vf vf_load(const float *p) {
    return _mm512_loadu_ps(p);
}
VECTOR_INLINE void vf_store(float *p, vf x) {
    _mm512_storeu_ps(p, x);
}
/* The lanes below `count` (0 .. LANES); the others are zero, or left alone. */
VECTOR_INLINE vf vf_load_first(const float *p, int64_t count) {
    return _mm512_maskz_loadu_ps((__mmask16)_bzhi_u32(0xffff, (uint32_t)count), p);
}
VECTOR_INLINE void vf_store_first(float *p, int64_t count, vf x) {
    _mm512_mask_storeu_ps(p, (__mmask16)_bzhi_u32(0xffff, (uint32_t)count), x);
}
VECTOR_INLINE vf vf_fma(vf a, vf b, vf c) {
    return _mm512_fmadd_ps(a, b, c);
}
/* Both give the second operand if either is NaN. */
VECTOR_INLINE vf vf_max(vf a, vf b) {
    return _mm512_max_ps(a, b);
}
VECTOR_INLINE vf vf_min(vf a, vf b) {
    return _mm512_min_ps(a, b);
}
VECTOR_INLINE vf vf_abs(vf x) {
    return _mm512_abs_ps(x);
}
VECTOR_INLINE vmask vf_less(vf a, vf b) {
    return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ);
}
VECTOR_INLINE vf vf_choose(vmask mask, vf yes, vf no) {
    return _mm512_mask_blend_ps(mask, no, yes);
}
VECTOR_INLINE vf vf_round(vf x) {
    return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
/* x * 2^n for whole n; infinity or zero beyond the range. */
VECTOR_INLINE vf vf_scale(vf x, vf n) {
    return _mm512_scalef_ps(x, n);
}
/* The same for n of -126 .. 127. */
VECTOR_INLINE vf vf_scale_normal(vf x, vf n) {
    return _mm512_scalef_ps(x, n);
}

#else

enum { LANES = 8 };
typedef __m256 vf;
typedef __m256 vmask;

VECTOR_INLINE vf vf_set(float x) {
    return _mm256_set1_ps(x);
}
/* One value in all lanes, read anew each time: where registers are short, the compiler must not keep it. */
VECTOR_INLINE vf vf_read(const float *p) {
    vf x;
    __asm__ volatile("vbroadcastss %1, %0" : "=x"(x) : "m"(*p));
    return x;
}
VECTOR_INLINE vf vf_load(const float *p) {
    return _mm256_loadu_ps(p);
}
VECTOR_INLINE void vf_store(float *p, vf x) {
    _mm256_storeu_ps(p, x);
}
VECTOR_INLINE __m256i first_lanes(int64_t count) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
/* The lanes below `count` (0 .. LANES); the others are zero, or left alone. */
VECTOR_INLINE vf vf_load_first(const float *p, int64_t count) {
    return _mm256_maskload_ps(p, first_lanes(count));
}
VECTOR_INLINE void vf_store_first(float *p, int64_t count, vf x) {
    _mm256_maskstore_ps(p, first_lanes(count), x);
}
VECTOR_INLINE vf vf_fma(vf a, vf b, vf c) {
    return _mm256_fmadd_ps(a, b, c);
}
/* Both give the second operand if either is NaN. */
VECTOR_INLINE vf vf_max(vf a, vf b) {
    return _mm256_max_ps(a, b);
}
VECTOR_INLINE vf vf_min(vf a, vf b) {
    return _mm256_min_ps(a, b);
}
VECTOR_INLINE vf vf_abs(vf x) {
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
}
VECTOR_INLINE vmask vf_less(vf a, vf b) {
    return _mm256_cmp_ps(a, b, _CMP_LT_OQ);
}
VECTOR_INLINE vf vf_choose(vmask mask, vf yes, vf no) {
    return _mm256_blendv_ps(no, yes, mask);
}
VECTOR_INLINE vf vf_round(vf x) {
    return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
/* x * 2^n for whole n within +-250, in two steps so that neither factor leaves the range of f32. */
VECTOR_INLINE vf vf_scale(vf x, vf n) {
    __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1), bias = _mm256_set1_epi32(127);
    __m256i rest = _mm256_sub_epi32(whole, half);
    vf first = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
    vf second = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23));
    return x * first * second;
}
/* The same for n of -126 .. 127. */
VECTOR_INLINE vf vf_scale_normal(vf x, vf n) {
    __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return x * _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
}

#endif

#endif
