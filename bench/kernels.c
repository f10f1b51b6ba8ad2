/* Times the linear kernels beside calibration loops of the same machine at the same moment: cria_bench_kernels
 * [threads [instruction set [rows columns]]].
 *
 * Decoding is given as weight bytes per second against a plain read of memory, prefill as operations per second against
 * a loop of nothing but the multiply instruction. Both are the best of several interleaved samples: on a shared machine
 * only the ratio means anything. */
#include "kernels/kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#if defined(__x86_64__)
#include <immintrin.h>

enum { SAMPLES = 15, LOOPS = 400000 };

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni,avx512bf16")))

/* Ten independent chains hide the latency of every instruction here. */
#define PEAK_LOOP(name, type, zero, step, operations)                                                                  \
    TARGET static void name(cria_worker *worker, void *context) {                                                      \
        type acc[10], one = zero;                                                                                      \
        cria_worker_barrier(worker); /* all at once */                                                                 \
        for (int i = 0; i < 10; i++) acc[i] = zero;                                                                    \
        for (int n = 0; n < LOOPS; n++) {                                                                              \
            _Pragma("clang loop unroll(full)") for (int i = 0; i < 10; i++) {                                          \
                acc[i] = step;                                                                                         \
                __asm__ volatile("" : "+v"(acc[i]));                                                                   \
            }                                                                                                          \
        }                                                                                                              \
        for (int i = 0; i < 10; i++) __asm__ volatile("" ::"v"(acc[i]));                                               \
        *(double *)context = 10.0 * LOOPS * (operations);                                                              \
    }
PEAK_LOOP(peak_f32, __m512, _mm512_setzero_ps(), _mm512_fmadd_ps(one, one, acc[i]), 32)
PEAK_LOOP(peak_bf16, __m512, _mm512_setzero_ps(), _mm512_dpbf16_ps(acc[i], (__m512bh)one, (__m512bh)one), 64)
PEAK_LOOP(peak_i8, __m512i, _mm512_setzero_si512(), _mm512_dpbusd_epi32(acc[i], one, one), 128)

typedef struct {
    const char *data;
    size_t bytes;
} memory;

TARGET static void read_memory(cria_worker *worker, void *context) {
    const memory *m = context;
    __m512i sum = _mm512_setzero_si512();
    int64_t begin, end;
    while (cria_worker_take(worker, (int64_t)(m->bytes >> 17), 1, &begin, &end)) {
        const char *p = m->data + ((size_t)begin << 17), *stop = m->data + ((size_t)end << 17);
        for (; p < stop; p += 256) {
            for (int i = 0; i < 4; i++) sum = _mm512_or_si512(sum, _mm512_load_si512(p + 64 * i));
        }
    }
    __asm__ volatile("" ::"v"(sum));
}

typedef struct {
    const cria_kernels *kernels;
    cria_linear_args args;
    cria_panels *layers;
    int count, repeats;
} stack;

static void run_stack(cria_worker *worker, void *context) {
    const stack *s = context;
    for (int repeat = 0; repeat < s->repeats; repeat++) {
        for (int i = 0; i < s->count; i++) {
            cria_linear_args args = s->args;
            args.weight = &s->layers[i];
            s->kernels->linear(&args, worker);
            cria_worker_next(worker);
        }
    }
}

/* Processor time where there is one thread, so that a neighbour's turn is not counted; else the time that passed. */
static double seconds(cria_pool *pool, cria_pool_job *job, void *context) {
    clockid_t clock = cria_pool_threads(pool) == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC;
    struct timespec start, end;
    clock_gettime(clock, &start);
    cria_pool_run(pool, job, context);
    clock_gettime(clock, &end);
    return (double)(end.tv_sec - start.tv_sec) + (double)(end.tv_nsec - start.tv_nsec) * 1e-9;
}

static void *allocate(size_t bytes) {
    void *p = aligned_alloc(2 << 20, (bytes + (2 << 20) - 1) >> 21 << 21);
    if (!p) exit(1);
    madvise(p, bytes, MADV_HUGEPAGE);
    memset(p, 1, bytes);
    return p;
}

/* Layers of rows x cols that together take `bytes`, every byte 1: the values do not matter for the time. */
static stack make_stack(const cria_kernels *kernels, cria_panel_type type, int64_t rows, int64_t cols, int64_t tokens,
                        char *weights, size_t bytes) {
    size_t each = cria_panels_bytes(type, rows, cols);
    stack s = {.kernels = kernels, .count = (int)(bytes / each), .repeats = 1};
    if (s.count < 1) s.count = 1;
    s.layers = malloc(sizeof *s.layers * (size_t)s.count);
    if (!s.layers) exit(1);
    for (int i = 0; i < s.count; i++) s.layers[i] = (cria_panels){type, rows, cols, weights + each * (size_t)i};
    s.args = (cria_linear_args){.in = allocate(cria_prepared_row_bytes(type, cols) * (size_t)tokens),
                                .tokens = tokens,
                                .out = allocate(sizeof(float) * (size_t)(rows * tokens)),
                                .out_stride = rows};
    return s;
}

static void free_stack(stack *s) {
    free((void *)s->args.in);
    free(s->args.out);
    free(s->layers);
}

static void decode(cria_pool *pool, const cria_kernels *kernels, char *weights, size_t bytes, int64_t rows,
                   int64_t cols) {
    static const int64_t batches[] = {1, 2, 4, 8, 16};
    printf("decode, layers of %ldx%ld, weight GB/s (share of a plain read)\n", (long)rows, (long)cols);
    for (int type = 0; type < CRIA_PANEL_COUNT; type++) {
        printf("%6s", cria_panel_type_name((cria_panel_type)type));
        for (size_t b = 0; b < sizeof batches / sizeof *batches; b++) {
            stack s = make_stack(kernels, (cria_panel_type)type, rows, cols, batches[b], weights, bytes);
            memory m = {weights, (size_t)s.count * cria_panels_bytes((cria_panel_type)type, rows, cols)};
            double best = 1e9, read = 1e9;
            for (int i = 0; i < SAMPLES; i++) {
                double t = seconds(pool, read_memory, &m);
                read = t < read ? t : read;
                t = seconds(pool, run_stack, &s);
                best = t < best ? t : best;
            }
            printf("  M=%-2ld %5.1f (%3.0f%%)", (long)batches[b], (double)m.bytes * 1e-9 / best, 100 * read / best);
            fflush(stdout);
            free_stack(&s);
        }
        printf("\n");
    }
}

static void prefill(cria_pool *pool, const cria_kernels *kernels, char *weights, int64_t rows, int64_t cols) {
    static cria_pool_job *const peaks[CRIA_PANEL_COUNT] = {peak_f32, peak_bf16, peak_i8, peak_i8, peak_i8, peak_i8};
    static const int64_t batches[] = {8, 24, 64, 256};
    printf("prefill, %ldx%ld, G operations/s (share of the multiply instruction's)\n", (long)rows, (long)cols);
    for (int type = 0; type < CRIA_PANEL_COUNT; type++) {
        printf("%6s", cria_panel_type_name((cria_panel_type)type));
        for (size_t b = 0; b < sizeof batches / sizeof *batches; b++) {
            stack s = make_stack(kernels, (cria_panel_type)type, rows, cols, batches[b], weights, 1);
            double work = 2.0 * (double)rows * (double)cols * (double)batches[b], best = 0, peak = 0;
            s.repeats = (int)(2e8 / work) + 1; /* short: a sample without a neighbour's turn in it */
            for (int i = 0; i < SAMPLES; i++) {
                double operations, t = seconds(pool, peaks[type], &operations);
                operations *= cria_pool_threads(pool);
                peak = operations / t > peak ? operations / t : peak;
                t = seconds(pool, run_stack, &s);
                best = work * s.repeats / t > best ? work * s.repeats / t : best;
            }
            printf("  M=%-3ld %6.1f (%3.0f%%)", (long)batches[b], best * 1e-9, 100 * best / peak);
            fflush(stdout);
            free_stack(&s);
        }
        printf("\n");
    }
}

int main(int argc, char **argv) {
    int threads = argc > 1 ? atoi(argv[1]) : 1;
    cria_pool *pool;
    cria_error err;
    cria_kernels kernels;
    if (cria_isa_best() < CRIA_ISA_AVX512_BF16) {
        fprintf(stderr, "the calibration loops need AVX-512 with VNNI and BF16\n");
        return 1;
    }
    if (cria_pool_create(threads, &pool, &err) != CRIA_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    cria_isa isa = CRIA_ISA_REF;
    if (cria_isa_from_name(argc > 2 ? argv[2] : "auto", &isa, &err) != CRIA_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    cria_kernels_select(isa, &kernels);
    if (argc > 4) { /* one shape only */
        char *few = allocate(cria_panels_bytes(CRIA_PANEL_F32, atoi(argv[3]), atoi(argv[4])));
        prefill(pool, &kernels, few, atoi(argv[3]), atoi(argv[4]));
        cria_pool_destroy(pool);
        free(few);
        return 0;
    }
    size_t bytes = (size_t)200 << 20;
    char *weights = allocate(bytes);
    printf("%s, %d threads\n", kernels.name, threads);
    decode(pool, &kernels, weights, bytes, 768, 768);
    decode(pool, &kernels, weights, bytes, 8192, 2048);
    prefill(pool, &kernels, weights, 3072, 768);
    prefill(pool, &kernels, weights, 2048, 2048);
    prefill(pool, &kernels, weights, 2048, 8192);
    cria_pool_destroy(pool);
    free(weights);
    return 0;
}

#else
int main(void) {
    fprintf(stderr, "there are calibration loops for x86-64 only\n");
    return 1;
}
#endif
