/* Collectives over hosts: sums travel along the chain of hosts.
 *
 * Floats are added in rank order whatever the hosts are: as ranks of a host follow each other, what host h - 1 hands on
 * is the sum of all ranks before the first one of host h, which adds its own to it and sums with the others of its host
 * in rank order. The last host has the whole sum, which goes back the same way. Each link carries every element once in
 * each direction, where direct exchanges carry it once for each rank of a host; the price is a wait for every host of
 * the chain where direct exchanges wait twice. Long arrays go in chunks, so that all links work at the same time. */
#include "parallel/comm/hosts.h"

#if defined(CRIA_MPI)

#include <stdlib.h>
#include <string.h>

enum {
    CHUNK = 32 << 10,    /* floats of one message of a sum */
    WINDOW = 1 << 20,    /* floats of a reduce-scatter at a time */
    MOST_BYTES = 1 << 30 /* of one message */
};

const char cria_hosts_name[] = "hosts";

typedef struct {
    cria_comm comm;
    cria_comm_backend_ops ops;
    cria_comm *direct, *local;
    int hosts, host; /* how many, which one is this */
    int *first;      /* [hosts + 1] */
    int64_t *needed; /* [hosts] of a sum: how many leading floats this host and those before it want */
    float *prefix;   /* [CHUNK] the sum of the hosts before */
    float *window;   /* [WINDOW] */
} hosts;

static bool leads(const hosts *h) {
    return h->comm.rank == h->first[h->host];
}

static bool is_here(const hosts *h, int rank) {
    return rank >= h->first[h->host] && rank < h->first[h->host + 1];
}

static int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* ---- sums ---- */

/* A chunk of the array under way; negative or past the end: none. */
typedef struct {
    float *data;
    int64_t count, chunks;
} chunked;

static float *chunk_at(const chunked *a, int64_t chunk) {
    return a->data + chunk * CHUNK;
}

static bool exists(const chunked *a, int64_t chunk) {
    return chunk >= 0 && chunk < a->chunks;
}

/* Floats of a chunk among the first `limit` of the array. */
static int64_t floats_of(int64_t chunk, int64_t limit) {
    int64_t left = limit - chunk * CHUNK;
    return left < 0 ? 0 : smaller(left, CHUNK);
}

/* What the first rank of a host exchanges with its neighbours in one round: sums so far go up, whole sums come down. */
static cria_status exchange(hosts *h, const chunked *a, int64_t up, int64_t down, cria_error *err) {
    enum { BYTES = sizeof(float) };
    int before = h->host > 0 ? h->first[h->host - 1] : -1, after = h->host + 1 < h->hosts ? h->first[h->host + 1] : -1;
    if (before >= 0 && exists(a, up))
        CRIA_TRY(cria_message_post_recv(h->direct, before, h->prefix, floats_of(up, a->count) * BYTES, err));
    if (after >= 0 && exists(a, down))
        CRIA_TRY(cria_message_post_recv(h->direct, after, chunk_at(a, down),
                                        floats_of(down, h->needed[h->host]) * BYTES, err));
    if (after >= 0 && exists(a, up - 1))
        CRIA_TRY(
            cria_message_post_send(h->direct, after, chunk_at(a, up - 1), floats_of(up - 1, a->count) * BYTES, err));
    if (before >= 0 && exists(a, down - 1))
        CRIA_TRY(cria_message_post_send(h->direct, before, chunk_at(a, down - 1),
                                        floats_of(down - 1, h->needed[h->host - 1]) * BYTES, err));
    return cria_message_finish(h->direct, false, "sum", err);
}

/* Sums in place; of the result, each host gets as many leading floats as it needs. Chunk c is summed on host h in round
 * c + h, and comes back to it in round c + 2 * (hosts - 1) - h. */
static cria_status sum(hosts *h, float *data, int64_t count, cria_error *err) {
    chunked a = {data, count, (count + CHUNK - 1) / CHUNK};
    int last = h->hosts - 1;
    for (int64_t round = 0; round < a.chunks + 2 * last; round++) {
        int64_t up = round - h->host, down = round - (2 * last - h->host);
        if (leads(h)) CRIA_TRY(exchange(h, &a, up, down, err));
        if (exists(&a, up)) {
            float *at = chunk_at(&a, up);
            int64_t n = floats_of(up, count);
            for (int64_t i = 0; leads(h) && h->host > 0 && i < n; i++) at[i] += h->prefix[i];
            CRIA_TRY(cria_comm_all_reduce(h->local, at, n, err));
        }
        if (exists(&a, down) && h->host < last)
            CRIA_TRY(cria_comm_broadcast(h->local, 0, chunk_at(&a, down),
                                         floats_of(down, h->needed[h->host]) * (int64_t)sizeof(float), err));
    }
    return CRIA_OK;
}

static cria_status all_reduce(cria_comm *comm, float *data, int64_t count, cria_error *err) {
    hosts *h = (hosts *)comm;
    for (int i = 0; i < h->hosts; i++) h->needed[i] = count;
    return sum(h, data, count, err);
}

static cria_status reduce_scatter(cria_comm *comm, const float *in, float *out, const int64_t *counts,
                                  cria_error *err) {
    hosts *h = (hosts *)comm;
    int64_t total = 0, begin = 0;
    for (int r = 0; r < comm->size; total += counts[r++])
        if (r == comm->rank) begin = total;
    for (int64_t at = 0; at < total; at += WINDOW) {
        int64_t n = smaller(total - at, WINDOW), end = 0;
        for (int i = 0; i < h->hosts; i++) {
            for (int r = h->first[i]; r < h->first[i + 1]; r++) end += counts[r];
            h->needed[i] = end < at ? 0 : smaller(end - at, n);
        }
        memcpy(h->window, in + at, (size_t)n * sizeof *in);
        CRIA_TRY(sum(h, h->window, n, err));
        int64_t from = begin > at ? begin : at, to = smaller(begin + counts[comm->rank], at + n);
        if (from < to) memcpy(out + (from - begin), h->window + (from - at), (size_t)(to - from) * sizeof *out);
    }
    return CRIA_OK;
}

/* ---- gathers and broadcasts ---- */

/* Every host's first rank sends what its host gathered, blocks of bytes [from[h], from[h + 1]), to the first of every
 * other. */
static cria_status exchange_blocks(hosts *h, char *out, const int64_t *from, cria_error *err) {
    int64_t most = 0, mine = from[h->host + 1] - from[h->host];
    for (int i = 0; i < h->hosts; i++) most = from[i + 1] - from[i] > most ? from[i + 1] - from[i] : most;
    for (int64_t at = 0; at < most; at += MOST_BYTES) {
        for (int i = 0; i < h->hosts; i++) {
            int64_t theirs = from[i + 1] - from[i];
            if (i == h->host) continue;
            if (theirs > at)
                CRIA_TRY(cria_message_post_recv(h->direct, h->first[i], out + from[i] + at,
                                                smaller(theirs - at, MOST_BYTES), err));
            if (mine > at)
                CRIA_TRY(cria_message_post_send(h->direct, h->first[i], out + from[h->host] + at,
                                                smaller(mine - at, MOST_BYTES), err));
        }
        CRIA_TRY(cria_message_finish(h->direct, false, "all-gather", err));
    }
    return CRIA_OK;
}

static cria_status all_gather(cria_comm *comm, const void *in, void *out, const int64_t *bytes, cria_error *err) {
    hosts *h = (hosts *)comm;
    int64_t from[CRIA_COMM_MAX_RANKS + 1], at = 0;
    for (int i = 0; i < h->hosts; i++) {
        from[i] = at;
        for (int r = h->first[i]; r < h->first[i + 1]; r++) at += bytes[r];
    }
    from[h->hosts] = at;
    char *all = out, *here = all + from[h->host], *rest = all + from[h->host + 1];
    CRIA_TRY(cria_comm_all_gather(h->local, in, here, bytes + h->first[h->host], err));
    if (leads(h)) CRIA_TRY(exchange_blocks(h, all, from, err));
    CRIA_TRY(cria_comm_broadcast(h->local, 0, all, from[h->host], err));
    return cria_comm_broadcast(h->local, 0, rest, at - from[h->host + 1], err);
}

static cria_status spread_here(hosts *h, int root, void *data, int64_t bytes, bool idle, cria_error *err) {
    return idle ? cria_comm_await_broadcast(h->local, root, data, bytes, err)
                : cria_comm_broadcast(h->local, root, data, bytes, err);
}

static cria_status broadcast(cria_comm *comm, int root, void *data, int64_t bytes, bool idle, cria_error *err) {
    hosts *h = (hosts *)comm;
    for (int64_t at = 0; at < bytes; at += MOST_BYTES) {
        int64_t n = smaller(bytes - at, MOST_BYTES);
        bool patient = idle && at == 0;
        char *part = (char *)data + at;
        for (int i = 0; comm->rank == root && i < h->hosts; i++)
            if (i != h->host) CRIA_TRY(cria_message_post_send(h->direct, h->first[i], part, n, err));
        if (!is_here(h, root) && leads(h)) CRIA_TRY(cria_message_post_recv(h->direct, root, part, n, err));
        CRIA_TRY(cria_message_finish(h->direct, patient, "broadcast", err));
        CRIA_TRY(spread_here(h, is_here(h, root) ? root - h->first[h->host] : 0, part, n, patient, err));
    }
    return CRIA_OK;
}

/* ---- pairs: nothing is sent twice ---- */

static cria_status all_to_all(cria_comm *comm, const void *in, const int64_t *give, void *out, const int64_t *receive,
                              cria_error *err) {
    hosts *h = (hosts *)comm;
    return h->direct->ops->all_to_all(h->direct, in, give, out, receive, err);
}

/* The communicator that reaches a peer, and its rank there. */
static cria_comm *way_to(const hosts *h, int *peer) {
    if (!is_here(h, *peer)) return h->direct;
    *peer -= h->first[h->host];
    return h->local;
}

static cria_status send_to(cria_comm *comm, int to, const void *data, int64_t bytes, cria_error *err) {
    cria_comm *way = way_to((hosts *)comm, &to);
    return way->ops->send(way, to, data, bytes, err);
}

static cria_status recv_from(cria_comm *comm, int from, void *data, int64_t bytes, bool idle, cria_error *err) {
    cria_comm *way = way_to((hosts *)comm, &from);
    return way->ops->recv(way, from, data, bytes, idle, err);
}

static cria_status arrived(cria_comm *comm, int from, bool *there, cria_error *err) {
    cria_comm *way = way_to((hosts *)comm, &from);
    return way->ops->arrived(way, from, there, err);
}

static void destroy(cria_comm *comm) {
    hosts *h = (hosts *)comm;
    cria_comm_destroy(h->local);
    cria_comm_destroy(h->direct);
    free(h->first);
    free(h->needed);
    free(h->prefix);
    free(h->window);
    free(h);
}

cria_comm *cria_hosts_direct(cria_comm *comm) {
    return ((hosts *)comm)->direct;
}

cria_status cria_hosts_create(cria_comm *direct, cria_comm *local, const int *first, int count,
                              cria_status (*split)(cria_comm *comm, int color, cria_comm **out, cria_error *err),
                              cria_comm **out, cria_error *err) {
    hosts *h = calloc(1, sizeof *h);
    if (!h) {
        cria_comm_destroy(local);
        cria_comm_destroy(direct);
        return cria_fail(err, CRIA_ERR_MEMORY, "no memory for a communicator of %d hosts", count);
    }
    h->ops = (cria_comm_backend_ops){.name = cria_hosts_name,
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
    h->comm = *direct; /* rank, size, names, options, health */
    h->comm.ops = &h->ops;
    h->direct = direct;
    h->local = local;
    h->hosts = count;
    h->first = malloc(((size_t)count + 1) * sizeof *h->first);
    h->needed = calloc((size_t)count, sizeof *h->needed);
    h->prefix = malloc(CHUNK * sizeof *h->prefix);
    h->window = malloc(WINDOW * sizeof *h->window);
    if (!h->first || !h->needed || !h->prefix || !h->window) {
        destroy(&h->comm);
        return cria_fail(err, CRIA_ERR_MEMORY, "no memory for a communicator of %d hosts", count);
    }
    memcpy(h->first, first, ((size_t)count + 1) * sizeof *first);
    while (!is_here(h, direct->rank)) h->host++;
    *out = &h->comm;
    return CRIA_OK;
}

#endif
