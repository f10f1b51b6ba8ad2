/* Calibration: what this machine gives at this moment, as the limits that speeds are compared with.
 *
 * A read of a buffer larger than any cache, and loops of nothing but one multiply instruction, on all workers of a pool
 * at once. Machines throttle and have neighbours: measure beside every sample. One thread at a time. */
#ifndef CRIA_KERNELS_CALIBRATE_H
#define CRIA_KERNELS_CALIBRATE_H

#include "base/error.h"
#include "base/pool.h"
#include "kernels/kernels.h"

/* In 1e9 per second, all workers together; a multiplication and its addition count as two operations. 0: the
 * instruction set has no such instruction. */
typedef struct {
    double read_gbps;   /* bytes of a plain sequential read */
    double f32_gflops;  /* fused multiply-add */
    double bf16_gflops; /* vdpbf16ps */
    double i8_gops;     /* u8 x s8 dot product: vpdpbusd, or vpmaddubsw with vpmaddwd and vpaddd on AVX2 */
} cria_rates;

typedef struct cria_calibration cria_calibration;

/* Maps the buffer (256 MiB). The pool is borrowed. */
cria_status cria_calibration_create(cria_pool *pool, cria_isa isa, cria_calibration **out, cria_error *err);
void cria_calibration_destroy(cria_calibration *calibration);
/* The best of a few rounds of each loop, together about 0.15 s. */
void cria_calibration_measure(cria_calibration *calibration, cria_rates *out);

#endif
