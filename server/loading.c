/* Amounts as messages, a negative one at the end. */
#include "server/loading.h"

#include "base/backoff.h"
#include "base/progress.h"

#include <stdlib.h>

struct cria_loading {
    cria_comm *comm; /* NULL: alone */
    int rank, size;
    cria_progress *bar;
    bool *ended; /* [size] rank 0: the rank has said that it is done */
    int left;    /* how many have not */
};

cria_status cria_loading_begin(cria_comm *comm, int64_t bytes, FILE *stream, cria_loading **out, cria_error *err) {
    int64_t all[CRIA_COMM_MAX_RANKS] = {bytes}, each[CRIA_COMM_MAX_RANKS];
    int size = comm ? cria_comm_size(comm) : 1;
    for (int r = 0; r < size; r++) each[r] = sizeof bytes;
    *out = NULL;
    if (comm) CRIA_TRY(cria_comm_all_gather(comm, &bytes, all, each, err));
    cria_loading *l = calloc(1, sizeof *l);
    if (l) l->ended = calloc((size_t)size, sizeof *l->ended);
    if (!l || !l->ended) {
        free(l);
        return cria_fail(err, CRIA_ERR_MEMORY, "no memory to hear %d ranks", size);
    }
    l->comm = comm;
    l->size = size;
    l->rank = comm ? cria_comm_rank(comm) : 0;
    l->left = size - 1;
    uint64_t total = 0;
    for (int r = 0; r < size; r++) total += (uint64_t)all[r];
    l->bar = cria_progress_create(l->rank == 0 ? stream : NULL, "packing weights", "B", total);
    *out = l;
    return CRIA_OK;
}

/* Takes what the others have said until now; false once one is lost. */
static bool listen(cria_loading *l) {
    cria_error ignored = {0};
    for (int r = 1; r < l->size; r++) {
        for (bool there = true; !l->ended[r];) {
            int64_t bytes;
            if (cria_comm_arrived(l->comm, r, &there, &ignored) != CRIA_OK) return false;
            if (!there) break;
            if (cria_comm_recv(l->comm, r, &bytes, sizeof bytes, &ignored) != CRIA_OK) return false;
            l->ended[r] = bytes < 0;
            l->left -= bytes < 0;
            if (bytes > 0) cria_progress_advance(l->bar, (uint64_t)bytes);
        }
    }
    return true;
}

static void tell(const cria_loading *l, int64_t bytes) {
    cria_error ignored = {0}; /* a loss is found by whatever comes next */
    cria_comm_send(l->comm, 0, &bytes, sizeof bytes, &ignored);
}

void cria_loading_advance(void *context, int64_t bytes) {
    cria_loading *l = context;
    if (l->rank > 0) {
        tell(l, bytes);
        return;
    }
    cria_progress_advance(l->bar, (uint64_t)bytes);
    listen(l);
}

void cria_loading_end(cria_loading *l) {
    cria_backoff backoff = {0};
    if (l->rank > 0)
        tell(l, -1);
    else
        while (l->left > 0 && listen(l) && l->left > 0) cria_backoff_wait(&backoff);
    cria_progress_destroy(l->bar);
    free(l->ended);
    free(l);
}
