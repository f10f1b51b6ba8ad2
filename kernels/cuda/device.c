/* The CUDA runtime behind errors as values. */
#if defined(CRIA_CUDA)

#include "kernels/cuda/device.h"

#include "kernels/cuda/sum.h"

#include <cuda_runtime_api.h>
#include <stdlib.h>

struct cria_cuda {
    int device;
    cudaStream_t stream;
};

static cria_status check(cudaError_t code, const char *what, cria_error *err) {
    if (code == cudaSuccess) return CRIA_OK;
    return cria_fail(err, code == cudaErrorMemoryAllocation ? CRIA_ERR_MEMORY : CRIA_ERR_IO, "CUDA: %s: %s", what,
                     cudaGetErrorString(code));
}

int cria_cuda_devices(void) {
    int count = 0;
    return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

cria_status cria_cuda_open(int device, cria_cuda **out, cria_error *err) {
    int count = cria_cuda_devices();
    *out = NULL;
    if (device < 0 || device >= count)
        return cria_fail(err, CRIA_ERR_ARGUMENT, "CUDA device %d, there are %d", device, count);
    CRIA_TRY(check(cudaSetDevice(device), "device", err));
    cria_cuda *cuda = calloc(1, sizeof *cuda);
    if (!cuda) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for CUDA device %d", device);
    cuda->device = device;
    cria_status status = check(cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking), "stream", err);
    if (status != CRIA_OK) {
        free(cuda);
        return status;
    }
    *out = cuda;
    return CRIA_OK;
}

void cria_cuda_close(cria_cuda *cuda) {
    if (!cuda) return;
    cudaSetDevice(cuda->device);
    cudaStreamDestroy(cuda->stream);
    free(cuda);
}

cria_status cria_cuda_use(const cria_cuda *cuda, cria_error *err) {
    return check(cudaSetDevice(cuda->device), "device", err);
}

void *cria_cuda_stream(const cria_cuda *cuda) {
    return cuda->stream;
}

cria_status cria_cuda_allocate(cria_cuda *cuda, size_t bytes, void **out, cria_error *err) {
    *out = NULL;
    CRIA_TRY(cria_cuda_use(cuda, err));
    return check(cudaMalloc(out, bytes), "memory", err);
}

void cria_cuda_free(cria_cuda *cuda, void *memory) {
    if (!memory) return;
    cudaSetDevice(cuda->device);
    cudaFree(memory);
}

cria_status cria_cuda_copy(cria_cuda *cuda, void *to, const void *from, size_t bytes, cria_error *err) {
    if (bytes == 0) return CRIA_OK;
    return check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, cuda->stream), "copy", err);
}

cria_status cria_cuda_sum(cria_cuda *cuda, const float *parts, int part_count, int64_t count, float *out,
                          cria_error *err) {
    if (count == 0) return CRIA_OK;
    cria_cuda_launch_sum(parts, part_count, count, out, cuda->stream);
    return check(cudaGetLastError(), "sum", err);
}

cria_status cria_cuda_is_done(cria_cuda *cuda, bool *done, cria_error *err) {
    cudaError_t code = cudaStreamQuery(cuda->stream);
    *done = code == cudaSuccess;
    return code == cudaErrorNotReady ? CRIA_OK : check(code, "stream", err);
}

#else

typedef int cria_no_cuda; /* a file with nothing in it is not C */

#endif
