/* Times the collectives of a decode step and of a prefill over this machine's ranks, beside copies of as many bytes.
 * mpirun -n 2 build/cria_bench_collectives [small|large] [messages] [apart|together]
 * apart: each rank on a processor of its own; together: all on one, though they take it that each has its own. */
#include "base/clock.h"
#include "parallel/comm/comm.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROUNDS = 51, SMALL = 4096, LARGEST = 4 << 20 /* floats */ };

typedef enum { ALL_REDUCE, ALL_GATHER, REDUCE_SCATTER, COPY, KINDS } kind;

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* `count` floats are all that is summed or gathered; every rank copies as many at the same time. */
static cria_status once(cria_comm *comm, kind what, float *data, float *other, int64_t count, cria_error *err) {
    int64_t parts[CRIA_COMM_MAX_RANKS], bytes[CRIA_COMM_MAX_RANKS];
    int size = cria_comm_size(comm), rank = cria_comm_rank(comm);
    for (int r = 0; r < size; r++) {
        parts[r] = cria_comm_part(count, size, r + 1) - cria_comm_part(count, size, r);
        bytes[r] = parts[r] * (int64_t)sizeof *data;
    }
    switch (what) {
    case ALL_REDUCE:
        return cria_comm_all_reduce(comm, data, count, err);
    case ALL_GATHER:
        return cria_comm_all_gather(comm, data + cria_comm_part(count, size, rank), data, bytes, err);
    case REDUCE_SCATTER:
        return cria_comm_reduce_scatter(comm, data, other, parts, err);
    default:
        memcpy(other, data, (size_t)count * sizeof *data);
        __asm__ volatile("" ::: "memory");
    }
    return CRIA_OK;
}

/* Median over rounds of the mean of some calls, in seconds. Rounds are so short that most are not interrupted. */
static double measure(cria_comm *comm, kind what, float *data, float *other, int64_t count, cria_error *err) {
    double seconds[ROUNDS];
    int times = count < 1000 ? 200 : count < 200000 ? (int)(200000 / count) : 1;
    for (int round = 0; round < ROUNDS; round++) {
        if (cria_comm_barrier(comm, err) != CRIA_OK) return -1;
        uint64_t start = cria_clock_ns();
        for (int i = 0; i < times; i++)
            if (once(comm, what, data, other, count, err) != CRIA_OK) return -1;
        seconds[round] = cria_seconds_between(start, cria_clock_ns()) / times;
    }
    qsort(seconds, ROUNDS, sizeof *seconds, by_size);
    return seconds[ROUNDS / 2];
}

static void run_on(int processor) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(processor, &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0) perror("sched_setaffinity");
}

int main(int argc, char **argv) {
    static const int64_t counts[] = {1, 576, 1024, 2048, SMALL, 16 * 576, 1 << 14, 1 << 16, 1 << 18, 1 << 20, LARGEST};
    cria_error err = {0};
    cria_comm *comm;
    bool small = true, large = true;
    cria_comm_options options = {.spin = true};
    for (int i = 1; i < argc; i++) {
        small &= strcmp(argv[i], "large") != 0;
        large &= strcmp(argv[i], "small") != 0;
        if (strcmp(argv[i], "messages") == 0) options.ranks_per_host = 1;
    }
    if (cria_comm_create_mpi(&options, &comm, &err) != CRIA_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "apart") == 0) run_on(cria_comm_rank(comm));
        if (strcmp(argv[i], "together") == 0) run_on(0);
    }
    bool first = cria_comm_rank(comm) == 0;
    float *data = calloc(LARGEST, sizeof *data), *other = calloc(LARGEST, sizeof *other);
    if (!data || !other) return 1;
    if (first)
        printf("%d ranks, %s; microseconds\n  floats  all-reduce  all-gather  reduce-scatter        copy\n",
               cria_comm_size(comm), cria_comm_backend(comm));
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        if (counts[i] <= SMALL ? !small : !large) continue;
        double us[KINDS];
        for (kind k = 0; k < KINDS; k++) us[k] = 1e6 * measure(comm, k, data, other, counts[i], &err);
        if (err.message[0]) fprintf(stderr, "%s\n", err.message);
        if (first)
            printf("%8lld  %10.2f  %10.2f  %14.2f  %10.2f\n", (long long)counts[i], us[ALL_REDUCE], us[ALL_GATHER],
                   us[REDUCE_SCATTER], us[COPY]);
    }
    free(data);
    free(other);
    cria_comm_destroy(comm);
    return 0;
}
