/* Worker threads on futexes: every wait spins for a bounded time, then sleeps. */
#include "base/pool.h"

#include "base/clock.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

enum {
    CACHE_LINE = 128, /* two lines: the adjacent-line prefetcher pairs them */
    SPIN_NS = 50000,
    SPINS_PER_CLOCK = 32, /* how often a spinning thread looks at the value between two looks at the clock */
    MOST_THREADS = 1024
};

/* A number that one thread raises and others wait for, on a cache line of its own. */
typedef struct {
    _Alignas(CACHE_LINE) atomic_uint value;
    atomic_uint sleepers; /* lets the raising thread skip the system call while all waiters still spin */
} event;

/* The present section in one word, so that taking a chunk, leaving and opening the next one are single steps:
 * its number, the workers that took something and have not come to its end, and the chunks given out. */
enum { TAKEN_BITS = 28, ACTIVE_BITS = 12 };
#define ACTIVE_ONE (UINT64_C(1) << TAKEN_BITS)
#define SECTION_ONE (UINT64_C(1) << (TAKEN_BITS + ACTIVE_BITS))
#define MOST_CHUNKS ((int64_t)1 << (TAKEN_BITS - 1))

static inline int64_t taken_of(uint64_t section) {
    return (int64_t)(section & (ACTIVE_ONE - 1));
}
static inline uint64_t active_of(uint64_t section) {
    return section / ACTIVE_ONE & ((UINT64_C(1) << ACTIVE_BITS) - 1);
}
static inline unsigned number_of(uint64_t section) {
    return (unsigned)(section / SECTION_ONE);
}
static inline bool is_now(uint64_t section, const cria_worker *worker) {
    return number_of(section) == worker->sections % (1u << (64 - TAKEN_BITS - ACTIVE_BITS));
}

/* A job's number, whether workers may still enter it, and how many besides worker 0 are inside. */
enum { DOOR_OPEN = 1, DOOR_INSIDE = 2, DOOR_JOB_SHIFT = 16 };

#define NO_SECTION UINT64_MAX

/* How far a worker's own part of a section is given out: the section's number in the high half, else nothing of it is;
 * the chunks in the low half. */
typedef struct {
    _Alignas(CACHE_LINE) atomic_uint_fast64_t given;
} part;

struct cria_pool {
    int threads;
    uint64_t spin_ns;
    cria_pool_job *job;
    void *context;
    atomic_bool stop;
    pthread_t *handles; /* threads - 1 */
    part *parts;        /* [threads] */
    event start;        /* raised once for each job, and to stop */
    event finish;       /* raised when the last worker has left a closed job */
    event pass;         /* raised when a section ends */
    _Alignas(CACHE_LINE) atomic_uint_fast64_t door;
    _Alignas(CACHE_LINE) atomic_int arrived; /* workers at the present barrier */
    _Alignas(CACHE_LINE) atomic_uint_fast64_t section;
};

typedef struct {
    cria_pool *pool;
    int index;
} worker_start;

static inline void pause_cpu(void) {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Sets flush-to-zero and denormals-are-zero for this thread; returns the state to restore. */
static uint64_t flush_denormals(void) {
#if defined(__x86_64__)
    unsigned state = _mm_getcsr();
    _mm_setcsr(state | 0x8040);
    return state;
#elif defined(__aarch64__)
    uint64_t state;
    __asm__ volatile("mrs %0, fpcr" : "=r"(state));
    __asm__ volatile("msr fpcr, %0" : : "r"(state | (UINT64_C(1) << 24)));
    return state;
#else
    return 0;
#endif
}

static void restore_denormals(uint64_t state) {
#if defined(__x86_64__)
    _mm_setcsr((unsigned)state);
#elif defined(__aarch64__)
    __asm__ volatile("msr fpcr, %0" : : "r"(state));
#else
    (void)state;
#endif
}

/* Returns once the value is no longer `old`. The order of the two sides makes a lost wake-up impossible: the waiter
 * counts itself before the kernel compares the value, the raiser changes the value before it looks at the count. */
static void event_wait(event *e, unsigned old, uint64_t spin_ns) {
    if (spin_ns) {
        uint64_t start = cria_clock_ns();
        do {
            for (int i = 0; i < SPINS_PER_CLOCK; i++) {
                if (atomic_load_explicit(&e->value, memory_order_acquire) != old) return;
                pause_cpu();
            }
        } while (cria_clock_ns() - start < spin_ns);
    }
    atomic_fetch_add(&e->sleepers, 1);
    while (atomic_load(&e->value) == old) {
        syscall(SYS_futex, &e->value, FUTEX_WAIT_PRIVATE, old, NULL, NULL, 0);
    }
    atomic_fetch_sub(&e->sleepers, 1);
}

static void event_raise(event *e) {
    atomic_fetch_add(&e->value, 1);
    if (atomic_load(&e->sleepers)) syscall(SYS_futex, &e->value, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

/* Goes into the open job unless it is `last`; returns the number of the job entered, or `last`. A worker that was not
 * running when the others finished the job finds the door closed: nobody waited for it. */
static uint64_t enter(cria_pool *pool, uint64_t last) {
    uint_fast64_t door = atomic_load_explicit(&pool->door, memory_order_acquire);
    do {
        if (!(door & DOOR_OPEN) || door >> DOOR_JOB_SHIFT == last) return last;
    } while (!atomic_compare_exchange_weak_explicit(&pool->door, &door, door + DOOR_INSIDE, memory_order_acquire,
                                                    memory_order_acquire));
    return door >> DOOR_JOB_SHIFT;
}

static void leave(cria_pool *pool) {
    uint64_t door = atomic_fetch_sub(&pool->door, DOOR_INSIDE) - DOOR_INSIDE;
    if ((door & ((UINT64_C(1) << DOOR_JOB_SHIFT) - 1)) == 0) event_raise(&pool->finish);
}

static void *worker_main(void *argument) {
    worker_start given = *(worker_start *)argument;
    free(argument);
    cria_pool *pool = given.pool;
    flush_denormals();
    uint64_t last = 0;
    for (unsigned seen = 0;;) {
        event_wait(&pool->start, seen, pool->spin_ns);
        if (atomic_load_explicit(&pool->stop, memory_order_relaxed)) return NULL;
        seen = atomic_load_explicit(&pool->start.value, memory_order_acquire);
        uint64_t job = enter(pool, last);
        if (job == last) continue;
        last = job;
        cria_worker worker = {.pool = pool, .index = given.index, .count = pool->threads};
        pool->job(&worker, pool->context);
        leave(pool);
    }
}

/* True if this process may run on as many processors as there are workers; otherwise spinning takes the processor from
 * the very worker that is waited for. */
static bool processors_suffice(int threads) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return true;
    return CPU_COUNT(&set) >= threads;
}

/* Starts worker `index`. */
static bool start_worker(cria_pool *pool, int index) {
    worker_start *argument = malloc(sizeof *argument);
    if (!argument) return false;
    *argument = (worker_start){.pool = pool, .index = index};
    if (pthread_create(&pool->handles[index - 1], NULL, worker_main, argument) != 0) {
        free(argument);
        return false;
    }
    return true;
}

/* Ends workers 1 .. started and frees everything. */
static void stop_and_free(cria_pool *pool, int started) {
    atomic_store_explicit(&pool->stop, true, memory_order_relaxed);
    event_raise(&pool->start);
    for (int i = 0; i < started; i++) pthread_join(pool->handles[i], NULL);
    free(pool->parts);
    free(pool->handles);
    free(pool);
}

cria_status cria_pool_create(int threads, cria_pool **out, cria_error *err) {
    *out = NULL;
    if (threads < 1 || threads > MOST_THREADS) {
        return cria_fail(err, CRIA_ERR_ARGUMENT, "threads must be between 1 and %d, but is %d", MOST_THREADS, threads);
    }
    cria_pool *pool = aligned_alloc(CACHE_LINE, sizeof *pool);
    if (!pool) return cria_fail(err, CRIA_ERR_MEMORY, "out of memory for a pool of %d threads", threads);
    memset(pool, 0, sizeof *pool);
    pool->threads = threads;
    pool->spin_ns = processors_suffice(threads) ? SPIN_NS : 0;
    pool->handles = calloc((size_t)threads, sizeof *pool->handles);
    pool->parts = aligned_alloc(CACHE_LINE, (size_t)threads * sizeof *pool->parts);
    if (!pool->handles || !pool->parts) {
        free(pool->parts);
        free(pool->handles);
        free(pool);
        return cria_fail(err, CRIA_ERR_MEMORY, "out of memory for a pool of %d threads", threads);
    }
    /* Workers inherit the mask: signals are for the threads of main. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int started = 0;
    while (started < threads - 1 && start_worker(pool, started + 1)) started++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (started < threads - 1) {
        stop_and_free(pool, started);
        return cria_fail(err, CRIA_ERR_MEMORY, "could start only %d of %d threads", started + 1, threads);
    }
    *out = pool;
    return CRIA_OK;
}

void cria_pool_destroy(cria_pool *pool) {
    if (pool) stop_and_free(pool, pool->threads - 1);
}

int cria_pool_threads(const cria_pool *pool) {
    return pool->threads;
}

void cria_pool_run(cria_pool *pool, cria_pool_job *job, void *context) {
    uint64_t state = flush_denormals();
    unsigned finished = atomic_load_explicit(&pool->finish.value, memory_order_relaxed);
    uint64_t door = atomic_load_explicit(&pool->door, memory_order_relaxed);
    pool->job = job;
    pool->context = context;
    atomic_store_explicit(&pool->section, 0, memory_order_relaxed);
    for (int i = 0; i < pool->threads; i++)
        atomic_store_explicit(&pool->parts[i].given, NO_SECTION, memory_order_relaxed);
    atomic_store_explicit(&pool->door, ((door >> DOOR_JOB_SHIFT) + 1) << DOOR_JOB_SHIFT | DOOR_OPEN,
                          memory_order_release);
    if (pool->threads > 1) event_raise(&pool->start);
    cria_worker worker = {.pool = pool, .index = 0, .count = pool->threads};
    job(&worker, context);
    door = atomic_fetch_and(&pool->door, ~(uint64_t)DOOR_OPEN) & ~(uint64_t)DOOR_OPEN;
    if (door & ((UINT64_C(1) << DOOR_JOB_SHIFT) - 1)) event_wait(&pool->finish, finished, pool->spin_ns);
    restore_denormals(state);
}

/* Opens the next section; nobody else may be able to do so at this moment. */
static void advance(cria_pool *pool, uint64_t section) {
    atomic_store(&pool->section, (section & ~(SECTION_ONE - 1)) + SECTION_ONE);
    if (pool->threads > 1) event_raise(&pool->pass);
}

/* Returns once the worker's section is over. */
static void wait_for_end(const cria_worker *worker) {
    cria_pool *pool = worker->pool;
    for (;;) {
        unsigned passed = atomic_load_explicit(&pool->pass.value, memory_order_acquire);
        if (!is_now(atomic_load_explicit(&pool->section, memory_order_acquire), worker)) return;
        event_wait(&pool->pass, passed, pool->spin_ns);
    }
}

void cria_worker_barrier(cria_worker *worker) {
    cria_pool *pool = worker->pool;
    if (!pool) {
        worker->taken = 0;
    } else if (atomic_fetch_add(&pool->arrived, 1) + 1 < worker->count) {
        wait_for_end(worker);
    } else {
        /* Everyone else waits, so that plain resets cannot be seen half done. */
        atomic_store_explicit(&pool->arrived, 0, memory_order_relaxed);
        advance(pool, atomic_load_explicit(&pool->section, memory_order_relaxed));
    }
    worker->active = false;
    worker->sections++;
}

void cria_worker_next(cria_worker *worker) {
    cria_pool *pool = worker->pool;
    if (!pool) {
        worker->taken = 0;
        return;
    }
    uint_fast64_t section = atomic_load_explicit(&pool->section, memory_order_acquire);
    bool last = false;
    while (is_now(section, worker)) {
        /* Whoever comes here has found nothing left to take. */
        uint64_t leaves = worker->active ? ACTIVE_ONE : 0;
        last = active_of(section) * ACTIVE_ONE == leaves;
        uint64_t left = last ? (section & ~(SECTION_ONE - 1)) + SECTION_ONE : section - leaves;
        if (left == section || atomic_compare_exchange_weak_explicit(&pool->section, &section, left,
                                                                     memory_order_acq_rel, memory_order_acquire))
            break;
        last = false;
    }
    if (last) {
        if (pool->threads > 1) event_raise(&pool->pass);
    } else {
        wait_for_end(worker);
    }
    worker->active = false;
    worker->sections++;
}

/* The next of `most` chunks of worker `owner`'s part, or -1 when all are given out. */
static int64_t take_of(cria_pool *pool, int owner, uint64_t number, int64_t most) {
    atomic_uint_fast64_t *given = &pool->parts[owner].given;
    uint_fast64_t was = atomic_load_explicit(given, memory_order_relaxed);
    int64_t next;
    do {
        next = was >> 32 == number ? (int64_t)(was & UINT32_MAX) : 0;
        if (next >= most) return -1;
    } while (!atomic_compare_exchange_weak_explicit(given, &was, number << 32 | (uint64_t)(next + 1),
                                                    memory_order_relaxed, memory_order_relaxed));
    return next;
}

/* A chunk for a worker that has counted itself in: of its own part of [0, chunks) as long as there is one, then of
 * another's. There is always one: no more workers are counted in than there are chunks, and what was found given out
 * stays so. The section cannot end meanwhile, so that a part's number is this section's or an older one's. */
static int64_t choose(const cria_worker *worker, int64_t chunks) {
    cria_pool *pool = worker->pool;
    int count = pool->threads;
    for (int i = 0;; i++) {
        int owner = (worker->index + i) % count;
        int64_t first = chunks * owner / count;
        int64_t next = take_of(pool, owner, worker->sections, chunks * (owner + 1) / count - first);
        if (next >= 0) return first + next;
    }
}

bool cria_worker_take(cria_worker *worker, int64_t total, int64_t chunk, int64_t *begin, int64_t *end) {
    int64_t first = 0;
    if (worker->parts > 0) {
        first = total / worker->parts * worker->part_begin;
        total = total / worker->parts * worker->part_end - first;
    }
    if (total <= 0) return false;
    if (chunk < 1) chunk = 1;
    if (chunk > total) chunk = total;
    if (total / chunk >= MOST_CHUNKS) chunk = total / MOST_CHUNKS + 1;
    int64_t chunks = total / chunk + (total % chunk != 0), mine;
    if (worker->pool) {
        cria_pool *pool = worker->pool;
        uint64_t joins = worker->active ? 0 : ACTIVE_ONE;
        uint_fast64_t section = atomic_load_explicit(&pool->section, memory_order_acquire);
        do {
            if (!is_now(section, worker) || taken_of(section) >= chunks) return false;
        } while (!atomic_compare_exchange_weak_explicit(&pool->section, &section, section + joins + 1,
                                                        memory_order_acq_rel, memory_order_acquire));
        worker->active = true;
        mine = choose(worker, chunks);
    } else {
        if (worker->taken >= chunks) return false;
        mine = worker->taken++;
    }
    *begin = first + mine * chunk;
    *end = chunk < total - mine * chunk ? *begin + chunk : first + total;
    return true;
}

int64_t cria_worker_chunk(const cria_worker *worker, int64_t total, int64_t elements) {
    enum { CHUNKS_PER_WORKER = 8, LEAST_ELEMENTS = 2048 };
    int64_t chunk = total / (CHUNKS_PER_WORKER * (int64_t)worker->count);
    int64_t least = elements > 0 && elements < LEAST_ELEMENTS ? LEAST_ELEMENTS / elements : 1;
    return chunk > least ? chunk : least;
}

cria_worker cria_worker_alone(const cria_worker *worker) {
    return (cria_worker){.index = worker->index, .count = 1};
}

cria_worker cria_worker_part(const cria_worker *worker, int64_t begin, int64_t end, int64_t of) {
    return (cria_worker){.index = worker->index, .count = 1, .part_begin = begin, .part_end = end, .parts = of};
}
