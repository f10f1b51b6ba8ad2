/* A device that is this host's memory and a thread: what kernels/cuda/device.h promises, and what the fake of NCCL
 * needs of it. CRIA_FAKE_GPUS says how many devices there are (8). For tests. */
#ifndef CRIA_TESTS_FAKE_GPU_FAKE_H
#define CRIA_TESTS_FAKE_GPU_FAKE_H

#include <stdbool.h>
#include <stddef.h>

typedef struct fake_stream fake_stream;

/* Puts work behind all that is in the stream; `done` is called with the context on the stream's thread. */
void fake_stream_add(fake_stream *stream, void (*run)(void *context), void *context);
/* The device that cria_cuda_use made the calling thread's; -1: none. */
int fake_device_in_use(void);
/* Whether all of it is memory that some device has given out. */
bool fake_is_device_memory(const void *memory, size_t bytes);
/* For what no correct caller does: ends the process and says so. */
#define FAKE_REQUIRE(condition) fake_require(condition, #condition, __func__)
void fake_require(bool condition, const char *text, const char *where);

#endif
