/* Group: all ranks of a plan, and of its replicas, as runners. The first rank of all hands each batch to every rank of
 * a replica; stages pass values on as their programs say; the first rank of the last stage returns the results.
 *
 * Several steps may be under way, one per stage: a rank runs the batches in the order in which it was given them.
 * Replicas are ranks [i * P, (i + 1) * P) of the world for a plan of P ranks. A failure on any rank poisons the
 * communicator, so that every rank's next wait ends with the same message. */
#ifndef CRIA_PARALLEL_EXECUTE_GROUP_H
#define CRIA_PARALLEL_EXECUTE_GROUP_H

#include "parallel/execute/executor.h"

typedef struct cria_group_runner cria_group_runner;

/* `executor` was made with these ranks and limits; all are borrowed. One per rank, not collective. */
cria_status cria_group_create(cria_executor *executor, const cria_ranks *ranks, const cria_plan *plan,
                              const cria_batch_limits *limits, int64_t block_tokens, cria_group_runner **out,
                              cria_error *err);
void cria_group_destroy(cria_group_runner *group);

/* Rank 0: one runner for each replica, for one engine thread. */
int cria_group_replicas(const cria_group_runner *group);
cria_runner cria_group_as_runner(cria_group_runner *group, int replica);
/* Rank 0: the others return from cria_group_follow. */
cria_status cria_group_stop(cria_group_runner *group, cria_error *err);
/* Every other rank: runs batches until rank 0 stops the group (CRIA_OK) or something fails. */
cria_status cria_group_follow(cria_group_runner *group, cria_error *err);

#endif
