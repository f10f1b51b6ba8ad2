/* Times the collectives of a decode step and of a prefill over this machine's ranks, beside what its memory gives.
 * mpirun -n 2 build/cria_bench_collectives */
#include "base/clock.h"
#include "parallel/comm/comm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROUNDS = 15 };

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Median over rounds of the mean of `times` calls, in seconds; a negative count gathers instead of summing. */
static double measure(cria_comm *comm, float *data, int64_t count, int times, bool gather, cria_error *err) {
    double seconds[ROUNDS];
    int64_t bytes[CRIA_COMM_MAX_RANKS];
    int size = cria_comm_size(comm);
    for (int r = 0; r < size; r++) bytes[r] = count / size * 4;
    for (int round = 0; round < ROUNDS; round++) {
        if (cria_comm_barrier(comm, err) != CRIA_OK) return -1;
        uint64_t start = cria_clock_ns();
        for (int i = 0; i < times; i++) {
            cria_status status =
                gather ? cria_comm_all_gather(comm, (char *)data + cria_comm_rank(comm) * bytes[0], data, bytes, err)
                       : cria_comm_all_reduce(comm, data, count, err);
            if (status != CRIA_OK) return -1;
        }
        seconds[round] = cria_seconds_between(start, cria_clock_ns()) / times;
    }
    qsort(seconds, ROUNDS, sizeof *seconds, by_size);
    return seconds[ROUNDS / 2];
}

int main(int argc, char **argv) {
    static const int64_t counts[] = {1, 576, 768, 1024, 2048, 4096, 16 * 576, 16 * 2048, 512 * 576, 512 * 2048};
    cria_error err = {0};
    cria_comm *comm;
    cria_comm_options options = {.spin = true, .ranks_per_host = argc > 1 && strcmp(argv[1], "messages") == 0};
    if (cria_comm_create_mpi(&options, &comm, &err) != CRIA_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    bool first = cria_comm_rank(comm) == 0;
    float *data = calloc(512 * 2048, sizeof *data), *copy = calloc(512 * 2048, sizeof *copy);
    if (!data || !copy) return 1;
    if (first)
        printf("%d ranks, %s\n  floats  all-reduce us   GB/s  all-gather us  one copy us\n", cria_comm_size(comm),
               cria_comm_backend(comm));
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        int64_t n = counts[i];
        int times = n < 10000 ? 500 : 20;
        double sum = measure(comm, data, n, times, false, &err), all = measure(comm, data, n, times, true, &err);
        uint64_t start = cria_clock_ns();
        for (int k = 0; k < times; k++) {
            memcpy(k % 2 ? data : copy, k % 2 ? copy : data, (size_t)n * sizeof *data);
            __asm__ volatile("" ::: "memory");
        }
        double one = cria_seconds_between(start, cria_clock_ns()) / times;
        if (first)
            printf("%8lld  %13.2f  %5.2f  %13.2f  %11.2f\n", (long long)n, sum * 1e6, (double)n * 4e-9 / sum, all * 1e6,
                   one * 1e6);
    }
    free(data);
    free(copy);
    cria_comm_destroy(comm);
    return 0;
}
