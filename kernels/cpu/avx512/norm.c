/* The body of norm compiled for AVX512. */
#include "kernels/cpu/rows.h"

#if defined(__AVX512F__)
#include "kernels/cpu/body/norm.h"

void cria_avx512_norm(const cria_norm_args *args, cria_worker *worker) {
    norm_rows(args, worker);
}
#endif
