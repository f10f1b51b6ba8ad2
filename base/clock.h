/* Monotonic time. Any thread. */
#ifndef CRIA_BASE_CLOCK_H
#define CRIA_BASE_CLOCK_H

#include <stdint.h>

/* Nanoseconds since an arbitrary start; never goes back. */
uint64_t cria_clock_ns(void);
static inline double cria_seconds_between(uint64_t start_ns, uint64_t end_ns) {
    return (double)(end_ns - start_ns) * 1e-9;
}

#endif
