/* Attention by AVX-512 with BF16: over caches of bf16, and of int8 as with VNNI alone; that over f32 is AVX-512's. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/rows.h"

#if defined(__AVX512BF16__)
#include "kernels/cpu/body/attention.h"

static void attention(const cria_attention_args *args, cria_worker *worker) {
    if (args->layer->type == CRIA_F32) {
        cria_avx512_attention(args, worker);
    } else {
        attend_rows(args, worker);
    }
}

void cria_overlay_avx512bf16_rows(cria_kernels *table) {
    table->attention = attention;
}
#endif
