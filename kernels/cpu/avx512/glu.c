/* The body of glu compiled for AVX512. */
#include "kernels/cpu/rows.h"

#if defined(__AVX512F__)
#include "kernels/cpu/body/glu.h"

void cria_avx512_glu(const cria_glu_args *args, cria_worker *worker) {
    glu_rows(args, worker);
}
#endif
