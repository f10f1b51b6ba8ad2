/* Every operation of a communicator, checked against what one rank can compute alone. For any backend. */
#ifndef CRIA_TESTS_PARALLEL_COMM_CASE_H
#define CRIA_TESTS_PARALLEL_COMM_CASE_H

#include "parallel/comm/comm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The value that rank `rank` gives at place `i` of round `round`: sums of them depend on the order of summation. */
static float comm_value(int rank, int64_t i, int round) {
    uint32_t x = (uint32_t)(rank * 7919 + i * 104729 + round * 1299709) * 2654435761u;
    return (float)(x >> 8) * 1e-4f - 700.0f;
}

static float comm_sum(int size, int64_t i, int round) {
    float sum = comm_value(0, i, round);
    for (int r = 1; r < size; r++) sum += comm_value(r, i, round);
    return sum;
}

static float *comm_array(int rank, int64_t count, int round) {
    float *data = malloc((size_t)(count + 1) * sizeof *data);
    for (int64_t i = 0; data && i < count; i++) data[i] = comm_value(rank, i, round);
    return data;
}

#define COMM_CHECK(condition, ...)                                                                                     \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "rank %d of %d: %s: ", rank, size, #condition);                                            \
            fprintf(stderr, __VA_ARGS__);                                                                              \
            fputc('\n', stderr);                                                                                       \
            return 1;                                                                                                  \
        }                                                                                                              \
    } while (0)

static int comm_sums(cria_comm *comm, int64_t count, int round) {
    int rank = cria_comm_rank(comm), size = cria_comm_size(comm);
    cria_error err = {0};
    uint64_t before = cria_comm_sent(comm);
    float *data = comm_array(rank, count, round), *part = malloc((size_t)(count + 1) * sizeof *part);
    int64_t counts[64], begin = 0;
    /* Uneven parts, some of them empty. */
    for (int r = 0; r < size; r++) counts[r] = 0;
    for (int64_t i = 0, left = count; left > 0; i++) {
        int64_t n = i % size == 1 ? 0 : (left + 1) / 2;
        if (size == 1 || i >= 40) n = left;
        counts[i % size] += n;
        left -= n;
    }
    for (int r = 0; r < rank; r++) begin += counts[r];
    COMM_CHECK(cria_comm_reduce_scatter(comm, data, part, counts, &err) == CRIA_OK, "%s", err.message);
    for (int64_t i = 0; i < counts[rank]; i++)
        COMM_CHECK(part[i] == comm_sum(size, begin + i, round), "part of the sum of %lld", (long long)count);
    COMM_CHECK(cria_comm_all_reduce(comm, data, count, &err) == CRIA_OK, "%s", err.message);
    for (int64_t i = 0; i < count; i++)
        COMM_CHECK(data[i] == comm_sum(size, i, round), "element %lld of %lld", (long long)i, (long long)count);
    uint64_t sent = cria_comm_sent(comm) - before;
    uint64_t expected = (uint64_t)(cria_comm_reduce_scatter_bytes(size, rank, counts) +
                                   (count ? cria_comm_all_reduce_bytes(size, rank, count) : 0));
    COMM_CHECK(sent == (size > 1 ? expected : 0), "%llu bytes sent", (unsigned long long)sent);
    free(data);
    free(part);
    return 0;
}

static int comm_gathers(cria_comm *comm, int64_t count, int round) {
    int rank = cria_comm_rank(comm), size = cria_comm_size(comm);
    cria_error err = {0};
    int64_t bytes[64], total = 0, own = 0;
    for (int r = 0; r < size; r++) {
        bytes[r] = (r == 1 ? 0 : count + r * 3) * (int64_t)sizeof(float);
        if (r == rank) own = total;
        total += bytes[r];
    }
    char *all = malloc((size_t)total + 1);
    float *mine = comm_array(rank, bytes[rank] / (int64_t)sizeof(float), round);
    /* In place in every second round. */
    if (round % 2) memcpy(all + own, mine, (size_t)bytes[rank]);
    const void *in = round % 2 ? (const void *)(all + own) : mine;
    COMM_CHECK(cria_comm_all_gather(comm, in, all, bytes, &err) == CRIA_OK, "%s", err.message);
    for (int64_t r = 0, at = 0; r < size; at += bytes[r++])
        for (int64_t i = 0; i < bytes[r] / (int64_t)sizeof(float); i++) {
            float value;
            memcpy(&value, all + at + i * (int64_t)sizeof value, sizeof value);
            COMM_CHECK(value == comm_value((int)r, i, round), "gathered from %d", (int)r);
        }
    int root = round % size;
    float *data = comm_array(rank, count, round);
    COMM_CHECK(cria_comm_broadcast(comm, root, data, count * (int64_t)sizeof *data, &err) == CRIA_OK, "%s",
               err.message);
    for (int64_t i = 0; i < count; i++) COMM_CHECK(data[i] == comm_value(root, i, round), "broadcast from %d", root);
    free(all);
    free(mine);
    free(data);
    return 0;
}

/* What rank a sends to rank b in an all-to-all: sizes that differ both ways. */
static int64_t comm_pair(int a, int b, int64_t count) {
    return (a + b) % 3 == 0 ? 0 : count + 5 * a + b;
}

static int comm_exchanges(cria_comm *comm, int64_t count, int round) {
    int rank = cria_comm_rank(comm), size = cria_comm_size(comm);
    cria_error err = {0};
    int64_t send[64], receive[64], out_total = 0, in_total = 0;
    for (int r = 0; r < size; r++) {
        out_total += send[r] = comm_pair(rank, r, count) * (int64_t)sizeof(float);
        in_total += receive[r] = comm_pair(r, rank, count) * (int64_t)sizeof(float);
    }
    float *out = malloc((size_t)out_total + 4), *in = malloc((size_t)in_total + 4), *to = out, *from = in;
    for (int r = 0; r < size; r++)
        for (int64_t i = 0; i < comm_pair(rank, r, count); i++) *to++ = comm_value(rank, i + r, round);
    COMM_CHECK(cria_comm_all_to_all(comm, out, send, in, receive, &err) == CRIA_OK, "%s", err.message);
    for (int r = 0; r < size; r++)
        for (int64_t i = 0; i < comm_pair(r, rank, count); i++, from++)
            COMM_CHECK(*from == comm_value(r, i + rank, round), "from %d", r);
    free(out);
    free(in);
    /* A ring: even ranks send first, odd ones receive first. */
    if (size == 1) return 0;
    float *data = comm_array(rank, count, round), *got = malloc((size_t)(count + 1) * sizeof *got);
    int next = (rank + 1) % size, before = (rank + size - 1) % size;
    int64_t bytes = count * (int64_t)sizeof *data;
    bool first = rank % 2 == 0 && rank + 1 < size;
    if (first) COMM_CHECK(cria_comm_send(comm, next, data, bytes, &err) == CRIA_OK, "%s", err.message);
    COMM_CHECK(cria_comm_recv(comm, before, got, bytes, &err) == CRIA_OK, "%s", err.message);
    if (!first) COMM_CHECK(cria_comm_send(comm, next, data, bytes, &err) == CRIA_OK, "%s", err.message);
    for (int64_t i = 0; i < count; i++) COMM_CHECK(got[i] == comm_value(before, i, round), "received");
    free(data);
    free(got);
    return 0;
}

/* Rank 0 sees a message from each of the others once it is there, and not before. */
static int comm_arrives(cria_comm *comm) {
    int rank = cria_comm_rank(comm), size = cria_comm_size(comm), value = rank;
    cria_error err = {0};
    bool there = true;
    for (int r = 1; rank == 0 && r < size; r++) {
        COMM_CHECK(cria_comm_arrived(comm, r, &there, &err) == CRIA_OK, "%s", err.message);
        COMM_CHECK(!there, "nothing was sent yet by rank %d", r);
    }
    COMM_CHECK(cria_comm_barrier(comm, &err) == CRIA_OK, "%s", err.message);
    if (rank > 0) COMM_CHECK(cria_comm_send(comm, 0, &value, sizeof value, &err) == CRIA_OK, "%s", err.message);
    for (int r = 1; rank == 0 && r < size; r++) {
        for (there = false; !there;) COMM_CHECK(cria_comm_arrived(comm, r, &there, &err) == CRIA_OK, "%s", err.message);
        COMM_CHECK(cria_comm_recv(comm, r, &value, sizeof value, &err) == CRIA_OK, "%s", err.message);
        COMM_CHECK(value == r, "%d came from rank %d", value, r);
        COMM_CHECK(cria_comm_arrived(comm, r, &there, &err) == CRIA_OK && !there, "it was taken");
    }
    return 0;
}

/* All of it in mixed sizes, then within halves of the ranks. Returns 0, or 1 after saying what differs. */
static int comm_check_all(cria_comm *comm, int64_t largest) {
    int rank = cria_comm_rank(comm), size = cria_comm_size(comm);
    const int64_t counts[] = {1, 0, 7, 1000, 4096, 5003, 70001, largest};
    cria_error err = {0};
    int round = 0;
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++, round++) {
        if (comm_sums(comm, counts[i], round) || comm_gathers(comm, counts[i], round) ||
            comm_exchanges(comm, counts[i], round))
            return 1;
    }
    if (comm_arrives(comm)) return 1;
    COMM_CHECK(cria_comm_barrier(comm, &err) == CRIA_OK, "%s", err.message);
    if (size < 3) return 0;
    cria_comm *half;
    COMM_CHECK(cria_comm_split(comm, rank == 1 ? -1 : rank % 2, &half, &err) == CRIA_OK, "%s", err.message);
    COMM_CHECK((half == NULL) == (rank == 1), "split");
    if (half) {
        COMM_CHECK(cria_comm_size(half) == (rank % 2 ? size / 2 - 1 : (size + 1) / 2), "split");
        if (comm_sums(half, 5003, round) || comm_gathers(half, 1000, round) || comm_exchanges(half, 77, round))
            return 1;
    }
    cria_comm_destroy(half);
    return 0;
}

#endif
