/* Ranks that are threads of one process. */
#include "parallel/comm/shared.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* One segment and its users. */
typedef struct {
    atomic_int users;
    size_t bytes;
    void *segment;
    cria_health_block *block; /* of the world; NULL for what was split from it */
} group;

/* What one rank's communicator owns: its part of the group, its map, and for the world its own view of the health. */
typedef struct {
    group *shared;
    int *world;
    cria_health *health;
} part;

/* The last one out frees it. */
static void leave(group *g) {
    if (atomic_fetch_sub(&g->users, 1) != 1) return;
    munmap(g->segment, g->bytes);
    free(g->block);
    free(g);
}

static void release(void *owner) {
    part *p = owner;
    cria_health_destroy(p->health);
    leave(p->shared);
    free(p->world);
    free(p);
}

static cria_status split(cria_comm *comm, int color, cria_comm **out, cria_error *err);
static const cria_shared_kind THREADS = {"threads", split, release};

static group *make_group(int size) {
    group *g = calloc(1, sizeof *g);
    if (!g) return NULL;
    g->bytes = cria_shared_bytes(size);
    g->segment = mmap(NULL, g->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (g->segment == MAP_FAILED) {
        free(g);
        return NULL;
    }
    return g;
}

/* The first rank of a colour makes the group and tells the others where it is. */
static cria_status split(cria_comm *comm, int color, cria_comm **out, cria_error *err) {
    struct {
        int color;
        group *shared;
    } mine = {color, NULL}, all[CRIA_COMM_MAX_RANKS];
    int64_t bytes[CRIA_COMM_MAX_RANKS];
    int size = 0, rank = 0, first = -1;
    for (int r = 0; r < comm->size; r++) bytes[r] = sizeof mine;
    CRIA_TRY(cria_comm_all_gather(comm, &mine, all, bytes, err));
    for (int r = 0; r < comm->size; r++) {
        if (all[r].color != color) continue;
        if (first < 0) first = r;
        if (r < comm->rank) rank++;
        size++;
    }
    if (color >= 0 && first == comm->rank) {
        mine.shared = make_group(size);
        if (mine.shared) atomic_store(&mine.shared->users, size);
    }
    CRIA_TRY(cria_comm_all_gather(comm, &mine, all, bytes, err));
    if (color < 0) return CRIA_OK;
    part *p = calloc(1, sizeof *p);
    int *world = calloc((size_t)size, sizeof *world);
    if (!all[first].shared || !p || !world) {
        free(p);
        free(world);
        return cria_fail(err, CRIA_ERR_MEMORY, "no memory for a communicator of %d ranks", size);
    }
    for (int r = 0, n = 0; r < comm->size; r++)
        if (all[r].color == color) world[n++] = comm->world ? comm->world[r] : r;
    *p = (part){all[first].shared, world, NULL};
    return cria_shared_create(p->shared->segment, rank, size, world, &comm->options, comm->health, &THREADS, p, out,
                              err);
}

static cria_status create_rank(group *g, int rank, int size, const cria_comm_options *options, cria_comm **out,
                               cria_error *err) {
    part *p = calloc(1, sizeof *p);
    if (!p) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for rank %d", rank);
    *p = (part){.shared = g};
    cria_status status = cria_health_create(g->block, rank, size, options->lost_seconds, false, &p->health, err);
    if (status != CRIA_OK) {
        free(p);
        return status;
    }
    atomic_fetch_add(&g->users, 1);
    return cria_shared_create(g->segment, rank, size, NULL, options, p->health, &THREADS, p, out, err);
}

cria_status cria_comm_create_threads(int size, const cria_comm_options *given, cria_comm **out, cria_error *err) {
    if (size < 1 || size > CRIA_COMM_MAX_RANKS)
        return cria_fail(err, CRIA_ERR_ARGUMENT, "%d ranks, must be 1 .. %d", size, CRIA_COMM_MAX_RANKS);
    cria_comm_options options = cria_comm_options_fill(given);
    group *g = make_group(size);
    if (g) atomic_store(&g->users, 1); /* this function, until all ranks are made */
    if (g) g->block = calloc(1, cria_health_bytes(size));
    if (!g || !g->block) {
        if (g) munmap(g->segment, g->bytes);
        free(g);
        return cria_fail(err, CRIA_ERR_MEMORY, "no memory for %d ranks", size);
    }
    for (int r = 0; r < size; r++) {
        cria_status status = create_rank(g, r, size, &options, &out[r], err);
        if (status == CRIA_OK) continue;
        for (int k = 0; k < r; k++) cria_comm_destroy(out[k]);
        leave(g);
        return status;
    }
    leave(g);
    return CRIA_OK;
}
