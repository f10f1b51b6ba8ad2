/* The body of rope compiled for AVX512. */
#include "kernels/cpu/rows.h"

#if defined(__AVX512F__)
#include "kernels/cpu/body/rope.h"

void cria_avx512_rope(const cria_rope_args *args, cria_worker *worker) {
    rope_rows(args, worker);
}
#endif
