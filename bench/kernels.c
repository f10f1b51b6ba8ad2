/* Times the linear kernels beside calibration loops of the same machine at the same moment: cria_bench_kernels
 * [threads [instruction set [rows columns [types]]]], types such as "q4,q8".
 *
 * Decoding is given as weight bytes per second against a plain read of memory, prefill as operations per second against
 * a loop of nothing but the multiply instruction. Both are the best of several samples, the loops between them: on a
 * shared machine only the ratio means anything. */
#include "kernels/kernels.h"
#include "bench/seconds.h"
#include "kernels/calibrate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { SAMPLES = 3, ROUNDS = 5 };

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

typedef struct {
    cria_pool *pool;
    const cria_kernels *kernels;
    cria_calibration *calibration;
    const char *types; /* NULL: all */
    char *weights;
    size_t bytes;
} bench;

/* The least time of a run, and the most that the loops gave beside it. */
static double least_seconds(const bench *b, stack *s, double read_bytes, cria_rates *most) {
    double best = 1e9;
    *most = (cria_rates){0};
    for (int sample = 0; sample < SAMPLES; sample++) {
        cria_rates now;
        cria_calibration_measure(b->calibration, read_bytes, &now);
        most->read_gbps = now.read_gbps > most->read_gbps ? now.read_gbps : most->read_gbps;
        most->f32_gflops = now.f32_gflops > most->f32_gflops ? now.f32_gflops : most->f32_gflops;
        most->bf16_gflops = now.bf16_gflops > most->bf16_gflops ? now.bf16_gflops : most->bf16_gflops;
        most->i8_gops = now.i8_gops > most->i8_gops ? now.i8_gops : most->i8_gops;
        for (int i = 0; i < ROUNDS; i++) {
            double t = seconds(b->pool, run_stack, s);
            best = t < best ? t : best;
        }
    }
    return best;
}

/* Those that were named, or else those that this instruction set packs into. */
static bool wanted(const bench *b, int type) {
    const char *name = cria_panel_type_name((cria_panel_type)type), *at = b->types;
    size_t length = strlen(name);
    for (; at; at = strchr(at, ','), at += at ? 1 : 0)
        if (strncmp(at, name, length) == 0 && (at[length] == 0 || at[length] == ',')) return true;
    for (int i = 0; !b->types && i < CRIA_PANEL_COUNT; i++)
        if (b->kernels->panel[i] == (cria_panel_type)type) return true;
    return false;
}

static void decode(const bench *b, int64_t rows, int64_t cols) {
    static const int64_t batches[] = {1, 2, 4, 6, 8, 12, 16, 24};
    printf("decode, layers of %ldx%ld, weight GB/s (share of a plain read)\n", (long)rows, (long)cols);
    for (int type = 0; type < CRIA_PANEL_COUNT; type++) {
        if (!wanted(b, type)) continue;
        printf("%9s", cria_panel_type_name((cria_panel_type)type));
        for (size_t i = 0; i < sizeof batches / sizeof *batches; i++) {
            stack s = make_stack(b->kernels, (cria_panel_type)type, rows, cols, batches[i], b->weights, b->bytes);
            double read = (double)s.count * (double)cria_panels_bytes((cria_panel_type)type, rows, cols);
            cria_rates most;
            double rate = read * 1e-9 / least_seconds(b, &s, read, &most);
            printf("  M=%-2ld %5.1f (%3.0f%%)", (long)batches[i], rate, 100 * rate / most.read_gbps);
            fflush(stdout);
            free_stack(&s);
        }
        printf("\n");
    }
}

/* What the calibration says of the instruction that this type multiplies with. */
static double peak_of(int type, const cria_rates *rates) {
    if (type == CRIA_PANEL_F32) return rates->f32_gflops;
    if (type == CRIA_PANEL_BF16) return rates->bf16_gflops > 0 ? rates->bf16_gflops : rates->f32_gflops;
    return rates->i8_gops > 0 ? rates->i8_gops : rates->f32_gflops;
}

static void prefill(const bench *b, int64_t rows, int64_t cols) {
    static const int64_t batches[] = {1, 8, 16, 24, 64, 256};
    printf("prefill, %ldx%ld, G operations/s (share of the multiply instruction's)\n", (long)rows, (long)cols);
    for (int type = 0; type < CRIA_PANEL_COUNT; type++) {
        if (!wanted(b, type)) continue;
        printf("%9s", cria_panel_type_name((cria_panel_type)type));
        for (size_t i = 0; i < sizeof batches / sizeof *batches; i++) {
            stack s = make_stack(b->kernels, (cria_panel_type)type, rows, cols, batches[i], b->weights, 1);
            double work = 2.0 * (double)rows * (double)cols * (double)batches[i];
            cria_rates most;
            s.repeats = (int)(2e8 / work) + 1; /* short: a sample without a neighbour's turn in it */
            double rate = work * s.repeats * 1e-9 / least_seconds(b, &s, 1 << 20, &most), peak = peak_of(type, &most);
            printf("  M=%-3ld %6.1f", (long)batches[i], rate);
            if (peak > 0) printf(" (%3.0f%%)", 100 * rate / peak);
            fflush(stdout);
            free_stack(&s);
        }
        printf("\n");
    }
}

/* A token of which only a share of the activations is not zero. */
typedef struct {
    const cria_kernels *kernels;
    cria_prepare_args args;
} preparation;

static void run_prepare(cria_worker *worker, void *context) {
    const preparation *p = context;
    p->kernels->prepare(&p->args, worker);
}

static void prepare_token(const bench *b, stack *s, cria_panel_type type, int64_t cols, double share) {
    float *in = allocate(sizeof(float) * (size_t)cols);
    srand(7);
    for (int64_t k = 0; k < cols; k++) in[k] = rand() < share * RAND_MAX ? 1.0F + (float)(k % 7) : 0.0F;
    preparation p = {b->kernels, {.type = type, .in = in, .in_stride = cols, .tokens = 1, .cols = cols}};
    p.args.out = (void *)s->args.in;
    cria_pool_run(b->pool, run_prepare, &p);
    free(in);
}

static void zeros(const bench *b, int64_t rows, int64_t cols) {
    static const double shares[] = {0.03, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5};
    printf("one token that is mostly zero, %ldx%ld: how often as fast as a full one, by the share that is not zero\n",
           (long)rows, (long)cols);
    for (int type = 0; type < CRIA_PANEL_COUNT; type++) {
        if (!wanted(b, type)) continue;
        printf("%9s", cria_panel_type_name((cria_panel_type)type));
        stack s = make_stack(b->kernels, (cria_panel_type)type, rows, cols, 1, b->weights, b->bytes);
        for (size_t i = 0; i < sizeof shares / sizeof *shares; i++) {
            cria_rates most;
            prepare_token(b, &s, (cria_panel_type)type, cols, 1);
            double full = least_seconds(b, &s, 1 << 20, &most);
            prepare_token(b, &s, (cria_panel_type)type, cols, shares[i]);
            printf("  %2.0f%%: %5.2f", 100 * shares[i], full / least_seconds(b, &s, 1 << 20, &most));
            fflush(stdout);
        }
        printf("\n");
        free_stack(&s);
    }
}

static int fail(const cria_error *err) {
    fprintf(stderr, "%s\n", err->message);
    return 1;
}

int main(int argc, char **argv) {
    int threads = argc > 1 ? atoi(argv[1]) : 1;
    int64_t rows = argc > 4 ? atoi(argv[3]) : 0, cols = argc > 4 ? atoi(argv[4]) : 0;
    cria_isa isa = CRIA_ISA_REF;
    cria_kernels kernels;
    cria_error err;
    bench b = {.kernels = &kernels, .types = argc > 5 ? argv[5] : NULL, .bytes = (size_t)200 << 20};
    if (cria_pool_create(threads, &b.pool, &err) != CRIA_OK) return fail(&err);
    if (cria_isa_from_name(argc > 2 ? argv[2] : "auto", &isa, &err) != CRIA_OK) return fail(&err);
    if (cria_calibration_create(b.pool, isa, CRIA_CALIBRATION_BYTES, &b.calibration, &err) != CRIA_OK)
        return fail(&err);
    cria_kernels_select(isa, &kernels);
    b.weights = allocate(b.bytes);
    printf("%s, %d threads\n", kernels.name, threads);
    if (rows > 0 && cols > 0) {
        decode(&b, rows, cols);
        prefill(&b, rows, cols);
        zeros(&b, rows, cols);
    } else {
        decode(&b, 768, 768);
        decode(&b, 8192, 2048);
        zeros(&b, 768, 3072);
        zeros(&b, 2048, 8192);
        prefill(&b, 3072, 768);
        prefill(&b, 2048, 2048);
        prefill(&b, 2048, 8192);
    }
    cria_calibration_destroy(b.calibration);
    cria_pool_destroy(b.pool);
    free(b.weights);
    return 0;
}
