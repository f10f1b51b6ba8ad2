/* AVX2: dot products over the quantised panels. */
#ifndef CRIA_KERNELS_CPU_AVX2_QUANTISED_H
#define CRIA_KERNELS_CPU_AVX2_QUANTISED_H

#include "kernels/cpu/linear.h"

/* At most four tokens at a time. */
cria_dot_panel cria_dot_i8_avx2, cria_dot_q8_avx2, cria_dot_q4_avx2;

#endif
