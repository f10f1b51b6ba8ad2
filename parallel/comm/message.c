/* Collectives as direct exchanges of messages: every rank sends each of the others what is theirs. */
#include "parallel/comm/backend.h"

#if defined(CRIA_MPI)

#include "parallel/comm/message.h"

#include <stdlib.h>
#include <string.h>

enum {
    TAG_COLLECTIVE = 1,
    TAG_PAIR = 2,
    SCRATCH = 1 << 20,   /* floats of partial sums from the others at a time */
    MOST_BYTES = 1 << 30 /* of one message */
};

typedef struct {
    cria_comm comm;
    cria_comm_backend_ops ops;
    MPI_Comm mpi;
    void (*release)(void *owner);
    void *owner;
    MPI_Request *requests; /* [2 * size] */
    int *peers;            /* whom each request is with */
    int pending;
    float *scratch;
} message;

static cria_status failed(int code, const char *what, cria_error *err) {
    char text[MPI_MAX_ERROR_STRING] = "";
    int length;
    MPI_Error_string(code, text, &length);
    return cria_fail(err, CRIA_ERR_CLOSED, "MPI: %s: %s", what, text);
}

static cria_status post(message *m, int code, int peer, const char *what, cria_error *err) {
    if (code != MPI_SUCCESS) return failed(code, what, err);
    m->peers[m->pending++] = peer;
    return CRIA_OK;
}

static cria_status post_send(message *m, int to, int tag, const void *data, int64_t bytes, cria_error *err) {
    if (bytes == 0) return CRIA_OK;
    return post(m, MPI_Isend(data, (int)bytes, MPI_BYTE, to, tag, m->mpi, &m->requests[m->pending]), to, "send", err);
}

static cria_status post_recv(message *m, int from, int tag, void *data, int64_t bytes, cria_error *err) {
    if (bytes == 0) return CRIA_OK;
    return post(m, MPI_Irecv(data, (int)bytes, MPI_BYTE, from, tag, m->mpi, &m->requests[m->pending]), from, "receive",
                err);
}

/* Waits for all that was posted. */
static cria_status finish(message *m, bool idle, const char *what, cria_error *err) {
    cria_status status = CRIA_OK;
    for (int i = 0; i < m->pending && status == CRIA_OK; i++) {
        cria_comm_wait wait = {0};
        for (;;) {
            int done = 0, code = MPI_Test(&m->requests[i], &done, MPI_STATUS_IGNORE);
            if (code != MPI_SUCCESS) status = failed(code, what, err);
            if (done || status != CRIA_OK) break;
            status = cria_comm_wait_check(&m->comm, &wait, m->peers[i], idle, what, err);
            if (status != CRIA_OK) break;
        }
    }
    m->pending = 0;
    return status;
}

/* Sums this rank's floats [first, first + count) of everyone's `in`; from[r] is where rank r's part begins in `in`,
 * n[r] its length. At most SCRATCH / size floats for each. */
static cria_status sum_parts(message *m, const float *in, const int64_t *from, const int64_t *n, float *out,
                             cria_error *err) {
    int rank = m->comm.rank, size = m->comm.size;
    int64_t mine = n[rank];
    for (int r = 0; r < size; r++) {
        if (r == rank) continue;
        CRIA_TRY(post_recv(m, r, TAG_COLLECTIVE, m->scratch + r * mine, mine * (int64_t)sizeof(float), err));
        CRIA_TRY(post_send(m, r, TAG_COLLECTIVE, in + from[r], n[r] * (int64_t)sizeof(float), err));
    }
    CRIA_TRY(finish(m, false, "sum", err));
    memcpy(m->scratch + rank * mine, in + from[rank], (size_t)mine * sizeof *in);
    for (int64_t i = 0; i < mine; i++) {
        float sum = m->scratch[i];
        for (int r = 1; r < size; r++) sum += m->scratch[r * mine + i];
        out[i] = sum;
    }
    return CRIA_OK;
}

static cria_status all_gather(cria_comm *comm, const void *in, void *out, const int64_t *bytes, cria_error *err) {
    message *m = (message *)comm;
    char *to = out, *own = NULL;
    int64_t most = 0;
    for (int r = 0; r < comm->size; to += bytes[r++]) {
        if (r == comm->rank) own = to;
        most = bytes[r] > most ? bytes[r] : most;
    }
    if (in != own) memcpy(own, in, (size_t)bytes[comm->rank]);
    for (int64_t at = 0; at < most; at += MOST_BYTES) {
        to = out;
        for (int r = 0; r < comm->size; to += bytes[r++]) {
            int64_t n = bytes[r] - at < MOST_BYTES ? bytes[r] - at : MOST_BYTES;
            int64_t mine = bytes[comm->rank] - at < MOST_BYTES ? bytes[comm->rank] - at : MOST_BYTES;
            if (r == comm->rank) continue;
            if (n > 0) CRIA_TRY(post_recv(m, r, TAG_COLLECTIVE, to + at, n, err));
            if (mine > 0) CRIA_TRY(post_send(m, r, TAG_COLLECTIVE, own + at, mine, err));
        }
        CRIA_TRY(finish(m, false, "all-gather", err));
    }
    return CRIA_OK;
}

static cria_status all_reduce(cria_comm *comm, float *data, int64_t count, cria_error *err) {
    message *m = (message *)comm;
    int64_t from[CRIA_COMM_MAX_RANKS], n[CRIA_COMM_MAX_RANKS], bytes[CRIA_COMM_MAX_RANKS];
    int64_t most = SCRATCH / comm->size * comm->size;
    for (int64_t at = 0; at < count; at += most) {
        int64_t now = count - at < most ? count - at : most;
        for (int r = 0; r < comm->size; r++) {
            from[r] = cria_comm_part(now, comm->size, r);
            n[r] = cria_comm_part(now, comm->size, r + 1) - from[r];
            bytes[r] = n[r] * (int64_t)sizeof(float);
        }
        float *own = data + at + from[comm->rank];
        CRIA_TRY(sum_parts(m, data + at, from, n, own, err));
        CRIA_TRY(all_gather(comm, own, data + at, bytes, err));
    }
    return CRIA_OK;
}

static cria_status reduce_scatter(cria_comm *comm, const float *in, float *out, const int64_t *counts,
                                  cria_error *err) {
    message *m = (message *)comm;
    int64_t from[CRIA_COMM_MAX_RANKS], n[CRIA_COMM_MAX_RANKS], most = 0, share = SCRATCH / comm->size;
    for (int r = 0; r < comm->size; r++) most = counts[r] > most ? counts[r] : most;
    for (int64_t at = 0; at < most; at += share) {
        int64_t begin = 0;
        for (int r = 0; r < comm->size; begin += counts[r++]) {
            int64_t left = counts[r] - at;
            n[r] = left < 0 ? 0 : left < share ? left : share;
            from[r] = begin + at;
        }
        CRIA_TRY(sum_parts(m, in, from, n, out + at, err));
    }
    return CRIA_OK;
}

static cria_status all_to_all(cria_comm *comm, const void *in, const int64_t *give, void *out, const int64_t *receive,
                              cria_error *err) {
    message *m = (message *)comm;
    const char *from = in;
    char *to = out;
    for (int r = 0; r < comm->size; from += give[r], to += receive[r], r++) {
        if (give[r] > MOST_BYTES || receive[r] > MOST_BYTES)
            return cria_fail(err, CRIA_ERR_UNSUPPORTED, "all-to-all: more than %d bytes for one rank", MOST_BYTES);
        if (r == comm->rank) {
            memcpy(to, from, (size_t)give[r]);
            continue;
        }
        CRIA_TRY(post_recv(m, r, TAG_COLLECTIVE, to, receive[r], err));
        CRIA_TRY(post_send(m, r, TAG_COLLECTIVE, from, give[r], err));
    }
    return finish(m, false, "all-to-all", err);
}

static cria_status broadcast(cria_comm *comm, int root, void *data, int64_t bytes, bool idle, cria_error *err) {
    message *m = (message *)comm;
    for (int64_t at = 0; at < bytes; at += MOST_BYTES) {
        int64_t n = bytes - at < MOST_BYTES ? bytes - at : MOST_BYTES;
        if (comm->rank != root) CRIA_TRY(post_recv(m, root, TAG_COLLECTIVE, (char *)data + at, n, err));
        for (int r = 0; comm->rank == root && r < comm->size; r++)
            if (r != root) CRIA_TRY(post_send(m, r, TAG_COLLECTIVE, (char *)data + at, n, err));
        CRIA_TRY(finish(m, idle && at == 0, "broadcast", err));
    }
    return CRIA_OK;
}

static cria_status send_to(cria_comm *comm, int to, const void *data, int64_t bytes, cria_error *err) {
    message *m = (message *)comm;
    for (int64_t at = 0; at < bytes; at += MOST_BYTES) {
        int64_t n = bytes - at < MOST_BYTES ? bytes - at : MOST_BYTES;
        CRIA_TRY(post_send(m, to, TAG_PAIR, (const char *)data + at, n, err));
        CRIA_TRY(finish(m, false, "send", err));
    }
    return CRIA_OK;
}

static cria_status recv_from(cria_comm *comm, int from, void *data, int64_t bytes, bool idle, cria_error *err) {
    message *m = (message *)comm;
    for (int64_t at = 0; at < bytes; at += MOST_BYTES) {
        int64_t n = bytes - at < MOST_BYTES ? bytes - at : MOST_BYTES;
        CRIA_TRY(post_recv(m, from, TAG_PAIR, (char *)data + at, n, err));
        CRIA_TRY(finish(m, idle && at == 0, "receive", err));
    }
    return CRIA_OK;
}

static cria_status arrived(cria_comm *comm, int from, bool *there, cria_error *err) {
    message *m = (message *)comm;
    int flag = 0, code = MPI_Iprobe(from, TAG_PAIR, m->mpi, &flag, MPI_STATUS_IGNORE);
    if (code != MPI_SUCCESS) return failed(code, "receive", err);
    *there = flag != 0;
    return CRIA_OK;
}

static void destroy(cria_comm *comm) {
    message *m = (message *)comm;
    m->release(m->owner);
    free(m->requests);
    free(m->peers);
    free(m->scratch);
    free(m);
}

void *cria_message_owner(cria_comm *comm) {
    return ((message *)comm)->owner;
}

cria_status cria_message_create(MPI_Comm comm, const int *world, const cria_comm_options *options, cria_health *health,
                                cria_status (*split)(cria_comm *comm, int color, cria_comm **out, cria_error *err),
                                void (*release)(void *owner), void *owner, cria_comm **out, cria_error *err) {
    int rank, size;
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &size);
    message *m = calloc(1, sizeof *m);
    if (!m) {
        release(owner);
        return cria_fail(err, CRIA_ERR_MEMORY, "no memory for a communicator of %d ranks", size);
    }
    m->ops = (cria_comm_backend_ops){.name = "messages",
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
    m->comm =
        (cria_comm){.ops = &m->ops, .rank = rank, .size = size, .world = world, .options = *options, .health = health};
    m->mpi = comm;
    m->release = release;
    m->owner = owner;
    m->requests = calloc(2 * (size_t)size, sizeof *m->requests);
    m->peers = calloc(2 * (size_t)size, sizeof *m->peers);
    m->scratch = malloc(SCRATCH * sizeof *m->scratch);
    if (!m->requests || !m->peers || !m->scratch) {
        destroy(&m->comm);
        return cria_fail(err, CRIA_ERR_MEMORY, "no memory for a communicator of %d ranks", size);
    }
    *out = &m->comm;
    return CRIA_OK;
}

cria_status cria_message_post_send(cria_comm *comm, int to, const void *data, int64_t bytes, cria_error *err) {
    return post_send((message *)comm, to, TAG_COLLECTIVE, data, bytes, err);
}

cria_status cria_message_post_recv(cria_comm *comm, int from, void *data, int64_t bytes, cria_error *err) {
    return post_recv((message *)comm, from, TAG_COLLECTIVE, data, bytes, err);
}

cria_status cria_message_finish(cria_comm *comm, bool idle, const char *what, cria_error *err) {
    return finish((message *)comm, idle, what, err);
}

#endif
