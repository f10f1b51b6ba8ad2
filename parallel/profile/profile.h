/* Profile: what this machine's kernels and links take, as a cluster whose devices are the ranks that measured.
 *
 * Every rank measures at the same time, so that what ranks of one host share (memory bandwidth, power) is shared while
 * it is measured. Start-up thread; collective over the ranks. */
#ifndef CRIA_PARALLEL_PROFILE_PROFILE_H
#define CRIA_PARALLEL_PROFILE_PROFILE_H

#include "base/pool.h"
#include "kernels/calibrate.h"
#include "parallel/comm/comm.h"
#include "parallel/graph/graph.h"
#include "parallel/plan/cluster.h"
#include "parallel/profile/links.h"
#include "parallel/profile/shapes.h"

#include <stdio.h>

typedef struct {
    cria_profile_depth depth; /* BRIEF: under a second; QUICK: some seconds; FULL: under a minute */
    cria_pool *pool;
    cria_isa isa;
    cria_comm *comm;         /* NULL: one rank alone */
    const char *host;        /* name of this rank's host: ranks of one host have the same */
    const char *machine;     /* what its devices are called, e.g. the processor */
    double memory;           /* bytes that this rank may fill */
    const cria_graph *graph; /* the model whose shapes are measured; NULL: a grid of usual ones */
    double weight_bytes;     /* of the model; 0: not known */
    const bool *rates;       /* [CRIA_RATE_COUNT]: types to measure; NULL: all */
    FILE *progress;          /* NULL: nowhere */
} cria_profile_task;

typedef struct {
    cria_cluster *cluster;
    cria_link_samples *links; /* NULL where there is one rank */
} cria_profile;

/* The same on every rank. */
cria_status cria_profile_run(const cria_profile_task *task, cria_profile *out, cria_error *err);
void cria_profile_deinit(cria_profile *profile);

#endif
