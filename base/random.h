/* Counter-based random numbers: the same (key, counter) gives the same number on every machine, thread and plan.
 * Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11). Pure functions, any thread. */
#ifndef CRIA_BASE_RANDOM_H
#define CRIA_BASE_RANDOM_H

#include <stdint.h>

/* Four independent 32-bit words for one (key, counter). */
void cria_philox(uint64_t key, uint64_t counter_low, uint64_t counter_high, uint32_t out[4]);
/* A float in the open interval (0, 1): the middle of one of 2^23 equal parts, which a float holds exactly (with 2^24
 * parts the last middle would round to 1). */
static inline float cria_uniform(uint32_t word) {
    return ((float)(word >> 9) + 0.5f) * (1.0f / 8388608.0f);
}
/* 64 bits from the operating system, for seeds that nobody chose. */
uint64_t cria_random_seed(void);

#endif
