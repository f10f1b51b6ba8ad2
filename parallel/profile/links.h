/* Links: times collectives and messages between the ranks that are there, and fits latency and bandwidth to them.
 *
 * Collective over all ranks of the communicator; start-up thread. */
#ifndef CRIA_PARALLEL_PROFILE_LINKS_H
#define CRIA_PARALLEL_PROFILE_LINKS_H

#include "parallel/comm/comm.h"
#include "parallel/plan/cluster.h"

enum { CRIA_MOST_LINK_SAMPLES = 64 };

typedef struct {
    cria_link_sample sample[CRIA_MOST_LINK_SAMPLES];
    int count;
} cria_link_samples;

/* All-reduce, all-gather and send of several sizes; `brief`: all-reduce of three sizes. Two ranks or more. */
cria_status cria_links_measure(cria_comm *comm, bool brief, cria_link_samples *out, cria_error *err);
/* Latency and bandwidth as the costs of parallel/plan/mesh.h use them, from the all-reduces over `ranks` ranks: least
 * squares of the relative errors. */
cria_link cria_links_fit(const cria_link_samples *samples, int ranks);

#endif
