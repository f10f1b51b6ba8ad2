/* Which row operators AVX-512 replaces. */
#include "kernels/cpu/rows.h"
#include "kernels/cpu/cpu.h"

#if defined(__AVX512F__)
void cria_overlay_avx512_rows(cria_kernels *table) {
#define X(name) table->name = cria_avx512_##name;
    CRIA_ROW_OVERLAYS(X)
#undef X
}
#endif
