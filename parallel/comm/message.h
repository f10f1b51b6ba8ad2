/* Message: a communicator whose ranks lie on several hosts, over MPI's point-to-point messages; and the beats of ranks
 * on other hosts. Internal to parallel/comm, only where there is MPI. */
#ifndef CRIA_PARALLEL_COMM_MESSAGE_H
#define CRIA_PARALLEL_COMM_MESSAGE_H

#include "parallel/comm/backend.h"

#include <mpi.h>

/* Borrows comm and world from `owner`, which goes to `release` on destroy, or at once where this fails. */
cria_status cria_message_create(MPI_Comm comm, const int *world, const cria_comm_options *options, cria_health *health,
                                cria_status (*split)(cria_comm *comm, int color, cria_comm **out, cria_error *err),
                                void (*release)(void *owner), void *owner, cria_comm **out, cria_error *err);
void *cria_message_owner(cria_comm *comm);
/* Messages of a collective (at most 1 GiB each, two for each other rank), and the wait for all that were posted. */
cria_status cria_message_post_send(cria_comm *comm, int to, const void *data, int64_t bytes, cria_error *err);
cria_status cria_message_post_recv(cria_comm *comm, int from, void *data, int64_t bytes, cria_error *err);
cria_status cria_message_finish(cria_comm *comm, bool idle, const char *what, cria_error *err);

/* The first rank of every host tells those of the others what it knows, in each round of the watching thread.
 * Collective over `all`. */
typedef struct cria_message_beats cria_message_beats;
cria_status cria_message_beats_create(MPI_Comm all, MPI_Comm host, cria_health *health, cria_message_beats **out,
                                      cria_error *err);
/* After the health was destroyed. */
void cria_message_beats_destroy(cria_message_beats *beats);

#endif
