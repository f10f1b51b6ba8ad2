/* The row operators that every overlay replaces; each instruction set compiles the same bodies (kernels/cpu/body) with
 * its own vector.h. */
#ifndef CRIA_KERNELS_CPU_ROWS_H
#define CRIA_KERNELS_CPU_ROWS_H

#include "kernels/kernels.h"

#define CRIA_ROW_OVERLAYS(X)                                                                                           \
    X(norm)                                                                                                            \
    X(glu)                                                                                                             \
    X(rope)                                                                                                            \
    X(kv_store)                                                                                                        \
    X(attention)                                                                                                       \
    X(sample)

#define X(name)                                                                                                        \
    void cria_avx2_##name(const cria_##name##_args *args, cria_worker *worker);                                        \
    void cria_avx512_##name(const cria_##name##_args *args, cria_worker *worker);
CRIA_ROW_OVERLAYS(X)
#undef X

#endif
