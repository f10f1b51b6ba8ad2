/* The body of norm compiled for AVX2. */
#include "kernels/cpu/rows.h"

#if defined(__AVX2__)
#include "kernels/cpu/body/norm.h"

void cria_avx2_norm(const cria_norm_args *args, cria_worker *worker) {
    norm_rows(args, worker);
}
#endif
