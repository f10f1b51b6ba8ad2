/* Timing of collectives by size, and the straight line through them. */
#include "parallel/profile/links.h"

#include "base/clock.h"

#include <math.h>
#include <stdlib.h>

enum { MOST_BYTES = 4 << 20, ROUNDS = 5, FEWEST_ROUNDS = 3 };
static const double SLOW_SECONDS = 0.02; /* a round that takes longer is cut short */

typedef struct {
    cria_comm *comm;
    float *data, *gathered;
    int64_t *counts;
} links;

static cria_status once(const links *l, cria_link_operation operation, int64_t bytes, cria_error *err) {
    int rank = cria_comm_rank(l->comm), size = cria_comm_size(l->comm);
    switch (operation) {
    case CRIA_LINK_ALL_REDUCE:
        return cria_comm_all_reduce(l->comm, l->data, bytes / (int64_t)sizeof(float), err);
    case CRIA_LINK_ALL_GATHER:
        return cria_comm_all_gather(l->comm, l->data, l->gathered, l->counts, err);
    default:
        break;
    }
    /* There and back between the first rank and the last. */
    if (rank == 0) {
        CRIA_TRY(cria_comm_send(l->comm, size - 1, l->data, bytes, err));
        return cria_comm_recv(l->comm, size - 1, l->data, bytes, err);
    }
    if (rank < size - 1) return CRIA_OK;
    CRIA_TRY(cria_comm_recv(l->comm, 0, l->data, bytes, err));
    return cria_comm_send(l->comm, 0, l->data, bytes, err);
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* How often to measure, as the first rank decides for all by what one call took: where a link is slow, and so is
 * steady, few calls say as much as many, and nobody waits for it at every start. */
static cria_status decide(const links *l, double once_seconds, int *repeats, int *rounds, cria_error *err) {
    int decided[2] = {*repeats, ROUNDS};
    if (once_seconds * *repeats > SLOW_SECONDS) {
        decided[0] = once_seconds > SLOW_SECONDS ? 1 : (int)(SLOW_SECONDS / once_seconds);
        decided[1] = FEWEST_ROUNDS;
    }
    CRIA_TRY(cria_comm_broadcast(l->comm, 0, decided, sizeof decided, err));
    *repeats = decided[0];
    *rounds = decided[1];
    return CRIA_OK;
}

/* The median of a few rounds, as the first rank sees it; all ranks make the same calls. */
static cria_status measure(const links *l, cria_link_operation operation, int64_t bytes, int repeats, double *out,
                           cria_error *err) {
    double times[ROUNDS];
    int size = cria_comm_size(l->comm), rounds = 1;
    int64_t floats = bytes / (int64_t)sizeof(float);
    for (int r = 0; r < size; r++)
        l->counts[r] = (cria_comm_part(floats, size, r + 1) - cria_comm_part(floats, size, r)) * (int64_t)sizeof(float);
    for (int round = -1; round < rounds; round++) { /* the first is one call, and is not counted */
        CRIA_TRY(cria_comm_barrier(l->comm, err));
        uint64_t start = cria_clock_ns();
        for (int i = 0; i < (round < 0 ? 1 : repeats); i++) CRIA_TRY(once(l, operation, bytes, err));
        double seconds = cria_seconds_between(start, cria_clock_ns());
        if (round < 0)
            CRIA_TRY(decide(l, seconds, &repeats, &rounds, err));
        else
            times[round] = seconds / repeats;
    }
    qsort(times, (size_t)rounds, sizeof *times, ascending);
    *out = times[rounds / 2] / (operation == CRIA_LINK_SEND ? 2 : 1);
    return cria_comm_broadcast(l->comm, 0, out, sizeof *out, err);
}

cria_status cria_links_measure(cria_comm *comm, bool brief, cria_link_samples *out, cria_error *err) {
    links l = {.comm = comm,
               .data = calloc(1, MOST_BYTES),
               .gathered = calloc(1, MOST_BYTES),
               .counts = calloc((size_t)cria_comm_size(comm), sizeof *l.counts)};
    cria_status status =
        l.data && l.gathered && l.counts ? CRIA_OK : cria_fail(err, CRIA_ERR_MEMORY, "no memory to measure links");
    *out = (cria_link_samples){0};
    for (int o = 0; o < (brief ? 1 : CRIA_LINK_OPERATIONS) && status == CRIA_OK; o++)
        for (int64_t bytes = 1024; bytes <= (brief ? 1 << 20 : MOST_BYTES) && status == CRIA_OK;
             bytes *= brief ? 32 : 4) {
            cria_link_sample *s = &out->sample[out->count];
            *s = (cria_link_sample){.operation = (cria_link_operation)o, .bytes = (double)bytes};
            int repeats = (int)((1 << 20) / bytes);
            repeats = repeats < 2 ? 2 : repeats > (brief ? 10 : 100) ? (brief ? 10 : 100) : repeats;
            status = measure(&l, s->operation, bytes, repeats, &s->seconds, err);
            out->count++;
        }
    free(l.data);
    free(l.gathered);
    free(l.counts);
    return status;
}

cria_link cria_links_fit(const cria_link_samples *samples, int ranks) {
    /* seconds = latency * ceil(log2 n) + 2 (n - 1) / n * bytes / bandwidth, divided by the seconds that were measured.
     */
    double aa = 0, ab = 0, bb = 0, a1 = 0, b1 = 0;
    for (int i = 0; i < samples->count; i++) {
        const cria_link_sample *s = &samples->sample[i];
        if (s->operation != CRIA_LINK_ALL_REDUCE || s->seconds <= 0) continue;
        double a = ceil(log2(ranks)) / s->seconds, b = 2.0 * (ranks - 1) / ranks * s->bytes / s->seconds;
        aa += a * a;
        ab += a * b;
        bb += b * b;
        a1 += a;
        b1 += b;
    }
    double determinant = aa * bb - ab * ab;
    double latency = determinant > 0 ? (a1 * bb - b1 * ab) / determinant : 0;
    double slope = determinant > 0 ? (aa * b1 - ab * a1) / determinant : 0;
    if (latency < 1e-7) latency = 1e-7;
    if (slope < 1e-13) slope = 1e-13;
    return (cria_link){.latency = latency, .bandwidth = 1 / slope};
}
