/* Shared: a communicator over memory that all its ranks see, be they threads or processes of one host. Internal to
 * parallel/comm. */
#ifndef CRIA_PARALLEL_COMM_SHARED_H
#define CRIA_PARALLEL_COMM_SHARED_H

#include "parallel/comm/backend.h"

#include <stddef.h>

/* How a communicator is split, and who frees the segment: the one difference between threads and processes. */
typedef struct {
    const char *name;
    cria_status (*split)(cria_comm *comm, int color, cria_comm **out, cria_error *err);
    void (*release)(void *owner); /* the segment, the world's map, what else `owner` holds */
} cria_shared_kind;

/* Bytes of the segment of `size` ranks, and clearing one before the first rank uses it. */
size_t cria_shared_bytes(int size);
void cria_shared_clear(void *segment, int size);
/* `world`: [size], borrowed from the owner; `owner` goes to kind->release on destroy, or at once where this fails. */
cria_status cria_shared_create(void *segment, int rank, int size, const int *world, const cria_comm_options *options,
                               cria_health *health, const cria_shared_kind *kind, void *owner, cria_comm **out,
                               cria_error *err);
void *cria_shared_owner(cria_comm *comm); /* as it was given */

#endif
