/* Communicator: how the ranks of a plan exchange data, one interface for one rank alone, threads of one process,
 * processes under MPI and GPUs under NCCL.
 *
 * Every operation is collective over the communicator's ranks (send and recv: over the two of them) and must be called
 * in the same order by all of them, by one thread at a time. Sums are taken in rank order, so that results depend on
 * neither timing nor the backend's algorithm. Every wait ends: when a rank dies, stops answering or calls
 * cria_comm_abort, and when a wait passes its deadline, the communicator and all that were split from the same world
 * are poisoned, and every operation under way or to come returns CRIA_ERR_CLOSED with a message that names the rank.
 * Nothing is allocated by an operation. */
#ifndef CRIA_PARALLEL_COMM_COMM_H
#define CRIA_PARALLEL_COMM_COMM_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

#define CRIA_COMM_MAX_RANKS 1024

typedef struct {
    double deadline_seconds; /* the longest wait of one operation; <= 0: 300 */
    double lost_seconds;     /* a rank that shows no sign of life for so long is lost; <= 0: 3 */
    bool spin;               /* waiting may burn a processor for some microseconds: every rank has one of its own */
    int ranks_per_host;      /* MPI: as if every so many ranks had a host of their own; 0: hosts as they are */
} cria_comm_options;

typedef struct cria_comm cria_comm;

/* One rank alone: every operation copies at most. */
cria_status cria_comm_create_self(cria_comm **out, cria_error *err);
/* `size` ranks that are threads of this process, for tests and for runs without MPI: out[0 .. size). Each belongs to
 * its thread from then on; the last one destroyed frees what they share. */
cria_status cria_comm_create_threads(int size, const cria_comm_options *options, cria_comm **out, cria_error *err);
/* The ranks that mpirun, srun or an operator started this process with. Starts MPI; once per process. Ranks on one host
 * share memory, others send messages; a sum over several hosts crosses the link between two of them once each way, as
 * long as the ranks of a host follow each other. */
cria_status cria_comm_create_mpi(const cria_comm_options *options, cria_comm **out, cria_error *err);
/* Ranks that own GPUs (builds with CRIA_CUDA; otherwise CRIA_ERR_UNSUPPORTED). `control` joins the same ranks, from
 * cria_comm_create_mpi or split from that, and is owned from then on, also where this fails; `device`: the CUDA device
 * of this rank on its host, no two ranks may share one. Collective. All that is said here holds: sums are in rank
 * order, because the ranks add what NCCL brings; failures are those of `control`, and NCCL's own. Arrays may lie in
 * memory of the host or of the device. Short messages and broadcasts (64 kB) go through `control`, and may return
 * before the other side receives; a longer message waits for its receiver. */
cria_status cria_comm_create_nccl(cria_comm *control, int device, cria_comm **out, cria_error *err);
/* Whether this process could own that device: CRIA_ERR_UNSUPPORTED where it was built without CUDA, CRIA_ERR_ARGUMENT
 * where its host has too few. Not collective. */
cria_status cria_comm_check_gpu(int device, cria_error *err);
/* Ranks of the same colour, ordered by their present rank, get a communicator of their own; a negative colour gives
 * NULL. Collective. It must be destroyed before the communicator that it was split from. */
cria_status cria_comm_split(cria_comm *comm, int color, cria_comm **out, cria_error *err);
void cria_comm_destroy(cria_comm *comm);

int cria_comm_rank(const cria_comm *comm);
int cria_comm_size(const cria_comm *comm);
/* Bytes of array data that this rank has sent through this communicator, as cria_comm_*_bytes count them: what direct
 * exchanges need, whatever way a backend takes. */
uint64_t cria_comm_sent(const cria_comm *comm);
/* What a backend does its work on: "self", "threads", "shared memory", "hosts", "messages", "nccl". */
const char *cria_comm_backend(const cria_comm *comm);

/* data[i] = sum over ranks, in place. */
cria_status cria_comm_all_reduce(cria_comm *comm, float *data, int64_t count, cria_error *err);
/* Rank r gives bytes[r] bytes; out holds all of them, in rank order. `in` may be its own place in `out`. */
cria_status cria_comm_all_gather(cria_comm *comm, const void *in, void *out, const int64_t *bytes, cria_error *err);
/* `in` holds counts[0] + counts[1] + ... floats; `out` gets this rank's counts[rank] of the sums. */
cria_status cria_comm_reduce_scatter(cria_comm *comm, const float *in, float *out, const int64_t *counts,
                                     cria_error *err);
/* `in` holds, in rank order, send[r] bytes for rank r; `out` gets receive[r] bytes from rank r, in rank order. */
cria_status cria_comm_all_to_all(cria_comm *comm, const void *in, const int64_t *send, void *out,
                                 const int64_t *receive, cria_error *err);
cria_status cria_comm_broadcast(cria_comm *comm, int root, void *data, int64_t bytes, cria_error *err);
/* A send may return before the other side receives; messages between two ranks keep their order. */
cria_status cria_comm_send(cria_comm *comm, int to, const void *data, int64_t bytes, cria_error *err);
cria_status cria_comm_recv(cria_comm *comm, int from, void *data, int64_t bytes, cria_error *err);
cria_status cria_comm_barrier(cria_comm *comm, cria_error *err);

/* Waits without a deadline for the next broadcast from `root`, as an idle rank does; fails as all waits do when a rank
 * is lost. */
cria_status cria_comm_await_broadcast(cria_comm *comm, int root, void *data, int64_t bytes, cria_error *err);
/* The same for the next message from one rank. */
cria_status cria_comm_await(cria_comm *comm, int from, void *data, int64_t bytes, cria_error *err);

/* *there: a message from that rank has begun to arrive, so that recv would not wait long. Does not wait; fails as all
 * operations do when a rank is lost. */
cria_status cria_comm_arrived(cria_comm *comm, int from, bool *there, cria_error *err);

/* Poisons the communicator: every rank's operations fail with "rank R: reason". Any thread, any time, not collective.
 */
void cria_comm_abort(cria_comm *comm, const char *reason);
/* CRIA_OK while all ranks are well; otherwise what every operation would return. Any thread. */
cria_status cria_comm_check(cria_comm *comm, cria_error *err);

/* MPI: ends every process of the job, this one too, whatever state they are in. Does nothing where MPI was not started.
 */
void cria_comm_end_world(int exit_code);

/* Bytes that `rank` sends in each collective: a sum is a reduce-scatter of parts cut by cria_comm_part, then an
 * all-gather; every rank sends its part to each of the others. */
int64_t cria_comm_part(int64_t count, int size, int index); /* where part `index` begins; index == size gives count */
int64_t cria_comm_all_reduce_bytes(int size, int rank, int64_t count);
int64_t cria_comm_all_gather_bytes(int size, int rank, const int64_t *bytes);
int64_t cria_comm_reduce_scatter_bytes(int size, int rank, const int64_t *counts);

#endif
