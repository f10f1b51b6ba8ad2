/* What the linear overlays share: how the work is cut, whatever the instruction set. An instruction set brings the dot
 * products of one panel and the epilogue. */
#ifndef CRIA_KERNELS_CPU_LINEAR_H
#define CRIA_KERNELS_CPU_LINEAR_H

#include "kernels/kernels.h"

/* sums[t][16] = the products of `tokens` prepared rows with the 16 rows of a panel. For every element the additions run
 * over K in one order that does not depend on `tokens`. */
typedef void cria_dot_panel(const uint8_t *panel, const uint8_t *rows, size_t row_bytes, int64_t tokens, int64_t cols,
                            float *sums);
/* Bias, activation and residual of up to 16 outputs of `tokens` tokens, from sums[t][16] to args->out. */
typedef void cria_finish_panel(const cria_linear_args *args, int64_t first_row, int64_t first_token, int64_t tokens,
                               const float *sums);

enum { CRIA_MOST_TILE = 24 };
/* From a few tokens on, the products between two loads of weights fill the window in which the processor looks ahead,
 * and it no longer sees the next weights early enough. Below, prefetching only costs. The distance is that of the
 * memory's latency; reading beyond the last panel is harmless. */
enum { CRIA_PREFETCH_TOKENS = 3, CRIA_PREFETCH_BYTES = 4096 };

typedef struct {
    cria_dot_panel *dot;
    int64_t most_tokens; /* accumulators that fit the registers, at most CRIA_MOST_TILE */
    cria_finish_panel *finish;
} cria_linear_kernel;

void cria_linear_run(const cria_linear_args *args, cria_worker *worker, const cria_linear_kernel *kernel);

/* The table entries, for a wider instruction set to fall back on where it has nothing better. */
void cria_linear_avx2(const cria_linear_args *args, cria_worker *worker);
void cria_linear_avx512(const cria_linear_args *args, cria_worker *worker);
void cria_linear_avx512vnni(const cria_linear_args *args, cria_worker *worker);
cria_finish_panel cria_finish_avx512;

/* Instantiates CASE(1) .. CASE(n): a tile's number of tokens must be a constant for its accumulators to be registers.
 */
#define CRIA_TILES_4(CASE) CASE(1) CASE(2) CASE(3) CASE(4)
#define CRIA_TILES_6(CASE) CRIA_TILES_4(CASE) CASE(5) CASE(6)
#define CRIA_TILES_16(CASE)                                                                                            \
    CRIA_TILES_6(CASE)                                                                                                 \
    CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12) CASE(13) CASE(14) CASE(15) CASE(16)
#define CRIA_TILES_24(CASE) CRIA_TILES_16(CASE) CASE(17) CASE(18) CASE(19) CASE(20) CASE(21) CASE(22) CASE(23) CASE(24)

#define CRIA_PREFETCH(weights)                                                                                         \
    if (tokens >= CRIA_PREFETCH_TOKENS) _mm_prefetch((const char *)(weights) + CRIA_PREFETCH_BYTES, _MM_HINT_T0)

#define CRIA_INLINE static inline __attribute__((always_inline))
/* Under a sanitizer every access of an unrolled tile carries its checks, and the compiler takes minutes: loops then. */
#if !defined(__clang__)
#define CRIA_UNROLL _Pragma("GCC unroll 32")
#elif __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define CRIA_UNROLL _Pragma("clang loop unroll(disable)")
#else
#define CRIA_UNROLL _Pragma("clang loop unroll(full)")
#endif

#endif
