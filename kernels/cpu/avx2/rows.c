/* Which row operators AVX2 replaces. */
#include "kernels/cpu/rows.h"
#include "kernels/cpu/cpu.h"

#if defined(__AVX2__)
void cria_overlay_avx2_rows(cria_kernels *table) {
#define X(name) table->name = cria_avx2_##name;
    CRIA_ROW_OVERLAYS(X)
#undef X
}
#endif
