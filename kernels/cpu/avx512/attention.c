/* The body of attention compiled for AVX512. */
#include "kernels/cpu/rows.h"

#if defined(__AVX512F__)
#include "kernels/cpu/body/attention.h"

void cria_avx512_attention(const cria_attention_args *args, cria_worker *worker) {
    attend_rows(args, worker);
}
#endif
