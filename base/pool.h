/* Pool: persistent worker threads that run one function together, section by section.
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
    cria_pool *pool; /* NULL: a worker that works alone */
    int index;       /* 0 .. count - 1 */
    int count;
    /* The pool's own bookkeeping: sections this worker has come through in this job; whether it took a chunk of the
     * present one; what a lone worker has taken. */
    unsigned sections;
    bool active;
    int64_t taken, part_begin, part_end, parts; /* a lone worker's share of whatever it is given; parts 0: all */
} cria_worker;

/* `threads` >= 1, the caller included. */
cria_status cria_pool_create(int threads, cria_pool **out, cria_error *err);
void cria_pool_destroy(cria_pool *pool);
int cria_pool_threads(const cria_pool *pool);

/* Runs job(worker, context) as worker 0 and on every other worker that comes before worker 0 has returned from it;
 * returns when all that came have returned. A worker that the system does not let run is thus not waited for, unless
 * the job has a barrier. */
typedef void cria_pool_job(cria_worker *worker, void *context);
void cria_pool_run(cria_pool *pool, cria_pool_job *job, void *context);

/* A job is a row of sections, the same for all workers. Inside a section: takes the next chunk of [0, total), `chunk`
 * items at a time (more where there are over 2^27 chunks). Each worker begins with an equal part of its own, the n-th
 * with the n-th part, so that what it finds there it often has written itself and still has in its caches; then it
 * takes what others have left, so that a slow one is not waited for. False when none is left, or when this worker comes
 * too late and the section is over. Which worker gets a chunk is not determined, nor that a worker's chunks ascend;
 * results must not depend on it. All workers of a section must pass the same total and chunk. */
bool cria_worker_take(cria_worker *worker, int64_t total, int64_t chunk, int64_t *begin, int64_t *end);

/* A size of chunks for `total` small items of `elements` values each, such as the rows of tokens: an eighth of a
 * worker's part, but some thousand values at least, since every taking costs a line that travels between processors. */
int64_t cria_worker_chunk(const cria_worker *worker, int64_t total, int64_t elements);

/* Ends a section whose work is given out by cria_worker_take alone: to be called once that has returned false. Returns
 * when every chunk is done; waits for no worker that has none. */
void cria_worker_next(cria_worker *worker);

/* Ends a section in which a worker may have done something without taking it: returns when every worker has arrived. */
void cria_worker_barrier(cria_worker *worker);

/* A worker that takes everything itself, for work too small to share. It keeps the index, for what belongs to a worker.
 */
cria_worker cria_worker_alone(const cria_worker *worker);

/* The same for items [begin, end) of `of` alone, in every section: of [0, total), where total is a multiple of `of`, it
 * takes [begin, end) * total / of. So several functions that go by token can be called one after the other for some
 * tokens only, without waiting for other workers. */
cria_worker cria_worker_part(const cria_worker *worker, int64_t begin, int64_t end, int64_t of);

#endif
