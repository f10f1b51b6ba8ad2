/* Ranks: the communicators that a plan's program needs, one for each group of ranks. Every rank makes its own,
 * together with all others. Where the plan runs several times beside itself, each replica has a world of its own. */
#ifndef CRIA_PARALLEL_EXECUTE_RANKS_H
#define CRIA_PARALLEL_EXECUTE_RANKS_H

#include "parallel/comm/comm.h"
#include "parallel/lower/program.h"
#include "parallel/plan/plan.h"

typedef struct {
    cria_comm *all;                     /* borrowed; rank r runs rank r % P of a plan of P ranks */
    int replicas;                       /* 1: world is all */
    cria_comm *world;                   /* of this replica: rank r runs the plan's rank r */
    cria_comm *group[CRIA_GROUP_COUNT]; /* NULL where the group has one rank */
} cria_ranks;

/* Collective over `all`, whose size must be `replicas` times the plan's. */
cria_status cria_ranks_create(cria_comm *all, const cria_plan *plan, int replicas, cria_ranks *out, cria_error *err);
void cria_ranks_destroy(cria_ranks *ranks);
/* Bytes of array data that this rank has sent in steps so far, in groups and to other stages. */
uint64_t cria_ranks_sent(const cria_ranks *ranks);

#endif
