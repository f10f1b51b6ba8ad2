/* What parallel/comm/nccl.c needs of NCCL's interface (NCCL 2.14 and newer; names and meaning as NVIDIA's "NCCL API"
 * says them), done by sockets between processes of this host, so that the backend runs and is tested without a GPU.
 * Work goes through the streams of fake.h, one operation after the other on a thread of their own; communicators do not
 * block. Stricter than NCCL: misuse ends the process with a message, and a lost rank is never reported, as between GPUs
 * of one host, where only an abort ends a wait for it. */
#ifndef CRIA_TESTS_FAKE_GPU_NCCL_H
#define CRIA_TESTS_FAKE_GPU_NCCL_H

#include <stddef.h>

typedef enum {
    ncclSuccess = 0,
    ncclInternalError = 3,
    ncclInvalidArgument = 4,
    ncclInvalidUsage = 5,
    ncclInProgress = 7
} ncclResult_t;
typedef enum { ncclChar = 0 } ncclDataType_t;
typedef struct {
    char internal[128];
} ncclUniqueId;
typedef struct {
    int blocking; /* 0 */
} ncclConfig_t;
#define NCCL_CONFIG_INITIALIZER                                                                                        \
    { 1 }
typedef struct ncclComm *ncclComm_t;
typedef struct fake_stream *cudaStream_t;

const char *ncclGetErrorString(ncclResult_t code);
ncclResult_t ncclGetUniqueId(ncclUniqueId *out);
ncclResult_t ncclCommInitRankConfig(ncclComm_t *out, int size, ncclUniqueId id, int rank, ncclConfig_t *config);
ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *out);
ncclResult_t ncclCommFinalize(ncclComm_t comm);
ncclResult_t ncclCommDestroy(ncclComm_t comm);
ncclResult_t ncclCommAbort(ncclComm_t comm);
ncclResult_t ncclGroupStart(void);
ncclResult_t ncclGroupEnd(void);
ncclResult_t ncclSend(const void *data, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream);
ncclResult_t ncclRecv(void *data, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream);
ncclResult_t ncclBroadcast(const void *from, void *to, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
                           cudaStream_t stream);

#endif
