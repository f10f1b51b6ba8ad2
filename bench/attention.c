/* Times paged attention beside calibration loops of the same machine at the same moment: cria_bench_attention
 * [threads [instruction set [KV type [samples [part of a case's name]]]]].
 *
 * Decoding is given as bytes of keys and values per second against a plain read of memory, prefill as unmasked products
 * per second against a loop of nothing but f32 multiply-adds; of the samples the median, and after it the share that
 * each had of the loops beside it: least, median, most. */
#include "bench/seconds.h"
#include "kernels/calibrate.h"
#include "kernels/kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { MOST_SAMPLES = 25, CACHE_BYTES = 208 << 20, BLOCK_TOKENS = 32, MOST_SEQUENCES = 16 };

typedef struct {
    const char *name;
    int64_t heads, kv_heads, head_dim;
} shape;

static const shape SHAPES[] = {
    {"smollm2", 9, 3, 64}, {"opt-125m", 12, 12, 64}, {"opt-1.3b", 32, 32, 64}, {"llama-1.17b", 32, 4, 64}};

/* Sequences of `context` tokens, of which the last `queries` are asked about. */
typedef struct {
    const char *name;
    int64_t sequences, queries, context;
} work;

static const work WORKS[] = {{"decode-1-600", 1, 1, 600},     {"decode-1-1500", 1, 1, 1500},
                             {"decode-8-600", 8, 1, 600},     {"decode-8-1500", 8, 1, 1500},
                             {"decode-16-1500", 16, 1, 1500}, {"prefill-512", 1, 512, 512},
                             {"prefill-last", 1, 512, 2048}};

typedef struct {
    const cria_kernels *kernels;
    cria_kv_layer layer;
    cria_attention_args args;
    int64_t copies, repeats; /* layers of the cache, each read once in a repeat */
} loop;

static void run_loop(cria_worker *worker, void *context) {
    const loop *l = context;
    for (int64_t i = 0; i < l->copies * l->repeats; i++) {
        cria_kv_layer layer = l->layer;
        cria_attention_args args = l->args;
        int64_t blocks = args.sequences * args.table_stride;
        layer.pages = (char *)layer.pages + i % l->copies * blocks * layer.block_bytes;
        args.layer = &layer;
        l->kernels->attention(&args, worker);
        cria_worker_next(worker);
    }
}

/* Every two bytes are 0x3c23: about 0.01 in bf16 and in f32, 35 and 60 in int8. */
static void *allocate(size_t bytes) {
    size_t whole = (bytes + (2 << 20) - 1) >> 21 << 21;
    uint16_t *p = aligned_alloc(2 << 20, whole);
    if (!p) exit(1);
    madvise(p, whole, MADV_HUGEPAGE);
    for (size_t i = 0; i < whole / 2; i++) p[i] = 0x3c23;
    return p;
}

typedef struct {
    cria_pool *pool;
    const cria_kernels *kernels;
    cria_calibration *calibration;
    cria_type type;
    int samples;
    void *cache, *q, *out, *scratch;
    int32_t *table;
} bench;

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void measure(const bench *b, const shape *s, const work *w) {
    int32_t begin[MOST_SEQUENCES + 1] = {0}, context[MOST_SEQUENCES];
    int64_t stride = (w->context + BLOCK_TOKENS - 1) / BLOCK_TOKENS, blocks = stride * w->sequences;
    for (int64_t i = 0; i < w->sequences; i++) {
        begin[i + 1] = (int32_t)((i + 1) * w->queries);
        context[i] = (int32_t)w->context;
    }
    /* Each block once, scattered: 7919 is a prime above every count. */
    for (int64_t i = 0; i < blocks; i++) b->table[i] = (int32_t)(i * 7919 % blocks);
    int64_t bytes = (int64_t)cria_kv_block_bytes(b->type, BLOCK_TOKENS, s->kv_heads, s->head_dim);
    int64_t width = s->heads * s->head_dim;
    loop l = {.kernels = b->kernels,
              .layer = {b->cache, b->type, BLOCK_TOKENS, s->kv_heads, s->head_dim, bytes},
              .args = {.sequences = w->sequences,
                       .query_begin = begin,
                       .context = context,
                       .block_table = b->table,
                       .table_stride = stride,
                       .heads = s->heads,
                       .scale = 0.125f,
                       .q = b->q,
                       .q_stride = width,
                       .out = b->out,
                       .out_stride = width,
                       .scratch = b->scratch},
              .copies = CACHE_BYTES / (bytes * blocks),
              .repeats = 1};
    bool decode = w->queries == 1;
    double products = 4.0 * (double)(w->queries * width) * (double)(w->context - (w->queries - 1) / 2) * 1e-9;
    if (!decode) l.copies = 1 + (int64_t)(0.5 / products);
    if (l.copies > CACHE_BYTES / (bytes * blocks)) l.copies = CACHE_BYTES / (bytes * blocks);
    double read = (double)(l.copies * w->sequences * w->context) * (double)bytes / BLOCK_TOKENS;
    double amount = decode ? read * 1e-9 : products * (double)l.copies;
    double rate[MOST_SAMPLES], share[MOST_SAMPLES];
    for (int i = 0; i < b->samples; i++) {
        cria_rates most;
        cria_calibration_measure(b->calibration, decode ? read : 1 << 20, &most);
        rate[i] = amount / seconds(b->pool, run_loop, &l);
        share[i] = 100 * rate[i] / (decode ? most.read_gbps : most.f32_gflops);
    }
    qsort(rate, (size_t)b->samples, sizeof *rate, by_size);
    qsort(share, (size_t)b->samples, sizeof *share, by_size);
    printf("%12s %-15s %6.1f %-7s %3.0f %3.0f %3.0f%%\n", s->name, w->name, rate[b->samples / 2],
           decode ? "GB/s" : "GFLOP/s", share[0], share[b->samples / 2], share[b->samples - 1]);
    fflush(stdout);
}

static int fail(const cria_error *err) {
    fprintf(stderr, "%s\n", err->message);
    return 1;
}

int main(int argc, char **argv) {
    int threads = argc > 1 ? atoi(argv[1]) : 1;
    cria_isa isa = CRIA_ISA_REF;
    cria_kernels kernels;
    cria_error err;
    bench b = {.kernels = &kernels,
               .type = argc <= 3 || strcmp(argv[3], "bf16") == 0 ? CRIA_BF16
                       : strcmp(argv[3], "f32") == 0             ? CRIA_F32
                                                                 : CRIA_I8,
               .samples = argc > 4 ? atoi(argv[4]) : 5};
    if (b.samples < 1 || b.samples > MOST_SAMPLES) b.samples = 5;
    if (cria_pool_create(threads, &b.pool, &err) != CRIA_OK) return fail(&err);
    if (cria_isa_from_name(argc > 2 ? argv[2] : "auto", &isa, &err) != CRIA_OK) return fail(&err);
    if (cria_calibration_create(b.pool, isa, CRIA_CALIBRATION_BYTES, &b.calibration, &err) != CRIA_OK)
        return fail(&err);
    cria_kernels_select(isa, &kernels);
    b.cache = allocate(CACHE_BYTES);
    b.q = allocate(512 * 32 * 64 * sizeof(float));
    b.out = allocate(512 * 32 * 64 * sizeof(float));
    b.scratch = allocate((size_t)threads * cria_attention_scratch_bytes(32, 4, 64)); /* the most of all shapes */
    b.table = allocate(1 << 20);
    printf("%s, %d threads\n", kernels.name, threads);
    for (size_t s = 0; s < sizeof SHAPES / sizeof *SHAPES; s++) {
        for (size_t w = 0; w < sizeof WORKS / sizeof *WORKS; w++) {
            char name[64];
            snprintf(name, sizeof name, "%s %s", SHAPES[s].name, WORKS[w].name);
            if (argc <= 5 || strstr(name, argv[5])) measure(&b, &SHAPES[s], &WORKS[w]);
        }
    }
    cria_calibration_destroy(b.calibration);
    cria_pool_destroy(b.pool);
    return 0;
}
