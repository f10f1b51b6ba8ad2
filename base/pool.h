/* Pool: persistent worker threads that run one function together and meet at barriers.
 *
 * The caller of cria_pool_run takes part as worker 0. Workers spin for tens of microseconds between jobs, then sleep
 * (futex), so that an idle server uses no CPU and a descheduled neighbour is not waited for by burning its core.
 * Every worker runs with denormals flushed to zero (FTZ/DAZ). One thread at a time may call cria_pool_run. */
#ifndef CRIA_BASE_POOL_H
#define CRIA_BASE_POOL_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct cria_pool cria_pool;

/* One worker's view of a running job. */
typedef struct {
    cria_pool *pool;
    int index; /* 0 .. count - 1 */
    int count;
    unsigned sections; /* how many barriers this worker has passed in this job; the pool's own bookkeeping */
} cria_worker;

/* `threads` >= 1, the caller included. */
cria_status cria_pool_create(int threads, cria_pool **out, cria_error *err);
void cria_pool_destroy(cria_pool *pool);
int cria_pool_threads(const cria_pool *pool);

/* Runs job(worker, context) on every worker and returns when all have returned. */
typedef void cria_pool_job(cria_worker *worker, void *context);
void cria_pool_run(cria_pool *pool, cria_pool_job *job, void *context);

/* Inside a job: returns when every worker has arrived, and resets the chunk counter. */
void cria_worker_barrier(cria_worker *worker);

/* Inside a job: takes the next chunk of [0, total), `chunk` items at a time, from the counter that all workers share
 * since the last barrier. False when none is left. Which worker gets a chunk is not determined; results must not depend
 * on it. All workers of a section must pass the same total and chunk. */
bool cria_worker_take(cria_worker *worker, int64_t total, int64_t chunk, int64_t *begin, int64_t *end);

#endif
