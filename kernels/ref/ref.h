/* The reference operators: plain C with double accumulation, the judge of every overlay, and what runs where no overlay
 * fits the CPU. Same contract as the table (kernels/kernels.h). */
#ifndef CRIA_KERNELS_REF_REF_H
#define CRIA_KERNELS_REF_REF_H

#include "kernels/kernels.h"

#define X(name) void cria_ref_##name(const cria_##name##_args *args, cria_worker *worker);
CRIA_KERNEL_LIST(X)
#undef X

/* One activation in double, accurate to its last bits over the whole range (no cancellation in the tails). NaN stays
 * NaN. */
double cria_ref_activation(cria_activation_name name, double x);

#endif
