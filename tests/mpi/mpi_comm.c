/* Run by mpirun: every operation over processes. Arguments: the backend that is expected, and how many ranks are to
 * have a host of their own, 0: hosts as they are; "lose R" or "stop R": rank R dies or stops instead, and the others
 * must be told within four seconds; "send WHAT FLOATS": only that collective of so many floats, for who counts bytes on
 * the way. */
#include "base/clock.h"
#include "parallel/comm/comm.h"
#include "tests/parallel/comm_case.h"

#if defined(CRIA_CUDA)
#include "kernels/cuda/device.h"
#endif

#include <signal.h>
#include <unistd.h>

/* Rank `victim` dies by `signal`; the others wait for it. */
static int lose(cria_comm *comm, int victim, int signal) {
    int rank = cria_comm_rank(comm), size = cria_comm_size(comm);
    cria_error err = {0};
    float data[100] = {0};
    int pid = (int)getpid();
    COMM_CHECK(cria_comm_broadcast(comm, victim, &pid, sizeof pid, &err) == CRIA_OK, "%s", err.message);
    if (rank == victim) {
        usleep(200000);
        raise(signal);
    }
    uint64_t start = cria_clock_ns();
    cria_status status = CRIA_OK;
    while (status == CRIA_OK) status = cria_comm_all_reduce(comm, data, 100, &err);
    double waited = cria_seconds_between(start, cria_clock_ns());
    char name[20];
    snprintf(name, sizeof name, "rank %d: ", victim);
    COMM_CHECK(status == CRIA_ERR_CLOSED && strncmp(err.message, name, strlen(name)) == 0, "%s", err.message);
    COMM_CHECK(waited < 4.5, "told after %.1f s", waited);
    fprintf(stderr, "rank %d was told after %.1f s: %s\n", rank, waited, err.message);
    /* The first rank is the last to go, so that the launcher ends nobody who still has something to say. */
    sleep(rank == 0 ? 1 : 0);
    if (rank == 0) kill(pid, SIGKILL); /* a stopped one would stay, and mpirun with it */
    _exit(rank == 0 ? 7 : 0);
}

/* One collective over and over: what crosses a link is counted outside. */
static int send(cria_comm *comm, const char *what, int64_t count) {
    enum { TIMES = 8 };
    int rank = cria_comm_rank(comm), size = cria_comm_size(comm);
    cria_error err = {0};
    float *data = comm_array(rank, count * size, 0), *out = comm_array(rank, count * size, 0);
    int64_t floats[64], bytes[64];
    for (int r = 0; r < size; r++) {
        floats[r] = cria_comm_part(count, size, r + 1) - cria_comm_part(count, size, r);
        bytes[r] = floats[r] * (int64_t)sizeof *data;
    }
    for (int i = 0; i < TIMES; i++) {
        cria_status status = CRIA_OK;
        if (strcmp(what, "all-reduce") == 0)
            status = cria_comm_all_reduce(comm, data, count, &err);
        else if (strcmp(what, "reduce-scatter") == 0)
            status = cria_comm_reduce_scatter(comm, data, out, floats, &err);
        else if (strcmp(what, "all-gather") == 0)
            status = cria_comm_all_gather(comm, data, out, bytes, &err);
        else if (strcmp(what, "all-to-all") == 0) {
            for (int r = 0; r < size; r++) bytes[r] = count / size * (int64_t)sizeof *data;
            status = cria_comm_all_to_all(comm, data, bytes, out, bytes, &err);
        } else
            status = cria_comm_broadcast(comm, 1, data, count * (int64_t)sizeof *data, &err);
        COMM_CHECK(status == CRIA_OK, "%s: %s", what, err.message);
    }
    COMM_CHECK(cria_comm_barrier(comm, &err) == CRIA_OK, "%s", err.message);
    free(data);
    free(out);
    cria_comm_destroy(comm);
    return 0;
}

#if defined(CRIA_CUDA)
enum { SKIPPED = 77 };

/* Rank r gets the host's GPU r. */
static int own_gpus(cria_comm **comm) {
    int rank = cria_comm_rank(*comm), devices = cria_cuda_devices();
    cria_error err = {0};
    if (devices < cria_comm_size(*comm)) {
        if (rank == 0) printf("skipped: %d GPUs for %d ranks\n", devices, cria_comm_size(*comm));
        cria_comm_destroy(*comm);
        return SKIPPED;
    }
    if (cria_comm_create_nccl(*comm, rank, comm, &err) == CRIA_OK) return 0;
    fprintf(stderr, "rank %d: %s\n", rank, err.message);
    return 1;
}
#endif

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    cria_comm_options options = {.spin = true, .ranks_per_host = atoi(argv[2])};
    cria_comm *comm;
    cria_error err = {0};
    if (cria_comm_create_mpi(&options, &comm, &err) != CRIA_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
#if defined(CRIA_CUDA)
    int owned = strcmp(argv[1], "nccl") == 0 ? own_gpus(&comm) : 0;
    if (owned) return owned;
#endif
    if (strcmp(cria_comm_backend(comm), argv[1]) != 0) {
        fprintf(stderr, "the backend is %s\n", cria_comm_backend(comm));
        return 1;
    }
    if (argc > 5) return send(comm, argv[4], atoll(argv[5]));
    if (argc > 4) return lose(comm, atoi(argv[4]), strcmp(argv[3], "stop") == 0 ? SIGSTOP : SIGKILL);
    int result = comm_check_all(comm, 2000003);
    if (result) cria_comm_end_world(result); /* the others may wait for this rank */
    cria_comm_destroy(comm);
    return result;
}
