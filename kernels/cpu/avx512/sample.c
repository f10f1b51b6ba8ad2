/* The body of sample compiled for AVX512. */
#include "kernels/cpu/rows.h"

#if defined(__AVX512F__)
#include "kernels/cpu/body/sample.h"

void cria_avx512_sample(const cria_sample_args *args, cria_worker *worker) {
    sample_rows(args, worker);
}
#endif
