/* Sums of several arrays, element by element, in their order. */
#include "kernels/cuda/sum.h"

namespace {

constexpr int THREADS = 256, MOST_BLOCKS = 4096;

__global__ void sum_in_order(const float *parts, int part_count, int64_t count, float *out) {
    int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
        float sum = parts[i];
        for (int p = 1; p < part_count; p++) sum = __fadd_rn(sum, parts[p * count + i]);
        out[i] = sum;
    }
}

} // namespace

extern "C" void cria_cuda_launch_sum(const float *parts, int part_count, int64_t count, float *out,
                                     cudaStream_t stream) {
    int64_t blocks = (count + THREADS - 1) / THREADS;
    sum_in_order<<<static_cast<unsigned>(blocks < MOST_BLOCKS ? blocks : MOST_BLOCKS), THREADS, 0, stream>>>(
        parts, part_count, count, out);
}
