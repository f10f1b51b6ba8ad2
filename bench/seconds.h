/* How long a job on a pool takes, for the programs that time kernels. */
#ifndef CRIA_BENCH_SECONDS_H
#define CRIA_BENCH_SECONDS_H

#include "base/pool.h"

#include <time.h>

/* Processor time where there is one thread, so that a neighbour's turn is not counted; else the time that passed. */
static inline double seconds(cria_pool *pool, cria_pool_job *job, void *context) {
    clockid_t clock = cria_pool_threads(pool) == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC;
    struct timespec start, end;
    clock_gettime(clock, &start);
    cria_pool_run(pool, job, context);
    clock_gettime(clock, &end);
    return (double)(end.tv_sec - start.tv_sec) + (double)(end.tv_nsec - start.tv_nsec) * 1e-9;
}

#endif
