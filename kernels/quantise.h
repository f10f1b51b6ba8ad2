/* How a run of f32 becomes s8: one rule for weights and activations, exact in f32 arithmetic, so that every
 * instruction set gives the same bytes. */
#ifndef CRIA_KERNELS_QUANTISE_H
#define CRIA_KERNELS_QUANTISE_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/* Below this the reciprocal would overflow: such a run is zero. */
#define CRIA_QUANTISE_TINY 1e-30f

/* Largest |x|; +infinity or NaN if one of them is. The bits of |x| are ordered as |x| is, with NaN last. */
static inline float cria_quantise_largest(const float *x, int64_t count) {
    uint32_t most = 0;
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        bits &= 0x7fffffffu;
        most = bits > most ? bits : most;
    }
    float largest;
    memcpy(&largest, &most, sizeof largest);
    return largest;
}

/* The scale of a run whose largest magnitude is given, and what to multiply by before rounding to nearest even. A run
 * that holds infinity or NaN becomes zeros with the scale NaN, so that every result made from it is NaN. */
static inline float cria_quantise_steps(float largest, float steps, float *inverse) {
    *inverse = 0;
    if (!(largest <= 3.402823466e38f)) return NAN;
    if (largest < CRIA_QUANTISE_TINY) return 0;
    *inverse = steps / largest;
    return largest / steps;
}
static inline float cria_quantise_scale(float largest, float *inverse) {
    return cria_quantise_steps(largest, 127.0f, inverse);
}

/* x * inverse rounded to nearest even; 0 where the run's inverse is 0. */
static inline int8_t cria_quantise_one(float x, float inverse) {
    return inverse == 0 ? 0 : (int8_t)lrintf(x * inverse);
}

/* Two terms, 16 * high + low, for the grouped types: 16 times 15 is a weight of 8 bits, so that one product of bytes
 * may take both (kernels/cpu/amx). */
enum { CRIA_FINE_STEPS = 2032 };
static inline int cria_quantise_fine(float x, float inverse, int8_t *high, int8_t *low) {
    int value = inverse == 0 ? 0 : (int)lrintf(x * inverse);
    *high = (int8_t)((value + 2048 + 8) / 16 - 128);
    *low = (int8_t)(value - 16 * *high);
    return value;
}

/* One term of 16 bits. */
enum { CRIA_WIDE_STEPS = 32767 };
static inline int16_t cria_quantise_wide(float x, float inverse) {
    return inverse == 0 ? 0 : (int16_t)lrintf(x * inverse);
}

#endif
