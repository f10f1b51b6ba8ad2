/* Schedule: when every stage works on which micro-batch. Pure functions; any thread. */
#ifndef CRIA_PARALLEL_PLAN_SCHEDULE_H
#define CRIA_PARALLEL_PLAN_SCHEDULE_H

#include "parallel/plan/plan_file.h"

typedef struct {
    int stage, micro_batch;
    bool backward;
    double start, end;
} cria_schedule_slot;

/* Runs a schedule: each stage does its work in the schedule's order, as soon as what it needs is there. GPipe: all
 * forward passes, then all backward passes; 1F1B: stage s warms up with `stages - 1 - s` forward passes, then
 * alternates (Narayanan et al. 2019); inference: `rounds` forward passes of every micro-batch, a round needing the end
 * of the one before. forward[s], backward[s]: seconds of one micro-batch. Returns the slots (the caller frees them),
 * NULL without memory; *count gets their number. */
cria_schedule_slot *cria_schedule_run(cria_schedule schedule, int stages, int micro_batches, int rounds,
                                      const double *forward, const double *backward, int *count);

#endif
