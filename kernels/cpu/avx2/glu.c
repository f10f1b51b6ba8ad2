/* The body of glu compiled for AVX2. */
#include "kernels/cpu/rows.h"

#if defined(__AVX2__)
#include "kernels/cpu/body/glu.h"

void cria_avx2_glu(const cria_glu_args *args, cria_worker *worker) {
    glu_rows(args, worker);
}
#endif
