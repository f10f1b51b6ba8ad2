/* Ranks that own GPUs: NCCL moves the bytes, a communicator of processes beside it everything else.
 *
 * NCCL's own sums are taken in an order that depends on its algorithm and on the number of GPUs, so only its sends and
 * receives are used: every rank gets all parts of its share, adds them in rank order, and hands the sum out. That moves
 * as many bytes as NCCL's ring does, and gives the bits that every other backend gives.
 *
 * Arrays pass through two windows of device memory, from wherever they lie. What must be waited for without a GPU in
 * mind goes through `control`: short messages, which never wait for their receiver there, and word that a long one is
 * about to come. NCCL never blocks (config.blocking = 0): all waiting is done here, looking after the world's health,
 * and ends in ncclCommAbort where somebody is lost. */
#include "parallel/comm/backend.h"

#if !defined(CRIA_CUDA)

cria_status cria_comm_check_gpu(int device, cria_error *err) {
    (void)device;
    return cria_fail(err, CRIA_ERR_UNSUPPORTED, "this cria was built without NCCL: its ranks own no GPUs");
}

cria_status cria_comm_create_nccl(cria_comm *control, int device, cria_comm **out, cria_error *err) {
    *out = NULL;
    cria_comm_destroy(control);
    return cria_comm_check_gpu(device, err);
}

#else

#include "kernels/cuda/device.h"

#include <nccl.h>
#include <stdlib.h>
#include <string.h>

enum {
    WINDOW = 8 << 20, /* bytes of device memory, twice */
    SHORT = 64 << 10  /* messages of so many bytes do not go through the GPUs */
};

typedef struct {
    cria_comm comm;
    cria_comm_backend_ops ops;
    cria_comm *control; /* the same ranks */
    cria_cuda *cuda;
    bool owns_cuda;
    ncclComm_t nccl; /* NULL once it was given up */
    char *in, *out;  /* [WINDOW] of the device */
} nccl;

static cudaStream_t stream(const nccl *n) {
    return cria_cuda_stream(n->cuda);
}

static int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* What is left of `all` from `at` on, at most `most`. */
static int64_t piece(int64_t all, int64_t at, int64_t most) {
    return all <= at ? 0 : smaller(all - at, most);
}

/* ---- waiting ---- */

/* Nobody is to wait for this rank, nor this rank for the GPU. */
static cria_status give_up(nccl *n, cria_status status, const cria_error *err) {
    if (status == CRIA_OK) return status;
    if (status != CRIA_ERR_CLOSED) cria_comm_abort(&n->comm, err->message);
    if (n->nccl) ncclCommAbort(n->nccl);
    n->nccl = NULL;
    return status;
}

static cria_status check(ncclResult_t code, const char *what, cria_error *err) {
    if (code == ncclSuccess || code == ncclInProgress) return CRIA_OK;
    return cria_fail(err, CRIA_ERR_IO, "NCCL: %s: %s", what, ncclGetErrorString(code));
}

/* Until NCCL has put in the stream, or has set up, what it was asked for. */
static cria_status settle(nccl *n, const char *what, cria_error *err) {
    cria_comm_wait wait = {0};
    for (;;) {
        ncclResult_t state;
        CRIA_TRY(check(ncclCommGetAsyncError(n->nccl, &state), what, err));
        CRIA_TRY(check(state, what, err));
        if (state == ncclSuccess) return CRIA_OK;
        CRIA_TRY(cria_comm_wait_check(&n->comm, &wait, -1, false, what, err));
    }
}

/* Until the stream is done. */
static cria_status finish(nccl *n, const char *what, cria_error *err) {
    cria_comm_wait wait = {0};
    for (;;) {
        bool done;
        ncclResult_t state;
        CRIA_TRY(cria_cuda_is_done(n->cuda, &done, err));
        if (done) return CRIA_OK;
        CRIA_TRY(check(ncclCommGetAsyncError(n->nccl, &state), what, err));
        CRIA_TRY(check(state, what, err));
        CRIA_TRY(cria_comm_wait_check(&n->comm, &wait, -1, false, what, err));
    }
}

static cria_status begin(nccl *n, cria_error *err) {
    CRIA_TRY(cria_comm_check(&n->comm, err));
    if (!n->nccl) return cria_fail(err, CRIA_ERR_CLOSED, "NCCL was given up");
    return cria_cuda_use(n->cuda, err);
}

/* ---- exchanges ---- */

/* With every other rank at the same time: send[r] bytes from from[r] go to rank r, receive[r] bytes come to to[r]. */
typedef struct {
    char *from[CRIA_COMM_MAX_RANKS], *to[CRIA_COMM_MAX_RANKS];
    int64_t send[CRIA_COMM_MAX_RANKS], receive[CRIA_COMM_MAX_RANKS];
} exchange;

static cria_status run(nccl *n, const exchange *e, const char *what, cria_error *err) {
    CRIA_TRY(check(ncclGroupStart(), what, err));
    cria_status status = CRIA_OK;
    for (int r = 0; r < n->comm.size; r++) {
        if (r == n->comm.rank) continue;
        if (status == CRIA_OK && e->send[r] > 0)
            status = check(ncclSend(e->from[r], (size_t)e->send[r], ncclChar, r, n->nccl, stream(n)), what, err);
        if (status == CRIA_OK && e->receive[r] > 0)
            status = check(ncclRecv(e->to[r], (size_t)e->receive[r], ncclChar, r, n->nccl, stream(n)), what, err);
    }
    ncclResult_t code = ncclGroupEnd(); /* a group that was begun must end */
    CRIA_TRY(status);
    CRIA_TRY(check(code, what, err));
    return settle(n, what, err);
}

/* Of the first window, rank r is given `floats[r]` floats from place at[r] on; this rank's sum replaces its own. */
static cria_status sum_shares(nccl *n, const int64_t *at, const int64_t *floats, const char *what, cria_error *err) {
    int rank = n->comm.rank, size = n->comm.size;
    int64_t mine = floats[rank] * (int64_t)sizeof(float);
    float *own = (float *)(void *)n->in + at[rank];
    exchange e;
    for (int r = 0; r < size; r++) {
        e.from[r] = n->in + at[r] * (int64_t)sizeof(float);
        e.send[r] = floats[r] * (int64_t)sizeof(float);
        e.to[r] = n->out + r * mine;
        e.receive[r] = mine;
    }
    CRIA_TRY(cria_cuda_copy(n->cuda, e.to[rank], own, (size_t)mine, err));
    CRIA_TRY(run(n, &e, what, err));
    return cria_cuda_sum(n->cuda, (const float *)(const void *)n->out, size, floats[rank], own, err);
}

/* Rank r's bytes[r] bytes at to[r], given by this rank from to[rank]. */
static cria_status gather(nccl *n, char *const *to, const int64_t *bytes, const char *what, cria_error *err) {
    exchange e;
    for (int r = 0; r < n->comm.size; r++) {
        e.from[r] = to[n->comm.rank];
        e.send[r] = bytes[n->comm.rank];
        e.to[r] = to[r];
        e.receive[r] = bytes[r];
    }
    return run(n, &e, what, err);
}

static cria_status reduce_window(nccl *n, float *data, int64_t count, cria_error *err) {
    static const char what[] = "all-reduce";
    int64_t at[CRIA_COMM_MAX_RANKS], floats[CRIA_COMM_MAX_RANKS], bytes[CRIA_COMM_MAX_RANKS];
    char *to[CRIA_COMM_MAX_RANKS];
    for (int r = 0; r < n->comm.size; r++) {
        at[r] = cria_comm_part(count, n->comm.size, r);
        floats[r] = cria_comm_part(count, n->comm.size, r + 1) - at[r];
        bytes[r] = floats[r] * (int64_t)sizeof *data;
        to[r] = n->in + at[r] * (int64_t)sizeof *data;
    }
    CRIA_TRY(cria_cuda_copy(n->cuda, n->in, data, (size_t)count * sizeof *data, err));
    CRIA_TRY(sum_shares(n, at, floats, what, err));
    CRIA_TRY(gather(n, to, bytes, what, err));
    CRIA_TRY(finish(n, what, err)); /* a copy to the host waits for the stream and hears of nothing */
    return cria_cuda_copy(n->cuda, data, n->in, (size_t)count * sizeof *data, err);
}

static cria_status all_reduce(cria_comm *comm, float *data, int64_t count, cria_error *err) {
    nccl *n = (nccl *)comm;
    /* Shares differ by one float, and the second window holds as many shares as there are ranks. */
    const int64_t most = WINDOW / (int64_t)sizeof *data - comm->size;
    cria_status status = begin(n, err);
    for (int64_t at = 0; at < count && status == CRIA_OK; at += most)
        status = reduce_window(n, data + at, smaller(count - at, most), err);
    if (status == CRIA_OK) status = finish(n, "all-reduce", err);
    return give_up(n, status, err);
}

static cria_status reduce_round(nccl *n, const float *in, float *out, const int64_t *counts, int64_t round,
                                cria_error *err) {
    int64_t at[CRIA_COMM_MAX_RANKS], floats[CRIA_COMM_MAX_RANKS];
    int64_t share = WINDOW / (int64_t)sizeof *in / n->comm.size;
    for (int r = 0; r < n->comm.size; in += counts[r++]) {
        at[r] = r * share;
        floats[r] = piece(counts[r], round * share, share);
        CRIA_TRY(cria_cuda_copy(n->cuda, n->in + at[r] * (int64_t)sizeof *in, in + round * share,
                                (size_t)floats[r] * sizeof *in, err));
    }
    CRIA_TRY(sum_shares(n, at, floats, "reduce-scatter", err));
    CRIA_TRY(finish(n, "reduce-scatter", err));
    int rank = n->comm.rank;
    return cria_cuda_copy(n->cuda, out + round * share, n->in + at[rank] * (int64_t)sizeof *in,
                          (size_t)floats[rank] * sizeof *in, err);
}

static cria_status reduce_scatter(cria_comm *comm, const float *in, float *out, const int64_t *counts,
                                  cria_error *err) {
    nccl *n = (nccl *)comm;
    int64_t most = 0, share = WINDOW / (int64_t)sizeof *in / comm->size;
    for (int r = 0; r < comm->size; r++) most = counts[r] > most ? counts[r] : most;
    cria_status status = begin(n, err);
    for (int64_t round = 0; round * share < most && status == CRIA_OK; round++)
        status = reduce_round(n, in, out, counts, round, err);
    if (status == CRIA_OK) status = finish(n, "reduce-scatter", err);
    return give_up(n, status, err);
}

static cria_status gather_round(nccl *n, const char *in, char *out, const int64_t *bytes, int64_t at, cria_error *err) {
    char *to[CRIA_COMM_MAX_RANKS];
    int64_t now[CRIA_COMM_MAX_RANKS], share = WINDOW / n->comm.size;
    for (int r = 0; r < n->comm.size; r++) {
        to[r] = n->out + r * share;
        now[r] = piece(bytes[r], at, share);
    }
    CRIA_TRY(cria_cuda_copy(n->cuda, to[n->comm.rank], in + at, (size_t)now[n->comm.rank], err));
    CRIA_TRY(gather(n, to, now, "all-gather", err));
    CRIA_TRY(finish(n, "all-gather", err));
    for (int r = 0; r < n->comm.size; out += bytes[r++])
        CRIA_TRY(cria_cuda_copy(n->cuda, out + at, to[r], (size_t)now[r], err));
    return CRIA_OK;
}

static cria_status all_gather(cria_comm *comm, const void *in, void *out, const int64_t *bytes, cria_error *err) {
    nccl *n = (nccl *)comm;
    int64_t most = 0, share = WINDOW / comm->size;
    for (int r = 0; r < comm->size; r++) most = bytes[r] > most ? bytes[r] : most;
    cria_status status = begin(n, err);
    for (int64_t at = 0; at < most && status == CRIA_OK; at += share) status = gather_round(n, in, out, bytes, at, err);
    if (status == CRIA_OK) status = finish(n, "all-gather", err);
    return give_up(n, status, err);
}

static cria_status swap_round(nccl *n, const char *in, const int64_t *give, char *out, const int64_t *take, int64_t at,
                              cria_error *err) {
    exchange e;
    int64_t share = WINDOW / n->comm.size;
    int rank = n->comm.rank;
    for (int r = 0; r < n->comm.size; in += give[r++]) {
        e.from[r] = n->in + r * share;
        e.to[r] = r == rank ? e.from[r] : n->out + r * share;
        e.send[r] = piece(give[r], at, share);
        e.receive[r] = piece(take[r], at, share);
        CRIA_TRY(cria_cuda_copy(n->cuda, e.from[r], in + at, (size_t)e.send[r], err));
    }
    CRIA_TRY(run(n, &e, "all-to-all", err));
    CRIA_TRY(finish(n, "all-to-all", err));
    for (int r = 0; r < n->comm.size; out += take[r++])
        CRIA_TRY(cria_cuda_copy(n->cuda, out + at, e.to[r], (size_t)e.receive[r], err));
    return CRIA_OK;
}

static cria_status all_to_all(cria_comm *comm, const void *in, const int64_t *give, void *out, const int64_t *take,
                              cria_error *err) {
    nccl *n = (nccl *)comm;
    int64_t most = 0, share = WINDOW / comm->size;
    for (int r = 0; r < comm->size; r++) {
        most = give[r] > most ? give[r] : most;
        most = take[r] > most ? take[r] : most;
    }
    cria_status status = begin(n, err);
    for (int64_t at = 0; at < most && status == CRIA_OK; at += share)
        status = swap_round(n, in, give, out, take, at, err);
    if (status == CRIA_OK) status = finish(n, "all-to-all", err);
    return give_up(n, status, err);
}

/* ---- from one rank ---- */

static cria_status spread(nccl *n, int root, char *data, int64_t bytes, cria_error *err) {
    for (int64_t at = 0; at < bytes; at += WINDOW) {
        size_t now = (size_t)piece(bytes, at, WINDOW);
        if (n->comm.rank == root) CRIA_TRY(cria_cuda_copy(n->cuda, n->in, data + at, now, err));
        CRIA_TRY(check(ncclBroadcast(n->in, n->in, now, ncclChar, root, n->nccl, stream(n)), "broadcast", err));
        CRIA_TRY(settle(n, "broadcast", err));
        CRIA_TRY(finish(n, "broadcast", err));
        if (n->comm.rank != root) CRIA_TRY(cria_cuda_copy(n->cuda, data + at, n->in, now, err));
    }
    return finish(n, "broadcast", err);
}

static cria_status broadcast(cria_comm *comm, int root, void *data, int64_t bytes, bool idle, cria_error *err) {
    nccl *n = (nccl *)comm;
    char word = 0;
    if (bytes <= SHORT) return n->control->ops->broadcast(n->control, root, data, bytes, idle, err);
    CRIA_TRY(n->control->ops->broadcast(n->control, root, &word, 1, idle, err));
    cria_status status = begin(n, err);
    if (status == CRIA_OK) status = spread(n, root, data, bytes, err);
    return give_up(n, status, err);
}

static cria_status send_long(nccl *n, int to, const char *data, int64_t bytes, cria_error *err) {
    for (int64_t at = 0; at < bytes; at += WINDOW) {
        size_t now = (size_t)piece(bytes, at, WINDOW);
        CRIA_TRY(cria_cuda_copy(n->cuda, n->in, data + at, now, err));
        CRIA_TRY(check(ncclSend(n->in, now, ncclChar, to, n->nccl, stream(n)), "send", err));
        CRIA_TRY(settle(n, "send", err));
        CRIA_TRY(finish(n, "send", err));
    }
    return CRIA_OK;
}

static cria_status send_to(cria_comm *comm, int to, const void *data, int64_t bytes, cria_error *err) {
    nccl *n = (nccl *)comm;
    char word = 0;
    if (bytes <= SHORT) return n->control->ops->send(n->control, to, data, bytes, err);
    CRIA_TRY(n->control->ops->send(n->control, to, &word, 1, err));
    cria_status status = begin(n, err);
    if (status == CRIA_OK) status = send_long(n, to, data, bytes, err);
    return give_up(n, status, err);
}

static cria_status receive_long(nccl *n, int from, char *data, int64_t bytes, cria_error *err) {
    for (int64_t at = 0; at < bytes; at += WINDOW) {
        size_t now = (size_t)piece(bytes, at, WINDOW);
        CRIA_TRY(check(ncclRecv(n->out, now, ncclChar, from, n->nccl, stream(n)), "receive", err));
        CRIA_TRY(settle(n, "receive", err));
        CRIA_TRY(finish(n, "receive", err));
        CRIA_TRY(cria_cuda_copy(n->cuda, data + at, n->out, now, err));
    }
    return finish(n, "receive", err);
}

static cria_status recv_from(cria_comm *comm, int from, void *data, int64_t bytes, bool idle, cria_error *err) {
    nccl *n = (nccl *)comm;
    char word;
    if (bytes <= SHORT) return n->control->ops->recv(n->control, from, data, bytes, idle, err);
    CRIA_TRY(n->control->ops->recv(n->control, from, &word, 1, idle, err));
    cria_status status = begin(n, err);
    if (status == CRIA_OK) status = receive_long(n, from, data, bytes, err);
    return give_up(n, status, err);
}

static cria_status arrived(cria_comm *comm, int from, bool *there, cria_error *err) {
    nccl *n = (nccl *)comm;
    return n->control->ops->arrived(n->control, from, there, err);
}

/* ---- creation ---- */

static void destroy(cria_comm *comm) {
    nccl *n = (nccl *)comm;
    cria_error ignored = {0};
    if (n->nccl && begin(n, &ignored) == CRIA_OK && check(ncclCommFinalize(n->nccl), "end", &ignored) == CRIA_OK &&
        settle(n, "end", &ignored) == CRIA_OK)
        ncclCommDestroy(n->nccl);
    else if (n->nccl)
        ncclCommAbort(n->nccl);
    if (n->cuda) {
        cria_cuda_free(n->cuda, n->in);
        cria_cuda_free(n->cuda, n->out);
    }
    if (n->owns_cuda) cria_cuda_close(n->cuda);
    cria_comm_destroy(n->control);
    free(n);
}

static cria_status start(nccl *n, cria_error *err) {
    ncclUniqueId id = {0};
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    void *in, *out;
    config.blocking = 0;
    CRIA_TRY(cria_cuda_use(n->cuda, err));
    CRIA_TRY(cria_cuda_allocate(n->cuda, WINDOW, &in, err));
    n->in = in;
    CRIA_TRY(cria_cuda_allocate(n->cuda, WINDOW, &out, err));
    n->out = out;
    if (n->comm.rank == 0) CRIA_TRY(check(ncclGetUniqueId(&id), "unique id", err));
    CRIA_TRY(cria_comm_broadcast(n->control, 0, &id, sizeof id, err));
    CRIA_TRY(check(ncclCommInitRankConfig(&n->nccl, n->comm.size, id, n->comm.rank, &config), "start", err));
    return settle(n, "start", err);
}

static cria_status split(cria_comm *comm, int color, cria_comm **out, cria_error *err);

/* `cuda`: the parent's, NULL: opened here. */
static cria_status create(cria_comm *control, int device, cria_cuda *cuda, cria_comm **out, cria_error *err) {
    nccl *n = calloc(1, sizeof *n);
    if (!n) {
        cria_comm_destroy(control);
        return cria_fail(err, CRIA_ERR_MEMORY, "no memory for a communicator of GPUs");
    }
    n->ops = (cria_comm_backend_ops){.name = "nccl",
                                     .all_reduce = all_reduce,
                                     .all_gather = all_gather,
                                     .reduce_scatter = reduce_scatter,
                                     .all_to_all = all_to_all,
                                     .broadcast = broadcast,
                                     .send = send_to,
                                     .recv = recv_from,
                                     .arrived = arrived,
                                     .split = split,
                                     .destroy = destroy};
    n->comm = *control; /* rank, size, names, options, health */
    n->comm.ops = &n->ops;
    n->comm.sent = 0;
    n->control = control;
    n->cuda = cuda;
    n->owns_cuda = cuda == NULL;
    cria_status status = cuda ? CRIA_OK : cria_cuda_open(device, &n->cuda, err);
    if (status == CRIA_OK) status = start(n, err);
    if (status != CRIA_OK) {
        give_up(n, status, err);
        destroy(&n->comm);
        return status;
    }
    *out = &n->comm;
    return CRIA_OK;
}

static cria_status split(cria_comm *comm, int color, cria_comm **out, cria_error *err) {
    nccl *n = (nccl *)comm;
    cria_comm *control;
    CRIA_TRY(cria_comm_split(n->control, color, &control, err));
    return control ? create(control, -1, n->cuda, out, err) : CRIA_OK;
}

cria_status cria_comm_check_gpu(int device, cria_error *err) {
    int count = cria_cuda_devices();
    if (device < count) return CRIA_OK;
    return cria_fail(err, CRIA_ERR_ARGUMENT, "GPUs on this host: %d, for at least %d ranks that are to own one", count,
                     device + 1);
}

cria_status cria_comm_create_nccl(cria_comm *control, int device, cria_comm **out, cria_error *err) {
    *out = NULL;
    return create(control, device, NULL, out, err);
}

#endif
