/* The body of kv_store compiled for AVX512. */
#include "kernels/cpu/rows.h"

#if defined(__AVX512F__)
#include "kernels/cpu/body/kv_store.h"

void cria_avx512_kv_store(const cria_kv_store_args *args, cria_worker *worker) {
    store_rows(args, worker);
}
#endif
