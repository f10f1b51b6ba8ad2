/* Calibration loops: a plain read and the multiply instructions of each instruction set. */
#include "kernels/calibrate.h"

#include "base/clock.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { HUGE_PAGE = 2 << 20, CHUNK = 128 << 10, LEAST_READ = 1 << 20, PEAK_ROUNDS = 5 };
enum { CHAINS = 10, LOOPS = 200000 }; /* ten independent chains hide the latency of every vector instruction here */
enum { TILES = 4, TILE_LOOPS = LOOPS / 8 }; /* a tile instruction takes 16 cycles and its sum 52 */

struct cria_calibration {
    cria_pool *pool;
    cria_isa isa;
    int64_t bytes; /* of the buffer */
    char *buffer;
};

typedef struct {
    const char *data;
    cria_isa isa;
    int64_t chunks;
} read_context;

#if defined(__x86_64__)
#include <immintrin.h>

/* Independent chains of one step, written so that the compiler neither merges nor drops it. */
#define PEAK_LOOP(name, features, vector, zero, step)                                                                  \
    __attribute__((target(features))) static void name(cria_worker *worker, void *context) {                           \
        vector acc[CHAINS], one = zero;                                                                                \
        (void)context;                                                                                                 \
        cria_worker_barrier(worker); /* all at once */                                                                 \
        for (int i = 0; i < CHAINS; i++) acc[i] = zero;                                                                \
        for (int n = 0; n < LOOPS; n++) {                                                                              \
            _Pragma("GCC unroll 10") for (int i = 0; i < CHAINS; i++) {                                                \
                acc[i] = step;                                                                                         \
                __asm__ volatile("" : "+v"(acc[i]), "+v"(one));                                                        \
            }                                                                                                          \
        }                                                                                                              \
        for (int i = 0; i < CHAINS; i++) __asm__ volatile("" ::"v"(acc[i]));                                           \
    }
PEAK_LOOP(peak_f32_avx2, "avx2,fma", __m256, _mm256_setzero_ps(), _mm256_fmadd_ps(one, one, acc[i]))
PEAK_LOOP(peak_i8_avx2, "avx2", __m256i, _mm256_setzero_si256(),
          _mm256_add_epi32(acc[i], _mm256_madd_epi16(_mm256_maddubs_epi16(one, one), one)))
PEAK_LOOP(peak_f32_avx512, "avx512f", __m512, _mm512_setzero_ps(), _mm512_fmadd_ps(one, one, acc[i]))
PEAK_LOOP(peak_bf16_avx512, "avx512f,avx512bf16", __m512, _mm512_setzero_ps(),
          _mm512_dpbf16_ps(acc[i], (__m512bh)one, (__m512bh)one))
PEAK_LOOP(peak_i8_avx512, "avx512f,avx512vnni", __m512i, _mm512_setzero_si512(), _mm512_dpbusd_epi32(acc[i], one, one))

typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

/* Four sums of the same two full tiles, all zero: the instruction's speed does not depend on what it multiplies. */
#define TILE_LOOP(name, feature, multiply)                                                                             \
    __attribute__((target("amx-tile," feature))) static void name(cria_worker *worker, void *context) {                \
        tile_config c = {.palette = 1};                                                                                \
        (void)context;                                                                                                 \
        for (int i = 0; i < TILES + 2; i++) {                                                                          \
            c.row_bytes[i] = 64;                                                                                       \
            c.rows[i] = 16;                                                                                            \
        }                                                                                                              \
        _tile_loadconfig(&c);                                                                                          \
        _tile_zero(0);                                                                                                 \
        _tile_zero(1);                                                                                                 \
        _tile_zero(2);                                                                                                 \
        _tile_zero(3);                                                                                                 \
        _tile_zero(4);                                                                                                 \
        _tile_zero(5);                                                                                                 \
        cria_worker_barrier(worker); /* all at once */                                                                 \
        for (int n = 0; n < TILE_LOOPS; n++) {                                                                         \
            multiply(0, 4, 5);                                                                                         \
            multiply(1, 4, 5);                                                                                         \
            multiply(2, 4, 5);                                                                                         \
            multiply(3, 4, 5);                                                                                         \
        }                                                                                                              \
        _tile_release();                                                                                               \
    }
TILE_LOOP(peak_bf16_amx, "amx-bf16", _tile_dpbf16ps)
TILE_LOOP(peak_i8_amx, "amx-int8", _tile_dpbsud)

#define READ_LOOP(name, features, vector, zero, combine, load)                                                         \
    __attribute__((target(features))) static void name(const char *p, const char *stop) {                              \
        vector sum = zero;                                                                                             \
        for (; p < stop; p += 4 * sizeof sum)                                                                          \
            for (size_t i = 0; i < 4; i++) sum = combine(sum, load((const void *)(p + i * sizeof sum)));               \
        __asm__ volatile("" ::"v"(sum));                                                                               \
    }
READ_LOOP(read_avx2, "avx2", __m256i, _mm256_setzero_si256(), _mm256_or_si256, _mm256_load_si256)
READ_LOOP(read_avx512, "avx512f", __m512i, _mm512_setzero_si512(), _mm512_or_si512, _mm512_load_si512)
#endif

static void read_scalar(const char *p, const char *stop) {
    uint64_t sum = 0;
    for (const uint64_t *word = (const void *)p; (const char *)word < stop; word++) sum |= *word;
    __asm__ volatile("" ::"r"(sum));
}

static void read_job(cria_worker *worker, void *context) {
    const read_context *read = context;
    int64_t begin, end;
    while (cria_worker_take(worker, read->chunks, 1, &begin, &end)) {
        const char *p = read->data + begin * CHUNK, *stop = read->data + end * CHUNK;
#if defined(__x86_64__)
        if (read->isa >= CRIA_ISA_AVX512) {
            read_avx512(p, stop);
            continue;
        }
        if (read->isa >= CRIA_ISA_AVX2) {
            read_avx2(p, stop);
            continue;
        }
#endif
        read_scalar(p, stop);
    }
}

/* Most units per second over a few rounds of `units` each. */
static double best_rate(cria_pool *pool, cria_pool_job *job, void *context, double units, int rounds) {
    double best = 0;
    for (int i = 0; i < rounds; i++) {
        uint64_t start = cria_clock_ns();
        cria_pool_run(pool, job, context);
        double rate = units / cria_seconds_between(start, cria_clock_ns());
        if (rate > best) best = rate;
    }
    return best * 1e-9;
}

#if defined(__x86_64__)
/* The multiply instruction of each type: what the kernels of this instruction set use for many tokens. */
static void measure_peaks(cria_pool *pool, cria_isa isa, cria_rates *out) {
    double steps = (double)CHAINS * LOOPS * cria_pool_threads(pool);
    double tiles = (double)TILES * TILE_LOOPS * cria_pool_threads(pool) * 16 * 16;
    if (isa >= CRIA_ISA_AVX512)
        out->f32_gflops = best_rate(pool, peak_f32_avx512, NULL, 32 * steps, PEAK_ROUNDS);
    else if (isa >= CRIA_ISA_AVX2)
        out->f32_gflops = best_rate(pool, peak_f32_avx2, NULL, 16 * steps, PEAK_ROUNDS);
    if (isa >= CRIA_ISA_AMX)
        out->bf16_gflops = best_rate(pool, peak_bf16_amx, NULL, 2 * 32 * tiles, PEAK_ROUNDS);
    else if (isa >= CRIA_ISA_AVX512_BF16)
        out->bf16_gflops = best_rate(pool, peak_bf16_avx512, NULL, 64 * steps, PEAK_ROUNDS);
    if (isa >= CRIA_ISA_AMX)
        out->i8_gops = best_rate(pool, peak_i8_amx, NULL, 2 * 64 * tiles, PEAK_ROUNDS);
    else if (isa >= CRIA_ISA_AVX512_VNNI)
        out->i8_gops = best_rate(pool, peak_i8_avx512, NULL, 128 * steps, PEAK_ROUNDS);
    else if (isa >= CRIA_ISA_AVX2)
        out->i8_gops = best_rate(pool, peak_i8_avx2, NULL, 64 * steps, PEAK_ROUNDS);
}
#endif

void cria_calibration_measure(cria_calibration *calibration, double read_bytes, cria_rates *out) {
    cria_pool *pool = calibration->pool;
    double bytes = fmin(fmax(read_bytes, LEAST_READ), (double)calibration->bytes);
    read_context read = {calibration->buffer, calibration->isa, (int64_t)(bytes / CHUNK)};
    bytes = (double)read.chunks * CHUNK;
    int rounds =
        2 + (int)((double)calibration->bytes / bytes); /* the first fills the cache, where there is one to fill */
    *out = (cria_rates){.read_gbps = best_rate(pool, read_job, &read, bytes, rounds)};
#if defined(__x86_64__)
    measure_peaks(pool, calibration->isa, out);
#endif
}

cria_status cria_calibration_create(cria_pool *pool, cria_isa isa, int64_t bytes, cria_calibration **out,
                                    cria_error *err) {
    if (bytes < LEAST_READ) bytes = LEAST_READ;
    bytes = (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    cria_calibration *calibration = calloc(1, sizeof *calibration);
    if (!calibration) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for a calibration");
    *calibration =
        (cria_calibration){.pool = pool, .isa = isa, .bytes = bytes, .buffer = aligned_alloc(HUGE_PAGE, (size_t)bytes)};
    if (!calibration->buffer) {
        free(calibration);
        return cria_fail(err, CRIA_ERR_MEMORY, "no memory for a calibration buffer of %" PRId64 " bytes", bytes);
    }
    madvise(calibration->buffer, (size_t)bytes, MADV_HUGEPAGE);
    memset(calibration->buffer, 1, (size_t)bytes);
    *out = calibration;
    return CRIA_OK;
}

void cria_calibration_destroy(cria_calibration *calibration) {
    if (!calibration) return;
    free(calibration->buffer);
    free(calibration);
}
