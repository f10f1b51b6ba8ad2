/* The overlays: each replaces the operators that its instruction set does better. Call them in the order of cria_isa,
 * and only where the CPU has the instructions. */
#ifndef CRIA_KERNELS_CPU_CPU_H
#define CRIA_KERNELS_CPU_CPU_H

#include "kernels/kernels.h"

/* prepare, linear */
void cria_overlay_avx2_linear(cria_kernels *table);
void cria_overlay_avx512_linear(cria_kernels *table);
void cria_overlay_avx512vnni_linear(cria_kernels *table);
void cria_overlay_avx512bf16_linear(cria_kernels *table);
void cria_overlay_amx_linear(cria_kernels *table);
/* norm, glu, rope, kv_store, attention, gather, sample */
void cria_overlay_avx2_rows(cria_kernels *table);
void cria_overlay_avx512_rows(cria_kernels *table);
/* attention over a cache of int8 */
void cria_overlay_avx512vnni_rows(cria_kernels *table);
/* attention over a cache of bf16 */
void cria_overlay_avx512bf16_rows(cria_kernels *table);

#endif
