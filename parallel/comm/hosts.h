/* Hosts: a communicator whose ranks lie on several hosts, some of them together: within a host through shared memory,
 * between hosts by messages of one rank each, so that every byte crosses the link between two hosts once. Internal to
 * parallel/comm, only where there is MPI. */
#ifndef CRIA_PARALLEL_COMM_HOSTS_H
#define CRIA_PARALLEL_COMM_HOSTS_H

#include "parallel/comm/message.h"

/* `direct`: messages between all ranks; `local`: the ranks of this host, in order. Both are owned from then on, also
 * where this fails. Ranks [first[h], first[h + 1]) lie on host h. */
cria_status cria_hosts_create(cria_comm *direct, cria_comm *local, const int *first, int hosts,
                              cria_status (*split)(cria_comm *comm, int color, cria_comm **out, cria_error *err),
                              cria_comm **out, cria_error *err);
extern const char cria_hosts_name[]; /* of the backend */
cria_comm *cria_hosts_direct(cria_comm *comm);

#endif
