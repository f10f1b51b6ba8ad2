/* AVX-512 with BF16: linear layers over bf16 panels, two columns to an instruction. */
#include "kernels/cpu/linear.h"
#include "kernels/cpu/cpu.h"

#if defined(__AVX512BF16__)
#include <immintrin.h>

#define TILE_STEP(sum, weights, values)                                                                                \
    _mm512_castps_si512(_mm512_dpbf16_ps(_mm512_castsi512_ps(sum), (__m512bh)(weights), (__m512bh)(values)))
#include "kernels/cpu/avx512/tile.h"

static void dot_bf16(const cria_dot *dot) {
    tile_tokens(dot, 0);
}

static void listed_bf16(const cria_dot *dot) {
    tile_listed(dot, 0);
}

static void linear(const cria_linear_args *args, cria_worker *worker) {
    static const cria_linear_kernel bf16 = {dot_bf16, NULL,        cria_finish_avx512, 2,           192, 1,
                                            96,       TILE_TOKENS, listed_bf16,        TILE_TOKENS, 24};
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
