/* The body of attention compiled for AVX2. */
#include "kernels/cpu/rows.h"

#if defined(__AVX2__)
#include "kernels/cpu/body/attention.h"

void cria_avx2_attention(const cria_attention_args *args, cria_worker *worker) {
    attend_rows(args, worker);
}
#endif
