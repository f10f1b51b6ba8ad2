/* Calibration: what this machine gives at this moment, as the limits that speeds are compared with.
 *
 * A plain read of a buffer again and again, and loops of nothing but one multiply instruction, on all workers of a pool
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
    double bf16_gflops; /* tdpbf16ps on AMX tiles, else vdpbf16ps */
    double i8_gops; /* u8 x s8 dot product: tdpbsud on AMX tiles, vpdpbusd, or vpmaddubsw with vpmaddwd and vpaddd */
} cria_rates;

typedef struct cria_calibration cria_calibration;

/* What has to be read in a round to be beyond any share of a cache that one machine gets. */
enum { CRIA_CALIBRATION_BYTES = 256 << 20 };

/* Fills a buffer of so many bytes, at least 1 MiB: CRIA_CALIBRATION_BYTES, or each one's share of them where several
 * calibrate on one machine at the same time. The pool is borrowed. */
cria_status cria_calibration_create(cria_pool *pool, cria_isa isa, int64_t bytes, cria_calibration **out,
                                    cria_error *err);
void cria_calibration_destroy(cria_calibration *calibration);
/* The best of a few rounds of each loop, together about 0.15 s. A round reads `read_bytes`, within 1 MiB and the
 * buffer: what is to be compared may fit a cache, and then reads faster than memory gives. */
void cria_calibration_measure(cria_calibration *calibration, double read_bytes, cria_rates *out);

#endif
