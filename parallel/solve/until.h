/* Until: how long the solver's parts may go on. Any thread. Only for this folder and who reads instances. */
#ifndef CRIA_PARALLEL_SOLVE_UNTIL_H
#define CRIA_PARALLEL_SOLVE_UNTIL_H

#include "base/clock.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Until a monotonic time in ns (0: never) or until another thread or a signal handler sets the flag (NULL: never).
 * Functions that take one and are cut off return CRIA_ERR_CLOSED unless they say otherwise. */
typedef struct {
    uint64_t deadline;
    const atomic_bool *stop;
} cria_until;

/* NULL: no limit. */
static inline bool cria_until_over(const cria_until *until) {
    if (!until) return false;
    return (until->stop && atomic_load_explicit(until->stop, memory_order_relaxed)) ||
           (until->deadline && cria_clock_ns() >= until->deadline);
}

#endif
