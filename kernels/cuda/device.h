/* A CUDA device as communicators need it: memory, copies and sums, in the order of one stream. Only in builds with
 * CRIA_CUDA. There are no CUDA kernels of the operator table yet. One thread at a time. */
#ifndef CRIA_KERNELS_CUDA_DEVICE_H
#define CRIA_KERNELS_CUDA_DEVICE_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct cria_cuda cria_cuda;

/* How many devices this process sees; 0 without a driver. Any thread. */
int cria_cuda_devices(void);
/* CRIA_ERR_ARGUMENT where there is no such device. */
cria_status cria_cuda_open(int device, cria_cuda **out, cria_error *err);
/* Waits for nothing: what is still under way must not matter any more. */
void cria_cuda_close(cria_cuda *cuda);
/* Makes the device the calling thread's; to be called before anything else on a thread that has not opened it. */
cria_status cria_cuda_use(const cria_cuda *cuda, cria_error *err);
/* The cudaStream_t, for libraries that put work of their own in it. */
void *cria_cuda_stream(const cria_cuda *cuda);

cria_status cria_cuda_allocate(cria_cuda *cuda, size_t bytes, void **out, cria_error *err);
void cria_cuda_free(cria_cuda *cuda, void *memory);

/* Puts a copy in the stream; each side may be memory of the host or of the device, and stays untouched by others until
 * the stream is done. A copy to ordinary memory of the host first waits for all that is in the stream, however long
 * that takes. */
cria_status cria_cuda_copy(cria_cuda *cuda, void *to, const void *from, size_t bytes, cria_error *err);
/* Puts a sum in the stream: out[i] = parts[0][i] + parts[1][i] + ..., in this order, all in memory of the device;
 * parts are `count` floats each, one after the other. `out` may be none of them. */
cria_status cria_cuda_sum(cria_cuda *cuda, const float *parts, int part_count, int64_t count, float *out,
                          cria_error *err);
/* *done: all that was put in the stream has ended. Does not wait. */
cria_status cria_cuda_is_done(cria_cuda *cuda, bool *done, cria_error *err);

#endif
