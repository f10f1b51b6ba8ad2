/* The pool: every item done once, barriers that order memory, denormals, idleness. */
#include "base/pool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static const int thread_counts[] = {1, 2, 4, 7};
enum { THREAD_COUNTS = sizeof thread_counts / sizeof *thread_counts };

static cria_pool *make_pool(int threads) {
    cria_pool *pool;
    cria_error err;
    if (cria_pool_create(threads, &pool, &err) != CRIA_OK) fail_msg("%s", err.message);
    assert_int_equal(cria_pool_threads(pool), threads);
    return pool;
}

enum { SECTIONS = 300, ITEMS = 97 };

typedef struct {
    int threads;
    unsigned char hits[SECTIONS][ITEMS]; /* plain memory: a sanitizer sees it if a barrier does not order it */
    int64_t sums[8];
    bool wrong;
} section_job;

/* In each section every worker takes items and, behind the barrier, checks what all of them did. */
static void run_sections(cria_worker *worker, void *context) {
    section_job *job = context;
    if (worker->count != job->threads || worker->index < 0 || worker->index >= worker->count) job->wrong = true;
    for (int s = 0; s < SECTIONS; s++) {
        int64_t begin, end, chunk = 1 + s % 7;
        while (cria_worker_take(worker, ITEMS, chunk, &begin, &end)) {
            if (end - begin > chunk || end > ITEMS) abort();
            for (int64_t i = begin; i < end; i++) job->hits[s][i]++;
        }
        cria_worker_barrier(worker);
        for (int i = worker->index; i < ITEMS; i += worker->count) {
            if (job->hits[s][i] != 1) abort();
        }
        job->sums[worker->index] = s;
        cria_worker_barrier(worker);
        for (int i = 0; i < worker->count; i++) {
            if (job->sums[i] != s) abort();
        }
        cria_worker_barrier(worker);
    }
    if (worker->sections != 3 * SECTIONS) abort();
}

static void every_item_of_every_section_is_done_once_and_seen_by_all(void **state) {
    (void)state;
    for (int t = 0; t < THREAD_COUNTS; t++) {
        cria_pool *pool = make_pool(thread_counts[t]);
        section_job *job = malloc(sizeof *job);
        assert_non_null(job);
        for (int round = 0; round < 3; round++) {
            memset(job, 0, sizeof *job);
            job->threads = thread_counts[t];
            cria_pool_run(pool, run_sections, job);
            assert_false(job->wrong);
        }
        free(job);
        cria_pool_destroy(pool);
    }
}

static void count_one(cria_worker *worker, void *context) {
    ((int64_t *)context)[worker->index * 16]++;
    cria_worker_barrier(worker); /* or some would come too late */
}

static void short_jobs_run_on_every_worker_each_time(void **state) {
    (void)state;
    for (int t = 0; t < THREAD_COUNTS; t++) {
        cria_pool *pool = make_pool(thread_counts[t]);
        int64_t counts[8 * 16] = {0};
        for (int run = 1; run <= 500; run++) {
            cria_pool_run(pool, count_one, counts);
            for (int i = 0; i < thread_counts[t]; i++) assert_int_equal(counts[i * 16], run);
        }
        cria_pool_destroy(pool);
    }
}

/* Takes from counts that are 0, smaller than the chunk, and as large as can be. */
static void take_edges(cria_worker *worker, void *context) {
    int64_t *covered = (int64_t *)context + worker->index * 16, begin, end;
    if (cria_worker_take(worker, 0, 4, &begin, &end)) abort();
    cria_worker_barrier(worker);
    while (cria_worker_take(worker, 3, 1000, &begin, &end)) covered[0] += end - begin;
    cria_worker_barrier(worker);
    while (cria_worker_take(worker, INT64_MAX / 64, INT64_MAX, &begin, &end)) covered[1] += end - begin;
    cria_worker_barrier(worker);
    while (cria_worker_take(worker, 10, 0, &begin, &end)) covered[2] += end - begin; /* at least one at a time */
}

static void chunks_cover_exactly_the_total(void **state) {
    (void)state;
    for (int t = 0; t < THREAD_COUNTS; t++) {
        cria_pool *pool = make_pool(thread_counts[t]);
        int64_t covered[8 * 16] = {0};
        cria_pool_run(pool, take_edges, covered);
        int64_t sums[3] = {0};
        for (int i = 0; i < thread_counts[t]; i++) {
            for (int k = 0; k < 3; k++) sums[k] += covered[i * 16 + k];
        }
        assert_int_equal(sums[0], 3);
        assert_int_equal(sums[1], INT64_MAX / 64);
        assert_int_equal(sums[2], 10);
        cria_pool_destroy(pool);
    }
}

/* Sleeps longer than the others spin, so that they must be woken. */
static void dawdle(cria_worker *worker, void *context) {
    int64_t *passed = context;
    for (int turn = 0; turn < 2 * worker->count; turn++) {
        if (turn % worker->count == worker->index) usleep(1000);
        cria_worker_barrier(worker);
    }
    passed[worker->index * 16]++;
}

static void workers_that_fell_asleep_at_a_barrier_are_woken(void **state) {
    (void)state;
    for (int t = 0; t < THREAD_COUNTS; t++) {
        cria_pool *pool = make_pool(thread_counts[t]);
        int64_t passed[8 * 16] = {0};
        for (int run = 0; run < 3; run++) {
            usleep(1000); /* asleep between jobs, too */
            cria_pool_run(pool, dawdle, passed);
        }
        for (int i = 0; i < thread_counts[t]; i++) assert_int_equal(passed[i * 16], 3);
        cria_pool_destroy(pool);
    }
}

typedef struct {
    int64_t done[SECTIONS]; /* by one item of each section after the other */
    atomic_int stuck, taken;
} chain_job;

/* Section s adds one item's worth to what section s - 1 left. Worker 1 never takes anything and sleeps. */
static void run_chain(cria_worker *worker, void *context) {
    chain_job *job = context;
    if (worker->index == 1) {
        usleep(50000);
        atomic_fetch_add(&job->stuck, 1);
    }
    for (int s = 0; s < SECTIONS; s++) {
        int64_t begin, end;
        while (cria_worker_take(worker, 3, 1, &begin, &end)) {
            atomic_fetch_add(&job->taken, 1);
            if (begin == 1) job->done[s] = (s ? job->done[s - 1] : 0) + 1;
        }
        cria_worker_next(worker);
        if (job->done[s] != s + 1) abort();
        if (worker->index == 0 && s == SECTIONS - 1 && worker->count > 1 && job->stuck) abort();
    }
}

static void sections_wait_for_those_that_work_in_them_only(void **state) {
    (void)state;
    for (int t = 0; t < THREAD_COUNTS; t++) {
        cria_pool *pool = make_pool(thread_counts[t]);
        for (int run = 0; run < 5; run++) {
            chain_job job = {0};
            cria_pool_run(pool, run_chain, &job);
            assert_int_equal(job.taken, 3 * SECTIONS);
            assert_int_equal(job.done[SECTIONS - 1], SECTIONS);
        }
        cria_pool_destroy(pool);
    }
}

/* Only worker `only` takes anything: first its own part, in order, then what was meant for the others. */
typedef struct {
    int only;
    int64_t first, count, seen[ITEMS];
} part_job;

static void take_all_alone(cria_worker *worker, void *context) {
    part_job *job = context;
    int64_t begin, end;
    if (worker->index == job->only)
        while (cria_worker_take(worker, ITEMS, 1, &begin, &end)) {
            if (job->count == 0) job->first = begin;
            if (job->count <= ITEMS / worker->count - 1 && begin != job->first + job->count) abort();
            job->count++;
            job->seen[begin]++;
        }
    cria_worker_barrier(worker);
}

static void a_worker_begins_with_its_own_part_and_goes_on_with_the_others(void **state) {
    (void)state;
    for (int t = 0; t < THREAD_COUNTS; t++) {
        cria_pool *pool = make_pool(thread_counts[t]);
        for (int only = 0; only < thread_counts[t]; only++) {
            part_job job = {.only = only};
            cria_pool_run(pool, take_all_alone, &job);
            assert_int_equal(job.first, ITEMS * only / thread_counts[t]);
            assert_int_equal(job.count, ITEMS);
            for (int i = 0; i < ITEMS; i++) assert_int_equal(job.seen[i], 1);
        }
        cria_pool_destroy(pool);
    }
}

static void a_part_is_the_same_share_of_every_section(void **state) {
    (void)state;
    cria_worker shared = {.index = 2, .count = 4}, worker = cria_worker_part(&shared, 3, 7, 10);
    assert_int_equal(worker.index, 2);
    static const int64_t totals[] = {10, 40, 10}, chunks[] = {3, 5, 100};
    for (int s = 0; s < 3; s++) {
        int64_t begin, end, expected = totals[s] * 3 / 10;
        while (cria_worker_take(&worker, totals[s], chunks[s], &begin, &end)) {
            assert_int_equal(begin, expected);
            assert_true(end > begin && end - begin <= chunks[s]);
            expected = end;
        }
        assert_int_equal(expected, totals[s] * 7 / 10);
        cria_worker_next(&worker);
    }
    int64_t begin, end;
    assert_false(cria_worker_take(&worker, 0, 4, &begin, &end));
    assert_false(
        cria_worker_take(&worker, 5, 1, &begin, &end)); /* no multiple of ten: nothing, not a division by zero */
}

static void a_lone_worker_takes_everything_again_in_each_section(void **state) {
    (void)state;
    cria_worker shared = {.index = 3, .count = 8}, worker = cria_worker_alone(&shared);
    assert_int_equal(worker.index, 3);
    assert_int_equal(worker.count, 1);
    for (int s = 0; s < 3; s++) {
        int64_t begin, end, covered = 0;
        while (cria_worker_take(&worker, 10, 4, &begin, &end)) covered += end - begin;
        assert_int_equal(covered, 10);
        if (s == 1)
            cria_worker_barrier(&worker);
        else
            cria_worker_next(&worker);
    }
}

/* What a subnormal operand and a subnormal result become here: both 0 with FTZ and DAZ. */
static double subnormal_sum(void) {
    volatile double smallest_normal = 0x1p-1022, subnormal = 0x1p-1060;
    return smallest_normal * 0.5 + subnormal * 0x1p100;
}

static void store_subnormal_sum(cria_worker *worker, void *context) {
    ((double *)context)[worker->index] = subnormal_sum();
    cria_worker_barrier(worker);
}

static void denormals_are_flushed_inside_jobs_only(void **state) {
    (void)state;
#if defined(__x86_64__) || defined(__aarch64__)
    cria_pool *pool = make_pool(4);
    double sums[4] = {1, 1, 1, 1};
    assert_true(subnormal_sum() > 0);
    cria_pool_run(pool, store_subnormal_sum, sums);
    assert_true(subnormal_sum() > 0);
    for (int i = 0; i < 4; i++) assert_true(sums[i] == 0);
    cria_pool_destroy(pool);
#else
    skip();
#endif
}

static double cpu_seconds(void) {
    struct timespec used;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return (double)used.tv_sec + (double)used.tv_nsec * 1e-9;
}

static void wait_long_on_worker_zero(cria_worker *worker, void *context) {
    (void)context;
    if (worker->index == 0) usleep(200000);
    cria_worker_barrier(worker);
}

static void waiting_workers_use_no_processor(void **state) {
    (void)state;
    /* Two as well as many: workers spin only where there are processors for all of them. */
    for (int threads = 2; threads <= 4; threads += 2) {
        cria_pool *pool = make_pool(threads);
        int64_t counts[8 * 16] = {0};
        cria_pool_run(pool, count_one, counts);
        double before = cpu_seconds();
        usleep(200000);
        cria_pool_run(pool, wait_long_on_worker_zero, NULL);
        /* A single worker that spins would use 0.4 s. */
        assert_true(cpu_seconds() - before < 0.1);
        cria_pool_destroy(pool);
    }
}

static void pools_are_independent(void **state) {
    (void)state;
    cria_pool *first = make_pool(2), *second = make_pool(3);
    int64_t counts[2][8 * 16] = {{0}};
    for (int run = 0; run < 100; run++) {
        cria_pool_run(first, count_one, counts[0]);
        cria_pool_run(second, count_one, counts[1]);
    }
    assert_int_equal(counts[0][16], 100);
    assert_int_equal(counts[1][32], 100);
    cria_pool_destroy(first);
    cria_pool_destroy(second);
}

static void thread_counts_out_of_range_are_refused(void **state) {
    (void)state;
    cria_pool *pool;
    cria_error err;
    assert_int_equal(cria_pool_create(0, &pool, &err), CRIA_ERR_ARGUMENT);
    assert_null(pool);
    assert_int_equal(cria_pool_create(1025, &pool, &err), CRIA_ERR_ARGUMENT);
    assert_string_equal(err.message, "threads must be between 1 and 1024, but is 1025");
    cria_pool_destroy(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_item_of_every_section_is_done_once_and_seen_by_all),
        cmocka_unit_test(short_jobs_run_on_every_worker_each_time),
        cmocka_unit_test(chunks_cover_exactly_the_total),
        cmocka_unit_test(workers_that_fell_asleep_at_a_barrier_are_woken),
        cmocka_unit_test(sections_wait_for_those_that_work_in_them_only),
        cmocka_unit_test(a_worker_begins_with_its_own_part_and_goes_on_with_the_others),
        cmocka_unit_test(a_part_is_the_same_share_of_every_section),
        cmocka_unit_test(a_lone_worker_takes_everything_again_in_each_section),
        cmocka_unit_test(denormals_are_flushed_inside_jobs_only),
        cmocka_unit_test(waiting_workers_use_no_processor),
        cmocka_unit_test(pools_are_independent),
        cmocka_unit_test(thread_counts_out_of_range_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
