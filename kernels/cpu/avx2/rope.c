/* The body of rope compiled for AVX2. */
#include "kernels/cpu/rows.h"

#if defined(__AVX2__)
#include "kernels/cpu/body/rope.h"

void cria_avx2_rope(const cria_rope_args *args, cria_worker *worker) {
    rope_rows(args, worker);
}
#endif
