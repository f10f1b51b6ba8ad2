/* The body of kv_store compiled for AVX2. */
#include "kernels/cpu/rows.h"

#if defined(__AVX2__)
#include "kernels/cpu/body/kv_store.h"

void cria_avx2_kv_store(const cria_kv_store_args *args, cria_worker *worker) {
    store_rows(args, worker);
}
#endif
