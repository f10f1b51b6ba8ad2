/* What all communicators share: argument checks, counting, waiting; and the communicator of one rank alone. */
#include "parallel/comm/backend.h"

#include "base/clock.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

enum { SPIN_ROUNDS = 2000, YIELD_ROUNDS = 64, CHECK_EVERY = 16 };

int64_t cria_comm_part(int64_t count, int size, int index) {
    return count / size * index + count % size * index / size;
}

int64_t cria_comm_all_reduce_bytes(int size, int rank, int64_t count) {
    int64_t part = cria_comm_part(count, size, rank + 1) - cria_comm_part(count, size, rank);
    return (count - part + (size - 1) * part) * (int64_t)sizeof(float);
}

int64_t cria_comm_all_gather_bytes(int size, int rank, const int64_t *bytes) {
    return (size - 1) * bytes[rank];
}

int64_t cria_comm_reduce_scatter_bytes(int size, int rank, const int64_t *counts) {
    int64_t total = 0;
    for (int r = 0; r < size; r++) total += r == rank ? 0 : counts[r];
    return total * (int64_t)sizeof(float);
}

int cria_comm_rank(const cria_comm *comm) {
    return comm->rank;
}
int cria_comm_size(const cria_comm *comm) {
    return comm->size;
}
uint64_t cria_comm_sent(const cria_comm *comm) {
    return comm->sent;
}
const char *cria_comm_backend(const cria_comm *comm) {
    return comm->ops->name;
}

cria_comm_options cria_comm_options_fill(const cria_comm_options *options) {
    cria_comm_options filled = options ? *options : (cria_comm_options){0};
    if (filled.deadline_seconds <= 0) filled.deadline_seconds = 300;
    if (filled.lost_seconds <= 0) filled.lost_seconds = 3;
    return filled;
}

cria_status cria_comm_check(cria_comm *comm, cria_error *err) {
    return comm->health ? cria_health_check(comm->health, err) : CRIA_OK;
}

void cria_comm_abort(cria_comm *comm, const char *reason) {
    int rank = comm->world ? comm->world[comm->rank] : comm->rank;
    if (comm->health) cria_health_fail(comm->health, rank, reason);
}

static cria_status too_late(cria_comm *comm, int peer, const char *what, cria_error *err) {
    char reason[160];
    if (peer >= 0) {
        int rank = comm->world ? comm->world[peer] : peer;
        snprintf(reason, sizeof reason, "%s: nothing from it for %.0f s", what, comm->options.deadline_seconds);
        cria_health_fail(comm->health, rank, reason);
    } else {
        snprintf(reason, sizeof reason, "%s: waited for %.0f s", what, comm->options.deadline_seconds);
        cria_comm_abort(comm, reason);
    }
    return cria_health_check(comm->health, err);
}

cria_status cria_comm_wait_may_go_on(cria_comm *comm, uint64_t start_ns, int peer, bool idle, const char *what,
                                     cria_error *err) {
    CRIA_TRY(cria_comm_check(comm, err));
    double waited = cria_seconds_between(start_ns, cria_clock_ns());
    return idle || waited <= comm->options.deadline_seconds ? CRIA_OK : too_late(comm, peer, what, err);
}

cria_status cria_comm_wait_check(cria_comm *comm, cria_comm_wait *wait, int peer, bool idle, const char *what,
                                 cria_error *err) {
    unsigned round = wait->rounds++;
    if (comm->options.spin && round < SPIN_ROUNDS) {
#if defined(__x86_64__)
        _mm_pause();
#endif
        return CRIA_OK;
    }
    if (wait->start_ns == 0) wait->start_ns = cria_clock_ns();
    unsigned gentle = comm->options.spin ? round - SPIN_ROUNDS : round;
    if (gentle % CHECK_EVERY == 0) CRIA_TRY(cria_comm_wait_may_go_on(comm, wait->start_ns, peer, idle, what, err));
    if (gentle < YIELD_ROUNDS) {
        sched_yield();
    } else {
        /* From 20 us up to a millisecond: what is waited for takes at least as long as has been waited already. */
        long sleep = 20000L << (gentle < YIELD_ROUNDS + 60 ? (gentle - YIELD_ROUNDS) / 10 : 6);
        nanosleep(&(struct timespec){0, sleep < 1000000 ? sleep : 1000000}, NULL);
    }
    return CRIA_OK;
}

/* ---- operations ---- */

cria_status cria_comm_all_reduce(cria_comm *comm, float *data, int64_t count, cria_error *err) {
    if (comm->size == 1 || count == 0) return CRIA_OK;
    comm->sent += (uint64_t)cria_comm_all_reduce_bytes(comm->size, comm->rank, count);
    return comm->ops->all_reduce(comm, data, count, err);
}

cria_status cria_comm_all_gather(cria_comm *comm, const void *in, void *out, const int64_t *bytes, cria_error *err) {
    if (comm->size == 1) {
        if (in != out) memmove(out, in, (size_t)bytes[0]);
        return CRIA_OK;
    }
    comm->sent += (uint64_t)cria_comm_all_gather_bytes(comm->size, comm->rank, bytes);
    return comm->ops->all_gather(comm, in, out, bytes, err);
}

cria_status cria_comm_reduce_scatter(cria_comm *comm, const float *in, float *out, const int64_t *counts,
                                     cria_error *err) {
    if (comm->size == 1) {
        memmove(out, in, (size_t)counts[0] * sizeof *out);
        return CRIA_OK;
    }
    comm->sent += (uint64_t)cria_comm_reduce_scatter_bytes(comm->size, comm->rank, counts);
    return comm->ops->reduce_scatter(comm, in, out, counts, err);
}

cria_status cria_comm_all_to_all(cria_comm *comm, const void *in, const int64_t *send, void *out,
                                 const int64_t *receive, cria_error *err) {
    if (comm->size == 1) {
        memmove(out, in, (size_t)send[0]);
        return CRIA_OK;
    }
    for (int r = 0; r < comm->size; r++) comm->sent += r == comm->rank ? 0 : (uint64_t)send[r];
    return comm->ops->all_to_all(comm, in, send, out, receive, err);
}

static cria_status check_peer(const cria_comm *comm, int peer, const char *what, cria_error *err) {
    if (peer >= 0 && peer < comm->size) return CRIA_OK;
    return cria_fail(err, CRIA_ERR_INTERNAL, "%s: rank %d of %d", what, peer, comm->size);
}

cria_status cria_comm_broadcast(cria_comm *comm, int root, void *data, int64_t bytes, cria_error *err) {
    CRIA_TRY(check_peer(comm, root, "broadcast", err));
    if (comm->size == 1) return CRIA_OK;
    if (comm->rank == root) comm->sent += (uint64_t)(bytes * (comm->size - 1));
    return comm->ops->broadcast(comm, root, data, bytes, false, err);
}

cria_status cria_comm_await_broadcast(cria_comm *comm, int root, void *data, int64_t bytes, cria_error *err) {
    CRIA_TRY(check_peer(comm, root, "broadcast", err));
    return comm->size == 1 ? CRIA_OK : comm->ops->broadcast(comm, root, data, bytes, true, err);
}

cria_status cria_comm_send(cria_comm *comm, int to, const void *data, int64_t bytes, cria_error *err) {
    CRIA_TRY(check_peer(comm, to, "send", err));
    if (to == comm->rank) return cria_fail(err, CRIA_ERR_INTERNAL, "send: rank %d to itself", to);
    comm->sent += (uint64_t)bytes;
    return bytes == 0 ? CRIA_OK : comm->ops->send(comm, to, data, bytes, err);
}

cria_status cria_comm_recv(cria_comm *comm, int from, void *data, int64_t bytes, cria_error *err) {
    CRIA_TRY(check_peer(comm, from, "receive", err));
    if (from == comm->rank) return cria_fail(err, CRIA_ERR_INTERNAL, "receive: rank %d from itself", from);
    return bytes == 0 ? CRIA_OK : comm->ops->recv(comm, from, data, bytes, false, err);
}

cria_status cria_comm_await(cria_comm *comm, int from, void *data, int64_t bytes, cria_error *err) {
    CRIA_TRY(check_peer(comm, from, "receive", err));
    if (from == comm->rank) return cria_fail(err, CRIA_ERR_INTERNAL, "receive: rank %d from itself", from);
    return bytes == 0 ? CRIA_OK : comm->ops->recv(comm, from, data, bytes, true, err);
}

cria_status cria_comm_arrived(cria_comm *comm, int from, bool *there, cria_error *err) {
    *there = false;
    CRIA_TRY(check_peer(comm, from, "receive", err));
    if (from == comm->rank) return cria_fail(err, CRIA_ERR_INTERNAL, "receive: rank %d from itself", from);
    CRIA_TRY(comm->ops->arrived(comm, from, there, err));
    return *there ? CRIA_OK : cria_comm_check(comm, err);
}

cria_status cria_comm_barrier(cria_comm *comm, cria_error *err) {
    char mine = 0, all[CRIA_COMM_MAX_RANKS];
    int64_t bytes[CRIA_COMM_MAX_RANKS];
    if (comm->size == 1) return CRIA_OK;
    for (int r = 0; r < comm->size; r++) bytes[r] = 1;
    return comm->ops->all_gather(comm, &mine, all, bytes, err);
}

cria_status cria_comm_split(cria_comm *comm, int color, cria_comm **out, cria_error *err) {
    *out = NULL;
    return comm->ops->split(comm, color, out, err);
}

void cria_comm_destroy(cria_comm *comm) {
    if (comm) comm->ops->destroy(comm);
}

/* ---- one rank alone ---- */

static cria_status self_split(cria_comm *comm, int color, cria_comm **out, cria_error *err) {
    (void)comm;
    return color < 0 ? CRIA_OK : cria_comm_create_self(out, err);
}

static void self_destroy(cria_comm *comm) {
    free(comm);
}

cria_status cria_comm_create_self(cria_comm **out, cria_error *err) {
    static const cria_comm_backend_ops ops = {.name = "self", .split = self_split, .destroy = self_destroy};
    cria_comm *comm = calloc(1, sizeof *comm);
    if (!comm) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for a communicator");
    *comm = (cria_comm){.ops = &ops, .size = 1, .options = cria_comm_options_fill(NULL)};
    *out = comm;
    return CRIA_OK;
}
