/* What a backend of the communicator implements. Internal to parallel/comm. */
#ifndef CRIA_PARALLEL_COMM_BACKEND_H
#define CRIA_PARALLEL_COMM_BACKEND_H

#include "parallel/comm/comm.h"
#include "parallel/comm/health.h"

typedef struct {
    const char *name;
    cria_status (*all_reduce)(cria_comm *comm, float *data, int64_t count, cria_error *err);
    cria_status (*all_gather)(cria_comm *comm, const void *in, void *out, const int64_t *bytes, cria_error *err);
    cria_status (*reduce_scatter)(cria_comm *comm, const float *in, float *out, const int64_t *counts, cria_error *err);
    cria_status (*all_to_all)(cria_comm *comm, const void *in, const int64_t *send, void *out, const int64_t *receive,
                              cria_error *err);
    cria_status (*broadcast)(cria_comm *comm, int root, void *data, int64_t bytes, bool idle, cria_error *err);
    cria_status (*send)(cria_comm *comm, int to, const void *data, int64_t bytes, cria_error *err);
    cria_status (*recv)(cria_comm *comm, int from, void *data, int64_t bytes, bool idle, cria_error *err);
    cria_status (*arrived)(cria_comm *comm, int from, bool *there, cria_error *err);
    cria_status (*split)(cria_comm *comm, int color, cria_comm **out, cria_error *err);
    void (*destroy)(cria_comm *comm);
} cria_comm_backend_ops;

/* Every backend's object begins with this. */
struct cria_comm {
    const cria_comm_backend_ops *ops;
    int rank, size;
    const int *world; /* [size] ranks of the world, for messages; NULL: the same */
    uint64_t sent;
    cria_comm_options options;
    cria_health *health; /* of the world; NULL: nobody else can fail */
};

/* Lets a waiting thread be gentle: spins, then yields, then sleeps; looks after the deadline and the world's health.
 * `peer`: whom it waits for, -1: all; `idle`: without a deadline. */
typedef struct {
    uint64_t start_ns;
    unsigned rounds;
} cria_comm_wait;
cria_status cria_comm_wait_check(cria_comm *comm, cria_comm_wait *wait, int peer, bool idle, const char *what,
                                 cria_error *err);
/* The last part of it: fails where the world is not well, or where the wait is past its deadline. */
cria_status cria_comm_wait_may_go_on(cria_comm *comm, uint64_t start_ns, int peer, bool idle, const char *what,
                                     cria_error *err);
cria_comm_options cria_comm_options_fill(const cria_comm_options *options);

#endif
