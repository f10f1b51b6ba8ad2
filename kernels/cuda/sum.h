/* The one kernel that communicators need, as C sees it. Internal to kernels/cuda. */
#ifndef CRIA_KERNELS_CUDA_SUM_H
#define CRIA_KERNELS_CUDA_SUM_H

#include <cuda_runtime_api.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* As cria_cuda_sum; cudaGetLastError says whether it could be started. */
void cria_cuda_launch_sum(const float *parts, int part_count, int64_t count, float *out, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
