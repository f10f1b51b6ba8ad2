/* AVX-512 with BF16: linear layers over bf16 panels, two columns to an instruction. */
#include "kernels/cpu/linear.h"
#include "kernels/cpu/cpu.h"

#if defined(__AVX512BF16__)
#include <immintrin.h>

CRIA_INLINE void bf16_tile(const uint8_t *panel, const uint8_t *rows, size_t row_bytes, int64_t cols, float *sums,
                           const int tokens) {
    __m512 acc[24];
    CRIA_UNROLL for (int t = 0; t < tokens; t++) acc[t] = _mm512_setzero_ps();
    for (int64_t pairs = (cols + 1) / 2; pairs > 0; pairs--, panel += 64, rows += 4) {
        CRIA_PREFETCH(panel);
        __m512bh weights = (__m512bh)_mm512_load_si512(panel);
        CRIA_UNROLL for (int t = 0; t < tokens; t++) {
            int x = *(const int *)(const void *)(rows + (size_t)t * row_bytes);
            /* The broadcast stands last, where it becomes a part of the instruction. */
            acc[t] = _mm512_dpbf16_ps(acc[t], weights, (__m512bh)_mm512_set1_epi32(x));
        }
    }
    CRIA_UNROLL for (int t = 0; t < tokens; t++) _mm512_store_ps(sums + 16 * t, acc[t]);
}

static void dot_bf16(const uint8_t *panel, const uint8_t *rows, size_t row_bytes, int64_t tokens, int64_t cols,
                     float *sums) {
    switch (tokens) {
#define TILE(n)                                                                                                        \
    case n:                                                                                                            \
        bf16_tile(panel, rows, row_bytes, cols, sums, n);                                                              \
        return;
        CRIA_TILES_24(TILE)
#undef TILE
    }
}

static void linear(const cria_linear_args *args, cria_worker *worker) {
    static const cria_linear_kernel bf16 = {dot_bf16, 24, cria_finish_avx512};
    if (args->weight->type == CRIA_PANEL_BF16) {
        cria_linear_run(args, worker, &bf16);
    } else {
        cria_linear_avx512vnni(args, worker);
    }
}

void cria_overlay_avx512bf16_linear(cria_kernels *table) {
    table->linear = linear;
}

#endif
