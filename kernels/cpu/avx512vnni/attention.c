/* Attention over a cache of int8 by AVX-512 with VNNI; other caches are AVX-512's. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/rows.h"

#if defined(__AVX512VNNI__)
#include "kernels/cpu/body/attention.h"

static void attention(const cria_attention_args *args, cria_worker *worker) {
    if (args->layer->type == CRIA_I8) {
        attend_rows(args, worker);
    } else {
        cria_avx512_attention(args, worker);
    }
}

void cria_overlay_avx512vnni_rows(cria_kernels *table) {
    table->attention = attention;
}
#endif
