/* The body of sample compiled for AVX2. */
#include "kernels/cpu/rows.h"

#if defined(__AVX2__)
#include "kernels/cpu/body/sample.h"

void cria_avx2_sample(const cria_sample_args *args, cria_worker *worker) {
    sample_rows(args, worker);
}
#endif
